//! Parts that write down what is done with them, and fail when told to.

use crate::agent::{DriverEvent, HostOps, MirrorHandle, Opened, Peer, Plant, Step, StepError};
use crate::config::{Config, MirrorConfig};
use crate::ctl::Answer;
use crate::figures::Figures;
use crate::host::power::{Power, PowerAction};
use crate::messages::MdCode;
use crate::peer::{PeerAnswer, PeerError, PeerRequest};
use crate::secret::Secret;
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::status::{Color, LinkStatus, MirrorStatus, Phase, SideStatus};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Both sides in sync, inactive, in session, seen from `local`.
pub(crate) fn status(local: usize) -> MirrorStatus {
    let side = || SideStatus {
        color: Color::Green,
        active: Some(false),
        last_update: None,
        break_time: None,
        disk_error: Some(false),
        marked_regions: Some(0),
        difference_percent: None,
        generation: Some("a".to_owned()),
    };
    MirrorStatus {
        phase: Phase::Normal,
        sides: [side(), side()],
        local,
        total_difference_percent: 0,
        recovery: None,
        link: LinkStatus::Session,
        session: 1,
        verdict: None,
        block: 512,
        size: 1 << 30,
        separated: false,
        both_active: false,
        needs_force: false,
        constructing: false,
    }
}

/// What was done, in order.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.0.lock().expect("lock").push(what.into());
    }

    /// What was done since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("lock"))
    }

    pub(crate) fn contains(&self, what: &str) -> bool {
        self.0.lock().expect("lock").iter().any(|w| w == what)
    }
}

/// Driver, host and peer in one.
pub(crate) struct Fake {
    pub(crate) journal: Journal,
    pub(crate) status: Mutex<MirrorStatus>,
    /// The step that fails.
    pub(crate) fail: Mutex<Vec<&'static str>>,
    pub(crate) refuse: Mutex<Option<Refusal>>,
    pub(crate) fsck_due: Mutex<bool>,
    pub(crate) mounted: Mutex<bool>,
    /// Nothing is found on the device.
    pub(crate) blank: Mutex<bool>,
    /// The device would outlive the agent.
    pub(crate) stays: Mutex<bool>,
    /// How long a suspension takes.
    pub(crate) suspends_for: Mutex<Duration>,
    /// The mirror is found active on the device of an earlier agent.
    pub(crate) resumed: Mutex<bool>,
    pub(crate) events: mpsc::Sender<DriverEvent>,
    receiver: Mutex<Option<mpsc::Receiver<DriverEvent>>>,
    /// How long its last question waits for an answer.
    pub(crate) asked_for: Mutex<Duration>,
    /// What the other agent answers; `None` = it cannot be reached.
    pub(crate) peer: Mutex<Option<PeerAnswer>>,
}

impl Fake {
    pub(crate) fn new(local: usize) -> Arc<Self> {
        Self::with_journal(local, Journal::default())
    }

    /// One that writes down what is done with it beside what is done with another.
    pub(crate) fn with_journal(local: usize, journal: Journal) -> Arc<Self> {
        let (events, receiver) = mpsc::channel(16);
        Arc::new(Self {
            journal,
            status: Mutex::new(status(local)),
            fail: Mutex::default(),
            refuse: Mutex::default(),
            fsck_due: Mutex::default(),
            mounted: Mutex::default(),
            blank: Mutex::default(),
            stays: Mutex::default(),
            suspends_for: Mutex::default(),
            resumed: Mutex::default(),
            events,
            receiver: Mutex::new(Some(receiver)),
            asked_for: Mutex::default(),
            peer: Mutex::default(),
        })
    }

    pub(crate) fn fail(&self, steps: &[&'static str]) {
        *self.fail.lock().expect("lock") = steps.to_vec();
    }

    fn step(&self, what: &str) -> Step<()> {
        self.journal.note(what);
        if self.fail.lock().expect("lock").contains(&what) {
            let message = format!("{what} went wrong");
            return Err(StepError { code: MdCode::Timeout, message });
        }
        Ok(())
    }

    fn ready<T: Send + 'static>(value: T) -> Answer<T> {
        Box::pin(std::future::ready(value))
    }

    pub(crate) fn set_active(&self, active: bool) {
        let mut s = self.status.lock().expect("lock");
        let local = s.local;
        s.sides[local].active = Some(active);
    }

