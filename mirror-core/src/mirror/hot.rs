//! Which marks were set or copied in this session, and when they may go (rule 2).

use crate::rules::{Rule, holds};
use std::collections::HashMap;

/// A point in the order in which writes ended on both disks.
pub(super) type EndCount = u64;

#[derive(Clone, Copy, Debug, Default)]
struct Region {
    in_flight: u32,
    last_end: EndCount,
    /// Just copied: the mark goes at the next chance, it is not kept for writes to come.
    eager: bool,
}

/// The regions whose marks belong to this session.
#[derive(Debug, Default)]
pub(super) struct Hot {
    regions: HashMap<u32, Region>,
    eager: Vec<u32>,
    ends: EndCount,
    flushed: EndCount,
}

impl Hot {
    /// An earlier agent may have acknowledged writes that only caches hold.
    pub(super) fn inherited() -> Self {
        Self { ends: u64::from(holds(Rule::ResumeUnflushed)), ..Self::default() }
    }

    /// Writes begin in `regions`.
    pub(super) fn begin(&mut self, regions: std::ops::Range<u32>) {
        for r in regions {
            self.regions.entry(r).or_default().in_flight += 1;
        }
    }

    /// Whether any of `regions` is held.
    pub(super) fn knows_any(&self, mut regions: std::ops::Range<u32>) -> bool {
        regions.any(|r| self.regions.contains_key(&r))
    }

    /// `region` is marked for writes that may come; until one does, its mark may go at any time.
    pub(super) fn expect(&mut self, region: u32) {
        self.regions.entry(region).or_default();
    }

    /// `regions` differ whether a write comes or not: their marks are no longer ones that may go.
    pub(super) fn differ(&mut self, regions: std::ops::Range<u32>) {
        let unwritten = |region: &Region| region.in_flight == 0 && region.last_end == 0;
        self.regions.retain(|r, region| !(regions.contains(r) && unwritten(region)));
    }

    /// A write in `regions` ended. Without a session its marks stay until a copy, so there is
    /// nothing to remember of them.
    pub(super) fn end(&mut self, regions: std::ops::Range<u32>, mirrored: bool) {
        self.ends += 1;
        for r in regions {
            let region = self.regions.entry(r).or_default();
            region.in_flight = region.in_flight.saturating_sub(1);
            region.last_end = self.ends;
            if !mirrored && region.in_flight == 0 {
                self.regions.remove(&r);
            }
        }
    }

    /// `regions` were copied to the other disk in this session.
    pub(super) fn copied(&mut self, regions: std::ops::Range<u32>) {
        self.ends += 1;
        for r in regions {
            let region = self.regions.entry(r).or_default();
            region.last_end = self.ends;
            if !region.eager {
                region.eager = true;
                self.eager.push(r);
            }
        }
    }

    /// Something ended that no good flush of both disks covers.
    pub(super) fn has_unflushed(&self) -> bool {
        self.ends != self.flushed
    }

    /// What a flush that is submitted now will cover.
    pub(super) fn ends(&self) -> EndCount {
        self.ends
    }

    /// A flush that began at `began` was good on both disks.
    pub(super) fn flushed(&mut self, began: EndCount) {
        let covered = if holds(Rule::ClearLate) { began } else { self.ends };
        self.flushed = self.flushed.max(covered);
    }

    fn is_clean(&self, region: &Region) -> bool {
        let idle = region.in_flight == 0 || !holds(Rule::ClearIdle);
        idle && region.last_end <= self.flushed
    }

    /// Takes the copied regions whose marks may go now.
    pub(super) fn take_copied(&mut self, keep: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut gone = Vec::new();
        let eager = std::mem::take(&mut self.eager);
        for r in eager {
            match self.regions.get_mut(&r) {
                None => {}
                Some(region) if keep(r) => region.eager = false,
                Some(region) => {
                    let region = *region;
                    if self.is_clean(&region) {
                        self.regions.remove(&r);
                        gone.push(r);
                    } else {
                        self.eager.push(r);
                    }
                }
            }
        }
        gone
    }

