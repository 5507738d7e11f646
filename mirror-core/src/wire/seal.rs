//! The tag of every frame: it proves that the frame comes from the peer, in this session, in this
//! direction, at this place of the stream.

use super::header::{AT_TAG, HEADER_BYTES, TAG_BYTES, array};

/// A 32-byte key. `Debug` hides it.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// One direction of a connection: its key and how many frames have passed.
#[derive(Debug)]
pub(super) struct Sealer {
    key: Key,
    counter: u64,
}

impl Sealer {
    pub(super) const fn new(key: Key) -> Self {
        Self { key, counter: 0 }
    }

    /// Number of the next frame, from 0.
    pub(super) const fn counter(&self) -> u64 {
        self.counter
    }

    /// Writes the tag of the next frame into `head`.
    pub(super) fn seal(&mut self, head: &mut [u8; HEADER_BYTES], payload: &[u8]) {
        let tag = self.tag(head, payload);
        head[AT_TAG].copy_from_slice(&tag);
        self.counter += 1;
    }

    /// Whether `head` has the tag of the next frame.
    pub(super) fn open(&mut self, head: &[u8; HEADER_BYTES], payload: &[u8]) -> bool {
        let good = same(self.tag(head, payload), array(head, AT_TAG));
        self.counter += 1;
        good
    }

    /// The payload comes first so that the hash gets it in whole aligned chunks and can use the
    /// wide instructions for it; what follows has a fixed length, so no two frames give the same
    /// input.
    fn tag(&self, head: &[u8; HEADER_BYTES], payload: &[u8]) -> [u8; TAG_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key.0);
        hasher.update(payload);
        hasher.update(&head[..AT_TAG.start]);
        hasher.update(&self.counter.to_le_bytes());
        array(hasher.finalize().as_bytes(), 0..TAG_BYTES)
    }
}

/// Compares in constant time, as hashes do.
fn same(a: [u8; TAG_BYTES], b: [u8; TAG_BYTES]) -> bool {
    let widen = |tag: [u8; TAG_BYTES]| {
        let mut bytes = [0; 32];
        bytes[..TAG_BYTES].copy_from_slice(&tag);
        blake3::Hash::from_bytes(bytes)
    };
    widen(a) == widen(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [u8; HEADER_BYTES] = [7; HEADER_BYTES];

    fn sealed(key: u8, payload: &[u8]) -> [u8; HEADER_BYTES] {
        let mut head = HEAD;
        Sealer::new(Key([key; 32])).seal(&mut head, payload);
        head
    }

    #[test]
    fn a_tag_fits_one_key_payload_and_place_only() {
        let head = sealed(1, b"data");
        assert!(Sealer::new(Key([1; 32])).open(&head, b"data"));
        assert!(!Sealer::new(Key([2; 32])).open(&head, b"data"));
        assert!(!Sealer::new(Key([1; 32])).open(&head, b"date"));
        let mut later = Sealer::new(Key([1; 32]));
        assert!(later.open(&head, b"data"));
        assert!(!later.open(&head, b"data"), "a repeated frame must not pass");
    }

    #[test]
    fn every_bit_of_the_header_counts() {
        let head = sealed(1, b"data");
        for bit in 0..HEADER_BYTES * 8 {
            let mut changed = head;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!Sealer::new(Key([1; 32])).open(&changed, b"data"), "bit {bit}");
        }
    }

    #[test]
    fn debug_hides_the_key() {
        let text = format!("{:?}", Sealer::new(Key([0xAB; 32])));
        assert!(!text.contains("171") && !text.contains("ab"), "{text}");
    }
}
