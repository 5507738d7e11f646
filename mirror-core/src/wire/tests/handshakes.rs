//! Who gets in and who does not.

use super::{ACCEPTOR_NONCE, DIALLER_NONCE, acceptor, config, dialler, pair, write_frame};
use crate::units::Side;
use crate::wire::error::{HandshakeError as E, Refusal};
use crate::wire::handshake::{Secret, VersionRange};
use crate::wire::link::{Link, LinkConfig, LinkError, LinkEvent};
use crate::wire::{EncodeError, PeerHello, Security};

/// Runs the handshake to its end and gives both results.
fn shake(mut a: Link, mut b: Link) -> (Result<(), E>, Result<(), E>) {
    let (mut at_a, mut at_b) = (Ok(()), Ok(()));
    for _ in 0..3 {
        at_b = at_b.and(feed(&mut b, &a.take_output()));
        at_a = at_a.and(feed(&mut a, &b.take_output()));
    }
    (at_a, at_b)
}

fn feed(link: &mut Link, bytes: &[u8]) -> Result<(), E> {
    match link.feed(bytes) {
        Ok(()) => Ok(()),
        Err(LinkError::Handshake(error)) => Err(error),
        Err(other) => panic!("not a handshake error: {other}"),
    }
}

fn with_secret(side: Side, secret: &[u8]) -> LinkConfig {
    LinkConfig { secret: Secret::new(secret).unwrap(), ..config(side) }
}

fn with_name(side: Side, name: &str) -> LinkConfig {
    LinkConfig { mirror: name.to_owned(), ..config(side) }
}

/// Hello, Reply and Proof of a good handshake.
fn recorded() -> [Vec<u8>; 3] {
    let (mut a, mut b) = (dialler(), acceptor());
    let hello = a.take_output();
    b.feed(&hello).unwrap();
    let reply = b.take_output();
    a.feed(&reply).unwrap();
    [hello, reply, a.take_output()]
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let (mut a, mut b) = (dialler(), acceptor());
    feed(&mut b, &a.take_output()).unwrap();
    assert_eq!(b.next(), None, "the dialler has proved nothing yet");
    feed(&mut a, &b.take_output()).unwrap();
    feed(&mut b, &a.take_output()).unwrap();
    assert_eq!(a.next(), Some(LinkEvent::Ready(PeerHello { side: Side::Second, version: 1 })));
    assert_eq!(b.next(), Some(LinkEvent::Ready(PeerHello { side: Side::First, version: 1 })));
}

#[test]
fn byte_by_byte_works_and_holds_little() {
    let [hello, reply, proof] = recorded();
    let mut b = acceptor();
    for byte in hello {
        b.feed(&[byte]).unwrap();
    }
    assert_eq!(b.take_output(), reply);
    for byte in &proof {
        assert!(!b.is_ready());
        b.feed(&[*byte]).unwrap();
    }
    assert!(b.is_ready());
}

#[test]
fn another_secret_gets_nowhere() {
    let b = Link::accept(with_secret(Side::Second, &[9; 16]), ACCEPTOR_NONCE).unwrap();
    assert_eq!(
        shake(dialler(), b),
        (Err(E::WrongProof), Err(E::Refused(Refusal::Proof))),
        "the dialler finds out and tells the acceptor"
    );
}

#[test]
fn a_dialler_without_the_secret_is_not_believed() {
    let [hello, _, proof] = recorded();
    for bit in [0, 255] {
        let mut forged = proof.clone();
        forged[32 + bit / 8] ^= 1 << (bit % 8);
        let mut b = acceptor();
        feed(&mut b, &hello).unwrap();
        assert_eq!(feed(&mut b, &forged), Err(E::WrongProof));
        assert_eq!(b.next(), None);
    }
}

#[test]
fn a_recorded_dialler_is_refused_on_a_fresh_nonce() {
    let [hello, _, proof] = recorded();
    let mut b = Link::accept(config(Side::Second), [0x33; 32]).unwrap();
    feed(&mut b, &hello).unwrap();
    assert_eq!(feed(&mut b, &proof), Err(E::WrongProof));
}

#[test]
fn a_recorded_acceptor_is_refused_on_a_fresh_nonce() {
    let [_, reply, _] = recorded();
    let mut a = Link::dial(config(Side::First), [0x33; 32]).unwrap();
    assert_eq!(feed(&mut a, &reply), Err(E::WrongProof));
    assert_eq!(a.next(), None);
}

