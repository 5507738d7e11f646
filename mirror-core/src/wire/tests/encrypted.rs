//! What encryption adds: nobody reads, nobody talks a side out of it, nobody decrypts later.

use super::{
    ACCEPTOR_NONCE, DIALLER_NONCE, bytes_of, config_of, ends_of, frame, full_card, pair_of,
    write_frame,
};
use crate::units::Side;
use crate::wire::error::{HandshakeError as E, Refusal};
use crate::wire::link::{Link, LinkError, LinkEvent};
use crate::wire::{Message, Secret, Security};
use Security::{Authenticated, Encrypted};

fn refused(link: &mut Link, bytes: &[u8]) -> E {
    match link.feed(bytes) {
        Err(LinkError::Handshake(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

/// Hello, Reply and Proof of a good handshake.
fn recorded() -> [Vec<u8>; 3] {
    let (mut a, mut b) = ends_of(Encrypted);
    let hello = a.take_output();
    b.feed(&hello).unwrap();
    let reply = b.take_output();
    a.feed(&reply).unwrap();
    [hello, reply, a.take_output()]
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// The data, and what the frame's head and a card say.
#[test]
fn nothing_of_a_frame_can_be_read() {
    let stream = |security| {
        let (mut a, _) = pair_of(security);
        let card = frame(Message::Card(Box::new(full_card())));
        [
            bytes_of(&a.encode(&card).unwrap()),
            bytes_of(&a.encode(&write_frame(0x1234_5678, 512)).unwrap()),
        ]
        .concat()
    };
    let (open, closed) = (stream(Authenticated), stream(Encrypted));
    for what in [&[0x5A; 8][..], &0x1234_5678_u64.to_le_bytes(), &[3; 8], &[0xB5, 0x01, 16]] {
        assert!(contains(&open, what), "{what:02x?} is there to be read");
        assert!(!contains(&closed, what), "{what:02x?}");
    }
}

/// A frame is as long as its head, its payload and a tag.
#[test]
fn frames_are_hardly_longer() {
    let (mut a, _) = pair_of(Encrypted);
    assert_eq!(a.encode(&write_frame(1, 512)).unwrap().wire_len(), 64 + 512 + 16);
    assert_eq!(a.encode(&frame(Message::Settled)).unwrap().wire_len(), 64);
}

#[test]
fn a_peer_that_offers_less_or_other_is_refused_and_the_setting_named() {
    for (here, there) in [(Encrypted, Authenticated), (Authenticated, Encrypted)] {
        let mut a = Link::dial(config_of(there, Side::First), DIALLER_NONCE).unwrap();
        let mut b = Link::accept(config_of(here, Side::Second), ACCEPTOR_NONCE).unwrap();
        let error = refused(&mut b, &a.take_output());
        assert!(matches!(error, E::Mode { ours, .. } if ours == here), "{error:?}");
        let text = error.to_string();
        let named =
            format!("security = \"{}\" here, but \"{}\" on the peer", here.word(), there.word());
        assert!(text.starts_with(&named), "{text}");
        let told = refused(&mut a, &b.take_output());
        assert_eq!(told, E::Refused(Refusal::Mode));
        assert!(told.to_string().contains("security"), "{told}");
        assert!(!a.is_ready() && !b.is_ready());
    }
}

/// Somebody on the way changes what one side offers or the other one chose.
#[test]
fn nobody_on_the_way_talks_them_out_of_it() {
    let [hello, reply, _] = recorded();
    let with_modes = |bytes: &[u8], modes| {
        let mut bytes = bytes.to_vec();
        bytes[17] = modes;
        bytes
    };
    let (mut a, mut b) = ends_of(Encrypted);
    assert_eq!(refused(&mut b, &with_modes(&hello, 1)), E::Mode { ours: Encrypted, theirs: 1 });
    assert_eq!(refused(&mut a, &with_modes(&reply, 1)), E::Mode { ours: Encrypted, theirs: 1 });
    // Both are told that the other one wants less: they do not even then.
    let (mut a, mut b) = ends_of(Encrypted);
    b.feed(&with_modes(&a.take_output(), 3)).unwrap();
    assert_eq!(refused(&mut a, &b.take_output()), E::WrongProof);
    assert!(E::Mode { ours: Encrypted, theirs: 0x80 }.to_string().contains("unknown (0x80)"));
}

#[test]
fn every_bit_of_the_handshake_is_covered() {
    let [hello, reply, proof] = recorded();
    let flip = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    for bit in 0..hello.len() * 8 {
        let (_, mut b) = ends_of(Encrypted);
        let good = b.feed(&flip(&hello, bit)).and_then(|()| b.feed(&proof));
        assert!(good.is_err(), "Hello bit {bit}");
    }
    for bit in 0..reply.len() * 8 {
        assert!(ends_of(Encrypted).0.feed(&flip(&reply, bit)).is_err(), "Reply bit {bit}");
    }
    for bit in 0..proof.len() * 8 {
        let (_, mut b) = ends_of(Encrypted);
        b.feed(&hello).unwrap();
        assert!(b.feed(&flip(&proof, bit)).is_err(), "Proof bit {bit}");
    }
}

#[test]
fn another_secret_gets_nowhere_and_a_recording_neither() {
    let (mut a, _) = ends_of(Encrypted);
    let mut config = config_of(Encrypted, Side::Second);
    config.secret = Secret::new(&[9; 16]).unwrap();
    let mut b = Link::accept(config, ACCEPTOR_NONCE).unwrap();
    b.feed(&a.take_output()).unwrap();
    assert_eq!(refused(&mut a, &b.take_output()), E::WrongProof);

    let [hello, _, proof] = recorded();
    let mut b = Link::accept(config_of(Encrypted, Side::Second), [0x33; 32]).unwrap();
    b.feed(&hello).unwrap();
    assert_eq!(refused(&mut b, &proof), E::WrongProof);
}

/// A peer that has the secret but gives a point that makes the outcome known.
#[test]
fn a_public_key_that_is_none_is_refused() {
    let secret = blake3::derive_key(
        "mirror-core 2026 wire v1: handshake proof from shared secret",
        b"sixteen byte key and more",
    );
    let [_, mut reply, _] = recorded();
    reply[32..64].fill(0);
    let (mut a, _) = ends_of(Encrypted);
    let hello = a.take_output();
    let mut hasher = blake3::Hasher::new_keyed(&secret);
    hasher.update(b"acceptor proof  ").update(&hello).update(&reply[..64]);
    reply[64..].copy_from_slice(hasher.finalize().as_bytes());
    assert_eq!(refused(&mut a, &reply), E::NoKey);
    assert!(a.take_output().is_empty(), "no Proof for such a peer");
}

/// Whoever has the secret and all that was sent lacks the key pairs: other pairs, other frames.
#[test]
fn the_secret_alone_does_not_decrypt() {
    let frame_with = |random: [u8; 32]| {
        let mut a = Link::dial(config_of(Encrypted, Side::First), random).unwrap();
        let (_, mut b) = ends_of(Encrypted);
        b.feed(&a.take_output()).unwrap();
        a.feed(&b.take_output()).unwrap();
        b.feed(&a.take_output()).unwrap();
        bytes_of(&a.encode(&write_frame(1, 512)).unwrap())
    };
    assert_ne!(frame_with([0x44; 32]), frame_with([0x45; 32]));
    let [hello, _, _] = recorded();
    assert_ne!(&hello[64..], DIALLER_NONCE, "the private part is not sent");
}

/// The end of the stream may be anywhere: what was cut never becomes a frame.
#[test]
fn a_cut_frame_is_no_frame() {
    let (mut a, mut b) = pair_of(Encrypted);
    let bytes = bytes_of(&a.encode(&write_frame(1, 512)).unwrap());
    b.feed(&bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(b.next(), None);
    let next = bytes_of(&a.encode(&write_frame(2, 512)).unwrap());
    assert_eq!(b.feed(&next), Err(LinkError::Forged { counter: 0 }));
    assert_eq!(b.next(), None);
}

/// Far beyond the change of keys, and back again in the other direction.
#[test]
fn many_frames_pass() {
    let (mut a, mut b) = pair_of(Encrypted);
    for id in 0..20_000 {
        let sent = write_frame(id, 16);
        b.feed(&bytes_of(&a.encode(&sent).unwrap())).unwrap();
        assert_eq!(b.next(), Some(LinkEvent::Frame(sent)));
    }
    let back = frame(Message::Settled);
    a.feed(&bytes_of(&b.encode(&back).unwrap())).unwrap();
    assert_eq!(a.next(), Some(LinkEvent::Frame(back)));
}

/// Memory is taken for a length only after the head has proved authentic.
#[test]
fn a_forged_length_takes_no_memory() {
    let (mut a, mut b) = pair_of(Encrypted);
    let mut head = a.encode(&write_frame(1, 512)).unwrap().head;
    head[6] ^= 0x0F;
    assert_eq!(b.feed(&head), Err(LinkError::Forged { counter: 0 }));
}
