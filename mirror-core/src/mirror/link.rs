//! The connection to the peer: what state it is in, when it is dialled, when it is lost.

use super::Mirror;
use super::agree::Agree;
use super::detach::Detach;
use super::session::Session;
use crate::direction::Verdict;
use crate::io::{Action, ConnId, Notice};
use crate::record::Card;
use crate::rules::{Rule, holds};
use crate::units::{ActivationNo, Millis, SessionNo, Side};
use crate::wire::{Beat, Frame, Message, PeerHello};

/// One authenticated connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) conn: ConnId,
    pub(super) dialled: bool,
    /// The highest activation that the peer was asked to grant over this connection.
    pub(super) asked: Option<ActivationNo>,
    heard: Millis,
    beat_due: Millis,
}

/// In contact, but no session: an operator or a change of state is awaited.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) mine: Card,
    pub(super) theirs: Card,
    pub(super) verdict: Verdict,
    pub(super) beat: Beat,
}

/// Where the two sides stand.
#[derive(Debug)]
pub(super) enum Link {
    /// No connection; the first server dials when due.
    Down { dial_due: Millis, dialling: bool },
    /// Agreeing on a session.
    Agree(Box<Agree>),
    /// In contact without a session.
    Parked(Box<Parked>),
    /// Mirroring, or about to.
    Session(Box<Session>),
}

impl Link {
    pub(super) fn fresh(now: Millis) -> Self {
        Self::Down { dial_due: now, dialling: false }
    }

    pub(super) fn session_number(&self) -> SessionNo {
        match self {
            Self::Session(session) => session.number,
            _ => SessionNo(0),
        }
    }

    /// A card was or is about to be shown: nothing may complete alone (rule 8).
    pub(super) fn is_agreeing(&self) -> bool {
        matches!(self, Self::Agree(_))
    }
}

/// Messages that were sent before their sender knew of the open session, and are harmless in it.
fn is_outside_sessions(frame: &Frame) -> bool {
    frame.session == SessionNo(0)
        && matches!(
            frame.message,
            Message::Beat(_)
                | Message::Again
                | Message::Bye { .. }
                | Message::ActivateAsk { .. }
                | Message::ActivateGrant { .. }
                | Message::ActivateRefuse { .. }
                | Message::Deactivated
        )
}

impl Mirror {
    pub(super) fn is_current(&self, conn: ConnId) -> bool {
        self.wire.as_ref().is_some_and(|w| w.conn == conn)
    }

    pub(super) fn current(&self) -> Option<ConnId> {
        self.wire.as_ref().map(|w| w.conn)
    }

    /// A side that stops still needs its peer while it is active: what waits may not be allowed
    /// to complete alone. One that leaves its device to the next agent waits for nothing.
    fn takes_sessions(&self) -> bool {
        let stops = self.operator.is_stopping();
        !self.device_failed && (!stops || (self.active && !self.operator.is_suspended()))
    }

    /// The first server of the configuration dials, so there are no ties to break.
    fn dials(&self) -> bool {
        self.side == Side::First
    }

    pub(super) fn on_peer_ready(&mut self, conn: ConnId, dialled: bool, hello: PeerHello) {
        let refusal = if hello.side == self.side || dialled != self.dials() {
            Some("both servers claim the same place")
        } else if !self.takes_sessions() {
            Some("this side takes no session now")
        } else if self.now.mono < self.not_before {
            Some("backing off after a failed agreement")
        } else {
            None
        };
        if let Some(why) = refusal {
            self.out.push(Action::Close { conn, why: why.to_owned() });
            self.redial_later();
            return;
        }
        // A peer that connects anew has given up the old connection, whether we noticed or not.
        self.drop_link("the other server connected anew");
        self.standby.new_connection();
        let now = self.now.mono;
        let beat_due = now.plus(self.tuning.heartbeat_ms);
        self.wire = Some(Wire { conn, dialled, asked: None, heard: now, beat_due });
        self.link = Link::Agree(Box::new(Agree::begin(now)));
    }

    pub(super) fn on_dial_failed(&mut self) {
        self.redial_later();
        // The one immediate retry is over: an active side need not wait any longer.
        self.alone_due = self.now.mono;
    }

    fn redial_later(&mut self) {
        let due = self.now.mono.plus(self.retry_ms);
        if let Link::Down { dial_due, dialling } = &mut self.link {
            *dialling = false;
            *dial_due = due;
            self.retry_ms = (self.retry_ms * 2).min(self.tuning.retry_ms.1);
        }
    }

    pub(super) fn dial_when_due(&mut self) {
        if !self.dials() || !self.takes_sessions() {
            return;
        }
        let due_from = self.not_before;
        if let Link::Down { dial_due, dialling } = &mut self.link {
            if !*dialling && *dial_due <= self.now.mono && due_from <= self.now.mono {
                *dialling = true;
                self.out.push(Action::Dial);
            }
        }
    }

    /// Ends the connection from this side.
    pub(super) fn drop_link(&mut self, why: &str) {
        if let Some(wire) = self.wire.take() {
            self.out.push(Action::Close { conn: wire.conn, why: why.to_owned() });
            self.link_lost(why);
        }
    }

