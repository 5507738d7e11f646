//! The ring and its table of operations.
#![allow(clippy::unwrap_used)] // helpers of tests

use kmod_shim::sys::{Awake, Ended, Fd, Op, Owner, Piece, Ring, Slots, Submitter};
use mirror_core::buf::{Buf, BufMut};
use nix::libc;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

fn pair() -> (Fd, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LIMIT)).unwrap();
    (Arc::new(OwnedFd::from(ours)), theirs)
}

fn receive(socket: &Fd) -> Op {
    Op::Recv { socket: socket.clone(), buf: BufMut::zeroed(64), range: 8..64 }
}

/// Waits for `count` operations of `slots`.
fn ends(ring: &mut Ring, slots: &mut Slots<u64>, count: usize) -> Vec<Ended<u64>> {
    let (deadline, mut done, mut ended) = (Instant::now() + LIMIT, Vec::new(), Vec::new());
    while ended.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} operations ended", ended.len());
        ring.wait(Some(Duration::from_millis(100)), &mut done).unwrap();
        ended.extend(done.drain(..).filter_map(|(_, cqe)| slots.take(&cqe)));
    }
    ended
}

#[test]
fn more_operations_than_the_queue_holds_all_end() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(2000 * 512).unwrap();
    let fd: Fd = Arc::new(OwnedFd::from(file.try_clone().unwrap()));
    let (mut ring, mut slots) = (Ring::new().unwrap(), Slots::default());
    for i in 0..2000_u64 {
        let buf = Buf::copied_from(&[i.to_le_bytes()[0]; 512]);
        let op =
            Op::Write { file: fd.clone(), offset: i * 512, buf, range: 0..512, durable: false };
        slots.submit(op, i, &mut ring.owner(Owner::DATA));
    }
    assert_eq!(slots.len(), 2000);
    let mut tags: Vec<u64> = ends(&mut ring, &mut slots, 2000)
        .iter()
        .map(|e| {
            assert_eq!(e.result, Ok(512));
            e.tag
        })
        .collect();
    tags.sort_unstable();
    assert_eq!(tags, (0..2000).collect::<Vec<_>>());
    assert!(slots.is_empty());
    let mut last = [0; 512];
    file.read_exact_at(&mut last, 1999 * 512).unwrap();
    assert_eq!(last, [1999_u64.to_le_bytes()[0]; 512]);
}

#[test]
fn a_send_takes_up_where_it_was_cut_off() {
    let (socket, mut theirs) = pair();
    let (mut ring, mut slots) = (Ring::new().unwrap(), Slots::default());
    let pieces = vec![
        Piece::Bytes(b"abc".to_vec()),
        Piece::Shared(Buf::copied_from(b"defg")),
        Piece::Bytes(b"hi".to_vec()),
    ];
    let op = Op::Send { socket, pieces, skip: 5 };
    slots.submit(op, 1, &mut ring.owner(Owner::NET));
    assert_eq!(ends(&mut ring, &mut slots, 1)[0].result, Ok(4));
    let mut got = [0; 4];
    std::io::Read::read_exact(&mut theirs, &mut got).unwrap();
    assert_eq!(&got, b"fghi");
}

#[test]
fn received_bytes_come_back_in_the_buffer_that_was_handed_in() {
    let (socket, mut theirs) = pair();
    let (mut ring, mut slots) = (Ring::new().unwrap(), Slots::default());
    slots.submit(receive(&socket), 1, &mut ring.owner(Owner::NET));
    std::io::Write::write_all(&mut theirs, b"hello").unwrap();
    let ended = ends(&mut ring, &mut slots, 1).remove(0);
    let (Op::Recv { buf, .. }, Ok(5)) = (ended.op, ended.result) else { panic!("not received") };
    assert_eq!(&buf[..13], b"\0\0\0\0\0\0\0\0hello");
}

#[test]
fn a_cancelled_operation_ends_and_those_of_others_do_not() {
    let (socket, _theirs) = pair();
    let mut ring = Ring::new().unwrap();
    let (mut ours, mut others) = (Slots::default(), Slots::default());
    let token = ours.submit(receive(&socket), 1, &mut ring.owner(Owner::NET));
    let same = others.submit(receive(&socket), 2, &mut ring.owner(Owner::FRONT_END));
    ring.owner(Owner::NET).cancel(same); // of another owner: none of its business
    ring.owner(Owner::NET).cancel(token);
    let mut done = Vec::new();
    ring.wait(Some(LIMIT), &mut done).unwrap();
    let [(Owner::NET, cqe)] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!(ours.take(cqe).unwrap().result, Err(libc::ECANCELED));
    assert!(ours.take(cqe).is_none(), "an operation ends once");
    assert_eq!(others.len(), 1);
}

