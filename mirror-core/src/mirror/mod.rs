//! The mirror on one server: one owner of all its state, events in, actions out.
//!
//! [`Mirror::handle`] does two things for each event: the event's own work, and then a fixed list
//! of upkeep (`upkeep`): write what must be durable, let waiting requests go on, continue an
//! agreement, feed a recovery, watch the deadlines. Nothing here blocks, locks or reads a clock;
//! the driver loop and the simulator carry out the same actions. The price is that a step that
//! needs a durable record is written in two halves, joined by `meta::Then`.
//!
//! | file | what |
//! |---|---|
//! | `app` | requests of the application on the active side |
//! | `detach` | going on with the peer's disk when the own one has failed (rule 11) |
//! | `alone` | going alone: the break record (rule 3) |
//! | `agree` | from a connection to a session: cards, verdict, numbers (rules 4, 8) |
//! | `session` | the open session: heartbeats, loss, who may write |
//! | `standby` | what the peer asks of this side's disk |
//! | `construct` | the initial construction, and that it goes on as such |
//! | `copying` | the source's recovery, `target` the other end of it (rules 6, 7) |
//! | `operator` | commands |
//! | `grow` | a larger size, recorded by both sides before the device has it |
//! | `resume` | a device that outlives its agent |
//! | `meta`, `hot` | records, marks, and when marks go (rules 1, 2, 10) |
//! | `view`, `waits` | status, and how long writes and recovery wait for each other |

mod agree;
mod alone;
mod app;
mod construct;
mod copying;
mod detach;
mod grow;
mod hot;
mod link;
mod meta;
mod operator;
mod resume;
mod session;
mod setup;
mod standby;
mod target;
mod view;
mod waits;

pub use setup::{AutoRecovery, Setup, Tuning};

use crate::direction::Verdict;
use crate::io::{Action, DataOp, Event, IoFailure, IoId, Notice};
use crate::ranges::Ranges;
use crate::record::{Card, Record};
use crate::rules::{Rule, holds};
use crate::status::MirrorStatus;
use crate::units::{Extent, Id16, Millis, Now, Side};
use crate::wire::{Frame, Message};
use hot::Hot;
use link::{Link, Wire};
use meta::{Meta, Then};
use setup::Entropy;
use standby::Standby;
use std::collections::HashMap;

/// Whose operation on the data partition it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    /// The local leg of an application's (or internal) operation.
    Op(u64),
    /// An operation for the peer.
    Peer(u64),
    /// The read of a recovery copy.
    Copy(u64),
    /// The flush before a clean stop.
    StopFlush,
    /// The flush before a force.
    ForceFlush,
}

/// Where the record of going alone stands (rule 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Alone {
    No,
    /// `alone = "fenced"`: the peer has been told that it is behind, and nothing is recorded yet.
    Asked,
    Recording,
    Ready,
}

/// What was known when the last session of this process ended.
#[derive(Clone, Copy, Debug)]
struct Loss {
    in_sync: bool,
    active: bool,
}

/// The mirror on one server.
#[derive(Debug)]
pub struct Mirror {
    side: Side,
    capacity: u64,
    device_block: u32,
    boot: Id16,
    tuning: Tuning,
    now: Now,
    entropy: Entropy,
    next_id: u64,
    out: Vec<Action>,
    meta: Meta,
    hot: Hot,
    ranges: Ranges,
    ios: HashMap<IoId, Owner>,
    app: app::App,
    standby: Standby,
    operator: operator::Operator,
    link: Link,
    wire: Option<Wire>,
    retry_ms: u64,
    not_before: Millis,
    /// While down: from when on the active side may decide to go alone.
    alone_due: Millis,
    alone: Alone,
    loss: Option<Loss>,
    /// The peer has shown in this process that it serves the activation that it has.
    seen_active: bool,
    active: bool,
    /// The record said *active* when this process started.
    was_active: bool,
    uninterrupted: bool,
    resume: resume::Resume,
    vouched_peer_down: bool,
    wants_recovery: bool,
    /// The operator has asked for a recovery knowing that the other server keeps the two apart.
    rejoins: bool,
    cancelled: bool,
    /// A construction has begun in this process, here as its source, and its end was not told.
    construction: Option<bool>,
    /// The operator keeps the servers apart (`--break`).
    apart: bool,
    device_failed: bool,
    /// Its disk has failed, and the peer's serves in its place.
    detach: detach::Detach,
    /// The device fails its requests until it is closed, though its disk is good.
    shut: bool,
    growth: grow::Growth,
    /// Bytes that the device has, as far as this process knows; 0 = not known.
    device_size: u64,
    last_verdict: Option<Verdict>,
    last_peer: Option<Card>,
    last_write: Option<Millis>,
    /// When the application last asked for something, or had it answered.
    last_request: Option<Millis>,
    cool: app::Cool,
    waits: waits::Watch,
}

