//! What drives one mirror: a thread with one ring for its front end, its partitions and its peer.
//!
//! The thread turns what happens into [`mirror_core::io::Event`]s, hands them to a [`Machine`]
//! (the core's `Mirror`) and carries out the [`mirror_core::io::Action`]s that come back. Nothing
//! on it waits for anything but the ring. The agent talks to it through a [`Handle`].

mod count;
mod disk;
mod event_loop;
#[cfg(feature = "fault-injection")]
mod faults;
mod memory;
mod net;
mod partition;
mod patience;
mod peer;
mod sys;

pub use net::{ListenError, ListenStep, MAX_STRANGERS, NetConfig, NetNote, Route};
pub use partition::{OpenError, Partition};

use crate::figures::Figures;
use kmod_shim::nbd::Export;
use kmod_shim::sys::Submitter;
use kmod_shim::ublk::UblkSpec;
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::io::{Action, Event, IoId, Notice, RequestId};
use mirror_core::mirror::Mirror;
use mirror_core::status::{Marked, MirrorStatus, Waits};
use mirror_core::units::{Millis, Now, SessionNo};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// Orders that may wait for the thread.
const MAX_ORDERS: usize = 64;

/// What decides: the core's `Mirror`, or something else in tests.
pub trait Machine: Send + 'static {
    /// Takes an event; what is to be done is appended to `out`, in order.
    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Action>);
    /// When [`Event::Timer`] is due next.
    fn deadline(&self) -> Option<Millis>;
    /// The request that a disk read is for, if its bytes go nowhere else: they may be put straight
    /// there, and the read be answered without them.
    fn read_for(&self, io: IoId) -> Option<RequestId> {
        let _ = io; // only a mirror says
        None
    }
    /// What it shows of itself.
    fn status(&self, now: Now) -> MirrorStatus;
    /// Where it has what the peer may lack, at most `limit` ranges by name.
    fn marked(&self, limit: usize) -> Marked {
        let _ = limit; // only a mirror has marks
        Marked::default()
    }
    /// How long writes and recovery have waited for each other.
    fn waits(&self) -> Waits {
        Waits::default() // only a mirror makes them wait
    }
}

impl Machine for Mirror {
    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Action>) {
        Mirror::handle(self, now, event, out);
    }

    fn deadline(&self) -> Option<Millis> {
        Mirror::deadline(self)
    }

    fn read_for(&self, io: IoId) -> Option<RequestId> {
        Mirror::read_for(self, io)
    }

    fn status(&self, now: Now) -> MirrorStatus {
        Mirror::status(self, now)
    }

    fn marked(&self, limit: usize) -> Marked {
        Mirror::marked(self, limit)
    }

    fn waits(&self) -> Waits {
        Mirror::waits(self)
    }
}

/// What a driver needs.
#[derive(Debug)]
pub struct DriverConfig {
    /// Name of the mirror, for the thread and the log.
    pub name: String,
    /// The data partition.
    pub data: Partition,
    /// The cluster partition.
    pub cluster: Partition,
    /// The peer.
    pub net: NetConfig,
    /// A disk operation without an answer for this long has failed; 60 s by default.
    pub disk_limit: Duration,
}

/// Which front end to open.
#[derive(Clone, Debug)]
pub enum FrontEndSpec {
    /// The NBD server on a unix socket.
    NbdSocket {
        /// The socket's path.
        path: PathBuf,
        /// Name, size and block size.
        export: Export,
    },
    /// A connection to the kernel's own NBD client.
    NbdKernel {
        /// Our end of it.
        socket: Arc<OwnedFd>,
        /// Name, size and block size.
        export: Export,
        /// The device is one that an earlier agent has left.
        take_over: bool,
    },
    /// A block device of the kernel's ublk driver.
    Ublk {
        /// Which device; it is made or taken over.
        device: UblkSpec,
        /// Name, size and block size.
        export: Export,
    },
}

impl FrontEndSpec {
    /// What is served.
    fn export(&self) -> &Export {
        match self {
            Self::NbdSocket { export, .. }
            | Self::NbdKernel { export, .. }
            | Self::Ublk { export, .. } => export,
        }
    }
}

/// What a driver tells the agent without being asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// For the event log. Dropped (and logged) if the agent does not keep up, except
    /// [`Notice::ErrorRecorded`] and [`Notice::BothActive`].
    Notice(Notice),
    /// For the event log. Dropped if the agent does not keep up.
    Net(NetNote),
    /// See [`Action::TellPeerBehind`]. Never dropped; if several wait, only the newest is told.
    TellPeerBehind {
        /// The session that ended.
        session: SessionNo,
    },
    /// The device fails from now on ([`Action::FailDevice`]). Never dropped.
    DeviceFailed,
    /// The mirror has grown beyond the device that is open (bytes). Never dropped; if several wait, only
    /// the newest is told.
    Grown(u64),
    /// Something is wrong with the front end: what. Dropped (and logged) if the agent does not keep
    /// up.
    FrontEnd(String),
    /// The driver's thread ended: as asked, or with an error of the ring, after which the process
    /// must end, too: clients may hang until then. If the agent does not keep up, only the end of
    /// the channel says so.
    Ended(Result<(), String>),
}

