//! The marks against a plain model and a simulated disk that can lose its power at any moment.

use super::{DEVICE, disk_with, drain};
use crate::disk::layout::BLOCK_BYTES;
use crate::marks::{BlockWrite, Marks, REGIONS_PER_BLOCK};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const BLOCKS: u32 = 3;
const REGIONS: u32 = 2 * REGIONS_PER_BLOCK + 40;
const EDGES: [Range<u32>; 3] = [
    0..12,
    REGIONS_PER_BLOCK - 6..REGIONS_PER_BLOCK + 70,
    2 * REGIONS_PER_BLOCK - 3..2 * REGIONS_PER_BLOCK + 20,
];

/// The regions that the model follows, with how many each stands for: those at the edges for
/// themselves, one of each block for all others there, which only `set_all`, `clear_all` and
/// failures touch.
fn probes() -> BTreeMap<u32, u32> {
    let mut probes: BTreeMap<u32, u32> = EDGES.into_iter().flatten().map(|r| (r, 1)).collect();
    for block in 0..BLOCKS {
        let start = block * REGIONS_PER_BLOCK;
        let end = REGIONS.min(start + REGIONS_PER_BLOCK);
        let others: Vec<u32> = (start..end).filter(|r| !probes.contains_key(r)).collect();
        probes.insert(others[others.len() / 2], u32::try_from(others.len()).expect("small"));
    }
    probes
}

fn block_of(region: u32) -> u32 {
    region / REGIONS_PER_BLOCK
}

/// What a write that is cut off, or fails, leaves on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Old,
    New,
    Torn,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![Just(Fate::Old), Just(Fate::New), Just(Fate::Torn)]
}

fn land(disk: &mut [u8], write: &BlockWrite, fate: Fate) {
    let at = write.block as usize * BLOCK_BYTES;
    let landed = match fate {
        Fate::Old => 0,
        Fate::New => BLOCK_BYTES,
        Fate::Torn => 512,
    };
    disk[at..at + landed].copy_from_slice(&write.bytes[..landed]);
}

#[derive(Clone, Debug)]
enum Op {
    Set(Range<u32>),
    Clear(u32),
    SetAll,
    ClearAll,
    Write,
    Done(usize),
    Fail(usize, Fate),
    Retry(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let range = (0..EDGES.len(), any::<[prop::sample::Index; 2]>()).prop_map(|(edge, [a, b])| {
        let edge = EDGES[edge].clone();
        let length = (edge.end - edge.start) as usize;
        let start = edge.start + u32::try_from(a.index(length)).expect("small");
        start..edge.end.min(start + u32::try_from(b.index(length)).expect("small"))
    });
    let region = range.clone().prop_map(|range| range.start);
    let any_of = any::<prop::sample::Index>().prop_map(|i| i.index(1 << 16));
    prop_oneof![
        8 => range.prop_map(Op::Set),
        8 => region.prop_map(Op::Clear),
        1 => Just(Op::SetAll),
        1 => Just(Op::ClearAll),
        8 => Just(Op::Write),
        6 => any_of.clone().prop_map(Op::Done),
        1 => (any_of, fate()).prop_map(|(n, fate)| Op::Fail(n, fate)),
        1 => (0..BLOCKS).prop_map(Op::Retry),
    ]
}

/// What is true of one block: written down, not computed ahead.
#[derive(Clone, Default)]
struct Block {
    /// What the disk has, apart from a write in flight; `None` = not known.
    on_disk: Option<BTreeSet<u32>>,
    in_flight: Option<BTreeSet<u32>>,
    failed: bool,
}

struct World {
    marks: Marks,
    disk: Vec<u8>,
    in_flight: Vec<BlockWrite>,
    probes: BTreeMap<u32, u32>,
    wanted: BTreeSet<u32>,
    blocks: Vec<Block>,
}

impl World {
    fn blank(disk: Vec<u8>) -> Self {
        let blocks = vec![Block::default(); BLOCKS as usize];
        let (marks, probes) = (Marks::blank(REGIONS, DEVICE), probes());
        Self { marks, disk, in_flight: Vec::new(), probes, wanted: BTreeSet::new(), blocks }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Set(range) => {
                self.wanted.extend(self.probes.range(range.clone()).map(|(r, _)| *r));
                self.marks.set(range);
            }
            Op::Clear(region) => {
                self.wanted.remove(&region);
                self.marks.clear(region);
            }
            Op::SetAll => {
                self.wanted = self.probes.keys().copied().collect();
                self.marks.set_all();
            }
            Op::ClearAll => {
                self.wanted.clear();
                self.marks.clear_all();
            }
            Op::Write => self.write(),
            Op::Done(n) => self.end(n, None),
            Op::Fail(n, fate) => self.end(n, Some(fate)),
            Op::Retry(block) => {
                self.blocks[block as usize].failed = false;
                self.marks.retry(block);
            }
        }
    }

    fn wanted_in(&self, block: u32) -> BTreeSet<u32> {
        self.wanted.iter().copied().filter(|r| block_of(*r) == block).collect()
    }

    fn has_sets(&self, block: u32) -> bool {
        let state = &self.blocks[block as usize];
        let base = state.in_flight.as_ref().or(state.on_disk.as_ref());
        self.wanted_in(block).iter().any(|r| !base.is_some_and(|b| b.contains(r)))
    }

    fn is_ready(&self, block: u32) -> bool {
        let state = &self.blocks[block as usize];
        let pending = state.on_disk.as_ref() != Some(&self.wanted_in(block));
        state.in_flight.is_none() && !state.failed && pending
    }

