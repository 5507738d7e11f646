//! The bitmap: single blocks, and all of them as an agent loads them.

use super::superblock::seal;
use crate::input::Input;
use mirror_core::disk::bitmap_block::{REGIONS_PER_BLOCK, WORDS_PER_BLOCK, encode, verify, word};
use mirror_core::disk::layout::{BLOCK_BYTES, blocks_for};
use mirror_core::marks::Marks;
use mirror_core::units::Id16;

const DEVICE: Id16 = Id16([0xd1; 16]);
/// Most blocks of one input.
const BLOCKS_MAX: usize = 3;

/// Appends block `index` as the input wants it: good but for what it changes.
pub(crate) fn block(input: &mut Input<'_>, device: Id16, index: u32) -> Vec<u8> {
    let how = input.u8();
    let words: Vec<u64> = (0..how & 7).map(|_| input.u64()).collect();
    let mut image = encode(device, index, &words).to_vec();
    if how & 8 != 0 {
        let at = input.below(72);
        image[at] = input.u8();
    }
    if how & 16 != 0 {
        let at = input.below(BLOCK_BYTES);
        image[at] ^= input.u8();
    }
    if how & 32 == 0 {
        seal(&mut image);
    }
    if how & 0xc0 == 0xc0 {
        image.truncate(input.below(BLOCK_BYTES));
    }
    image
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let regions = match input.u8() & 3 {
        0 => u32::from(input.u16()),
        1 => REGIONS_PER_BLOCK * u32::from(input.u8() % 4),
        _ => REGIONS_PER_BLOCK + u32::from(input.u16() % 2048),
    };
    let images: Vec<Vec<u8>> =
        (0..BLOCKS_MAX).map(|n| block(&mut input, DEVICE, number(n))).collect();
    for (n, image) in images.iter().enumerate() {
        check_block(number(n), image);
    }
    check_load(regions, &images.concat());
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("few")
}

fn check_block(index: u32, image: &[u8]) {
    if !verify(DEVICE, index, image) {
        return;
    }
    let words: Vec<u64> = (0..WORDS_PER_BLOCK).map(|n| word(image, n)).collect();
    assert_eq!(*encode(DEVICE, index, &words), *image, "a block has one spelling only");
    assert!(!verify(DEVICE, index + 1, image) && !verify(Id16([1; 16]), index, image));
}

/// Whatever is there, the marks come to rest and are then read back as they were.
pub(crate) fn check_load(regions: u32, bytes: &[u8]) {
    let (mut marks, damaged) = Marks::load(DEVICE, regions, bytes);
    let blocks = blocks_for(regions);
    assert!(damaged <= blocks && marks.regions() == regions);
    assert!(marks.wanted_count() <= regions);
    let mut disk = vec![0; blocks as usize * BLOCK_BYTES];
    let kept = bytes.len().min(disk.len());
    disk[..kept].copy_from_slice(&bytes[..kept]);
    let first = marks.wanted().words().to_vec();
    let mut writes = 0;
    while let Some(write) = marks.next_write() {
        let at = write.block as usize * BLOCK_BYTES;
        disk[at..at + BLOCK_BYTES].copy_from_slice(&write.bytes);
        marks.write_done(write.block, true);
        writes += 1;
    }
    assert_eq!(writes, damaged, "just what was damaged is written");
    let (again, damaged) = Marks::load(DEVICE, regions, &disk);
    assert_eq!((again.wanted().words(), damaged), (first.as_slice(), 0));
}
