//! Payload memory: page-aligned (O_DIRECT), shared without copying, and immutable once shared, so
//! that the bytes sent are the very bytes written (rule 5).

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Alignment of every buffer in bytes: enough for O_DIRECT on any logical block size up to 4 KiB.
pub const ALIGN: usize = 4096;

/// Longest buffer whose memory is used again.
const POOLED: usize = (1 << 20) + ALIGN;
/// Memory that a thread keeps for its next buffers, in bytes at the most.
const KEPT: usize = 16 << 20;

/// A buffer that one owner is still filling.
///
/// Fresh memory of this size comes from the kernel page by page, each with a fault, and goes back
/// there: more work than what is done with it. So each thread keeps some for its next buffers, until
/// [`release_unused`] finds that it does not need so much.
pub struct BufMut {
    storage: Vec<u8>,
    start: usize,
    len: usize,
}

/// Memory to be used again, by size.
struct Pool {
    classes: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
    /// The least that each class has had since it was asked last: so much was not needed.
    unused: [usize; CLASSES],
}

/// Sizes from 4 KiB to 1 MiB, each with a page more: for a tag behind the payload.
const CLASSES: usize = 9;

fn class_of(len: usize) -> Option<usize> {
    (len <= POOLED).then(|| (0..CLASSES).find(|class| len <= (ALIGN << class) + ALIGN)).flatten()
}

/// With what it takes to begin at a page.
const fn storage_bytes(class: usize) -> usize {
    (ALIGN << class) + 2 * ALIGN - 1
}

impl Pool {
    const fn new() -> Self {
        Self { classes: [const { Vec::new() }; CLASSES], bytes: 0, unused: [0; CLASSES] }
    }

    fn take(&mut self, class: usize) -> Option<Vec<u8>> {
        let storage = self.classes[class].pop()?;
        self.bytes -= storage.len();
        self.unused[class] = self.unused[class].min(self.classes[class].len());
        Some(storage)
    }

    fn put(&mut self, class: usize, storage: Vec<u8>) {
        if self.bytes + storage.len() <= KEPT {
            self.bytes += storage.len();
            self.classes[class].push(storage);
        }
    }

    fn release_unused(&mut self) {
        for (class, unused) in self.classes.iter_mut().zip(&mut self.unused) {
            let kept = class.len() - *unused;
            self.bytes -= class.drain(kept..).map(|storage| storage.len()).sum::<usize>();
            class.shrink_to_fit();
            *unused = kept;
        }
    }
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool::new()) };
}

/// Gives memory back that this thread has kept for buffers and not needed since the last call.
/// Called now and then, it leaves a thread that does nothing with nothing.
pub fn release_unused() {
    POOL.with_borrow_mut(Pool::release_unused);
}

/// Memory for `len` bytes that has had, or has, other content; whether it is new, and so zero.
fn storage(len: usize) -> (Vec<u8>, bool) {
    let Some(class) = class_of(len) else { return (vec![0; len + ALIGN - 1], true) };
    // While the thread ends there is no pool.
    let kept = POOL.try_with(|pool| pool.borrow_mut().take(class)).ok().flatten();
    kept.map_or_else(|| (vec![0; storage_bytes(class)], true), |storage| (storage, false))
}

impl BufMut {
    /// No bytes and no memory.
    #[must_use]
    pub const fn empty() -> Self {
        Self { storage: Vec::new(), start: 0, len: 0 }
    }

    /// `len` zero bytes, aligned to [`ALIGN`].
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let (mut buf, is_zero) = Self::any(len);
        if !is_zero {
            buf.fill(0);
        }
        buf
    }

    /// `len` bytes to be filled, aligned to [`ALIGN`]. Until then they are zero or those of an
    /// earlier buffer of this thread: what is not filled must not be shown to anybody.
    #[must_use]
    pub fn to_fill(len: usize) -> Self {
        Self::any(len).0
    }

    fn any(len: usize) -> (Self, bool) {
        let (storage, is_zero) = storage(len);
        let start = storage.as_ptr().align_offset(ALIGN);
        (Self { storage, start, len }, is_zero)
    }

    /// A copy of `bytes`.
    #[must_use]
    pub fn copied_from(bytes: &[u8]) -> Self {
        Self::copied_with_room(bytes, 0)
    }

    /// A copy of `bytes`, with `room` zero bytes behind them.
    #[must_use]
    pub fn copied_with_room(bytes: &[u8], room: usize) -> Self {
        let mut buf = Self::to_fill(bytes.len() + room);
        let (copy, behind) = buf.split_at_mut(bytes.len());
        copy.copy_from_slice(bytes);
        behind.fill(0);
        buf
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

impl Drop for BufMut {
    fn drop(&mut self) {
        let storage = std::mem::take(&mut self.storage);
        let class = (0..CLASSES).find(|class| storage.len() == storage_bytes(*class));
        if let Some(class) = class {
            // While the thread ends there is no pool.
            let _ = POOL.try_with(|pool| pool.borrow_mut().put(class, storage));
        }
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

    /// Whether a buffer of this length has the memory of one that went before.
    fn is_used_again(len: usize) -> bool {
        let mut old = BufMut::zeroed(len);
        old.fill(0xA5);
        drop(old);
        BufMut::to_fill(len).iter().all(|b| *b == 0xA5)
    }

    #[test]
    fn memory_is_used_again_and_zero_where_that_is_promised() {
        for len in [512, 4096, 4112, 65_536, (1 << 20) + 16] {
            assert!(is_used_again(len), "length {len}");
            assert!(BufMut::zeroed(len).iter().all(|b| *b == 0), "length {len}");
            assert_eq!(BufMut::to_fill(len).as_ptr().align_offset(ALIGN), 0, "length {len}");
        }
        assert!(is_used_again(4096));
        let copy = BufMut::copied_with_room(&[7; 100], 16);
        assert_eq!((&copy[..100], &copy[100..]), (&[7; 100][..], &[0; 16][..]));
    }

    #[test]
    fn what_is_kept_is_bounded_and_goes_when_it_is_not_needed() {
        let kept = || POOL.with_borrow(|pool| pool.bytes);
        let held: Vec<_> = (0..64).map(|_| BufMut::zeroed(1 << 20)).collect();
        drop(held);
        assert!(kept() <= KEPT && kept() > KEPT / 2, "{} bytes", kept());
        release_unused(); // all were needed lately
        for _ in 0..3 {
            drop([BufMut::to_fill(1 << 20), BufMut::to_fill(1 << 20)]);
        }
        release_unused();
        assert_eq!(kept(), 2 * storage_bytes(CLASSES - 1), "two at a time were needed");
        release_unused();
        assert_eq!(kept(), 0);
    }

    #[test]
    fn a_shared_buffer_cannot_be_taken_back() {
        let buf = Buf::copied_from(b"abc");
        let other = buf.clone();
        assert!(buf.into_mut().is_none());
        assert!(other.into_mut().is_some());
    }
}
