//! Recovery begun, ended and forbidden by the operator, and the word that ends a split brain.

use super::Flush;
use crate::command::{Done, Refusal};
use crate::direction::{Outcome, Row, sessions_can_both_be_true};
use crate::io::{CommandId, DataOp};
use crate::mirror::copying::Copying;
use crate::mirror::detach::Detach;
use crate::mirror::link::Link;
use crate::mirror::meta::Then;
use crate::mirror::{Alone, Mirror, Owner};
use crate::rules::{Rule, holds};
use crate::units::{ActivationNo, Extent};
use crate::wire::Message;

impl Mirror {
    pub(super) fn recover(&mut self) -> Result<Done, Refusal> {
        let refusal = match &self.link {
            Link::Down { .. } if self.apart => {
                self.cancelled = false;
                self.rejoin();
                return Ok(Done::Rejoining);
            }
            Link::Down { .. } => Some(Refusal::NoContact),
            Link::Agree(_) => Some(Refusal::Busy),
            Link::Parked(parked) => refusal_of(parked.verdict.row, parked.verdict.outcome),
            Link::Session(session) => match (&session.copying, &session.target) {
                (None, None) => return Ok(Done::NothingToRecover),
                (Some(copying), _) if copying.is_running() => Some(Refusal::RecoveryRunning),
                (_, Some(target)) if !target.is_stopped() => Some(Refusal::RecoveryRunning),
                _ => None,
            },
        };
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        self.cancelled = false;
        if !self.resume_copying() {
            self.rejoin();
            self.agree_anew("a recovery was asked for");
        }
        Ok(Done::RecoveryStarted)
    }

    /// A recovery is wanted. That ends an order of this side to keep the servers apart, and one of the
    /// other side if it was known here: one that comes later is not meant.
    fn rejoin(&mut self) {
        self.wants_recovery = true;
        self.apart = false;
        self.rejoins |= self.last_peer.as_ref().is_some_and(|theirs| theirs.apart);
    }

    /// Parts the servers on purpose. Contact stays, so that each knows of the other.
    pub(super) fn separate(&mut self) -> Result<Done, Refusal> {
        match &self.link {
            Link::Agree(_) => return Err(Refusal::Busy),
            Link::Session(session) if session.copying.is_some() || session.target.is_some() => {
                return Err(Refusal::RecoveryRunning);
            }
            Link::Session(session) if session.serves_detached => return Err(Refusal::DiskFailed),
            Link::Session(_) if self.detach != Detach::No => return Err(Refusal::DiskFailed),
            Link::Session(_) | Link::Parked(_) | Link::Down { .. } => {}
        }
        self.apart = true;
        self.wants_recovery = false;
        self.rejoins = false;
        if self.in_contact() {
            self.agree_anew("the operator keeps the servers apart");
        }
        Ok(Done::Separated)
    }

    pub(super) fn cancel_recovery(&mut self) -> Result<Done, Refusal> {
        let Some(session) = self.session() else { return Err(Refusal::NoRecovery) };
        let as_source = session.copying.as_ref().is_some_and(Copying::is_running);
        let as_target = session.target.as_ref().is_some_and(|t| !t.is_stopped());
        if !as_source && !as_target {
            return Err(Refusal::NoRecovery);
        }
        let copying = session.copying.as_ref().is_none_or(Copying::is_copying);
        if !copying || !session.is_open() {
            // Just beginning, or just ending.
            return Err(Refusal::Busy);
        }
        self.cancelled = true;
        if as_source {
            self.stop_copying("stopped by the operator");
        } else {
            self.send(Message::CopyStop);
        }
        Ok(Done::RecoveryCancelled)
    }

    pub(super) fn advance_force(&mut self) {
        let Some(forcing) = self.operator.forcing else { return };
        let refusal = match &self.link {
            Link::Agree(_) if self.now.mono < forcing.until => return,
            Link::Agree(_) => Some(Refusal::Busy),
            _ if self.meta.record.generation.is_none() => Some(Refusal::NotConstructed),
            _ if self.device_failed => Some(Refusal::DiskFailed),
            Link::Session(session) if session.peer_active => Some(Refusal::TargetActive),
            Link::Session(session) if session.copying.is_some() => Some(Refusal::RecoveryRunning),
            Link::Parked(parked) if parked.theirs.active || parked.beat.active => {
                Some(Refusal::TargetActive)
            }
            // A word about whose data is newer changes nothing here: no copy would begin.
            Link::Parked(parked) if is_misplaced(parked.verdict.row) => Some(Refusal::NoDirection),
            Link::Down { .. } if forcing.peer_seen_active == Some(true) => {
                Some(Refusal::TargetActive)
            }
            // The other server is up: what it has is to be known before it is overruled.
            Link::Down { .. }
                if forcing.peer_seen_active.is_some() && self.now.mono < forcing.until =>
            {
                return;
            }
            Link::Session(_) | Link::Parked(_) | Link::Down { .. } => None,
        };
        if let Some(refusal) = refusal {
            self.operator.forcing = None;
            self.reply(forcing.id, Err(refusal));
            return;
        }
        match forcing.flush {
            Flush::Due if holds(Rule::ForceFlushes) => {
                self.set_force_flush(Flush::Running);
                self.submit(Owner::ForceFlush, DataOp::Flush, Extent::default());
            }
            Flush::Due | Flush::Done if self.alone != Alone::Recording => {
                self.record_force(forcing.id);
            }
            Flush::Due | Flush::Running | Flush::Done => {}
        }
    }

