//! The server of one ublk device as a front end.

use super::abi::{IoDesc, IoOp};
use super::device::{Admin, Geometry};
use crate::front::FrontEnd;
use crate::nbd::Export;
use crate::sys::ublk::Queue;
use crate::sys::{Completion, Fd, Op, Slots, Submitter};
use mirror_core::buf::{Buf, BufMut};
use mirror_core::io::{Request, RequestError, RequestId, RequestOp};
use mirror_core::units::{Extent, MAX_EXTENT_BYTES};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Requests in flight.
const DEPTH: u16 = 64;
/// Longest read or write, in bytes.
const MAX_IO: u32 = 512 << 10;
const SECTOR: u64 = 512;

/// Where the removal stands. The admin commands wait for the server, so a thread gives them.
enum Closing {
    No,
    /// The driver takes the device away; it gives all tags back.
    Stopping {
        closed: Sender<()>,
        gone: Receiver<()>,
    },
    /// The server's end is closed; the driver forgets the device.
    Removing {
        gone: Receiver<()>,
    },
    Gone,
}

/// Serves `/dev/ublkb<number>`.
pub struct UblkServer {
    number: u32,
    export: Export,
    queue: Option<Queue>,
    /// Tags by request, with the bytes that a success reports.
    requests: HashMap<RequestId, (u16, u32)>,
    next_request: u64,
    failed: bool,
    closing: Closing,
    /// The admin thread rings this when it has done something.
    bell: Option<Arc<EventFd>>,
    listening: Slots<()>,
}

impl UblkServer {
    /// A server of the device `number` for the mirror that `export` describes.
    #[must_use]
    pub fn new(number: u32, export: Export) -> Self {
        Self {
            number,
            export,
            queue: None,
            requests: HashMap::new(),
            next_request: 0,
            failed: false,
            closing: Closing::No,
            bell: None,
            listening: Slots::default(),
        }
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            number: self.number,
            size: self.export.size,
            block: self.export.block,
            depth: DEPTH,
            max_io: MAX_IO,
            max_zero: u32::try_from(MAX_EXTENT_BYTES).unwrap_or(MAX_IO),
        }
    }

    fn listen(&mut self, ring: &mut dyn Submitter) -> io::Result<()> {
        let Some(bell) = &self.bell else { return Ok(()) };
        let file: Fd = Arc::new(bell.as_fd().try_clone_to_owned()?);
        let op = Op::Read { file, offset: 0, buf: BufMut::zeroed(8), range: 0..8 };
        self.listening.submit(op, (), ring);
        Ok(())
    }

    fn request_of(&mut self, tag: u16, ring: &mut dyn Submitter) -> Option<Request> {
        let queue = self.queue.as_mut()?;
        let desc = queue.description(tag);
        let bytes = u64::from(desc.sectors) * SECTOR;
        let extent = Extent::new(desc.start.saturating_mul(SECTOR), bytes);
        let op = if self.failed { None } else { request_op(queue, tag, desc, bytes) };
        let Some((op, reported)) = op else {
            queue.commit(tag, -libc::EIO, ring);
            return None;
        };
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.requests.insert(id, (tag, reported));
        let extent = if matches!(op, RequestOp::Flush) { Extent::default() } else { extent };
        Some(Request { id, op, extent, fua: desc.fua })
    }

    /// All tags are back: closes the server's end, so that the device can be removed.
    fn close_when_idle(&mut self) {
        let idle = self.queue.as_ref().is_none_or(|q| q.with_driver() == 0);
        if !idle || !self.requests.is_empty() || !matches!(self.closing, Closing::Stopping { .. }) {
            return;
        }
        let Closing::Stopping { closed, gone } =
            std::mem::replace(&mut self.closing, Closing::Gone)
        else {
            return;
        };
        self.queue = None;
        let _ = closed.send(()); // the thread waits for it
        self.closing = Closing::Removing { gone };
    }

    fn look_for_removal(&mut self) {
        if let Closing::Removing { gone } = &self.closing {
            if gone.try_recv().is_ok() {
                self.closing = Closing::Gone;
                self.bell = None;
            }
        }
    }
}

