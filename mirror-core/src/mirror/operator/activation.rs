//! Activation (architecture §4): what permits it, the peer's grant, and the record of it.

use super::{Activating, Asking, PATIENCE_MS};
use crate::command::{Done, Refusal};
use crate::direction::{Mode, Outcome, Row};
use crate::io::CommandId;
use crate::mirror::Mirror;
use crate::mirror::link::Link;
use crate::mirror::meta::Then;
use crate::mirror::session::Role;
use crate::mirror::target::Target;
use crate::record::Card;
use crate::rules::{Rule, holds};
use crate::units::{ActivationNo, Side};
use crate::wire::Message;

/// What an activation may do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Wait,
    AskPeer,
    WithoutContact,
    Refuse(Refusal),
}

impl Mirror {
    pub(super) fn begin_activation(&mut self, id: CommandId, peer_down: bool, seen: Option<bool>) {
        let refusal = if self.active || self.operator.activating.is_some() {
            Some(Refusal::AlreadyActive)
        } else if self.device_failed {
            Some(Refusal::DiskFailed)
        } else if self.meta.record.generation.is_none() {
            Some(Refusal::NotConstructed)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.reply(id, Err(refusal));
            return;
        }
        let until = self.now.mono.plus(PATIENCE_MS);
        self.operator.activating =
            Some(Activating { id, until, peer_down, peer_seen_active: seen, asking: Asking::No });
    }

    pub(super) fn advance_activation(&mut self) {
        let Some(activating) = self.operator.activating else { return };
        match activating.asking {
            Asking::Recording => return,
            Asking::Asked(_) if self.in_contact() && self.now.mono < activating.until => return,
            Asking::Asked(_) => self.set_asking(Asking::No),
            Asking::No => {}
        }
        match self.may_activate(&activating) {
            Answer::Wait if self.now.mono < activating.until => {}
            Answer::Wait => self.refuse_activation(Refusal::Busy),
            Answer::Refuse(refusal) => self.refuse_activation(refusal),
            Answer::WithoutContact => self.record_activation(self.activation_apart()),
            Answer::AskPeer if self.now.mono >= activating.until => {
                self.refuse_activation(Refusal::Busy);
            }
            Answer::AskPeer => {
                let number = self.next_activation();
                if !holds(Rule::Grant) {
                    self.record_activation(number);
                    return;
                }
                self.ask_peer(number);
            }
        }
    }

    /// Asks the peer for a number. It may grant it and count it as taken, whatever becomes of this
    /// side: [`Self::activation_apart`] leaves one out for that. So that it is one only, what the
    /// peer had taken before becomes durable here first.
    fn ask_peer(&mut self, number: ActivationNo) {
        let Some(conn) = self.current() else { return };
        self.set_asking(Asking::Asked(number));
        let taken = self.taken_by_peer();
        if taken > self.meta.record.known_activation {
            self.meta.record.known_activation = taken;
            self.meta.persist_then(Then::Ask(conn, number));
        } else {
            self.send_ask(number);
        }
    }

    pub(in crate::mirror) fn send_ask(&mut self, number: ActivationNo) {
        let Some(wire) = &mut self.wire else { return };
        if self.operator.activating.is_some_and(|a| a.asking == Asking::Asked(number)) {
            wire.asked = wire.asked.max(Some(number));
            self.send(Message::ActivateAsk { number });
        }
    }

    fn set_asking(&mut self, asking: Asking) {
        if let Some(activating) = &mut self.operator.activating {
            activating.asking = asking;
        }
    }

    pub(super) fn refuse_activation(&mut self, refusal: Refusal) {
        if let Some(activating) = self.operator.activating.take() {
            self.reply(activating.id, Err(refusal));
        }
    }

    pub(super) fn in_contact(&self) -> bool {
        matches!(self.link, Link::Session(_) | Link::Parked(_))
    }

