//! Not a test of right and wrong: what a frame costs. Run with `cargo test --release -p
//! mirror-core frame_cost -- --ignored --nocapture`.

use super::{pair_of, write_frame};
use crate::wire::Security;
use crate::wire::link::{LinkEvent, Want};
use std::time::Instant;

#[test]
#[ignore = "a measurement, in release mode only"]
fn frame_cost() {
    for len in [4096, 65_536, 1 << 20] {
        for security in [Security::Authenticated, Security::Encrypted] {
            // The best of several: what else runs on the machine only ever adds to it.
            let (encode, decode) =
                (0..5).map(|_| cost(security, len)).fold((u128::MAX, u128::MAX), |best, this| {
                    (best.0.min(this.0), best.1.min(this.1))
                });
            let word = security.word();
            println!("{word:>13}, {len:>8} bytes: encode {encode} ns, decode {decode} ns");
        }
    }
}

/// What a frame costs to encode and to decode, in ns.
fn cost(security: Security, len: usize) -> (u128, u128) {
    let rounds = (1 << 28) / len;
    let (mut a, mut b) = pair_of(security);
    let frame = write_frame(1, len);
    let (mut encode, mut decode) = (0, 0);
    for _ in 0..rounds {
        let start = Instant::now();
        let encoded = a.encode(&frame).unwrap();
        encode += start.elapsed().as_nanos();
        let start = Instant::now();
        b.feed(&encoded.head).unwrap();
        let Want::Payload(room) = b.want() else { panic!("a payload is due") };
        room.copy_from_slice(encoded.payload_bytes());
        b.filled(encoded.payload_bytes().len()).unwrap();
        assert!(matches!(b.next(), Some(LinkEvent::Frame(_))));
        decode += start.elapsed().as_nanos();
    }
    let per = |total: u128| total / rounds as u128;
    (per(encode), per(decode))
}

/// What a connection costs before its first frame, both ends together.
#[test]
#[ignore = "a measurement, in release mode only"]
fn handshake_cost() {
    for security in [Security::Authenticated, Security::Encrypted] {
        let best = (0..200).map(|_| {
            let start = Instant::now();
            let _ = pair_of(security);
            start.elapsed().as_nanos()
        });
        println!("{:>13}: handshake {} ns", security.word(), best.min().unwrap_or(0));
    }
}
