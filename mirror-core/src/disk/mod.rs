//! The bytes of the cluster partition (`docs/on-disk.md`): where things lie, and their images.
//!
//! Nothing here reads or writes; the agent and the tools hand bytes in and take bytes out, so both
//! judge a partition by the same code.

pub mod bitmap_block;
pub mod layout;
pub mod superblock;

/// The four bytes at `at`. The caller has checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// The eight bytes at `at`. The caller has checked the length.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// CRC-32 of a block, its own four bytes at `crc_at` counted as zero.
fn crc_without(bytes: &[u8], crc_at: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..crc_at]);
    hasher.update(&[0; 4]);
    hasher.update(&bytes[crc_at + 4..]);
    hasher.finalize()
}