#[test]
fn the_token_of_an_ended_operation_names_no_later_one() {
    let (socket, mut theirs) = pair();
    let (mut ring, mut slots) = (Ring::new().unwrap(), Slots::default());
    let first = slots.submit(receive(&socket), 1, &mut ring.owner(Owner::NET));
    std::io::Write::write_all(&mut theirs, b"x").unwrap();
    ends(&mut ring, &mut slots, 1);
    let second = slots.submit(receive(&socket), 2, &mut ring.owner(Owner::NET));
    assert_ne!(first, second);
    ring.owner(Owner::NET).cancel(first); // too late: it must not hit the second
    let mut done = Vec::new();
    ring.wait(Some(Duration::from_millis(100)), &mut done).unwrap();
    assert!(done.is_empty());
}

#[test]
fn an_accepted_connection_is_owned_and_pauses_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener: Fd = Arc::new(OwnedFd::from(UnixListener::bind(&path).unwrap()));
    let (mut ring, mut slots) = (Ring::new().unwrap(), Slots::default());
    slots.submit(Op::Accept { socket: listener }, 1, &mut ring.owner(Owner::NET));
    let _client = UnixStream::connect(&path).unwrap();
    assert!(ends(&mut ring, &mut slots, 1)[0].accepted.is_some());
    let begun = Instant::now();
    let time = Duration::from_millis(50);
    slots.submit(Op::Pause { time }, 2, &mut ring.owner(Owner::NET));
    assert_eq!(ends(&mut ring, &mut slots, 1)[0].result, Err(libc::ETIME));
    assert!(begun.elapsed() >= time);
}

/// What a table that was dropped has left with the kernel is not its successor's.
#[test]
fn a_table_does_not_take_the_operations_of_its_predecessor() {
    let (socket, mut theirs) = pair();
    let mut ring = Ring::new().unwrap();
    let mut old = Slots::default();
    old.submit(receive(&socket), 1, &mut ring.owner(Owner::NET));
    drop(old);
    let (other, _open) = pair();
    let mut new = Slots::default();
    new.submit(receive(&other), 2, &mut ring.owner(Owner::NET));
    std::io::Write::write_all(&mut theirs, b"hello").unwrap();
    let mut done = Vec::new();
    ring.wait(Some(LIMIT), &mut done).unwrap();
    let [(Owner::NET, cqe)] = done.as_slice() else { panic!("{done:?}") };
    assert!(new.take(cqe).is_none());
    assert_eq!(new.len(), 1);
}

#[test]
fn who_stays_awake_finds_what_ends_meanwhile() {
    let (socket, mut theirs) = pair();
    let (mut ring, mut slots) = (Ring::new().unwrap(), Slots::default());
    slots.submit(receive(&socket), 7, &mut ring.owner(Owner::NET));
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        std::io::Write::write_all(&mut theirs, b"x").unwrap();
        theirs
    });
    let mut done = Vec::new();
    // On a busy machine it may be disturbed, and sleeps for the rest.
    let awake = ring.wait_awake(LIMIT, Some(LIMIT), &mut done).unwrap();
    assert_ne!(awake, Awake::TooShort);
    let ended = slots.take(&done.pop().unwrap().1).unwrap();
    assert_eq!((ended.tag, ended.result), (7, Ok(1)));
    sender.join().unwrap();
}

#[test]
fn who_stays_awake_in_vain_sleeps_and_is_woken_or_gives_up() {
    let (socket, mut theirs) = pair();
    let (mut ring, mut slots) = (Ring::new().unwrap(), Slots::default());
    slots.submit(receive(&socket), 7, &mut ring.owner(Owner::NET));
    let (short, limit) = (Duration::from_micros(20), Duration::from_millis(50));
    let (mut done, begun) = (Vec::new(), Instant::now());
    let awake = ring.wait_awake(short, Some(limit), &mut done).unwrap();
    assert_ne!(awake, Awake::Found);
    assert!(done.is_empty() && begun.elapsed() >= limit, "{:?}", begun.elapsed());
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        std::io::Write::write_all(&mut theirs, b"x").unwrap();
        theirs
    });
    ring.wait_awake(short, Some(LIMIT), &mut done).unwrap();
    assert_eq!(slots.take(&done.pop().unwrap().1).unwrap().result, Ok(1));
    sender.join().unwrap();
}

/// A write's way over the network is the longer one.
#[test]
fn the_disks_operations_begin_after_the_networks() {
    let (read, write) = nix::unistd::pipe().unwrap();
    let file: Fd = Arc::new(write);
    let (mut ring, mut slots) = (Ring::new().unwrap(), Slots::default());
    for (byte, owner) in [(b"d", Owner::DATA), (b"n", Owner::NET), (b"m", Owner::META)] {
        let (file, buf) = (file.clone(), Buf::copied_from(byte));
        let op = Op::Write { file, offset: 0, buf, range: 0..1, durable: false };
        slots.submit(op, 0, &mut ring.owner(owner));
    }
    ends(&mut ring, &mut slots, 3);
    let mut order = [0; 3];
    nix::unistd::read(&read, &mut order).unwrap();
    assert_eq!(&order, b"nmd");
}
