use super::*;
use crate::units::regions_in;
use std::time::Instant;

mod model;

const DEVICE: Id16 = Id16([3; 16]);

/// Ends every write that can be made, well.
fn drain(marks: &mut Marks) {
    while let Some(write) = marks.next_write() {
        marks.write_done(write.block, true);
    }
}

/// The bitmap of a side whose marks are `set`, as a disk would hold it.
fn disk_with(regions: u32, set: &[u32]) -> Vec<u8> {
    let mut marks = Marks::blank(regions, DEVICE);
    set.iter().for_each(|region| marks.set(*region..*region + 1));
    let mut disk = vec![0; blocks_for(regions) as usize * BLOCK_BYTES];
    while let Some(write) = marks.next_write() {
        let at = write.block as usize * BLOCK_BYTES;
        disk[at..at + BLOCK_BYTES].copy_from_slice(&write.bytes);
        marks.write_done(write.block, true);
    }
    assert!(marks.idle());
    disk
}

/// Marks of `regions` regions, all written and known, with `set` marked.
fn settled_with(regions: u32, set: &[u32]) -> Marks {
    let (marks, damaged) = Marks::load(DEVICE, regions, &disk_with(regions, set));
    assert_eq!(damaged, 0);
    assert!(marks.idle());
    marks
}

#[test]
fn a_mark_counts_when_its_write_has_ended() {
    let mut marks = settled_with(100, &[]);
    marks.set(3..5);
    assert!(!marks.is_marked(3) && marks.has_pending_sets() && !marks.idle());
    let write = marks.next_write().expect("something to set");
    assert_eq!((write.block, write.offset, write.bytes.len()), (0, 128 * 1024, 4096));
    assert!(!marks.is_marked(3) && !marks.idle());
    assert_eq!(marks.count(), 2);
    marks.write_done(write.block, true);
    assert!(marks.all_marked(3..5) && !marks.all_marked(3..6) && marks.idle());
}

#[test]
fn a_region_whose_clearing_is_queued_is_unmarked_and_can_be_taken_back() {
    let mut marks = settled_with(100, &[7]);
    marks.clear(7);
    assert!(!marks.is_marked(7) && !marks.all_marked(7..8));
    assert_eq!((marks.count(), marks.wanted_count()), (1, 0));
    marks.set(7..8);
    assert!(marks.is_marked(7) && marks.idle());
    assert!(marks.next_write().is_none());
}

#[test]
fn a_clear_in_flight_is_not_taken_back_but_written_over() {
    let mut marks = settled_with(100, &[7]);
    marks.clear(7);
    let clearing = marks.next_write().expect("a clear");
    marks.set(7..8);
    assert!(!marks.is_marked(7), "the disk may have lost it already");
    assert_eq!(marks.count(), 1, "or may still have it");
    assert!(marks.next_write().is_none(), "one write of a block at a time");
    marks.write_done(clearing.block, true);
    assert!(!marks.is_marked(7));
    let setting = marks.next_write().expect("the mark again");
    marks.write_done(setting.block, true);
    assert!(marks.is_marked(7));
}

#[test]
fn waiting_marks_share_one_write() {
    let mut marks = settled_with(1000, &[]);
    marks.set(1..2);
    let first = marks.next_write().expect("the first");
    for region in 10..200 {
        marks.set(region..region + 1);
    }
    marks.write_done(first.block, true);
    assert!(!marks.is_marked(10));
    let second = marks.next_write().expect("all the others");
    marks.write_done(second.block, true);
    assert!(marks.all_marked(10..200) && marks.next_write().is_none());
}

#[test]
fn blocks_with_sets_go_before_blocks_with_clears_and_first_come_first() {
    let regions = 5 * REGIONS_PER_BLOCK;
    let region_of = |block: u32| block * REGIONS_PER_BLOCK;
    let mut marks = settled_with(regions, &[region_of(0), region_of(2)]);
    marks.clear(region_of(0));
    marks.clear(region_of(2));
    for block in [4, 1, 2] {
        let region = region_of(block) + 9;
        marks.set(region..region + 1);
    }
    let order: Vec<u32> = std::iter::from_fn(|| marks.next_write().map(|w| w.block)).collect();
    assert_eq!(order, [4, 1, 2, 0], "the clear in block 2 went with its set");
}

#[test]
fn a_range_over_a_block_boundary_is_marked_when_both_blocks_are() {
    let edge = REGIONS_PER_BLOCK;
    let mut marks = settled_with(2 * edge, &[]);
    marks.set(edge - 2..edge + 2);
    let writes: Vec<_> = std::iter::from_fn(|| marks.next_write()).collect();
    assert_eq!(writes.len(), 2);
    marks.write_done(writes[1].block, true);
    assert!(!marks.all_marked(edge - 2..edge + 2));
    marks.write_done(writes[0].block, true);
    assert!(marks.all_marked(edge - 2..edge + 2));
    assert_eq!(marks.iter().collect::<Vec<_>>(), [edge - 2, edge - 1, edge, edge + 1]);
    assert_eq!(marks.next_wanted(edge), Some(edge));
    assert_eq!(marks.next_wanted(edge + 2), None);
}

