//! The ublk driver's two files: the control device, and the memory and commands of one queue.

use super::ring::Submitter;
use super::slots::Fd;
use crate::ublk::abi::{self, IO_DESC_BYTES, IoDesc};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use mirror_core::buf::BufMut;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

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

/// One queue of a device: a buffer for each tag, and the driver's descriptions of the requests.
///
/// A tag is either with the driver (from `fetch` or `commit` to its completion) or with us; its
/// buffer and description are only touched while it is with us.
pub(crate) struct Queue {
    device: Fd,
    descriptions: NonNull<c_void>,
    mapped: NonZeroUsize,
    buffers: Vec<BufMut>,
    ours: Vec<bool>,
    /// The driver takes the old command numbers only (kernels before 6.4).
    legacy: bool,
}

impl Queue {
    /// The queue of the device behind `device` with `depth` tags of `max_io` bytes.
    ///
    /// # Errors
    /// The descriptions cannot be mapped.
    pub(crate) fn new(
        device: OwnedFd,
        depth: u16,
        max_io: usize,
        legacy: bool,
    ) -> io::Result<Self> {
        let bytes = usize::from(depth) * IO_DESC_BYTES;
        let mapped = NonZeroUsize::new(bytes.div_ceil(4096) * 4096)
            .ok_or_else(|| io::Error::other("a queue without tags"))?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let descriptions = unsafe { mmap(None, mapped, ProtFlags::PROT_READ, flags, &device, 0) }?;
        // SAFETY: the range was just mapped; children simply do not get it.
        unsafe { madvise(descriptions, mapped.get(), MmapAdvise::MADV_DONTFORK) }?;
        Ok(Self {
            device: Arc::new(device),
            descriptions,
            mapped,
            buffers: (0..depth).map(|_| BufMut::zeroed(max_io)).collect(),
            ours: vec![true; usize::from(depth)],
            legacy,
        })
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
        let address = self.buffers[at].as_mut_ptr() as u64;
        let cmd = abi::io_cmd(tag, result, address);
        let op = if self.legacy { u32::from(command) } else { abi::io_op(command) };
        let entry = opcode::UringCmd16::new(types::Fd(self.device.as_raw_fd()), op).cmd(cmd);
        // SAFETY: the entry names the tag's buffer, which is not touched until `returned` and not
        // freed while the driver has the tag (see `drop`), and the device, which this owns.
        unsafe { ring.push(entry.build(), u64::from(tag)) };
    }

    /// The completion of `tag` was taken from the ring: it is ours now.
    pub(crate) fn returned(&mut self, tag: u16) {
        if let Some(ours) = self.ours.get_mut(usize::from(tag)) {
            *ours = true;
        }
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

    /// The buffer of `tag`, which is ours.
    pub(crate) fn buffer(&mut self, tag: u16) -> &mut [u8] {
        let at = usize::from(tag);
        assert!(self.ours[at], "the driver has tag {tag}");
        &mut self.buffers[at]
    }
}

impl Drop for Queue {
    /// Buffers that the driver may still use are leaked.
    fn drop(&mut self) {
        if self.with_driver() > 0 {
            std::mem::forget(std::mem::take(&mut self.buffers));
            return;
        }
        // SAFETY: mapped by `new` with this length, and nothing refers to it any more.
        let _ = unsafe { munmap(self.descriptions, self.mapped.get()) };
    }
}
