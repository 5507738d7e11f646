//! From a mirror's NBD socket, or a device of the kernel's, to the name `/dev/NMP<n>`.
//!
//! Order of construction: state file, folder, `nbdfuse`, loop device, link. It comes down in the
//! reverse order. The state file is written before the thing that it speaks of, and the folder
//! has a random name that is never used twice; so whatever a killed agent leaves can be proved to
//! be ours by [`clear_stale`], and nothing else is ever touched.
//!
//! The agent must live in the machine's own mount namespace. If `nbdfuse` were the last process
//! of a namespace in which the device is mounted, its end would unmount the file system from
//! inside itself, and the kernel would have it wait for its own answer for ever.

mod kernel;
mod link;
mod nbd;
mod nbdfuse;
mod stale;
mod state;

use super::command::Runner;
use super::error::HostError;
use kernel::KernelDevice;
use nbd::NbdName;
use nbdfuse::NbdFuse;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use nbd::take_down as take_down_nbd;
pub use stale::Cleared;

/// Whether `bytes` are the content of a state file that [`clear_stale`] would act upon.
///
/// # Errors
/// Why not.
pub fn check_state_file(bytes: &[u8]) -> std::io::Result<()> {
    state::State::parse(bytes).map(drop)
}

/// Further looks at a device of the kernel's that is still in use.
const CLOSE_RETRIES: u32 = 3;

/// What carries the requests of applications to the mirror's socket.
///
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CarrierKind {
    /// `nbdfuse` and a loop device; for kernels that have neither ublk nor nbd.
    #[default]
    NbdFuse,
    /// None: the kernel's ublk driver makes the device.
    Ublk,
    /// None: the kernel's NBD client makes the device.
    KernelNbd,
    /// None: NBD clients use the socket themselves, and there is no file system to mount.
    SocketOnly,
}

/// How a mirror's block device is made.
#[derive(Clone, Debug)]
pub struct CarrierConfig {
    /// What carries the requests. Default: [`CarrierKind::NbdFuse`].
    pub kind: CarrierKind,
    /// Name of the mirror, such as `md1`: letters, digits, `-`, `_` and
    /// `.`, the last not in front.
    pub mirror: String,
    /// Number n of the device `NMP<n>`, from 1.
    pub number: u32,
    /// Folder of the device name. Default: `/dev`.
    pub device_dir: PathBuf,
    /// Folder of the state file and of the carrier's mounts. Default: `/run/clpmd`.
    pub run_dir: PathBuf,
    /// Logical block size of the mirror in bytes: 512 or 4096. Default: 512.
    pub block_size: u32,
    /// Time for the device to appear, and for each device to go. Range 1-999 s, default 10 s.
    pub ready_limit: Duration,
    /// Limit of each command. Range 1-999 s, default 30 s.
    pub command_limit: Duration,
    /// Further attempts to take a part down. Range 0-999, default 3.
    pub close_retries: u32,
}

impl CarrierConfig {
    /// The defaults for one mirror.
    #[must_use]
    pub fn new(mirror: impl Into<String>, number: u32) -> Self {
        Self {
            kind: CarrierKind::default(),
            mirror: mirror.into(),
            number,
            device_dir: "/dev".into(),
            run_dir: "/run/clpmd".into(),
            block_size: 512,
            ready_limit: Duration::from_secs(10),
            command_limit: Duration::from_secs(30),
            close_retries: 3,
        }
    }

    /// The name that applications use: `<device_dir>/NMP<n>`.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        self.device_dir.join(format!("NMP{}", self.number))
    }

    fn check(&self) -> Result<(), HostError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let name = &self.mirror;
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
            return Err(HostError::Invalid(format!("mirror name {:?}", self.mirror)));
        }
        if !matches!(self.block_size, 512 | 4096) {
            return Err(HostError::Invalid(format!("block size {}", self.block_size)));
        }
        Ok(())
    }
}

/// A carrier in use.
#[derive(Debug)]
pub enum Carrier {
    /// The socket serves NBD clients and nothing else.
    SocketOnly,
    /// A FUSE file with a loop device on it.
    NbdFuse(Box<NbdFuse>),
    /// A device of the kernel's.
    Kernel(KernelDevice),
    /// A device of the kernel's NBD client.
    Nbd(NbdName),
}