#[test]
fn after_a_failed_write_nothing_of_the_block_is_marked_until_it_is_asked_for_and_written() {
    let mut marks = settled_with(100, &[7]);
    marks.set(8..9);
    let write = marks.next_write().expect("a set");
    assert!(marks.is_marked(7));
    marks.write_done(write.block, false);
    assert!(!marks.is_marked(7) && !marks.is_marked(8));
    assert_eq!((marks.count(), marks.wanted_count()), (100, 2));
    assert!(marks.has_pending_sets() && !marks.idle());
    marks.set(9..10);
    assert!(marks.next_write().is_none(), "not by itself");
    marks.retry(write.block);
    let again = marks.next_write().expect("asked for");
    marks.write_done(again.block, true);
    assert!(marks.all_marked(7..10) && marks.idle());
}

#[test]
fn blank_marks_write_every_block_once() {
    let regions = 2 * REGIONS_PER_BLOCK + 1;
    let mut marks = Marks::blank(regions, DEVICE);
    assert_eq!((marks.count(), marks.wanted_count()), (regions, 0));
    let blocks: Vec<u32> = std::iter::from_fn(|| marks.next_write().map(|w| w.block)).collect();
    assert_eq!(blocks, [0, 1, 2]);
    assert!(!marks.idle());
    blocks.into_iter().for_each(|block| marks.write_done(block, true));
    assert!(marks.idle());
    assert_eq!(marks.count(), 0);
}

#[test]
fn a_damaged_block_is_all_marked_and_written_anew() {
    let regions = 2 * REGIONS_PER_BLOCK + 50;
    let good = disk_with(regions, &[5, REGIONS_PER_BLOCK + 5]);
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 5] = [
        ("torn", |disk| disk[BLOCK_BYTES + 700] ^= 1),
        ("unreadable, handed in as zeros", |disk| disk[BLOCK_BYTES..2 * BLOCK_BYTES].fill(0)),
        ("misplaced", |disk| disk.copy_within(0..BLOCK_BYTES, BLOCK_BYTES)),
        ("foreign", |disk| {
            let foreign = bitmap_block::encode(Id16([9; 16]), 1, &[]);
            disk[BLOCK_BYTES..2 * BLOCK_BYTES].copy_from_slice(&foreign);
        }),
        ("of a larger mirror", |disk| {
            let mut other = disk_with(3 * REGIONS_PER_BLOCK, &[2 * REGIONS_PER_BLOCK + 50]);
            disk[2 * BLOCK_BYTES..].copy_from_slice(&other.split_off(2 * BLOCK_BYTES));
        }),
    ];
    for (name, damage) in damage {
        let mut disk = good.clone();
        damage(&mut disk);
        let (mut marks, damaged) = Marks::load(DEVICE, regions, &disk);
        assert_eq!(damaged, 1, "{name}");
        let block = if name == "of a larger mirror" { 2 } else { 1 };
        let lost = marks.regions_of(block);
        assert!(marks.wanted().all(lost.clone()), "{name}");
        assert!(!marks.is_marked(lost.start), "{name}: the disk does not say so yet");
        assert!(marks.is_marked(5), "{name}: other blocks stay as they are");
        let write = marks.next_write().expect(name);
        assert_eq!(write.block, block, "{name}");
        marks.write_done(block, true);
        assert!(marks.all_marked(lost) && marks.idle(), "{name}");
    }
}

#[test]
fn a_short_or_missing_bitmap_is_all_marked() {
    let regions = 2 * REGIONS_PER_BLOCK;
    let disk = disk_with(regions, &[]);
    for (length, expected) in [(2 * BLOCK_BYTES, 0), (2 * BLOCK_BYTES - 1, 1), (100, 2), (0, 2)] {
        let (marks, damaged) = Marks::load(DEVICE, regions, &disk[..length]);
        assert_eq!(damaged, expected);
        assert_eq!(marks.wanted_count(), damaged * REGIONS_PER_BLOCK);
    }
}

#[test]
fn all_at_once() {
    let regions = REGIONS_PER_BLOCK + 77;
    let mut marks = settled_with(regions, &[1, 2]);
    marks.set_all();
    assert_eq!(marks.wanted_count(), regions);
    drain(&mut marks);
    assert!(marks.all_marked(0..regions) && marks.idle());
    marks.clear_all();
    assert!(!marks.is_marked(0) && !marks.idle());
    assert_eq!((marks.count(), marks.wanted_count()), (regions, 0));
    drain(&mut marks);
    assert_eq!(marks.count(), 0);
    assert!(marks.idle());
}