    fn may_activate(&self, ask: &Activating) -> Answer {
        match &self.link {
            Link::Agree(_) => Answer::Wait,
            Link::Down { .. } => self.may_activate_without_contact(ask),
            Link::Session(session) if session.peer_active => Answer::Refuse(Refusal::PeerActive),
            Link::Session(session) => match session.role {
                Role::Equal => Answer::AskPeer,
                Role::Source if session.is_open() => Answer::AskPeer,
                Role::Source => Answer::Wait,
                Role::Target => match session.target.as_ref().map(Target::mode) {
                    // It will be over in a moment.
                    Some(Mode::Settle { .. }) => Answer::Wait,
                    _ => Answer::Refuse(Refusal::NotLatest),
                },
            },
            Link::Parked(parked) if parked.theirs.active || parked.beat.active => {
                Answer::Refuse(Refusal::PeerActive)
            }
            Link::Parked(parked) => match (parked.verdict.outcome, parked.verdict.row) {
                // Kept apart: only a session would take back that this side is behind.
                (Outcome::InSync, _) if self.meta.record.behind && holds(Rule::AbnormalActive) => {
                    Answer::Refuse(Refusal::NotLatest)
                }
                (Outcome::InSync, _) => Answer::AskPeer,
                (Outcome::Copy { source, .. }, _) if source == self.side => Answer::AskPeer,
                (Outcome::Copy { .. }, _) => Answer::Refuse(Refusal::NotLatest),
                (Outcome::Refuse, Row::SplitBrain | Row::BothActive) => {
                    Answer::Refuse(Refusal::SplitBrain)
                }
                // The peer has no working disk: what we know of ourselves must do.
                (Outcome::Refuse, Row::DiskFailed) => self.may_activate_without_contact(ask),
                (Outcome::Refuse, _) => Answer::Refuse(Refusal::NotLatest),
            },
        }
    }

    /// Architecture §4, *Without contact*.
    fn may_activate_without_contact(&self, ask: &Activating) -> Answer {
        let record = &self.meta.record;
        if ask.peer_seen_active == Some(true) {
            return Answer::Refuse(Refusal::PeerActive);
        }
        if (record.inconsistent.is_some() || record.behind) && holds(Rule::AbnormalActive) {
            return Answer::Refuse(Refusal::NotLatest);
        }
        let apart = self.last_verdict.map(|v| v.row);
        if matches!(apart, Some(Row::SplitBrain | Row::BothActive)) {
            return Answer::Refuse(Refusal::SplitBrain);
        }
        let vouched = ask.peer_down || self.vouched_peer_down || record.peer_behind;
        if self.tuning.fenced && !vouched {
            // Nothing could complete alone: the first write would wait for ever.
            return Answer::Refuse(Refusal::NoContact);
        }
        // Once a session has been open since the force, the peer may have adopted what was forced,
        // and gone on from it.
        let forced = record.forced_at.is_some() && !record.peer_may_hold();
        if record.peer_behind || forced {
            return Answer::WithoutContact;
        }
        match self.loss {
            Some(loss) if !loss.in_sync => Answer::Refuse(Refusal::NotLatest),
            Some(loss) if !loss.active || ask.peer_down => Answer::WithoutContact,
            Some(_) => Answer::Refuse(Refusal::WasActive),
            None if record.peer_active && holds(Rule::PeerWasActive) => {
                Answer::Refuse(Refusal::PeerWasActive)
            }
            None if ask.peer_down => Answer::WithoutContact,
            None if !holds(Rule::WasActive) => Answer::WithoutContact,
            None if self.was_active => Answer::Refuse(Refusal::WasActive),
            None => Answer::Refuse(Refusal::NoContact),
        }
    }

    /// Above every number that this side knows of.
    fn next_activation(&self) -> ActivationNo {
        let record = &self.meta.record;
        record.known_activation.max(record.activation).max(self.taken_by_peer()).next()
    }

    /// The number of an activation without contact. One is left out, since the peer may have granted
    /// it unheard: a force of the peer would count it, and outweigh an activation under it.
    fn activation_apart(&self) -> ActivationNo {
        let next = self.next_activation();
        if holds(Rule::SkipGranted) { next.next() } else { next }
    }

    /// The highest number on the peer's card.
    fn taken_by_peer(&self) -> ActivationNo {
        match &self.link {
            Link::Parked(parked) => known_to(&parked.theirs),
            Link::Session(session) => known_to(&session.theirs),
            Link::Down { .. } | Link::Agree(_) => ActivationNo(0),
        }
    }

    /// Durable, with the boot, before the first request is served.
    fn record_activation(&mut self, number: ActivationNo) {
        self.set_asking(Asking::Recording);
        let record = &mut self.meta.record;
        record.activation = number;
        record.active = true;
        record.boot = self.boot;
        record.peer_active = false;
        record.clean_stop = false;
        if !holds(Rule::ActivationFirst) {
            self.meta.persist();
            self.activation_recorded();
            return;
        }
        self.meta.persist_then(Then::Activated);
    }

