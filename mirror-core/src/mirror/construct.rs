//! The initial construction: how the mirror comes to be, and that it goes on as such when it is cut.
//!
//! After the first session of a construction the table finds a side with a history and one without,
//! and says *blank-target*, *blank-resumed* or, once the target has adopted, *in-sync*. It is the construction
//! all the same, as long as nobody has used the mirror: it begins by itself, and what is owed at its
//! end (the first file system and activation) is owed then.

use super::Mirror;
use crate::direction::{Mode, Outcome, Verdict};
use crate::io::Notice;
use crate::marks::Marks;
use crate::record::{Card, Record};
use crate::status::CopyKind;
use crate::units::{SessionNo, regions_in};

/// The session between these two belongs to the construction.
pub(super) fn constructs(mine: &Card, theirs: &Card, verdict: Verdict) -> bool {
    let records = [&mine.record, &theirs.record];
    if !records.iter().all(|r| r.is_unused()) {
        return false;
    }
    match verdict.outcome {
        Outcome::Copy { mode: Mode::Initial, .. } => true,
        Outcome::Copy { mode: Mode::Full | Mode::Difference, .. } => {
            records.iter().any(|r| r.generation.is_none())
        }
        // The target has adopted, and the source has not heard of it.
        Outcome::InSync | Outcome::Copy { .. } => records.iter().any(|r| is_source(r)),
        Outcome::Refuse => false,
    }
}

fn is_source(record: &Record) -> bool {
    record.is_constructing() && record.generation.is_some()
}

impl Mirror {
    /// Whether the session between these two belongs to the construction, and if so, whether this side
    /// is its source.
    pub(super) fn construction_with(
        &mut self,
        mine: &Card,
        theirs: &Card,
        verdict: Verdict,
    ) -> Option<bool> {
        let unused = mine.record.is_unused() && theirs.record.is_unused();
        let source = match verdict.source() {
            Some(source) => source == self.side,
            None => is_source(&mine.record),
        };
        let begun = constructs(mine, theirs, verdict).then_some(source);
        self.construction = begun.or(self.construction).filter(|_| unused);
        self.construction
    }

    /// Makes the mirror out of two blank sides: its identity, size and first generation.
    pub(super) fn construct(&mut self, theirs: &Card) {
        let block = self.device_block.max(theirs.device_block).max(512);
        let size = self.capacity.min(theirs.capacity);
        let record = &mut self.meta.record;
        record.mirror = self.entropy.id();
        record.generation = Some(self.entropy.generation());
        record.size = size - size % u64::from(block);
        record.block = block;
        // Born before this session, in which the peer is to adopt it.
        record.born_session = SessionNo(record.session.0.saturating_sub(1));
        record.owes_all = true;
        record.bases = [None; 2];
        record.inconsistent = None;
        self.meta.marks = Some(Marks::blank(regions_in(record.size), record.device));
    }

    /// The size that the source computed from the same two cards.
    pub(super) fn size_in_construction(&self) -> (u64, u32) {
        let theirs = self.session().map(|s| &s.theirs);
        let block = theirs.map_or(512, |t| t.device_block).max(self.device_block).max(512);
        let size = theirs.map_or(0, |t| t.capacity).min(self.capacity);
        (size - size % u64::from(block), block)
    }

    /// A copy has ended. What ends as the construction owes the first activation: not if somebody was
    /// faster.
    pub(super) fn copy_finished(&mut self, kind: CopyKind, source: bool) {
        let used = !self.meta.record.is_unused();
        let kind = if kind == CopyKind::Initial && used { CopyKind::Full } else { kind };
        self.construction = None;
        self.notice(Notice::RecoveryFinished { kind, source });
    }

    /// Both sides are equal at once: the end of a construction may have been lost with its connection.
    pub(super) fn construction_may_have_ended(&mut self) {
        if let Some(source) = self.construction {
            self.copy_finished(CopyKind::Initial, source);
        }
    }
}
