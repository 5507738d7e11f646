//! What an agent writes down of a device of the kernel's, before it makes it.

use crate::host::error::HostError;
use crate::host::process::Process;
use crate::host::statefile::{self, boot_id};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Version of the file's format.
const VERSION: u32 = 1;
/// End of the files' names.
const SUFFIX: &str = "ublk";

/// A device that an agent has made, or was about to make.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceRecord {
    version: u32,
    /// Boot in which it was made.
    pub boot_id: String,
    /// Name of the mirror.
    pub mirror: String,
    /// Its number n in `NMP<n>`.
    pub nmp: u32,
    /// Number of the device.
    pub number: u32,
    /// The random number that the driver keeps with the device.
    pub mark: u64,
    /// Size in bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block: u32,
    /// The device's name, `/dev/NMP<n>`.
    pub link: PathBuf,
    /// The agent that serves it, or did.
    pub server: Option<Process>,
    /// Seconds that the device waits for another agent; 0: for ever.
    pub patience_s: u64,
}

/// What a device is made for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Name of the mirror.
    pub mirror: String,
    /// Its number n in `NMP<n>`.
    pub nmp: u32,
    /// The device's name, `/dev/NMP<n>`.
    pub link: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block: u32,
    /// How long the device waits for another agent; zero: for ever.
    pub patience: Duration,
}

impl DeviceRecord {
    /// A device of this process, with a new mark.
    ///
    /// # Errors
    /// The kernel does not tell its boot, or has no random numbers.
    pub fn new(wanted: Wanted, number: u32) -> io::Result<Self> {
        Ok(Self {
            version: VERSION,
            boot_id: boot_id()?,
            mirror: wanted.mirror,
            nmp: wanted.nmp,
            number,
            mark: getrandom::u64().map_err(io::Error::other)?,
            size: wanted.size,
            block: wanted.block,
            link: wanted.link,
            server: Process::own(),
            patience_s: wanted.patience.as_secs(),
        })
    }

    /// The same device, served by this process.
    #[must_use]
    pub fn now_ours(self, patience: Duration) -> Self {
        Self { server: Process::own(), patience_s: patience.as_secs(), ..self }
    }

    /// Where the record of `mirror` is kept.
    #[must_use]
    pub fn file(run_dir: &Path, mirror: &str) -> PathBuf {
        run_dir.join(format!("{mirror}.{SUFFIX}"))
    }

    /// Reads the record of `mirror`; `None` if there is none.
    ///
    /// # Errors
    /// Code 30: there is one that cannot be understood.
    pub fn load(run_dir: &Path, mirror: &str) -> Result<Option<Self>, HostError> {
        let path = Self::file(run_dir, mirror);
        statefile::load(&path, |r: &Self| r.version == VERSION)
            .map_err(HostError::system(statefile::what(&path)))
    }

    /// Every record there is; those that cannot be understood come as their errors.
    ///
    /// # Errors
    /// Code 30: the folder cannot be read.
    pub fn all(run_dir: &Path) -> Result<Vec<Result<Self, HostError>>, HostError> {
        let unread = || HostError::system(format!("folder {}", run_dir.display()));
        let entries = match fs::read_dir(run_dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(unread())?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(unread())?.path();
            if path.extension().is_some_and(|e| e == SUFFIX) {
                let mirror = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                all.extend(Self::load(run_dir, &mirror).transpose());
            }
        }
        Ok(all)
    }

    /// Writes the record.
    ///
    /// # Errors
    /// Code 30.
    pub fn save(&self, run_dir: &Path) -> Result<(), HostError> {
        let path = Self::file(run_dir, &self.mirror);
        statefile::save(&path, self).map_err(HostError::system(statefile::what(&path)))
    }

    /// Removes the record.
    ///
    /// # Errors
    /// Code 30.
    pub fn forget(&self, run_dir: &Path) -> Result<(), HostError> {
        let path = Self::file(run_dir, &self.mirror);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(HostError::system(statefile::what(&path))(e))
            }
            _ => Ok(()),
        }
    }

    /// Whether the recorded agent still runs.
    #[must_use]
    pub fn server_runs(&self) -> bool {
        self.server.is_some_and(Process::is_running)
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        Self {
            version: VERSION,
            boot_id: "a-boot".into(),
            mirror: "md1".into(),
            nmp: 1,
            number: 1001,
            mark: u64::MAX,
            size: 1 << 20,
            block: 512,
            link: "/dev/NMP1".into(),
            server: None,
            patience_s: 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_saved() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert_eq!(DeviceRecord::load(dir.path(), "md1").expect("no file is no error"), None);
        let one = DeviceRecord { server: Process::own(), ..DeviceRecord::sample() };
        let two = DeviceRecord { mirror: "md.2".into(), ..DeviceRecord::sample() };
        for record in [&one, &two] {
            record.save(dir.path()).expect("is written");
        }
        fs::write(dir.path().join("md1.carrier"), b"other").expect("is written");
        assert_eq!(DeviceRecord::load(dir.path(), "md1").expect("is read").as_ref(), Some(&one));
        assert!(one.server_runs() && !two.server_runs());
        let mut all: Vec<_> = DeviceRecord::all(dir.path())
            .expect("reads")
            .into_iter()
            .map(|r| r.expect("good"))
            .collect();
        all.sort_by_key(|r| r.mirror.clone());
        assert_eq!(all, [two, one.clone()]);
        one.forget(dir.path()).expect("is removed");
        one.forget(dir.path()).expect("is gone already");
        assert_eq!(DeviceRecord::all(dir.path()).expect("reads").len(), 1);
    }

    #[test]
    fn a_broken_or_newer_record_is_an_error() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let newer = DeviceRecord { version: VERSION + 1, ..DeviceRecord::sample() };
        for bytes in [b"{\"version\":1".to_vec(), serde_json::to_vec(&newer).expect("encodes")] {
            fs::write(dir.path().join("md1.ublk"), bytes).expect("is written");
            assert_eq!(DeviceRecord::load(dir.path(), "md1").expect_err("refused").md_code(), 30);
            assert!(DeviceRecord::all(dir.path()).expect("reads")[0].is_err());
        }
    }
}
