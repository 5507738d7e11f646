//! Any frame survives the trip; what does not come from `encode` is refused or means the same.

use super::{frame, full_card, generation};
use crate::buf::{ALIGN, Buf};
use crate::record::{Card, Inconsistent, LINEAGE_MAX, Lineage, Record};
use crate::units::{ActivationNo, Extent, Generation, Id16, MAX_MIRROR_BYTES, SessionNo, Side};
use crate::wire::codec::{Encoded, decode, encode};
use crate::wire::header::{HEADER_BYTES, Header, Kind};
use crate::wire::{Beat, Frame, FrameError, Message};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn buf(max: usize) -> impl Strategy<Value = Buf> {
    vec(any::<u8>(), 1..=max).prop_map(|bytes| Buf::copied_from(&bytes))
}

fn generations() -> impl Strategy<Value = Generation> {
    (1..=u64::MAX).prop_map(generation)
}

fn lineage() -> impl Strategy<Value = Lineage> {
    vec(generations(), 0..=LINEAGE_MAX).prop_map(|list| list.into_iter().collect())
}

fn id16() -> impl Strategy<Value = Id16> {
    any::<[u8; 16]>().prop_map(Id16)
}

fn extent_of(len: u64) -> impl Strategy<Value = Extent> {
    (0..=MAX_MIRROR_BYTES - len).prop_map(move |offset| Extent::new(offset, len))
}

fn extent() -> impl Strategy<Value = Extent> {
    (1_u64..=1 << 20).prop_flat_map(extent_of)
}

fn data() -> impl Strategy<Value = (Extent, Buf)> {
    buf(600).prop_flat_map(|data| (extent_of(data.len() as u64), Just(data)))
}

prop_compose! {
    fn record()(
        numbers in any::<[u64; 6]>(),
        ids in (id16(), id16(), id16()),
        second in any::<bool>(),
        block in any::<u32>(),
        generations in (option::of(generations()), [option::of(generations()), option::of(generations())]),
        lineages in (lineage(), lineage()),
        forced_at in option::of(any::<u64>()),
        bits in any::<[bool; 8]>(),
        inconsistent in option::of((generations(), any::<bool>())),
        times in any::<(i64, i64)>(),
    ) -> Record {
        Record {
            seq: numbers[0],
            mirror: ids.0,
            device: ids.1,
            side: if second { Side::Second } else { Side::First },
            size: numbers[1],
            block,
            generation: generations.0,
            bases: generations.1,
            ancestors: lineages.0.clone(),
            overruled: lineages.1.clone(),
            forced_at: forced_at.map(ActivationNo),
            born_session: SessionNo(numbers[2]),
            session: SessionNo(numbers[3]),
            session_open: bits[0],
            activation: ActivationNo(numbers[4]),
            known_activation: ActivationNo(numbers[5]),
            active: bits[1],
            boot: ids.2,
            peer_active: bits[2],
            inconsistent: inconsistent.map(|(toward, all)| Inconsistent { toward, all }),
            behind: bits[3],
            peer_behind: bits[4],
            owes_all: bits[5],
            clean_stop: bits[6],
            disk_error: bits[7],
            break_time: times.0,
            update_time: times.1,
            grown_from: 0,
        }
    }
}

fn card() -> impl Strategy<Value = Message> {
    (record(), any::<([bool; 5], u64, u32, u32)>()).prop_map(|(record, rest)| {
        let (
            [active, uninterrupted, wants_recovery, apart, rejoins],
            capacity,
            device_block,
            marked,
        ) = rest;
        let card = Card {
            record,
            active,
            uninterrupted,
            wants_recovery,
            apart,
            rejoins,
            capacity,
            device_block,
            marked,
        };
        Message::Card(Box::new(card))
    })
}

fn beat() -> impl Strategy<Value = Message> {
    any::<(bool, bool, i64, i64, u32, u64, u64, u64)>().prop_map(|b| {
        Message::Beat(Beat {
            active: b.0,
            disk_error: b.1,
            break_time: b.2,
            update_time: b.3,
            marked: b.4,
            copied: b.5,
            total: b.6,
            elapsed: b.7,
        })
    })
}

fn bare() -> impl Strategy<Value = Message> {
    prop_oneof![
        Just(Message::MarksEnd),
        Just(Message::CopyReady),
        Just(Message::CopyStop),
        Just(Message::Adopted),
        Just(Message::Settled),
        Just(Message::Deactivated),
        Just(Message::Again),
        Just(Message::Detach),
        Just(Message::Detached),
        any::<bool>().prop_map(|clean| Message::Bye { clean }),
        any::<u8>().prop_map(|row| Message::Verdict { row }),
    ]
}

fn numbered() -> impl Strategy<Value = Message> {
    (0..8, any::<u64>(), any::<bool>()).prop_map(|(which, n, ok)| match which {
        0 => Message::Offer { session: SessionNo(n) },
        1 => Message::Accept { session: SessionNo(n) },
        2 => Message::Opened { session: SessionNo(n) },
        3 => Message::ActivateAsk { number: ActivationNo(n) },
        4 => Message::ActivateGrant { number: ActivationNo(n) },
        5 => Message::ActivateRefuse { number: ActivationNo(n) },
        6 => Message::Flush { id: n },
        _ => Message::Ack { id: n, ok },
    })
}

