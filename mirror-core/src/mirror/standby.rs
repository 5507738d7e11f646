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
    /// For a flush: the writes that had ended when it began.
    covers: u64,
    /// The session that it came with has ended: nobody waits for the answer.
    orphan: bool,
}

/// What the peer, or a process before this one, wrote here and a flush of both disks may not cover.
/// Whoever is activated next may read it and flush: the peer may lack it then (rule 3).
#[derive(Debug)]
struct Inherited {
    /// Writes of the peer that have ended here; one stands for all of an earlier process.
    landed: u64,
    /// How many of them both disks have flushed.
    flushed: u64,
    /// Flushes that were good here, with what they cover; of the peer's disk only ack2 tells.
    flushes: BTreeMap<u64, u64>,
}

impl Default for Inherited {
    fn default() -> Self {
        Self { landed: 1, flushed: 0, flushes: BTreeMap::new() }
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
        self.inherited.landed > self.inherited.flushed && holds(Rule::FlushInherited)
    }

    /// Both disks have flushed all they had.
    pub(super) fn both_flushed(&mut self) {
        self.inherited.flushed = self.inherited.landed;
        self.inherited.flushes.clear();
    }

    /// Another connection, maybe to another process of the peer, which numbers its operations anew.
    pub(super) fn new_connection(&mut self) {
        self.settled = 0;
        self.inherited.flushes.clear();
    }

    fn ended(&mut self, op: &PeerOp) {
        match op.op {
            DataOp::Write { .. } | DataOp::Zero { .. } => self.inherited.landed += 1,
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
        let flushed = covered.into_values().max().unwrap_or(0);
        self.inherited.flushed = self.inherited.flushed.max(flushed);
    }
}

impl Mirror {
    pub(super) fn on_peer_write(&mut self, id: u64, extent: Extent, durable: bool, data: Buf) {
        if self.takes_peer_writes(extent) && data.len() as u64 == extent.len {
            self.begin_peer_op(id, extent, DataOp::Write { data, durable });
        } else {
            self.protocol_error("a write that this side cannot take");
        }
    }

    pub(super) fn on_peer_zero(&mut self, id: u64, extent: Extent, unmap: bool, durable: bool) {
        if self.takes_peer_writes(extent) {
            self.begin_peer_op(id, extent, DataOp::Zero { unmap, durable });
        } else {
            self.protocol_error("a write-zeroes that this side cannot take");
        }
    }

    pub(super) fn on_peer_copy(&mut self, id: u64, extent: Extent, data: Buf) {
        let target = self.session_mut().and_then(|s| s.target.as_mut());
        let is_target = target.map(super::target::Target::goes_on).is_some();
        if is_target && self.takes_peer_writes(extent) && data.len() as u64 == extent.len {
            self.begin_peer_op(id, extent, DataOp::Write { data, durable: false });
        } else {
            self.protocol_error("a copy that this side cannot take");
        }
    }

    pub(super) fn on_peer_flush(&mut self, id: u64) {
        self.begin_peer_op(id, Extent::default(), DataOp::Flush);
    }

    pub(super) fn on_peer_read(&mut self, id: u64, extent: Extent) {
        let record = &self.meta.record;
        if extent.is_valid_for(record.size, record.block) {
            self.begin_peer_op(id, extent, DataOp::Read);
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

    fn begin_peer_op(&mut self, id: u64, extent: Extent, op: DataOp) {
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
        let covers = self.standby.inherited.landed;
        let peer_op = PeerOp { id, extent, op, started: false, covers, orphan: false };
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

    fn op(id: u64, op: DataOp, covers: u64) -> PeerOp {
        PeerOp { id, extent: Extent::default(), op, started: true, covers, orphan: false }
    }

    fn written() -> (Standby, PeerOp) {
        let mut standby = Standby::default();
        standby.both_flushed();
        let zero = DataOp::Zero { unmap: false, durable: false };
        standby.ended(&op(7, zero, 0));
        let covers = standby.inherited.landed;
        (standby, op(8, DataOp::Flush, covers))
    }

    #[test]
    fn a_flush_here_covers_what_it_did_once_the_peer_calls_it_settled() {
        let (mut standby, flush) = written();
        standby.ended(&flush);
        standby.settle(7);
        assert!(standby.has_unflushed(), "the peer's own disk may not have flushed");
        standby.settle(8);
        assert!(!standby.has_unflushed());
    }

    #[test]
    fn a_flush_does_not_cover_what_ended_after_it_began() {
        let (mut standby, flush) = written();
        let zero = DataOp::Zero { unmap: false, durable: false };
        standby.ended(&op(9, zero, 0));
        standby.ended(&flush);
        standby.settle(9);
        assert!(standby.has_unflushed());
    }

    #[test]
    fn numbers_of_an_earlier_process_of_the_peer_settle_nothing() {
        let (mut standby, flush) = written();
        standby.settle(1000);
        standby.new_connection();
        standby.ended(&flush);
        standby.settle(7);
        assert!(standby.has_unflushed());
    }

    #[test]
    fn what_an_earlier_process_had_counts_as_unflushed() {
        assert!(Standby::default().has_unflushed());
        assert!(!Standby::resumed().has_unflushed(), "it is counted elsewhere");
    }
}
