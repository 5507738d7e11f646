//! The ublk driver's two files: the control device, and the memory and commands of one queue.

use super::ring::{Completion, Submitter};
use crate::ublk::abi::{self, IO_DESC_BYTES, IoDesc};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use mirror_core::buf::{Buf, BufMut};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// The control device, with a ring of its own: its commands are large and may take long.
pub(crate) struct Control {
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
    file: File,
}

impl Control {
    /// Opens the driver.
    ///
    /// # Errors
    /// There is no such driver here, or no permission.
    pub(crate) fn open() -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/ublk-control")?;
        let ring = IoUring::<squeue::Entry128, cqueue::Entry>::builder().dontfork().build(4)?;
        Ok(Self { ring, file })
    }

    /// Carries out an admin command and waits for it. `buffer` is what the command reads or fills.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn command(
        &mut self,
        op: u32,
        device: u32,
        buffer: &mut [u8],
        data: u64,
    ) -> io::Result<()> {
        let len = u16::try_from(buffer.len()).map_err(io::Error::other)?;
        let address = if len == 0 { 0 } else { buffer.as_mut_ptr() as u64 };
        let cmd = abi::ctrl_cmd(device, (address, len), data);
        let entry = opcode::UringCmd80::new(types::Fd(self.file.as_raw_fd()), op).cmd(cmd).build();
        // SAFETY: the entry names `buffer`, which is borrowed until this function returns, and it
        // does not return before the completion was taken.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        loop {
            // An error (EINTR, EAGAIN, EBUSY) leaves the command queued or under way: it uses the
            // buffer until its completion, which is waited for whatever happens.
            let _ = self.ring.submit_and_wait(1);
            if let Some(cqe) = self.ring.completion().next() {
                return match cqe.result() {
                    0.. => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
        }
    }
}

/// Where the bytes of requests are.
enum Memory {
    /// In a buffer of each tag's: the driver copies to it and from it.
    Ours(Vec<BufMut>),
    /// Where the request has them. The driver registers them with the ring, a tag's number as the
    /// index; all else fetches and stores them through the server's end.
    Theirs,
}

/// Where the next queue's tokens are told from those of all others.
static EPOCHS: AtomicU32 = AtomicU32::new(0);
/// The last bits of a token: a tag, and a mark above it that no index of a table of operations
/// ([`Slots`](super::Slots)) reaches, which has these bits for it.
const TAG_BITS: u32 = 24;
const TAG_MARK: u64 = 1 << (TAG_BITS - 1);

/// The token of a tag: what an earlier queue has left with the driver comes back under another.
const fn token(epoch: u32, tag: u16) -> u64 {
    (epoch as u64) << TAG_BITS | TAG_MARK | tag as u64
}

/// The tag of a token of this epoch's.
fn tag_of(epoch: u32, token: u64) -> Option<u16> {
    let rest = token.checked_sub(self::token(epoch, 0))?;
    u16::try_from(rest).ok()
}

/// What a queue is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueShape {
    /// Number of tags.
    pub(crate) depth: u16,
    /// Longest read or write, in bytes.
    pub(crate) max_io: usize,
    /// The device registers the memory of its requests with the ring.
    pub(crate) registers: bool,
    /// The driver takes the old command numbers only (kernels before 6.4).
    pub(crate) legacy: bool,
}

/// One queue of a device: its tags, and the driver's descriptions of the requests.
///
/// A tag is either with the driver (from `fetch` or `commit` to its completion) or with us; its
/// buffer and description are only touched while it is with us.
pub(crate) struct Queue {
    device: File,
    epoch: u32,
    descriptions: NonNull<c_void>,
    mapped: NonZeroUsize,
    memory: Memory,
    ours: Vec<bool>,
    max_io: usize,
    legacy: bool,
}

impl Queue {
    /// The queue of the device behind `device`.
    ///
    /// # Errors
    /// The descriptions cannot be mapped.
    pub(crate) fn new(device: OwnedFd, shape: QueueShape) -> io::Result<Self> {
        let QueueShape { depth, max_io, registers, legacy } = shape;
        let bytes = usize::from(depth) * IO_DESC_BYTES;
        let mapped = NonZeroUsize::new(bytes.div_ceil(4096) * 4096)
            .ok_or_else(|| io::Error::other("a queue without tags"))?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let descriptions = unsafe { mmap(None, mapped, ProtFlags::PROT_READ, flags, &device, 0) }?;
        // SAFETY: the range was just mapped; children simply do not get it.
        unsafe { madvise(descriptions, mapped.get(), MmapAdvise::MADV_DONTFORK) }?;
        let memory = if registers {
            Memory::Theirs
        } else {
            Memory::Ours((0..depth).map(|_| BufMut::zeroed(max_io)).collect())
        };
        Ok(Self {
            device: device.into(),
            epoch: EPOCHS.fetch_add(1, Ordering::Relaxed),
            descriptions,
            mapped,
            memory,
            ours: vec![true; usize::from(depth)],
            max_io,
            legacy,
        })
    }

    /// Longest read or write, in bytes.
    pub(crate) const fn max_io(&self) -> usize {
        self.max_io
    }

    /// Whether the ring can reach a request's memory, under its tag as the index.
    pub(crate) const fn registers(&self) -> bool {
        matches!(self.memory, Memory::Theirs)
    }

    /// Tags that the driver has.
    pub(crate) fn with_driver(&self) -> usize {
        self.ours.iter().filter(|ours| !**ours).count()
    }

