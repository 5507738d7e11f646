//! The real codec at both ends of a connection: frames to authenticated bytes and back.

use crate::rng::Rng;
use mirror_core::units::Side;
use mirror_core::wire::{Frame, Link, LinkConfig, LinkEvent, Secret, Security};

/// Both ends, by the server they are on.
#[derive(Debug)]
pub struct Wires([Link; 2]);

fn config(side: Side, security: Security) -> LinkConfig {
    let secret = Secret::new(b"a secret of the simulator").expect("long enough");
    LinkConfig { secret, mirror: "md1".to_owned(), side, security }
}

impl Wires {
    /// A connection whose handshake is over.
    ///
    /// # Panics
    /// If the handshake fails.
    pub fn between(rng: &mut Rng) -> Self {
        let (here, there) = (rng.seed32(), rng.seed32());
        // Key pairs take their time; what is encrypted differs in the wire's own tests only.
        let security = match here[0] % 8 {
            0 => Security::Encrypted,
            _ => Security::Authenticated,
        };
        let dialled = Link::dial(config(Side::First, security), here);
        let accepted = Link::accept(config(Side::Second, security), there);
        let mut ends = [dialled.expect("a good name"), accepted.expect("a good name")];
        let mut from = 0;
        while !ends.iter().all(Link::is_ready) {
            let bytes = ends[from].take_output();
            ends[1 - from].feed(&bytes).expect("two good ends");
            from = 1 - from;
        }
        for (from, end) in [(0, 1), (1, 0)] {
            let bytes = ends[from].take_output();
            ends[end].feed(&bytes).expect("two good ends");
            assert!(matches!(ends[end].next(), Some(LinkEvent::Ready(_))), "the handshake is over");
        }
        Self(ends)
    }

    /// The bytes of a frame that `from` sends.
    ///
    /// # Panics
    /// If the core sends what the wire does not take.
    pub fn encode(&mut self, from: usize, frame: &Frame) -> Vec<u8> {
        let encoded = self.0[from].encode(frame).expect("a frame that the wire takes");
        [&encoded.head[..], encoded.payload_bytes()].concat()
    }

    /// What comes out at `to`.
    ///
    /// # Errors
    /// Why the connection must be closed.
    pub fn feed(&mut self, to: usize, bytes: &[u8]) -> Result<Vec<Frame>, String> {
        let end = &mut self.0[to];
        end.feed(bytes).map_err(|e| e.to_string())?;
        let events = std::iter::from_fn(|| end.next());
        Ok(events
            .filter_map(|e| if let LinkEvent::Frame(frame) = e { Some(frame) } else { None })
            .collect())
    }
}
