//! A block device that the kernel makes for the mirror (ublk): only its name is made here.

use super::CarrierConfig;
use super::link;
use crate::host::command::Runner;
use crate::host::error::HostError;
use crate::host::mounts;
use kmod_shim::ublk::device_path;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(20);

/// A kernel device under the mirror's name.
#[derive(Debug)]
pub struct KernelDevice {
    /// The mirror's name for it.
    device: PathBuf,
    /// The kernel's.
    node: PathBuf,
}

impl KernelDevice {
    /// Waits for `device` to answer and gives it its name.
    pub(super) async fn open(config: &CarrierConfig, device: &Path) -> Result<Self, HostError> {
        let opened = Self { device: config.device(), node: device.to_owned() };
        opened.wait(config.ready_limit).await?;
        opened.check_name()?;
        link::replace(&opened.device, device)?;
        Ok(opened)
    }

    async fn wait(&self, limit: Duration) -> Result<(), HostError> {
        let end = Instant::now() + limit;
        while !is_served(&self.node) {
            if Instant::now() >= end {
                let command = format!("the start of {}", self.node.display());
                return Err(HostError::Timeout { command, limit });
            }
            sleep(POLL).await;
        }
        Ok(())
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

fn is_served(device: &Path) -> bool {
    fs::metadata(device).is_ok_and(|m| m.file_type().is_block_device())
        && fs::File::open(device).is_ok()
}

/// Unmounts what a predecessor's device, which died with it, is still mounted as.
pub(super) async fn clear(
    config: &CarrierConfig,
    number: u32,
    runner: &Runner,
) -> Result<(), HostError> {
    let (name, device) = (config.device(), device_path(number));
    let mounts = mounts::current().map_err(HostError::system("mount table"))?;
    for mount in mounts.iter().rev() {
        if Path::new(&mount.source) != name && Path::new(&mount.source) != device {
            continue;
        }
        let umount = || runner.command("umount", config.command_limit);
        if umount().arg(&mount.point).run_ok().await.is_err() {
            // Somebody still holds files of it; they get errors until they let go.
            umount().arg("-l").arg(&mount.point).run_ok().await?;
        }
        tracing::warn!("{}: unmounted, its device had died", mount.point.display());
    }
    Ok(())
}
