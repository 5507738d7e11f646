//! Recovery, seen from the target (rule 6): it says durably that it is half copied before the
//! first block lands, and adopts the generation when all has been copied and flushed.

use super::Mirror;
use super::copying::copies_all;
use super::meta::Then;
use super::session::Role;
use crate::bitmap::Bitmap;
use crate::direction::Mode;
use crate::io::Notice;
use crate::marks::Marks;
use crate::record::{Inconsistent, Lineage};
use crate::rules::{Rule, holds};
use crate::status::CopyKind;
use crate::units::{Generation, Id16, regions_in};
use crate::wire::Message;

/// Bytes of marks in one frame.
const MARKS_BYTES: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    AwaitStart,
    Recording,
    Ready,
    Adopting,
}

#[derive(Debug)]
pub(super) struct Target {
    mode: Mode,
    kind: CopyKind,
    step: Step,
    complete: bool,
    stopped: bool,
}

impl Target {
    pub(super) fn new(mode: Mode, kind: CopyKind) -> Self {
        Self { mode, kind, step: Step::AwaitStart, complete: false, stopped: false }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.step, Step::Ready | Step::Adopting)
    }

    /// It is being settled without ever having been half copied.
    pub(super) fn stayed_complete(&self) -> bool {
        self.complete
    }

    /// A block arrived: if it was stopped, it has been taken up again.
    pub(super) fn goes_on(&mut self) {
        self.stopped = false;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn kind(&self) -> CopyKind {
        self.kind
    }
}

impl Mirror {
    /// Tells the source this side's durable marks, of which it knows nothing. With everything to
    /// be copied they add nothing.
    pub(super) fn send_marks(&mut self) {
        let all =
            self.session().and_then(|s| s.target.as_ref()).is_some_and(|t| copies_all(t.mode));
        let marked: Option<Bitmap> = self.meta.marks.as_ref().map(|m| m.wanted().clone());
        if let Some(marked) = marked.filter(|_| !all) {
            let mut from = 0;
            while let Some((first_region, bits)) = marked.next_chunk(from, MARKS_BYTES) {
                from =
                    first_region.saturating_add(u32::try_from(bits.len() * 8).unwrap_or(u32::MAX));
                self.send(Message::Marks { first_region, bits });
            }
        }
        self.send(Message::MarksEnd);
    }

    pub(super) fn on_copy_start(&mut self, toward: Generation, all: bool, complete: bool) {
        let Some(conn) = self.current() else { return };
        let Some(session) = self.session_mut() else { return };
        let whole = session.was_uninterrupted || !holds(Rule::SettleIncomplete);
        let stays_complete = complete && whole;
        let theirs = session.theirs.record.clone();
        let Some(target) = &mut session.target else {
            self.protocol_error("a copy to the wrong side");
            return;
        };
        if target.step != Step::AwaitStart {
            self.protocol_error("a copy that begins twice");
            return;
        }
        let agreed = (copies_all(target.mode), target.mode == Mode::Settle { complete: true });
        if (all, complete) != agreed {
            self.protocol_error("a copy of another kind than agreed");
            return;
        }
        target.step = Step::Recording;
        target.complete = stays_complete;
        if stays_complete {
            self.send_copy_ready();
            return;
        }
        self.adopt_geometry(&theirs);
        if !holds(Rule::InconsistentFirst) {
            self.send_copy_ready();
            return;
        }
        self.meta.record.inconsistent = Some(Inconsistent { toward, all });
        self.meta.persist_then(Then::CopyReady(conn));
    }

    /// A side without history takes the size of the mirror that it joins.
    fn adopt_geometry(&mut self, theirs: &crate::record::Record) {
        if self.meta.record.generation.is_some() {
            self.grow_to(theirs.size);
            return;
        }
        let (size, block) = if theirs.size == 0 {
            self.size_in_construction()
        } else {
            (theirs.size, theirs.block)
        };
        let record = &mut self.meta.record;
        if record.size != size || self.meta.marks.is_none() {
            self.meta.marks = Some(Marks::blank(regions_in(size), record.device));
        }
        record.size = size;
        record.block = block;
    }

