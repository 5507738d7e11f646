//! Commands of the operator and the agent (architecture §4: when a side may be activated).

use super::app::Origin;
use super::detach::Detach;
use super::link::Link;
use super::meta::Then;
use super::session::Role;
use super::{Alone, Mirror, Owner};
use crate::command::{Command, Done, Refusal};
use crate::direction::{Mode, Outcome, Row, sessions_can_both_be_true};
use crate::io::{Action, CommandId, DataOp, Notice};
use crate::record::Card;
use crate::record::PEER_NUMBER_MAX;
use crate::rules::{Rule, holds};
use crate::units::{ActivationNo, Extent, Millis, SessionNo};
use crate::wire::Message;

/// How long a command waits for an agreement or a grant before it is refused as busy, ms.
pub(super) const PATIENCE_MS: u64 = 8000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asking {
    No,
    /// The peer's grant is awaited.
    Asked(ActivationNo),
    /// The activation becomes durable.
    Recording,
}

#[derive(Clone, Copy, Debug)]
struct Activating {
    id: CommandId,
    until: Millis,
    peer_down: bool,
    peer_seen_active: Option<bool>,
    asking: Asking,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    Draining,
    Flushing,
    Recording,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stopping {
    Deactivating,
    Flushing,
    Recording,
    /// Answered; nothing is left to do.
    Stopped,
}

/// Steps before a stop that keeps the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Suspending {
    Draining,
    Flushing,
    /// The marks go.
    Clearing,
}

#[derive(Clone, Copy, Debug)]
struct Forcing {
    id: CommandId,
    peer_seen_active: Option<bool>,
    until: Millis,
    /// What is declared to be the truth is being made durable, or is.
    flush: Flush,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flush {
    Due,
    Running,
    Done,
}

#[derive(Debug, Default)]
pub(super) struct Operator {
    activating: Option<Activating>,
    /// `None` inside: the deactivation belongs to a shutdown.
    closing: Option<(Option<CommandId>, Closing)>,
    stopping: Option<(CommandId, Stopping)>,
    forcing: Option<Forcing>,
    suspending: Option<(CommandId, Suspending)>,
    /// The device is left to the next agent, from the order on.
    suspended: bool,
}

impl Operator {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some() || self.suspended
    }

    /// What a stop leaves is on its way to the record, and holds from here on.
    pub(super) fn is_recording_stop(&self) -> bool {
        matches!(self.stopping, Some((_, Stopping::Recording)))
    }

    fn is_recording_activation(&self) -> bool {
        self.activating.is_some_and(|a| a.asking == Asking::Recording)
    }

    pub(super) fn is_forcing(&self) -> bool {
        self.forcing.is_some()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.suspended
    }

    pub(super) fn suspending(&self) -> Option<Suspending> {
        self.suspending.map(|(_, step)| step)
    }

    pub(super) fn set_suspending(&mut self, to: Suspending) {
        if let Some((_, step)) = &mut self.suspending {
            *step = to;
        }
    }

    /// The device is being closed: no new requests.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }
}

/// What an activation may do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Wait,
    AskPeer,
    WithoutContact,
    Refuse(Refusal),
}

