//! What this kernel and this host offer to serve a device with, what is missing, and the command
//! that would fix it. [`gather`] looks; everything else only judges.

use super::distribution::Distribution;
use crate::config::FrontEnd;
use kmod_shim::nbd::kernel;
use kmod_shim::ublk::{self, Survival};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Whether a special file can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    /// It can be opened.
    Usable,
    /// There is none.
    Absent,
    /// It is there, but cannot be opened.
    Denied,
}

/// Why there is no device of the kernel's NBD client to be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoNbd {
    /// The driver is not there.
    NoDriver,
    /// It does not answer in this network namespace.
    Namespace,
    /// Something else.
    Other(String),
}

impl From<kernel::Why> for NoNbd {
    fn from(why: kernel::Why) -> Self {
        match why {
            kernel::Why::NoDriver => Self::NoDriver,
            kernel::Why::Namespace => Self::Namespace,
            kernel::Why::Other(e) => Self::Other(e.to_string()),
        }
    }
}

impl fmt::Display for NoNbd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.write_str("the module nbd is not loaded"),
            Self::Namespace => {
                f.write_str("nbd does not answer in a network namespace other than the machine's")
            }
            Self::Other(why) => write!(f, "nbd cannot be asked: {why}"),
        }
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// `/dev/ublk-control`.
    pub ublk: Node,
    /// The kernel's module folder lists `ublk_drv`, or it is built in.
    pub ublk_module: bool,
    /// Whether ublk devices outlive their agent; `None`: there is no ublk.
    pub survival: Option<Survival>,
    /// Why no io_uring can be made; `None`: it can.
    pub io_uring: Option<String>,
    /// The switch `kernel.io_uring_disabled`, where there is one.
    pub io_uring_disabled: Option<u8>,
    /// Why there is no device of the kernel's NBD client to be had; `None`: there is.
    pub nbd: Option<NoNbd>,
    /// The kernel's module folder lists `nbd`, or it is built in.
    pub nbd_module: bool,
    /// `/dev/fuse`.
    pub fuse: Node,
    /// `/dev/loop-control`.
    pub loops: Node,
    /// Which of the programs that `loop` needs are missing.
    pub programs_missing: Vec<&'static str>,
    /// This process has the capability `CAP_SYS_ADMIN`.
    pub admin: bool,
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    /// Reads can go from the disk into the request without a copy.
    pub straight: bool,
    /// Whose packages would bring what is missing.
    pub distribution: Distribution,
}

/// A way to serve a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The kernel's ublk driver.
    Ublk,
    /// The kernel's NBD client.
    Nbd,
    /// `nbdfuse` and a loop device.
    Loop,
    /// The NBD socket alone.
    NbdSocket,
}

impl Way {
    /// What `auto` tries, in this order.
    pub const AUTO: &[Self] = &[Self::Ublk, Self::Nbd, Self::Loop];

    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ublk => "ublk",
            Self::Nbd => "nbd",
            Self::Loop => "loop",
            Self::NbdSocket => "nbd-socket",
        }
    }
}

/// The way that a configuration names; `None` = `auto`.
#[must_use]
pub const fn named(front_end: FrontEnd) -> Option<Way> {
    match front_end {
        FrontEnd::Auto => None,
        FrontEnd::Ublk => Some(Way::Ublk),
        FrontEnd::Nbd => Some(Way::Nbd),
        FrontEnd::Loop => Some(Way::Loop),
        FrontEnd::NbdSocket => Some(Way::NbdSocket),
    }
}

/// Something that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// Nothing is missing.
    pub good: bool,
    /// What was found.
    pub found: String,
    /// The command that would fix it.
    pub fix: Option<String>,
}

/// How a mirror is served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Choice {
    /// The way.
    pub way: Way,
    /// It works here.
    pub works: bool,
    /// Why this one.
    pub why: String,
}

