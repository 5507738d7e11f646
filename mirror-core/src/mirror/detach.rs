//! Going on with the peer's disk when the own data partition has failed (`disk_error = "detach"`).
//!
//! ```text
//! active side                                      peer
//!   disk fails; durable *disk error, behind*
//!   Detach ──────────────────────────────────────▶
//!                                                    durable: new generation, *owes all*,
//!                                                    *peer behind*
//!          ◀──────────────────────────────────────  Detached
//!   what the peer has completes; reads, writes
//!   and flushes go to the peer only
//! ```
//! Nothing completes between the error and `Detached`. The state lives in the one session: when
//! that ends there is no disk, and the device fails for good. No later session opens before the
//! cluster partition is initialised anew, so the direction table needs no row for it.

use super::Mirror;
use super::meta::Then;
use super::session::Role;
use crate::io::{Action, Notice};
use crate::rules::{Rule, holds};
use crate::wire::Message;

/// How far a side has come that works without its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Detach {
    /// It has its disk, or nothing serves in its place.
    No,
    /// It records that what it has is out of date.
    Recording,
    /// The peer records that it alone has the latest data.
    Asked,
    /// The peer's disk serves.
    Served,
}

impl Mirror {
    /// The peer has all that was ever acknowledged, and can take over from this disk now.
    pub(super) fn may_detach(&self) -> bool {
        let whole = self.session().is_some_and(|s| s.role == Role::Equal && s.is_open());
        let stays = !self.shut && !self.operator.is_suspended() && !self.operator.is_forcing();
        self.tuning.detach && self.active && whole && stays && !self.meta.failed
    }

    /// This side's own record comes first (rule 11): a successor that found it *active* and sound
    /// would serve what is here.
    pub(super) fn begin_detach(&mut self) {
        let Some(conn) = self.current() else { return };
        self.detach = Detach::Recording;
        self.meta.record.behind = true;
        if holds(Rule::DetachSelf) {
            self.meta.persist_then(Then::Detach(conn));
        } else {
            self.meta.record.behind = false;
            self.meta.record.disk_error = false;
            self.send_detach();
        }
    }

    pub(super) fn send_detach(&mut self) {
        if self.detach != Detach::Recording {
            return;
        }
        self.detach = Detach::Asked;
        self.send(Message::Detach);
        if !holds(Rule::DetachPeer) {
            self.on_detached();
        }
    }

    /// The peer works with this disk from here on: it alone has the latest data (rule 3), and a
    /// disk that comes in place of the failed one is owed all of it.
    pub(super) fn on_detach(&mut self) {
        let Some(conn) = self.current() else { return };
        if self.operator.is_recording_stop() {
            // The peer hears the end of the connection instead of an answer.
            return;
        }
        let mine = !self.active && !self.device_failed;
        let Some(session) = self.session_mut() else { return };
        let whole = session.role == Role::Equal && session.peer_active;
        if !mine || !whole || session.serves_detached {
            self.protocol_error("a peer without a disk at the wrong time");
            return;
        }
        session.serves_detached = true;
        if !holds(Rule::DetachPeer) {
            return;
        }
        let generation = self.entropy.generation();
        let record = &mut self.meta.record;
        if let Some(former) = record.generation.replace(generation) {
            record.ancestors.push(former);
        }
        record.bases = [None; 2];
        record.born_session = record.last_open();
        record.owes_all = true;
        record.peer_behind = true;
        record.clean_stop = false;
        if record.break_time == 0 {
            record.break_time = self.now.wall;
        }
        self.meta.persist_then(Then::Detached(conn));
        self.notice(Notice::ServesPeer);
    }

    pub(super) fn send_detached(&mut self) {
        self.send(Message::Detached);
    }

    pub(super) fn on_detached(&mut self) {
        match self.detach {
            Detach::Asked => {
                self.detach = Detach::Served;
                self.notice(Notice::Detached);
                self.resolve_all();
            }
            Detach::Served if !holds(Rule::DetachPeer) => {}
            Detach::No | Detach::Recording | Detach::Served => {
                self.protocol_error("a disk that was not asked for");
            }
        }
    }

    /// The device is closed: the peer may be activated now, which needs no contact.
    pub(super) fn end_detach(&mut self) {
        if std::mem::replace(&mut self.detach, Detach::No) != Detach::No {
            self.drop_link("a disk of this server failed");
        }
    }

    /// The session has ended, and with it the only disk.
    pub(super) fn detach_lost(&mut self) {
        if std::mem::replace(&mut self.detach, Detach::No) == Detach::No {
            return;
        }
        self.notice(Notice::DetachedLost);
        self.out.push(Action::FailDevice);
        self.fail_all_requests();
        self.resolve_all();
    }
}
