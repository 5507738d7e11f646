//! Block device and file system of one mirror behind the agent's trait.

use super::driver::Serving;
use super::nbd::NbdDevice;
use super::{internal, socket_path, step};
use crate::agent::{HostOps, Step};
use crate::config::{self, Config, FrontEnd, MirrorConfig};
use crate::ctl::Answer;
use crate::host::carrier::{Carrier, CarrierConfig, CarrierKind};
use crate::host::command::Runner;
use crate::host::filesystem::{FileSystem, FsConfig, FsKind, UmountAction};
use crate::host::fsck::FsckTiming;
use kmod_shim::nbd::kernel;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Mirror n is ublk device 1000 + n, out of the way of numbers that the kernel gives out.
const UBLK_NUMBERS: u32 = 1000;
/// How long the watcher of the carrier has to let go of it before it is asked again.
const LET_GO: Duration = Duration::from_millis(50);

/// The work on this host for one mirror.
pub(super) struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    socket: PathBuf,
    carrier_config: CarrierConfig,
    runner: Runner,
    fs: Option<FileSystem>,
    carrier: Mutex<Option<Attached>>,
    /// Asks the watcher to let go of the carrier.
    wanted: Notify,
    ended: mpsc::Sender<String>,
}

/// A carrier in use. Its watcher goes with it: one that outlived it would compete with the next
/// carrier's for the lock, and a third party could wait for ever.
struct Attached {
    carrier: Carrier,
    watcher: AbortHandle,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Host {
    /// The host's part of `mirror`; the receiver tells when its block device ends by itself.
    pub(super) fn new(config: &Config, mirror: &MirrorConfig) -> (Self, mpsc::Receiver<String>) {
        let (ended, receiver) = mpsc::channel(1);
        let runner = Runner::default();
        let fs = fs_config(config, mirror).map(|c| FileSystem::new(c, runner.clone()));
        let shared = Shared {
            name: mirror.name.clone(),
            socket: socket_path(&config.agent.run_dir, &mirror.name),
            carrier_config: carrier_config(config, mirror),
            runner,
            fs,
            carrier: Mutex::new(None),
            wanted: Notify::new(),
            ended,
        };
        (Self { shared: Arc::new(shared) }, receiver)
    }

    pub(super) fn carrier_config(&self) -> &CarrierConfig {
        &self.shared.carrier_config
    }

    pub(super) fn runner(&self) -> &Runner {
        &self.shared.runner
    }

    /// Whether the kernel's NBD client carries the mirror.
    pub(super) fn is_nbd(&self) -> bool {
        self.shared.carrier_config.kind == CarrierKind::KernelNbd
    }

    /// How the driver is to serve the device; `nbd` is what it would be with the kernel's client.
    pub(super) fn serving(&self, nbd: NbdDevice) -> Serving {
        match self.shared.carrier_config.kind {
            CarrierKind::KernelNbd => Serving::Nbd(nbd),
            CarrierKind::Ublk { number } => Serving::Ublk(number),
            CarrierKind::NbdFuse | CarrierKind::SocketOnly => {
                Serving::Socket(self.shared.socket.clone())
            }
        }
    }

    /// Runs `work` with the parts of this host.
    fn with<T, F>(&self, work: impl FnOnce(Arc<Shared>) -> F) -> Answer<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        Box::pin(work(Arc::clone(&self.shared)))
    }
}

impl Shared {
    /// The carrier, taken from its watcher.
    async fn carrier(&self) -> MutexGuard<'_, Option<Attached>> {
        loop {
            self.wanted.notify_one();
            if let Ok(guard) = timeout(LET_GO, self.carrier.lock()).await {
                return guard;
            }
        }
    }

    async fn device(&self) -> Option<PathBuf> {
        self.carrier().await.as_ref().and_then(|a| a.carrier.device().map(Path::to_owned))
    }

    /// Waits for the carrier to end by itself, and tells it once.
    async fn watch(self: Arc<Self>) {
        loop {
            let mut guard = self.carrier.lock().await;
            let Some(attached) = guard.as_mut() else { return };
            tokio::select! {
                why = attached.carrier.ended() => {
                    // The agent is told once; more would say the same.
                    let _ = self.ended.try_send(why);
                    return;
                }
                () = self.wanted.notified() => {}
            }
            drop(guard);
            tokio::time::sleep(LET_GO).await;
        }
    }

    async fn attach(self: Arc<Self>, front_end: PathBuf) -> Step<()> {
        let mut guard = self.carrier().await;
        if guard.is_some() {
            return Ok(());
        }
        let opened = Carrier::open(&self.carrier_config, &self.runner, &front_end, &self.name);
        let carrier = opened.await.map_err(|e| step(&e))?;
        let watcher = tokio::spawn(Arc::clone(&self).watch()).abort_handle();
        *guard = Some(Attached { carrier, watcher });
        Ok(())
    }

    async fn detach(self: Arc<Self>) -> Step<()> {
        let mut guard = self.carrier().await;
        if let Some(attached) = guard.as_mut() {
            attached.carrier.close().await.map_err(|e| step(&e))?;
        }
        *guard = None;
        Ok(())
    }

    /// The file system and its device.
    async fn mountable(&self) -> Step<(&FileSystem, PathBuf)> {
        let fs = self.fs.as_ref().ok_or_else(|| internal("no file system is configured"))?;
        let device = self.device().await.ok_or_else(|| internal("there is no block device"))?;
        Ok((fs, device))
    }
}