/// Looks at this kernel and this host. Opens what it looks at, and changes nothing.
#[must_use]
pub fn gather() -> Facts {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim().to_owned();
    let switch = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    Facts {
        ublk: node("/dev/ublk-control"),
        ublk_module: has_module(&release, "ublk_drv"),
        survival: ublk::survival().ok(),
        io_uring: kmod_shim::sys::Ring::new().err().map(|e| e.to_string()),
        io_uring_disabled: switch.ok().and_then(|s| s.trim().parse().ok()),
        nbd: kernel::available().err().map(NoNbd::from),
        nbd_module: has_module(&release, "nbd"),
        fuse: node("/dev/fuse"),
        loops: node("/dev/loop-control"),
        programs_missing: ["nbdfuse", "losetup"].into_iter().filter(|p| !is_program(p)).collect(),
        admin: is_admin(),
        release,
        straight: ublk::reads_straight().unwrap_or(false),
        distribution: Distribution::of_host(),
    }
}

fn node(path: &str) -> Node {
    match fs::File::options().read(true).write(true).open(path) {
        Ok(_) => Node::Usable,
        // A node whose driver is not loaded is no better than none.
        Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENODEV | nix::libc::ENXIO)) => {
            Node::Absent
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Node::Absent,
        Err(_) => Node::Denied,
    }
}

fn has_module(release: &str, name: &str) -> bool {
    let file = format!("/{name}.ko");
    ["modules.dep", "modules.builtin"].iter().any(|list| {
        let list = fs::read_to_string(Path::new("/lib/modules").join(release).join(list));
        list.unwrap_or_default().lines().any(|line| {
            let path = line.split(':').next().unwrap_or_default();
            path.find(&file).is_some_and(|at| !path[at + 1..].contains('/'))
        })
    })
}

fn is_program(name: &str) -> bool {
    super::command::SYSTEM_PATH.split(':').any(|dir| Path::new(dir).join(name).is_file())
}

fn is_admin() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let set = line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok());
    set.is_some_and(|set| set & CAP_SYS_ADMIN != 0)
}

impl Facts {
    /// Why `way` does not work here; `None`: it does.
    #[must_use]
    pub fn obstacle(&self, way: Way) -> Option<String> {
        if self.io_uring.is_some() {
            return Some("there is no io_uring".to_owned());
        }
        match way {
            Way::Ublk => match self.ublk {
                Node::Usable => None,
                Node::Absent => Some("there is no /dev/ublk-control".to_owned()),
                Node::Denied => Some("/dev/ublk-control may not be opened".to_owned()),
            },
            Way::Nbd if !self.admin => Some("CAP_SYS_ADMIN is missing".to_owned()),
            Way::Nbd => self.nbd.as_ref().map(ToString::to_string),
            Way::Loop if self.fuse != Node::Usable => Some("there is no usable /dev/fuse".into()),
            Way::Loop if self.loops != Node::Usable => {
                Some("there is no usable /dev/loop-control".to_owned())
            }
            Way::Loop => self.programs_missing.first().map(|p| format!("{p} is not installed")),
            Way::NbdSocket => None,
        }
    }

    /// How a mirror is served whose configuration says `named`, or `auto` (`None`).
    #[must_use]
    pub fn choose(&self, named: Option<Way>) -> Choice {
        if let Some(way) = named {
            let obstacle = self.obstacle(way);
            let works = obstacle.is_none();
            return Choice { way, works, why: obstacle.unwrap_or("as configured".to_owned()) };
        }
        let mut passed = Vec::new();
        for way in Way::AUTO {
            match self.obstacle(*way) {
                None if passed.is_empty() => {
                    let why = "auto: the kernel offers it".to_owned();
                    return Choice { way: *way, works: true, why };
                }
                None => {
                    let why = format!("auto: {}", passed.join(", "));
                    return Choice { way: *way, works: true, why };
                }
                Some(why) => passed.push(format!("{} does not work ({why})", way.name())),
            }
        }
        let last = Way::AUTO[Way::AUTO.len() - 1];
        Choice { way: last, works: false, why: format!("auto: {}", passed.join(", ")) }
    }

