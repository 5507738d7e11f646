//! A plain set of regions, one bit each, with its size always known.

use crate::buf::{Buf, BufMut};
use bitvec::order::Lsb0;
use bitvec::vec::BitVec;
use std::ops::Range;

/// Regions in one word of a [`Bitmap`].
pub(crate) const WORD_BITS: u32 = 64;

/// A set of the regions `0..len()`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitmap {
    /// Bit n of the vector is region n; the bits of the last word beyond the end stay zero.
    bits: BitVec<u64, Lsb0>,
    count: u32,
}

/// Bytes that are no part of this bitmap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImportError {
    /// The first region is not at a byte boundary.
    #[error("marks begin at region {0}, which is not a multiple of 8")]
    Misaligned(u32),
    /// A bit is set for a region that does not exist.
    #[error("marks reach beyond the last of {regions} regions")]
    BeyondEnd {
        /// Regions that exist.
        regions: u32,
    },
}

impl Bitmap {
    /// The empty set over `regions` regions.
    #[must_use]
    pub fn new(regions: u32) -> Self {
        Self { bits: BitVec::repeat(false, regions as usize), count: 0 }
    }

    /// Makes room for `regions` regions; the new ones are not set. Never shrinks.
    pub fn grow(&mut self, regions: u32) {
        if regions > self.len() {
            self.bits.resize(regions as usize, false);
        }
    }

    /// How many regions there are, set or not.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.bits.len()).expect("made from a u32")
    }

    /// Whether there are no regions at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    /// How many regions are set; costs nothing.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether `region` is set; false beyond the end.
    #[must_use]
    pub fn get(&self, region: u32) -> bool {
        self.bits.get(region as usize).is_some_and(|bit| *bit)
    }

    /// Whether every region of `range` is set. A range that reaches beyond the end is not; an
    /// empty one is.
    #[must_use]
    pub fn all(&self, range: Range<u32>) -> bool {
        range.is_empty() || self.bits.get(as_usize(&range)).is_some_and(|bits| bits.all())
    }

    /// Sets the regions of `range`; what lies beyond the end is left out.
    pub fn set(&mut self, range: Range<u32>) {
        self.fill(range, true);
    }

    /// Clears the regions of `range`.
    pub fn clear(&mut self, range: Range<u32>) {
        self.fill(range, false);
    }

    fn fill(&mut self, range: Range<u32>, value: bool) {
        let range = self.within(&range);
        let length = u32::try_from(range.len()).expect("within the bitmap");
        let bits = &mut self.bits[range];
        self.count -= u32::try_from(bits.count_ones()).expect("at most all");
        bits.fill(value);
        self.count += if value { length } else { 0 };
    }

    /// The first set region that is not before `from`.
    #[must_use]
    pub fn next_set(&self, from: u32) -> Option<u32> {
        self.next_set_in(from..self.len())
    }

    /// The first set region in `range`.
    #[must_use]
    pub fn next_set_in(&self, range: Range<u32>) -> Option<u32> {
        let within = self.within(&range);
        let start = within.start;
        let distance = self.bits[within].first_one()?;
        Some(u32::try_from(start + distance).expect("within the bitmap"))
    }

    /// The set regions, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.bits.iter_ones().map(|n| u32::try_from(n).expect("within the bitmap"))
    }

    /// Adds the regions of `other`, as far as they exist here.
    pub fn union(&mut self, other: &Self) {
        let words = self.words().len().min(other.words().len());
        for index in 0..words {
            let both = self.words()[index] | other.words()[index];
            self.set_word(index, both);
        }
    }

    /// The bits as words, region 0 in the lowest bit of the first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        self.bits.as_raw_slice()
    }

    /// Replaces word `index`; bits beyond the end are dropped.
    ///
    /// # Panics
    /// If there is no such word.
    pub fn set_word(&mut self, index: usize, word: u64) {
        let valid = word & self.valid_bits(index);
        let slot = &mut self.bits.as_raw_mut_slice()[index];
        self.count = self.count - slot.count_ones() + valid.count_ones();
        *slot = valid;
    }

    /// The bits of word `index` that stand for regions.
    #[must_use]
    pub fn valid_bits(&self, index: usize) -> u64 {
        match self.bits.len().saturating_sub(index * WORD_BITS as usize) {
            0 => 0,
            rest if rest < WORD_BITS as usize => (1 << rest) - 1,
            _ => u64::MAX,
        }
    }

    /// The next stretch of at most `max_bytes` bytes that has set regions, at or after region
    /// `from` (a multiple of 8, or it is rounded down): its first region, a multiple of 8, and its
    /// bits, region by region from bit 0 of byte 0. The first and the last byte are not zero.
    #[must_use]
    pub fn next_chunk(&self, from: u32, max_bytes: usize) -> Option<(u32, Buf)> {
        let first_byte = self.next_set(from / 8 * 8)? / 8;
        let total = self.bits.len().div_ceil(8);
        let end = total.min((first_byte as usize).saturating_add(max_bytes.max(1)));
        let bytes: Vec<u8> = (first_byte as usize..end).map(|at| self.byte(at)).collect();
        let used = bytes.iter().rposition(|b| *b != 0)? + 1;
        Some((first_byte * 8, Buf::copied_from(&bytes[..used])))
    }

    /// The bits of all regions from `first_region` (a multiple of 8, or it is rounded down), for
    /// `bytes` bytes; zero beyond the end.
    #[must_use]
    pub fn export(&self, first_region: u32, bytes: usize) -> Buf {
        let first = (first_region / 8) as usize;
        let mut out = BufMut::zeroed(bytes);
        for (offset, byte) in out.iter_mut().enumerate() {
            *byte = self.byte(first + offset);
        }
        out.freeze()
    }

    /// Adds the regions whose bits are set in `bytes`, bit 0 of byte 0 being `first_region`.
    ///
    /// # Errors
    /// [`ImportError`]; nothing has been added then.
    pub fn import(&mut self, first_region: u32, bytes: &[u8]) -> Result<(), ImportError> {
        if first_region % 8 != 0 {
            return Err(ImportError::Misaligned(first_region));
        }
        let first = (first_region / 8) as usize;
        let beyond = |(at, byte): (usize, &u8)| byte & !self.valid_byte(first + at) != 0;
        if bytes.iter().enumerate().any(beyond) {
            return Err(ImportError::BeyondEnd { regions: self.len() });
        }
        for (at, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            let (index, shift) = word_of_byte(first + at);
            self.set_word(index, self.words()[index] | u64::from(*byte) << shift);
        }
        Ok(())
    }

    fn byte(&self, at: usize) -> u8 {
        let (index, shift) = word_of_byte(at);
        low_byte(self.words().get(index).map_or(0, |word| word >> shift))
    }

    fn valid_byte(&self, at: usize) -> u8 {
        let (index, shift) = word_of_byte(at);
        low_byte(self.valid_bits(index) >> shift)
    }

    fn within(&self, range: &Range<u32>) -> Range<usize> {
        let end = range.end.min(self.len()) as usize;
        (range.start as usize).min(end)..end
    }
}

