//! Loop devices. They belong to the whole machine, whatever the namespace, so every step here is
//! about one device that was found or made by its own proof, never about "the first free one".

use super::command::Runner;
use super::error::HostError;
use super::mounts::DevNo;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SYS_BLOCK: &str = "/sys/block";

/// The loop device with this number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoopDevice(pub u32);

impl LoopDevice {
    /// From `/dev/loop7`.
    #[must_use]
    pub fn from_path(path: &Path) -> Option<Self> {
        Self::from_name(path.strip_prefix("/dev").ok()?.to_str()?)
    }

    fn from_name(name: &str) -> Option<Self> {
        name.strip_prefix("loop")?.parse().ok().map(Self)
    }

    /// `/dev/loop7`.
    #[must_use]
    pub fn path(self) -> PathBuf {
        PathBuf::from(format!("/dev/loop{}", self.0))
    }

    /// All loop devices of the machine.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir(SYS_BLOCK) else { return Vec::new() };
        entries.flatten().filter_map(|e| Self::from_name(e.file_name().to_str()?)).collect()
    }

    /// Its device number, if it exists.
    #[must_use]
    pub fn dev(self) -> Option<DevNo> {
        DevNo::parse(&fs::read_to_string(self.sys("dev")).ok()?)
    }

    /// The file behind it; `None` when it is free.
    #[must_use]
    pub fn backing_file(self) -> Option<PathBuf> {
        let mut bytes = fs::read(self.sys("loop/backing_file")).ok()?;
        while bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        let path = bytes.strip_suffix(b" (deleted)").unwrap_or(&bytes);
        Some(PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())))
    }

    /// A number that the kernel gives to each disk that appears, never twice in one boot; `None`
    /// on kernels before 5.15.
    #[must_use]
    pub fn sequence(self) -> Option<u64> {
        fs::read_to_string(self.sys("diskseq")).ok()?.trim().parse().ok()
    }

    /// The devices that have exactly this file behind them.
    #[must_use]
    pub fn backed_by(file: &Path) -> Vec<Self> {
        let has_it = |l: &Self| l.backing_file().is_some_and(|f| f == file);
        Self::all().into_iter().filter(has_it).collect()
    }

    fn sys(self, entry: &str) -> PathBuf {
        Path::new(SYS_BLOCK).join(format!("loop{}", self.0)).join(entry)
    }

    /// Attaches `file` to a free device, with direct I/O: the page cache between the file system
    /// and the mirror would acknowledge what the mirror has never seen.
    ///
    /// # Errors
    /// When `losetup` fails, takes longer than `limit`, or names no loop device.
    pub async fn attach(
        runner: &Runner,
        file: &Path,
        block_size: u32,
        limit: Duration,
    ) -> Result<Self, HostError> {
        let mut cmd = runner.command("losetup", limit).args(["--direct-io=on", "--show"]);
        if block_size != 512 {
            cmd = cmd.arg("-b").arg(block_size.to_string());
        }
        let output = cmd.arg("-f").arg(file).run_ok().await?;
        let named = Path::new(output.stdout.trim());
        Self::from_path(named).ok_or_else(|| {
            HostError::Command(format!("losetup named no loop device: {}", named.display()))
        })
    }

    /// Asks the kernel to let the file go; if the device is open somewhere, that happens when it
    /// is closed.
    ///
    /// # Errors
    /// When `losetup` fails or takes longer than `limit`.
    pub async fn detach(self, runner: &Runner, limit: Duration) -> Result<(), HostError> {
        let path = self.path();
        debug_assert!(path.as_os_str().as_bytes().starts_with(b"/dev/loop"));
        runner.command("losetup", limit).arg("-d").arg(path).run_ok().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_loop_devices_have_a_number() {
        assert_eq!(LoopDevice::from_path(Path::new("/dev/loop12")), Some(LoopDevice(12)));
        for other in ["/dev/loop12p1", "/dev/loop", "/dev/sda", "loop1", "/dev/loop-control"] {
            assert_eq!(LoopDevice::from_path(Path::new(other)), None, "{other}");
        }
    }
}
