//! What the peer asks of this side's disk: writes, flushes, copies and reads, each answered once
//! its operation has ended (ack1).

use super::{Mirror, Owner};
use crate::buf::Buf;
use crate::io::{DataOp, IoFailure};
use crate::ranges;
use crate::rules::{Rule, holds};
use crate::units::Extent;
use crate::wire::Message;
use std::collections::BTreeMap;

/// How many operations the peer may have here at a time; its own limits are far below.
const OPERATIONS_MAX: usize = 8192;

#[derive(Clone, Debug)]
struct PeerOp {
    id: u64,
    extent: Extent,
    op: DataOp,
    started: bool,
    /// A write of the application, not a copy.
    live: bool,
    /// For a flush: what it covers on both disks.
    covers: Reach,
    /// The session that it came with has ended: nobody waits for the answer.
    orphan: bool,
}

/// A point among the writes of others on this disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Reach {
    /// Highest id of the peer's writes on this connection.
    writes: u64,
    /// How many copies; one stands for all of an earlier process or connection.
    others: u64,
}

impl Reach {
    fn max(self, other: Self) -> Self {
        Self { writes: self.writes.max(other.writes), others: self.others.max(other.others) }
    }
}

/// What the peer, or a process before this one, wrote here and a flush of both disks may not cover.
/// Whoever is activated next may read it and flush: the peer may lack it then (rule 3).
#[derive(Debug)]
struct Inherited {
    /// What has ended here.
    landed: Reach,
    /// What both disks have flushed.
    flushed: Reach,
    /// Flushes that were good here, with what they cover; of the peer's disk only ack2 tells.
    flushes: BTreeMap<u64, Reach>,
}