    pub(crate) fn is_active(&self) -> bool {
        let s = self.status.lock().expect("lock");
        s.sides[s.local].active == Some(true)
    }

    fn apply(&self, command: Command) -> Result<Done, Refusal> {
        if let Some(refusal) = *self.refuse.lock().expect("lock") {
            return Err(refusal);
        }
        match command {
            Command::Activate { .. } if self.is_active() => Err(Refusal::AlreadyActive),
            Command::Deactivate if !self.is_active() => Err(Refusal::NotActive),
            Command::Activate { .. } => {
                self.set_active(true);
                Ok(Done::Activated)
            }
            Command::Deactivate => {
                self.set_active(false);
                Ok(Done::Deactivated)
            }
            Command::Recover => Ok(Done::RecoveryStarted),
            Command::CancelRecovery => Err(Refusal::NoRecovery),
            Command::Force { .. } => Ok(Done::ForcedWithCopy),
            Command::Shutdown | Command::Suspend => Ok(Done::Stopped),
            Command::Separate => Ok(Done::Separated),
            Command::Resize => Ok(Done::Grown(8192)),
            _ => Ok(Done::Noted),
        }
    }
}

impl MirrorHandle for Fake {
    fn command(&self, command: Command) -> Answer<Result<Done, Refusal>> {
        let what = format!("{command:?}");
        self.journal.note(what.as_str());
        let result = self.apply(command);
        if what != "Suspend" {
            return Self::ready(result);
        }
        let (journal, time) = (self.journal.clone(), *self.suspends_for.lock().expect("lock"));
        Box::pin(async move {
            tokio::time::sleep(time).await;
            journal.note("suspended");
            result
        })
    }

    fn status(&self) -> Answer<Option<MirrorStatus>> {
        let status = self.status.lock().expect("lock").clone();
        if self.fail.lock().expect("lock").contains(&"status") {
            return Box::pin(std::future::pending());
        }
        Self::ready(Some(status))
    }

    fn figures(&self, _: bool) -> Answer<Option<Box<Figures>>> {
        let mut figures = Box::<Figures>::default();
        figures.device.write.add(512, 7);
        Self::ready(Some(figures))
    }

    fn open_front_end(&self) -> Answer<Step<PathBuf>> {
        Self::ready(self.step("open front end").map(|()| PathBuf::from("/run/nbd")))
    }

    fn leave(&self) -> Answer<()> {
        self.journal.note("leave");
        Self::ready(())
    }

    fn end(&self) -> Answer<()> {
        self.journal.note("end");
        Self::ready(())
    }

    fn grow_front_end(&self, size: u64) -> Answer<Result<(), String>> {
        self.journal.note(format!("to {size} bytes"));
        Self::ready(self.step("grow front end").map_err(|e| e.to_string()))
    }

    fn close_front_end(&self) -> Answer<Step<()>> {
        let closed = self.step("close front end");
        if self.fail.lock().expect("lock").contains(&"end of close front end") {
            return Box::pin(std::future::pending());
        }
        Self::ready(closed)
    }
}

impl HostOps for Fake {
    fn attach(&self, front_end: PathBuf) -> Answer<Step<()>> {
        assert_eq!(front_end, PathBuf::from("/run/nbd"));
        Self::ready(self.step("attach"))
    }

    fn detach(&self) -> Answer<Step<()>> {
        Self::ready(self.step("detach"))
    }

    fn would_stay(&self) -> Answer<bool> {
        Self::ready(*self.stays.lock().expect("lock"))
    }

    fn discard(&self) -> Answer<Step<()>> {
        Self::ready(self.step("discard"))
    }

    fn check_if_due(&self, started: Box<dyn FnOnce() + Send>) -> Answer<Step<bool>> {
        let due = *self.fsck_due.lock().expect("lock");
        if due {
            started();
        }
        Self::ready(self.step("fsck").map(|()| due))
    }

    fn mount(&self) -> Answer<Step<()>> {
        Self::ready(self.step("mount"))
    }

    fn umount(&self) -> Answer<Step<()>> {
        Self::ready(self.step("umount"))
    }

    fn is_mounted(&self) -> Answer<Option<bool>> {
        Self::ready(Some(*self.mounted.lock().expect("lock")))
    }