fn io() -> impl Strategy<Value = Message> {
    let marks = (buf(300), 0..=(1_u32 << 29) - 300);
    prop_oneof![
        (any::<u64>(), any::<bool>(), data()).prop_map(|(id, durable, (extent, data))| {
            Message::Write { id, extent, durable, data }
        }),
        (any::<u64>(), data()).prop_map(|(id, (extent, data))| Message::Copy { id, extent, data }),
        (any::<u64>(), extent(), any::<(bool, bool)>()).prop_map(
            |(id, extent, (unmap, durable))| Message::Zero { id, extent, unmap, durable }
        ),
        (any::<u64>(), extent()).prop_map(|(id, extent)| Message::Read { id, extent }),
        (any::<u64>(), option::of(buf(600))).prop_map(|(id, data)| Message::ReadReply { id, data }),
        marks.prop_map(|(bits, byte)| Message::Marks { first_region: byte * 8, bits }),
        (generations(), any::<(bool, bool)>())
            .prop_map(|(toward, (all, complete))| Message::CopyStart { toward, all, complete }),
        (generations(), lineage(), lineage(), id16()).prop_map(
            |(generation, ancestors, overruled, mirror)| Message::Adopt {
                generation,
                ancestors,
                overruled,
                mirror
            }
        ),
    ]
}

pub(super) fn any_frame() -> impl Strategy<Value = Frame> {
    let message = prop_oneof![card(), beat(), bare(), numbered(), io()];
    (any::<u64>(), any::<u64>(), message).prop_map(|(session, settled, message)| Frame {
        session: SessionNo(session),
        settled,
        message,
    })
}

/// Decodes bytes that may be anything, like a receiver without the tags would.
fn decode_bytes(head: &[u8; HEADER_BYTES], payload: &[u8]) -> Result<Frame, FrameError> {
    let header = Header::decode(head)?;
    let payload = (header.payload_len() != 0).then(|| Buf::copied_from(payload));
    decode(&header, payload)
}

/// Makes both checksums right, so that changes get past them to the rules.
fn fix_checksums(head: &mut [u8; HEADER_BYTES], payload: &[u8]) {
    head[40..44].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let crc = crc32fast::hash(&head[..44]);
    head[44..48].copy_from_slice(&crc.to_le_bytes());
}

/// Whatever decodes has one spelling: it encodes to the very same bytes.
fn refused_or_same(head: &[u8; HEADER_BYTES], payload: &[u8]) {
    if let Ok(frame) = decode_bytes(head, payload) {
        let again = encode(&frame).expect("what decodes can be sent");
        assert_eq!(again.head[..48], head[..48], "{frame:?}");
        assert_eq!(again.payload_bytes(), payload, "{frame:?}");
    }
}

proptest! {
    #[test]
    fn any_frame_survives(frame in any_frame()) {
        let encoded = encode(&frame).unwrap();
        prop_assert_eq!(decode_bytes(&encoded.head, encoded.payload_bytes()).unwrap(), frame);
    }

    #[test]
    fn changed_fields_are_refused_or_mean_what_they_say(
        frame in any_frame(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let Encoded { mut head, payload } = encode(&frame).unwrap();
        let mut payload = payload.map(|p| p.to_vec()).unwrap_or_default();
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len() + 1));
            let len = u32::try_from(payload.len()).unwrap();
            head[4..8].copy_from_slice(&len.to_le_bytes());
        }
        for (at, value) in changes {
            match at.index(48 + payload.len()) {
                at if at < 48 => head[at] = value,
                at => payload[at - 48] = value,
            }
        }
        fix_checksums(&mut head, &payload);
        refused_or_same(&head, &payload);
    }

    #[test]
    fn any_bytes_as_header(mut head in any::<[u8; 32]>(), kind in any::<u8>(), good in any::<bool>()) {
        let mut bytes = [0; HEADER_BYTES];
        head[2] = if good { Kind::ALL[usize::from(kind) % Kind::ALL.len()].number() } else { kind };
        bytes[..32].copy_from_slice(&head);
        bytes[..2].copy_from_slice(&[0xB5, 0x01]);
        fix_checksums(&mut bytes, &[]);
        refused_or_same(&bytes, &[]);
    }

    #[test]
    fn any_bytes_as_body(which in 0..3_usize, body in vec(any::<u8>(), 1..400)) {
        let kind = [Kind::Card, Kind::Adopt, Kind::Beat][which];
        let mut head = [0; HEADER_BYTES];
        head[..4].copy_from_slice(&[0xB5, 0x01, kind.number(), 0x80]);
        head[4..8].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        fix_checksums(&mut head, &body);
        refused_or_same(&head, &body);
    }
}