    fn set_force_flush(&mut self, to: Flush) {
        if let Some(forcing) = &mut self.operator.forcing {
            forcing.flush = to;
        }
    }

    pub(in crate::mirror) fn force_flush_done(&mut self, ok: bool) {
        if ok {
            self.set_force_flush(Flush::Done);
        } else {
            self.disk_failed(false, "flush", 0);
        }
    }

    /// One above every activation that the peer knows of: what it is activated as from now on,
    /// without knowing of the force, is not below this.
    fn force_number(&self) -> ActivationNo {
        let theirs = match &self.link {
            Link::Parked(parked) => {
                parked.theirs.record.known_activation.max(parked.theirs.record.activation)
            }
            // Granted, and not seen to have begun: it may begin after this.
            _ if self.granted_unseen() => return self.meta.record.known_activation,
            _ => self.meta.record.known_activation,
        };
        theirs.next()
    }

    /// The peer was granted an activation, and has not been seen active since: the grant may be on
    /// its way still, over a connection that has ended here only. After a restart of this process
    /// nothing has been seen.
    fn granted_unseen(&self) -> bool {
        self.meta.record.peer_active && !self.seen_active && holds(Rule::GrantUnsure)
    }

    /// With a peer whose sessions this side cannot have had (one of the two was restored), the
    /// word settles that, too: numbers count on from the higher one.
    fn catch_up_sessions(&mut self) {
        let Link::Parked(parked) = &self.link else { return };
        let theirs = &parked.theirs.record;
        let record = &mut self.meta.record;
        if record.session < theirs.session && !sessions_can_both_be_true(record, theirs) {
            record.session = theirs.session;
            record.session_open = true;
        }
    }

    /// This side's data is the truth from here on; everything known of the other is overruled,
    /// and everything is owed to it.
    fn record_force(&mut self, id: CommandId) {
        self.operator.forcing = None;
        let generation = self.entropy.generation();
        let contact = self.in_contact();
        let forced_at = self.force_number();
        self.catch_up_sessions();
        self.last_verdict = None;
        let record = &mut self.meta.record;
        record.forced_at = Some(forced_at);
        if let Some(former) = record.generation.replace(generation) {
            record.ancestors.push(former);
        }
        if let Some(theirs) = &self.last_peer {
            theirs.record.generation.into_iter().for_each(|g| record.overruled.push(g));
        }
        if let Some(inconsistent) = record.inconsistent.take() {
            // Nothing else may name what was being copied here.
            record.overruled.push(inconsistent.toward);
        }
        record.behind = false;
        record.peer_behind = false;
        record.peer_active = false;
        record.owes_all = holds(Rule::ForceOwes);
        record.bases = [None; 2];
        record.born_session = record.last_open();
        record.clean_stop = false;
        self.resume.confirm();
        self.alone = Alone::No;
        self.cancelled = false;
        self.rejoin();
        self.meta.persist_then(Then::Forced { id, contact });
        // At once: nothing that the peer still sends may touch the new record.
        self.agree_anew("a forced recovery was asked for");
    }

    pub(in crate::mirror) fn force_recorded(&mut self, id: CommandId, contact: bool) {
        self.reply(id, Ok(if contact { Done::ForcedWithCopy } else { Done::ForcedAlone }));
    }
}

/// Why a parked mirror cannot be recovered, by the row that decided; `None` = it can.
fn refusal_of(row: Row, outcome: Outcome) -> Option<Refusal> {
    if outcome != Outcome::Refuse {
        return None;
    }
    Some(match row {
        Row::SplitBrain => Refusal::SplitBrain,
        Row::BothActive | Row::TargetActive => Refusal::TargetActive,
        Row::SourceAbnormal | Row::BothAbnormal | Row::BlankAndAbnormal => Refusal::SourceAbnormal,
        Row::DiskFailed => Refusal::DiskFailed,
        _ => Refusal::NoDirection,
    })
}

/// The two are not the two sides of one mirror, or one cannot hold it.
const fn is_misplaced(row: Row) -> bool {
    matches!(row, Row::SameSide | Row::ForeignMirror | Row::SizeMismatch)
}