#[test]
fn an_echo_is_recognised() {
    let mut a = dialler();
    let hello = a.take_output();
    assert_eq!(feed(&mut a, &hello), Err(E::Reflected));
    let mut b = Link::accept(config(Side::Second), DIALLER_NONCE).unwrap();
    assert_eq!(feed(&mut b, &hello), Err(E::Reflected), "own nonce in a Hello");
    let [_, mut reply, _] = recorded();
    reply[32..64].copy_from_slice(&DIALLER_NONCE);
    assert_eq!(feed(&mut dialler(), &reply), Err(E::Reflected), "own nonce in a Reply");
}

/// A server's own acceptor is used as an oracle against its dialler, with the side bytes turned
/// on the way so that they look right.
#[test]
fn a_server_does_not_prove_the_secret_to_itself() {
    let mut a = dialler();
    let mut own = Link::accept(config(Side::First), ACCEPTOR_NONCE).unwrap();
    let mut hello = a.take_output();
    hello[16] ^= 1;
    feed(&mut own, &hello).unwrap();
    let mut reply = own.take_output();
    reply[16] ^= 1;
    assert_eq!(feed(&mut a, &reply), Err(E::WrongProof));
}

/// The proof of one role is no proof of the other.
#[test]
fn proofs_do_not_change_roles() {
    let [hello, reply, mut proof] = recorded();
    let mut b = acceptor();
    feed(&mut b, &hello).unwrap();
    proof[32..].copy_from_slice(&reply[64..]);
    assert_eq!(feed(&mut b, &proof), Err(E::WrongProof));
}

