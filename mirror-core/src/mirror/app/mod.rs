//! The application's requests on the active side, and the core's own flushes, which take the same
//! path.
//!
//! A write waits for its range (rule 5), then for the durable marks of its regions (rule 1), then
//! at the gate until it is clear whether it goes to both disks or completes alone (rule 3). A
//! write whose session ends before the peer's ack goes back to the gate, still holding its range.

mod cool;
mod ends;

pub(super) use cool::Cool;

use super::copying::AfterFlush;
use super::detach::Detach;
use super::hot::EndCount;
use super::link::Link;
use super::standby::Reach;
use super::{Mirror, Owner};
use crate::buf::Buf;
use crate::io::{Action, DataOp, IoId, Request, RequestError, RequestId, RequestOp};
use crate::ranges;
use crate::rules::{Rule, holds};
use crate::units::Extent;
use crate::wire::Message;
use std::collections::BTreeMap;

/// Whom an operation serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Request(RequestId),
    /// A flush so that hot marks may go.
    Cool,
    /// A flush for the recovery.
    Copy(AfterFlush),
    /// The flush before a deactivation.
    Deactivate,
    /// The flush before the device is left to the next agent.
    Suspend,
}

#[derive(Clone, Debug)]
enum What {
    Read,
    Write(Buf),
    Zero { unmap: bool },
    Flush,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// A read that is not to look at its range yet (`Mirror::read_waits`).
    Held,
    Range,
    Marks,
    Gate,
    Flying,
    /// A read that the local disk could not answer.
    PeerRead,
}

/// One disk's part of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leg {
    Idle,
    Pending,
    Done,
    Failed,
}

#[derive(Clone, Debug)]
struct Op {
    origin: Origin,
    what: What,
    extent: Extent,
    durable: bool,
    stage: Stage,
    local: Leg,
    remote: Leg,
    data: Option<Buf>,
    /// For a flush: the writes it covers; `joint` if the peer was asked, too.
    began: EndCount,
    inherited: Reach,
    joint: bool,
    /// Its regions are counted as being written.
    hot: bool,
}

impl Op {
    fn is_write(&self) -> bool {
        matches!(self.what, What::Write(_) | What::Zero { .. })
    }

    fn is_flush(&self) -> bool {
        matches!(self.what, What::Flush)
    }
}

#[derive(Debug, Default)]
pub(super) struct App {
    ops: BTreeMap<u64, Op>,
    /// Operations at the stages `Held`, `Marks` and `Gate`, in order of arrival.
    waiting: Vec<u64>,
    /// Highest id below which every write is settled on both sides (ack2).
    settled: u64,
}

impl App {
    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Requests of the application's are open.
    pub(super) fn has_requests(&self) -> bool {
        self.ops.values().any(|op| matches!(op.origin, Origin::Request(_)))
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn is_read(&self, token: u64) -> bool {
        self.ops.get(&token).is_some_and(|op| matches!(op.what, What::Read))
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Requests that wait and need not: any that is held, and without a session those that could
    /// only complete alone.
    pub(super) fn forgettable(&self, mirroring: bool) -> Vec<u64> {
        let forgettable = |op: &Op| {
            matches!(op.origin, Origin::Request(_)) && (!mirroring || op.stage == Stage::Held)
        };
        let waiting = self.waiting.iter().copied();
        waiting.filter(|token| self.ops.get(token).is_some_and(forgettable)).collect()
    }

    fn note_settled(&mut self, newest: u64) {
        self.settled = match self.ops.keys().next() {
            Some(oldest) => oldest.saturating_sub(1).max(self.settled),
            None => newest.max(self.settled),
        };
    }
}

/// Where a write may go now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    Wait,
    Both,
    Alone,
    /// The own disk has failed: to the peer's only.
    Peer,
}

/// Never, while copies and writes have credits of their own.
fn waits_for_copies(session: &super::session::Session) -> bool {
    !holds(Rule::LiveCredit)
        && session.copying.as_ref().is_some_and(super::copying::Copying::has_copies)
}

impl Mirror {
    pub(super) fn on_request(&mut self, request: Request) {
        if let Some(error) = self.refuse_request(&request) {
            self.out.push(Action::Complete { id: request.id, result: Err(error) });
            return;
        }
        if self.operator.is_suspended() {
            // It is the next agent's.
            return;
        }
        let what = match request.op {
            RequestOp::Read => What::Read,
            RequestOp::Write(data) => What::Write(data),
            RequestOp::Zero { unmap } => What::Zero { unmap },
            RequestOp::Flush => What::Flush,
        };
        self.last_request = Some(self.now.mono);
        self.begin_op(Origin::Request(request.id), what, request.extent, request.fua);
    }

