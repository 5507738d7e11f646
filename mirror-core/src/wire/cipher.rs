//! Encryption of a connection: fresh keys for each connection, and one cipher for each direction.
//!
//! X25519 gives a key that nobody can compute later, not even with the shared secret; AES-256-GCM
//! uses the instructions of the processor. The numbers of the frames are the nonces, so that none
//! is ever used twice and nothing can be repeated, moved or left out.

use crate::buf::{Buf, BufMut};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use std::fmt;
use thiserror::Error;

/// Bytes that encryption adds to what it encrypts.
pub const SEAL_BYTES: usize = 16;

/// Frames under one key. With the largest frames that is 16 GiB, far below what the cipher bears.
const FRAMES_PER_KEY: u64 = 1 << 14;

/// How the connections between the servers are protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Security {
    /// Nobody can change, repeat or make up anything, but anybody on the way can read.
    Authenticated,
    /// Nor can anybody read.
    Encrypted,
}

impl Security {
    /// The word for it in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::Encrypted => "encrypted",
        }
    }
}

/// A direction has sent as many frames as it has numbers for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the connection has no number for another frame")]
pub struct Exhausted;

/// The number of a frame, and the one after it.
pub(super) fn count(counter: &mut u64) -> Result<u64, Exhausted> {
    let this = *counter;
    *counter = this.checked_add(1).ok_or(Exhausted)?;
    Ok(this)
}

/// A key pair for one connection. `Debug` hides it.
pub struct Ephemeral([u8; 32]);

impl Ephemeral {
    /// From 32 bytes of fresh randomness.
    #[must_use]
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    fn key(&self) -> PrivateKey {
        PrivateKey::from_private_key(&X25519, &self.0).expect("any 32 bytes are a private key")
    }

    /// What the other side may know.
    ///
    /// # Panics
    /// Never: any 32 bytes have a public part.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        let public = self.key().compute_public_key().expect("a private key has a public one");
        public.as_ref().try_into().expect("of 32 bytes")
    }

    /// What only both sides can know, to be mixed into their keys; `None` if `theirs` is no key of
    /// a key pair.
    #[must_use]
    pub fn agree(&self, theirs: &[u8; 32]) -> Option<[u8; 32]> {
        let theirs = UnparsedPublicKey::new(&X25519, theirs);
        agree(&self.key(), theirs, (), |common| common.try_into().map_err(drop)).ok()
    }
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ephemeral(..)")
    }
}

/// The two parts of a frame, which have different nonces.
#[derive(Clone, Copy)]
enum Part {
    Head = 0,
    Payload = 1,
}

/// Encrypts or decrypts one direction of a connection, frame by frame. `Debug` hides it.
pub struct Cipher {
    /// The keys to come follow from it; those that were do not.
    chain: [u8; 32],
    key: LessSafeKey,
    counter: u64,
}

impl Cipher {
    /// A direction with this key, of which nothing has passed.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        let (chain, key) = step(&key);
        Self { chain, key, counter: 0 }
    }

    /// Number of the frame under way, from 0.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    /// Encrypts the head of this frame and gives its tag.
    ///
    /// # Panics
    /// Never: the length is within what the cipher takes.
    pub fn seal_head(&self, head: &mut [u8]) -> [u8; SEAL_BYTES] {
        let tag = self.key.seal_in_place_separate_tag(self.nonce(Part::Head), Aad::empty(), head);
        let tag = tag.expect("the cipher takes far longer texts");
        tag.as_ref().try_into().expect("its tag has 16 bytes")
    }

    /// Decrypts the head of this frame, if its tag fits. If not, `head` is worthless.
    #[must_use]
    pub fn open_head(&self, head: &mut [u8], tag: &[u8]) -> bool {
        self.open(Part::Head, head, tag)
    }

    /// The payload of this frame encrypted, [`SEAL_BYTES`] longer: the only copy that is made.
    ///
    /// # Panics
    /// Never: the length is within what the cipher takes.
    #[must_use]
    pub fn seal_payload(&self, payload: &[u8]) -> Buf {
        let mut sealed = BufMut::to_fill(payload.len() + SEAL_BYTES);
        let (body, tag) = sealed.split_at_mut(payload.len());
        let (nonce, aad) = (self.nonce(Part::Payload), Aad::empty());
        self.key
            .seal_out_of_place_scatter(nonce, aad, payload, body, &[], tag)
            .expect("the cipher takes far longer texts");
        sealed.freeze()
    }

    /// Decrypts the payload of this frame in its place and cuts the tag off; `None` if it does not
    /// fit.
    #[must_use]
    pub fn open_payload(&self, mut sealed: BufMut) -> Option<BufMut> {
        let len = sealed.len().checked_sub(SEAL_BYTES)?;
        let (body, tag) = sealed.split_at_mut(len);
        if !self.open(Part::Payload, body, tag) {
            return None;
        }
        sealed.truncate(len);
        Some(sealed)
    }

    /// Goes on to the next frame, and now and then to a new key.
    ///
    /// # Errors
    /// There is no number for another one.
    pub fn advance(&mut self) -> Result<(), Exhausted> {
        count(&mut self.counter)?;
        if self.counter % FRAMES_PER_KEY == 0 {
            (self.chain, self.key) = step(&self.chain);
        }
        Ok(())
    }

    fn open(&self, part: Part, bytes: &mut [u8], tag: &[u8]) -> bool {
        let opened =
            self.key.open_in_place_separate_tag(self.nonce(part), Aad::empty(), tag, bytes);
        opened.is_ok()
    }

    fn nonce(&self, part: Part) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.counter.to_le_bytes());
        nonce[8] = part as u8;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The next link of the chain, and the cipher's key beside it.
