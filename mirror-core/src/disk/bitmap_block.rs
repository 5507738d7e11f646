//! The image of one bitmap block: a header, then one bit per region.
//!
//! There is one copy only. A block that does not verify is not an error: all its regions count as
//! marked (rule 10), which costs a copy of them and no data.

use super::layout::BLOCK_BYTES;
use super::{array_at, crc_without, put, u32_at, u64_at};
use crate::buf::{Buf, BufMut};
use crate::units::Id16;

const MAGIC: [u8; 8] = *b"nmp-bits";
/// Version of the block's format.
pub const VERSION: u32 = 1;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const CRC_AT: usize = VERSION_AT + 4;
const INDEX_AT: usize = CRC_AT + 4;
const DEVICE_AT: usize = INDEX_AT + 4;
const RESERVED_AT: usize = DEVICE_AT + 16;
const BITS_AT: usize = RESERVED_AT + 28;

/// 64-bit words of marks in one block.
pub const WORDS_PER_BLOCK: usize = (BLOCK_BYTES - BITS_AT) / 8;
/// Regions that one block covers.
pub const REGIONS_PER_BLOCK: u32 = 32_256;

const _: () = assert!(BITS_AT == 64 && BITS_AT % 8 == 0);
const _: () = assert!(WORDS_PER_BLOCK * 8 + BITS_AT == BLOCK_BYTES);
const _: () = assert!(REGIONS_PER_BLOCK as usize == WORDS_PER_BLOCK * 64);

/// The image of block `index` on the partition `device`. Missing words are written as zero; words
/// beyond [`WORDS_PER_BLOCK`] are not taken.
#[must_use]
pub fn encode(device: Id16, index: u32, words: &[u64]) -> Buf {
    let mut image = BufMut::zeroed(BLOCK_BYTES);
    put(&mut image, MAGIC_AT, &MAGIC);
    put(&mut image, VERSION_AT, &VERSION.to_le_bytes());
    put(&mut image, INDEX_AT, &index.to_le_bytes());
    put(&mut image, DEVICE_AT, &device.0);
    for (slot, word) in image[BITS_AT..].chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc_without(&image, CRC_AT);
    put(&mut image, CRC_AT, &crc.to_le_bytes());
    image.freeze()
}

/// Whether `image` is an undamaged block `index` of `device`, in this version.
#[must_use]
pub fn verify(device: Id16, index: u32, image: &[u8]) -> bool {
    image.len() == BLOCK_BYTES
        && image.starts_with(&MAGIC)
        && u32_at(image, VERSION_AT) == VERSION
        && u32_at(image, INDEX_AT) == index
        && array_at(image, DEVICE_AT) == device.0
        && image[RESERVED_AT..BITS_AT].iter().all(|b| *b == 0)
        && u32_at(image, CRC_AT) == crc_without(image, CRC_AT)
}

/// Word `word` (below [`WORDS_PER_BLOCK`]) of a block that [`verify`] found good or [`encode`]
/// made.
#[must_use]
pub fn word(image: &[u8], word: usize) -> u64 {
    u64_at(image, BITS_AT + word * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Id16 = Id16([7; 16]);

    #[test]
    fn the_image_is_pinned() {
        let image = encode(DEVICE, 0x0102_0304, &[0x8000_0000_0000_0001, 2]);
        let header: String = image[..80].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            header,
            "6e6d702d62697473010000000ce837b504030201\
             07070707070707070707070707070707\
             00000000000000000000000000000000000000000000000000000000\
             01000000000000800200000000000000"
        );
        assert!(image[80..].iter().all(|b| *b == 0));
    }

    #[test]
    fn words_come_back() {
        let words: Vec<u64> = (0..WORDS_PER_BLOCK as u64).map(|n| n * 0x0101_0101).collect();
        let image = encode(DEVICE, 3, &words);
        assert!(verify(DEVICE, 3, &image));
        assert!(words.iter().enumerate().all(|(n, w)| word(&image, n) == *w));
    }

    #[test]
    fn foreign_misplaced_short_and_blank_blocks_are_refused() {
        let image = encode(DEVICE, 3, &[5]);
        assert!(!verify(Id16([8; 16]), 3, &image));
        assert!(!verify(DEVICE, 4, &image));
        assert!(!verify(DEVICE, 3, &image[..4095]));
        assert!(!verify(DEVICE, 3, &[]));
        assert!(!verify(DEVICE, 0, &[0; BLOCK_BYTES]));
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let mut image = encode(DEVICE, 3, &[5, 6]).to_vec();
        for at in 0..BLOCK_BYTES {
            image[at] ^= 0x10;
            assert!(!verify(DEVICE, 3, &image), "byte {at}");
            image[at] ^= 0x10;
        }
    }

    #[test]
    fn a_newer_version_or_used_reserve_is_refused_although_the_checksum_is_good() {
        for at in [VERSION_AT, RESERVED_AT, BITS_AT - 1] {
            let mut image = encode(DEVICE, 3, &[5]).to_vec();
            image[at] += 1;
            let crc = crc_without(&image, CRC_AT);
            put(&mut image, CRC_AT, &crc.to_le_bytes());
            assert!(!verify(DEVICE, 3, &image), "byte {at}");
        }
    }
}