    /// The connection is gone, from whichever end.
    pub(super) fn link_lost(&mut self, why: &str) {
        let now = self.now.mono;
        let link = std::mem::replace(&mut self.link, Link::fresh(now));
        match link {
            Link::Session(session) => {
                self.alone_due = now.plus(self.tuning.grace_ms);
                self.notice(Notice::LinkLost(why.to_owned()));
                self.session_ended(&session);
            }
            Link::Agree(_) => {
                self.alone_due = now;
                self.back_off();
                self.still_alone();
            }
            Link::Parked(_) => {
                self.alone_due = now;
                self.notice(Notice::LinkLost(why.to_owned()));
            }
            Link::Down { .. } => {}
        }
    }

    /// An agreement failed: the next one has to wait, so that a peer whose attempts keep failing
    /// does not keep the application waiting.
    fn back_off(&mut self) {
        self.not_before = self.now.mono.plus(self.retry_ms);
        self.retry_ms = (self.retry_ms * 2).min(self.tuning.retry_ms.1);
    }

    /// An agreement came to an answer.
    pub(super) fn forget_back_off(&mut self) {
        self.retry_ms = self.tuning.retry_ms.0;
        self.not_before = self.now.mono;
    }

    /// Both sides are to agree anew, since something on a card changed.
    pub(super) fn agree_anew(&mut self, why: &str) {
        self.send(Message::Again);
        self.drop_link(why);
    }

    pub(super) fn protocol_error(&mut self, what: &str) {
        self.notice(Notice::Protocol(what.to_owned()));
        self.drop_link("the other server broke the protocol");
    }

    /// The other server lives.
    pub(super) fn heard(&mut self) {
        if let Some(wire) = &mut self.wire {
            wire.heard = self.now.mono;
        }
    }

    pub(super) fn on_frame(&mut self, frame: Frame) {
        self.heard();
        let foreign = frame.session != self.link.session_number() && !is_outside_sessions(&frame);
        if foreign && holds(Rule::SessionFrames) {
            self.protocol_error("a frame of another session");
            return;
        }
        self.standby.settle(frame.settled);
        match (&self.link, frame.message) {
            (_, Message::Again) => self.drop_link("the other server wants to agree anew"),
            (_, Message::Bye { clean }) => self.on_bye(clean),
            (_, Message::Beat(beat)) => self.on_beat(beat),
            (_, Message::Deactivated) => self.on_peer_deactivated(),
            (Link::Agree(_), message) => self.on_agree_frame(message),
            (Link::Session(_) | Link::Parked(_), Message::ActivateAsk { number }) => {
                self.on_activate_ask(number);
            }
            (_, Message::ActivateGrant { number }) => self.on_activate_grant(number),
            (_, Message::ActivateRefuse { number }) => self.on_activate_refuse(number),
            (Link::Session(_), message) => self.on_session_frame(message),
            (Link::Parked(_) | Link::Down { .. }, message) => {
                self.protocol_error(&format!("{} without a session", message.name()));
            }
        }
    }

    fn on_bye(&mut self, clean: bool) {
        let active_session = self.active && matches!(self.link, Link::Session(_));
        if clean && active_session && !self.has_copy() && self.detach == Detach::No {
            // A standby that stops cleanly has recorded that it is behind (architecture §4).
            self.meta.record.peer_behind = true;
            self.meta.persist();
        }
        self.drop_link("the other server stops");
        self.alone_due = self.now.mono;
    }

    fn on_beat(&mut self, beat: Beat) {
        self.seen_active |= beat.active;
        match &mut self.link {
            Link::Parked(parked) => {
                let changed = beat.active != parked.theirs.active;
                parked.beat = beat;
                if changed {
                    self.agree_anew("the other server's state changed");
                }
            }
            Link::Session(session) => session.beat = beat,
            Link::Agree(_) | Link::Down { .. } => {}
        }
    }

    /// Watches the deadlines of the connection.
    pub(super) fn watch_link(&mut self) {
        let now = self.now.mono;
        let Some(wire) = &self.wire else { return };
        if now >= wire.heard.plus(self.tuning.peer_timeout_ms) {
            self.drop_link("the other server is silent");
            return;
        }
        if let Link::Agree(agree) = &self.link {
            if now >= agree.since.plus(self.tuning.agree_ms) {
                self.drop_link("no agreement in time");
                return;
            }
        }
        if now >= wire.beat_due {
            self.send_beat();
        }
    }

    fn send_beat(&mut self) {
        let beat = self.beat();
        self.send(Message::Beat(beat));
        let due = self.now.mono.plus(self.tuning.heartbeat_ms);
        if let Some(wire) = &mut self.wire {
            wire.beat_due = due;
        }
    }

    pub(super) fn link_deadline(&self) -> Option<Millis> {
        let Some(wire) = &self.wire else {
            return match self.link {
                Link::Down { dial_due, dialling: false }
                    if self.dials() && self.takes_sessions() =>
                {
                    Some(dial_due.max(self.not_before))
                }
                _ => None,
            };
        };
        let mut due = wire.beat_due.min(wire.heard.plus(self.tuning.peer_timeout_ms));
        if let Link::Agree(agree) = &self.link {
            due = due.min(agree.since.plus(self.tuning.agree_ms));
        }
        Some(due)
    }
}
