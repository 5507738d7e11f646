//! Frames over a connection: cut anywhere, received anywhere, changed anywhere.

use super::frames::any_frame;
use super::{acceptor, bytes_of, dialler, frame, pair, pair_of, write_frame};
use crate::buf::ALIGN;
use crate::wire::link::{EncodeError, Link, LinkError, LinkEvent, Want};
use crate::wire::{Frame, FrameError, Message, Security};
use proptest::collection::vec;
use proptest::prelude::*;

fn next_frame(link: &mut Link) -> Option<Frame> {
    match link.next()? {
        LinkEvent::Frame(frame) => Some(frame),
        other => panic!("not a frame: {other:?}"),
    }
}

fn sent(link: &mut Link, frame: &Frame) -> Vec<u8> {
    bytes_of(&link.encode(frame).unwrap())
}

const BOTH: [Security; 2] = [Security::Authenticated, Security::Encrypted];

fn security() -> impl Strategy<Value = Security> {
    prop::sample::select(&BOTH[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_gives_the_same_frames(
        security in security(),
        frames in vec(any_frame(), 1..6),
        cuts in vec(1..300_usize, 1..20),
    ) {
        let (mut a, mut b) = pair_of(security);
        let stream: Vec<u8> = frames.iter().flat_map(|f| sent(&mut a, f)).collect();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            let (part, after) = rest.split_at((*cut).min(rest.len()));
            b.feed(part).unwrap();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let received: Vec<_> = std::iter::from_fn(|| next_frame(&mut b)).collect();
        prop_assert_eq!(received, frames);
    }

    #[test]
    fn a_changed_frame_never_comes_through(
        security in security(),
        frames in vec(any_frame(), 1..4),
        at in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let (mut a, mut b) = pair_of(security);
        let mut stream: Vec<u8> = frames.iter().flat_map(|f| sent(&mut a, f)).collect();
        let at = at.index(stream.len());
        stream[at] ^= change;
        prop_assert!(b.feed(&stream).is_err());
        let received: Vec<_> = std::iter::from_fn(|| next_frame(&mut b)).collect();
        prop_assert!(received.len() < frames.len());
        prop_assert_eq!(&received[..], &frames[..received.len()], "frames before the change");
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in vec(any::<u8>(), 0..2000),
        ready in prop::option::of(security()),
        prefix in any::<bool>(),
    ) {
        let mut link = ready.map_or_else(acceptor, |security| pair_of(security).1);
        let ready = ready.is_some();
        let magic: &[u8] = if ready { &[0xB5, 0x01] } else { b"mdmirror\x01\x00\x01\x00\x01" };
        let result = link.feed(if prefix { magic } else { &[] }).and_then(|()| link.feed(&bytes));
        prop_assert!(result.is_err() || bytes.len() < 96);
        prop_assert_eq!(link.next(), None);
    }
}

/// Someone who can repair the checksums cannot repair the tag.
#[test]
fn a_change_with_good_checksums_is_forged() {
    let (mut a, mut b) = pair();
    let mut bytes = sent(&mut a, &write_frame(1, 512));
    bytes[24] ^= 2;
    let crc = crc32fast::hash(&bytes[..44]);
    bytes[44..48].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(b.feed(&bytes), Err(LinkError::Forged { counter: 0 }));
    assert_eq!(b.next(), None);
}

#[test]
fn repeated_moved_and_missing_frames_are_refused() {
    for security in BOTH {
        repeated_moved_and_missing(security);
    }
}

fn repeated_moved_and_missing(security: Security) {
    let stream = |order: &[usize]| {
        let (mut a, mut b) = pair_of(security);
        let frames: Vec<_> = (0..3).map(|id| sent(&mut a, &write_frame(id, 512))).collect();
        let fed = order.iter().try_for_each(|i| b.feed(&frames[*i]));
        (fed, std::iter::from_fn(|| next_frame(&mut b)).count())
    };
    assert_eq!(stream(&[0, 1, 2]), (Ok(()), 3));
    assert_eq!(stream(&[0, 0]), (Err(LinkError::Forged { counter: 1 }), 1));
    assert_eq!(stream(&[1, 0]), (Err(LinkError::Forged { counter: 0 }), 0));
    assert_eq!(stream(&[0, 2]), (Err(LinkError::Forged { counter: 1 }), 1));
}

#[test]
fn a_frame_sent_back_is_refused() {
    for security in BOTH {
        let (mut a, _) = pair_of(security);
        let bytes = sent(&mut a, &frame(Message::Settled));
        assert_eq!(a.feed(&bytes), Err(LinkError::Forged { counter: 0 }));
    }
}

/// A frame that goes with the last handshake message in one piece.
#[test]
fn frames_may_follow_the_proof_at_once() {
    let (mut a, mut b) = (dialler(), acceptor());
    b.feed(&a.take_output()).unwrap();
    a.feed(&b.take_output()).unwrap();
    let mut bytes = a.take_output();
    let first = write_frame(1, 512);
    bytes.extend(sent(&mut a, &first));
    b.feed(&bytes).unwrap();
    assert!(matches!(b.next(), Some(LinkEvent::Ready(_))));
    assert_eq!(next_frame(&mut b), Some(first));
}

#[test]
fn payloads_can_be_received_in_place() {
    let (mut a, mut b) = pair();
    assert_eq!(b.want(), Want::Stream(64));
    for id in 0..2 {
        let expected = write_frame(id, 8192);
        let bytes = sent(&mut a, &expected);
        b.feed(&bytes[..10]).unwrap();
        assert_eq!(b.want(), Want::Stream(54));
        b.feed(&bytes[10..164]).unwrap();
        for part in [&bytes[164..1000], &bytes[1000..]] {
            let Want::Payload(room) = b.want() else { panic!("a payload is due") };
            assert_eq!(
                room.as_ptr().align_offset(ALIGN),
                if part.len() == 836 { 3996 } else { 3160 }
            );
            room[..part.len()].copy_from_slice(part);
            b.filled(part.len()).unwrap();
        }
        assert_eq!(next_frame(&mut b), Some(expected));
    }
}

#[test]
fn payload_memory_can_be_lent() {
    for security in BOTH {
        lend_payload_memory(security);
    }
}

fn lend_payload_memory(security: Security) {
    let (mut a, mut b) = pair_of(security);
    assert!(b.lend().is_none(), "nothing is due");
    let expected = write_frame(1, 4096);
    let bytes = sent(&mut a, &expected);
    b.feed(&bytes[..64]).unwrap();
    for part in [&bytes[64..100], &bytes[100..]] {
        let mut loan = b.lend().unwrap();
        assert_eq!(b.want(), Want::Nothing);
        loan.room()[..part.len()].copy_from_slice(part);
        b.give_back(loan, part.len()).unwrap();
    }
    let Some(Frame { message: Message::Write { data, .. }, .. }) = next_frame(&mut b) else {
        panic!("a write is due");
    };
    assert_eq!(data.as_ptr().align_offset(ALIGN), 0);
    assert_eq!(&data[..], &[0x5A; 4096]);
    b.feed(&sent(&mut a, &expected)[..64]).unwrap();
    let _loan = b.lend().unwrap();
    assert_eq!(b.feed(&[1]), Err(LinkError::OnLoan));
}

#[test]
fn reporting_too_much_is_an_error() {
    let (mut a, mut b) = pair();
    assert_eq!(b.filled(1), Err(LinkError::Overfilled { reported: 1, room: 0 }));
    let (_, mut b2) = pair();
    b2.feed(&sent(&mut a, &write_frame(1, 512))[..64]).unwrap();
    assert_eq!(b2.filled(513), Err(LinkError::Overfilled { reported: 513, room: 512 }));
}

#[test]
fn an_error_is_final() {
    let (mut a, mut b) = pair();
    let good = sent(&mut a, &write_frame(1, 512));
    b.feed(&good).unwrap();
    let mut bad = sent(&mut a, &write_frame(2, 512));
    bad[64] ^= 1;
    let error = b.feed(&bad).unwrap_err();
    assert!(matches!(error, LinkError::Frame { counter: 1, error: FrameError::PayloadCrc { .. } }));
    assert_eq!(b.feed(&good), Err(error.clone()));
    assert_eq!(b.feed(&[]), Err(error.clone()));
    assert_eq!(b.filled(0), Err(error));
    assert_eq!(b.want(), Want::Nothing);
    assert!(!b.is_ready());
    assert_eq!(b.encode(&write_frame(3, 512)), Err(EncodeError::NotReady));
    assert_eq!(next_frame(&mut b), Some(write_frame(1, 512)), "what came before still counts");
}

#[test]
fn a_frame_that_cannot_be_sent_does_not_count() {
    let (mut a, mut b) = pair();
    let mut bad = write_frame(1, 512);
    if let Message::Write { extent, .. } = &mut bad.message {
        extent.len = 1024;
    }
    assert!(matches!(a.encode(&bad), Err(EncodeError::Frame(_))));
    b.feed(&sent(&mut a, &write_frame(1, 512))).unwrap();
    assert!(b.next().is_some());
}

#[test]
fn nothing_can_be_sent_before_the_handshake() {
    assert_eq!(dialler().encode(&write_frame(1, 512)), Err(EncodeError::NotReady));
}
