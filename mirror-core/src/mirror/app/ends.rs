//! How operations end: the legs on both disks, answers, and what becomes of them when the disk, the
//! peer or the device is gone.

use super::{Leg, Op, Origin, Stage, What};
use crate::buf::Buf;
use crate::io::{Action, IoFailure, RequestError};
use crate::mirror::Mirror;
use crate::mirror::detach::Detach;
use crate::mirror::link::Link;
use crate::rules::{Rule, holds};
use crate::wire::Message;

impl Mirror {
    pub(in crate::mirror) fn op_local_done(
        &mut self,
        token: u64,
        result: Result<Option<Buf>, IoFailure>,
    ) {
        let Some(op) = self.app.ops.get_mut(&token) else { return };
        // What a failed disk still answers is not to be relied on (rule 11).
        let detached = self.detach != Detach::No && holds(Rule::DetachReads);
        match result {
            _ if detached && matches!(op.what, What::Read) => {
                self.read_from_peer(token);
                return;
            }
            Ok(data) => {
                op.local = Leg::Done;
                op.data = data;
            }
            Err(_) if matches!(op.what, What::Read) => {
                self.read_failed(token);
                return;
            }
            Err(_) => {
                op.local = Leg::Failed;
                let (what, offset) =
                    (if op.is_flush() { "flush" } else { "write" }, op.extent.offset);
                if holds(Rule::ErrorFails) {
                    self.disk_failed(false, what, offset);
                }
            }
        }
        self.resolve(token);
    }

    /// The peer answered a write or a flush; false if it is none of these.
    pub(in crate::mirror) fn op_remote_done(&mut self, token: u64, ok: bool) -> bool {
        let Some(op) = self.app.ops.get_mut(&token) else { return false };
        if op.remote != Leg::Pending {
            return false;
        }
        if ok {
            op.remote = Leg::Done;
            self.resolve(token);
        } else {
            // The peer's disk failed; this side goes on alone.
            self.drop_link("the disk of the other server failed");
            self.alone_due = self.now.mono;
        }
        true
    }

    /// Completes the operation once both legs have ended.
    pub(super) fn resolve(&mut self, token: u64) {
        let Some(op) = self.app.ops.get(&token) else { return };
        if op.stage != Stage::Flying {
            return;
        }
        match (op.local, op.remote) {
            (Leg::Done, Leg::Idle) if matches!(op.what, What::Read) => self.finish(token, Ok(())),
            // The peer has it, and has recorded that this side does not.
            (_, Leg::Done) if self.detach == Detach::Served => self.finish(token, Ok(())),
            _ if self.detach != Detach::No => {}
            // Only the failure of one operation then, once it has ended on both disks.
            (Leg::Failed, Leg::Pending) if !holds(Rule::ErrorFails) => {}
            (Leg::Failed, _) => self.finish(token, Err(RequestError::Io)),
            (Leg::Done, Leg::Done) => self.finish(token, Ok(())),
            // What a failed device still had under way must not make it go alone: the peer would
            // be told that it is behind, and could not take over.
            (Leg::Done, Leg::Idle) if self.fails_io() => {
                self.finish(token, Err(RequestError::Io));
            }
            // The session ended under way: back to the gate.
            (Leg::Done, Leg::Idle) => self.wait_at(token, Stage::Gate),
            (Leg::Pending | Leg::Idle, _) | (Leg::Done, Leg::Pending | Leg::Failed) => {}
        }
    }

    /// Every operation that was held up by the peer's record, or lost its peer, goes on.
    pub(in crate::mirror) fn resolve_all(&mut self) {
        let tokens: Vec<u64> = self.app.ops.keys().copied().collect();
        tokens.into_iter().for_each(|token| self.resolve(token));
    }

    pub(super) fn finish(&mut self, token: u64, result: Result<(), RequestError>) {
        let Some(op) = self.app.ops.remove(&token) else { return };
        if matches!(op.origin, Origin::Request(_)) {
            self.last_request = Some(self.now.mono);
        }
        if op.hot {
            let mirrored = self.is_mirroring();
            self.hot.end(op.extent.regions(), mirrored);
            self.last_write = Some(self.now.mono);
            self.meta.record.update_time = self.now.wall;
        }
        if op.is_flush() && op.joint && result.is_ok() {
            self.hot.flushed(op.began);
            self.standby.flushed_to(op.inherited);
        }
        if result.is_err() {
            self.leave_undecided(&op);
        }
        self.app.note_settled(token);
        self.leave_range(token);
        self.answer(op.origin, result.map(|()| op.data));
    }