    /// Everything that was looked at.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        vec![
            self.io_uring_finding(),
            self.admin_finding(),
            self.ublk_finding(),
            self.nbd_finding(),
            self.loop_finding(),
        ]
    }

    fn io_uring_finding(&self) -> Finding {
        let what = "io_uring";
        let Some(why) = &self.io_uring else {
            return good(what, "works");
        };
        let off = self.io_uring_disabled.filter(|level| *level > 0);
        match off {
            Some(level) => bad(
                what,
                format!("{why}; kernel.io_uring_disabled is {level}"),
                Some("sysctl -w kernel.io_uring_disabled=0  # and in /etc/sysctl.d/".to_owned()),
            ),
            None => bad(
                what,
                format!(
                    "{why}; kernel 5.11 or newer is needed, and a seccomp filter must let it pass"
                ),
                None,
            ),
        }
    }

    fn admin_finding(&self) -> Finding {
        if self.admin {
            return good("CAP_SYS_ADMIN", "there");
        }
        let fix = "run the agent as root (the service does)".to_owned();
        bad("CAP_SYS_ADMIN", "missing: no mounts and no block devices", Some(fix))
    }

    fn ublk_finding(&self) -> Finding {
        match self.ublk {
            Node::Usable => good("ublk", self.ublk_found()),
            Node::Denied => bad("ublk", "/dev/ublk-control may not be opened", None),
            Node::Absent if self.ublk_module => bad(
                "ublk",
                "the module ublk_drv is not loaded",
                Some(
                    "modprobe ublk_drv && echo ublk_drv >/etc/modules-load.d/clpmd.conf".to_owned(),
                ),
            ),
            Node::Absent => bad(
                "ublk",
                format!("kernel {} has no module ublk_drv", self.release),
                Some(self.distribution.module_fix("ublk_drv")),
            ),
        }
    }

    fn ublk_found(&self) -> String {
        let reads = if self.straight { "; reads are not copied" } else { "" };
        let devices = match self.survival {
            Some(Survival::Yes) => "devices outlive the agent",
            Some(Survival::No) => "devices go with the agent (kernel without user recovery)",
            Some(Survival::Untold) => "whether devices outlive the agent shows when one is made",
            None => return "/dev/ublk-control is there, but does not answer".to_owned(),
        };
        format!("works; {devices}{reads}")
    }

    fn nbd_finding(&self) -> Finding {
        let what = "nbd";
        let Some(why) = &self.nbd else {
            return good(what, "works; devices outlive the agent");
        };
        let fix = match why {
            NoNbd::NoDriver if self.nbd_module => {
                "modprobe nbd && echo nbd >>/etc/modules-load.d/clpmd.conf".to_owned()
            }
            NoNbd::NoDriver => {
                let found = format!("kernel {} has no module nbd", self.release);
                return bad(what, found, Some(self.distribution.module_fix("nbd")));
            }
            NoNbd::Namespace => "run the agent in the machine's own network namespace".to_owned(),
            NoNbd::Other(_) => return bad(what, why.to_string(), None),
        };
        bad(what, why.to_string(), Some(fix))
    }

    fn loop_finding(&self) -> Finding {
        let what = "loop";
        if let Some(program) = self.programs_missing.first() {
            let fix = self.distribution.program_fix(program);
            return bad(what, format!("{program} is not installed"), Some(fix));
        }
        for (node, path, module) in
            [(self.fuse, "/dev/fuse", "fuse"), (self.loops, "/dev/loop-control", "loop")]
        {
            match node {
                Node::Usable => {}
                Node::Absent => {
                    let fix = format!("modprobe {module}");
                    return bad(what, format!("there is no {path}"), Some(fix));
                }
                Node::Denied => return bad(what, format!("{path} may not be opened"), None),
            }
        }
        good(what, "works; the device goes with the agent")
    }
}

fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, good: true, found: found.into(), fix: None }
}

