//! One mirror on this server: the order of activation and deactivation.
//!
//! Activation goes up the steps *driver activated -> front end open -> device name -> file system
//! checked and mounted*; deactivation, and what undoes a failed activation, go down the same steps
//! from wherever the mirror stands. A step counts as up from just before it is attempted until it
//! is undone, because undoing what is not there succeeds: so nothing is left behind when a step is
//! interrupted, and a step that cannot be undone is tried again by a later deactivation.

use super::history::History;
use super::measure::Measured;
use super::parts::{HostOps, MirrorHandle, Step, StepError};
use super::peer_view::PeerView;
use crate::config::{Config, FileSystem, MirrorConfig};
use crate::ctl::Refused;
use crate::messages::{
    ActivateReason, DeactivateReason, Event, EventLog, Explained, MdCode, Operation, Parties,
    blank_and_unsure, driver, explain, later, serves_the_other,
};
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::direction::Row;
use mirror_core::status::{LinkStatus, MirrorStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::{sleep, timeout};

/// A request waits this long for an activation or deactivation under way, mkfs included.
const ENTER_LIMIT: Duration = Duration::from_secs(30);
/// For what is on its way to a disk before the device is left to the next agent.
const SUSPEND_LIMIT: Duration = Duration::from_secs(60);
/// For the block device to close: longer than its users' requests are waited for, and than the
/// kernel takes. What lasts longer hangs in a disk, or in the kernel.
const CLOSE_LIMIT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });
/// A driver that has not given its state after so long hangs.
const STATUS_LIMIT: Duration = Duration::from_secs(2);
/// Pause between two looks whether a reload still holds the mirror.
const LOOK: Duration = Duration::from_millis(100);

/// How a mirror is to be activated.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    pub(super) nomount: bool,
    pub(super) peer_down: bool,
    pub(super) peer_seen_active: Option<bool>,
    /// Make the file system first.
    pub(super) make_fs: bool,
}

/// Lets those who have a copy of it pass when the last one has come, or has gone away.
#[derive(Clone)]
pub(super) struct Gate {
    all: Arc<watch::Sender<()>>,
    coming: watch::Receiver<()>,
}

impl Gate {
    pub(super) fn new() -> Self {
        let (all, coming) = watch::channel(());
        Self { all: Arc::new(all), coming }
    }

    /// Comes, and waits for the others.
    async fn pass(self) {
        drop(self.coming);
        self.all.closed().await;
    }
}

/// The steps that are up, or may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stage {
    active: bool,
    front_end: bool,
    device: bool,
}

impl Stage {
    const DOWN: Self = Self { active: false, front_end: false, device: false };
    /// A driver that is active when the agent starts was left so by a predecessor.
    const UP: Self = Self { active: true, front_end: true, device: true };
}

/// A mirror that the agent manages.
pub(super) struct Managed {
    /// As the mirror was opened: its name, number, file system and all that stays.
    pub(super) config: MirrorConfig,
    /// The same with what a reload has changed.
    settings: RwLock<Arc<MirrorConfig>>,
    /// It is not to be activated while a reload is at work on it, and never again once it is removed.
    held: AtomicBool,
    /// Its device, as /dev/NMP1.
    pub(super) device: String,
    /// Both servers' names in configuration order, and which is this.
    pub(super) servers: [String; 2],
    pub(super) local: usize,
    pub(super) driver: Arc<dyn MirrorHandle>,
    host: Arc<dyn HostOps>,
    pub(super) events: EventLog,
    stage: Mutex<Stage>,
    /// For `clpmdstat --explain`.
    pub(super) history: History,
    /// What is counted of it here.
    pub(super) measured: Measured,
    /// What the other agent says of it.
    pub(super) peer: PeerView,
    /// A copy runs that an operator forced.
    forced: AtomicBool,
}

/// What made an activation fail, for the event.
struct Failed {
    reason: ActivateReason,
    error: StepError,
}

fn at(reason: ActivateReason) -> impl Fn(StepError) -> Failed {
    move |error| Failed { reason, error }
}

impl Managed {
    /// A mirror whose driver runs. One that is active already was left so by a predecessor.
    pub(super) async fn new(
        config: MirrorConfig,
        device: String,
        (servers, local): ([String; 2], usize),
        (driver, host): (Arc<dyn MirrorHandle>, Arc<dyn HostOps>),
        events: EventLog,
    ) -> Self {
        let active = driver.status().await.is_some_and(|s| s.sides[local].active == Some(true));
        let stage = Mutex::new(if active { Stage::UP } else { Stage::DOWN });
        let forced = AtomicBool::new(false);
        let settings = RwLock::new(Arc::new(config.clone()));
        Self {
            config,
            settings,
            held: AtomicBool::new(false),
            device,
            servers,
            local,
            driver,
            host,
            events,
            stage,
            history: History::default(),
            measured: Measured::default(),
            peer: PeerView::default(),
            forced,
        }
    }