#[test]
fn data_is_shared_not_copied() {
    let data = Buf::copied_from(&[1; 4096]);
    let extent = Extent::new(0, 4096);
    let sent = frame(Message::Write { id: 1, extent, durable: false, data: data.clone() });
    let encoded = encode(&sent).unwrap();
    assert_eq!(encoded.payload_bytes().as_ptr(), data.as_ptr());
    let header = Header::decode(&encoded.head).unwrap();
    let Message::Write { data: received, .. } = decode(&header, encoded.payload).unwrap().message
    else {
        panic!("not a write");
    };
    assert_eq!(received.as_ptr(), data.as_ptr());
    assert_eq!(received.as_ptr().align_offset(ALIGN), 0);
}

#[test]
fn what_breaks_a_rule_is_not_sent() {
    let data = || Buf::copied_from(&[0; 512]);
    let refused = |message| encode(&frame(message)).unwrap_err();
    let extent = Extent::new(0, 1024);
    let (kind, stated, found) = (Kind::Write, 1024, 512);
    let write = Message::Write { id: 1, extent, durable: false, data: data() };
    assert_eq!(refused(write), FrameError::LengthMismatch { kind, stated, found });
    let extent = Extent::new(0, (1 << 32) + 512);
    let kind = Kind::Read;
    let read = Message::Read { id: 1, extent };
    assert_eq!(refused(read), FrameError::ExtentTooLong { kind, length: extent.len });
    let marks = Message::Marks { first_region: 4, bits: data() };
    assert_eq!(refused(marks), FrameError::MarksMisaligned(4));
    let marks = Message::Marks { first_region: u32::MAX - 7, bits: data() };
    assert!(matches!(refused(marks), FrameError::OutOfRange { .. }));
    let empty = Message::ReadReply { id: 1, data: Some(Buf::copied_from(&[])) };
    assert_eq!(refused(empty), FrameError::PayloadEmpty(Kind::ReadReply));
    let huge = Message::Marks { first_region: 0, bits: Buf::copied_from(&vec![0; 65_537]) };
    assert!(matches!(refused(huge), FrameError::PayloadTooLong { max: 65_536, .. }));
}

/// Sends `message` with its body changed and the checksums right.
fn with_body(message: Message, change: impl FnOnce(&mut Vec<u8>)) -> FrameError {
    let Encoded { mut head, payload } = encode(&frame(message)).unwrap();
    let mut body = payload.unwrap().to_vec();
    change(&mut body);
    head[4..8].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    fix_checksums(&mut head, &body);
    decode_bytes(&head, &body).unwrap_err()
}

fn adopt() -> Message {
    let one: Lineage = [generation(2)].into_iter().collect();
    Message::Adopt {
        generation: generation(1),
        ancestors: one.clone(),
        overruled: one,
        mirror: Id16([7; 16]),
    }
}

#[test]
fn bodies_that_make_no_sense() {
    let card = || Message::Card(Box::new(full_card()));
    let kind = Kind::Card;
    let (found, known) = (2, 1);
    assert_eq!(with_body(card(), |b| b[0] = 2), FrameError::BodyLayout { kind, found, known });
    // `all` of an inconsistency that is not there.
    let bits = FrameError::BodyBits { kind, bits: 0x2000 };
    assert_eq!(with_body(card(), |b| b[2] &= !0x10), bits);
    assert_eq!(with_body(card(), |b| b[59] = 2), FrameError::BadSide { kind, side: 2 });
    assert_eq!(with_body(card(), |b| b.push(0)), FrameError::BodyLong { kind, rest: 1 });
    assert_eq!(with_body(card(), |b| b.truncate(b.len() - 1)), FrameError::BodyShort(kind));
    let kind = Kind::Adopt;
    assert_eq!(with_body(adopt(), |b| b[0] = 0), FrameError::ZeroGeneration(kind));
    assert_eq!(with_body(adopt(), |b| b[25] = 0), FrameError::ZeroGeneration(kind));
    let long = FrameError::LineageTooLong { kind, count: 17 };
    assert_eq!(with_body(adopt(), |b| b[24] = 17), long);
}

#[test]
fn a_damaged_payload_is_named() {
    let Encoded { head, payload } = encode(&super::write_frame(1, 512)).unwrap();
    let mut bytes = payload.unwrap().to_vec();
    bytes[100] ^= 1;
    assert!(matches!(decode_bytes(&head, &bytes), Err(FrameError::PayloadCrc { .. })));
    let header = Header::decode(&head).unwrap();
    let short = decode(&header, Some(Buf::copied_from(&bytes[..511])));
    assert!(matches!(short, Err(FrameError::LengthMismatch { .. })));
}

#[test]
fn numbers_in_the_header_are_checked_on_the_way_in() {
    let change = |message: Message, id: u64| {
        let mut head = encode(&frame(message)).unwrap().head;
        head[24..32].copy_from_slice(&id.to_le_bytes());
        fix_checksums(&mut head, &[]);
        decode_bytes(&head, &[]).unwrap_err()
    };
    let start = Message::CopyStart { toward: generation(1), all: true, complete: false };
    assert_eq!(change(start, 0), FrameError::ZeroGeneration(Kind::CopyStart));
    let (kind, value, max) = (Kind::Verdict, 256, 255);
    let verdict = Message::Verdict { row: 1 };
    assert_eq!(change(verdict, 256), FrameError::OutOfRange { kind, value, max });
}