    fn make_fs(&self) -> Answer<Step<()>> {
        Self::ready(self.step("mkfs"))
    }

    fn reconfigure(&self, _: &Config, mirror: &MirrorConfig) {
        self.journal.note(format!("reconfigure {}", mirror.name));
    }

    fn is_blank(&self) -> Answer<Option<bool>> {
        Self::ready(Some(*self.blank.lock().expect("lock")))
    }
}

impl Power for Fake {
    fn act(&self, action: PowerAction, why: &str) {
        self.journal.note(format!("power: {action:?} {why}"));
    }
}

/// The peer's half, as the agent holds it.
pub(crate) struct FakePeer(pub(crate) Arc<Fake>);

impl Peer for FakePeer {
    fn ask_within(
        &self,
        request: PeerRequest,
        limit: Duration,
    ) -> Answer<Result<PeerAnswer, PeerError>> {
        *self.0.asked_for.lock().expect("lock") = limit;
        self.0.journal.note(format!("peer: {request:?}"));
        let answer = self.0.peer.lock().expect("lock").clone();
        Fake::ready(answer.ok_or_else(|| PeerError::Unreachable("cut".to_owned())))
    }
}

/// Opens md1 as the fake and fails for any other mirror.
pub(crate) struct FakePlant(pub(crate) Arc<Fake>);

impl Plant for FakePlant {
    fn open(&self, _: Arc<Config>, mirror: MirrorConfig, _: Secret) -> Answer<Step<Opened>> {
        let fake = Arc::clone(&self.0);
        fake.journal.note(format!("open {}", mirror.name));
        let receiver = fake.receiver.lock().expect("lock").take();
        let resumed = *fake.resumed.lock().expect("lock");
        Fake::ready(match receiver {
            Some(events) if mirror.name == "md1" => {
                Ok(Opened { driver: fake.clone(), host: fake, events, resumed })
            }
            _ => Err(StepError {
                code: MdCode::ReadCluster,
                message: MdCode::ReadCluster.text().to_owned(),
            }),
        })
    }

    fn sweep(&self, _: Arc<Config>) -> Answer<()> {
        self.0.journal.note("sweep");
        Fake::ready(())
    }
}

/// Opens md1 and md2 as the fakes; md1 only once md2 is.
pub(crate) struct TwoPlant(pub(crate) [Arc<Fake>; 2], pub(crate) Arc<Semaphore>);

impl Plant for TwoPlant {
    fn open(&self, _: Arc<Config>, mirror: MirrorConfig, _: Secret) -> Answer<Step<Opened>> {
        let first = mirror.name == "md1";
        let (fake, is_open) = (Arc::clone(&self.0[usize::from(!first)]), Arc::clone(&self.1));
        Box::pin(async move {
            if first {
                is_open.acquire().await.expect("open").forget();
            } else {
                is_open.add_permits(1);
            }
            let events = take_events(&fake);
            Ok(Opened { driver: fake.clone(), host: fake, events, resumed: false })
        })
    }

    fn sweep(&self, _: Arc<Config>) -> Answer<()> {
        Fake::ready(())
    }
}

/// Opens every mirror as a fake of its own that was prepared for it, and fails for any other, and
/// while a fake is to fail at "open".
pub(crate) struct ManyPlant(pub(crate) Vec<(&'static str, Arc<Fake>)>);

impl Plant for ManyPlant {
    fn open(&self, _: Arc<Config>, mirror: MirrorConfig, _: Secret) -> Answer<Step<Opened>> {
        let found = self.0.iter().find(|(name, fake)| {
            *name == mirror.name && !fake.fail.lock().expect("lock").contains(&"open")
        });
        Fake::ready(match found {
            Some((_, fake)) => Ok(Opened {
                driver: fake.clone(),
                host: fake.clone(),
                events: take_events(fake),
                resumed: false,
            }),
            None => Err(StepError { code: MdCode::ReadCluster, message: "torn".to_owned() }),
        })
    }

    fn sweep(&self, _: Arc<Config>) -> Answer<()> {
        Fake::ready(())
    }
}

/// The agent's end of the driver's events.
pub(crate) fn take_events(fake: &Fake) -> mpsc::Receiver<DriverEvent> {
    fake.receiver.lock().expect("lock").take().expect("taken once")
}