/// Names for operations, counting on from `last`.
fn next_io(last: &mut u64) -> impl FnMut() -> IoId + '_ {
    || {
        *last += 1;
        IoId(*last)
    }
}

impl Mirror {
    /// A mirror in the state that `setup` was loaded with, without contact, and inactive unless it
    /// resumes ([`Setup::resume`]). A resumed one is in the state of an active side that has just
    /// lost its peer.
    #[must_use]
    pub fn new(mut setup: Setup, now: Now) -> Self {
        let record = setup.record.clone();
        let side = record.side;
        let resume = resume::Resume::new(&setup);
        let active = resume.is_resuming();
        let grace = if active { setup.tuning.grace_ms } else { 0 };
        Self {
            side,
            capacity: setup.capacity,
            device_block: setup.device_block,
            boot: setup.boot,
            tuning: setup.tuning,
            now,
            entropy: Entropy::new(&setup.seed),
            next_id: 0,
            out: Vec::new(),
            was_active: record.active,
            uninterrupted: record.clean_stop,
            device_failed: record.disk_error,
            detach: detach::Detach::No,
            shut: false,
            growth: grow::Growth::Idle,
            device_size: 0,
            meta: Meta::new(&mut setup, record),
            hot: if active { Hot::inherited() } else { Hot::default() },
            ranges: Ranges::default(),
            ios: HashMap::new(),
            app: app::App::default(),
            standby: if active { Standby::resumed() } else { Standby::default() },
            operator: operator::Operator::default(),
            link: Link::fresh(now.mono),
            wire: None,
            retry_ms: setup.tuning.retry_ms.0,
            not_before: now.mono,
            alone_due: now.mono.plus(grace),
            alone: Alone::No,
            loss: None,
            seen_active: false,
            active,
            resume,
            vouched_peer_down: false,
            wants_recovery: false,
            rejoins: false,
            cancelled: false,
            construction: None,
            apart: false,
            last_verdict: None,
            last_peer: None,
            last_write: None,
            last_request: None,
            cool: app::Cool::default(),
            waits: waits::Watch::default(),
        }
    }

