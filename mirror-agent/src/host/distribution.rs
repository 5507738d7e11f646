//! Which distribution this host runs, as far as its packages differ, and the command that installs
//! what is missing. [`Distribution::of_host`] looks; everything else only judges.

use std::fs;

/// A family of distributions with the same package manager and the same cut of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Distribution {
    /// Debian: one package has all modules of a kernel.
    Debian {
        /// Its release, as 12; 0 for one that has no number yet.
        version: u32,
        /// Its code name, as `bookworm`; may be empty.
        codename: String,
    },
    /// Ubuntu: rare modules are in a package of their own.
    Ubuntu,
    /// Fedora, RHEL and those that are built from them.
    RedHat,
    /// SLES and openSUSE.
    Suse,
    /// Another one.
    Other,
}

impl Distribution {
    /// What the file `os-release` of this host says.
    #[must_use]
    pub fn of_host() -> Self {
        let text = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"));
        Self::parse(&text.unwrap_or_default())
    }

    /// What a file `os-release` says: the name itself counts first, then what it is like.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let found = text.lines().find_map(|l| l.trim().strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
        };
        let (id, like) = (value("ID"), value("ID_LIKE"));
        for name in std::iter::once(id.as_str()).chain(like.split_whitespace()) {
            match name {
                "debian" => {
                    // That of a derivative is not Debian's.
                    let own = |key| if id == "debian" { value(key) } else { String::new() };
                    let version = own("VERSION_ID").parse().unwrap_or(0);
                    return Self::Debian { version, codename: own("VERSION_CODENAME") };
                }
                "ubuntu" => return Self::Ubuntu,
                "fedora" | "rhel" | "centos" => return Self::RedHat,
                "suse" | "opensuse" | "sles" | "sled" | "opensuse-leap" | "opensuse-tumbleweed" => {
                    return Self::Suse;
                }
                _ => {}
            }
        }
        Self::Other
    }

    /// How a kernel with the module `name` is had.
    #[must_use]
    pub fn module_fix(&self, name: &str) -> String {
        match self {
            // Its kernel 6.1 was built without ublk.
            Self::Debian { version: 1..=12, codename } if name == "ublk_drv" => format!(
                "apt-get install -t {codename}-backports linux-image-$(dpkg --print-architecture)  # then restart the server"
            ),
            Self::Debian { .. } => {
                "apt-get install linux-image-$(dpkg --print-architecture)  # then restart the server"
                    .to_owned()
            }
            Self::Ubuntu => "apt-get install linux-modules-extra-$(uname -r)".to_owned(),
            Self::RedHat => {
                "dnf install kernel-modules-$(uname -r) kernel-modules-extra-$(uname -r)".to_owned()
            }
            Self::Suse => {
                "zypper install kernel-default  # then restart the server; kernel-default-base lacks it"
                    .to_owned()
            }
            Self::Other => format!("a kernel, 6.0 or newer, that was built with the module {name}"),
        }
    }

    /// How the program `name` is had.
    #[must_use]
    pub fn program_fix(&self, name: &str) -> String {
        let package = match (self, name) {
            (Self::Debian { .. } | Self::Ubuntu, "nbdfuse") => "libnbd-bin",
            (_, "losetup") => "util-linux",
            _ => name,
        };
        match self {
            Self::Debian { .. } | Self::Ubuntu => format!("apt-get install {package}"),
            Self::RedHat => format!("dnf install {package}"),
            Self::Suse => format!("zypper install {package}"),
            Self::Other => format!("install {package}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Distribution::{self, *};

    const DEBIAN_12: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\n\
        VERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";

    fn debian(version: u32, codename: &str) -> Distribution {
        Debian { version, codename: codename.to_owned() }
    }

    #[test]
    fn the_host_is_known_by_its_own_name_first() {
        let parse = Distribution::parse;
        assert_eq!(parse(DEBIAN_12), debian(12, "bookworm"));
        assert_eq!(parse("ID=debian\nVERSION_CODENAME=forky"), debian(0, "forky"));
        assert_eq!(parse("NAME=Ubuntu\nVERSION_ID='24.04'\nID=ubuntu\nID_LIKE=debian"), Ubuntu);
        assert_eq!(parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=\"22\""), Ubuntu);
        assert_eq!(parse("ID=devuan\nID_LIKE=debian\nVERSION_ID=\"5\""), debian(0, ""));
        assert_eq!(parse("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\""), RedHat);
        assert_eq!(parse("ID=fedora"), RedHat);
        assert_eq!(parse("ID=\"sles\"\nID_LIKE=\"suse\""), Suse);
        assert_eq!(parse("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\""), Suse);
        assert_eq!(parse("ID=arch"), Other);
        assert_eq!(parse(""), Other);
    }

    #[test]
    fn each_gets_its_own_command() {
        let ublk = |d: Distribution| d.module_fix("ublk_drv");
        assert!(ublk(debian(12, "bookworm")).contains("-t bookworm-backports linux-image-"));
        assert!(ublk(debian(13, "trixie")).starts_with("apt-get install linux-image-"));
        assert!(
            debian(12, "bookworm").module_fix("nbd").starts_with("apt-get install linux-image")
        );
        assert!(!ublk(debian(13, "trixie")).contains("modules-extra"));
        assert!(ublk(Ubuntu).contains("linux-modules-extra-$(uname -r)"));
        assert!(ublk(RedHat).starts_with("dnf install kernel-modules"));
        assert!(ublk(Suse).starts_with("zypper install kernel-default"));
        assert!(ublk(Other).contains("ublk_drv"));
        assert_eq!(Suse.program_fix("nbdfuse"), "zypper install nbdfuse");
        assert_eq!(debian(0, "").program_fix("nbdfuse"), "apt-get install libnbd-bin");
        assert_eq!(RedHat.program_fix("losetup"), "dnf install util-linux");
        assert_eq!(Other.program_fix("nbdfuse"), "install nbdfuse");
    }
}