fn bad(what: &'static str, found: impl Into<String>, fix: Option<String>) -> Finding {
    Finding { what, good: false, found: found.into(), fix }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Facts {
        Facts {
            ublk: Node::Usable,
            ublk_module: true,
            survival: Some(Survival::Yes),
            io_uring: None,
            io_uring_disabled: Some(0),
            nbd: None,
            nbd_module: true,
            fuse: Node::Usable,
            loops: Node::Usable,
            programs_missing: Vec::new(),
            admin: true,
            release: "6.12".into(),
            straight: true,
            distribution: Distribution::Ubuntu,
        }
    }

    fn finding(facts: &Facts, what: &str) -> Finding {
        facts.findings().into_iter().find(|f| f.what == what).expect("is looked at")
    }

    #[test]
    fn auto_takes_the_best_that_works_and_says_why() {
        assert_eq!(all().choose(None).way, Way::Ublk);
        let without = Facts { ublk: Node::Absent, ..all() };
        let choice = without.choose(None);
        assert_eq!((choice.way, choice.works), (Way::Nbd, true));
        assert!(choice.why.contains("no /dev/ublk-control"), "{}", choice.why);
        for nbd in [NoNbd::NoDriver, NoNbd::Namespace, NoNbd::Other("why".into())] {
            let choice = Facts { nbd: Some(nbd), ..without.clone() }.choose(None);
            assert_eq!((choice.way, choice.works), (Way::Loop, true));
            assert!(choice.why.contains("nbd does not work"), "{}", choice.why);
        }
        let nbd = Some(NoNbd::NoDriver);
        let none = Facts { ublk: Node::Denied, nbd, fuse: Node::Absent, ..all() }.choose(None);
        assert!(!none.works && none.why.contains("may not be opened") && none.why.contains("fuse"));
    }

    #[test]
    fn what_is_named_is_taken_and_judged() {
        let facts = Facts { ublk: Node::Absent, programs_missing: vec!["nbdfuse"], ..all() };
        let works = |way| facts.choose(Some(way)).works;
        assert!(!works(Way::Ublk) && !works(Way::Loop) && works(Way::NbdSocket) && works(Way::Nbd));
        assert!(!Facts { admin: false, ..all() }.choose(Some(Way::Nbd)).works);
        assert!(!Facts { nbd: Some(NoNbd::NoDriver), ..all() }.choose(Some(Way::Nbd)).works);
        let facts = Facts { io_uring: Some("EPERM".into()), ..all() };
        assert!(!facts.choose(Some(Way::NbdSocket)).works);
    }

    #[test]
    fn what_is_missing_is_told_with_its_remedy() {
        assert!(all().findings().iter().all(|f| f.good && f.fix.is_none()));
        assert!(finding(&all(), "ublk").found.contains("reads are not copied"));
        let copied = finding(&Facts { straight: false, ..all() }, "ublk");
        assert!(copied.good && !copied.found.contains("copied"));
        let fix = |facts: Facts, what| {
            let f = finding(&facts, what);
            assert!(!f.good);
            f.fix.unwrap_or_default()
        };
        let absent = Facts { ublk: Node::Absent, ..all() };
        assert!(fix(absent.clone(), "ublk").starts_with("modprobe ublk_drv"));
        let no_module = Facts { ublk_module: false, ..absent };
        assert!(fix(no_module.clone(), "ublk").contains("linux-modules-extra"));
        let debian = Distribution::Debian { version: 13, codename: "trixie".into() };
        let on_debian = Facts { distribution: debian.clone(), ..no_module };
        assert!(fix(on_debian, "ublk").starts_with("apt-get install linux-image"));
        let absent = Facts { nbd: Some(NoNbd::NoDriver), ..all() };
        assert!(fix(absent.clone(), "nbd").starts_with("modprobe nbd"));
        let no_module = Facts { nbd_module: false, ..absent };
        assert!(fix(no_module.clone(), "nbd").contains("linux-modules-extra"));
        let on_debian = Facts { distribution: debian, ..no_module };
        assert!(!fix(on_debian, "nbd").contains("linux-modules-extra"));
        let namespace = Facts { nbd: Some(NoNbd::Namespace), ..all() };
        assert!(fix(namespace, "nbd").contains("network namespace"));
        let off = Facts { io_uring: Some("EPERM".into()), io_uring_disabled: Some(2), ..all() };
        assert!(fix(off, "io_uring").contains("kernel.io_uring_disabled=0"));
        assert_eq!(fix(Facts { fuse: Node::Absent, ..all() }, "loop"), "modprobe fuse");
        assert_eq!(fix(Facts { loops: Node::Absent, ..all() }, "loop"), "modprobe loop");
        let no_program = Facts { programs_missing: vec!["nbdfuse"], ..all() };
        assert_eq!(fix(no_program, "loop"), "apt-get install libnbd-bin");
        assert!(fix(Facts { admin: false, ..all() }, "CAP_SYS_ADMIN").contains("root"));
    }
}
