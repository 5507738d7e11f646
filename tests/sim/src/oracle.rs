//! What must hold: a history of every block, kept apart from both mirrors.
//!
//! A write is *superseded* at a block by an acknowledged write that began after it ended. An
//! acknowledged write is *protected* while a side still holds it that has not lost power or its
//! agent since, or once a flush of the application covered it. A side that knows itself to be behind
//! protects nothing as long as it does; what it still has when it is whole again, it protects again.
//! A block may hold any write that no protected write supersedes, and nothing else.
//!
//! What a read has shown is evidence: it counts as a write of just that to just that block, done
//! while the read was under way. So nothing older may be read later, and nothing of unknown outcome
//! that the read showed absent may come back.

use crate::disk::{Stamp, Torn};

#[derive(Clone, Debug)]
struct Write {
    blocks: std::ops::Range<usize>,
    /// It leaves zeros, which carry no stamp.
    zero: bool,
    node: usize,
    began: u64,
    /// When it was acknowledged, or its outcome became unknown.
    ended: Option<u64>,
    acked: bool,
    flushed: bool,
    /// Sides that still hold it in a cache that has not been lost.
    holders: [bool; 2],
    /// Sides whose disks had all of it when they lost their power, before it was acknowledged.
    reached: [bool; 2],
    /// Given up by an operator's `--force`.
    void: bool,
    /// It is no write: a read has shown this.
    shown: Option<Shown>,
}

/// What a read has shown.
#[derive(Clone, Copy, Debug)]
struct Shown {
    value: Stamp,
    /// The sides were not in contact.
    apart: bool,
}

/// The history of a run.
#[derive(Debug, Default)]
pub struct Oracle {
    /// By stamp - 1.
    writes: Vec<Write>,
    /// Per block, those that touch it, oldest first.
    by_block: Vec<Vec<usize>>,
    clock: u64,
    /// For each side: it acknowledged something that the other does not hold.
    pub lone: [bool; 2],
    /// For each side: overruled by a force that it does not know of.
    pub overruled: [bool; 2],
    /// For each side: what it writes in its present activation is void, since an operator forced
    /// the other one alone.
    pub outlawed: [bool; 2],
    /// For each side: when what it had not flushed was last lost.
    lost_cache: [u64; 2],
    /// For each side: it has gone alone since both were equal.
    pub parted: [bool; 2],
    /// For each side: it goes on alone, and the other is no redundancy.
    pub alone: [bool; 2],
    /// Per block: the content that an operator declared to be the truth; more than one if it was
    /// not flushed yet.
    declared: Vec<Option<Vec<Stamp>>>,
    /// Blocks that are half one write, half another.
    pub torn: Torn,
    /// For each side: it was activated without contact since the sides last met.
    activated_apart: [bool; 2],
    /// For each side: it knows itself to be behind.
    behind: [bool; 2],
}

