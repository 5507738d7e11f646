//! The state file: what the carrier of one mirror has made, or was about to make.

use crate::host::error::HostError;
use crate::host::loops::LoopDevice;
use crate::host::process::Process;
use crate::host::statefile::{self, boot_id};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the file's format.
const VERSION: u32 = 1;

/// What the carrier has made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// Boot in which it was made; of another boot only the link and the folder can be left.
    pub(super) boot_id: String,
    /// Folder of the FUSE mount; its name is random, so a loop device on a file in it is ours.
    pub(super) folder: PathBuf,
    /// The process that serves the FUSE mount.
    pub(super) server: Option<Process>,
    /// The loop device.
    pub(super) device: Option<Device>,
    /// The device name.
    pub(super) link: PathBuf,
}

/// A loop device, told apart from a later use of the same number by its sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Device {
    pub(super) number: u32,
    sequence: Option<u64>,
}

impl State {
    pub(super) fn new(folder: PathBuf, link: PathBuf) -> Result<Self, HostError> {
        let boot_id = boot_id().map_err(HostError::system("boot id"))?;
        Ok(Self { version: VERSION, boot_id, folder, server: None, device: None, link })
    }

    /// The file at the carrier's end of the FUSE mount.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("nbd")
    }

    pub(super) fn of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|id| id == self.boot_id)
    }

    /// Reads the state file; `None` if there is none.
    ///
    /// # Errors
    /// When there is one that cannot be understood: it is never taken for "nothing left".
    pub(super) fn load(path: &Path) -> Result<Option<Self>, HostError> {
        let is_known = |state: &Self| state.version == VERSION;
        statefile::load(path, is_known).map_err(HostError::system(statefile::what(path)))
    }

    /// Writes the state file; a reader sees the old or the new one.
    pub(super) fn save(&self, path: &Path) -> Result<(), HostError> {
        statefile::save(path, self).map_err(HostError::system(statefile::what(path)))
    }
}

impl Device {
    pub(super) fn of(device: LoopDevice) -> Self {
        Self { number: device.0, sequence: device.sequence() }
    }

    /// The device, if it is still the very one that was attached.
    pub(super) fn same(self) -> Option<LoopDevice> {
        let device = LoopDevice(self.number);
        let attached = device.backing_file().is_some();
        let sequence = device.sequence();
        (attached && sequence.is_some() && sequence == self.sequence).then_some(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_state_comes_back_as_it_was_saved() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("md1.carrier");
        assert_eq!(State::load(&path).expect("no file is no error"), None);
        let mut state = State::new("/run/a".into(), "/dev/NMP1".into()).expect("boot id");
        state.server = Process::find(1);
        state.device = Some(Device { number: 3, sequence: Some(9) });
        state.save(&path).expect("is written");
        assert_eq!(State::load(&path).expect("is read"), Some(state));
    }

    #[test]
    fn a_broken_or_foreign_state_file_is_an_error() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("md1.carrier");
        let mut newer = State::new("/run/a".into(), "/dev/NMP1".into()).expect("boot id");
        newer.version = VERSION + 1;
        for bytes in [b"{\"version\":1".to_vec(), serde_json::to_vec(&newer).expect("encodes")] {
            fs::write(&path, bytes).expect("is written");
            assert_eq!(State::load(&path).expect_err("is refused").md_code(), 30);
        }
    }
}
