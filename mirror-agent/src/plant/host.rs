//! Block device and file system of one mirror behind the agent's trait.

use super::driver::Serving;
use super::nbd::{self, Left, NbdDevice};
use super::ublk::{self, Place};
use super::{internal, socket_path, step};
use crate::agent::{HostOps, Step};
use crate::config::{self, Config, MirrorConfig};
use crate::ctl::Answer;
use crate::host::carrier::{Carrier, CarrierConfig, CarrierKind};
use crate::host::command::Runner;
use crate::host::filesystem::{FileSystem, FsConfig, FsKind, UmountAction};
use crate::host::fsck::FsckTiming;
use crate::host::fsevent::FsEvent;
use crate::host::offers::{self, Way};
use crate::host::survivor::{self, DeviceRecord, Verdict};
use crate::messages::{Event, EventLog, later};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// How long the watcher of the carrier has to let go of it before it is asked again.
const LET_GO: Duration = Duration::from_millis(50);

/// The work on this host for one mirror.
pub(super) struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    carrier_config: CarrierConfig,
    serving: Serving,
    ublk: ublk::Settings,
    runner: Runner,
    fs: RwLock<Option<Arc<FileSystem>>>,
    events: EventLog,
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
    /// The host's part of `mirror`, carried by `kind`; the receiver tells when its block device ends by
    /// itself.
    pub(super) fn new(
        config: &Config,
        mirror: &MirrorConfig,
        (runner, events): (&Runner, EventLog),
        (left, kind): (&Left, CarrierKind),
    ) -> (Self, mpsc::Receiver<String>) {
        let (ended, receiver) = mpsc::channel(1);
        let runner = runner.clone();
        let carrier_config = carrier_config(config, mirror, kind);
        let socket = socket_path(&config.agent.run_dir, &mirror.name);
        let ublk = ublk_settings(config);
        let serving = match carrier_config.kind {
            CarrierKind::Ublk => {
                let (nmp, link) = (u32::from(mirror.nmp), carrier_config.device());
                let place = Place::new(ublk.clone(), &mirror.name, nmp, link, left.ublk.clone());
                Serving::Ublk(Arc::new(place))
            }
            CarrierKind::KernelNbd => Serving::Nbd(NbdDevice::new(config, mirror)),
            CarrierKind::NbdFuse | CarrierKind::SocketOnly => Serving::Socket(socket),
        };
        let fs = file_system(config, mirror, (&runner, &events), &carrier_config);
        let shared = Shared {
            name: mirror.name.clone(),
            carrier_config,
            serving,
            ublk,
            runner,
            fs: RwLock::new(fs),
            events,
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

    /// How the driver is to serve the device.
    pub(super) fn serving(&self) -> Serving {
        self.shared.serving.clone()
    }

    /// Runs `work` with the parts of this host.
    fn with<T, F>(&self, work: impl FnOnce(Arc<Shared>) -> F) -> Answer<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        Box::pin(work(Arc::clone(&self.shared)))
    }
}

/// How the file system is handled, if there is one.
fn file_system(
    config: &Config,
    mirror: &MirrorConfig,
    (runner, events): (&Runner, &EventLog),
    carrier: &CarrierConfig,
) -> Option<Arc<FileSystem>> {
    let device = carrier.device().display().to_string();
    let events = events.clone();
    let told = move |e: FsEvent| events.log(event_of(&e, &device));
    let fs = FileSystem::new(fs_config(config, mirror)?, runner.clone());
    Some(Arc::new(fs.told_to(told)))
}

