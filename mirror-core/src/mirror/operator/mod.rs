//! Commands of the operator and the agent (architecture §4: when a side may be activated).

mod activation;
mod recovery;
mod stop;

use super::Mirror;
use super::link::Link;
use super::meta::Then;
use crate::command::{Command, Done, Refusal};
use crate::io::{Action, CommandId, Notice};
use crate::rules::{Rule, holds};
use crate::units::{ActivationNo, Millis, SessionNo};

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

    /// The cluster partition failed: what waits for it is answered. Closing and stopping go on
    /// without the record; the peer finds the marks of what is open as dirt.
    pub(super) fn give_up(&mut self, then: Then) {
        match then {
            Then::Activated => self.refuse_activation(Refusal::NotRecorded),
            Then::Ask(..) => self.refuse_activation(Refusal::DiskFailed),
            Then::Deactivated => self.deactivation_recorded(),
            Then::Stopped => self.stop_recorded(),
            Then::ErrorRecorded => self.notice(Notice::ErrorRecorded { durable: false }),
            Then::Detach(_) => self.drop_link("neither disk of this server works"),
            Then::Forced { id, .. } | Then::Noted(id) | Then::Grown(id) => {
                self.reply(id, Err(Refusal::NotRecorded));
            }
            Then::Alone
            | Then::Offer(_)
            | Then::Accept(_)
            | Then::Open(_)
            | Then::Owed(_)
            | Then::CopyReady(_)
            | Then::StopNoted(_)
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
