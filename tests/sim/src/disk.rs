//! Simulated disks. The data disk keeps one stamp per 4 KiB block and has a volatile write cache
//! that loses any subset of what was not flushed; the cluster disk keeps real bytes, and a write
//! that is cut by power loss leaves any subset of its 512-byte sectors.

use crate::rng::Rng;
use mirror_core::buf::{Buf, BufMut};
use mirror_core::units::Extent;

/// Bytes of a block.
pub const BLOCK: u64 = 4096;

/// Which write a block holds; 0 = none, zeros.
pub type Stamp = u64;

/// The blocks of `extent`.
#[must_use]
pub fn blocks(extent: Extent) -> std::ops::Range<usize> {
    let at = |bytes: u64| usize::try_from(bytes / BLOCK).expect("a small disk");
    at(extent.offset)..at(extent.end())
}

/// A payload in which every block carries `stamp`.
#[must_use]
pub fn payload(extent: Extent, stamp: Stamp) -> Buf {
    let len = usize::try_from(extent.len).expect("a small disk");
    let mut bytes = BufMut::zeroed(len);
    for block in bytes.chunks_exact_mut(4096) {
        block[..8].copy_from_slice(&stamp.to_le_bytes());
    }
    bytes.freeze()
}

/// The stamps in a payload.
pub fn stamps(data: &[u8]) -> impl Iterator<Item = Stamp> + '_ {
    data.chunks_exact(4096)
        .map(|block| Stamp::from_le_bytes(block[..8].try_into().expect("8 bytes")))
}

/// Blocks that are half one write, half another: sectors that were cut off. Their stamps lie above
/// those of all writes.
#[derive(Debug, Default)]
pub struct Torn(Vec<(Stamp, Stamp)>);

/// The first stamp of a torn block.
const FIRST_TORN: Stamp = 1 << 62;

impl Torn {
    /// The stamp of a block that held `old` when part of `new` landed.
    pub fn mix(&mut self, old: Stamp, new: Stamp) -> Stamp {
        self.0.push((old, new));
        FIRST_TORN + self.0.len() as Stamp - 1
    }

    /// What a torn block is made of; `None` if it is whole.
    #[must_use]
    pub fn parts(&self, stamp: Stamp) -> Option<(Stamp, Stamp)> {
        let index = stamp.checked_sub(FIRST_TORN)?;
        self.0.get(usize::try_from(index).ok()?).copied()
    }
}

/// How a loss of power tears: how often, in 1000, and where that is noted.
#[derive(Debug)]
pub struct Tearing<'t> {
    /// Per block that was being written or written back.
    pub rate: u64,
    /// What came of it.
    pub torn: &'t mut Torn,
}

impl Tearing<'_> {
    /// What a block is left with that holds `old` and was to hold `new`.
    pub fn left(&mut self, old: Stamp, new: Stamp, rng: &mut Rng) -> Stamp {
        if self.rate > 0 && old != new && rng.chance(self.rate) {
            self.torn.mix(old, new)
        } else {
            new
        }
    }
}

/// A data partition.
#[derive(Clone, Debug)]
pub struct DataDisk {
    live: Vec<Stamp>,
    durable: Vec<Stamp>,
    /// Landed but not flushed, oldest first.
    cache: Vec<(usize, Stamp)>,
}

