//! A device of the kernel's NBD client: its name, who uses it, and getting rid of one that an
//! earlier agent has left.

use super::{CarrierConfig, link};
use crate::host::command::Runner;
use crate::host::error::HostError;
use crate::host::holders;
use crate::host::mounts::{self, DevNo, Mount};
use kmod_shim::nbd::kernel::{self, Found};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(20);
/// Between two looks at whether the device is still connected.
const WATCH: Duration = Duration::from_secs(1);

/// An nbd device under the mirror's name.
#[derive(Debug)]
pub struct NbdName {
    /// The mirror's name for it.
    device: PathBuf,
    /// The kernel's.
    node: PathBuf,
    number: u32,
    identifier: String,
}

impl NbdName {
    /// Gives a connected device its name, once its node is there. It is not opened: somebody may
    /// wait for one that an earlier agent has left.
    pub(super) async fn open(config: &CarrierConfig, node: &Path) -> Result<Self, HostError> {
        let opened = Self::named(config, node)?;
        wait_for_node(node, config.ready_limit).await?;
        opened.make_name()?;
        Ok(opened)
    }

    fn named(config: &CarrierConfig, node: &Path) -> Result<Self, HostError> {
        let gone = || HostError::Command(format!("{}: not connected", node.display()));
        let name = node.file_name().and_then(|n| n.to_str());
        let number = name.and_then(|n| n.strip_prefix("nbd")?.parse().ok()).ok_or_else(gone)?;
        let identifier = kernel::look(number).ok_or_else(gone)?.identifier;
        Ok(Self { device: config.device(), node: node.to_owned(), number, identifier })
    }

