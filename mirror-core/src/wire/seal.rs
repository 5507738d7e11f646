//! What protects every frame: it comes from the peer, in this session, in this direction, at this
//! place of the stream; and, if the connection is encrypted, nobody else can read it.

use super::cipher::{Cipher, Exhausted, SEAL_BYTES, count};
use super::header::{AT_TAG, HEADER_BYTES, TAG_BYTES, array};
use crate::buf::{Buf, BufMut};

const _: () = assert!(SEAL_BYTES == TAG_BYTES);

/// A 32-byte key. `Debug` hides it.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) enum Sealer {
    /// Readable frames with a tag.
    Tags(Tagger),
    /// Encrypted frames.
    Encrypts(Box<Cipher>),
}

/// A key and how many frames have passed.
#[derive(Debug)]
pub(super) struct Tagger {
    key: Key,
    counter: u64,
}

impl Sealer {
    pub(super) const fn tagging(key: Key) -> Self {
        Self::Tags(Tagger { key, counter: 0 })
    }

    pub(super) fn encrypting(key: Key) -> Self {
        Self::Encrypts(Box::new(Cipher::new(key.0)))
    }

    /// Number of the next frame, from 0.
    pub(super) const fn counter(&self) -> u64 {
        match self {
            Self::Tags(tagger) => tagger.counter,
            Self::Encrypts(cipher) => cipher.counter(),
        }
    }

    /// Bytes that follow a payload on the wire.
    pub(super) const fn after_payload(&self) -> usize {
        match self {
            Self::Tags(_) => 0,
            Self::Encrypts(_) => SEAL_BYTES,
        }
    }

    /// Makes the next frame what goes over the wire: writes the tag into `head`, and gives the
    /// payload to be sent.
    pub(super) fn seal(
        &mut self,
        head: &mut [u8; HEADER_BYTES],
        payload: Option<Buf>,
    ) -> Result<Option<Buf>, Exhausted> {
        match self {
            Self::Tags(tagger) => {
                let tag = tagger.next(head, payload.as_deref().unwrap_or_default())?;
                head[AT_TAG].copy_from_slice(&tag);
                Ok(payload)
            }
            Self::Encrypts(cipher) => {
                let mut sealed = *head;
                let tag = cipher.seal_head(&mut sealed[..AT_TAG.start]);
                let payload = payload.map(|payload| cipher.seal_payload(&payload));
                cipher.advance()?; // only then is it sent
                sealed[AT_TAG].copy_from_slice(&tag);
                *head = sealed;
                Ok(payload)
            }
        }
    }

    /// Makes the head of the next frame readable, as soon as it has come. Whether it is authentic
    /// shows only in [`open`](Self::open) unless the connection is encrypted.
    pub(super) fn open_head(&self, head: &mut [u8; HEADER_BYTES]) -> bool {
        match self {
            Self::Tags(_) => true,
            Self::Encrypts(cipher) => {
                let (plain, tag) = head.split_at_mut(AT_TAG.start);
                cipher.open_head(plain, tag)
            }
        }
    }

    /// Decrypts the payload of the next frame; `None` if it is not authentic. `head` is known to be
    /// if the connection is encrypted.
    pub(super) fn open_payload(&self, payload: BufMut) -> Option<BufMut> {
        match self {
            Self::Tags(_) => Some(payload),
            Self::Encrypts(cipher) => cipher.open_payload(payload),
        }
    }

    /// Whether the whole frame, readable by now, is authentic. Then the next one is due.
    pub(super) fn open(
        &mut self,
        head: &[u8; HEADER_BYTES],
        payload: &[u8],
    ) -> Result<bool, Exhausted> {
        match self {
            Self::Tags(tagger) => Ok(same(tagger.next(head, payload)?, array(head, AT_TAG))),
            Self::Encrypts(cipher) => cipher.advance().map(|()| true),
        }
    }
}

impl Tagger {
    /// The tag of the next frame. The payload comes first so that the hash gets it in whole aligned
    /// chunks and can use the wide instructions for it; what follows has a fixed length, so no two
    /// frames give the same input.
    fn next(
        &mut self,
        head: &[u8; HEADER_BYTES],
        payload: &[u8],
    ) -> Result<[u8; TAG_BYTES], Exhausted> {
        let number = count(&mut self.counter)?;
        let mut hasher = blake3::Hasher::new_keyed(&self.key.0);
        hasher.update(payload);
        hasher.update(&head[..AT_TAG.start]);
        hasher.update(&number.to_le_bytes());
        Ok(array(hasher.finalize().as_bytes(), 0..TAG_BYTES))
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

    fn tagging(key: u8) -> Sealer {
        Sealer::tagging(Key([key; 32]))
    }

    fn sealed(key: u8, payload: &[u8]) -> [u8; HEADER_BYTES] {
        let mut head = HEAD;
        tagging(key).seal(&mut head, Some(Buf::copied_from(payload))).unwrap();
        head
    }

    #[test]
    fn a_tag_fits_one_key_payload_and_place_only() {
        let head = sealed(1, b"data");
        assert_eq!(tagging(1).open(&head, b"data"), Ok(true));
        assert_eq!(tagging(2).open(&head, b"data"), Ok(false));
        assert_eq!(tagging(1).open(&head, b"date"), Ok(false));
        let mut later = tagging(1);
        assert_eq!(later.open(&head, b"data"), Ok(true));
        assert_eq!(later.open(&head, b"data"), Ok(false), "a repeated frame must not pass");
    }

    #[test]
    fn every_bit_of_the_header_counts() {
        let head = sealed(1, b"data");
        for bit in 0..HEADER_BYTES * 8 {
            let mut changed = head;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tagging(1).open(&changed, b"data"), Ok(false), "bit {bit}");
        }
    }

    #[test]
    fn every_bit_of_an_encrypted_header_counts() {
        let encrypting = || Sealer::encrypting(Key([1; 32]));
        let mut head = HEAD;
        encrypting().seal(&mut head, None).unwrap();
        assert_ne!(head[..AT_TAG.start], HEAD[..AT_TAG.start]);
        for bit in 0..HEADER_BYTES * 8 {
            let mut changed = head;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!encrypting().open_head(&mut changed), "bit {bit}");
        }
        assert!(encrypting().open_head(&mut head));
        assert_eq!(head[..AT_TAG.start], HEAD[..AT_TAG.start]);
    }

    #[test]
    fn without_a_number_nothing_is_sealed_or_opened() {
        let mut last = Sealer::Tags(Tagger { key: Key([1; 32]), counter: u64::MAX });
        let mut head = HEAD;
        assert_eq!(last.seal(&mut head, None), Err(Exhausted));
        assert_eq!(last.open(&head, b""), Err(Exhausted));
        assert_eq!(head, HEAD);
    }

    #[test]
    fn debug_hides_the_key() {
        for sealer in [tagging(0xAB), Sealer::encrypting(Key([0xAB; 32]))] {
            let text = format!("{sealer:?}");
            assert!(!text.contains("171") && !text.contains("ab"), "{text}");
        }
    }
}