impl DataDisk {
    /// Zeros.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let blocks = usize::try_from(size / BLOCK).expect("a small disk");
        Self { live: vec![0; blocks], durable: vec![0; blocks], cache: Vec::new() }
    }

    /// The partition was made larger, to `size` bytes; there is something on what was added.
    pub fn grow(&mut self, size: u64, junk: Stamp) {
        let blocks = usize::try_from(size / BLOCK).expect("a small disk");
        self.live.resize(blocks.max(self.live.len()), junk);
        self.durable.resize(self.live.len(), junk);
    }

    /// A write lands.
    pub fn write(&mut self, extent: Extent, values: impl Iterator<Item = Stamp>) {
        for (block, stamp) in blocks(extent).zip(values) {
            self.live[block] = stamp;
            self.cache.push((block, stamp));
        }
    }

    /// What a read returns now.
    #[must_use]
    pub fn read(&self, extent: Extent) -> Buf {
        let len = usize::try_from(extent.len).expect("a small disk");
        let mut bytes = BufMut::zeroed(len);
        for (chunk, block) in bytes.chunks_exact_mut(4096).zip(blocks(extent)) {
            chunk[..8].copy_from_slice(&self.live[block].to_le_bytes());
        }
        bytes.freeze()
    }

    /// How much has landed: what a flush submitted now will cover.
    #[must_use]
    pub fn landed(&self) -> usize {
        self.cache.len()
    }

    /// A flush ends that covers the first `landed` cached writes.
    pub fn flush(&mut self, landed: usize) {
        for (block, stamp) in self.cache.drain(..landed.min(self.cache.len())) {
            self.durable[block] = stamp;
        }
    }

    /// A write that lands durably: nothing older may land on it from the cache.
    pub fn write_durably(&mut self, extent: Extent, values: impl Iterator<Item = Stamp>) {
        for (block, stamp) in blocks(extent).zip(values) {
            self.live[block] = stamp;
            self.durable[block] = stamp;
            self.cache.retain(|(cached, _)| *cached != block);
        }
    }

    /// A flush fails: what it covered is dropped from the cache, whether it landed or not, and no
    /// later flush will make it durable. Reads still find it.
    pub fn fail_flush(&mut self, landed: usize, rng: &mut Rng) {
        for (block, stamp) in self.cache.drain(..landed.min(self.cache.len())) {
            if rng.chance(500) {
                self.durable[block] = stamp;
            }
        }
    }

    /// A flush fails, and the disk gives up all that was cached. Reads still find it.
    pub fn forget_cache(&mut self) {
        self.cache.clear();
    }

    /// The power goes: any subset of the cache is lost, and sectors of what was being written back.
    pub fn lose_power(&mut self, tearing: &mut Tearing<'_>, rng: &mut Rng) {
        let keep = rng.below(1001);
        for (block, stamp) in std::mem::take(&mut self.cache) {
            if rng.chance(keep) {
                self.durable[block] = tearing.left(self.durable[block], stamp, rng);
            }
        }
        self.live.clone_from(&self.durable);
    }

    /// The power goes: of the cache only what `keeps` names is left.
    pub fn lose_power_but(&mut self, keeps: impl Fn(usize) -> bool) {
        for (block, stamp) in std::mem::take(&mut self.cache) {
            if keeps(block) {
                self.durable[block] = stamp;
            }
        }
        self.live.clone_from(&self.durable);
    }

    /// The stamps that would be left if everything volatile were lost now.
    #[must_use]
    pub fn durable(&self) -> &[Stamp] {
        &self.durable
    }

    /// Per block, what it may hold after a loss of power: what is durable, cached, or both.
    #[must_use]
    pub fn possible(&self) -> Vec<Vec<Stamp>> {
        let mut all: Vec<Vec<Stamp>> = self.durable.iter().map(|s| vec![*s]).collect();
        for (block, stamp) in &self.cache {
            all[*block].push(*stamp);
        }
        all
    }

    /// The stamps as a read would find them.
    #[must_use]
    pub fn live(&self) -> &[Stamp] {
        &self.live
    }
}

/// A cluster partition. Every write to it is durable when it ends.
#[derive(Clone, Debug)]
pub struct ClusterDisk(Vec<u8>);

impl ClusterDisk {
    /// Zeros: never used.
    #[must_use]
    pub fn new(len: u64) -> Self {
        Self(vec![0; usize::try_from(len).expect("a small disk")])
    }

    /// The partition was made larger; what was added is not blank.
    pub fn grow(&mut self, len: u64) {
        let len = usize::try_from(len).expect("a small disk");
        self.0.resize(len.max(self.0.len()), 0xa5);
    }

    /// A write lands.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).expect("a small disk");
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A write is cut by power loss: any of its sectors are there, and in one case of four the one
    /// that was just being written is neither old nor new.
    pub fn tear(&mut self, offset: u64, bytes: &[u8], rng: &mut Rng) {
        let sectors = bytes.chunks(512);
        let garbled = rng.below(4 * sectors.len() as u64);
        for (n, sector) in (0_u64..).zip(sectors) {
            let at = offset + n * 512;
            let used = self.read(at, sector.len() as u64).iter().any(|b| *b != 0);
            if n == garbled && used {
                self.rot(at, sector.len() as u64, rng);
            } else if rng.chance(500) {
                self.write(at, sector);
            }
        }
    }

    /// One byte goes bad.
    pub fn rot(&mut self, offset: u64, len: u64, rng: &mut Rng) {
        let at = usize::try_from(offset + rng.below(len)).expect("a small disk");
        self.0[at] ^= 1 << rng.below(8);
    }

    /// The byte at `offset` goes bad.
    pub fn flip(&mut self, offset: u64) {
        let at = usize::try_from(offset).expect("a small disk");
        self.0[at] ^= 1;
    }

