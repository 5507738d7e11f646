//! Payload memory: page-aligned (O_DIRECT), shared without copying, and immutable once shared, so
//! that the bytes sent are the very bytes written (rule 5).

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Alignment of every buffer in bytes: enough for O_DIRECT on any logical block size up to 4 KiB.
pub const ALIGN: usize = 4096;

/// A buffer that one owner is still filling.
pub struct BufMut {
    storage: Vec<u8>,
    start: usize,
    len: usize,
}

impl BufMut {
    /// `len` zero bytes, aligned to [`ALIGN`].
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let storage = vec![0_u8; len + ALIGN - 1];
        let start = storage.as_ptr().align_offset(ALIGN);
        Self { storage, start, len }
    }

    /// A copy of `bytes`.
    #[must_use]
    pub fn copied_from(bytes: &[u8]) -> Self {
        Self::copied_with_room(bytes, 0)
    }

    /// A copy of `bytes`, with `room` zero bytes behind them.
    #[must_use]
    pub fn copied_with_room(bytes: &[u8], room: usize) -> Self {
        let len = bytes.len() + room;
        // Only what is not copied is zeroed: this is on the path of every encrypted write.
        let mut storage: Vec<u8> = Vec::with_capacity(len + ALIGN - 1);
        let start = storage.as_ptr().align_offset(ALIGN);
        storage.resize(start, 0);
        storage.extend_from_slice(bytes);
        storage.resize(start + len, 0);
        Self { storage, start, len }
    }

    /// Forgets what is behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Ends the filling: from here on the bytes never change.
    #[must_use]
    pub fn freeze(self) -> Buf {
        Buf(Arc::new(self))
    }
}

impl Deref for BufMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

impl fmt::Debug for BufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufMut({} bytes)", self.len)
    }
}

/// Immutable shared bytes; a clone is a reference, not a copy.
#[derive(Clone)]
pub struct Buf(Arc<BufMut>);

impl Buf {
    /// A copy of `bytes`.
    #[must_use]
    pub fn copied_from(bytes: &[u8]) -> Self {
        BufMut::copied_from(bytes).freeze()
    }

    /// Takes the memory back if this is the only reference, for reuse.
    #[must_use]
    pub fn into_mut(self) -> Option<BufMut> {
        Arc::try_unwrap(self.0).ok()
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Buf {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Buf {}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [0, 1, 511, 4096, 65_537] {
            let buf = BufMut::zeroed(len);
            assert_eq!(buf.len(), len);
            assert_eq!(buf.as_ptr().align_offset(ALIGN), 0, "length {len}");
            assert!(buf.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn copies_are_aligned_with_room_behind_and_can_be_cut() {
        for len in [0, 1, 4096, 65_537] {
            let bytes = vec![0x5A; len];
            let mut buf = BufMut::copied_with_room(&bytes, 16);
            assert_eq!(buf.as_ptr().align_offset(ALIGN), 0, "length {len}");
            assert_eq!((&buf[..len], &buf[len..]), (&bytes[..], &[0; 16][..]));
            buf.truncate(len);
            assert_eq!(&buf[..], bytes);
            buf.truncate(len + 1);
            assert_eq!(buf.len(), len, "it never grows");
        }
    }

    #[test]
    fn a_shared_buffer_cannot_be_taken_back() {
        let buf = Buf::copied_from(b"abc");
        let other = buf.clone();
        assert!(buf.into_mut().is_none());
        assert!(other.into_mut().is_some());
    }
}