    /// Takes every region whose mark may go now, except those to `keep`; at most `limit`.
    pub(super) fn take_clean(&mut self, limit: usize, keep: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut gone: Vec<(EndCount, u32)> = self
            .regions
            .iter()
            .filter(|(r, region)| self.is_clean(region) && !keep(**r))
            .map(|(r, region)| (region.last_end, *r))
            .collect();
        if limit < gone.len() {
            gone.select_nth_unstable(limit);
            gone.truncate(limit);
        }
        for (_, r) in &gone {
            self.regions.remove(r);
        }
        gone.into_iter().map(|(_, r)| r).collect()
    }

    /// How many regions are held.
    pub(super) fn len(&self) -> usize {
        self.regions.len()
    }

    /// The session ended: from here on only a copy in a later session clears these marks. Writes
    /// in flight stay known.
    ///
    /// Returns the regions that were marked for writes that never came.
    pub(super) fn session_ended(&mut self) -> Vec<u32> {
        let unwritten =
            |(_, region): &(&u32, &Region)| region.in_flight == 0 && region.last_end == 0;
        let unwritten = self.regions.iter().filter(unwritten).map(|(r, _)| *r).collect();
        if holds(Rule::DirtyAtStart) {
            self.regions.retain(|_, region| region.in_flight > 0);
        }
        for region in self.regions.values_mut() {
            region.eager = false;
        }
        self.eager.clear();
        unwritten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_that_began_before_the_write_ended_does_not_clear() {
        let mut hot = Hot::default();
        hot.begin(3..4);
        let began = hot.ends();
        hot.end(3..4, true);
        hot.flushed(began);
        assert!(hot.has_unflushed());
        assert!(hot.take_clean(10, |_| false).is_empty());
        let began = hot.ends();
        hot.flushed(began);
        assert_eq!(hot.take_clean(10, |_| false), [3]);
    }

    #[test]
    fn the_oldest_marks_go_first_and_expected_ones_before_them() {
        let mut hot = Hot::default();
        for r in [7, 5, 6] {
            hot.begin(r..r + 1);
            hot.end(r..r + 1, true);
        }
        hot.expect(9);
        hot.flushed(hot.ends());
        assert!(hot.knows_any(8..10) && !hot.knows_any(8..9));
        assert_eq!(hot.take_clean(1, |_| false), [9]);
        let mut next = hot.take_clean(2, |_| false);
        next.sort_unstable();
        assert_eq!(next, [5, 7]);
        assert_eq!(hot.len(), 1);
    }

    #[test]
    fn a_newer_write_in_flight_keeps_the_mark() {
        let mut hot = Hot::default();
        hot.begin(3..5);
        hot.end(3..5, true);
        hot.begin(4..5);
        let began = hot.ends();
        hot.flushed(began);
        assert_eq!(hot.take_clean(10, |_| false), [3]);
        hot.end(4..5, true);
        assert!(hot.take_clean(10, |_| false).is_empty());
    }

    #[test]
    fn marks_of_an_ended_session_are_not_cleared_by_a_later_flush() {
        let mut hot = Hot::default();
        hot.begin(1..2);
        hot.end(1..2, true);
        hot.session_ended();
        let began = hot.ends();
        hot.flushed(began);
        assert!(hot.take_clean(10, |_| false).is_empty());
    }

    #[test]
    fn what_was_expected_and_not_written_is_no_difference() {
        let mut hot = Hot::default();
        hot.begin(1..3);
        hot.end(1..2, true);
        hot.expect(3);
        hot.expect(4);
        hot.copied(4..5);
        assert_eq!(hot.session_ended(), [3]);
        hot.end(2..3, false);
        assert!(hot.session_ended().is_empty());
    }

    #[test]
    fn copied_regions_go_after_a_flush_but_not_when_dirty_again() {
        let mut hot = Hot::default();
        hot.copied(0..4);
        assert!(hot.take_copied(|_| false).is_empty());
        hot.flushed(hot.ends());
        assert_eq!(hot.take_copied(|r| r == 2), [0, 1, 3]);
        assert!(hot.take_copied(|_| false).is_empty());
        assert_eq!(hot.take_clean(9, |_| false), [2]);
    }
}