impl Oracle {
    /// Nothing written yet.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        Self { declared: vec![None; blocks], by_block: vec![Vec::new(); blocks], ..Self::default() }
    }

    /// There are `blocks` blocks from now on. What an added one holds on the disk of `node` counts as
    /// a write of unknown outcome that has just ended; returns its stamp.
    pub fn grow(&mut self, node: usize, blocks: usize) -> Stamp {
        let old = self.by_block.len();
        if blocks > old {
            self.by_block.resize(blocks, Vec::new());
            self.declared.resize(blocks, None);
        }
        let stamp = self.begin(node, 0..self.by_block.len(), false);
        if let Some(write) = self.get_mut(stamp) {
            write.void = false;
            write.ended = Some(write.began);
        }
        stamp
    }

    /// Blocks from `end` on belong to no mirror any more.
    pub fn forget_from(&mut self, end: usize) {
        self.declared.iter_mut().skip(end).for_each(|slot| *slot = None);
        for write in self.writes.iter_mut().filter(|w| w.blocks.start >= end) {
            write.void = true;
        }
    }

    fn push(&mut self, write: Write) {
        for block in write.blocks.clone() {
            self.by_block[block].push(self.writes.len());
        }
        self.writes.push(write);
    }

    /// What touches `block`, newest first, with its number.
    fn at(&self, block: usize) -> impl Iterator<Item = (Stamp, &Write)> {
        self.by_block[block].iter().rev().map(|n| (*n as Stamp + 1, &self.writes[*n]))
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The application on `node` begins a write; returns its stamp.
    pub fn begin(&mut self, node: usize, blocks: std::ops::Range<usize>, zero: bool) -> Stamp {
        let began = self.tick();
        self.push(Write {
            blocks,
            zero,
            node,
            began,
            ended: None,
            acked: false,
            flushed: false,
            holders: [false; 2],
            reached: [false; 2],
            void: self.outlawed[node],
            shown: None,
        });
        self.writes.len() as Stamp
    }

    /// A read begins; returns the time by this history.
    pub fn read_begins(&mut self) -> u64 {
        self.tick()
    }

    /// A read on `node` that began at `began` has shown `value`. In a session both sides must have
    /// it, whether they do or not; `with_peer` says whether this was one. `detached`: only the
    /// other side's disk counts.
    pub fn shown(
        &mut self,
        node: usize,
        block: usize,
        value: Stamp,
        began: u64,
        (with_peer, detached): (bool, bool),
    ) {
        if self.outlawed[node] || (!with_peer && self.activated_apart == [true; 2]) {
            return;
        }
        let ended = self.tick();
        let mut holders = [with_peer; 2];
        holders[node] = !detached;
        for (holds, lost) in holders.iter_mut().zip(self.lost_cache) {
            *holds &= began > lost;
        }
        self.push(Write {
            blocks: block..block + 1,
            zero: false,
            node,
            began,
            ended: Some(ended),
            acked: true,
            flushed: false,
            holders,
            reached: [false; 2],
            void: false,
            shown: Some(Shown { value, apart: !with_peer }),
        });
    }

    /// `node` is activated without contact. What the other one, or both, have shown while apart
    /// binds nobody any more.
    pub fn activated_apart(&mut self, node: usize) {
        self.activated_apart[node] = true;
        let both = self.activated_apart == [true; 2];
        for write in &mut self.writes {
            let apart = write.shown.is_some_and(|s| s.apart);
            write.void |= apart && (both || write.node != node);
        }
    }

    /// The sides are in a session.
    pub fn met(&mut self) {
        self.activated_apart = [false; 2];
        for shown in self.writes.iter_mut().filter_map(|w| w.shown.as_mut()) {
            shown.apart = false;
        }
    }

    /// The write was acknowledged; `holders` are the usable sides whose disks have it now, and
    /// `on_both` says whether both disks have it, usable or not.
    pub fn acked(&mut self, stamp: Stamp, holders: [bool; 2], on_both: bool) {
        let ended = self.tick();
        let (alone, lost) = (self.alone, self.lost_cache);
        let Some(write) = self.get_mut(stamp) else { return };
        write.ended = Some(ended);
        write.acked = true;
        write.holders = holders;
        // An ack may arrive after its sender has lost its cache.
        for (holds, lost) in write.holders.iter_mut().zip(lost) {
            *holds &= write.began > lost;
        }
        let node = write.node;
        write.holders[1 - node] &= !alone[node];
        if !on_both && !self.outlawed[node] {
            self.lone[node] = true;
        }
    }

    /// Whether a disk with this content has the write, or what it left of it.
    #[must_use]
    pub fn is_on(&self, stamp: Stamp, live: &[Stamp]) -> bool {
        let Some(write) = self.get(stamp) else { return false };
        if write.zero {
            return write.blocks.clone().all(|block| live[block] == 0);
        }
        live.contains(&stamp)
    }

    /// The power of `node` is about to go, whose disk has `live`: what the other side's application
    /// has under way may have been confirmed by it.
    pub fn power_goes(&mut self, node: usize, live: &[Stamp]) {
        let under_way = |w: &Write| w.node != node && w.ended.is_none();
        let all = (1..).zip(&self.writes);
        let there: Vec<Stamp> = all
            .filter(|(stamp, w)| under_way(w) && self.is_on(*stamp, live))
            .map(|(stamp, _)| stamp)
            .collect();
        for stamp in there {
            if let Some(write) = self.get_mut(stamp) {
                write.reached[node] = true;
            }
        }
    }

    /// The disk of the other side had the write before its power went, and the writer has not gone
    /// alone since they met: it completes as one of both, of which one has lost its cache.
    #[must_use]
    pub fn was_joint(&self, stamp: Stamp) -> bool {
        self.get(stamp).is_some_and(|w| w.reached[1 - w.node] && !self.alone[w.node])
    }

    /// Which side's application wrote it.
    #[must_use]
    pub fn node_of(&self, stamp: Stamp) -> usize {
        self.get(stamp).map_or(0, |w| w.node)
    }

    /// The disk of `node` has failed: what it had is no redundancy any more.
    pub fn disk_failed(&mut self, node: usize) {
        for write in &mut self.writes {
            write.holders[node] = false;
        }
    }

    fn get_mut(&mut self, stamp: Stamp) -> Option<&mut Write> {
        usize::try_from(stamp).ok()?.checked_sub(1).and_then(|i| self.writes.get_mut(i))
    }

    fn get(&self, stamp: Stamp) -> Option<&Write> {
        usize::try_from(stamp).ok()?.checked_sub(1).and_then(|i| self.writes.get(i))
    }

    /// The writes that a flush submitted now on `node` promises to make durable; `detached`: that
    /// side works with the disk of the other.
    #[must_use]
    pub fn acked_now(&self, node: usize, detached: bool) -> Vec<Stamp> {
        let holds = |w: &Write| w.holders[node] || (detached && w.holders[1 - node]);
        (1..)
            .zip(&self.writes)
            .filter(|(_, w)| w.acked && !w.flushed && w.node == node && holds(w))
            .map(|(s, _)| s)
            .collect()
    }

    /// A flush of the application was acknowledged that covers `stamps`.
    pub fn flushed(&mut self, stamps: &[Stamp]) {
        for stamp in stamps {
            if let Some(write) = self.get_mut(*stamp) {
                write.flushed = true;
            }
        }
    }

    /// The process on `node` is gone: what it had under way has an unknown outcome. With
    /// `cache_lost`, what it had not flushed is no longer protected by it.
    pub fn interrupted(&mut self, node: usize, cache_lost: bool) {
        let now = self.tick();
        for write in &mut self.writes {
            if write.node == node && write.ended.is_none() {
                write.ended = Some(now);
            }
            if cache_lost {
                write.holders[node] = false;
            }
        }
        if cache_lost {
            self.lost_cache[node] = now;
        }
    }

    /// `node` has gone alone: from here on only what it has counts, and what the other side still
    /// holds of earlier writes is no redundancy any more.
    pub fn went_alone(&mut self, node: usize) {
        self.alone[node] = true;
        // Its flush may make durable what the other side loses with its cache: each has then
        // something that the other lacks, though one of them wrote nothing.
        self.parted[node] = true;
        for write in &mut self.writes {
            write.holders[1 - node] = false;
        }
    }

    /// A write of `node` failed towards the application: its outcome is unknown.
    pub fn failed(&mut self, stamp: Stamp) {
        let now = self.tick();
        if let Some(write) = self.get_mut(stamp) {
            write.ended = Some(now);
        }
    }

    /// The operator declared `content`, that of `winner`, to be the truth.
    pub fn declare(&mut self, winner: usize, content: Vec<Vec<Stamp>>) {
        self.overruled[1 - winner] = true;
        // The winner's mirror may be smaller than what the other side had recorded.
        self.forget_from(content.len());
        for (slot, stamp) in self.declared.iter_mut().zip(content) {
            *slot = Some(stamp);
        }
        for write in &mut self.writes {
            // What the winner has under way may still take effect.
            write.void = write.ended.is_some() || write.node != winner;
        }
        // The word itself is something that the other side does not have.
        self.lone = [false; 2];
        self.lone[winner] = true;
    }

    fn is_protected(&self, write: &Write) -> bool {
        let held = write.holders.iter().zip(self.behind).any(|(holds, behind)| *holds && !behind);
        write.acked && !write.void && (write.flushed || held)
    }

    /// Whether `node` knows itself to be behind. When it does no more, its disk has `live`, and what
    /// was taken from it meanwhile it protects no longer.
    pub fn is_behind(&mut self, node: usize, behind: bool, live: &[Stamp]) {
        if std::mem::replace(&mut self.behind[node], behind) && !behind {
            let gone: Vec<usize> = (0..self.writes.len())
                .filter(|n| self.writes[*n].holders[node] && self.is_gone(&self.writes[*n], live))
                .collect();
            gone.into_iter().for_each(|n| self.writes[n].holders[node] = false);
        }
    }

    /// A disk with this content has something older than `write` in its place.
    fn is_gone(&self, write: &Write, live: &[Stamp]) -> bool {
        write.blocks.clone().any(|block| self.is_older(block, live[block], write))
    }

    /// `stamp`, or a part of it, was there before `write` came to `block`.
    fn is_older(&self, block: usize, stamp: Stamp, write: &Write) -> bool {
        if let Some((old, new)) = self.torn.parts(stamp) {
            return self.is_older(block, old, write) || self.is_older(block, new, write);
        }
        let began_after = |w: &Write| write.began > w.ended.unwrap_or(u64::MAX);
        let written = if stamp == 0 {
            self.at(block).all(|(_, w)| !w.zero || began_after(w))
        } else {
            self.get(stamp).is_none_or(began_after)
        };
        written && write.shown.is_none_or(|s| s.value != stamp)
    }

    /// Whether `block` may hold `stamp` for somebody who looked at `as_of`; the error names the
    /// protected write that it lacks.
    ///
    /// # Errors
    /// A text for the report.
    pub fn check(&self, block: usize, stamp: Stamp, as_of: u64) -> Result<(), String> {
        self.check_part(block, &mut vec![stamp], as_of)
    }

    /// The last of `within` is all that the block holds, or a part of the one before it, which is
    /// torn.
    fn check_part(&self, block: usize, within: &mut Vec<Stamp>, as_of: u64) -> Result<(), String> {
        let stamp = within.last().copied().unwrap_or(0);
        if let Some((old, new)) = self.torn.parts(stamp) {
            for part in [old, new] {
                within.push(part);
                self.check_part(block, within, as_of)?;
                within.pop();
            }
            return Ok(());
        }
        let held = self.get(stamp);
        let is_there = |w: &Write| !w.zero && w.shown.is_none() && w.blocks.contains(&block);
        if stamp != 0 && !held.is_some_and(is_there) {
            return Err(format!("block {block} holds {stamp}, which was never written there"));
        }
        let first = self.check_write(block, within, held, as_of);
        if stamp != 0 || first.is_ok() {
            return first;
        }
        let mut zeros = self.at(block).filter(|(_, w)| w.zero);
        let by_zeros = zeros.any(|(_, w)| self.check_write(block, within, Some(w), as_of).is_ok());
        if by_zeros { Ok(()) } else { first }
    }

    /// `held` left the last of `within`.
    fn check_write(
        &self,
        block: usize,
        within: &[Stamp],
        held: Option<&Write>,
        as_of: u64,
    ) -> Result<(), String> {
        let stamp = within.first().copied().unwrap_or(0);
        if let Some(declared) = &self.declared[block] {
            let void = held.is_none_or(|w| w.void);
            let rewritten = self.at(block).any(|(_, w)| self.is_protected(w));
            let is_declared = within.iter().any(|s| declared.contains(s));
            if void && !is_declared && !rewritten {
                return Err(format!(
                    "block {block} holds {stamp}, but the operator declared {declared:?}"
                ));
            }
        }
        let ended = held.map_or(0, |w| w.ended.unwrap_or(u64::MAX));
        let newer = self.at(block).find(|(_, w)| {
            self.is_protected(w)
                && w.began > ended
                && w.ended.is_some_and(|e| e <= as_of)
                && w.shown.is_none_or(|s| !within.contains(&s.value))
        });
        newer.map_or(Ok(()), |(n, w)| Err(describe(block, stamp, n, w)))
    }
}