    fn refuse_request(&self, request: &Request) -> Option<RequestError> {
        if self.fails_io() {
            return Some(RequestError::Io);
        }
        if !self.active || self.operator.is_closing() {
            return Some(RequestError::Inactive);
        }
        let block = self.meta.record.block;
        let size = self.served_bytes();
        let valid = match &request.op {
            RequestOp::Flush => true,
            RequestOp::Write(data) => {
                data.len() as u64 == request.extent.len && request.extent.is_valid_for(size, block)
            }
            RequestOp::Read | RequestOp::Zero { .. } => request.extent.is_valid_for(size, block),
        };
        (!valid).then_some(RequestError::Invalid)
    }

    /// A flush of the core's own.
    pub(super) fn begin_flush(&mut self, origin: Origin) {
        self.begin_op(origin, What::Flush, Extent::default(), false);
    }

    fn begin_op(&mut self, origin: Origin, what: What, extent: Extent, durable: bool) {
        let token = self.id();
        let mode = match what {
            What::Read => Some(ranges::Mode::Shared),
            What::Write(_) | What::Zero { .. } => Some(ranges::Mode::Exclusive),
            What::Flush => None,
        };
        let op = Op {
            origin,
            what,
            extent,
            durable,
            stage: Stage::Range,
            local: Leg::Idle,
            remote: Leg::Idle,
            data: None,
            began: 0,
            inherited: Reach::default(),
            joint: false,
            hot: false,
        };
        self.app.ops.insert(token, op);
        if mode == Some(ranges::Mode::Shared) && self.read_waits(extent) {
            self.wait_at(token, Stage::Held);
        } else if mode.is_none_or(|mode| self.ranges.enter(token, extent, mode)) {
            self.op_granted(token);
        } else if mode == Some(ranges::Mode::Exclusive) {
            self.write_waits(token, extent);
        }
    }

    /// A held read goes on if it may; returns whether it does.
    fn release_read(&mut self, token: u64) -> bool {
        let Some(extent) = self.app.ops.get(&token).map(|op| op.extent) else { return true };
        if self.read_waits(extent) {
            return false;
        }
        if let Some(op) = self.app.ops.get_mut(&token) {
            op.stage = Stage::Range;
        }
        if self.ranges.enter(token, extent, ranges::Mode::Shared) {
            self.op_granted(token);
        }
        true
    }

    /// The request that the disk read `io` is for; its bytes go nowhere else.
    ///
    /// Whoever carries the read out may put them where the request wants them, and answer it with
    /// success and no bytes: the request is completed in the same way then.
    #[must_use]
    pub fn read_for(&self, io: IoId) -> Option<RequestId> {
        let Some(Owner::Op(token)) = self.ios.get(&io) else { return None };
        match self.app.ops.get(token) {
            Some(Op { what: What::Read, origin: Origin::Request(id), .. }) => Some(*id),
            _ => None,
        }
    }