    /// Hands `tag` to the driver for its first request.
    pub(crate) fn fetch(&mut self, tag: u16, ring: &mut dyn Submitter) {
        self.hand_over(abi::IO_FETCH, tag, 0, ring);
    }

    /// Answers the request of `tag` with `result` (bytes, 0 or a negative errno), and hands the
    /// tag to the driver for the next one.
    pub(crate) fn commit(&mut self, tag: u16, result: i32, ring: &mut dyn Submitter) {
        self.hand_over(abi::IO_COMMIT_AND_FETCH, tag, result, ring);
    }

    fn hand_over(&mut self, command: u8, tag: u16, result: i32, ring: &mut dyn Submitter) {
        let at = usize::from(tag);
        assert!(std::mem::replace(&mut self.ours[at], false), "the driver has tag {tag}");
        let op = if self.legacy { u32::from(command) } else { abi::io_op(command) };
        let address = match &mut self.memory {
            Memory::Ours(buffers) => buffers[at].as_mut_ptr() as u64,
            Memory::Theirs => 0,
        };
        let cmd = abi::io_cmd(tag, result, address);
        let entry = opcode::UringCmd16::new(types::Fd(self.device.as_raw_fd()), op).cmd(cmd);
        let mut entry = entry.build();
        if self.registers() {
            set_address(&mut entry, abi::auto_buf_reg(tag));
        }
        // SAFETY: the entry names the tag's buffer, if it has one, which is not touched until
        // `returned` and not freed while the driver has the tag (see `drop`), and the device,
        // which this owns.
        unsafe { ring.push(entry, token(self.epoch, tag)) };
    }

    /// The tag that the driver hands back with this completion, and that is ours from now on; `None`
    /// if it is not one of this queue.
    pub(crate) fn returned(&mut self, cqe: &Completion) -> Option<u16> {
        let tag = tag_of(self.epoch, cqe.token())?;
        let ours = self.ours.get_mut(usize::from(tag)).filter(|ours| !**ours)?;
        *ours = true;
        Some(tag)
    }

    /// The request of `tag`, which is ours.
    pub(crate) fn description(&self, tag: u16) -> IoDesc {
        let at = usize::from(tag);
        assert!(self.ours[at], "the driver has tag {tag}");
        let from = self.descriptions.as_ptr().cast::<[u8; IO_DESC_BYTES]>();
        // SAFETY: `tag` is below the depth, so it lies within the mapping; the driver writes a
        // description only while it has the tag.
        IoDesc::parse(&unsafe { from.add(at).read_volatile() })
    }

    /// A copy of the first `len` bytes of the request of `tag`, which is ours.
    ///
    /// # Errors
    /// There are not so many, or the driver does not hand them over.
    pub(crate) fn fetch_bytes(&mut self, tag: u16, len: usize) -> io::Result<Buf> {
        let at = usize::from(tag);
        assert!(self.ours[at], "the driver has tag {tag}");
        match &self.memory {
            Memory::Ours(buffers) => {
                let bytes = buffers[at].get(..len).ok_or(io::ErrorKind::InvalidInput)?;
                Ok(Buf::copied_from(bytes))
            }
            Memory::Theirs => {
                let mut bytes = BufMut::zeroed(len);
                self.device.read_exact_at(&mut bytes, abi::io_buf_position(tag))?;
                Ok(bytes.freeze())
            }
        }
    }

    /// Gives the request of `tag`, which is ours, its first bytes.
    ///
    /// # Errors
    /// There is no room for them, or the driver does not take them.
    pub(crate) fn store_bytes(&mut self, tag: u16, bytes: &[u8]) -> io::Result<()> {
        let at = usize::from(tag);
        assert!(self.ours[at], "the driver has tag {tag}");
        match &mut self.memory {
            Memory::Ours(buffers) => {
                let room = buffers[at].get_mut(..bytes.len());
                room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
                Ok(())
            }
            Memory::Theirs => self.device.write_all_at(bytes, abi::io_buf_position(tag)),
        }
    }
}

/// Sets the `addr` of an entry, which the builder of a command has no word for.
fn set_address(entry: &mut squeue::Entry, address: u64) {
    const ADDR: usize = 16;
    const { assert!(size_of::<squeue::Entry>() == 64) };
    let start = std::ptr::from_mut(entry).cast::<u8>();
    // SAFETY: an entry is the kernel's `struct io_uring_sqe` (`repr(C)`, 64 bytes); at byte 16 it has
    // the u64 `addr`, for which every value is valid.
    unsafe { start.add(ADDR).cast::<u64>().write_unaligned(address) };
}

impl Drop for Queue {
    /// Buffers that the driver may still use are leaked.
    fn drop(&mut self) {
        if self.with_driver() > 0 {
            std::mem::forget(std::mem::replace(&mut self.memory, Memory::Theirs));
            return;
        }
        // SAFETY: mapped by `new` with this length, and nothing refers to it any more.
        let _ = unsafe { munmap(self.descriptions, self.mapped.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_only_that_of_its_own_queue() {
        for (epoch, tag) in [(0, 0), (0, 63), (7, u16::MAX), (u32::MAX, 5)] {
            assert_eq!(tag_of(epoch, token(epoch, tag)), Some(tag));
            assert_eq!(tag_of(epoch.wrapping_add(1), token(epoch, tag)), None);
            assert_eq!(tag_of(epoch.wrapping_sub(1), token(epoch, tag)), None);
            assert!(token(epoch, tag) >> 56 == 0, "the top bits are the owner's");
        }
        assert_eq!(tag_of(0, 0), None, "an operation of a table");
    }
}
