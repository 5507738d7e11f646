//! The durable marks of the active side (rules 1 and 2): which regions the bitmap on the cluster
//! partition is sure to name after a crash at this very moment.
//!
//! Three things are kept apart. *Wanted* is what the bitmap shall say. *Durable* is what every
//! image says that a bitmap block may have on the disk now: while a write of the block is in
//! flight, both the old image and the new one. A region is *marked* if it is both, so that a
//! region whose clearing is only queued is no longer marked, and one whose mark is still being
//! written is not marked yet.
//!
//! The owner calls [`Marks::next_write`] when it can write, writes the block durably, and reports
//! with [`Marks::write_done`]. Each write carries all that is wanted in its block, so waiting sets
//! share it; a block has at most one write in flight.

use crate::bitmap::{Bitmap, WORD_BITS};
use crate::buf::Buf;
use crate::disk::bitmap_block::{self, REGIONS_PER_BLOCK, WORDS_PER_BLOCK};
use crate::disk::layout::{BLOCK_BYTES, bitmap_block_offset, blocks_for};
use crate::rules::{Rule, holds};
use crate::units::Id16;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// A write of one bitmap block, to be made durable and then reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockWrite {
    /// The block, for [`Marks::write_done`].
    pub block: u32,
    /// Byte offset on the cluster partition.
    pub offset: u64,
    /// The image, 4096 bytes.
    pub bytes: Buf,
}

/// The marks of one side. Regions beyond the end are ignored everywhere.
#[derive(Debug)]
pub struct Marks {
    device: Id16,
    wanted: Bitmap,
    durable: Bitmap,
    blocks: Vec<Block>,
    /// The images being written.
    in_flight: BTreeMap<u32, Buf>,
    /// Blocks that may have pending sets; may name blocks that have none any more.
    to_set: VecDeque<u32>,
    /// Blocks that may have something else pending.
    to_clear: VecDeque<u32>,
    totals: Totals,
}

/// Sums over all blocks, so that nothing scans them.
#[derive(Clone, Copy, Default, Debug)]
struct Totals {
    sets: u32,
    on_disk: u32,
    unsettled: u32,
}

/// One bitmap block. Its *base* is the image in flight, else the durable bits.
#[derive(Clone, Copy, Default, Debug)]
struct Block {
    /// Wanted regions.
    wanted: u32,
    /// Regions wanted that the base lacks.
    sets: u32,
    /// Regions of the base that are not wanted.
    clears: u32,
    /// Regions that the disk has or may have marked.
    on_disk: u32,
    /// The durable bits are all that the disk has, apart from a write in flight.
    known: bool,
    /// To be written although nothing in it changed.
    must_write: bool,
    /// The last write failed; nothing is written until asked.
    failed: bool,
    in_flight: bool,
    in_to_set: bool,
    in_to_clear: bool,
}

impl Block {
    fn unknown(regions: u32) -> Self {
        Self { on_disk: regions, must_write: true, ..Self::default() }
    }

    fn pending(&self) -> bool {
        self.sets > 0 || self.clears > 0 || self.must_write
    }

    fn ready(&self) -> bool {
        !self.in_flight && !self.failed
    }

    fn settled(&self) -> bool {
        self.ready() && !self.pending()
    }
}

impl Marks {
    /// No marks, and nothing is known of what the disk has: every block must be written once.
    #[must_use]
    pub fn blank(regions: u32, device: Id16) -> Self {
        let mut marks = Self::empty(regions, device);
        for block in 0..blocks_for(regions) {
            marks.blocks.push(Block::unknown(length(&marks.regions_of(block))));
            marks.account(block);
            marks.enqueue(block);
        }
        marks
    }

    /// The marks in `bytes`, the bitmap as read from the disk, and how many of its blocks do not
    /// verify. Their regions are all marked (rule 10), and they are to be written anew. What could
    /// not be read is handed in as zeros, or left out at the end.
    #[must_use]
    pub fn load(device: Id16, regions: u32, bytes: &[u8]) -> (Self, u32) {
        let mut marks = Self::empty(regions, device);
        let mut images = bytes.chunks(BLOCK_BYTES);
        let mut damaged = 0;
        for block in 0..blocks_for(regions) {
            let good = images.next().is_some_and(|image| marks.load_block(block, image));
            if !good {
                damaged += 1;
                marks.load_damaged(block);
            }
            marks.account(block);
            marks.enqueue(block);
        }
        (marks, damaged)
    }