    /// The bytes from `offset` on.
    #[must_use]
    pub fn read(&self, offset: u64, len: u64) -> &[u8] {
        let at = usize::try_from(offset).expect("a small disk");
        &self.0[at..at + usize::try_from(len).expect("a small disk")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Extent = Extent::new(0, 4096);

    fn disk_with(stamps: &[Stamp]) -> DataDisk {
        let mut disk = DataDisk::new(4 * BLOCK);
        for stamp in stamps {
            disk.write(FIRST, [*stamp].into_iter());
        }
        disk
    }

    /// What the first block may hold after a loss of power.
    fn outcomes(disk: &DataDisk) -> std::collections::BTreeSet<Stamp> {
        (0..200)
            .map(|seed| {
                let mut disk = disk.clone();
                let tearing = &mut Tearing { rate: 0, torn: &mut Torn::default() };
                disk.lose_power(tearing, &mut Rng::new(seed));
                assert_eq!(disk.live(), disk.durable());
                disk.live()[0]
            })
            .collect()
    }

    #[test]
    fn a_loss_of_power_takes_any_part_of_the_cache_and_nothing_that_was_flushed() {
        let mut disk = disk_with(&[1, 2]);
        assert_eq!(outcomes(&disk), [0, 1, 2].into());
        assert_eq!(disk.possible()[0], [0, 1, 2]);
        disk.flush(disk.landed());
        disk.write(FIRST, [3].into_iter());
        assert_eq!(outcomes(&disk), [2, 3].into());
    }

    #[test]
    fn a_flush_covers_only_what_had_landed_when_it_began() {
        let mut disk = disk_with(&[1]);
        let landed = disk.landed();
        disk.write(FIRST, [2].into_iter());
        disk.flush(landed);
        assert_eq!(outcomes(&disk), [1, 2].into());
    }

    #[test]
    fn a_durable_write_stays_and_is_not_overtaken_by_older_ones() {
        let mut disk = disk_with(&[1]);
        disk.write_durably(FIRST, [2].into_iter());
        assert_eq!(outcomes(&disk), [2].into());
    }

    #[test]
    fn a_loss_of_power_may_leave_blocks_half_old_half_new() {
        let mut disk = disk_with(&[1]);
        disk.flush(disk.landed());
        disk.write(FIRST, [2].into_iter());
        let torn = &mut Torn::default();
        disk.lose_power(&mut Tearing { rate: 1000, torn }, &mut Rng::new(1));
        let left = disk.live()[0];
        assert!(left == 1 || torn.parts(left) == Some((1, 2)), "{left}");
        assert_eq!(torn.parts(2), None);
    }

    #[test]
    fn a_failed_flush_leaves_writes_that_no_later_flush_covers() {
        let lost = (0..50).any(|seed| {
            let mut disk = disk_with(&[1]);
            disk.fail_flush(disk.landed(), &mut Rng::new(seed));
            disk.flush(disk.landed());
            assert_eq!(disk.live()[0], 1, "a read still finds it");
            outcomes(&disk) == [0].into()
        });
        assert!(lost);
    }

    #[test]
    fn a_torn_write_to_the_cluster_partition_leaves_whole_sectors_but_for_one() {
        let (mut torn, mut garbled) = (0, 0);
        for seed in 0..50 {
            let mut disk = ClusterDisk::new(8192);
            disk.write(4096, &[1; 4096]);
            disk.tear(4096, &[7; 4096], &mut Rng::new(seed));
            let sectors = disk.read(4096, 4096).chunks(512);
            let whole = |byte: u8| sectors.clone().filter(|s| s.iter().all(|b| *b == byte)).count();
            let (old, new) = (whole(1), whole(7));
            assert!(old + new >= 7, "one sector at most is neither old nor new");
            torn += usize::from(old > 0 && new > 0);
            garbled += usize::from(old + new == 7);
        }
        assert!(torn > 0 && garbled > 0);
    }

    #[test]
    fn rot_changes_one_bit_where_it_was_asked_for() {
        let mut disk = ClusterDisk::new(8192);
        disk.rot(4096, 4096, &mut Rng::new(3));
        assert!(disk.read(0, 4096).iter().all(|b| *b == 0));
        let bits: u32 = disk.read(4096, 4096).iter().map(|b| b.count_ones()).sum();
        assert_eq!(bits, 1);
    }

    #[test]
    fn payloads_carry_their_stamps() {
        let extent = Extent::new(4096, 3 * 4096);
        assert_eq!(blocks(extent), 1..4);
        assert_eq!(stamps(&payload(extent, 9)).collect::<Vec<_>>(), [9, 9, 9]);
    }
}