#[test]
fn what_lies_beyond_the_end_is_ignored() {
    let mut marks = settled_with(100, &[]);
    marks.set(90..u32::MAX);
    marks.clear(100);
    marks.clear(u32::MAX);
    marks.set(u32::MAX..u32::MAX);
    marks.retry(7);
    assert_eq!(marks.wanted_count(), 10);
    drain(&mut marks);
    assert!(marks.all_marked(90..100) && !marks.all_marked(90..101) && !marks.is_marked(100));
}

#[test]
fn no_regions_need_nothing() {
    let mut marks = Marks::blank(0, DEVICE);
    assert!(marks.idle() && marks.next_write().is_none());
    assert_eq!(marks.next_wanted(0), None);
}

#[test]
fn many_changes_do_not_lengthen_the_queues() {
    let mut marks = settled_with(3 * REGIONS_PER_BLOCK, &[]);
    for region in 0..2000 {
        marks.set(region..region + 1);
        marks.clear(region);
        marks.set(REGIONS_PER_BLOCK + region..REGIONS_PER_BLOCK + region + 1);
    }
    assert!(marks.to_set.len() <= 3 && marks.to_clear.len() <= 3);
    assert_eq!(marks.next_write().map(|w| w.block), Some(1), "nothing is left to do in block 0");
    assert!(marks.next_write().is_none());
}

#[test]
fn the_marks_of_one_tebibyte_are_small_and_loaded_in_one_pass() {
    let regions = regions_in(1 << 40);
    let disk = disk_with(regions, &[0, 5_000_000, regions - 1]);
    assert_eq!(disk.len(), 521 * BLOCK_BYTES);
    let begun = Instant::now();
    let (marks, damaged) = Marks::load(DEVICE, regions, &disk);
    println!(
        "marks of 1 TiB: {} bytes of memory, loaded in {:?}",
        marks.memory_bytes(),
        begun.elapsed()
    );
    assert_eq!((damaged, marks.count()), (0, 3));
    let bitmap = regions as usize / 8;
    let blocks = 521 * size_of::<Block>();
    assert_eq!(marks.memory_bytes(), 2 * bitmap + blocks);
    assert!(marks.memory_bytes() < 5 << 20);
    assert_eq!(marks.iter().collect::<Vec<_>>(), [0, 5_000_000, regions - 1]);
}

#[test]
fn memory_grows_with_the_mirror_and_not_faster() {
    let bytes = |size: u64| Marks::load(DEVICE, regions_in(size), &[]).0.memory_bytes();
    let (small, large) = (bytes(100 << 30), bytes(1 << 40));
    assert!(large <= small * 11, "{small} bytes for 100 GiB, {large} for 1 TiB");
}

/// The blocks as they are on the disk after everything that is wanted was written.
fn written(marks: &mut Marks, disk: &mut Vec<u8>) {
    while let Some(write) = marks.next_write() {
        let at = usize::try_from(write.offset - crate::disk::layout::BITMAP).expect("small");
        disk.resize(disk.len().max(at + write.bytes.len()), 0xa5);
        disk[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
        marks.write_done(write.block, true);
    }
}

#[test]
fn what_a_mirror_grows_by_is_marked_and_found_again() {
    let device = Id16([7; 16]);
    for (old, new) in [(10, 20), (63, 65), (REGIONS_PER_BLOCK, REGIONS_PER_BLOCK + 1), (1, 70_000)]
    {
        let mut disk = Vec::new();
        let mut marks = Marks::blank(old, device);
        marks.set(0..1);
        written(&mut marks, &mut disk);
        marks.grow(new, old - 1..new);
        assert!(!marks.idle() && !marks.is_marked(new - 1), "not durable yet");
        // A write of the last block that began before carries nothing of it.
        written(&mut marks, &mut disk);
        assert!(marks.idle() && marks.all_marked(old - 1..new));
        assert_eq!(marks.count(), marks.wanted_count());
        let (found, damaged) = Marks::load(device, new, &disk);
        assert_eq!((found.wanted(), damaged), (marks.wanted(), 0));
    }
}

#[test]
fn growing_while_the_last_block_is_being_written() {
    let device = Id16([7; 16]);
    let mut marks = Marks::blank(10, device);
    let write = marks.next_write().expect("a blank block is written");
    marks.grow(20, 10..20);
    marks.write_done(write.block, true);
    assert!(!marks.all_marked(10..20));
    written(&mut marks, &mut Vec::new());
    assert!(marks.all_marked(10..20) && marks.idle());
    assert_eq!(marks.count(), 10);
}