    fn write(&mut self) {
        let ready: Vec<u32> = (0..BLOCKS).filter(|b| self.is_ready(*b)).collect();
        let Some(write) = self.marks.next_write() else {
            assert!(ready.is_empty(), "blocks {ready:?} are not written");
            return;
        };
        assert!(ready.contains(&write.block), "block {} was not due", write.block);
        let sets_wait = ready.iter().any(|b| self.has_sets(*b));
        assert_eq!(self.has_sets(write.block), sets_wait, "sets go first");
        let wanted = self.wanted_in(write.block);
        self.blocks[write.block as usize].in_flight = Some(wanted);
        self.in_flight.push(write);
    }

    fn end(&mut self, n: usize, failure: Option<Fate>) {
        if self.in_flight.is_empty() {
            return;
        }
        let write = self.in_flight.swap_remove(n % self.in_flight.len());
        land(&mut self.disk, &write, failure.unwrap_or(Fate::New));
        let state = &mut self.blocks[write.block as usize];
        let written = state.in_flight.take();
        state.on_disk = if failure.is_none() { written } else { None };
        state.failed = failure.is_some();
        self.marks.write_done(write.block, failure.is_none());
    }

    fn is_marked(&self, region: u32) -> bool {
        let state = &self.blocks[block_of(region) as usize];
        self.wanted.contains(&region)
            && state.on_disk.as_ref().is_some_and(|d| d.contains(&region))
            && state.in_flight.as_ref().is_none_or(|f| f.contains(&region))
    }

    fn may_be_on_disk(&self, region: u32) -> bool {
        let state = &self.blocks[block_of(region) as usize];
        state.on_disk.as_ref().is_none_or(|d| d.contains(&region))
            || state.in_flight.as_ref().is_some_and(|f| f.contains(&region))
    }

    fn weigh(&self, which: impl Fn(&u32) -> bool) -> u32 {
        self.probes.iter().filter(|(r, _)| which(r)).map(|(_, weight)| weight).sum()
    }

    fn check(&self) {
        for region in self.probes.keys() {
            assert_eq!(self.marks.is_marked(*region), self.is_marked(*region), "{region}");
            assert_eq!(self.marks.wanted().get(*region), self.wanted.contains(region));
        }
        for range in EDGES.into_iter().flat_map(|e| [e.start..e.start + 2, e.end - 3..e.end, e]) {
            let all = range.clone().all(|r| self.is_marked(r));
            assert_eq!(self.marks.all_marked(range.clone()), all, "{range:?}");
        }
        assert_eq!(self.marks.count(), self.weigh(|r| self.may_be_on_disk(*r)));
        assert_eq!(self.marks.wanted_count(), self.weigh(|r| self.wanted.contains(r)));
        assert_eq!(self.marks.has_pending_sets(), (0..BLOCKS).any(|b| self.has_sets(b)));
        assert_eq!(self.marks.in_flight(), self.in_flight.len());
        let settled = |b: u32| {
            let state = &self.blocks[b as usize];
            state.in_flight.is_none() && state.on_disk.as_ref() == Some(&self.wanted_in(b))
        };
        assert_eq!(self.marks.idle(), (0..BLOCKS).all(settled));
    }

    /// The power goes: whatever was marked is found marked.
    fn check_crash(&self, fates: &[Fate]) {
        let mut disk = self.disk.clone();
        for (write, fate) in self.in_flight.iter().zip(fates.iter().cycle()) {
            land(&mut disk, write, *fate);
        }
        let (found, damaged) = Marks::load(DEVICE, REGIONS, &disk);
        for region in self.probes.keys().filter(|r| self.marks.is_marked(**r)) {
            assert!(found.wanted().get(*region), "the mark of region {region} is lost");
        }
        if damaged == 0 {
            assert!(found.wanted_count() <= self.marks.count(), "the disk has more than counted");
        }
    }

    /// In the end everything is written, and the disk says just what is wanted.
    fn check_end(mut self) {
        while !self.in_flight.is_empty() {
            self.end(0, None);
        }
        for block in 0..BLOCKS {
            self.apply(Op::Retry(block));
        }
        while !self.marks.idle() {
            self.write();
            assert!(!self.in_flight.is_empty(), "not idle, and nothing to write");
            self.end(0, None);
            self.check();
        }
        let (found, damaged) = Marks::load(DEVICE, REGIONS, &self.disk);
        assert_eq!(damaged, 0);
        assert_eq!(found.wanted(), self.marks.wanted());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// With `used`, an earlier life of the same partition left marks, which nothing may rely on.
    #[test]
    fn no_mark_is_lost_in_a_crash_at_any_point(
        used in any::<bool>(),
        steps in prop::collection::vec((op(), prop::collection::vec(fate(), 3)), 0..60),
    ) {
        let zero = vec![0; BLOCKS as usize * BLOCK_BYTES];
        let mut world = World::blank(if used { disk_with(REGIONS, &[3]) } else { zero });
        for (op, fates) in steps {
            world.apply(op);
            world.check();
            world.check_crash(&fates);
        }
        world.check_end();
    }

    #[test]
    fn what_was_written_is_loaded(set in prop::collection::btree_set(0..REGIONS, 0..40)) {
        let mut marks = Marks::blank(REGIONS, DEVICE);
        set.iter().for_each(|r| marks.set(*r..*r + 1));
        drain(&mut marks);
        let all: Vec<u32> = set.iter().copied().collect();
        let (found, damaged) = Marks::load(DEVICE, REGIONS, &disk_with(REGIONS, &all));
        prop_assert_eq!(damaged, 0);
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), all.clone());
        prop_assert!(all.iter().all(|r| found.is_marked(*r) && marks.is_marked(*r)));
        prop_assert_eq!(found.next_wanted(REGIONS / 2), set.range(REGIONS / 2..).next().copied());
    }
}