    /// The operation has its range.
    pub(super) fn op_granted(&mut self, token: u64) {
        let requested =
            self.app.ops.get(&token).is_some_and(|op| matches!(op.origin, Origin::Request(_)));
        if requested && self.operator.is_suspended() && !self.is_mirroring() {
            self.forget(token);
            return;
        }
        let failed = self.device_failed && self.detach == Detach::No;
        if failed || (requested && (self.shut || !self.active)) {
            self.finish(token, Err(RequestError::Io));
            return;
        }
        let Some(op) = self.app.ops.get_mut(&token) else { return };
        match op.what {
            What::Read if self.detach != Detach::No && holds(Rule::DetachReads) => {
                self.read_from_peer(token);
            }
            What::Read => {
                op.stage = Stage::Flying;
                op.local = Leg::Pending;
                let extent = op.extent;
                self.submit(Owner::Op(token), DataOp::Read, extent);
            }
            What::Write(_) | What::Zero { .. } => self.wait_at(token, Stage::Marks),
            What::Flush => self.wait_at(token, Stage::Gate),
        }
    }

    fn wait_at(&mut self, token: u64, stage: Stage) {
        if let Some(op) = self.app.ops.get_mut(&token) {
            op.stage = stage;
            self.app.waiting.push(token);
        }
    }

