//! Every message of the mirror connect, and the steps of a handshake.

use mirror_core::buf::Buf;
use mirror_core::record::{Card, Inconsistent, Record};
use mirror_core::units::{ActivationNo, Extent, Generation, Id16, SessionNo, Side};
use mirror_core::wire::codec::encode;
use mirror_core::wire::{Beat, Encoded, Frame, Message};

fn generation(n: u64) -> Generation {
    Generation::new(n).expect("not zero")
}

fn card() -> Message {
    let record = Record {
        size: 24 * 65_536,
        block: 512,
        generation: Generation::new(5),
        ancestors: (1..4).map(generation).collect(),
        overruled: (6..8).map(generation).collect(),
        forced_at: Some(ActivationNo(1)),
        inconsistent: Some(Inconsistent { toward: generation(5), all: true }),
        ..Record::blank(Id16([0xd2; 16]), Side::First)
    };
    Message::Card(Box::new(Card {
        record,
        active: true,
        uninterrupted: true,
        wants_recovery: false,
        apart: true,
        rejoins: false,
        capacity: 1 << 30,
        device_block: 512,
        marked: 3,
    }))
}

fn messages() -> Vec<Message> {
    let (session, number, id) = (SessionNo(4), ActivationNo(5), 6);
    let extent = Extent::new(8192, 64);
    let data = Buf::copied_from(&[0x77; 64]);
    vec![
        card(),
        Message::Verdict { row: 25 },
        Message::Offer { session },
        Message::Accept { session },
        Message::Opened { session },
        Message::Marks { first_region: 8, bits: Buf::copied_from(&[1, 2, 3]) },
        Message::MarksEnd,
        Message::CopyStart { toward: generation(5), all: true, complete: false },
        Message::CopyReady,
        Message::Write { id, extent, durable: true, data: data.clone() },
        Message::Zero { id, extent, unmap: true, durable: false },
        Message::Ack { id, ok: true },
        Message::Settled,
        Message::Flush { id },
        Message::Copy { id, extent, data: data.clone() },
        Message::Adopt {
            generation: generation(5),
            ancestors: (1..4).map(generation).collect(),
            overruled: (6..8).map(generation).collect(),
            mirror: Id16([0xa0; 16]),
        },
        Message::Adopted,
        Message::CopyStop,
        Message::Read { id, extent },
        Message::ReadReply { id, data: Some(data) },
        Message::ReadReply { id, data: None },
        Message::Beat(Beat { active: true, marked: 7, break_time: -1, ..Beat::default() }),
        Message::ActivateAsk { number },
        Message::ActivateGrant { number },
        Message::ActivateRefuse { number },
        Message::Deactivated,
        Message::Again,
        Message::Bye { clean: true },
    ]
}

fn encoded() -> Vec<Encoded> {
    let frame = |message| Frame { session: SessionNo(3), settled: 2, message };
    messages().into_iter().map(|m| encode(&frame(m)).expect("a good frame")).collect()
}

pub(super) fn frames() -> Vec<Vec<u8>> {
    encoded().iter().map(|e| [&[0], &e.head[..], e.payload_bytes()].concat()).collect()
}

pub(super) fn streams() -> Vec<Vec<u8>> {
    let cuts = [0, 5, 63, 7, 1, 30, 2, 200];
    let one = |e: &Encoded| {
        let payload = e.payload_bytes();
        let len = u16::try_from(payload.len()).expect("short").to_le_bytes();
        [&[8], &e.head[..40], &len, payload].concat()
    };
    let all: Vec<Vec<u8>> = encoded().iter().map(one).collect();
    let of = |cuts: [u8; 8]| {
        let seed = move |some: &[Vec<u8>]| [&cuts[..], &some.concat()].concat();
        all.chunks(5).map(seed).collect::<Vec<_>>()
    };
    let encrypted = [0, 5, 63, 7, 1, 30, 2, 201];
    [of(cuts), of(encrypted)].concat()
}

/// Delivering, as the target's steps have it: to the dialler (0) or the acceptor (1).
const TO: [u8; 2] = [0, 1];

pub(super) fn handshakes() -> Vec<Vec<u8>> {
    let honest = [TO[1], 255, TO[0], 255, TO[1], 255];
    let sends = [24, 7, 25, 8, TO[0], 255, TO[1], 255];
    let with = |how: u8, parts: &[&[u8]]| [&[how], parts.concat().as_slice()].concat();
    let mut seeds: Vec<_> = (0..32).map(|how| with(how, &[&honest, &sends])).collect();
    seeds.push(with(0, &[&[TO[1], 20, TO[1], 75, TO[0], 15, TO[0], 255, TO[1], 255], &sends]));
    seeds.push(with(0, &[&honest, &[24, 7, 21, 1, 1, TO[1], 255]])); // repeated
    seeds.push(with(0, &[&honest, &[24, 7, 23, TO[0], 255]])); // reflected
    seeds.push(with(0, &[&honest, &[24, 7, 13, 9, 0, 1, TO[1], 255]])); // changed
    seeds.push(with(24, &[&honest, &[24, 7, 23, TO[0], 255]])); // reflected, encrypted
    seeds.push(with(24, &[&honest, &[24, 7, 13, 9, 0, 1, TO[1], 255]])); // changed, encrypted
    seeds.push(with(0, &[&[13, 70, 0, 1, TO[1], 255, TO[0], 255]]));
    seeds
}