fn step(chain: &[u8; 32]) -> ([u8; 32], LessSafeKey) {
    let derive = |label: &[u8]| *blake3::keyed_hash(chain, label).as_bytes();
    let key = UnboundKey::new(&AES_256_GCM, &derive(b"key")).expect("32 bytes are a key");
    (derive(b"next"), LessSafeKey::new(key))
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cipher(frame {})", self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn sealed(cipher: &Cipher, bytes: &[u8]) -> BufMut {
        BufMut::copied_from(&cipher.seal_payload(bytes))
    }

    #[test]
    fn both_sides_agree_and_a_third_does_not() {
        let (a, b, c) = (Ephemeral::new([1; 32]), Ephemeral::new([2; 32]), Ephemeral::new([3; 32]));
        let common = a.agree(&b.public()).unwrap();
        assert_eq!(b.agree(&a.public()), Some(common));
        assert_ne!(c.agree(&a.public()), Some(common));
        assert_ne!(a.public(), [1; 32]);
        assert_eq!(format!("{a:?}"), "Ephemeral(..)");
    }

    /// Points of a small order, by which the other side would fix the outcome.
    #[test]
    fn what_is_no_key_is_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        for point in [[0; 32], one] {
            assert_eq!(Ephemeral::new([1; 32]).agree(&point), None);
        }
    }

    #[test]
    fn a_payload_opens_with_its_key_at_its_place_only() {
        let (mut here, mut there) = (Cipher::new(KEY), Cipher::new(KEY));
        let text = sealed(&here, b"some data");
        assert_eq!(text.len(), 9 + SEAL_BYTES);
        assert!(!text.windows(9).any(|w| w == b"some data"));
        let again = || BufMut::copied_from(&text);
        assert_eq!(&there.open_payload(again()).unwrap()[..], b"some data");
        assert!(Cipher::new([8; 32]).open_payload(again()).is_none(), "another key");
        for bit in 0..text.len() * 8 {
            let mut changed = again();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(there.open_payload(changed).is_none(), "bit {bit}");
        }
        for len in 0..text.len() {
            assert!(
                there.open_payload(BufMut::copied_from(&text[..len])).is_none(),
                "cut to {len}"
            );
        }
        there.advance().unwrap();
        assert!(there.open_payload(again()).is_none(), "repeated");
        here.advance().unwrap();
        assert_ne!(&sealed(&here, b"some data")[..], &text[..], "the same text looks different");
    }

    #[test]
    fn a_head_is_no_payload() {
        let cipher = Cipher::new(KEY);
        let mut head = *b"some data";
        let tag = cipher.seal_head(&mut head);
        let both = BufMut::copied_from(&[&head[..], &tag].concat());
        assert!(cipher.open_payload(both).is_none());
        assert!(cipher.open_head(&mut head, &tag));
        assert_eq!(&head, b"some data");
    }

    #[test]
    fn keys_change_and_numbers_go_on() {
        let (mut here, mut there) = (Cipher::new(KEY), Cipher::new(KEY));
        let (chain, first) = (here.chain, sealed(&here, b"x"));
        for _ in 0..FRAMES_PER_KEY {
            here.advance().unwrap();
            there.advance().unwrap();
        }
        assert_eq!(here.counter(), FRAMES_PER_KEY);
        assert_ne!(here.chain, chain);
        assert_eq!(&there.open_payload(sealed(&here, b"x")).unwrap()[..], b"x");
        let mut old_key = Cipher::new(KEY);
        old_key.counter = FRAMES_PER_KEY;
        assert!(old_key.open_payload(sealed(&here, b"x")).is_none(), "the key is another one");
        assert!(there.open_payload(first).is_none());
    }

    #[test]
    fn no_number_is_used_twice() {
        let mut cipher = Cipher { counter: u64::MAX - 1, ..Cipher::new(KEY) };
        assert_eq!(cipher.advance(), Ok(()));
        for _ in 0..2 {
            assert_eq!(cipher.advance(), Err(Exhausted));
            assert_eq!(cipher.counter(), u64::MAX);
        }
    }
}
