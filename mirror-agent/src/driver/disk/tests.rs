//! The disk's side of the ring, on files.

use super::*;
use kmod_shim::sys::{Owner, Ring};
use std::time::Duration;

const REQUEST: RequestId = RequestId(5);

fn disk() -> (tempfile::NamedTempFile, Disk) {
    // A folder whose file system takes direct I/O.
    let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
    file.as_file().set_len(1 << 20).expect("its size");
    let partition = Partition::open(file.path(), Duration::ZERO).expect("a partition");
    (file, Disk::new(Role::Data, partition, 1000))
}

/// A read that goes straight to a request's memory.
fn straight(disk: &Disk) -> (Op, Job) {
    let lent = Some(Loan { request: REQUEST, epoch: disk.loans });
    let extent = Extent::new(4096, 8192);
    let mut job = Job { io: IoId(1), extent, step: Step::Sync, repeats: 0, lent };
    (disk.read(&mut job, Some(3)), job)
}

#[test]
fn a_read_is_not_resubmitted_to_memory_that_may_be_anothers() {
    let (_file, mut disk) = disk();
    let (op, job) = straight(&disk);
    let (op, job) = disk.lawful(op, job);
    assert!(matches!(op, Op::ReadStraight { place: 3, .. }), "it is still lent");
    assert!(disk.take_returned().is_empty());
    disk.end_loans();
    let (op, job) = disk.lawful(op, job);
    let Op::Read { offset: 4096, range, .. } = op else { panic!("{op:?}") };
    assert_eq!(range, 0..8192, "all of it");
    assert!(job.lent.is_none());
    assert_eq!(disk.take_returned(), [REQUEST]);
    let (op, job) = straight(&disk);
    assert!(matches!(disk.lawful(op, job).0, Op::ReadStraight { .. }), "lent anew");
}

/// Also the rest of one that came in parts.
#[test]
fn the_rest_of_a_read_goes_where_it_may() {
    let (_file, mut disk) = disk();
    let mut ring = Ring::new().expect("a ring");
    let mut out = VecDeque::new();
    let (op, job) = straight(&disk);
    disk.open.insert(job.io, Open { late: false, kind: Counted::Read, bytes: 8192, at: 0 });
    disk.end_loans();
    let mut tagged = ring.owner(Owner::DATA);
    let mut cx = Cx { now: Millis(0), micros: 0, ring: &mut tagged, out: &mut out };
    disk.go_on(job, op, 4096, &mut cx);
    assert_eq!(disk.take_returned(), [REQUEST]);
    let mut done = Vec::new();
    while out.is_empty() {
        ring.wait(Some(Duration::from_secs(10)), &mut done).expect("the ring works");
        let (_, cqe) = done.pop().expect("the read ends");
        let mut tagged = ring.owner(Owner::DATA);
        let mut cx = Cx { now: Millis(0), micros: 0, ring: &mut tagged, out: &mut out };
        disk.on_cqe(&cqe, &mut cx);
    }
    let Some(Event::DataDone { result: Ok(Some(data)), .. }) = out.pop_front() else {
        panic!("bytes of its own")
    };
    assert_eq!(data.len(), 8192);
}

#[test]
fn a_disk_hangs_until_what_was_given_up_has_ended() {
    let (_file, mut disk) = disk();
    let mut ring = Ring::new().expect("a ring");
    let mut out = VecDeque::new();
    let (_, job) = straight(&disk);
    disk.open.insert(job.io, Open { late: false, kind: Counted::Read, bytes: 8192, at: 0 });
    disk.limits.push_back((Millis(1000), job.io));
    let mut tagged = ring.owner(Owner::DATA);
    let mut cx = Cx { now: Millis(999), micros: 0, ring: &mut tagged, out: &mut out };
    disk.expire(&mut cx);
    assert!(!disk.hangs());
    cx.now = Millis(1000);
    disk.expire(&mut cx);
    assert!(disk.hangs());
    disk.end(job, Ok(None), &mut cx);
    assert!(!disk.hangs());
    assert_eq!(disk.take_returned(), [REQUEST]);
}