    /// The name may be free, ours already, or lead to a device that is not connected.
    fn make_name(&self) -> Result<(), HostError> {
        let taken = |detail| Err(HostError::NameTaken { path: self.device.clone(), detail });
        match fs::read_link(&self.device) {
            Ok(target) if target == self.node || !is_in_use(&target) => {}
            Ok(target) => return taken(format!("it leads to {}", target.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return taken("not a symbolic link".into()),
        }
        link::replace(&self.device, &self.node)
    }

    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    /// Waits until somebody has disconnected the device.
    pub(super) async fn ended(&self) -> String {
        while kernel::is_connected(self.number, &self.identifier) {
            sleep(WATCH).await;
        }
        format!("{} was disconnected", self.node.display())
    }

    /// Takes the name away; the device goes with its front end, which does not ask its users.
    ///
    /// # Errors
    /// Code 89: it has users.
    pub(super) fn close(&self) -> Result<(), HostError> {
        if kernel::is_connected(self.number, &self.identifier) {
            if let Some(user) = user_of(&self.node) {
                let what = format!("disconnect {}: {user}", self.node.display());
                return Err(HostError::Command(what));
            }
        }
        remove_name(&self.device, &self.node)
    }
}

/// The kernel or udev makes it a moment after the device.
async fn wait_for_node(node: &Path, limit: Duration) -> Result<(), HostError> {
    let end = Instant::now() + limit;
    while dev_of(node).is_none() {
        if Instant::now() >= end {
            let command = format!("the start of {}", node.display());
            return Err(HostError::Timeout { command, limit });
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Whether a name's target is a device that something stands behind.
fn is_in_use(target: &Path) -> bool {
    let name = target.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if let Some(number) = name.strip_prefix("nbd").and_then(|n| n.parse().ok()) {
        return kernel::look(number).is_some();
    }
    target.exists()
}

fn remove_name(device: &Path, node: &Path) -> Result<(), HostError> {
    if fs::read_link(device).is_ok_and(|target| target == node) {
        fs::remove_file(device)
            .map_err(HostError::system(format!("device name {}", device.display())))?;
    }
    Ok(())
}

fn dev_of(node: &Path) -> Option<DevNo> {
    let meta = fs::metadata(node).ok().filter(|m| m.file_type().is_block_device())?;
    Some(DevNo::from_stat(meta.rdev()))
}

fn mounts_of(device: &Path, node: &Path) -> Result<Vec<Mount>, HostError> {
    let all = mounts::current().map_err(HostError::system("mount table"))?;
    let Some(dev) = dev_of(node) else { return Ok(Vec::new()) };
    Ok(mounts::of_device(&all, dev, &[node, device]).into_iter().cloned().collect())
}

/// Somebody who uses the device, if anybody does.
fn user_of(node: &Path) -> Option<String> {
    if let Some(mount) = mounts_of(node, node).ok()?.last() {
        return Some(format!("mounted on {}", mount.point.display()));
    }
    let name = node.file_name()?.to_str()?;
    if let Some(above) = fs::read_dir(format!("/sys/block/{name}/holders")).ok()?.flatten().next() {
        return Some(format!("part of {}", above.file_name().to_string_lossy()));
    }
    let users = holders::of_device(node);
    let first = users.first()?;
    let count = users.len();
    Some(format!("open in {count} process(es), {} ({}) among them", first.pid, first.name))
}

/// Takes down a device that an earlier agent has left: its users get errors, its file system is
/// unmounted, its name goes. Gives where it was mounted.
///
/// # Errors
/// Code 30 if the driver or the mount table fails; 83 and 89 if a mount resists.
pub async fn take_down(
    config: &CarrierConfig,
    found: &Found,
    runner: &Runner,
) -> Result<Vec<PathBuf>, HostError> {
    let (device, node) = (config.device(), kernel::device_path(found.number));
    // Before the number can become somebody else's.
    let mounts = mounts_of(&device, &node)?;
    let left = found.clone();
    let gone = spawn_blocking(move || kernel::disconnect(left.number, &left.identifier)).await;
    let failed = || HostError::system(format!("disconnect {}", node.display()));
    gone.map_err(|e| failed()(io::Error::other(e)))?.map_err(failed())?;
    let mut unmounted = Vec::new();
    for mount in mounts.iter().rev() {
        if unmount(config, mount, runner).await? {
            unmounted.push(mount.point.clone());
        }
    }
    remove_name(&device, &node)?;
    tracing::warn!(node = %node.display(), ?unmounted, "took down what a dead agent left");
    Ok(unmounted)
}

async fn unmount(
    config: &CarrierConfig,
    mount: &Mount,
    runner: &Runner,
) -> Result<bool, HostError> {
    let now = mounts::current().map_err(HostError::system("mount table"))?;
    if !mounts::is_uppermost(&now, mount) {
        // umount would take the mount above it, which is not ours.
        tracing::warn!(point = %mount.point.display(), "a dead file system is covered by another mount");
        return Ok(false);
    }
    let umount = || runner.command("umount", config.command_limit).args(["-c", "-i"]);
    if umount().arg(&mount.point).run_ok().await.is_err() {
        // Somebody still holds files of it; they get errors until they let go.
        umount().arg("-l").arg(&mount.point).run_ok().await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_device_that_is_not_connected_gets_no_name() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let config =
            CarrierConfig { device_dir: dir.path().into(), ..CarrierConfig::new("md1", 1) };
        for node in ["/dev/nbd999999", "/dev/loop0", "/dev/nbd", "/"] {
            let error = NbdName::open(&config, Path::new(node)).await.expect_err("is refused");
            assert_eq!(error.md_code(), 89, "{node}");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("is a folder").count(), 0);
    }

    #[test]
    fn a_name_of_something_else_is_not_taken() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let device = dir.path().join("NMP1");
        let node = PathBuf::from("/dev/nbd999998");
        let name = NbdName {
            device: device.clone(),
            node: node.clone(),
            number: 999_998,
            identifier: String::new(),
        };
        std::os::unix::fs::symlink("/dev/null", &device).expect("is made");
        assert!(matches!(name.make_name(), Err(HostError::NameTaken { .. })));
        fs::remove_file(&device).expect("is removed");
        // A device that is not connected any more may be replaced.
        std::os::unix::fs::symlink("/dev/nbd999997", &device).expect("is made");
        name.make_name().expect("is free");
        assert_eq!(fs::read_link(&device).expect("is a link"), node);
        name.close().expect("nobody uses it");
        assert!(!device.is_symlink());
    }
}