impl Mirror {
    pub(super) fn on_command(&mut self, id: CommandId, command: Command) {
        if self.operator.is_stopping() && !is_for_stopping(command) {
            self.reply(id, Err(Refusal::Stopping));
            return;
        }
        match command {
            Command::Activate { peer_down, peer_seen_active } => {
                self.begin_activation(id, peer_down, peer_seen_active);
            }
            Command::Deactivate => self.begin_deactivation(id),
            Command::Recover => {
                let result = self.recover();
                self.reply(id, result);
            }
            Command::CancelRecovery => {
                let result = self.cancel_recovery();
                self.reply(id, result);
            }
            Command::Separate => {
                let result = self.separate();
                self.reply(id, result);
            }
            Command::Force { .. } if self.operator.forcing.is_some() => {
                self.reply(id, Err(Refusal::Busy));
            }
            Command::Force { peer_seen_active } => {
                let until = self.now.mono.plus(PATIENCE_MS);
                self.operator.forcing =
                    Some(Forcing { id, peer_seen_active, until, flush: Flush::Due });
            }
            Command::ToldBehind { session } => self.told_behind(id, session),
            Command::PeerConfirmedBehind { session } => self.peer_confirmed_behind(id, session),
            Command::PeerDown => {
                self.vouched_peer_down = true;
                self.reply(id, Ok(Done::Noted));
            }
            Command::FailDevice => {
                let result = self.give_up_device();
                self.reply(id, result);
            }
            Command::Resize => self.begin_growth(id),
            Command::Shutdown => self.begin_stop(id),
            Command::Suspend => self.begin_suspend(id),
        }
    }

    fn give_up_device(&mut self) -> Result<Done, Refusal> {
        if !self.active {
            return Err(Refusal::NotActive);
        }
        self.shut_device();
        Ok(Done::Noted)
    }

    pub(super) fn reply(&mut self, id: CommandId, result: Result<Done, Refusal>) {
        self.out.push(Action::Reply { id, result });
    }

    pub(super) fn operator_deadline(&self) -> Option<Millis> {
        let asked = self.operator.activating.filter(|a| a.asking != Asking::Recording);
        let activating = asked.map(|a| a.until);
        // Also with the flush behind it, a force that lost contact waits for it.
        let waits = self.operator.forcing.filter(|f| match f.flush {
            Flush::Due => true,
            Flush::Running => false,
            Flush::Done => self.now.mono < f.until,
        });
        let forcing = waits.map(|f| f.until);
        activating.into_iter().chain(forcing).min()
    }

    pub(super) fn advance_operator(&mut self) {
        self.advance_activation();
        self.advance_deactivation();
        self.advance_force();
        self.advance_suspend();
        self.advance_stop();
    }

    // Activation.

    fn begin_activation(&mut self, id: CommandId, peer_down: bool, seen: Option<bool>) {
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

    fn advance_activation(&mut self) {
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
            self.send(Message::ActivateAsk { number });
        }
    }

    pub(super) fn send_ask(&mut self, number: ActivationNo) {
        if self.operator.activating.is_some_and(|a| a.asking == Asking::Asked(number)) {
            self.send(Message::ActivateAsk { number });
        }
    }

    fn set_asking(&mut self, asking: Asking) {
        if let Some(activating) = &mut self.operator.activating {
            activating.asking = asking;
        }
    }

    fn refuse_activation(&mut self, refusal: Refusal) {
        if let Some(activating) = self.operator.activating.take() {
            self.reply(activating.id, Err(refusal));
        }
    }

