//! A block device that the kernel makes for the mirror (ublk): only its name is made here.

use super::CarrierConfig;
use super::link;
use crate::host::error::HostError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A kernel device under the mirror's name.
#[derive(Debug)]
pub struct KernelDevice {
    /// The mirror's name for it.
    device: PathBuf,
    /// The kernel's.
    node: PathBuf,
}

impl KernelDevice {
    /// Gives `device`, which is served, its name; one that has it keeps it.
    pub(super) fn open(config: &CarrierConfig, device: &Path) -> Result<Self, HostError> {
        let opened = Self { device: config.device(), node: device.to_owned() };
        opened.check_name()?;
        link::replace(&opened.device, device)?;
        Ok(opened)
    }

    /// The name is free, ours already, or leads to a device that is gone.
    fn check_name(&self) -> Result<(), HostError> {
        let taken = |detail| Err(HostError::NameTaken { path: self.device.clone(), detail });
        match fs::read_link(&self.device) {
            Ok(target) if target == self.node || !target.exists() => Ok(()),
            Ok(target) => taken(format!("it leads to {}", target.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => taken("not a symbolic link".into()),
        }
    }

    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    /// Takes the name away; the device goes with its front end.
    pub(super) fn close(&self) -> Result<(), HostError> {
        if fs::read_link(&self.device).is_ok_and(|target| target == self.node) {
            fs::remove_file(&self.device)
                .map_err(HostError::system(format!("device name {}", self.device.display())))?;
        }
        Ok(())
    }
}