/// What the core is to do, and the bytes that a success reports to the driver.
fn request_op(queue: &mut Queue, tag: u16, desc: IoDesc, bytes: u64) -> Option<(RequestOp, u32)> {
    let len = usize::try_from(bytes).ok()?;
    let reported = u32::try_from(bytes).ok()?;
    match desc.op {
        IoOp::Read => Some((RequestOp::Read, reported)),
        IoOp::Write => {
            // The one private copy (the driver's own is reused with the next request).
            let data = Buf::copied_from(queue.buffer(tag).get(..len)?);
            Some((RequestOp::Write(data), reported))
        }
        IoOp::Flush => Some((RequestOp::Flush, 0)),
        IoOp::Discard => Some((RequestOp::Zero { unmap: true }, 0)),
        IoOp::WriteZeroes => Some((RequestOp::Zero { unmap: !desc.no_unmap }, 0)),
        IoOp::Other => None,
    }
}

impl FrontEnd for UblkServer {
    fn start(&mut self, ring: &mut dyn Submitter) -> io::Result<()> {
        let mut admin = Admin::open()?;
        let device = admin.make(self.geometry())?;
        let max_io = usize::try_from(MAX_IO).expect("fits");
        let mut queue = Queue::new(device, DEPTH, max_io, admin.legacy)?;
        for tag in 0..DEPTH {
            queue.fetch(tag, ring);
        }
        self.queue = Some(queue);
        self.bell = Some(Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?));
        self.listen(ring)?;
        let number = self.number;
        // It returns only when this thread's ring has served the first reads of the device.
        std::thread::Builder::new().name(format!("ublk-start-{number}")).spawn(move || {
            if let Err(e) = admin.start(number) {
                eprintln!("ublk device {number} was not started: {e}");
            }
        })?;
        Ok(())
    }

    fn on_cqe(&mut self, cqe: Completion, ring: &mut dyn Submitter, out: &mut Vec<Request>) {
        if self.listening.take(&cqe).is_some() {
            self.look_for_removal();
            if self.bell.is_some() {
                let _ = self.listen(ring); // without it the loop looks at its next wake-up
            }
            return;
        }
        let Ok(tag) = u16::try_from(cqe.token()) else { return };
        let Some(queue) = &mut self.queue else { return };
        queue.returned(tag);
        if cqe.result() == 0 {
            out.extend(self.request_of(tag, ring));
        }
        self.close_when_idle();
    }

    fn complete(
        &mut self,
        id: RequestId,
        result: Result<Option<Buf>, RequestError>,
        ring: &mut dyn Submitter,
        _out: &mut Vec<Request>,
    ) {
        let Some((tag, reported)) = self.requests.remove(&id) else { return };
        let Some(queue) = &mut self.queue else { return };
        let result = match result {
            Ok(Some(data)) => {
                let buffer = queue.buffer(tag);
                let len = data.len().min(buffer.len());
                buffer[..len].copy_from_slice(&data[..len]);
                i32::try_from(len).unwrap_or(-libc::EIO)
            }
            Ok(None) => i32::try_from(reported).unwrap_or(-libc::EIO),
            Err(RequestError::Invalid) => -libc::EINVAL,
            Err(RequestError::Io | RequestError::Inactive) => -libc::EIO,
        };
        queue.commit(tag, result, ring);
    }

    fn fail(&mut self, ring: &mut dyn Submitter) {
        self.failed = true;
        let Some(queue) = &mut self.queue else { return };
        for (_, (tag, _)) in self.requests.drain() {
            queue.commit(tag, -libc::EIO, ring);
        }
    }

    fn stop(&mut self, ring: &mut dyn Submitter) {
        if !matches!(self.closing, Closing::No) {
            // The second time: what the core still owes is not waited for.
            self.fail(ring);
            return;
        }
        let (closed, is_closed) = channel();
        let (done, gone) = channel();
        let (number, bell) = (self.number, self.bell.clone());
        self.closing = Closing::Stopping { closed, gone };
        let thread = std::thread::Builder::new().name(format!("ublk-stop-{number}"));
        let spawned = thread.spawn(move || {
            let removed = Admin::open().and_then(|mut admin| {
                admin.stop(number)?;
                let _ = is_closed.recv(); // an end that is gone is closed
                admin.remove(number)
            });
            if let Err(e) = removed {
                eprintln!("ublk device {number} was not removed: {e}");
            }
            let _ = done.send(()); // the server may be gone
            if let Some(bell) = bell {
                let _ = bell.write(1); // full means that it rings already
            }
        });
        if spawned.is_err() {
            // Without a thread the device goes with the process.
            self.closing = Closing::Gone;
        }
        self.close_when_idle();
    }

    fn is_stopped(&self) -> bool {
        match &self.closing {
            Closing::Gone => true,
            Closing::No => self.queue.is_none(),
            Closing::Stopping { .. } | Closing::Removing { .. } => false,
        }
    }
}
