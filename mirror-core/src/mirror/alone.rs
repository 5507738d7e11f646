//! Going alone (rule 3): the record that the peer is out of date is durable before the first
//! thing completes that the peer lacks.

use super::link::Link;
use super::meta::Then;
use super::{Alone, Mirror};
use crate::io::{Action, Notice};
use crate::rules::{Rule, holds};
use crate::units::Millis;

impl Mirror {
    /// The active side has waited long enough for its peer, or there is nothing to wait for.
    pub(super) fn is_decided_alone(&self) -> bool {
        match &self.link {
            Link::Parked(_) => true,
            Link::Down { .. } => self.now.mono >= self.alone_due,
            Link::Agree(_) => !holds(Rule::CardFreezes),
            Link::Session(_) => false,
        }
    }

    /// Whether something may complete here that the peer lacks. Starts the record when it is
    /// missing.
    pub(super) fn may_go_alone(&mut self) -> bool {
        if !self.is_decided_alone() {
            return false;
        }
        if !holds(Rule::BreakRecord) {
            return true;
        }
        match self.alone {
            Alone::Ready => self.alone_is_permitted(),
            Alone::Recording => false,
            Alone::No => {
                self.record_alone();
                false
            }
        }
    }

    /// `alone = "fenced"`: only once the peer is known to be behind or off.
    pub(super) fn alone_is_permitted(&self) -> bool {
        !self.tuning.fenced
            || !holds(Rule::Fenced)
            || self.meta.record.peer_behind
            || self.vouched_peer_down
    }

    fn record_alone(&mut self) {
        self.alone = Alone::Recording;
        if self.meta.record.peer_may_hold() {
            self.begin_generation();
        }
        let record = &mut self.meta.record;
        record.clean_stop = false;
        if record.break_time == 0 {
            record.break_time = self.now.wall;
        }
        self.meta.persist_then(Then::Alone);
        self.notice(Notice::Broke);
    }

    /// A new generation on top of the current one. The marks reach back to what the peer held
    /// when the last session opened, and to the current generation, which it may have adopted.
    fn begin_generation(&mut self) {
        let generation = self.entropy.generation();
        let record = &mut self.meta.record;
        let former = record.generation.replace(generation);
        if let Some(former) = former {
            record.ancestors.push(former);
        }
        let held = record.bases[0].filter(|g| Some(*g) != former);
        record.bases = if held.is_some() { [held, former] } else { [former, None] };
        record.born_session = record.last_open();
    }

    pub(super) fn alone_recorded(&mut self) {
        // A device that failed meanwhile completes nothing alone.
        if self.alone != Alone::Recording || self.device_failed {
            return;
        }
        self.alone = Alone::Ready;
        self.tell_peer_behind();
    }

    /// A failed agreement may have taken a new number: the peer is told again under that.
    pub(super) fn still_alone(&mut self) {
        if self.active && self.alone == Alone::Ready && !self.meta.record.peer_behind {
            self.tell_peer_behind();
        }
    }

    fn tell_peer_behind(&mut self) {
        let session = self.meta.record.session;
        self.out.push(Action::TellPeerBehind { session });
    }

    pub(super) fn alone_deadline(&self) -> Option<Millis> {
        let waits = matches!(self.link, Link::Down { .. })
            && self.now.mono < self.alone_due
            && self.app.has_waiting();
        waits.then_some(self.alone_due)
    }
}