impl HostOps for Host {
    fn attach(&self, front_end: PathBuf) -> Answer<Step<()>> {
        self.with(|shared| shared.attach(front_end))
    }

    fn detach(&self) -> Answer<Step<()>> {
        self.with(Shared::detach)
    }

    fn check_if_due(&self, started: Box<dyn FnOnce() + Send>) -> Answer<Step<bool>> {
        self.with(|shared| async move {
            let (fs, device) = shared.mountable().await?;
            let checked = fs.check_if_due(&device, started).await.map_err(|e| step(&e))?;
            Ok(checked.is_some())
        })
    }

    fn mount(&self) -> Answer<Step<()>> {
        self.with(|shared| async move {
            let (fs, device) = shared.mountable().await?;
            fs.mount(&device).await.map_err(|e| step(&e))
        })
    }

    fn umount(&self) -> Answer<Step<()>> {
        self.with(|shared| async move {
            let (Some(fs), Some(device)) = (&shared.fs, shared.device().await) else {
                return Ok(());
            };
            fs.umount_everywhere(&device).await.map_err(|e| step(&e))?;
            Ok(())
        })
    }

    fn is_mounted(&self) -> Answer<Option<bool>> {
        self.with(|shared| async move {
            let (Some(fs), Some(device)) = (&shared.fs, shared.device().await) else {
                return Some(false);
            };
            fs.is_mounted(&device).ok()
        })
    }

    fn make_fs(&self) -> Answer<Step<()>> {
        self.with(|shared| async move {
            let (fs, device) = shared.mountable().await?;
            fs.make(&device).await.map_err(|e| step(&e))
        })
    }
}

fn carrier_config(config: &Config, mirror: &MirrorConfig) -> CarrierConfig {
    let kind = carrier_kind(mirror);
    CarrierConfig {
        kind,
        device_dir: config.agent.device_dir.clone(),
        run_dir: config.agent.run_dir.clone(),
        ..CarrierConfig::new(mirror.name.clone(), u32::from(mirror.nmp))
    }
}

/// What carries the mirror; `auto` is decided here, and said.
fn carrier_kind(mirror: &MirrorConfig) -> CarrierKind {
    let ublk = CarrierKind::Ublk { number: UBLK_NUMBERS + u32::from(mirror.nmp) };
    match mirror.front_end {
        FrontEnd::NbdSocket => CarrierKind::SocketOnly,
        FrontEnd::Loop => CarrierKind::NbdFuse,
        FrontEnd::Ublk => ublk,
        FrontEnd::Auto if kmod_shim::ublk::is_available() => {
            tracing::info!("{}: served by the kernel's ublk driver", mirror.name);
            ublk
        }
        FrontEnd::Nbd => CarrierKind::KernelNbd,
        FrontEnd::Auto => match kernel::available() {
            Ok(()) => {
                tracing::info!(
                    "{}: served by the kernel's NBD client, for this kernel offers no ublk \
                     (no /dev/ublk-control; try: modprobe ublk_drv)",
                    mirror.name
                );
                CarrierKind::KernelNbd
            }
            Err(why) => {
                tracing::info!(
                    "{}: served by nbdfuse and a loop device, for this kernel offers no ublk \
                     (no /dev/ublk-control; try: modprobe ublk_drv), and {why}",
                    mirror.name
                );
                CarrierKind::NbdFuse
            }
        },
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn fs_config(config: &Config, mirror: &MirrorConfig) -> Option<FsConfig> {
    let mount = mirror.mount.as_ref()?;
    let kind = match mirror.fs {
        config::FileSystem::Ext4 => FsKind::Ext4,
        config::FileSystem::Ext3 => FsKind::Ext3,
        config::FileSystem::Xfs => FsKind::Xfs,
        config::FileSystem::None => return None,
    };
    let (umount, fsck) = (&mirror.umount, &mirror.fsck);
    // Outlives a reboot, unlike the run folder.
    let counter = config.agent.log_dir.join(format!("{}.fsck-count", mirror.name));
    Some(FsConfig {
        kind,
        mount_options: mount.option.clone(),
        mount_timeout: mount.timeout,
        mount_retries: mount.retry,
        fsck_on_mount_failure: fsck.on_mount_failure,
        umount_timeout: umount.timeout,
        umount_retries: umount.retry,
        umount_interval: umount.interval,
        umount_action: match umount.action {
            config::UmountAction::Kill => UmountAction::Kill,
            config::UmountAction::None => UmountAction::None,
        },
        fsck_options: words(&fsck.option),
        fsck_timeout: fsck.timeout,
        fsck_timing: match fsck.timing {
            config::FsckTiming::Never => FsckTiming::Never,
            config::FsckTiming::Always => FsckTiming::Always,
            config::FsckTiming::Interval => FsckTiming::Every(fsck.interval),
        },
        xfs_repair_options: words(&fsck.xfs_option),
        xfs_repair_timeout: fsck.xfs_timeout,
        xfs_repair_on_mount_failure: fsck.xfs_on_mount_failure,
        mkfs_options: words(&mirror.mkfs_option),
        mkfs_timeout: mirror.mkfs_timeout,
        ..FsConfig::new(mount.point.clone(), counter)
    })
}