    /// What holds now of all that can change while it is open.
    pub(super) fn settings(&self) -> Arc<MirrorConfig> {
        // A panic while it was held leaves a whole value behind.
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what a reload may change.
    pub(super) fn reconfigure(&self, config: &Config, mirror: &MirrorConfig) {
        self.host.reconfigure(config, mirror);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(mirror.clone());
    }

    /// From now on it is not activated, if it is not active.
    pub(super) async fn hold(&self) -> Result<(), Refused> {
        let stage = self.enter().await?;
        if *stage == Stage::DOWN && self.is_active().await == Some(false) {
            self.held.store(true, Ordering::SeqCst);
            return Ok(());
        }
        let (name, server) = (&self.config.name, &self.servers[self.local]);
        let message = format!("{name} is active on {server}");
        Err(Refused { code: MdCode::Failed, message, next: format!("clpmdctrl --deactive {name}") })
    }

    /// Ends [`hold`](Self::hold).
    pub(super) fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    /// Whether [`hold`](Self::hold) holds it. Whoever has [`enter`](Self::enter)ed before it asks
    /// can rely on a "no".
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    fn reloading(&self) -> Refused {
        let name = &self.config.name;
        let message =
            format!("{name} is being changed or removed by a reload of the configuration.");
        Refused { code: MdCode::Failed, message, next: format!("clpmdstat --mirror {name}") }
    }

    pub(super) fn has_fs(&self) -> bool {
        self.config.fs != FileSystem::None
    }

    fn parties(&self) -> Parties<'_> {
        Parties {
            mirror: &self.config.name,
            device: &self.device,
            local: &self.servers[self.local],
            peer: &self.servers[1 - self.local],
        }
    }

    /// Logs a refusal of the driver and makes it plain.
    fn refused(&self, operation: Operation, refusal: Refusal) -> Refused {
        self.said(explain(operation, refusal, self.parties()))
    }

    fn said(&self, e: Explained) -> Refused {
        if let Some(event) = e.event {
            self.events.log(event);
        }
        Refused { code: e.code, message: e.message, next: e.next }
    }

    /// Hands a command to the driver.
    pub(super) async fn command(&self, op: Operation, command: Command) -> Result<Done, Refused> {
        let refusal = match self.driver.command(command).await {
            Ok(done) => return Ok(done),
            Err(refusal) => refusal,
        };
        let explained = explain(op, refusal, self.parties());
        if refusal == Refusal::DiskFailed && self.serves_the_other().await {
            return Err(self.said(serves_the_other(explained, self.parties())));
        }
        Err(self.said(self.with_row(op, explained).await))
    }

    /// Whether the disk of the other server has failed, and not this one's.
    async fn serves_the_other(&self) -> bool {
        let failed = self.status().await.map(|s| s.sides.map(|side| side.disk_error == Some(true)));
        failed.is_some_and(|f| f[1 - self.local] && !f[self.local])
    }

    /// Adds what the row of the direction table has to say.
    async fn with_row(&self, op: Operation, explained: Explained) -> Explained {
        if !matches!(op, Operation::Activate | Operation::Recover) {
            return explained;
        }
        let Some(status) = self.status().await else { return explained };
        let parked = status.link == LinkStatus::Parked;
        if !parked || status.verdict.as_deref() != Some(Row::BlankAndUnsure.name()) {
            return explained;
        }
        let Some(blank) = status.sides.iter().position(|s| s.generation.is_none()) else {
            return explained;
        };
        let [full, blank] = [&self.servers[1 - blank], &self.servers[blank]];
        blank_and_unsure(explained, self.parties(), full, blank)
    }

    /// A force began a copy: its end is the end of the force.
    pub(super) fn note_forced(&self, copying: bool) {
        if copying {
            self.forced.store(true, Ordering::SeqCst);
        } else {
            self.events.log(Event::later(later::FORCED, &[&self.device]));
        }
    }

    /// A copy from this side has ended well. One that was forced may have been interrupted, and
    /// then its last part was the difference only.
    pub(super) fn copy_ended(&self) {
        if self.forced.swap(false, Ordering::SeqCst) {
            self.note_forced(false);
        }
    }

