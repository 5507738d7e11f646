//! Records and marks as the disk has them.

use mirror_core::disk::superblock::encode;
use mirror_core::record::{Inconsistent, Record};
use mirror_core::units::{ActivationNo, Generation, Id16, SessionNo, Side};

const DEVICE: Id16 = Id16([0xd1; 16]);
/// Bytes of a copy that an input spells out, and their number as the target reads it.
const COPY_BYTES: usize = 544;

fn records() -> Vec<Record> {
    let blank = Record::blank(DEVICE, Side::First);
    let whole = Record {
        seq: 9,
        mirror: Id16([0xa0; 16]),
        size: 3 << 30,
        block: 512,
        generation: Generation::new(5),
        bases: [Generation::new(5), None],
        ancestors: (1..5).filter_map(Generation::new).collect(),
        overruled: (7..9).filter_map(Generation::new).collect(),
        session: SessionNo(3),
        activation: ActivationNo(2),
        known_activation: ActivationNo(2),
        active: true,
        ..Record::blank(DEVICE, Side::Second)
    };
    let forced = Record {
        seq: 10,
        forced_at: Some(ActivationNo(3)),
        owes_all: true,
        behind: true,
        ..whole.clone()
    };
    let half = Record {
        seq: 11,
        size: 24 * 65_536,
        inconsistent: Generation::new(6).map(|toward| Inconsistent { toward, all: true }),
        ..whole.clone()
    };
    let counted = Record { seq: 1 << 63, session: SessionNo(1 << 63), ..whole.clone() };
    vec![blank, whole, forced, half, counted]
}

fn copy(record: &Record) -> Vec<u8> {
    let len = u16::try_from(COPY_BYTES).expect("short").to_le_bytes();
    [&[0], &len[..], &encode(record)[..COPY_BYTES]].concat()
}

pub(super) fn superblocks() -> Vec<Vec<u8>> {
    let records = records();
    let mut seeds: Vec<_> = records.iter().map(|r| [copy(r), vec![3]].concat()).collect();
    seeds.extend(records.windows(2).map(|w| [copy(&w[0]), vec![0], copy(&w[1])].concat()));
    // Numbers that nobody can count on from.
    let mut full = copy(&records[1]);
    full[3 + 16..3 + 24].fill(0xff);
    seeds.push([full, vec![3]].concat());
    seeds
}

pub(super) fn bitmaps() -> Vec<Vec<u8>> {
    let words = [1_u64, u64::MAX, 1 << 63, 0].map(u64::to_le_bytes).concat();
    let block = [&[4], &words[..]].concat();
    vec![
        [&[0, 200, 0], &block[..]].concat(),
        [&[1, 2], &block[..], &block].concat(),
        [&[2, 1, 1], &block[..], &[12, 9, 9], &words[..]].concat(),
        vec![0, 0, 8, 0xe0, 0, 0],
    ]
}

pub(super) fn partitions() -> Vec<Vec<u8>> {
    let bitmap = bitmaps()[1][2..].to_vec();
    records()
        .iter()
        .flat_map(|r| [0, 1].map(|how| [copy(r), vec![1], bitmap.clone(), vec![how]].concat()))
        .chain(superblocks().into_iter().map(|s| [s, bitmap.clone()].concat()))
        .filter(|seed| seed.len() <= 1200)
        .collect()
}
