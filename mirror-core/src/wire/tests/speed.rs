//! Not a test of right and wrong: what a frame costs. Run with `cargo test --release -p
//! mirror-core frame_cost -- --ignored --nocapture`.

use super::{pair, write_frame};
use crate::wire::link::{LinkEvent, Want};
use std::time::Instant;

#[test]
#[ignore = "a measurement, in release mode only"]
fn frame_cost() {
    for len in [4096, 65_536, 1 << 20] {
        let rounds = (1 << 30) / len;
        let (mut a, mut b) = pair();
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
            b.filled(len).unwrap();
            assert!(matches!(b.next(), Some(LinkEvent::Frame(_))));
            decode += start.elapsed().as_nanos();
        }
        let per = |total: u128| total / rounds as u128;
        println!("{len:>8} bytes: encode {} ns, decode {} ns", per(encode), per(decode));
    }
}
