//! Devices of the kernel's NBD client: which are a mirror's, and which wait for an agent.
//!
//! The kernel keeps a text with each device, and that is the only record of them: nothing has to be
//! written down before, and nothing is left behind.

pub use kmod_shim::nbd::kernel::{Found, device_path};

use kmod_shim::nbd::kernel;
use mirror_core::units::Id16;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// How the identifiers of all devices of one run folder begin. Whoever holds the lock of the folder
/// decides about them, and nobody else.
fn of_folder(run_dir: &Path) -> String {
    format!("clpmd:{}:", run_dir.display())
}

/// What the identifier of a device says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Name of the mirror.
    pub mirror: String,
    /// Identity of its cluster partition: whoever exchanges partitions in the configuration does
    /// not get the old device.
    pub cluster_partition: Id16,
    /// Number n of `NMP<n>`.
    pub nmp: u8,
    /// How long the device waits for another agent, in seconds; 0: for ever.
    pub patience_s: u64,
}

impl Identity {
    /// The identifier of such a device of a run folder.
    #[must_use]
    pub fn text(&self, run_dir: &Path) -> String {
        let mut text = format!("{}{}:", of_folder(run_dir), self.mirror);
        for byte in self.cluster_partition.0 {
            let _ = write!(text, "{byte:02x}"); // a string takes everything
        }
        let _ = write!(text, ":{}:{}", self.nmp, self.patience_s); // as above
        text
    }

    /// What an identifier says, if it is one of this run folder.
    #[must_use]
    pub fn parse(identifier: &str, run_dir: &Path) -> Option<Self> {
        let mut parts = identifier.strip_prefix(&of_folder(run_dir))?.rsplitn(4, ':');
        let patience_s = parts.next()?.parse().ok()?;
        let nmp = parts.next()?.parse().ok()?;
        let cluster_partition = id_of(parts.next()?)?;
        Some(Self { mirror: parts.next()?.to_owned(), cluster_partition, nmp, patience_s })
    }
}

fn id_of(text: &str) -> Option<Id16> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(|number| Id16(number.to_be_bytes()))
}

/// The devices of one mirror.
///
/// # Errors
/// The list of block devices cannot be read.
pub fn of_mirror(run_dir: &Path, mirror: &str) -> io::Result<Vec<(Found, Identity)>> {
    Ok(known(run_dir)?.into_iter().filter(|(_, of)| of.mirror == mirror).collect())
}

/// The devices of a run folder whose identifier can be read: no agent makes others.
///
/// # Errors
/// The list of block devices cannot be read.
pub fn known(run_dir: &Path) -> io::Result<Vec<(Found, Identity)>> {
    let with = |f: Found| Identity::parse(&f.identifier, run_dir).map(|of| (f, of));
    Ok(kernel::find(&of_folder(run_dir))?.into_iter().filter_map(with).collect())
}

/// Gives a device up: whoever waits on it gets errors. The next agent clears the mounts away.
///
/// # Errors
/// The driver's.
pub fn give_up(device: &Found) -> io::Result<()> {
    kernel::disconnect(device.number, &device.identifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_tells_folders_mirrors_and_partitions_apart() {
        let run = Path::new("/run/clpmd");
        let of = |mirror: &str, id| Identity {
            mirror: mirror.to_owned(),
            cluster_partition: Id16([id; 16]),
            nmp: 7,
            patience_s: 60,
        };
        let own = of("md1", 10).text(run);
        assert_eq!(own, format!("clpmd:/run/clpmd:md1:{}:7:60", "0a".repeat(16)));
        assert_eq!(Identity::parse(&own, run), Some(of("md1", 10)));
        assert_eq!(Identity::parse(&of("md10", 10).text(run), run), Some(of("md10", 10)));
        assert_eq!(Identity::parse(&own, Path::new("/run/a")), None);
        for other in ["somebody else", "clpmd:/run/clpmd:md1", "clpmd:/run/clpmd:md1:0a:7:60"] {
            assert_eq!(Identity::parse(other, run), None, "{other}");
        }
    }
}