    pub(in crate::mirror) fn activation_recorded(&mut self) {
        let Some(activating) = self.operator.activating.take() else { return };
        // What the operator vouches for holds for the writes to come, too.
        self.vouched_peer_down |= activating.peer_down && !self.in_contact();
        self.active = true;
        self.device_size = self.meta.record.size;
        self.was_active = false;
        self.alone_due = self.alone_due.min(self.now.mono);
        self.reply(activating.id, Ok(Done::Activated));
        self.card_changed();
        self.close_to_stop();
    }

    /// Parked, and what the verdict was based on has changed.
    pub(super) fn card_changed(&mut self) {
        if matches!(&self.link, Link::Parked(parked) if parked.mine.active != self.active) {
            self.agree_anew("this server's state changed");
        }
    }

    /// The peer wants to be activated. Of two at a time the first server wins.
    pub(in crate::mirror) fn on_activate_ask(&mut self, number: ActivationNo) {
        if self.operator.is_stopping() && !self.active {
            // What is being recorded says that the peer is not active. It will hear the end of the
            // connection instead of an answer.
            return;
        }
        let recording = self.operator.is_recording_activation();
        let competing = self.operator.activating.is_some() && self.dials_first();
        let half_copied = self.session().is_some_and(|s| {
            s.role == Role::Source && s.verdict.outcome != Outcome::InSync && !s.is_settling()
        });
        let known = self.meta.record.known_activation.max(self.meta.record.activation);
        let granted = !self.active
            && !recording
            && !competing
            && !half_copied
            && self.operator.forcing.is_none()
            && number > known
            && self.meta.record.takes_from_peer(number.0);
        let Some(conn) = self.current().filter(|_| granted) else {
            self.send(Message::ActivateRefuse { number });
            return;
        };
        self.refuse_activation(Refusal::PeerActive);
        self.meta.record.known_activation = number;
        self.meta.record.peer_active = true;
        self.seen_active = false;
        if let Some(session) = self.session_mut() {
            // At once: an adoption that comes before the grant is durable keeps what it finds here.
            session.peer_active = true;
        }
        self.meta.persist_then(Then::Granted(conn, number));
    }

    fn dials_first(&self) -> bool {
        self.side == Side::First
    }

    pub(in crate::mirror) fn send_grant(&mut self, number: ActivationNo) {
        self.send(Message::ActivateGrant { number });
    }

    pub(in crate::mirror) fn on_activate_grant(&mut self, number: ActivationNo) {
        if self.wire.as_ref().is_some_and(|w| Some(number) > w.asked) {
            // It would be counted on from, wherever that leads.
            self.protocol_error("a grant of an activation that was not asked for");
            return;
        }
        let asked = self.operator.activating.is_some_and(|a| a.asking == Asking::Asked(number));
        if asked {
            self.meta.record.known_activation = number;
            self.record_activation(number);
        } else if self.operator.activating.is_none() && !self.active {
            // Given up meanwhile, but the peer takes this side for active now, and the number for
            // taken.
            self.meta.record.known_activation = self.meta.record.known_activation.max(number);
            self.meta.persist();
            self.send(Message::Deactivated);
        }
    }

    pub(in crate::mirror) fn on_activate_refuse(&mut self, number: ActivationNo) {
        let asked = self.operator.activating.is_some_and(|a| a.asking == Asking::Asked(number));
        if asked {
            self.refuse_activation(Refusal::PeerActive);
        }
    }

    /// A side that restarted under an active peer may lack what its cache lost, until it is whole;
    /// that its peer is not active any more changes nothing about it. In an agreement nothing does.
    fn may_lack(&self) -> bool {
        match &self.link {
            Link::Session(session) => {
                let whole = session.target.as_ref().is_none_or(Target::stayed_complete);
                session.role == Role::Target && !whole
            }
            Link::Parked(parked) => {
                parked.verdict.source().is_some_and(|source| source != self.side)
            }
            Link::Agree(_) | Link::Down { .. } => true,
        }
    }

    pub(in crate::mirror) fn on_peer_deactivated(&mut self) {
        if !self.may_lack() {
            self.meta.record.peer_active = false;
            self.meta.persist();
        }
        if let Some(session) = self.session_mut() {
            session.peer_active = false;
            session.beat.active = false;
        }
        if matches!(&self.link, Link::Parked(parked) if parked.theirs.active) {
            self.agree_anew("the other server was deactivated");
        }
    }
}

/// Highest activation that a side has taken or granted.
fn known_to(card: &Card) -> ActivationNo {
    card.record.known_activation.max(card.record.activation)
}
