//! What must hold: a history of every block, kept apart from both mirrors.
//!
//! A write is *superseded* at a block by an acknowledged write that began after it ended. An
//! acknowledged write is *protected* while a side still holds it that has not lost power or its
//! agent since, or once a flush of the application covered it. A block may hold any write that no
//! protected write supersedes, and nothing else.

use crate::disk::Stamp;

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
    /// Given up by an operator's `--force`.
    void: bool,
}

/// The history of a run.
#[derive(Debug, Default)]
pub struct Oracle {
    /// By stamp - 1.
    writes: Vec<Write>,
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
}

impl Oracle {
    /// Nothing written yet.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        Self { declared: vec![None; blocks], ..Self::default() }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The application on `node` begins a write; returns its stamp.
    pub fn begin(&mut self, node: usize, blocks: std::ops::Range<usize>, zero: bool) -> Stamp {
        let began = self.tick();
        self.writes.push(Write {
            blocks,
            zero,
            node,
            began,
            ended: None,
            acked: false,
            flushed: false,
            holders: [false; 2],
            void: self.outlawed[node],
        });
        self.writes.len() as Stamp
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

    /// The writes that a flush submitted now on `node` promises to make durable.
    #[must_use]
    pub fn acked_now(&self, node: usize) -> Vec<Stamp> {
        (1..)
            .zip(&self.writes)
            .filter(|(_, w)| w.acked && !w.flushed && w.node == node && w.holders[node])
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

    fn is_protected(write: &Write) -> bool {
        write.acked && !write.void && (write.flushed || write.holders.contains(&true))
    }

    /// The time by this history: a read that begins now must see what is acknowledged now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock
    }

    /// Whether `block` may hold `stamp` for somebody who looked at `as_of`; the error names the
    /// protected write that it lacks.
    ///
    /// # Errors
    /// A text for the report.
    pub fn check(&self, block: usize, stamp: Stamp, as_of: u64) -> Result<(), String> {
        let held = self.get(stamp);
        if stamp != 0 && held.is_none_or(|w| w.zero || !w.blocks.contains(&block)) {
            return Err(format!("block {block} holds {stamp}, which was never written there"));
        }
        let first = self.check_write(block, stamp, held, as_of);
        let zeros = || self.writes.iter().filter(|w| w.zero && w.blocks.contains(&block));
        if stamp == 0 && zeros().any(|w| self.check_write(block, 0, Some(w), as_of).is_ok()) {
            return Ok(());
        }
        first
    }

    fn check_write(
        &self,
        block: usize,
        stamp: Stamp,
        held: Option<&Write>,
        as_of: u64,
    ) -> Result<(), String> {
        if let Some(declared) = &self.declared[block] {
            let void = held.is_none_or(|w| w.void);
            let rewritten = self
                .writes
                .iter()
                .any(|w| !w.void && w.blocks.contains(&block) && Self::is_protected(w));
            if void && !declared.contains(&stamp) && !rewritten {
                return Err(format!(
                    "block {block} holds {stamp}, but the operator declared {declared:?}"
                ));
            }
        }
        let ended = held.map_or(0, |w| w.ended.unwrap_or(u64::MAX));
        let newer = (1..).zip(&self.writes).find(|(_, w)| {
            Self::is_protected(w)
                && w.blocks.contains(&block)
                && w.began > ended
                && w.ended.is_some_and(|e| e <= as_of)
        });
        match newer {
            Some((lost, w)) => Err(format!(
                "block {block} holds {stamp}, but write {lost} of server{} was acknowledged later{}",
                w.node + 1,
                if w.flushed { " and flushed" } else { "" }
            )),
            None => Ok(()),
        }
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
    fn a_write_that_only_one_side_has_makes_it_alone() {
        let mut oracle = Oracle::new(4);
        let write = oracle.begin(1, 0..1, false);
        oracle.acked(write, [false, true], false);
        assert_eq!(oracle.lone, [false, true]);
    }
}