#[test]
fn every_bit_of_the_handshake_is_covered() {
    let [hello, reply, proof] = recorded();
    for bit in 0..hello.len() * 8 {
        let mut b = acceptor();
        let good = feed(&mut b, &flip(&hello, bit)).and_then(|()| feed(&mut b, &proof));
        assert!(good.is_err(), "Hello bit {bit}");
    }
    for bit in 0..reply.len() * 8 {
        assert!(feed(&mut dialler(), &flip(&reply, bit)).is_err(), "Reply bit {bit}");
    }
    for bit in 0..proof.len() * 8 {
        let mut b = acceptor();
        feed(&mut b, &hello).unwrap();
        assert!(feed(&mut b, &flip(&proof, bit)).is_err(), "Proof bit {bit}");
    }
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

#[test]
fn the_same_side_twice_is_a_configuration_error() {
    let b = Link::accept(config(Side::First), ACCEPTOR_NONCE).unwrap();
    let refused = Err(E::Refused(Refusal::Side));
    assert_eq!(shake(dialler(), b), (refused, Err(E::SameSide(Side::First))));
    let [_, mut reply, _] = recorded();
    reply[16] = 0;
    assert_eq!(feed(&mut dialler(), &reply), Err(E::SameSide(Side::First)));
}

#[test]
fn another_mirror_is_named() {
    let b = Link::accept(with_name(Side::Second, "md2"), ACCEPTOR_NONCE).unwrap();
    let error = E::WrongMirror { ours: "md2".to_owned(), theirs: "md1".to_owned() };
    assert_eq!(shake(dialler(), b), (Err(E::Refused(Refusal::Mirror)), Err(error)));
}

#[test]
fn without_a_common_version_both_name_both_ranges() {
    let old = VersionRange { min: 1, max: 2 };
    let new = VersionRange { min: 3, max: 7 };
    for (at_a, at_b) in [(old, new), (new, old)] {
        let a = Link::dial_with(config(Side::First), DIALLER_NONCE, at_a).unwrap();
        let b = Link::accept_with(config(Side::Second), ACCEPTOR_NONCE, at_b).unwrap();
        let (from_a, from_b) = shake(a, b);
        assert_eq!(from_a, Err(E::Version { ours: at_a, theirs: at_b }));
        assert_eq!(from_b, Err(E::Version { ours: at_b, theirs: at_a }));
        let text = from_b.unwrap_err().to_string();
        assert!(text.contains("1 to 2") && text.contains("3 to 7"), "{text}");
    }
}

#[test]
fn the_newest_common_version_is_chosen() {
    let versions = |min, max| VersionRange { min, max };
    let range = versions(2, 9);
    let mut a = Link::dial_with(config(Side::First), DIALLER_NONCE, versions(1, 4)).unwrap();
    let mut b = Link::accept_with(config(Side::Second), ACCEPTOR_NONCE, range).unwrap();
    b.feed(&a.take_output()).unwrap();
    a.feed(&b.take_output()).unwrap();
    assert_eq!(a.next(), Some(LinkEvent::Ready(PeerHello { side: Side::Second, version: 4 })));
    assert_eq!(versions(3, 3).common(versions(1, 3)), Some(3));
    assert_eq!(versions(3, 3).common(versions(1, 2)), None);
}

/// A version is readable from the first 16 bytes, whatever a later version puts after them.
#[test]
fn a_foreign_version_is_told_from_the_first_16_bytes() {
    let mut hello = recorded()[0][..16].to_vec();
    hello[8..12].copy_from_slice(&[9, 0, 12, 0]);
    let theirs = VersionRange { min: 9, max: 12 };
    let ours = VersionRange { min: 1, max: 1 };
    let mut b = acceptor();
    assert_eq!(feed(&mut b, &hello), Err(E::Version { ours, theirs }));
    assert_eq!(b.take_output().len(), 16);
}

#[test]
fn other_protocols_and_nonsense_are_refused() {
    assert_eq!(feed(&mut acceptor(), b"GET / HTTP/1.1\r\n\r\n"), Err(E::NotMirror));
    let [hello, reply, proof] = recorded();
    let turn = |expected, found| Err(E::OutOfTurn { expected, found });
    assert_eq!(feed(&mut acceptor(), &reply), turn(1, 2));
    assert_eq!(feed(&mut acceptor(), &proof), turn(1, 3));
    assert_eq!(feed(&mut dialler(), &proof), turn(2, 3));
    let mut other = hello.clone();
    other[64] ^= 1;
    assert_eq!(feed(&mut dialler(), &other), turn(2, 1), "another dialler at the other end");
    let changed = |at: usize, value| {
        let mut hello = hello.clone();
        hello[at] = value;
        feed(&mut acceptor(), &hello)
    };
    let malformed = |field| Err(E::Malformed { kind: 1, field });
    assert_eq!(changed(8, 0), malformed("version range"));
    assert_eq!(changed(14, 1), malformed("version"));
    assert_eq!(changed(16, 2), malformed("side"));
    assert_eq!(changed(17, 2), Err(E::Mode { ours: Security::Authenticated, theirs: 2 }));
    for (at, value) in [(18, 0), (18, 2), (18, 4), (18, 32), (18, 255), (32, b'\n')] {
        assert_eq!(changed(at, value), malformed("mirror name"), "byte {at} = {value}");
    }
    assert_eq!(changed(19, 1), malformed("reserved byte"));
}

#[test]
fn names_and_secrets_are_checked_at_home() {
    for name in ["", "has space", "a-name-that-is-more-than-31-bytes", "grün"] {
        let error = Link::dial(with_name(Side::First, name), DIALLER_NONCE).unwrap_err();
        assert_eq!(error, LinkError::Handshake(E::BadName(name.to_owned())));
    }
    let longest = "a-name-that-is-of-just-31-bytes";
    assert!(Link::dial(with_name(Side::First, longest), DIALLER_NONCE).is_ok());
    assert_eq!(Secret::new(&[1; 15]).unwrap_err().len, 15);
    assert_eq!(format!("{:?}", Secret::new(&[1; 16]).unwrap()), "Secret(..)");
}

#[test]
fn directions_and_connections_have_their_own_keys() {
    let tag = |link: &mut Link| link.encode(&write_frame(1, 512)).unwrap().head[48..].to_vec();
    let (mut a, mut b) = pair();
    let (from_a, from_b) = (tag(&mut a), tag(&mut b));
    assert_ne!(from_a, from_b);
    let mut a2 = Link::dial(config(Side::First), [0x44; 32]).unwrap();
    let mut b2 = acceptor();
    b2.feed(&a2.take_output()).unwrap();
    a2.feed(&b2.take_output()).unwrap();
    assert_eq!(a2.encode(&write_frame(1, 512)), Err(EncodeError::OutputPending));
    let _ = a2.take_output();
    assert_ne!(tag(&mut a2), from_a);
}