    fn empty(regions: u32, device: Id16) -> Self {
        Self {
            device,
            wanted: Bitmap::new(regions),
            durable: Bitmap::new(regions),
            blocks: Vec::with_capacity(blocks_for(regions) as usize),
            in_flight: BTreeMap::new(),
            to_set: VecDeque::new(),
            to_clear: VecDeque::new(),
            totals: Totals::default(),
        }
    }

    fn load_block(&mut self, block: u32, image: &[u8]) -> bool {
        if !bitmap_block::verify(self.device, block, image) || self.names_too_much(block, image) {
            return false;
        }
        let count = self.take_image(block, image);
        for index in words_of(block, &self.wanted) {
            self.wanted.set_word(index, self.durable.words()[index]);
        }
        self.blocks.push(Block { wanted: count, on_disk: count, known: true, ..Block::default() });
        true
    }

    /// Whether an image marks regions beyond the end: it was made for another size.
    fn names_too_much(&self, block: u32, image: &[u8]) -> bool {
        let first = block as usize * WORDS_PER_BLOCK;
        (0..WORDS_PER_BLOCK)
            .any(|n| bitmap_block::word(image, n) & !self.wanted.valid_bits(first + n) != 0)
    }

    fn load_damaged(&mut self, block: u32) {
        let regions = self.regions_of(block);
        let count = if holds(Rule::DamagedDirty) { length(&regions) } else { 0 };
        if holds(Rule::DamagedDirty) {
            self.wanted.set(regions);
        }
        self.blocks.push(Block { wanted: count, sets: count, ..Block::unknown(count) });
    }

    /// Makes room for a mirror of `regions` regions and wants `dirty` marked. Of what the disk has for
    /// the new regions nothing is known. Never shrinks.
    pub fn grow(&mut self, regions: u32, dirty: Range<u32>) {
        let (old, blocks) = (self.regions(), blocks_for(self.regions()));
        if regions > old {
            let last = blocks.checked_sub(1);
            last.into_iter().for_each(|block| self.discount(block));
            self.wanted.grow(regions);
            self.durable.grow(regions);
            if let Some(block) = last {
                let added = length(&self.regions_of(block)) - (old - block * REGIONS_PER_BLOCK);
                let state = &mut self.blocks[block as usize];
                state.on_disk += if state.known { 0 } else { added };
                self.account(block);
            }
            for block in blocks..blocks_for(regions) {
                self.blocks.push(Block::unknown(length(&self.regions_of(block))));
                self.account(block);
                self.enqueue(block);
            }
        }
        self.set(dirty);
    }

    /// Whether `region` has a durable mark that nothing queued or in flight takes away. Only such
    /// a region may be written to (rule 1).
    #[must_use]
    pub fn is_marked(&self, region: u32) -> bool {
        self.wanted.get(region) && self.durable.get(region)
    }

    /// Whether [`Marks::is_marked`] holds for every region of `range`.
    #[must_use]
    pub fn all_marked(&self, range: Range<u32>) -> bool {
        (self.wanted.all(range.clone()) || !holds(Rule::QueuedClear)) && self.durable.all(range)
    }

    /// Wants the regions of `range` marked. They are, once [`Marks::all_marked`] says so.
    pub fn set(&mut self, range: Range<u32>) {
        self.change(range, true);
    }

    /// Queues the clearing of `region`; it is unmarked from now on.
    pub fn clear(&mut self, region: u32) {
        self.change(region..region.saturating_add(1), false);
    }

    /// Wants every region marked.
    pub fn set_all(&mut self) {
        self.change(0..self.regions(), true);
    }

    /// Queues the clearing of every region.
    pub fn clear_all(&mut self) {
        self.change(0..self.regions(), false);
    }

    /// The next write, if any block may be written: first those in which marks wait to be set, in
    /// the order in which they were asked for.
    pub fn next_write(&mut self) -> Option<BlockWrite> {
        let block = self.next_to_set().or_else(|| self.next_to_clear())?;
        Some(self.begin(block))
    }

    fn next_to_set(&mut self) -> Option<u32> {
        while let Some(block) = self.to_set.pop_front() {
            let state = &mut self.blocks[block as usize];
            state.in_to_set = false;
            if state.ready() && state.sets > 0 {
                return Some(block);
            }
        }
        None
    }

