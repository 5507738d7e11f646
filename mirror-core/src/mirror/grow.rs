//! A larger mirror, with the device in use (`--resize`).
//!
//! 1. Both sides agree anew, with freshly measured partitions on their cards.
//! 2. Equal and in a session, this side records the new size, in one update with *from here on
//!    everything differs*: the marks of that need not be durable before.
//! 3. They agree once more. The sizes on the cards differ, so the smaller side takes the larger size,
//!    as source before the session opens, as target with the record that it is half copied (rule 6).
//! 4. The session is open, so both have recorded it: the device grows, and what it grew by is copied.
//!
//! A crash leaves both with the old size, one with the new, or both. Whoever has the new one marks
//! what was added, and the next agreement goes on from step 3.

use super::Mirror;
use super::detach::Detach;
use super::link::Link;
use super::meta::Then;
use super::operator::PATIENCE_MS;
use super::session::{Role, Session};
use crate::command::{Done, Refusal};
use crate::io::{Action, CommandId};
use crate::marks::Marks;
use crate::rules::{Rule, holds};
use crate::units::{MAX_MIRROR_BYTES, Millis, regions_in};

/// Where a growth that an operator asked for stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Growth {
    Idle,
    /// A session with fresh cards is awaited.
    Measuring {
        id: CommandId,
        until: Millis,
    },
    /// The new size becomes durable here.
    Recording,
    /// A session is awaited in which the peer has it, too.
    Telling {
        id: CommandId,
        until: Millis,
    },
}

impl Growth {
    pub(super) fn is_recording(self) -> bool {
        self == Self::Recording
    }
}

impl Mirror {
    pub(super) fn begin_growth(&mut self, id: CommandId) {
        if let Some(refusal) = self.growth_refusal() {
            self.reply(id, Err(refusal));
            return;
        }
        let until = self.now.mono.plus(PATIENCE_MS);
        self.growth = Growth::Measuring { id, until };
        self.agree_anew("the mirror is to grow");
    }

    fn growth_refusal(&self) -> Option<Refusal> {
        if self.growth != Growth::Idle {
            return Some(Refusal::Busy);
        }
        if self.meta.record.generation.is_none() {
            return Some(Refusal::NotConstructed);
        }
        let session = match &self.link {
            _ if self.device_failed => return Some(Refusal::DiskFailed),
            Link::Session(session) => session,
            Link::Agree(_) => return Some(Refusal::Busy),
            Link::Down { .. } | Link::Parked(_) => return Some(Refusal::NoContact),
        };
        if session.peer_active {
            Some(Refusal::PeerActive)
        } else if session.role != Role::Equal {
            Some(Refusal::RecoveryRunning)
        } else if session.serves_detached || self.detach != Detach::No {
            Some(Refusal::DiskFailed)
        } else if self.room(self.capacity) <= self.meta.record.size {
            Some(Refusal::NoRoom)
        } else {
            None
        }
    }

    /// Whole blocks of a mirror that fit in `capacity`.
    fn room(&self, capacity: u64) -> u64 {
        let block = u64::from(self.meta.record.block.max(1));
        capacity.min(MAX_MIRROR_BYTES) / block * block
    }

    pub(super) fn advance_growth(&mut self) {
        self.settle_growth();
        self.tell_device();
        let waits = |s: &Session| s.role == Role::Equal && s.is_open();
        match self.growth {
            Growth::Measuring { id, .. } if self.session().is_some_and(waits) => {
                self.record_growth(id);
            }
            Growth::Measuring { id, until } if until <= self.now.mono => {
                self.end_growth(id, Err(Refusal::Busy));
            }
            Growth::Telling { id, .. } if self.session().is_some_and(Session::is_open) => {
                self.end_growth(id, Ok(Done::Grown(self.meta.record.size)));
            }
            Growth::Telling { id, until } if until <= self.now.mono => {
                self.end_growth(id, Err(Refusal::GrowsLater));
            }
            Growth::Idle
            | Growth::Recording
            | Growth::Measuring { .. }
            | Growth::Telling { .. } => {}
        }
    }

    fn end_growth(&mut self, id: CommandId, result: Result<Done, Refusal>) {
        self.growth = Growth::Idle;
        self.reply(id, result);
    }

    fn record_growth(&mut self, id: CommandId) {
        let theirs = self.session().map_or(0, |s| s.theirs.capacity);
        let (size, room) = (self.meta.record.size, self.room(self.capacity));
        if room <= size {
            self.end_growth(id, Err(Refusal::NoRoom));
        } else if self.room(theirs) <= size {
            self.end_growth(id, Err(Refusal::NoRoomAtPeer));
        } else if self.device_failed || self.operator.is_stopping() {
            self.end_growth(id, Err(Refusal::Stopping));
        } else {
            self.growth = Growth::Recording;
            self.grow_to(room.min(self.room(theirs)));
            self.meta.persist_then(Then::Grown(id));
            if !holds(Rule::GrownBoth) {
                self.announce_size();
            }
        }
    }

    /// Takes a larger size, if it is one; to be made durable by the caller.
    pub(super) fn grow_to(&mut self, size: u64) {
        let record = &mut self.meta.record;
        if size <= record.size {
            return;
        }
        // An earlier growth may not have its marks yet.
        let earlier = (record.grown_from != 0).then_some(record.grown_from);
        record.grown_from = earlier.map_or(record.size, |from| from.min(record.size));
        record.size = size;
        let dirty = record.grown_regions();
        // The region in which the mirror ended may have been marked ahead of writes: that mark is to
        // stay now.
        self.hot.differ(dirty.clone());
        if let Some(marks) = &mut self.meta.marks {
            marks.grow(regions_in(size), dirty);
        }
    }

    pub(super) fn growth_recorded(&mut self, id: CommandId) {
        if self.detach != Detach::No {
            // The peer's disk is the only one now, and has not grown; another agreement would end it.
            self.end_growth(id, Err(Refusal::DiskFailed));
            return;
        }
        let until = self.now.mono.plus(PATIENCE_MS);
        self.growth = Growth::Telling { id, until };
        self.agree_anew("the mirror has grown");
    }

    /// The marks say now what the record stood in for.
    fn settle_growth(&mut self) {
        let durable = self.meta.marks.as_ref().is_some_and(Marks::idle);
        if self.meta.record.grown_from != 0 && durable && !self.link.is_agreeing() {
            if self.growth.is_recording() || self.meta.failed {
                return;
            }
            self.meta.record.grown_from = 0;
            self.meta.persist();
        }
    }

    /// Both sides of an open session have recorded its size.
    fn tell_device(&mut self) {
        let whole = self.detach == Detach::No && !self.growth.is_recording();
        if whole && self.session().is_some_and(Session::is_open) {
            self.announce_size();
        }
    }

    fn announce_size(&mut self) {
        let size = self.meta.record.size;
        if self.active && self.device_size != size && !self.fails_io() {
            self.device_size = size;
            self.out.push(Action::Grow { size });
        }
    }

    /// Bytes that requests may address.
    pub(super) fn served_bytes(&self) -> u64 {
        if self.device_size == 0 { self.meta.record.size } else { self.device_size }
    }

    pub(super) fn growth_deadline(&self) -> Option<Millis> {
        match self.growth {
            Growth::Measuring { until, .. } | Growth::Telling { until, .. } => Some(until),
            Growth::Idle | Growth::Recording => None,
        }
    }
}
