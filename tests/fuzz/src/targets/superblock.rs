//! The two copies of the superblock.

use crate::input::Input;
use mirror_core::disk::layout::BLOCK_BYTES;
use mirror_core::disk::superblock::{Loaded, encode, load, repairs};
use mirror_core::record::NUMBER_MAX;

/// What the input says of one copy: the content, and what is done to make it look good.
pub(crate) fn copy(input: &mut Input<'_>) -> Vec<u8> {
    let how = input.u8();
    if how & 0xf0 == 0xf0 {
        return Vec::new(); // it cannot be read
    }
    let mut image = vec![0; BLOCK_BYTES];
    let len = input.below(545);
    let head = input.bytes(len);
    image[..head.len()].copy_from_slice(head);
    if how & 1 == 0 {
        image[..8].copy_from_slice(b"nmp-side");
    }
    if how & 2 == 0 {
        image[8..12].copy_from_slice(&1_u32.to_le_bytes());
    }
    if how & 4 != 0 {
        let at = input.below(BLOCK_BYTES);
        image[at] ^= input.u8();
    }
    if how & 8 == 0 {
        seal(&mut image);
    }
    image
}

/// Gives an image the checksum of its content.
pub(crate) fn seal(image: &mut [u8]) {
    image[12..16].fill(0);
    let crc = crc32fast::hash(image);
    image[12..16].copy_from_slice(&crc.to_le_bytes());
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let a = copy(&mut input);
    let b = if input.u8() & 3 == 3 { a.clone() } else { copy(&mut input) };
    let loaded = load(&a, &b);
    let Loaded::Valid { record, repair } = loaded else { return };
    assert!(record.highest_number().max(record.seq) <= NUMBER_MAX, "it could not count on");
    let image = encode(&record);
    assert!(*image == *a || *image == *b, "a record has one spelling only");
    assert_eq!(repair, a != b);
    let (mut a, mut b) = (a, b);
    for (offset, bytes) in repairs(&record, &a, &b) {
        if offset == 0 { a = bytes.to_vec() } else { b = bytes.to_vec() }
    }
    assert_eq!(load(&a, &b), Loaded::Valid { record, repair: false }, "repairs repair");
}