    /// Only one activation or deactivation at a time; a second one waits for a while.
    pub(super) async fn enter(&self) -> Result<MutexGuard<'_, Stage>, Refused> {
        timeout(ENTER_LIMIT, self.stage.lock()).await.map_err(|_| Refused {
            code: MdCode::Failed,
            message: format!(
                "{} is just being activated or deactivated on {}.",
                self.config.name, self.servers[self.local]
            ),
            next: format!("wait, then: clpmdstat --active {}", self.config.name),
        })
    }

    /// The same for what goes on by itself: a reload that holds the mirror is waited for. For one
    /// that removes it the wait ends with the task.
    pub(super) async fn enter_when_free(&self) -> Result<MutexGuard<'_, Stage>, Refused> {
        loop {
            let stage = self.enter().await?;
            if !self.is_held() {
                return Ok(stage);
            }
            drop(stage);
            sleep(LOOK).await;
        }
    }

    /// Activates, and closes again before anybody else may do anything: for work on the device
    /// that the activation itself does.
    pub(super) async fn activate_and_close(
        &self,
        stage: &mut Stage,
        how: How,
    ) -> Result<String, Refused> {
        let text = self.activate_from(stage, how).await?;
        self.go_down(stage).await.map_err(|e| self.deactivate_failed(stage, &e))?;
        Ok(text)
    }

    pub(super) async fn activate_from(
        &self,
        stage: &mut Stage,
        how: How,
    ) -> Result<String, Refused> {
        if self.is_held() {
            return Err(self.reloading());
        }
        let command =
            Command::Activate { peer_down: how.peer_down, peer_seen_active: how.peer_seen_active };
        let before = *stage;
        stage.active = true;
        let result = match self.command(Operation::Activate, command).await {
            Err(refused) => {
                *stage = before;
                Err(refused)
            }
            Ok(_) => match self.go_up(stage, how).await {
                Ok(()) => {
                    self.history.happened("activated", "it was activated on this server", None);
                    Ok(self.activated_text(how))
                }
                Err(failed) => Err(self.undo(stage, failed).await),
            },
        };
        if how.peer_down {
            self.events.log(match &result {
                Ok(_) => Event::later(later::FORCED_ACTIVE, &[&self.device]),
                Err(r) => Event::later(later::FORCED_ACTIVE_FAILED, &[&r.message, &self.device]),
            });
        }
        result
    }

    fn activated_text(&self, how: How) -> String {
        let here = format!("{} is active on {}", self.config.name, self.servers[self.local]);
        match &self.settings().mount {
            Some(mount) if !how.nomount => {
                format!("{here}: {} is mounted on {}.", self.device, mount.point.display())
            }
            _ => format!("{here}: {} is open, not mounted.", self.device),
        }
    }

    async fn go_up(&self, stage: &mut Stage, how: How) -> Result<(), Failed> {
        stage.front_end = true;
        let front_end = self.driver.open_front_end().await.map_err(at(ActivateReason::OpenPort))?;
        stage.device = true;
        self.host.attach(front_end).await.map_err(at(ActivateReason::OpenPort))?;
        self.events.log(Event::driver(driver::OPENED, self.config.nmp, &[]));
        if how.make_fs && self.has_fs() {
            self.host.make_fs().await.map_err(at(ActivateReason::Mount))?;
            self.events.log(Event::later(later::MKFS_DONE, &[&self.device]));
        }
        if !how.nomount && self.has_fs() {
            self.mount().await.map_err(at(ActivateReason::Mount))?;
        }
        Ok(())
    }

    async fn mount(&self) -> Step<()> {
        let (events, device) = (self.events.clone(), self.device.clone());
        let started = Box::new(move || events.log(Event::FsckStarted(device)));
        let began = Instant::now();
        if self.host.check_if_due(started).await? {
            self.measured.checked(began);
            self.events.log(Event::FsckDone(self.device.clone()));
        }
        self.host.mount().await
    }

    /// Goes down again after a failure. If that fails, too, both causes are told.
    async fn undo(&self, stage: &mut Stage, failed: Failed) -> Refused {
        self.events.log(Event::ActivateFailed(failed.reason, self.device.clone()));
        let name = &self.config.name;
        let mut message =
            format!("{name} was not activated on {}: {}", self.servers[self.local], failed.error);
        let blank =
            failed.reason == ActivateReason::Mount && self.host.is_blank().await == Some(true);
        let next = match self.go_down(stage).await {
            Ok(()) if blank => self.make_fs_by_hand(),
            Ok(()) if failed.reason == ActivateReason::OpenPort => format!(
                "clpmdagent --check says what this host lacks; then: clpmdctrl --active {name}"
            ),
            Ok(()) => format!("correct the cause, then: clpmdctrl --active {name}"),
            Err(e) => {
                message += &format!("\nIt could not be closed again: {e}");
                format!("clpmdctrl --deactive {name}")
            }
        };
        Refused { code: failed.error.code, message, next }
    }

    fn make_fs_by_hand(&self) -> String {
        let (name, device, fs) = (&self.config.name, &self.device, self.config.fs.word());
        format!(
            "clpmdctrl --active -nomount {name}; then, if it never had a file system: mkfs.{fs} {device}, \
             clpmdctrl --deactive {name}, clpmdctrl --active {name}"
        )
    }

    pub(super) async fn deactivate(&self) -> Result<String, Refused> {
        let mut stage = self.enter().await?;
        if *stage == Stage::DOWN {
            // Nothing is up here: the driver says what it knows.
            self.command(Operation::Deactivate, Command::Deactivate).await?;
        } else {
            self.go_down(&mut stage).await.map_err(|e| self.deactivate_failed(&stage, &e))?;
        }
        Ok(format!("{} is not active on {} any more.", self.config.name, self.servers[self.local]))
    }

    fn deactivate_failed(&self, stage: &Stage, error: &StepError) -> Refused {
        if stage.device {
            let reason = DeactivateReason::Umount;
            self.events.log(Event::driver(driver::BUSY, self.config.nmp, &[]));
            self.events.log(Event::DeactivateFailed(reason, self.device.clone()));
        }
        let name = &self.config.name;
        Refused {
            code: error.code,
            message: format!("{name} was not deactivated on {}: {error}", self.servers[self.local]),
            next: format!("end what uses {}, then: clpmdctrl --deactive {name}", self.device),
        }
    }

    async fn umount(&self) -> Step<()> {
        let mounted = self.is_mounted().await == Some(true);
        let began = Instant::now();
        self.host.umount().await?;
        if mounted {
            self.measured.unmounted(began);
        }
        Ok(())
    }

    /// The mirror has grown: so is its device, if it is open. Gives why that keeps its size; `None` if
    /// it does not, or is not open. What has the size already stays as it is.
    pub(super) async fn grow_device(&self, size: u64) -> Option<String> {
        // Not while it is being opened or closed.
        let stage = self.stage.lock().await;
        if !stage.front_end {
            return None;
        }
        let grown = timeout(CLOSE_LIMIT, self.driver.grow_front_end(size)).await;
        drop(stage);
        let kept = match grown {
            Ok(Ok(())) => return None,
            Ok(Err(why)) => why,
            Err(_) => "the kernel does not answer".to_owned(),
        };
        tracing::warn!("{} keeps its size: {kept}", self.device);
        Some(kept)
    }

    /// Closes what serves the device. If that takes too long, it goes on by itself, and the next
    /// deactivation looks again.
    async fn close_front_end(&self) -> Step<()> {
        timeout(CLOSE_LIMIT, self.driver.close_front_end()).await.unwrap_or_else(|_| {
            let message = format!(
                "{} was not closed within {} s: its disk or the kernel does not answer",
                self.device,
                CLOSE_LIMIT.as_secs()
            );
            Err(StepError { code: MdCode::Timeout, message })
        })
    }

    /// Takes down, in reverse order, every step that is up.
    async fn go_down(&self, stage: &mut Stage) -> Step<()> {
        if stage.device {
            // Also what an operator has mounted by hand.
            self.umount().await?;
            self.host.detach().await?;
            stage.device = false;
        }
        if stage.front_end {
            self.close_front_end().await?;
            stage.front_end = false;
            self.events.log(Event::driver(driver::CLOSED, self.config.nmp, &[]));
        }
        if stage.active {
            match self.driver.command(Command::Deactivate).await {
                Ok(_) | Err(Refusal::NotActive) => {
                    stage.active = false;
                    self.history.happened("deactivated", "it was deactivated on this server", None);
                }
                Err(refusal) => {
                    let e = explain(Operation::Deactivate, refusal, self.parties());
                    return Err(StepError { code: e.code, message: e.message });
                }
            }
        }
        Ok(())
    }

    /// Refuses an activation because the agent stops.
    pub(super) fn stopping(&self) -> Refused {
        self.refused(Operation::Activate, Refusal::Stopping)
    }

    /// Ends for good: down all steps, then a clean stop. A mirror that cannot be closed is not
    /// recorded as cleanly stopped.
    pub(super) async fn stop(&self) -> Step<()> {
        let mut stage = self.stage.lock().await;
        let stopped = self.shut_down(&mut stage).await;
        self.driver.end().await;
        stopped
    }

    async fn shut_down(&self, stage: &mut Stage) -> Step<()> {
        self.go_down(stage).await?;
        match self.driver.command(Command::Shutdown).await {
            Ok(_) | Err(Refusal::Stopping) => Ok(()),
            Err(refusal) => Err(StepError {
                code: MdCode::Failed,
                message: format!("{} was not stopped: {refusal}", self.config.name),
            }),
        }
    }

    /// Serves the device of an earlier agent again, whose users wait. If that fails, they get
    /// errors, and the mirror is deactivated.
    pub(super) async fn resume(&self) {
        let mut stage = self.stage.lock().await;
        *stage = Stage::UP;
        let served = async {
            let front_end = self.driver.open_front_end().await?;
            self.host.attach(front_end).await
        };
        if let Err(e) = served.await {
            let reason = ActivateReason::OpenPort;
            self.events.log(Event::ActivateFailed(reason, self.device.clone()));
            tracing::error!("{} is not served again: {e}", self.device);
            self.drop_device(&mut stage).await;
        }
    }

    /// The device fails. If the core gave the mirror up by itself, nobody will deactivate it: it is
    /// taken down, so that nothing hangs. Gives whether the mirror is inactive.
    pub(super) async fn device_failed(&self) -> bool {
        let mut stage = self.stage.lock().await;
        let inactive = self.is_active().await == Some(false);
        if inactive && stage.front_end {
            self.drop_device(&mut stage).await;
        }
        inactive
    }

    /// Takes everything down, also what is in use.
    async fn drop_device(&self, stage: &mut Stage) {
        stage.device = true; // until it is certain that there is none
        match self.host.discard().await {
            Ok(()) => stage.device = false,
            Err(e) => tracing::error!("{}: {e}", self.device),
        }
        if let Err(e) = self.go_down(stage).await {
            tracing::error!("{} was not closed: {e}", self.config.name);
        }
    }

    /// Whether there is a device in use that outlives this agent.
    pub(super) async fn would_stay(&self) -> bool {
        self.stage.lock().await.device && self.host.would_stay().await
    }

    /// Ends, and leaves the device to the next agent, where there is one that stays. Otherwise as
    /// [`stop`](Self::stop). No device is left before all that have the `gate` are ready for it.
    pub(super) async fn suspend(&self, gate: Gate) -> Step<()> {
        let mut stage = self.stage.lock().await;
        if !stage.device || !self.host.would_stay().await {
            let stopped = self.shut_down(&mut stage).await;
            self.driver.end().await;
            return stopped;
        }
        let suspended = timeout(SUSPEND_LIMIT, self.driver.command(Command::Suspend)).await;
        gate.pass().await;
        self.driver.leave().await;
        self.events.log(Event::driver(driver::LEFT, self.config.nmp, &[]));
        match suspended {
            Ok(Ok(_)) => Ok(()),
            // The next agent finds what it would find after a crash.
            other => Err(StepError {
                code: MdCode::Failed,
                message: format!(
                    "{} was left in the middle of its work: {other:?}",
                    self.config.name
                ),
            }),
        }
    }

    pub(super) async fn is_mounted(&self) -> Option<bool> {
        if self.has_fs() { self.host.is_mounted().await } else { Some(false) }
    }

    /// The state; `None` if the driver has ended or hangs.
    pub(super) async fn status(&self) -> Option<MirrorStatus> {
        timeout(STATUS_LIMIT, self.driver.status()).await.ok().flatten()
    }

    /// Whether there is a session with the peer now.
    pub(super) async fn in_session(&self) -> bool {
        self.status().await.is_some_and(|s| s.link == LinkStatus::Session)
    }

    /// Whether this side serves the mirror; `None` if that cannot be told.
    pub(super) async fn is_active(&self) -> Option<bool> {
        self.status().await.and_then(|s| s.sides[self.local].active)
    }

    /// For requests that need a driver that answers.
    pub(super) fn silent(&self) -> Refused {
        let what = format!("the driver of {} does not answer", self.config.name);
        let next = "systemctl status clusterpro_md".to_owned();
        Refused { code: MdCode::Internal, message: MdCode::Internal.fill(&[&what]), next }
    }
}