fn as_usize(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

fn word_of_byte(at: usize) -> (usize, usize) {
    (at / 8, at % 8 * 8)
}

fn low_byte(word: u64) -> u8 {
    word.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn bit_0_of_byte_0_comes_first() {
        let mut bitmap = Bitmap::new(100);
        bitmap.set(0..1);
        bitmap.set(9..10);
        bitmap.set(99..100);
        assert_eq!(&bitmap.export(0, 2)[..], &[0x01, 0x02]);
        assert_eq!(&bitmap.export(8, 1)[..], &[0x02]);
        assert_eq!(bitmap.words(), &[0x201, 1 << 35]);
    }

    #[test]
    fn chunks_skip_what_is_empty() {
        let mut bitmap = Bitmap::new(1 << 20);
        bitmap.set(1000..1001);
        bitmap.set(1_000_000..1_000_001);
        let (first, bits) = bitmap.next_chunk(0, 64).expect("two marks");
        assert_eq!((first, &bits[..]), (1000, &[1_u8][..]));
        let (first, bits) = bitmap.next_chunk(first + 8 * 64, 64).expect("one more");
        assert_eq!((first, &bits[..]), (1_000_000, &[1_u8][..]));
        assert!(bitmap.next_chunk(first + 8, 64).is_none());
    }

    #[test]
    fn bytes_that_do_not_belong_here_change_nothing() {
        let mut bitmap = Bitmap::new(12);
        assert_eq!(bitmap.import(4, &[1]), Err(ImportError::Misaligned(4)));
        let beyond = Err(ImportError::BeyondEnd { regions: 12 });
        assert_eq!(bitmap.import(0, &[0xff, 0x10]), beyond);
        assert_eq!(bitmap.import(0, &[0xff, 0, 0, 0, 0, 0, 0, 0, 0, 1]), beyond);
        assert_eq!(bitmap.import(u32::MAX - 7, &[1]), beyond);
        assert_eq!(bitmap.count(), 0);
        assert_eq!(bitmap.import(8, &[0x0f, 0]), Ok(()));
        assert_eq!(bitmap.iter().collect::<Vec<_>>(), [8, 9, 10, 11]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Set(Range<u32>),
        Clear(Range<u32>),
        Import(u32, Vec<u8>),
        Union(BTreeSet<u32>),
        Word(usize, u64),
    }

    fn op(regions: u32) -> impl Strategy<Value = Op> {
        let range = (0..regions + 70, 0..130_u32).prop_map(|(at, len)| at..at + len);
        let words = regions.div_ceil(WORD_BITS) as usize;
        prop_oneof![
            range.clone().prop_map(Op::Set),
            range.prop_map(Op::Clear),
            (0..regions / 8 + 2, prop::collection::vec(any::<u8>(), 0..20))
                .prop_map(|(byte, bytes)| Op::Import(byte * 8, bytes)),
            prop::collection::btree_set(0..regions, 0..20).prop_map(Op::Union),
            (0..words, any::<u64>()).prop_map(|(index, word)| Op::Word(index, word)),
        ]
    }

    fn bits_of(bytes: &[u8], first: u32) -> BTreeSet<u32> {
        let bits = (0_u32..).zip(bytes).flat_map(|(at, byte)| {
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| first + at * 8 + bit)
        });
        bits.collect()
    }

    fn apply(op: Op, bitmap: &mut Bitmap, oracle: &mut BTreeSet<u32>) {
        let regions = bitmap.len();
        match op {
            Op::Set(range) => {
                oracle.extend(range.clone().filter(|r| *r < regions));
                bitmap.set(range);
            }
            Op::Clear(range) => {
                oracle.retain(|r| !range.contains(r));
                bitmap.clear(range);
            }
            Op::Import(first, bytes) => {
                let new = bits_of(&bytes, first);
                let fits = new.iter().all(|r| *r < regions);
                assert_eq!(bitmap.import(first, &bytes).is_ok(), fits);
                oracle.extend(new.into_iter().filter(|_| fits));
            }
            Op::Union(set) => {
                let mut other = Bitmap::new(regions);
                set.iter().for_each(|r| other.set(*r..r + 1));
                bitmap.union(&other);
                oracle.extend(set);
            }
            Op::Word(index, word) => {
                bitmap.set_word(index, word);
                let first = u32::try_from(index).expect("small") * WORD_BITS;
                oracle.retain(|r| !(first..first + WORD_BITS).contains(r));
                oracle.extend(
                    bits_of(&word.to_le_bytes(), first).into_iter().filter(|r| *r < regions),
                );
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set(
            (regions, ops) in (1_u32..300)
                .prop_flat_map(|n| (Just(n), prop::collection::vec(op(n), 0..30))),
            probe in 0_u32..400,
            length in 0_u32..100,
        ) {
            let mut bitmap = Bitmap::new(regions);
            let mut oracle = BTreeSet::new();
            for op in ops {
                apply(op, &mut bitmap, &mut oracle);
                prop_assert_eq!(bitmap.iter().collect::<BTreeSet<_>>(), oracle.clone());
                prop_assert_eq!(bitmap.count() as usize, oracle.len());
                prop_assert_eq!(bitmap.get(probe), oracle.contains(&probe));
                prop_assert_eq!(bitmap.next_set(probe), oracle.range(probe..).next().copied());
                let range = probe..probe + length;
                prop_assert_eq!(bitmap.all(range.clone()), range.clone().all(|r| oracle.contains(&r)));
                prop_assert_eq!(bitmap.next_set_in(range.clone()), oracle.range(range).next().copied());
            }
        }

        #[test]
        fn what_is_exported_in_chunks_is_imported_the_same(
            set in prop::collection::btree_set(0_u32..5000, 0..50),
            max in 1_usize..100,
        ) {
            let mut bitmap = Bitmap::new(5000);
            set.iter().for_each(|r| bitmap.set(*r..r + 1));
            let mut copy = Bitmap::new(5000);
            let mut at = 0;
            while let Some((first, bits)) = bitmap.next_chunk(at, max) {
                prop_assert!(first >= at && first % 8 == 0 && bits.len() <= max);
                prop_assert_eq!(&bitmap.export(first, bits.len()), &bits);
                copy.import(first, &bits).expect("own bytes");
                at = first + u32::try_from(bits.len()).expect("small") * 8;
            }
            prop_assert_eq!(copy, bitmap);
        }
    }
}