/// What `block`, which holds `stamp`, lacks.
fn describe(block: usize, stamp: Stamp, n: Stamp, w: &Write) -> String {
    let flushed = if w.flushed { " and flushed" } else { "" };
    let server = w.node + 1;
    match w.shown {
        Some(Shown { value, .. }) => format!(
            "block {block} holds {stamp}, but a read on server{server} has shown {value} since{flushed}"
        ),
        None => format!(
            "block {block} holds {stamp}, but write {n} of server{server} was acknowledged later{flushed}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two writes at block 1, one after the other, the second acknowledged by `holders`.
    fn two_writes(holders: [bool; 2]) -> (Oracle, Stamp, Stamp) {
        let mut oracle = Oracle::new(4);
        let first = oracle.begin(0, 1..2, false);
        oracle.acked(first, [true; 2], true);
        let second = oracle.begin(0, 1..2, false);
        oracle.acked(second, holders, true);
        (oracle, first, second)
    }

    #[test]
    fn a_lost_write_is_reported() {
        let (oracle, first, second) = two_writes([true; 2]);
        assert!(oracle.check(1, second, u64::MAX).is_ok());
        assert!(oracle.check(1, first, u64::MAX).is_err(), "an old write over a newer one");
        assert!(oracle.check(1, 0, u64::MAX).is_err(), "nothing at all");
    }

    #[test]
    fn a_write_in_the_wrong_place_is_reported() {
        let (oracle, first, second) = two_writes([true; 2]);
        assert!(oracle.check(2, first, u64::MAX).is_err());
        assert!(oracle.check(0, second, u64::MAX).is_err());
        assert!(oracle.check(1, 77, u64::MAX).is_err(), "never written anywhere");
    }

    #[test]
    fn what_every_cache_has_lost_is_excused_but_not_what_was_flushed() {
        let (mut oracle, first, second) = two_writes([true; 2]);
        oracle.interrupted(0, true);
        assert!(oracle.check(1, first, u64::MAX).is_err(), "server2 still holds it");
        oracle.interrupted(1, true);
        assert!(oracle.check(1, first, u64::MAX).is_ok());
        oracle.flushed(&[second]);
        assert!(oracle.check(1, first, u64::MAX).is_err());
    }

    #[test]
    fn writes_that_overlap_in_time_may_end_either_way() {
        let mut oracle = Oracle::new(4);
        let (one, other) = (oracle.begin(0, 1..2, false), oracle.begin(0, 1..2, false));
        oracle.acked(one, [true; 2], true);
        oracle.acked(other, [true; 2], true);
        assert!(oracle.check(1, one, u64::MAX).is_ok());
        assert!(oracle.check(1, other, u64::MAX).is_ok());
        assert!(oracle.check(1, 0, u64::MAX).is_err());
    }

    #[test]
    fn zeros_are_a_write_like_any_other() {
        let mut oracle = Oracle::new(4);
        let write = oracle.begin(0, 1..3, false);
        oracle.acked(write, [true; 2], true);
        assert!(oracle.check(1, 0, u64::MAX).is_err());
        let zero = oracle.begin(0, 1..2, true);
        oracle.acked(zero, [true; 2], true);
        assert!(oracle.check(1, 0, u64::MAX).is_ok());
        assert!(oracle.check(1, write, u64::MAX).is_err(), "the zeros were acknowledged later");
        assert!(oracle.check(2, 0, u64::MAX).is_err(), "no zeros were written there");
        assert!(oracle.is_on(zero, &[9, 0, 1, 9]) && !oracle.is_on(zero, &[0, 1, 1, 0]));
    }

    #[test]
    fn after_a_force_only_the_declared_content_counts() {
        let (mut oracle, first, second) = two_writes([true; 2]);
        oracle.declare(1, vec![vec![0], vec![first], vec![0], vec![0]]);
        assert!(oracle.check(1, first, u64::MAX).is_ok());
        assert!(oracle.check(1, second, u64::MAX).is_err());
        let later = oracle.begin(1, 1..2, false);
        oracle.acked(later, [true; 2], true);
        assert!(oracle.check(1, later, u64::MAX).is_ok());
        assert!(oracle.check(1, first, u64::MAX).is_err());
    }

    #[test]
    fn a_side_that_is_behind_protects_nothing_until_it_is_whole_again() {
        for copied_over in [false, true] {
            let (mut oracle, first, second) = two_writes([true; 2]);
            let was = [0, second, 0, 0];
            oracle.is_behind(1, true, &was);
            assert!(oracle.check(1, first, u64::MAX).is_err(), "server1 still holds it");
            oracle.interrupted(0, true);
            assert!(oracle.check(1, first, u64::MAX).is_ok());
            let torn = oracle.torn.mix(first, second);
            let is = [0, if copied_over { torn } else { second }, 0, 0];
            oracle.is_behind(1, false, &is);
            assert_eq!(oracle.check(1, first, u64::MAX).is_ok(), copied_over);
        }
    }

    #[test]
    fn what_was_flushed_stays_whoever_is_behind() {
        let (mut oracle, first, second) = two_writes([true; 2]);
        oracle.flushed(&[second]);
        oracle.is_behind(1, true, &[0; 4]);
        oracle.interrupted(0, true);
        assert!(oracle.check(1, first, u64::MAX).is_err());
    }

    #[test]
    fn what_a_read_has_shown_stays_until_both_caches_are_lost() {
        let mut oracle = Oracle::new(4);
        let (old, new) = (oracle.begin(0, 1..2, false), oracle.begin(0, 1..2, false));
        oracle.acked(old, [true; 2], true);
        let began = oracle.read_begins();
        oracle.failed(new);
        oracle.shown(0, 1, old, began, (true, false));
        assert!(oracle.check(1, old, u64::MAX).is_ok());
        assert!(oracle.check(1, new, u64::MAX).is_ok(), "it was under way all the time");
        let began = oracle.read_begins();
        oracle.shown(0, 1, old, began, (true, false));
        assert!(oracle.check(1, new, u64::MAX).is_err(), "it was shown to be absent");
        oracle.interrupted(0, true);
        assert!(oracle.check(1, new, u64::MAX).is_err(), "server2 still holds what was shown");
        oracle.interrupted(1, true);
        assert!(oracle.check(1, new, u64::MAX).is_ok());
    }

    #[test]
    fn what_is_read_without_contact_binds_until_the_other_side_is_activated() {
        let mut oracle = Oracle::new(4);
        let write = oracle.begin(0, 1..2, false);
        oracle.interrupted(0, false);
        oracle.activated_apart(1);
        let began = oracle.read_begins();
        oracle.shown(1, 1, 0, began, (false, false));
        assert!(oracle.check(1, write, u64::MAX).is_err());
        oracle.activated_apart(0);
        assert!(oracle.check(1, write, u64::MAX).is_ok());
    }

    #[test]
    fn a_write_that_the_other_side_lost_with_its_power_is_of_both_unless_its_writer_went_alone() {
        let mut oracle = Oracle::new(4);
        let (there, not_there) = (oracle.begin(0, 1..2, false), oracle.begin(0, 2..3, false));
        oracle.power_goes(0, &[0, there, not_there, 0]);
        assert!(!oracle.was_joint(there), "it is the writer that lost its power");
        oracle.power_goes(1, &[0, there, 0, 0]);
        assert!(oracle.was_joint(there) && !oracle.was_joint(not_there));
        oracle.went_alone(0);
        assert!(!oracle.was_joint(there));
    }

    #[test]
    fn a_torn_block_may_be_where_both_its_parts_may() {
        let (mut oracle, first, second) = two_writes([true; 2]);
        let third = oracle.begin(0, 1..2, false);
        oracle.interrupted(0, true);
        let good = oracle.torn.mix(second, third);
        let bad = oracle.torn.mix(first, third);
        assert!(oracle.check(1, good, u64::MAX).is_ok());
        assert!(oracle.check(1, bad, u64::MAX).is_err(), "half of it is too old");
    }

    #[test]
    fn a_write_that_only_one_side_has_makes_it_alone() {
        let mut oracle = Oracle::new(4);
        let write = oracle.begin(1, 0..1, false);
        oracle.acked(write, [false, true], false);
        assert_eq!(oracle.lone, [false, true]);
    }
}