    /// Takes one event at time `now`; what is to be done is appended to `out`, in order.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Action>) {
        self.now = now;
        std::mem::swap(&mut self.out, out);
        self.tell_news();
        self.dispatch(event);
        self.upkeep();
        std::mem::swap(&mut self.out, out);
    }

    /// When [`Event::Timer`] is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        self.link_deadline()
            .into_iter()
            .chain(self.cool_deadline())
            .chain(self.operator_deadline())
            .chain(self.alone_deadline())
            .chain(self.growth_deadline())
            .chain(self.resume.has_news().then_some(self.now.mono))
            .min()
    }

    /// What `clpmdstat` shows.
    #[must_use]
    pub fn status(&self, now: Now) -> MirrorStatus {
        self.view(now)
    }

    /// Where this side has what the other may lack; at most `limit` ranges are named.
    #[must_use]
    pub fn marked(&self, limit: usize) -> crate::status::Marked {
        self.marked_places(limit)
    }

    /// The record as it is to be; what is durable may be one update behind.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.meta.record
    }

    /// Serving the device.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Request(request) => self.on_request(request),
            Event::DataDone { io, result } => self.on_data(io, result),
            Event::MetaDone { io, result } => self.on_meta(io, result.is_ok()),
            Event::PeerReady { conn, dialled, hello } => self.on_peer_ready(conn, dialled, hello),
            Event::Frame { conn, frame } => {
                if self.is_current(conn) || !holds(Rule::ConnFrames) {
                    self.on_frame(frame);
                }
            }
            Event::Heard { conn } => {
                if self.is_current(conn) {
                    self.heard();
                }
            }
            Event::PeerGone { conn } => {
                if self.is_current(conn) {
                    self.wire = None;
                    self.link_lost("connection lost");
                }
            }
            Event::DialFailed => self.on_dial_failed(),
            Event::Command { id, command } => self.on_command(id, command),
            Event::Measured { capacity } => self.capacity = capacity,
            Event::Timer => {}
        }
    }

    /// Brings everything that can go on to where it can go. The order matters: a record that is
    /// durable may let requests go on, and those may need a new record, which is written last.
    fn upkeep(&mut self) {
        self.watch_link();
        self.run_ready();
        self.advance_waiting();
        self.agree_on();
        self.feed_copy();
        self.cool_down();
        self.advance_operator();
        self.advance_growth();
        self.run_ready();
        let next_io = next_io(&mut self.next_id);
        if let Err(why) = self.meta.pump(next_io, &mut self.out) {
            self.record_refused(why);
        }
        self.dial_when_due();
    }

    /// The record must not be written. What is on the partition stays readable, and this side ends
    /// as one whose cluster partition fails.
    fn record_refused(&mut self, why: crate::disk::superblock::Reason) {
        self.notice(Notice::BadRecord(why));
        self.disk_failed(true, "write", 0);
        self.run_ready();
    }

    fn run_ready(&mut self) {
        while let Some(then) = self.meta.next_ready() {
            self.continue_with(then);
        }
        while let Some(then) = self.meta.next_hopeless() {
            self.give_up(then);
        }
    }

    fn continue_with(&mut self, then: Then) {
        if then.connection().is_some_and(|conn| !self.is_current(conn)) {
            return; // it is gone, and the step with it
        }
        match then {
            Then::Offer(_) => self.send_offer(),
            Then::Accept(_) => self.send_accept(),
            Then::Open(_) => self.send_opened(),
            Then::Owed(_) => self.send_verdict(),
            Then::CopyReady(_) => self.send_copy_ready(),
            Then::StopNoted(_) => self.send(Message::CopyReady),
            Then::Adopt(_) => self.send_adopt(),
            Then::Adopted(_) => self.send_adopted(),
            Then::CopyDone(_) => self.end_copy(),
            Then::Ask(_, number) => self.send_ask(number),
            Then::Granted(_, number) => self.send_grant(number),
            Then::Alone => self.alone_recorded(),
            Then::Activated => self.activation_recorded(),
            Then::Deactivated => self.deactivation_recorded(),
            Then::Forced { id, contact } => self.force_recorded(id, contact),
            Then::Noted(id) => self.note_recorded(id),
            Then::Stopped => self.stop_recorded(),
            Then::Grown(id) => self.growth_recorded(id),
            Then::Detach(_) => self.send_detach(),
            Then::Detached(_) => self.send_detached(),
            Then::ErrorRecorded => self.notice(Notice::ErrorRecorded { durable: true }),
        }
    }

    fn on_data(&mut self, io: IoId, result: Result<Option<crate::buf::Buf>, IoFailure>) {
        let Some(owner) = self.ios.remove(&io) else { return };
        match owner {
            Owner::Op(token) => self.op_local_done(token, result),
            Owner::Peer(token) => self.peer_op_done(token, &result),
            Owner::Copy(token) => self.copy_read_done(token, result),
            Owner::StopFlush => self.stop_flush_done(result.is_ok()),
            Owner::ForceFlush => self.force_flush_done(result.is_ok()),
        }
    }

    fn on_meta(&mut self, io: IoId, ok: bool) {
        let next_io = next_io(&mut self.next_id);
        let ours = self.meta.done(io, ok, next_io, &mut self.out);
        if ours && !ok && holds(Rule::MetaFails) {
            self.disk_failed(true, "write", 0);
        }
    }

    /// Nothing of ours is under way on either partition, so that a card can be shown (rule 8) and
    /// a session be opened (no I/O of an older one in flight). The application's reads change
    /// nothing, and waiting for them would keep the servers apart for as long as it reads.
    fn is_drained(&self) -> bool {
        let reads = |owner: &Owner| matches!(owner, Owner::Op(token) if self.app.is_read(*token));
        (self.ios.values().all(reads) || !holds(Rule::Drain))
            && self.meta.is_idle()
            && (self.standby.is_empty() || !holds(Rule::Drain))
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn submit(&mut self, owner: Owner, op: DataOp, extent: Extent) {
        let io = IoId(self.id());
        self.ios.insert(io, owner);
        self.out.push(Action::Data { io, op, extent });
    }

    fn send(&mut self, message: Message) {
        let Some(wire) = &self.wire else { return };
        let session = self.link.session_number();
        let frame = Frame { session, settled: self.app.settled(), message };
        self.out.push(Action::Send { conn: wire.conn, frame });
    }

    fn notice(&mut self, notice: Notice) {
        self.out.push(Action::Notice(notice));
    }

    /// A partition of this side failed (rule 11): what it has is served no more, the peer is told
    /// by the end of the session, and the record keeps it if it still can.
    fn disk_failed(&mut self, cluster_partition: bool, what: &'static str, offset: u64) {
        self.notice(Notice::DiskError { cluster_partition, what, offset });
        if self.device_failed {
            return;
        }
        let detaches = !cluster_partition && self.may_detach();
        self.device_failed = true;
        self.uninterrupted = false;
        self.meta.record.disk_error = holds(Rule::ErrorKept);
        self.meta.persist_then(Then::ErrorRecorded);
        if detaches {
            self.begin_detach();
            return;
        }
        if self.active {
            self.out.push(Action::FailDevice);
        }
        self.send(Message::Bye { clean: false });
        self.drop_link("a disk of this server failed");
        self.fail_all_requests();
    }
}
