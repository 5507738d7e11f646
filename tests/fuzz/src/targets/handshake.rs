//! Both ends of a handshake with somebody between them who changes, drops, repeats and makes up
//! bytes, and what they say to each other afterwards.
//!
//! What must hold: no panic; bounded answers; what one end takes for the other's frames is what
//! the other sent, in order; an error stays.

use crate::input::Input;
use mirror_core::units::{SessionNo, Side};
use mirror_core::wire::{Frame, Link, LinkConfig, LinkEvent, Message, Secret, Security};
use std::collections::VecDeque;

/// All that one end may say in a handshake: Hello or Reply, a Proof or a refusal.
const SAID_MAX: usize = 96 + 64;

struct End {
    link: Link,
    said: usize,
    sent: Vec<Frame>,
    heard: usize,
    failed: bool,
    /// Bytes on their way to this end.
    inbox: VecDeque<u8>,
}

impl End {
    fn new(side: Side, dials: bool, secret: &[u8], mirror: &str, security: Security) -> Self {
        let secret = Secret::new(secret).expect("long enough");
        let config = LinkConfig { secret, mirror: mirror.to_owned(), side, security };
        let nonce = [0x10 + u8::from(dials); 32];
        let link = if dials { Link::dial(config, nonce) } else { Link::accept(config, nonce) };
        Self {
            link: link.expect("a good name"),
            said: 0,
            sent: Vec::new(),
            heard: 0,
            failed: false,
            inbox: VecDeque::new(),
        }
    }

    /// What it wants to say now, bounded.
    fn output(&mut self) -> Vec<u8> {
        let out = self.link.take_output();
        self.said += out.len();
        assert!(self.said <= SAID_MAX, "{} bytes of handshake", self.said);
        out
    }

    fn feed(&mut self, bytes: &[u8]) {
        let result = self.link.feed(bytes);
        assert!(!self.failed || result.is_err(), "an error is for good");
        self.failed |= result.is_err();
        assert!(!(self.failed && self.link.is_ready()));
    }
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.u8();
    let (a, b): (&[u8], &[u8]) = match how & 1 {
        0 => (&[7; 32], &[7; 32]),
        _ => (&[7; 32], &[8; 32]),
    };
    let second = if how & 2 == 0 { Side::Second } else { Side::First };
    let name = if how & 4 == 0 { "md1" } else { "md2" };
    let wants = |bit: u8| match how & bit {
        0 => Security::Authenticated,
        _ => Security::Encrypted,
    };
    let mut ends = [
        End::new(Side::First, true, a, "md1", wants(8)),
        End::new(second, false, b, name, wants(16)),
    ];
    carry(&mut ends);
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        step(&mut input, &mut ends);
    }
    let ready = ends.each_ref().map(|e| e.link.is_ready());
    let fit = how & 7 == 0 && wants(8) == wants(16);
    assert!(fit || ready == [false; 2], "they do not belong together");
}

/// Puts what both say on its way.
fn carry(ends: &mut [End; 2]) {
    for n in 0..2 {
        let out = ends[n].output();
        ends[1 - n].inbox.extend(out);
    }
}

fn step(input: &mut Input<'_>, ends: &mut [End; 2]) {
    let how = input.u8();
    let n = usize::from(how & 1);
    match how >> 1 & 15 {
        0..=5 => {
            let count = 1 + usize::from(input.u8());
            deliver(&mut ends[n], count);
        }
        6 | 7 => change(input, &mut ends[n].inbox),
        8 => {
            let count = usize::from(input.u8()).min(ends[n].inbox.len());
            ends[n].inbox.drain(..count);
        }
        9 => {
            let count = input.u8();
            let made_up = input.bytes(usize::from(count)).to_vec();
            made_up.into_iter().rev().for_each(|b| ends[n].inbox.push_front(b));
        }
        10 => {
            let again: Vec<u8> = ends[n].inbox.iter().copied().collect();
            ends[n].inbox.extend(again.into_iter().take(256));
        }
        11 => {
            // What is on its way to one end goes to its author.
            let reflected = std::mem::take(&mut ends[n].inbox);
            ends[1 - n].inbox.extend(reflected);
        }
        _ => send(ends, n, input.u8()),
    }
    carry(ends);
    for n in 0..2 {
        listen(ends, n);
    }
}

fn change(input: &mut Input<'_>, inbox: &mut VecDeque<u8>) {
    if !inbox.is_empty() {
        let at = input.below(inbox.len());
        inbox[at] ^= input.u8();
    }
}

fn deliver(end: &mut End, count: usize) {
    let count = count.min(end.inbox.len());
    let bytes: Vec<u8> = end.inbox.drain(..count).collect();
    end.feed(&bytes);
}

fn send(ends: &mut [End; 2], n: usize, row: u8) {
    let frame = Frame { session: SessionNo(0), settled: 0, message: Message::Verdict { row } };
    if let Ok(encoded) = ends[n].link.encode(&frame) {
        ends[n].sent.push(frame);
        ends[1 - n].inbox.extend(encoded.head);
    }
}

/// What an end takes for the other's words are the other's words.
fn listen(ends: &mut [End; 2], n: usize) {
    while let Some(event) = ends[n].link.next() {
        match event {
            LinkEvent::Ready(hello) => {
                assert_eq!(hello.side, if n == 0 { Side::Second } else { Side::First });
                assert_eq!(hello.version, 1);
            }
            LinkEvent::Frame(frame) => {
                assert_eq!(ends[1 - n].sent.get(ends[n].heard), Some(&frame), "made up");
                ends[n].heard += 1;
            }
        }
    }
}
