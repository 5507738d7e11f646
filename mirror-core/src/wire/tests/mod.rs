//! Tests of the wire as a whole. The rules of single header fields are tested beside the header.

mod encrypted;
mod frames;
mod handshakes;
mod pinned;
mod speed;
mod streams;

use super::link::{Link, LinkConfig, LinkEvent};
use super::{Encoded, Frame, Message, Secret, Security};
use crate::buf::Buf;
use crate::record::{Card, Inconsistent, Record};
use crate::units::{ActivationNo, Extent, Generation, Id16, SessionNo, Side};

const DIALLER_NONCE: [u8; 32] = [0x11; 32];
const ACCEPTOR_NONCE: [u8; 32] = [0x22; 32];

fn config(side: Side) -> LinkConfig {
    config_of(Security::Authenticated, side)
}

fn config_of(security: Security, side: Side) -> LinkConfig {
    let secret = Secret::new(b"sixteen byte key and more").unwrap();
    LinkConfig { secret, mirror: "md1".to_owned(), side, security }
}

fn dialler() -> Link {
    Link::dial(config(Side::First), DIALLER_NONCE).unwrap()
}

fn acceptor() -> Link {
    Link::accept(config(Side::Second), ACCEPTOR_NONCE).unwrap()
}

/// Both ends before the handshake.
fn ends_of(security: Security) -> (Link, Link) {
    let (first, second) = (config_of(security, Side::First), config_of(security, Side::Second));
    (Link::dial(first, DIALLER_NONCE).unwrap(), Link::accept(second, ACCEPTOR_NONCE).unwrap())
}

/// Both ends after a good handshake, their `Ready` events taken.
fn pair() -> (Link, Link) {
    pair_of(Security::Authenticated)
}

fn pair_of(security: Security) -> (Link, Link) {
    let (mut a, mut b) = ends_of(security);
    b.feed(&a.take_output()).unwrap();
    a.feed(&b.take_output()).unwrap();
    b.feed(&a.take_output()).unwrap();
    for link in [&mut a, &mut b] {
        assert!(matches!(link.next(), Some(LinkEvent::Ready(_))));
        assert!(link.is_ready());
    }
    (a, b)
}

fn bytes_of(encoded: &Encoded) -> Vec<u8> {
    [&encoded.head[..], encoded.payload_bytes()].concat()
}

fn write_frame(id: u64, len: usize) -> Frame {
    let data = Buf::copied_from(&vec![0x5A; len]);
    let extent = Extent::new(4096, len as u64);
    frame(Message::Write { id, extent, durable: true, data })
}

fn frame(message: Message) -> Frame {
    Frame { session: SessionNo(9), settled: 4, message }
}

fn generation(n: u64) -> Generation {
    Generation::new(n).unwrap()
}

/// A card with something in every field.
fn full_card() -> Card {
    let mut record = Record::blank(Id16([3; 16]), Side::Second);
    record.seq = 5;
    record.mirror = Id16([4; 16]);
    record.size = 1 << 40;
    record.block = 512;
    record.generation = Some(generation(0xA1));
    record.bases = [Some(generation(0xB1)), None];
    record.ancestors = [generation(0xC1), generation(0xC2)].into_iter().collect();
    record.overruled = [generation(0xD1)].into_iter().collect();
    record.forced_at = Some(ActivationNo(0));
    record.born_session = SessionNo(6);
    record.session = SessionNo(8);
    record.activation = ActivationNo(2);
    record.known_activation = ActivationNo(3);
    record.active = true;
    record.boot = Id16([5; 16]);
    record.inconsistent = Some(Inconsistent { toward: generation(0xE1), all: true });
    record.owes_all = true;
    record.break_time = -1;
    record.update_time = 1_700_000_000;
    Card {
        record,
        active: true,
        uninterrupted: false,
        wants_recovery: true,
        apart: false,
        rejoins: true,
        capacity: 1 << 41,
        device_block: 4096,
        marked: 77,
    }
}