impl Shared {
    fn fs(&self) -> Option<Arc<FileSystem>> {
        // A panic while it was held leaves a whole value behind.
        self.fs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

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

    fn record(&self) -> Step<Option<DeviceRecord>> {
        if !matches!(self.serving, Serving::Ublk(_)) {
            return Ok(None);
        }
        DeviceRecord::load(&self.ublk.run_dir, &self.name).map_err(|e| step(&e))
    }

    /// Whether there is a device that would outlive this agent.
    async fn would_stay(self: Arc<Self>) -> bool {
        if let Serving::Nbd(_) = self.serving {
            return true;
        }
        let Ok(Some(record)) = self.record() else { return false };
        let looked = tokio::task::spawn_blocking(move || kmod_shim::ublk::inspect(record.number));
        matches!(looked.await, Ok(Ok(Some(device))) if device.survives)
    }

    /// Takes down the device's name and mounts, by force, and the device if no front end of this
    /// process serves it.
    async fn discard(self: Arc<Self>) -> Step<()> {
        *self.carrier().await = None;
        if let Serving::Nbd(_) = self.serving {
            return nbd::discard(&self.carrier_config, &self.runner).await;
        }
        let Some(record) = self.record()? else { return Ok(()) };
        let asked = record.clone();
        let verdict = tokio::task::spawn_blocking(move || survivor::look(&asked, true, None)).await;
        // Without an answer of the kernel's there is no proof that the device is ours.
        let verdict = verdict.map_err(|e| internal(&e.to_string()))?.map_err(|e| step(&e))?;
        if let (Serving::Ublk(place), true) = (&self.serving, verdict != Verdict::Served) {
            place.drop_record();
        }
        ublk::take_down(&self.ublk, &record, verdict, &self.runner).await.map_err(|e| step(&e))
    }

    /// The file system and its device.
    async fn mountable(&self) -> Step<(Arc<FileSystem>, PathBuf)> {
        let fs = self.fs().ok_or_else(|| internal("no file system is configured"))?;
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

    fn would_stay(&self) -> Answer<bool> {
        self.with(Shared::would_stay)
    }

    fn discard(&self) -> Answer<Step<()>> {
        self.with(Shared::discard)
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
            let (Some(fs), Some(device)) = (shared.fs(), shared.device().await) else {
                return Ok(());
            };
            fs.umount_everywhere(&device).await.map_err(|e| step(&e))?;
            Ok(())
        })
    }

    fn is_mounted(&self) -> Answer<Option<bool>> {
        self.with(|shared| async move {
            let (Some(fs), Some(device)) = (shared.fs(), shared.device().await) else {
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

    fn reconfigure(&self, config: &Config, mirror: &MirrorConfig) {
        let shared = &self.shared;
        let own = (&shared.runner, &shared.events);
        let fs = file_system(config, mirror, own, &shared.carrier_config);
        *shared.fs.write().unwrap_or_else(PoisonError::into_inner) = fs;
    }

    fn is_blank(&self) -> Answer<Option<bool>> {
        self.with(|shared| async move {
            let (fs, device) = shared.mountable().await.ok()?;
            fs.is_blank(&device).await.ok()
        })
    }
}

/// What happens to the commands of the file system, as messages about `device`.
pub(super) fn event_of(event: &FsEvent, device: &str) -> Event {
    match event {
        FsEvent::CheckStarted(program, options) => {
            Event::later(later::COMMAND_STARTED, &[program, device, options])
        }
        FsEvent::CheckDone => Event::FsckDone(device.to_owned()),
        FsEvent::Failed(program, exit) => {
            Event::later(later::COMMAND_FAILED, &[program, device, exit])
        }
        FsEvent::Needed(program, option) => {
            Event::later(later::COMMAND_NEEDED, &[program, device, option])
        }
        FsEvent::UmountTimeout => Event::later(later::UMOUNT_TIMEOUT, &[device]),
        FsEvent::CheckTimeout => Event::later(later::FSCK_TIMEOUT, &[device]),
    }
}

pub(super) fn ublk_settings(config: &Config) -> ublk::Settings {
    let agent = &config.agent;
    ublk::Settings {
        run_dir: agent.run_dir.clone(),
        config: config.file.clone(),
        patience: agent.agent_timeout,
    }
}

fn carrier_config(config: &Config, mirror: &MirrorConfig, kind: CarrierKind) -> CarrierConfig {
    CarrierConfig {
        kind,
        device_dir: config.agent.device_dir.clone(),
        run_dir: config.agent.run_dir.clone(),
        ..CarrierConfig::new(mirror.name.clone(), u32::from(mirror.nmp))
    }
}

/// What carries the mirror; `auto` is decided here, and said. Asks drivers, which may take their time.
pub(super) fn carrier_kind(mirror: &MirrorConfig) -> CarrierKind {
    let choice = offers::gather().choose(offers::named(mirror.front_end));
    let (name, way) = (&mirror.name, choice.way.name());
    if choice.works {
        tracing::info!("{name}: served by {way} ({})", choice.why);
    } else {
        tracing::error!(
            "{name}: {way} does not work here ({}). Next: clpmdagent --check",
            choice.why
        );
    }
    match choice.way {
        Way::Ublk => CarrierKind::Ublk,
        Way::Nbd => CarrierKind::KernelNbd,
        Way::Loop => CarrierKind::NbdFuse,
        Way::NbdSocket => CarrierKind::SocketOnly,
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
