//! Where things lie on the cluster partition: two copies of the superblock, then the bitmap.
//!
//! ```text
//! 0         superblock, copy A            4 KiB
//! 64 KiB    superblock, copy B            4 KiB
//! 128 KiB   bitmap, in blocks of          4 KiB
//! ```
//!
//! The copies are 64 KiB apart so that one bad spot or one internal page of a flash disk does not
//! take both.

use super::bitmap_block::REGIONS_PER_BLOCK;
use crate::units::{MAX_MIRROR_BYTES, REGION_BYTES, regions_in};

/// Bytes of each superblock copy and each bitmap block: the unit of every write here.
pub const BLOCK_BYTES: usize = 4096;
/// [`BLOCK_BYTES`] as a disk offset.
const BLOCK: u64 = 4096;
/// Distance between the two copies of the superblock.
const COPY_DISTANCE: u64 = 64 * 1024;

/// Byte offset of the superblock's copy A.
pub const SUPERBLOCK_A: u64 = 0;
/// Byte offset of the superblock's copy B.
pub const SUPERBLOCK_B: u64 = SUPERBLOCK_A + COPY_DISTANCE;
/// Byte offset of bitmap block 0.
pub const BITMAP: u64 = SUPERBLOCK_B + COPY_DISTANCE;

const _: () = assert!(BLOCK == BLOCK_BYTES as u64);
const _: () = assert!(SUPERBLOCK_A + BLOCK <= SUPERBLOCK_B && SUPERBLOCK_B + BLOCK <= BITMAP);
const _: () = assert!(SUPERBLOCK_B % BLOCK == 0 && BITMAP % BLOCK == 0);

/// The cluster partition is too small for the mirror.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the cluster partition has {have} bytes, this mirror needs {needed} bytes")]
pub struct TooSmall {
    /// Bytes that the mirror needs there.
    pub needed: u64,
    /// Bytes that are there.
    pub have: u64,
}

/// How many regions one bitmap block covers, in bytes of the mirror.
pub const BLOCK_COVERS: u64 = REGIONS_PER_BLOCK as u64 * REGION_BYTES;

/// How many bitmap blocks a mirror of `regions` regions has.
#[must_use]
pub const fn blocks_for(regions: u32) -> u32 {
    regions.div_ceil(REGIONS_PER_BLOCK)
}

/// Bytes that the cluster partition of a mirror of `mirror_size` bytes must have.
#[must_use]
pub fn required_bytes(mirror_size: u64) -> u64 {
    BITMAP + u64::from(blocks_for(regions_in(mirror_size))) * BLOCK
}

/// The largest mirror, in bytes, that a cluster partition of `len` bytes has room for.
#[must_use]
pub const fn room(len: u64) -> u64 {
    let room = (len.saturating_sub(BITMAP) / BLOCK).saturating_mul(BLOCK_COVERS);
    if room < MAX_MIRROR_BYTES { room } else { MAX_MIRROR_BYTES }
}

/// Byte offset of bitmap block `index` on the cluster partition.
#[must_use]
pub const fn bitmap_block_offset(index: u32) -> u64 {
    BITMAP + index as u64 * BLOCK
}

/// The layout of one cluster partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    regions: u32,
}

impl Layout {
    /// The layout for a mirror of `mirror_size` bytes on a cluster partition of
    /// `cluster_partition_len` bytes.
    ///
    /// # Errors
    /// [`TooSmall`] with both sizes in bytes.
    pub fn new(mirror_size: u64, cluster_partition_len: u64) -> Result<Self, TooSmall> {
        let needed = required_bytes(mirror_size);
        if cluster_partition_len < needed {
            return Err(TooSmall { needed, have: cluster_partition_len });
        }
        Ok(Self { regions: regions_in(mirror_size) })
    }

    /// Regions of the mirror.
    #[must_use]
    pub const fn regions(self) -> u32 {
        self.regions
    }

    /// Blocks of the bitmap.
    #[must_use]
    pub const fn bitmap_blocks(self) -> u32 {
        blocks_for(self.regions)
    }

    /// Bytes of the bitmap, from [`BITMAP`] on.
    #[must_use]
    pub const fn bitmap_bytes(self) -> u64 {
        self.bitmap_blocks() as u64 * BLOCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_one_another_without_a_gap() {
        assert_eq!((SUPERBLOCK_A, SUPERBLOCK_B, BITMAP), (0, 65_536, 131_072));
        assert_eq!(bitmap_block_offset(0), BITMAP);
        assert_eq!(bitmap_block_offset(7) + 4096, bitmap_block_offset(8));
    }

    #[test]
    fn the_size_grows_by_one_block_at_a_block_boundary() {
        assert_eq!(required_bytes(0), BITMAP);
        assert_eq!(required_bytes(1), BITMAP + 4096);
        assert_eq!(required_bytes(BLOCK_COVERS), BITMAP + 4096);
        assert_eq!(required_bytes(BLOCK_COVERS + 1), BITMAP + 2 * 4096);
    }

    #[test]
    fn the_sizes_in_the_documentation_are_right() {
        let doc = include_str!("../../../docs/on-disk.md");
        for (name, size) in
            [("1 GiB", 1 << 30), ("100 GiB", 100 << 30), ("1 TiB", 1 << 40), ("16 TiB", 16 << 40)]
        {
            let row = doc.lines().find(|l| l.starts_with(&format!("| {name} |"))).expect(name);
            let digits: String = row.chars().filter(|c| *c != ',').collect();
            assert!(digits.contains(&format!("| {} |", required_bytes(size))), "{row}");
        }
    }

    #[test]
    fn the_largest_mirror_fits_in_the_numbers() {
        let layout = Layout::new(MAX_MIRROR_BYTES, u64::MAX).expect("large enough");
        assert_eq!(u64::from(layout.regions()) * REGION_BYTES, MAX_MIRROR_BYTES);
        assert_eq!(BITMAP + layout.bitmap_bytes(), required_bytes(MAX_MIRROR_BYTES));
    }

    #[test]
    fn the_room_is_what_the_layout_takes() {
        for len in [0, BITMAP, BITMAP + 4095, BITMAP + 4096, BITMAP + 10 * 4096, 1 << 20] {
            let room = room(len);
            assert!(room == 0 || Layout::new(room, len).is_ok(), "{len}");
            assert!(Layout::new(room + 1, len).is_err(), "{len}");
        }
        assert_eq!(room(u64::MAX), MAX_MIRROR_BYTES);
    }

    #[test]
    fn too_small_names_both_numbers() {
        let needed = required_bytes(1 << 40);
        assert!(Layout::new(1 << 40, needed).is_ok());
        let refused = Layout::new(1 << 40, needed - 1).expect_err("one byte short");
        assert_eq!(refused, TooSmall { needed, have: needed - 1 });
        let text = refused.to_string();
        assert!(text.contains(&needed.to_string()), "{text}");
        assert!(text.contains(&(needed - 1).to_string()), "{text}");
    }
}