    fn next_to_clear(&mut self) -> Option<u32> {
        while let Some(block) = self.to_clear.pop_front() {
            let state = &mut self.blocks[block as usize];
            state.in_to_clear = false;
            if state.ready() && state.pending() {
                return Some(block);
            }
        }
        None
    }

    /// From here on the disk has the old image, the new one, or a torn one, which counts as all
    /// marked: durable is what both have.
    fn begin(&mut self, block: u32) -> BlockWrite {
        self.discount(block);
        let words = words_of(block, &self.wanted);
        let bytes = bitmap_block::encode(self.device, block, &self.wanted.words()[words.clone()]);
        let mut either = 0;
        for index in words {
            let (old, new) = (self.durable.words()[index], self.wanted.words()[index]);
            let sure = if holds(Rule::QueuedClear) { old & new } else { old };
            self.durable.set_word(index, sure);
            either += (old | new).count_ones();
        }
        let state = &mut self.blocks[block as usize];
        if state.known {
            state.on_disk = either;
        }
        (state.sets, state.clears, state.must_write, state.in_flight) = (0, 0, false, true);
        self.in_flight.insert(block, bytes.clone());
        self.account(block);
        BlockWrite { block, offset: bitmap_block_offset(block), bytes }
    }

    /// The write of `block` ended: durable (`ok`), or failed. After a failure nothing is known of
    /// the block on the disk, so none of its regions is marked, and it is written again only after
    /// [`Marks::retry`]. A write that may still land has not ended (rule 12).
    ///
    /// # Panics
    /// If no write of `block` is in flight.
    pub fn write_done(&mut self, block: u32, ok: bool) {
        let image = self.in_flight.remove(&block).expect("only a write in flight can end");
        self.discount(block);
        self.blocks[block as usize].in_flight = false;
        if ok {
            let count = self.take_image(block, &image);
            let state = &mut self.blocks[block as usize];
            state.on_disk = count;
            state.known = true;
        } else {
            self.lose(block);
        }
        self.account(block);
        self.enqueue(block);
    }

    fn lose(&mut self, block: u32) {
        let regions = self.regions_of(block);
        let state = &mut self.blocks[block as usize];
        state.on_disk = length(&regions);
        (state.sets, state.clears) = (state.wanted, 0);
        (state.known, state.failed) = (false, true);
        self.durable.clear(regions);
    }

    /// Makes the durable bits of `block` those of `image`; says how many they are.
    fn take_image(&mut self, block: u32, image: &[u8]) -> u32 {
        let mut count = 0;
        for (n, index) in words_of(block, &self.durable).enumerate() {
            let word = bitmap_block::word(image, n);
            self.durable.set_word(index, word);
            count += word.count_ones();
        }
        count
    }

    /// Queues `block`, whose write failed, again. Does nothing for any other block.
    pub fn retry(&mut self, block: u32) {
        if self.blocks.get(block as usize).is_some_and(|state| state.failed) {
            self.discount(block);
            let state = &mut self.blocks[block as usize];
            (state.failed, state.must_write) = (false, true);
            self.account(block);
            self.enqueue(block);
        }
    }

    /// Whether any wanted mark is neither durable nor in flight (blocks whose write failed count).
    #[must_use]
    pub fn has_pending_sets(&self) -> bool {
        self.totals.sets > 0
    }

