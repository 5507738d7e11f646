//! A device that outlives its agent: suspended by one agent, or orphaned by its death, and resumed
//! by the next.
//!
//! To resume is no activation: nobody grants it, no number is taken, nothing is recorded. So all
//! that the record of an active side promises must hold again: what an earlier agent acknowledged
//! is on both disks or covered by a record of the break, what it had under way is marked. What the
//! record cannot promise is that nobody took over meanwhile. Until the peer was met, or something
//! had to complete alone, a resumed side therefore gives way to a peer that did.

use super::app::Origin;
use super::copying::Copying;
use super::link::Link;
use super::operator::Suspending;
use super::{Alone, Mirror, Setup};
use crate::direction::took_over;
use crate::io::{Action, CommandId, Notice};
use crate::marks::Marks;
use crate::record::{Card, Record};
use crate::rules::{Rule, holds};
use crate::units::{Extent, Id16};

/// How far a resumed side has come.
#[derive(Debug, Default)]
pub(super) struct Resume {
    /// To be told at the first event: that this side resumed, or why not.
    news: Option<Result<(), &'static str>>,
    /// Resumed, and since then neither in contact nor alone for good: a peer that took over wins.
    unconfirmed: bool,
    /// Marked regions may hold writes of an earlier agent that nobody has acknowledged and only one
    /// disk has. They come again, nobody knows when.
    inherited: bool,
}

impl Resume {
    pub(super) fn new(setup: &Setup) -> Self {
        if !setup.resume {
            return Self::default();
        }
        let refusal = refusal(&setup.record, setup.boot);
        let resumed = refusal.is_none();
        let news = Some(refusal.map_or(Ok(()), Err));
        Self { news, unconfirmed: resumed, inherited: resumed && holds(Rule::ResumeReads) }
    }

    /// The mirror starts active.
    pub(super) fn is_resuming(&self) -> bool {
        self.news == Some(Ok(()))
    }

    pub(super) fn has_news(&self) -> bool {
        self.news.is_some()
    }

    /// The peer was met and has not taken over, or things complete alone.
    pub(super) fn confirm(&mut self) {
        self.unconfirmed = false;
    }

    pub(super) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed
    }

    /// What an earlier agent had under way is on both disks, or the peer is out of date.
    pub(super) fn settled(&mut self) {
        self.inherited = false;
    }
}

/// Why a device that is alive is not served.
fn refusal(record: &Record, boot: Id16) -> Option<&'static str> {
    if !holds(Rule::Resumes) {
        Some("it was active when it went down")
    } else if record.disk_error {
        Some("a disk of this server has failed")
    } else if !(record.active && record.generation.is_some()) && holds(Rule::ResumeActive) {
        Some("the mirror was not active here")
    } else if record.boot != boot && holds(Rule::ResumeBoot) {
        Some("the server was booted since")
    } else if (record.inconsistent.is_some() || record.behind) && holds(Rule::AbnormalActive) {
        Some("this server does not hold the latest data")
    } else {
        None
    }
}

impl Mirror {
    pub(super) fn tell_news(&mut self) {
        match self.resume.news.take() {
            Some(Ok(())) => self.notice(Notice::Resumed),
            Some(Err(why)) => {
                self.notice(Notice::NotResumed { why });
                self.out.push(Action::FailDevice);
            }
            None => {}
        }
    }

    /// A read on a resumed side waits while it might show what a peer that took over has replaced,
    /// or what is on this disk only and may be gone with it.
    pub(super) fn read_waits(&mut self, extent: Extent) -> bool {
        let Resume { unconfirmed, inherited, .. } = self.resume;
        if !inherited {
            return false;
        }
        match &self.link {
            Link::Session(session) if session.is_open() => {
                let unsettled = session.copying.as_ref().is_some_and(Copying::is_unsettled);
                unsettled && session.is_settling() && self.is_dirty(extent)
            }
            Link::Session(_) => true,
            Link::Agree(_) => unconfirmed || self.is_marked(extent),
            Link::Parked(_) => false,
            Link::Down { .. } if self.is_marked(extent) => !self.may_go_alone(),
            Link::Down { .. } => {
                unconfirmed && !(self.is_decided_alone() && self.alone_is_permitted())
            }
        }
    }

    fn is_marked(&self, extent: Extent) -> bool {
        let wanted = self.meta.marks.as_ref().map(Marks::wanted);
        wanted.is_some_and(|wanted| extent.regions().any(|r| wanted.get(r)))
    }

    /// The cards are on the table: whether this side has given way.
    pub(super) fn gives_way(&mut self, mine: &Card, theirs: &Card) -> bool {
        let yields = self.resume.unconfirmed && self.active && holds(Rule::ResumeYields);
        if !yields || !took_over(mine, theirs) {
            return false;
        }
        let record = &mut self.meta.record;
        // Whatever it once confirmed, it has gone on since.
        record.peer_behind = false;
        record.peer_active = theirs.active;
        record.behind |= !theirs.active && theirs.record.generation != record.generation;
        self.give_way();
        self.agree_anew("the other server has taken over");
        true
    }

    /// The device is not served after all. What it was asked for so far has had no effect that
    /// anybody was told of.
    pub(super) fn give_way(&mut self) {
        self.resume = Resume::default();
        self.notice(Notice::NotResumed { why: "the other server has taken over" });
        self.out.push(Action::FailDevice);
        self.active = false;
        if self.alone == Alone::Recording {
            self.alone = Alone::No;
        }
        self.meta.record.active = false;
        self.meta.persist();
        self.fail_all_requests();
    }

    // Suspend.

    pub(super) fn begin_suspend(&mut self, id: CommandId) {
        if !self.active || self.operator.is_closing() {
            self.begin_stop(id);
        } else {
            self.take_suspend(id);
            self.forget_requests();
        }
    }

    pub(super) fn advance_suspend(&mut self) {
        match self.operator.suspending() {
            Some(Suspending::Draining) => {
                self.forget_requests();
                let forcing = self.operator.is_forcing();
                if self.app.is_empty() && !forcing && !self.link.is_agreeing() {
                    self.flush_for_suspend();
                }
            }
            Some(Suspending::Clearing) => {
                let cleared = self.meta.marks.as_ref().is_none_or(Marks::idle);
                if cleared || self.meta.failed {
                    self.stop_suspended();
                }
            }
            Some(Suspending::Flushing) | None => {}
        }
    }

    /// What waits for anything but the disks is left to the next agent, which gets it again.
    fn forget_requests(&mut self) {
        if !self.operator.is_suspended() {
            return;
        }
        let mirroring = self.is_mirroring();
        for token in self.app.forgettable(mirroring) {
            self.forget(token);
        }
    }

    fn flush_for_suspend(&mut self) {
        if self.is_mirroring() && !self.fails_io() {
            self.operator.set_suspending(Suspending::Flushing);
            self.begin_flush(Origin::Suspend);
            self.advance_waiting();
        } else {
            self.stop_suspended();
        }
    }

    /// With both disks flushed there is nothing that the next agent would have to copy.
    pub(super) fn suspend_flushed(&mut self, ok: bool) {
        if ok && self.is_mirroring() {
            self.clear_clean_marks(usize::MAX);
            self.operator.set_suspending(Suspending::Clearing);
        } else {
            // The session or the disk is gone, and so it goes on without.
            self.operator.set_suspending(Suspending::Draining);
        }
    }
}