enum Order {
    Command(Command, oneshot::Sender<Result<Done, Refusal>>),
    Status(oneshot::Sender<MirrorStatus>),
    Marked(usize, oneshot::Sender<Marked>),
    Figures(bool, oneshot::Sender<Box<Figures>>),
    OpenFrontEnd(FrontEndSpec, oneshot::Sender<io::Result<()>>),
    CloseFrontEnd(oneshot::Sender<()>),
    Leave,
    Stop,
}

/// The agent's end of a driver. Every method returns at once, and every receiver fails if the
/// driver has ended or has too many orders waiting.
#[derive(Clone)]
pub struct Handle {
    orders: SyncSender<Order>,
    wake: Arc<EventFd>,
}

impl Handle {
    /// Gives the mirror a command.
    #[must_use]
    pub fn command(&self, command: Command) -> oneshot::Receiver<Result<Done, Refusal>> {
        self.order(|answer| Order::Command(command, answer))
    }

    /// Asks for the status.
    #[must_use]
    pub fn status(&self) -> oneshot::Receiver<MirrorStatus> {
        self.order(Order::Status)
    }

    /// Asks where the mirror has what the peer may lack, at most `limit` ranges by name.
    #[must_use]
    pub fn marked(&self, limit: usize) -> oneshot::Receiver<Marked> {
        self.order(|answer| Order::Marked(limit, answer))
    }

    /// Asks for the figures; with `take_peaks` a new interval begins for the peaks.
    #[must_use]
    pub fn figures(&self, take_peaks: bool) -> oneshot::Receiver<Box<Figures>> {
        self.order(|answer| Order::Figures(take_peaks, answer))
    }

    /// Opens the front end; there is at most one. Answered when it serves, or cannot; then it is
    /// closed again by itself.
    #[must_use]
    pub fn open_front_end(&self, spec: FrontEndSpec) -> oneshot::Receiver<io::Result<()>> {
        self.order(|answer| Order::OpenFrontEnd(spec, answer))
    }

    /// Closes the front end, after what is in flight was answered; answered when it is closed.
    #[must_use]
    pub fn close_front_end(&self) -> oneshot::Receiver<()> {
        self.order(Order::CloseFrontEnd)
    }

    /// Ends the thread: front end and connections are closed, disk operations under way are
    /// waited for as long as their time limit. Give [`Command::Shutdown`] first for a clean stop.
    pub fn stop(&self) {
        // A full queue is emptied soon; an ended driver needs no order.
        let _ = self.orders.send(Order::Stop);
        self.wake();
    }

    /// As [`Handle::stop`], but the front end stays as it is, with all that it was not answered, for
    /// the next process. Give [`Command::Suspend`] first.
    pub fn leave(&self) {
        // A full queue is emptied soon; an ended driver needs no order.
        let _ = self.orders.send(Order::Leave);
        self.wake();
    }

    fn order<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Order) -> oneshot::Receiver<T> {
        let (answer, receiver) = oneshot::channel();
        // If it is refused, the sender is dropped with it and the receiver fails.
        let _ = self.orders.try_send(make(answer));
        self.wake();
        receiver
    }

    fn wake(&self) {
        // Fails only if the counter is full, and then the thread is about to look.
        let _ = self.wake.write(1);
    }
}

/// A running driver.
pub struct Driver {
    /// To talk to it.
    pub handle: Handle,
    /// What it tells, until its end.
    pub reports: mpsc::Receiver<Report>,
    /// Its thread; ends after [`Handle::stop`].
    pub thread: JoinHandle<()>,
}

/// Starts the thread that drives `machine`.
///
/// # Errors
/// No ring, no thread, or an address to listen on is taken ([`ListenError`] inside).
pub fn spawn(config: DriverConfig, machine: impl Machine) -> io::Result<Driver> {
    let (orders, waiting) = sync_channel(MAX_ORDERS);
    let (reports, told) = mpsc::channel(1024);
    let wake = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?);
    let (started, start) = std::sync::mpsc::channel();
    let eventfd = wake.clone();
    let name = format!("mirror-{}", config.name);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        // The ring belongs to the thread that made it.
        match event_loop::EventLoop::new(config, machine, waiting, &eventfd, reports) {
            Ok(event_loop) => {
                let _ = started.send(Ok(())); // the other end waits
                event_loop.run();
            }
            Err(e) => {
                let _ = started.send(Err(e)); // the other end waits
            }
        }
    })?;
    start.recv().map_err(io::Error::other)??;
    Ok(Driver { handle: Handle { orders, wake }, reports: told, thread })
}

/// The time, as the drivers of this process count it. Monotonic from the first call on.
#[must_use]
pub fn now() -> Now {
    now_and_micros().0
}

/// The same, and the monotonic part in microseconds: at the cost of one look at the clocks.
fn now_and_micros() -> (Now, u64) {
    static START: OnceLock<Instant> = OnceLock::new();
    let passed = START.get_or_init(Instant::now).elapsed();
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = Now {
        mono: Millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)),
        wall: i64::try_from(wall.as_secs()).unwrap_or(i64::MAX),
    };
    (now, u64::try_from(passed.as_micros()).unwrap_or(u64::MAX))
}

/// What the parts of the loop need at every step: the time, their view of the ring, and where
/// events go.
struct Cx<'a> {
    now: Millis,
    /// `now` in microseconds, for the figures.
    micros: u64,
    ring: &'a mut dyn Submitter,
    out: &'a mut VecDeque<Event>,
}