impl Default for Inherited {
    fn default() -> Self {
        let landed = Reach { writes: 0, others: 1 };
        Self { landed, flushed: Reach::default(), flushes: BTreeMap::new() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Standby {
    ops: BTreeMap<u64, PeerOp>,
    /// ack2: up to here the peer knows its writes to be settled on both sides.
    settled: u64,
    inherited: Inherited,
}

impl Standby {
    /// Of a resumed side, which counts what an earlier process wrote among its own writes
    /// (`Hot::inherited`).
    pub(super) fn resumed() -> Self {
        let mut standby = Self::default();
        standby.both_flushed();
        standby
    }

    /// There may be writes here that were not made by this process's applications, and that no
    /// flush of both disks covers.
    pub(super) fn has_unflushed(&self) -> bool {
        let Inherited { landed, flushed, .. } = self.inherited;
        landed.max(flushed) != flushed && holds(Rule::FlushInherited)
    }

    /// What a flush of both disks that begins now will cover.
    pub(super) fn landed(&self) -> Reach {
        self.inherited.landed
    }

    /// Both disks have flushed what had landed at `reach`.
    pub(super) fn flushed_to(&mut self, reach: Reach) {
        self.inherited.flushed = self.inherited.flushed.max(reach);
    }

    /// A flush of the peer's covers the writes that had ended on both disks when it was sent: one
    /// that has ended only here may be on its way to the peer's disk when that is flushed. What was
    /// copied here had been read from the peer's disk before.
    fn covered_by_flush(&self) -> Reach {
        Reach { writes: self.settled, others: self.inherited.landed.others }
    }

    /// Both disks have flushed all they had.
    pub(super) fn both_flushed(&mut self) {
        self.inherited.flushed = self.inherited.landed;
        self.inherited.flushes.clear();
    }

    /// Another connection, maybe to another process of the peer, which numbers its operations anew.
    pub(super) fn new_connection(&mut self) {
        self.settled = 0;
        let Inherited { landed, flushed, flushes } = &mut self.inherited;
        landed.others += u64::from(landed.writes > flushed.writes);
        (landed.writes, flushed.writes) = (0, 0);
        flushes.clear();
    }

    fn ended(&mut self, op: &PeerOp) {
        match op.op {
            DataOp::Write { .. } | DataOp::Zero { .. } if op.live && !op.orphan => {
                let writes = &mut self.inherited.landed.writes;
                *writes = op.id.max(*writes);
            }
            DataOp::Write { .. } | DataOp::Zero { .. } => self.inherited.landed.others += 1,
            DataOp::Flush if !op.orphan => {
                self.inherited.flushes.insert(op.id, op.covers);
            }
            DataOp::Flush | DataOp::Read => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(super) fn settle(&mut self, upto: u64) {
        self.settled = self.settled.max(upto);
        let later = self.inherited.flushes.split_off(&self.settled.saturating_add(1));
        let covered = std::mem::replace(&mut self.inherited.flushes, later);
        covered.into_values().for_each(|reach| self.flushed_to(reach));
    }
}

impl Mirror {
    pub(super) fn on_peer_write(&mut self, id: u64, extent: Extent, durable: bool, data: Buf) {
        if self.takes_peer_writes(extent) && data.len() as u64 == extent.len {
            self.seen_active = true;
            self.begin_peer_op(id, extent, DataOp::Write { data, durable }, true);
        } else {
            self.protocol_error("a write that this side cannot take");
        }
    }

    pub(super) fn on_peer_zero(&mut self, id: u64, extent: Extent, unmap: bool, durable: bool) {
        if self.takes_peer_writes(extent) {
            self.begin_peer_op(id, extent, DataOp::Zero { unmap, durable }, true);
        } else {
            self.protocol_error("a write-zeroes that this side cannot take");
        }
    }

    pub(super) fn on_peer_copy(&mut self, id: u64, extent: Extent, data: Buf) {
        let target = self.session_mut().and_then(|s| s.target.as_mut());
        let is_target = target.map(super::target::Target::goes_on).is_some();
        if is_target && self.takes_peer_writes(extent) && data.len() as u64 == extent.len {
            self.begin_peer_op(id, extent, DataOp::Write { data, durable: false }, false);
        } else {
            self.protocol_error("a copy that this side cannot take");
        }
    }

    pub(super) fn on_peer_flush(&mut self, id: u64) {
        self.begin_peer_op(id, Extent::default(), DataOp::Flush, false);
    }

    pub(super) fn on_peer_read(&mut self, id: u64, extent: Extent) {
        let record = &self.meta.record;
        if extent.is_valid_for(record.size, record.block) {
            self.begin_peer_op(id, extent, DataOp::Read, false);
        } else {
            self.protocol_error("a read outside the mirror");
        }
    }

    fn takes_peer_writes(&self, extent: Extent) -> bool {
        let record = &self.meta.record;
        !self.active
            && self.session().is_some_and(super::session::Session::is_open)
            && extent.is_valid_for(record.size, record.block)
    }

    fn begin_peer_op(&mut self, id: u64, extent: Extent, op: DataOp, live: bool) {
        if self.standby.ops.len() >= OPERATIONS_MAX {
            self.protocol_error("more operations than agreed");
            return;
        }
        let token = self.id();
        let mode = match op {
            DataOp::Read => Some(ranges::Mode::Shared),
            DataOp::Write { .. } | DataOp::Zero { .. } => Some(ranges::Mode::Exclusive),
            DataOp::Flush => None,
        };
        let covers = self.standby.covered_by_flush();
        let peer_op = PeerOp { id, extent, op, started: false, live, covers, orphan: false };
        self.standby.ops.insert(token, peer_op);
        if mode.is_none_or(|mode| self.ranges.enter(token, extent, mode)) {
            self.peer_op_granted(token);
        }
    }

    pub(super) fn peer_op_granted(&mut self, token: u64) {
        let Some(peer_op) = self.standby.ops.get_mut(&token) else { return };
        peer_op.started = true;
        let (op, extent) = (peer_op.op.clone(), peer_op.extent);
        self.submit(Owner::Peer(token), op, extent);
    }

    pub(super) fn peer_op_done(&mut self, token: u64, result: &Result<Option<Buf>, IoFailure>) {
        let Some(peer_op) = self.standby.ops.remove(&token) else { return };
        self.leave_range(token);
        if result.is_ok() {
            self.standby.ended(&peer_op);
        }
        let id = peer_op.id;
        let is_read = peer_op.op == DataOp::Read;
        if matches!(peer_op.op, DataOp::Write { .. } | DataOp::Zero { .. }) {
            self.meta.record.update_time = self.now.wall;
        }
        if !peer_op.orphan {
            let answer = match result {
                Ok(data) if is_read => Message::ReadReply { id, data: data.clone() },
                Err(_) if is_read => Message::ReadReply { id, data: None },
                result => Message::Ack { id, ok: result.is_ok() },
            };
            self.send(answer);
        }
        if result.is_err() && !is_read {
            let what = if peer_op.op == DataOp::Flush { "flush" } else { "write" };
            self.disk_failed(false, what, peer_op.extent.offset);
        }
    }

    /// The session is gone: what has not begun never will; what has must end before the next.
    pub(super) fn standby_lost_peer(&mut self) {
        let tokens: Vec<u64> = self.standby.ops.keys().copied().collect();
        for token in tokens {
            let Some(peer_op) = self.standby.ops.get_mut(&token) else { continue };
            peer_op.orphan = true;
            if !peer_op.started {
                self.standby.ops.remove(&token);
                self.leave_range(token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: DataOp = DataOp::Zero { unmap: false, durable: false };

    fn begin(standby: &Standby, id: u64, op: DataOp, live: bool) -> PeerOp {
        let covers = standby.covered_by_flush();
        PeerOp { id, extent: Extent::default(), op, started: true, live, covers, orphan: false }
    }

    fn write(standby: &mut Standby, id: u64, live: bool) {
        let op = begin(standby, id, ZERO, live);
        standby.ended(&op);
    }

    /// Write 7 has ended here, and the peer says so far that all up to `settled` has on both disks.
    fn written(settled: u64) -> (Standby, PeerOp) {
        let mut standby = Standby::default();
        standby.both_flushed();
        write(&mut standby, 7, true);
        standby.settle(settled);
        let flush = begin(&standby, 8, DataOp::Flush, false);
        (standby, flush)
    }

    #[test]
    fn a_flush_here_covers_what_it_did_once_the_peer_calls_it_settled() {
        let (mut standby, flush) = written(7);
        standby.ended(&flush);
        standby.settle(7);
        assert!(standby.has_unflushed(), "the peer's own disk may not have flushed");
        standby.settle(8);
        assert!(!standby.has_unflushed());
    }

    #[test]
    fn a_flush_does_not_cover_what_ended_on_the_peers_disk_after_it_began() {
        let (mut standby, flush) = written(6);
        standby.ended(&flush);
        standby.settle(8);
        assert!(standby.has_unflushed());
    }

    #[test]
    fn a_flush_does_not_cover_what_ended_after_it_began() {
        for live in [true, false] {
            let (mut standby, flush) = written(7);
            write(&mut standby, 9, live);
            standby.ended(&flush);
            standby.settle(9);
            assert!(standby.has_unflushed());
        }
    }

    #[test]
    fn a_flush_covers_the_copies_before_it() {
        let (mut standby, _) = written(7);
        write(&mut standby, 9, false);
        let flush = begin(&standby, 10, DataOp::Flush, false);
        standby.ended(&flush);
        standby.settle(10);
        assert!(!standby.has_unflushed());
    }

    #[test]
    fn numbers_of_an_earlier_process_of_the_peer_settle_nothing() {
        let (mut standby, _) = written(7);
        standby.settle(1000);
        standby.new_connection();
        let flush = begin(&standby, 3, DataOp::Flush, false);
        standby.ended(&flush);
        standby.settle(2);
        assert!(standby.has_unflushed());
        standby.settle(3);
        assert!(!standby.has_unflushed());
    }

    #[test]
    fn what_an_earlier_process_had_counts_as_unflushed() {
        assert!(Standby::default().has_unflushed());
        assert!(!Standby::resumed().has_unflushed(), "it is counted elsewhere");
    }
}