impl Carrier {
    /// Makes the block device of the NBD export `export` on the unix socket `socket`, or takes the
    /// kernel's device, if that is what `socket` names. What a
    /// predecessor left is cleared first; what a failed attempt made is taken down again.
    ///
    /// # Errors
    /// Code 2 for a bad configuration, 30 if the device name belongs to somebody else, 83 and 89
    /// for the commands.
    pub async fn open(
        config: &CarrierConfig,
        runner: &Runner,
        socket: &Path,
        export: &str,
    ) -> Result<Self, HostError> {
        config.check()?;
        match config.kind {
            CarrierKind::SocketOnly => Ok(Self::SocketOnly),
            CarrierKind::KernelNbd => NbdName::open(config, socket).await.map(Self::Nbd),
            CarrierKind::Ublk => KernelDevice::open(config, socket).map(Self::Kernel),
            CarrierKind::NbdFuse => {
                NbdFuse::open(config, runner, socket, export).await.map(|c| Self::NbdFuse(c.into()))
            }
        }
    }

    /// The block device's name, if there is one.
    #[must_use]
    pub fn device(&self) -> Option<&Path> {
        match self {
            Self::SocketOnly => None,
            Self::NbdFuse(carrier) => Some(carrier.device()),
            Self::Kernel(carrier) => Some(carrier.device()),
            Self::Nbd(carrier) => Some(carrier.device()),
        }
    }

    /// Waits until the carrier ends without having been asked to, and says why. Never returns
    /// while it works. May be dropped and called again.
    pub async fn ended(&mut self) -> String {
        match self {
            Self::SocketOnly | Self::Kernel(_) => std::future::pending().await,
            Self::NbdFuse(carrier) => carrier.ended().await,
            Self::Nbd(carrier) => carrier.ended().await,
        }
    }

    /// Takes the block device down, in the reverse order. It may be called again after an error
    /// and goes on from where it stopped.
    ///
    /// # Errors
    /// Code 89 while the device is in use, 83 when a command hangs.
    pub async fn close(&mut self) -> Result<(), HostError> {
        match self {
            Self::SocketOnly => Ok(()),
            Self::NbdFuse(carrier) => carrier.close().await,
            Self::Kernel(carrier) => carrier.close(CLOSE_RETRIES).await,
            Self::Nbd(carrier) => carrier.close(),
        }
    }
}

/// Finds and clears what a dead predecessor left of this mirror's carrier: the file system
/// mounted from its loop device, that device, its FUSE mount, its process and its link. To be
/// called before the mirror's socket is served again, with no carrier of this mirror open.
///
/// # Errors
/// Code 30 if the state file or the mount table cannot be read; 89 if something of ours resists.
pub async fn clear_stale(config: &CarrierConfig, runner: &Runner) -> Result<Cleared, HostError> {
    config.check()?;
    stale::clear(config, runner).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_name_cannot_lead_out_of_the_folder() {
        for name in ["", "..", "../x", ".md1", "a/b", "a b", "md1\n"] {
            assert!(CarrierConfig::new(name, 1).check().is_err(), "{name:?}");
        }
        assert!(CarrierConfig::new("md_1-a.b", 1).check().is_ok());
    }

    #[test]
    fn only_block_sizes_that_the_mirror_can_have_are_taken() {
        let with = |block_size| CarrierConfig { block_size, ..CarrierConfig::new("md1", 1) };
        assert!(with(512).check().is_ok() && with(4096).check().is_ok());
        assert_eq!(with(1024).check().expect_err("is refused").md_code(), 2);
    }

    #[tokio::test]
    async fn the_socket_alone_has_no_device() {
        let config =
            CarrierConfig { kind: CarrierKind::SocketOnly, ..CarrierConfig::new("md1", 1) };
        let socket = Path::new("/nowhere");
        let mut carrier =
            Carrier::open(&config, &Runner::default(), socket, "").await.expect("nothing to do");
        assert_eq!(carrier.device(), None);
        carrier.close().await.expect("nothing to do");
    }
}
