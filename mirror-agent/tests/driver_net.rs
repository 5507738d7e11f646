//! Two drivers talk, and strangers get nowhere.
#![allow(clippy::unwrap_used)] // helpers of tests

mod rig;

use mirror_agent::driver::{MAX_STRANGERS, NetNote, Report};
use mirror_core::buf::Buf;
use mirror_core::io::{Action, ConnId, Event};
use mirror_core::units::{Extent, SessionNo, Side};
use mirror_core::wire::{Frame, Message};
use rig::{LIMIT, Rig, Setup, free_address, route};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn frame(message: Message) -> Frame {
    Frame { session: SessionNo(1), settled: 0, message }
}

fn write(id: u64, len: usize) -> Frame {
    let fill = id.to_le_bytes()[0];
    let data = Buf::copied_from(&vec![fill; len]);
    let extent = Extent::new(id * 4096, len as u64);
    frame(Message::Write { id, extent, durable: false, data })
}

fn listener(address: SocketAddr) -> Setup {
    Setup { side: Side::Second, listen: vec![address], ..Setup::default() }
}

fn dialler(routes: &[SocketAddr]) -> Setup {
    Setup { routes: routes.iter().copied().map(route).collect(), ..Setup::default() }
}

fn ready(rig: &Rig, by_dialling: bool) -> ConnId {
    match rig.next() {
        Event::PeerReady { conn, dialled, hello } => {
            assert_eq!(dialled, by_dialling);
            assert_eq!(hello.side, if by_dialling { Side::Second } else { Side::First });
            conn
        }
        other => panic!("unexpected {other:?}"),
    }
}

fn next_frame(rig: &Rig, expected: ConnId) -> Frame {
    match rig.next() {
        Event::Frame { conn, frame } if conn == expected => frame,
        other => panic!("unexpected {other:?}"),
    }
}

/// A pair in contact: dialler, its connection, acceptor, its connection.
fn pair() -> (Rig, ConnId, Rig, ConnId) {
    let address = free_address();
    let acceptor = Rig::new(listener(address));
    let dialler = Rig::new(dialler(&[address]));
    dialler.act([Action::Dial]);
    let (a, b) = (ready(&dialler, true), ready(&acceptor, false));
    (dialler, a, acceptor, b)
}

#[test]
fn frames_of_all_sizes_arrive_whole_and_in_order_both_ways() {
    let (one, a, two, b) = pair();
    // Far more than the socket's buffers hold: sends are cut short and go on.
    let sizes = [512, 1 << 20, 4096, 20_000, 65_536, 1024, 300_032];
    let frames: Vec<Frame> =
        (1..200).map(|id| write(id, sizes[usize::try_from(id).unwrap() % sizes.len()])).collect();
    let sends = |conn| frames.iter().map(move |f| Action::Send { conn, frame: f.clone() });
    one.act(sends(a));
    two.act(sends(b));
    for expected in &frames {
        assert!(next_frame(&two, b) == *expected);
        assert!(next_frame(&one, a) == *expected);
    }
}

#[test]
fn what_was_sent_before_a_close_still_arrives_and_nothing_after_it() {
    let (one, a, two, b) = pair();
    let bye = frame(Message::Bye { clean: true });
    one.act([
        Action::Send { conn: a, frame: write(1, 1 << 20) },
        Action::Send { conn: a, frame: bye.clone() },
        Action::Close { conn: a, why: "the test says so".to_owned() },
        Action::Send { conn: a, frame: bye.clone() },
    ]);
    two.act([Action::Send { conn: b, frame: bye.clone() }]);
    assert!(next_frame(&two, b) == write(1, 1 << 20));
    assert_eq!(next_frame(&two, b), bye);
    let Event::PeerGone { conn } = two.next() else { panic!("not gone") };
    assert_eq!(conn, b);
    one.nothing_for(Duration::from_millis(200));
}

#[test]
fn a_driver_that_stops_is_gone_for_its_peer() {
    let (mut one, _, two, b) = pair();
    one.stop();
    let Event::PeerGone { conn } = two.next() else { panic!("not gone") };
    assert_eq!(conn, b);
}

#[test]
fn routes_are_tried_in_turn() {
    let (dead, alive) = (free_address(), free_address());
    let mut rig = Rig::new(dialler(&[dead, alive]));
    rig.act([Action::Dial]);
    let Event::DialFailed = rig.next() else { panic!("nobody listens") };
    let acceptor = Rig::new(listener(alive));
    rig.act([Action::Dial]);
    ready(&rig, true);
    ready(&acceptor, false);
    rig.nothing_for(Duration::from_millis(100));
    let refused =
        |a: &SocketAddr| NetNote::ConnectFailed(format!("{a}: Connection refused (os error 111)"));
    assert_eq!(notes(&mut rig), [refused(&dead), refused(&alive), NetNote::NoNetwork]);
}