    fn in_contact(&self) -> bool {
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
                Role::Target => match session.target.as_ref().map(super::target::Target::mode) {
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

    pub(super) fn activation_recorded(&mut self) {
        let Some(activating) = self.operator.activating.take() else { return };
        // What the operator vouches for holds for the writes to come, too.
        self.vouched_peer_down |= activating.peer_down && !self.in_contact();
        self.active = true;
        self.device_size = self.meta.record.size;
        self.was_active = false;
        self.alone_due = self.alone_due.min(self.now.mono);
        self.reply(activating.id, Ok(Done::Activated));
        self.card_changed();
    }

    /// Parked, and what the verdict was based on has changed.
    fn card_changed(&mut self) {
        if matches!(&self.link, Link::Parked(parked) if parked.mine.active != self.active) {
            self.agree_anew("this server's state changed");
        }
    }

    /// The peer wants to be activated. Of two at a time the first server wins.
    pub(super) fn on_activate_ask(&mut self, number: ActivationNo) {
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
            && number.0 <= PEER_NUMBER_MAX;
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
        self.side == crate::units::Side::First
    }

    pub(super) fn send_grant(&mut self, number: ActivationNo) {
        self.send(Message::ActivateGrant { number });
    }

    pub(super) fn on_activate_grant(&mut self, number: ActivationNo) {
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

    pub(super) fn on_activate_refuse(&mut self, number: ActivationNo) {
        let asked = self.operator.activating.is_some_and(|a| a.asking == Asking::Asked(number));
        if asked {
            self.refuse_activation(Refusal::PeerActive);
        }
    }

    pub(super) fn on_peer_deactivated(&mut self) {
        self.meta.record.peer_active = false;
        if !self.link.is_agreeing() {
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

    // Deactivation.

    fn begin_deactivation(&mut self, id: CommandId) {
        if !self.active || self.operator.is_closing() {
            self.reply(id, Err(Refusal::NotActive));
            return;
        }
        self.operator.closing = Some((Some(id), Closing::Draining));
    }

    fn advance_deactivation(&mut self) {
        let Some((_, Closing::Draining)) = self.operator.closing else { return };
        if !self.app.is_empty() {
            return;
        }
        self.set_closing(Closing::Flushing);
        if self.fails_io() || !self.active {
            self.deactivate_flushed(false);
        } else {
            self.begin_flush(Origin::Deactivate);
            self.advance_waiting();
        }
    }

    fn set_closing(&mut self, to: Closing) {
        if let Some((_, closing)) = &mut self.operator.closing {
            *closing = to;
        }
    }

    /// The flush is over. When it failed, the disk has failed, and the device is closed as it is.
    pub(super) fn deactivate_flushed(&mut self, ok: bool) {
        self.set_closing(Closing::Recording);
        if ok && self.is_mirroring() {
            self.clear_clean_marks(usize::MAX);
        }
        self.meta.record.active = false;
        if self.meta.failed {
            self.deactivation_recorded();
        } else {
            self.meta.persist_then(Then::Deactivated);
        }
    }

    pub(super) fn deactivation_recorded(&mut self) {
        let Some((id, _)) = self.operator.closing.take() else { return };
        self.active = false;
        self.shut = false;
        self.last_write = None;
        self.send(Message::Deactivated);
        self.end_detach();
        if let Some(id) = id {
            self.reply(id, Ok(Done::Deactivated));
        }
        self.card_changed();
    }

    // Recovery.

    fn recover(&mut self) -> Result<Done, Refusal> {
        let refusal = match &self.link {
            Link::Down { .. } if self.apart => {
                self.apart = false;
                self.cancelled = false;
                self.wants_recovery = true;
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
            self.wants_recovery = true;
            self.agree_anew("a recovery was asked for");
        }
        Ok(Done::RecoveryStarted)
    }

    /// Parts the servers on purpose. Contact stays, so that each knows of the other.
    fn separate(&mut self) -> Result<Done, Refusal> {
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
        if self.in_contact() {
            self.agree_anew("the operator keeps the servers apart");
        }
        Ok(Done::Separated)
    }

    fn cancel_recovery(&mut self) -> Result<Done, Refusal> {
        let Some(session) = self.session() else { return Err(Refusal::NoRecovery) };
        let as_source = session.copying.as_ref().is_some_and(super::copying::Copying::is_running);
        let as_target = session.target.as_ref().is_some_and(|t| !t.is_stopped());
        if !as_source && !as_target {
            return Err(Refusal::NoRecovery);
        }
        let copying = session.copying.as_ref().is_none_or(super::copying::Copying::is_copying);
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

    // Force.

    fn advance_force(&mut self) {
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

    pub(super) fn force_flush_done(&mut self, ok: bool) {
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
        self.wants_recovery = true;
        self.meta.persist_then(Then::Forced { id, contact });
        // At once: nothing that the peer still sends may touch the new record.
        self.agree_anew("a forced recovery was asked for");
    }

    pub(super) fn force_recorded(&mut self, id: CommandId, contact: bool) {
        self.reply(id, Ok(if contact { Done::ForcedWithCopy } else { Done::ForcedAlone }));
    }

    /// The cluster partition failed: what waits for it is answered. Closing and stopping go on
    /// without the record; the peer finds the marks of what is open as dirt.
    pub(super) fn give_up(&mut self, then: Then) {
        match then {
            Then::Activated | Then::Ask(..) => self.refuse_activation(Refusal::DiskFailed),
            Then::Deactivated => self.deactivation_recorded(),
            Then::Stopped => self.stop_recorded(),
            Then::ErrorRecorded => self.notice(Notice::ErrorRecorded { durable: false }),
            Then::Detach(_) => self.drop_link("neither disk of this server works"),
            Then::Forced { id, .. } | Then::Noted(id) | Then::Grown(id) => {
                self.reply(id, Err(Refusal::DiskFailed));
            }
            Then::Alone
            | Then::Offer(_)
            | Then::Accept(_)
            | Then::Open(_)
            | Then::Owed(_)
            | Then::CopyReady(_)
            | Then::Adopt(_)
            | Then::Adopted(_)
            | Then::CopyDone(_)
            | Then::Detached(_)
            | Then::Granted(..) => {}
        }
    }

    // What the agents tell each other.

    fn told_behind(&mut self, id: CommandId, session: SessionNo) {
        // A record that says *active* may be on its way: it would be of a side that is behind.
        let recording = self.operator.is_recording_activation();
        if recording || (self.active && !self.resume.is_unconfirmed()) {
            self.reply(id, Err(Refusal::AlreadyActive));
        } else if session < self.meta.record.last_open() || self.link.is_agreeing() {
            // Old news, or soon to be. A later session than any here was offered and not heard of.
            self.reply(id, Err(Refusal::Busy));
        } else if self.is_apart() && holds(Rule::ToldApart) {
            self.reply(id, Err(Refusal::SplitBrain));
        } else {
            self.meta.record.behind = true;
            if self.active {
                self.give_way();
            }
            self.meta.persist_then(Then::Noted(id));
            if self.session().is_some() {
                self.drop_link("the other server has gone on alone");
            }
        }
    }

    /// This side has gone on alone itself, or the operator is just declaring what it has to be the
    /// truth: it may not be activated because of the peer, but it has what the peer lacks.
    fn is_apart(&self) -> bool {
        self.operator.forcing.is_some() || !self.meta.record.peer_may_hold()
    }

    fn peer_confirmed_behind(&mut self, id: CommandId, session: SessionNo) {
        let apart = matches!(self.link, Link::Down { .. } | Link::Parked(_));
        if self.meta.record.session == session && apart {
            self.meta.record.peer_behind = true;
            self.meta.persist_then(Then::Noted(id));
        } else {
            self.reply(id, Err(Refusal::Busy));
        }
    }

    pub(super) fn note_recorded(&mut self, id: CommandId) {
        self.reply(id, Ok(Done::Noted));
    }

    // Shutdown.

    pub(super) fn begin_stop(&mut self, id: CommandId) {
        if self.operator.suspended {
            self.reply(id, Err(Refusal::Stopping));
            return;
        }
        if self.is_stopped() {
            self.reply(id, Ok(Done::Stopped));
            return;
        }
        if let Some((earlier, stage)) = self.operator.stopping {
            // The stop goes on from where it is; it is answered to whoever asked last.
            self.operator.stopping = Some((id, stage));
            self.reply(earlier, Err(Refusal::Stopping));
            return;
        }
        self.operator.stopping = Some((id, Stopping::Deactivating));
        self.refuse_activation(Refusal::Stopping);
        self.refuse_force();
        if self.active && self.operator.closing.is_none() {
            self.operator.closing = Some((None, Closing::Draining));
        }
    }

    /// A force that waits gives way to a stop; one that has begun is recorded and answered first.
    fn refuse_force(&mut self) {
        if let Some(forcing) = self.operator.forcing.take_if(|f| f.flush == Flush::Due) {
            self.reply(forcing.id, Err(Refusal::Stopping));
        }
    }

    /// The stop was answered: there is nothing left to do.
    fn is_stopped(&self) -> bool {
        matches!(self.operator.stopping, Some((_, Stopping::Stopped)))
    }

    pub(super) fn take_suspend(&mut self, id: CommandId) {
        if self.is_stopped() {
            self.reply(id, Ok(Done::Stopped));
            return;
        }
        self.refuse_force();
        let earlier = match (&mut self.operator.suspending, &mut self.operator.stopping) {
            (Some((waits, _)), _) | (None, Some((waits, _))) => Some(std::mem::replace(waits, id)),
            (None, None) => {
                self.operator.suspending = Some((id, Suspending::Draining));
                self.operator.suspended = true;
                None
            }
        };
        if let Some(earlier) = earlier {
            self.reply(earlier, Err(Refusal::Stopping));
        }
    }

    pub(super) fn stop_suspended(&mut self) {
        if let Some((id, _)) = self.operator.suspending.take() {
            self.begin_stop_flush(id);
        }
    }

    fn advance_stop(&mut self) {
        let Some((id, Stopping::Deactivating)) = self.operator.stopping else { return };
        // A force that has begun is recorded and answered first.
        let forcing = self.operator.is_forcing();
        let closing = self.active || self.operator.is_closing();
        if closing || forcing || self.link.is_agreeing() {
            return;
        }
        self.begin_stop_flush(id);
    }

    fn begin_stop_flush(&mut self, id: CommandId) {
        self.operator.stopping = Some((id, Stopping::Flushing));
        if self.device_failed {
            self.stop_flush_done(false);
        } else {
            self.submit(Owner::StopFlush, DataOp::Flush, Extent::default());
        }
    }

    pub(super) fn stop_flush_done(&mut self, ok: bool) {
        let Some((id, _)) = self.operator.stopping else { return };
        if !ok && holds(Rule::ErrorFails) {
            // What the flush gave up is gone from the cache, and the next one will not tell.
            self.disk_failed(false, "flush", 0);
        }
        self.operator.stopping = Some((id, Stopping::Recording));
        // A grant may just be on its way to the disk.
        let granted = self.meta.record.peer_active;
        let peer_active = self.session().is_some_and(|s| s.peer_active || granted);
        // A peer without a disk does not go on.
        let serves = self.session().is_some_and(|s| s.serves_detached);
        // A standby that stops while its peer goes on knows that it falls behind.
        self.meta.record.behind |= peer_active && !serves && holds(Rule::StopBehind);
        // After a crash this flush is not the one that was missed: only a session heals that.
        self.meta.record.clean_stop = ok && !peer_active && self.uninterrupted;
        if self.meta.failed {
            self.stop_recorded();
        } else {
            self.meta.persist_then(Then::Stopped);
        }
    }

    pub(super) fn stop_recorded(&mut self) {
        let Some((id, _)) = self.operator.stopping else { return };
        self.operator.stopping = Some((id, Stopping::Stopped));
        let clean = !self.device_failed;
        self.send(Message::Bye { clean });
        self.drop_link("this server stops");
        self.reply(id, Ok(Done::Stopped));
    }
}

/// A mirror that stops takes a second order to, and what the end may wait for: a word that it may
/// complete alone.
fn is_for_stopping(command: Command) -> bool {
    matches!(
        command,
        Command::Shutdown
            | Command::Suspend
            | Command::PeerDown
            | Command::PeerConfirmedBehind { .. }
    )
}

/// Highest activation that a side has taken or granted.
fn known_to(card: &Card) -> ActivationNo {
    card.record.known_activation.max(card.record.activation)
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
