//! Whatever part of the writes under way has reached the cluster partition, what is read back is
//! the record before or after them, and no mark that was promised is missing.
//!
//! A real mirror runs through a history. Before each end of a write, power is lost in every way:
//! each subset of the sectors of each write under way has landed.

mod history;

use history::{History, Write};
use mirror_core::disk::layout::{BITMAP, SUPERBLOCK_A, SUPERBLOCK_B};
use mirror_core::disk::superblock::{self, Loaded};
use mirror_core::marks::Marks;
use mirror_core::record::Record;
use mirror_core::units::regions_in;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;

/// The sectors in which a write differs from what is there: the others cannot be seen.
fn changed(image: &[u8], write: &Write) -> Vec<usize> {
    let at = write.offset;
    (0..write.bytes.len() / SECTOR)
        .filter(|n| {
            let range = n * SECTOR..(n + 1) * SECTOR;
            image[at + range.start..at + range.end] != write.bytes[range]
        })
        .collect()
}

/// Calls `check` with the partition after every subset of what is under way. A sector of a block
/// may also be half written, which its checksum shows like any other damage: each is garbled once.
fn every_loss(history: &History, mut check: impl FnMut(&[u8])) -> usize {
    let sectors: Vec<(usize, &[u8])> = history
        .under_way()
        .flat_map(|write| {
            changed(history.image(), write).into_iter().map(move |n| {
                (write.offset + n * SECTOR, &write.bytes[n * SECTOR..(n + 1) * SECTOR])
            })
        })
        .collect();
    assert!(sectors.len() <= 12, "more sectors than can be tried: {}", sectors.len());
    let mut seen = 0;
    for subset in 0..1_u32 << sectors.len() {
        let mut image = history.image().to_vec();
        for (n, (offset, bytes)) in sectors.iter().enumerate() {
            if subset >> n & 1 == 1 {
                image[*offset..offset + SECTOR].copy_from_slice(bytes);
            }
        }
        check(&image);
        for (offset, _) in &sectors {
            let mut garbled = image.clone();
            garbled[offset + 17] ^= 0x55;
            check(&garbled);
        }
        seen += 1 + sectors.len();
    }
    seen
}

fn copy(image: &[u8], offset: u64) -> &[u8] {
    let at = usize::try_from(offset).expect("small");
    &image[at..at + BLOCK]
}

fn load(image: &[u8]) -> Record {
    match superblock::load(copy(image, SUPERBLOCK_A), copy(image, SUPERBLOCK_B)) {
        Loaded::Valid { record, .. } => *record,
        other => panic!("no record can be read: {other:?}"),
    }
}

/// What a reader finds must be the last durable record or the one being written, and every region
/// whose mark was promised must be marked.
fn check(history: &History, image: &[u8]) {
    let found = load(image);
    let allowed = history.records();
    assert!(allowed.contains(&found), "neither the old nor the new record: {found:?}");
    let bitmap = usize::try_from(BITMAP).expect("small");
    let (marks, _) = Marks::load(found.device, regions_in(found.size), &image[bitmap..]);
    for region in history.promised() {
        // A block that does not verify counts as all marked.
        let marked = marks.wanted().get(region) || found.owes_all;
        assert!(marked, "the mark of region {region} is gone");
    }
}

#[test]
fn every_part_of_every_update_reads_back_as_before_or_after() {
    let mut history = History::begin();
    let mut looked_at = 0;
    while history.step() {
        looked_at += every_loss(&history, |image| check(&history, image));
        history.land();
    }
    assert!(history.saw_both(), "no mark was written while a record was");
    assert!(looked_at > 100, "only {looked_at} states");
}