/// What the driver has told of its connections so far.
fn notes(rig: &mut Rig) -> Vec<NetNote> {
    let reports = &mut rig.driver.as_mut().unwrap().reports;
    let mut notes = Vec::new();
    while let Ok(report) = reports.try_recv() {
        if let Report::Net(note) = report {
            notes.push(note);
        }
    }
    notes
}

#[test]
fn a_peer_that_cannot_be_reached_is_told_once_for_each_loss() {
    let address = free_address();
    let mut rig = Rig::new(dialler(&[address]));
    let dial = |rig: &Rig| {
        rig.act([Action::Dial]);
        let Event::DialFailed = rig.next() else { panic!("nobody listens") };
    };
    (0..3).for_each(|_| dial(&rig));
    let told = |notes: &[NetNote]| {
        let lost = |n: &NetNote| matches!(n, NetNote::ConnectFailed(why) if why.contains(&address.to_string()));
        notes.len() == 2 && lost(&notes[0]) && matches!(notes[1], NetNote::NoNetwork)
    };
    let first = notes(&mut rig);
    assert!(told(&first), "the route, and that there is no other: {first:?}");
    let mut acceptor = Rig::new(listener(address));
    rig.act([Action::Dial]);
    ready(&rig, true);
    ready(&acceptor, false);
    acceptor.stop();
    let Event::PeerGone { .. } = rig.next() else { panic!("not gone") };
    (0..3).for_each(|_| dial(&rig));
    let again = notes(&mut rig);
    assert!(told(&again), "once more, after it was there: {again:?}");
}

#[test]
fn a_network_that_is_not_up_yet_does_not_keep_the_driver_from_starting() {
    let there = free_address();
    for absent in ["192.0.2.1:29051", "[2001:db8::1]:29051"] {
        let acceptor =
            Rig::new(Setup { listen: vec![absent.parse().unwrap(), there], ..listener(there) });
        let rig = Rig::new(dialler(&[there]));
        rig.act([Action::Dial]);
        ready(&rig, true);
        ready(&acceptor, false);
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let setup = Setup { handshake_limit: Duration::from_millis(100), ..dialler(&[address]) };
    let rig = Rig::new(setup);
    rig.act([Action::Dial]);
    let Event::DialFailed = rig.next() else { panic!("it said something") };
}

#[test]
fn another_secret_is_refused_by_both() {
    let address = free_address();
    let acceptor = Rig::new(listener(address));
    let secret = b"some other secret, long enough";
    let rig = Rig::new(Setup { secret, ..dialler(&[address]) });
    rig.act([Action::Dial]);
    let Event::DialFailed = rig.next() else { panic!("not refused") };
    acceptor.nothing_for(Duration::from_millis(100));
}

/// Waits until the other end closes; what it sent before.
fn drain(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut some) {
            Ok(0) => return all,
            Ok(n) => all.extend(&some[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(e) => panic!("not closed: {e}"),
        }
    }
}

#[test]
fn garbage_ends_a_connection_and_reaches_nobody() {
    let address = free_address();
    let mut acceptor = Rig::new(listener(address));
    for _ in 0..3 {
        let mut stranger = TcpStream::connect(address).unwrap();
        // It may be cut off before all is written.
        let _ = stranger.write_all(&[0x5a; 1 << 20]);
        assert!(drain(&mut stranger).len() < 1000);
    }
    acceptor.nothing_for(Duration::from_millis(50));
    let told = notes(&mut acceptor);
    assert!(matches!(told.as_slice(), [NetNote::Refused(_)]), "once: {told:?}");
    let rig = Rig::new(dialler(&[address]));
    rig.act([Action::Dial]);
    ready(&rig, true);
    ready(&acceptor, false);
}

#[test]
fn strangers_are_few_and_short_lived_and_the_peer_gets_in() {
    let address = free_address();
    let limit = Duration::from_millis(500);
    let acceptor = Rig::new(Setup { handshake_limit: limit, ..listener(address) });
    let begun = Instant::now();
    let mut strangers: Vec<_> =
        (0..3 * MAX_STRANGERS).map(|_| TcpStream::connect(address).unwrap()).collect();
    strangers[0].write_all(b"mdm").unwrap();
    strangers.iter_mut().for_each(|s| drop(drain(s)));
    // They were served in three lots, one after the other.
    assert!(begun.elapsed() >= limit * 3, "{:?}", begun.elapsed());
    let rig = Rig::new(dialler(&[address]));
    rig.act([Action::Dial]);
    ready(&rig, true);
    ready(&acceptor, false);
}

#[test]
fn a_peer_that_breaks_off_within_a_frame_is_gone() {
    let (one, a, two, b) = pair();
    // The dialler's process ends while much is queued: its sockets just close.
    one.act((1..50).map(|id| Action::Send { conn: a, frame: write(id, 1 << 20) }));
    drop(one);
    loop {
        match two.next() {
            Event::Frame { conn, .. } => assert_eq!(conn, b),
            Event::PeerGone { conn } => {
                assert_eq!(conn, b);
                break;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    two.nothing_for(Duration::from_millis(50));
}
