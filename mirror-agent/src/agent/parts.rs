//! What the agent is put together from: the driver of a mirror, the work on this host, the way to
//! the other agent. The agent knows them by these traits only; tests put fakes in their place.

use crate::config::{Config, MirrorConfig};
use crate::ctl::Answer;
use crate::figures::Figures;
use crate::messages::MdCode;
use crate::peer::{ASK_LIMIT, PeerAnswer, PeerError, PeerLink, PeerRequest};
use crate::secret::Secret;
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::io::Notice;
use mirror_core::status::{Marked, MirrorStatus};
use mirror_core::units::SessionNo;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A step of activation or deactivation failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepError {
    /// The result code it is reported with.
    pub code: MdCode,
    /// What happened.
    pub message: String,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StepError {}

/// Outcome of a step.
pub type Step<T> = Result<T, StepError>;

/// The driver of one mirror. Its calls never wait for the agent.
pub trait MirrorHandle: Send + Sync + 'static {
    /// Hands a command to the mirror. A driver that has ended refuses with
    /// [`Refusal::Stopping`].
    fn command(&self, command: Command) -> Answer<Result<Done, Refusal>>;

    /// The state as of now; `None` if the driver has ended.
    fn status(&self) -> Answer<Option<MirrorStatus>>;

    /// Where this side has what the other may lack, at most `limit` ranges by name; `None` if that
    /// cannot be told.
    fn marked(&self, limit: usize) -> Answer<Option<Marked>> {
        let _ = limit;
        Box::pin(async { None })
    }

    /// What is counted of the mirror; with `take_peaks` a new interval begins for the peaks. `None`
    /// if the driver has ended.
    fn figures(&self, take_peaks: bool) -> Answer<Option<Box<Figures>>> {
        let _ = take_peaks;
        Box::pin(async { None })
    }

    /// Begins to serve requests; gives the socket or device that serves them.
    fn open_front_end(&self) -> Answer<Step<PathBuf>>;

    /// Gives what serves requests, which is open, this size in bytes, for those who have it open, too.
    /// What has that size stays as it is. An error says why it keeps its size.
    fn grow_front_end(&self, size: u64) -> Answer<Result<(), String>>;

    /// Ends serving. Closing what is closed succeeds.
    fn close_front_end(&self) -> Answer<Step<()>>;

    /// Ends the driver and waits for it, but leaves the front end's device, with all that is not
    /// answered, to the next agent; after [`Command::Suspend`].
    fn leave(&self) -> Answer<()>;

    /// Ends the driver and waits for it; after [`Command::Shutdown`] if the stop is a clean one.
    fn end(&self) -> Answer<()>;
}

/// The work on this host for one mirror.
pub trait HostOps: Send + Sync + 'static {
    /// Makes the device name (`/dev/NMPx`) lead to what serves the mirror.
    fn attach(&self, front_end: PathBuf) -> Answer<Step<()>>;

    /// Takes the device name away. What is not there counts as taken away.
    fn detach(&self) -> Answer<Step<()>>;

    /// Whether there is a device now that would outlive this agent.
    fn would_stay(&self) -> Answer<bool>;

    /// Takes down a device that must not be served: the name and the mounts, however much they are
    /// in use, and the device if no front end of this process has it.
    fn discard(&self) -> Answer<Step<()>>;

    /// Checks the file system if the configuration says that it is due; calls `started` first if
    /// so. Gives whether it was checked.
    fn check_if_due(&self, started: Box<dyn FnOnce() + Send>) -> Answer<Step<bool>>;

    /// Mounts the device on the mount point.
    fn mount(&self) -> Answer<Step<()>>;

    /// Unmounts the device, wherever it is mounted. Nothing mounted is success.
    fn umount(&self) -> Answer<Step<()>>;

    /// Whether the device is mounted on the mount point; `None` if that cannot be told.
    fn is_mounted(&self) -> Answer<Option<bool>>;

    /// Makes the file system; refuses if one is found.
    fn make_fs(&self) -> Answer<Step<()>>;

    /// Takes over what a reload of the configuration may change: how it is mounted, checked and
    /// unmounted.
    fn reconfigure(&self, config: &Config, mirror: &MirrorConfig) {
        let _ = (config, mirror);
    }

    /// Whether nothing at all is found on the device; `None` if that cannot be told.
    fn is_blank(&self) -> Answer<Option<bool>> {
        Box::pin(std::future::ready(None))
    }
}

/// What a driver tells the agent of its own accord.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DriverEvent {
    /// For the event log.
    Notice(Notice),
    /// This side goes on alone: tell the peer over the agents' link, and answer with
    /// [`Command::PeerConfirmedBehind`] once it has confirmed.
    TellPeerBehind(SessionNo),
    /// The device fails all I/O from now on.
    DeviceFailed,
    /// The mirror has grown beyond the device that is open; bytes.
    Grown(u64),
    /// Something is wrong with the front end; what.
    FrontEnd(String),
    /// The driver ended without having been asked to; why.
    Ended(String),
}

/// A mirror that was opened.
pub struct Opened {
    /// Its driver.
    pub driver: Arc<dyn MirrorHandle>,
    /// The work on this host.
    pub host: Arc<dyn HostOps>,
    /// What the driver tells of its own accord. The driver never waits for room.
    pub events: mpsc::Receiver<DriverEvent>,
    /// It is active, on a device that an earlier agent has left: the front end is to be opened and
    /// attached at once, its users wait.
    pub resumed: bool,
}

/// Opens mirrors: reads the partitions, starts the driver's thread, prepares the host's part.
pub trait Plant: Send + Sync + 'static {
    /// Opens `mirror` on this server.
    fn open(
        &self,
        config: Arc<Config>,
        mirror: MirrorConfig,
        secret: Secret,
    ) -> Answer<Step<Opened>>;

    /// Clears away what earlier agents have left of mirrors that are not in `config`.
    fn sweep(&self, config: Arc<Config>) -> Answer<()>;
}

/// The way to the other agent.
pub trait Peer: Send + Sync + 'static {
    /// Asks, within the link's time limit.
    fn ask(&self, request: PeerRequest) -> Answer<Result<PeerAnswer, PeerError>> {
        self.ask_within(request, ASK_LIMIT)
    }

    /// Asks, within this time limit.
    fn ask_within(
        &self,
        request: PeerRequest,
        limit: Duration,
    ) -> Answer<Result<PeerAnswer, PeerError>>;
}

impl Peer for Arc<PeerLink> {
    fn ask_within(
        &self,
        request: PeerRequest,
        limit: Duration,
    ) -> Answer<Result<PeerAnswer, PeerError>> {
        let link = Self::clone(self);
        Box::pin(async move { link.ask_for(&request, limit).await })
    }
}