    /// Whether the disk is known to say just what is wanted, and nothing is in flight.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.totals.unsettled == 0
    }

    /// Writes in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Regions that a reader of the disk would find marked now, or may: what a write in flight
    /// clears still counts, what it sets counts already, and a block of which nothing is known
    /// counts whole.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.totals.on_disk
    }

    /// Regions of the mirror.
    #[must_use]
    pub fn regions(&self) -> u32 {
        self.wanted.len()
    }

    /// The wanted marks.
    #[must_use]
    pub fn wanted(&self) -> &Bitmap {
        &self.wanted
    }

    /// How many marks are wanted.
    #[must_use]
    pub fn wanted_count(&self) -> u32 {
        self.wanted.count()
    }

    /// The wanted marks, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let found = self.next_wanted(next?)?;
            next = found.checked_add(1);
            Some(found)
        })
    }

    /// The first wanted mark that is not before `from`. Skips empty blocks as a whole.
    #[must_use]
    pub fn next_wanted(&self, from: u32) -> Option<u32> {
        let first = from / REGIONS_PER_BLOCK;
        (first..blocks_for(self.regions()))
            .filter(|block| self.blocks[*block as usize].wanted > 0)
            .find_map(|block| {
                let regions = self.regions_of(block);
                self.wanted.next_set_in(regions.start.max(from)..regions.end)
            })
    }

    /// Bytes of memory that the marks take, but for the images in flight.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        8 * (self.wanted.words().len() + self.durable.words().len())
            + size_of::<Block>() * self.blocks.capacity()
            + size_of::<u32>() * (self.to_set.capacity() + self.to_clear.capacity())
    }

    fn change(&mut self, range: Range<u32>, on: bool) {
        let end = range.end.min(self.regions());
        let mut at = range.start;
        while at < end {
            let block = at / REGIONS_PER_BLOCK;
            let stop = end.min(self.regions_of(block).end);
            self.discount(block);
            self.change_in_block(block, &(at..stop), on);
            self.account(block);
            self.enqueue(block);
            at = stop;
        }
    }

    /// `range` lies in `block` and is not empty.
    fn change_in_block(&mut self, block: u32, range: &Range<u32>, on: bool) {
        let image = self.in_flight.get(&block);
        let state = &mut self.blocks[block as usize];
        let first_of_block = block as usize * WORDS_PER_BLOCK;
        for index in word_index(range.start)..=word_index(range.end - 1) {
            let old = self.wanted.words()[index];
            let flipped = mask(range, index) & if on { !old } else { old };
            let base = match image {
                Some(image) => bitmap_block::word(image, index - first_of_block),
                None => self.durable.words()[index],
            };
            let (in_base, new) = ((flipped & base).count_ones(), (flipped & !base).count_ones());
            if on {
                state.wanted += in_base + new;
                state.clears -= in_base;
                state.sets += new;
            } else {
                state.wanted -= in_base + new;
                state.clears += in_base;
                state.sets -= new;
            }
            self.wanted.set_word(index, old ^ flipped);
        }
    }

    /// Sees to it that a block with something pending will be found. One that cannot be written
    /// now comes here again when it can.
    fn enqueue(&mut self, block: u32) {
        let state = &mut self.blocks[block as usize];
        if !state.ready() || !state.pending() {
            return;
        }
        if state.sets > 0 {
            if !state.in_to_set {
                state.in_to_set = true;
                self.to_set.push_back(block);
            }
        } else if !state.in_to_clear {
            state.in_to_clear = true;
            self.to_clear.push_back(block);
        }
    }

    /// Takes `block` out of the totals before it changes.
    fn discount(&mut self, block: u32) {
        let state = &self.blocks[block as usize];
        self.totals.sets -= state.sets;
        self.totals.on_disk -= state.on_disk;
        self.totals.unsettled -= u32::from(!state.settled());
    }

    /// Adds `block` to the totals after it changed.
    fn account(&mut self, block: u32) {
        let state = &self.blocks[block as usize];
        self.totals.sets += state.sets;
        self.totals.on_disk += state.on_disk;
        self.totals.unsettled += u32::from(!state.settled());
    }

    fn regions_of(&self, block: u32) -> Range<u32> {
        let start = block * REGIONS_PER_BLOCK;
        start..start.saturating_add(REGIONS_PER_BLOCK).min(self.regions())
    }
}

fn length(range: &Range<u32>) -> u32 {
    range.end - range.start
}

fn words_of(block: u32, bitmap: &Bitmap) -> Range<usize> {
    let start = block as usize * WORDS_PER_BLOCK;
    start..(start + WORDS_PER_BLOCK).min(bitmap.words().len())
}

fn word_index(region: u32) -> usize {
    (region / WORD_BITS) as usize
}

/// The bits of word `index` that lie in `range`, of which the word has at least one.
fn mask(range: &Range<u32>, index: usize) -> u64 {
    let mut mask = u64::MAX;
    if index == word_index(range.start) {
        mask &= u64::MAX << (range.start % WORD_BITS);
    }
    if index == word_index(range.end - 1) {
        mask &= u64::MAX >> (WORD_BITS - 1 - (range.end - 1) % WORD_BITS);
    }
    mask
}

#[cfg(test)]
mod tests;