    /// Lets every waiting operation go as far as it can.
    pub(super) fn advance_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.app.waiting);
        for token in waiting {
            if self.app.ops.contains_key(&token) && !self.advance(token) {
                self.app.waiting.push(token);
            }
        }
    }

    /// Returns whether the operation left the waiting list.
    fn advance(&mut self, token: u64) -> bool {
        if self.app.ops.get(&token).is_some_and(|op| op.stage == Stage::Held) {
            return self.release_read(token);
        }
        if self.app.ops.get(&token).is_some_and(|op| op.stage == Stage::Marks)
            && !self.pass_marks(token)
        {
            return false;
        }
        let Some(op) = self.app.ops.get(&token) else { return true };
        match self.gate(op.is_flush()) {
            Gate::Wait => false,
            Gate::Both => {
                self.fly_both(token);
                true
            }
            Gate::Alone => {
                self.fly_alone(token);
                true
            }
            Gate::Peer => {
                self.fly_to_peer(token);
                true
            }
        }
    }

    /// Rule 1: no mark, no write. While the cards are on the table no new mark is asked for.
    fn pass_marks(&mut self, token: u64) -> bool {
        let frozen = self.link.is_agreeing() && holds(Rule::CardFreezes);
        if frozen || (self.meta.failed && self.detach == Detach::No) {
            return false;
        }
        let Some(op) = self.app.ops.get_mut(&token) else { return false };
        if self.detach != Detach::No {
            // The peer owes everything, which covers every region.
            op.stage = Stage::Gate;
            return true;
        }
        let regions = op.extent.regions();
        if self.meta.are_marked(regions.clone()) {
            op.stage = Stage::Gate;
            op.hot = true;
            self.hot.begin(regions);
            return true;
        }
        self.ask_for_marks(regions.clone());
        let Some(op) = self.app.ops.get_mut(&token) else { return false };
        if !holds(Rule::IntentFirst) {
            op.stage = Stage::Gate;
            op.hot = true;
            self.hot.begin(regions);
            return true;
        }
        false
    }

    fn ask_for_marks(&mut self, regions: std::ops::Range<u32>) {
        let Some(marks) = &mut self.meta.marks else { return };
        if marks.wanted().all(regions.clone()) {
            return; // the write that makes them durable is under way
        }
        marks.set(regions.clone());
        // Alone, every mark is a difference that has to be copied.
        if self.is_mirroring() {
            self.mark_ahead(regions);
        }
    }

    /// Marks the neighbours of `regions` in the same write, where more of them are being written.
    fn mark_ahead(&mut self, regions: std::ops::Range<u32>) {
        let Some(marks) = &mut self.meta.marks else { return };
        let size = self.tuning.ahead_regions.max(1);
        let start = regions.start / size * size;
        let group = start..start.saturating_add(size).min(marks.regions());
        let room = self.tuning.hot_regions.saturating_sub(self.hot.len());
        if group.len() > room || !self.hot.knows_any(group.clone()) {
            return;
        }
        for region in group {
            // One that has a mark may be dirty: that is none of ours.
            if !marks.wanted().get(region) {
                marks.set(region..region + 1);
                self.hot.expect(region);
            }
        }
    }

    fn gate(&mut self, is_flush: bool) -> Gate {
        match self.detach {
            Detach::No => {}
            Detach::Served => return Gate::Peer,
            Detach::Recording | Detach::Asked => return Gate::Wait,
        }
        let connected = match &self.link {
            Link::Session(session) if !is_flush && waits_for_copies(session) => return Gate::Wait,
            Link::Session(session) if session.is_open() => return Gate::Both,
            Link::Session(_) => true,
            Link::Agree(_) => holds(Rule::CardFreezes),
            Link::Down { .. } | Link::Parked(_) => false,
        };
        // A flush over nothing that the peer could lack needs no record.
        let unflushed = self.hot.has_unflushed() || self.standby.has_unflushed();
        let lacks_nothing = is_flush && (!unflushed || !holds(Rule::FlushAlone));
        if !connected && (lacks_nothing || self.may_go_alone()) { Gate::Alone } else { Gate::Wait }
    }

    /// Local write and send start together; a repeat after a lost session does both again.
    fn fly_both(&mut self, token: u64) {
        let (ends, landed) = (self.hot.ends(), self.standby.landed());
        let Some(op) = self.app.ops.get_mut(&token) else { return };
        op.stage = Stage::Flying;
        op.local = Leg::Pending;
        op.remote = Leg::Pending;
        op.began = ends;
        op.inherited = landed;
        op.joint = true;
        if op.is_flush() && !holds(Rule::FlushBoth) {
            op.remote = Leg::Done;
            self.submit_local(token);
            return;
        }
        let (extent, durable) = (op.extent, op.durable && holds(Rule::FuaBoth));
        let message = match &op.what {
            What::Write(data) => {
                let shared = holds(Rule::OneCopy);
                let data = if shared { data.clone() } else { Buf::copied_from(data) };
                Message::Write { id: token, extent, durable, data }
            }
            What::Zero { unmap } => Message::Zero { id: token, extent, unmap: *unmap, durable },
            What::Flush | What::Read => Message::Flush { id: token },
        };
        self.submit_local(token);
        self.send(message);
    }

    /// The peer's disk is the only one.
    fn fly_to_peer(&mut self, token: u64) {
        let Some(op) = self.app.ops.get_mut(&token) else { return };
        op.stage = Stage::Flying;
        op.local = Leg::Failed;
        op.remote = Leg::Pending;
        op.joint = true;
        let (extent, durable) = (op.extent, op.durable);
        let message = match &op.what {
            What::Write(data) => Message::Write { id: token, extent, durable, data: data.clone() },
            What::Zero { unmap } => Message::Zero { id: token, extent, unmap: *unmap, durable },
            What::Flush | What::Read => Message::Flush { id: token },
        };
        self.send(message);
    }

    fn fly_alone(&mut self, token: u64) {
        self.resume.confirm();
        self.resume.settled();
        let ends = self.hot.ends();
        let Some(op) = self.app.ops.get_mut(&token) else { return };
        op.stage = Stage::Flying;
        op.remote = Leg::Done;
        let was_joint = std::mem::replace(&mut op.joint, false);
        op.began = ends;
        if op.is_write() && op.local == Leg::Done && was_joint {
            // It is on this disk already; only the peer's ack was missing.
            self.resolve(token);
            return;
        }
        op.local = Leg::Pending;
        self.submit_local(token);
    }

    fn submit_local(&mut self, token: u64) {
        let Some(op) = self.app.ops.get(&token) else { return };
        let durable = op.durable;
        let data_op = match &op.what {
            What::Read => DataOp::Read,
            What::Write(data) => DataOp::Write { data: data.clone(), durable },
            What::Zero { unmap } => DataOp::Zero { unmap: *unmap, durable },
            What::Flush => DataOp::Flush,
        };
        let extent = op.extent;
        self.submit(Owner::Op(token), data_op, extent);
    }

    /// Both disks take the writes now.
    pub(super) fn is_mirroring(&self) -> bool {
        matches!(&self.link, Link::Session(session) if session.is_open())
    }
}