    /// Drops a request that has not been answered: the next agent gets it again.
    pub(in crate::mirror) fn forget(&mut self, token: u64) {
        self.app.waiting.retain(|t| *t != token);
        let Some(op) = self.app.ops.remove(&token) else { return };
        if op.hot {
            // It may be on one disk, so its marks stay.
            self.hot.end(op.extent.regions(), false);
        }
        self.leave_undecided(&op);
        self.leave_range(token);
    }

    /// Nobody was told that it is done, and this disk may have it: of a peer that takes over, shows
    /// what was there before and flushes, this side must not be the source.
    fn leave_undecided(&mut self, op: &Op) {
        let is_here = op.is_write() && op.local != Leg::Idle;
        self.uninterrupted &= !(is_here && holds(Rule::Undecided));
    }

    pub(super) fn answer(&mut self, origin: Origin, result: Result<Option<Buf>, RequestError>) {
        match origin {
            Origin::Request(id) => self.out.push(Action::Complete { id, result }),
            Origin::Cool => self.cooled(result.is_ok()),
            Origin::Copy(after) => self.copy_flushed(after, result.is_ok()),
            Origin::Deactivate => self.deactivate_flushed(result.is_ok()),
            Origin::Suspend => self.suspend_flushed(result.is_ok()),
        }
    }

    /// Releases the range of `token` and starts those that waited for it.
    pub(in crate::mirror) fn leave_range(&mut self, token: u64) {
        self.waits_given_up(token);
        for granted in self.ranges.leave(token) {
            self.waits_no_more(granted);
            self.op_granted(granted);
            self.peer_op_granted(granted);
            self.copy_granted(granted);
        }
    }

    /// A bad sector is read from the peer, but only where nothing is dirty (rule 11).
    fn read_failed(&mut self, token: u64) {
        let Some(extent) = self.app.ops.get(&token).map(|op| op.extent) else { return };
        let peer_has_it = match &self.link {
            Link::Session(session) => {
                session.is_open() && (!self.is_dirty(extent) || !holds(Rule::CleanPeerRead))
            }
            _ => false,
        };
        self.notice(crate::io::Notice::DiskError {
            cluster_partition: false,
            what: "read",
            offset: extent.offset,
        });
        if !peer_has_it {
            self.finish(token, Err(RequestError::Io));
            return;
        }
        self.read_from_peer(token);
    }

    pub(super) fn read_from_peer(&mut self, token: u64) {
        let Some(op) = self.app.ops.get_mut(&token) else { return };
        op.stage = Stage::PeerRead;
        op.local = Leg::Done;
        let extent = op.extent;
        self.send(Message::Read { id: token, extent });
    }

    pub(in crate::mirror) fn on_read_reply(&mut self, token: u64, data: Option<Buf>) {
        let Some(op) = self.app.ops.get_mut(&token) else { return };
        if op.stage != Stage::PeerRead {
            return;
        }
        let fits = data.as_ref().is_some_and(|d| d.len() as u64 == op.extent.len);
        op.data = data;
        self.finish(token, if fits { Ok(()) } else { Err(RequestError::Io) });
    }

    /// The session is gone: what has not been acked is undecided.
    pub(in crate::mirror) fn requests_lost_peer(&mut self) {
        let tokens: Vec<u64> = self.app.ops.keys().copied().collect();
        for token in tokens {
            let Some(op) = self.app.ops.get_mut(&token) else { continue };
            match op.stage {
                // These served the session, and must not make a side go alone for their sake.
                _ if matches!(op.origin, Origin::Cool | Origin::Copy(_) | Origin::Suspend) => {
                    self.finish(token, Err(RequestError::Io));
                }
                Stage::Flying if op.joint && (op.is_flush() || op.remote != Leg::Done) => {
                    op.remote = Leg::Idle;
                    self.resolve(token);
                }
                Stage::PeerRead => self.finish(token, Err(RequestError::Io)),
                Stage::Held | Stage::Range | Stage::Marks | Stage::Gate | Stage::Flying => {}
            }
        }
    }

    /// The device answers every request with an error.
    pub(in crate::mirror) fn fails_io(&self) -> bool {
        (self.device_failed && self.detach == Detach::No) || self.shut
    }

    /// Both sides have gone apart, and nothing may complete here without the other's word, which
    /// will not come: errors let the application end, where waiting would never end.
    pub(in crate::mirror) fn shut_device(&mut self) {
        if !self.shut {
            self.shut = true;
            self.out.push(Action::FailDevice);
            self.fail_all_requests();
        }
    }

    /// The device is gone: what waits fails now, what is on its way when it comes back.
    pub(in crate::mirror) fn fail_all_requests(&mut self) {
        for token in std::mem::take(&mut self.app.waiting) {
            self.finish(token, Err(RequestError::Io));
        }
    }
}
