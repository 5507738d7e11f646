//! Devices of the kernel's NBD client: which are a mirror's, and which wait for an agent.
//!
//! The kernel keeps a text with each device, and that is the only record of them: nothing has to be
//! written down before, and nothing is left behind.

use crate::lock::{Lock, LockError, Role};
use kmod_shim::nbd::kernel::{self, Found};
use mirror_core::units::Id16;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// How the identifiers of all devices of one run folder begin. Whoever holds the lock of the folder
/// decides about them, and nobody else.
fn of_folder(run_dir: &Path) -> String {
    format!("clpmd:{}:", run_dir.display())
}

/// How the identifiers of one mirror's devices begin.
pub(crate) fn of_mirror(run_dir: &Path, mirror: &str) -> String {
    format!("{}{mirror}:", of_folder(run_dir))
}

/// The identifier of the device of one pair of partitions: whoever exchanges them in the
/// configuration does not get the old device.
pub(crate) fn of_partitions(run_dir: &Path, mirror: &str, cluster_partition: Id16) -> String {
    let start = of_mirror(run_dir, mirror);
    cluster_partition.0.iter().fold(start, |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a string takes everything
        text
    })
}

/// The mirror that an identifier speaks of, if it is one of this run folder.
pub(crate) fn mirror_of<'a>(identifier: &'a str, run_dir: &Path) -> Option<&'a str> {
    identifier.strip_prefix(&of_folder(run_dir))?.rsplit_once(':').map(|(mirror, _)| mirror)
}

/// All devices of a run folder.
///
/// # Errors
/// The list of block devices cannot be read.
pub fn all(run_dir: &Path) -> io::Result<Vec<Found>> {
    kernel::find(&of_folder(run_dir))
}

/// The devices of a run folder that have no agent: their users wait.
///
/// # Errors
/// The list of block devices or the lock cannot be read.
pub fn waiting(run_dir: &Path) -> io::Result<Vec<Found>> {
    let found = all(run_dir)?;
    let held = !found.is_empty() && Lock::is_held(run_dir, Role::Agent)?;
    Ok(if held { Vec::new() } else { found })
}

/// Disconnects every device of a run folder whose agent is dead, so that its users get errors
/// instead of waiting, and gives what was disconnected. No agent can start meanwhile.
///
/// # Errors
/// An agent runs, or the driver failed.
pub fn give_up_all(run_dir: &Path) -> Result<Vec<Found>, LockError> {
    let _lock = Lock::take(run_dir, Role::Agent)?;
    let found = all(run_dir)?;
    for device in &found {
        kernel::disconnect(device.number, &device.identifier)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_tells_folders_mirrors_and_partitions_apart() {
        let run = Path::new("/run/clpmd");
        let of = |dir: &str, mirror, id| of_partitions(Path::new(dir), mirror, Id16([id; 16]));
        let own = of("/run/clpmd", "md1", 10);
        assert_eq!(own, format!("clpmd:/run/clpmd:md1:{}", "0a".repeat(16)));
        let others =
            [of("/run/a", "md1", 10), of("/run/clpmd", "md10", 10), of("/run/clpmd", "md1", 9)];
        assert!(!others.contains(&own));
        assert!(!others[1].starts_with(&of_mirror(run, "md1")));
        assert_eq!(mirror_of(&own, run), Some("md1"));
        assert_eq!(mirror_of(&others[1], run), Some("md10"));
        assert_eq!(mirror_of(&others[0], run), None);
        assert_eq!(mirror_of("somebody else", run), None);
    }
}