    pub(super) fn send_copy_ready(&mut self) {
        let Some(target) = self.session_mut().and_then(|s| s.target.as_mut()) else { return };
        target.step = Step::Ready;
        let kind = target.kind;
        self.send(Message::CopyReady);
        self.notice(Notice::RecoveryStarted { kind, source: false, bytes: 0 });
    }

    pub(super) fn on_adopt(
        &mut self,
        generation: Generation,
        ancestors: Lineage,
        overruled: Lineage,
        mirror: Id16,
    ) {
        let Some(conn) = self.current() else { return };
        if self.operator.is_recording_stop() {
            // It would take back that this side is behind; the source hears of the end in a moment.
            return;
        }
        let Some(target) = self.session_mut().and_then(|s| s.target.as_mut()) else {
            self.protocol_error("an adoption by the wrong side");
            return;
        };
        if target.step != Step::Ready {
            self.protocol_error("an adoption at the wrong time");
            return;
        }
        target.step = Step::Adopting;
        let Some(session) = self.session() else { return };
        let (peer_active, shown) = (session.peer_active, session.theirs.record.mirror);
        let record = &mut self.meta.record;
        // Two copies of the record with two mirrors in them could not be read back.
        let known = [record.mirror, shown].into_iter().find(|m| !m.is_none());
        let copied = record.inconsistent.map_or(record.generation, |i| Some(i.toward));
        if copied != Some(generation) || mirror.is_none() || known.is_some_and(|m| m != mirror) {
            self.protocol_error("an adoption of something else than was copied");
            return;
        }
        record.peer_active = peer_active;
        record.generation = Some(generation);
        record.ancestors = ancestors;
        record.overruled = overruled;
        record.mirror = mirror;
        record.born_session = record.session;
        record.inconsistent = None;
        self.record_in_sync();
        // Everything that was ever acknowledged is here, whether the end of the copy is heard of or not.
        self.uninterrupted = true;
        self.meta.persist_then(Then::Adopted(conn));
    }

    /// Adopted durably: the old marks say nothing any more.
    pub(super) fn send_adopted(&mut self) {
        let Some(session) = self.session_mut() else { return };
        let Some(target) = session.target.take() else { return };
        session.role = Role::Equal;
        self.cancelled = false;
        if let Some(marks) = &mut self.meta.marks {
            marks.clear_all();
        }
        self.send(Message::Adopted);
        self.copy_finished(target.kind, false);
    }

    pub(super) fn target_aborted(&mut self, target: &Target) {
        let (kind, reason) = (target.kind, "the connection was lost");
        self.notice(Notice::RecoveryAborted { kind, source: false, reason });
    }

    /// From here on the source may show what this side lacks, as soon as it hears that this side knows:
    /// a side that stayed complete until now could be activated when contact is lost.
    fn note_stop(&mut self) {
        let conn = self.current();
        let Some(target) = self.session_mut().and_then(|s| s.target.as_mut()) else { return };
        let settles = target.mode == Mode::Settle { complete: true } && target.step == Step::Ready;
        let Some(conn) = conn.filter(|_| settles && holds(Rule::StoppedBehind)) else { return };
        target.complete = false;
        self.meta.record.behind = true;
        self.meta.persist_then(Then::StopNoted(conn));
    }

    /// The other end stopped the copying: the operator's word on either side counts.
    pub(super) fn on_copy_stop(&mut self) {
        self.cancelled = true;
        let Some(session) = self.session_mut() else { return };
        if let Some(target) = &mut session.target {
            target.stopped = true;
            let kind = target.kind;
            let reason = "stopped at the source";
            self.notice(Notice::RecoveryAborted { kind, source: false, reason });
            self.note_stop();
        } else {
            self.stop_copying("stopped by the operator of the other server");
        }
    }
}
