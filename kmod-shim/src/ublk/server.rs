//! The server of one ublk device as a front end.

use super::device::{Admin, Geometry, ServerEnd, device_path, is_claimed, stays};
use super::request::{Wanted, wanted};
use super::requests::{Requests, Settled};
use crate::front::FrontEnd;
use crate::nbd::Export;
use crate::sys::ublk::{Queue, QueueShape};
use crate::sys::{Completion, Fd, Op, Slots, Submitter};
use mirror_core::buf::{Buf, BufMut};
use mirror_core::io::{Request, RequestError, RequestId, RequestOp};
use mirror_core::units::MAX_EXTENT_BYTES;
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Requests in flight of a device that is made.
pub const DEPTH: u16 = 64;
/// Longest read or write of a device that is made, in bytes.
pub const MAX_IO: u32 = 512 << 10;

/// Which device to serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UblkSpec {
    /// Number n of `/dev/ublkb<n>`.
    pub number: u32,
    /// A number of the caller's that the driver keeps with the device.
    pub mark: u64,
    /// The device is there: serve it after [`begin_takeover`](super::begin_takeover). Otherwise it
    /// is made.
    pub take_over: bool,
}

/// Where the removal stands. The admin commands wait for the server, so a thread gives them.
enum Closing {
    No,
    /// The device is only just being made.
    Waiting,
    /// The driver takes the device away; it gives all tags back.
    Stopping(Sender<()>),
    /// The server's end is closed; the driver forgets the device.
    Removing,
    Gone,
}

/// What a thread with an admin command has to say.
enum Word {
    /// The server's end is there, and the driver's way with numbers (old ones only).
    Made(io::Result<(ServerEnd, bool)>),
    Opened(io::Result<()>),
    Removed(io::Result<()>),
}

/// Where the opening stands.
enum Opening {
    /// The server's end is not there yet.
    Making,
    Under,
    Ended(io::Result<()>),
    Told,
}

/// Serves `/dev/ublkb<number>`.
pub struct UblkServer {
    spec: UblkSpec,
    export: Export,
    /// The device was made or taken over.
    exists: bool,
    queue: Option<Queue>,
    requests: Requests,
    failed: bool,
    opening: Opening,
    closing: Closing,
    /// Nobody waits for the end any more.
    left: bool,
    complaints: VecDeque<String>,
    /// What the admin threads say; they ring the bell then.
    words: (Sender<Word>, Receiver<Word>),
    bell: Option<Arc<EventFd>>,
    listening: Slots<()>,
}

impl UblkServer {
    /// A server of the device `spec` for the mirror that `export` describes.
    #[must_use]
    pub fn new(spec: UblkSpec, export: Export) -> Self {
        Self {
            spec,
            export,
            exists: false,
            queue: None,
            requests: Requests::new(),
            failed: false,
            opening: Opening::Making,
            closing: Closing::No,
            left: false,
            complaints: VecDeque::new(),
            words: channel(),
            bell: None,
            listening: Slots::default(),
        }
    }

    fn geometry(&self, places: u16) -> Geometry {
        Geometry {
            number: self.spec.number,
            mark: self.spec.mark,
            size: self.export.size,
            block: self.export.block,
            depth: DEPTH,
            max_io: MAX_IO,
            max_zero: u32::try_from(MAX_EXTENT_BYTES).unwrap_or(MAX_IO),
            places: places >= DEPTH,
        }
    }

    fn name(&self) -> String {
        device_path(self.spec.number).display().to_string()
    }

    fn listen(&mut self, ring: &mut dyn Submitter) -> io::Result<()> {
        let Some(bell) = &self.bell else { return Ok(()) };
        let file: Fd = Arc::new(bell.as_fd().try_clone_to_owned()?);
        let op = Op::Read { file, offset: 0, buf: BufMut::zeroed(8), range: 0..8 };
        self.listening.submit(op, (), ring);
        Ok(())
    }

    /// Does an admin command that waits for this very server, on a thread.
    fn aside(&self, name: &str, work: impl FnOnce() -> Word + Send + 'static) -> io::Result<()> {
        let (bell, words) = (self.bell.clone(), self.words.0.clone());
        let thread = std::thread::Builder::new().name(format!("ublk-{name}-{}", self.spec.number));
        thread.spawn(move || {
            let _ = words.send(work()); // the server may be gone
            if let Some(bell) = bell {
                let _ = bell.write(1); // full means that it rings already
            }
        })?;
        Ok(())
    }

    fn hear(&mut self, ring: &mut dyn Submitter) {
        while let Ok(word) = self.words.1.try_recv() {
            match word {
                Word::Made(made) => self.made(made, ring),
                Word::Opened(result) => self.opening = Opening::Ended(result),
                Word::Removed(result) => {
                    if let Err(e) = result {
                        let what = format!("{} was not removed: {e}", self.name());
                        self.complaints.push_back(what);
                    }
                    self.gone();
                }
            }
        }
    }

    fn gone(&mut self) {
        self.closing = Closing::Gone;
        self.bell = None;
    }

    /// The server's end is there, or cannot be had.
    fn made(&mut self, made: io::Result<(ServerEnd, bool)>, ring: &mut dyn Submitter) {
        self.exists = made.is_ok();
        let waited = matches!(self.closing, Closing::Waiting);
        self.opening = Opening::Under;
        let begun = made.and_then(|end| if waited { Ok(()) } else { self.begin(end, ring) });
        if let Err(e) = begun {
            self.opening = Opening::Ended(Err(e));
        }
        if waited && self.exists {
            self.take_away();
        } else if waited {
            self.gone();
        }
    }

    /// Hands all tags to the driver, and has it open the device.
    fn begin(&mut self, made: (ServerEnd, bool), ring: &mut dyn Submitter) -> io::Result<()> {
        let (ServerEnd { file, depth, max_io, registers }, legacy) = made;
        let max_io = usize::try_from(max_io).map_err(io::Error::other)?;
        let mut queue = Queue::new(file, QueueShape { depth, max_io, registers, legacy })?;
        for tag in 0..depth {
            queue.fetch(tag, ring);
        }
        self.queue = Some(queue);
        // It returns only when this thread's ring has fetched every tag, and a start also when
        // the first reads of the device were served.
        let UblkSpec { number, take_over, .. } = self.spec;
        self.aside("open", move || {
            Word::Opened(Admin::open().and_then(|mut admin| {
                if take_over { admin.end_takeover(number) } else { admin.start(number) }
            }))
        })
    }

    /// Takes the device away on a thread, which waits for the server's end to be closed.
    fn take_away(&mut self) {
        let (closed, is_closed) = channel();
        let (number, failed) = (self.spec.number, self.failed);
        self.closing = Closing::Stopping(closed);
        let spawned = self.aside("stop", move || {
            Word::Removed(Admin::open().and_then(|mut admin| {
                // One that fails is taken from its users; they may still be there.
                let is_used = failed || is_claimed(number);
                admin.stop(number)?;
                let _ = is_closed.recv(); // an end that is gone is closed
                if is_used && admin.waits_alone() {
                    return Err(stays());
                }
                admin.remove(number)
            }))
        });
        if spawned.is_err() {
            // Without a thread the device goes with the process.
            self.gone();
        }
        self.close_when_idle();
    }

    fn request_of(&mut self, tag: u16, ring: &mut dyn Submitter) -> Option<Request> {
        let queue = self.queue.as_mut()?;
        let desc = queue.description(tag);
        let wanted = if self.failed {
            None
        } else {
            wanted(desc, queue.max_io(), |len| queue.fetch_bytes(tag, len).ok())
        };
        let Some(Wanted { op, extent, fua, reported: bytes }) = wanted else {
            queue.commit(tag, -libc::EIO, ring);
            return None;
        };
        let lendable = queue.registers() && op == RequestOp::Read && !desc.unregistered;
        let id = self.requests.add(tag, bytes, lendable);
        Some(Request { id, op, extent, fua })
    }

    /// Answers a request whose memory nobody has.
    fn settle(&mut self, settled: Option<Settled>, ring: &mut dyn Submitter) {
        let (Some(queue), Some(settled)) = (&mut self.queue, settled) else { return };
        let Settled { tag, bytes, answer } = settled;
        let result = match answer {
            Ok(Some(data)) => match queue.store_bytes(tag, &data) {
                Ok(()) => i32::try_from(data.len()).unwrap_or(-libc::EIO),
                Err(_) => -libc::EIO,
            },
            Ok(None) => i32::try_from(bytes).unwrap_or(-libc::EIO),
            Err(RequestError::Invalid) => -libc::EINVAL,
            Err(RequestError::Io | RequestError::Inactive) => -libc::EIO,
        };
        queue.commit(tag, result, ring);
    }

    /// The second order to stop: what the core still owes is not waited for, nor are users of a
    /// device that is gone for everybody else, nor a disk that hangs.
    fn hurry(&mut self, ring: &mut dyn Submitter) {
        self.fail(ring);
        if matches!(self.closing, Closing::Removing) {
            self.complaints.push_back(format!("{} goes when its last user does", self.name()));
            self.gone();
        } else if self.requests.lends() && !self.left {
            // The driver keeps the device, and may ask for more, until what was lent has come back.
            let until = "the disk has answered the reads that hang in it";
            self.complaints.push_back(format!("{} goes when {until}", self.name()));
            self.left = true;
        }
    }

    fn is_idle(&self) -> bool {
        self.queue.as_ref().is_none_or(|q| q.with_driver() == 0)
    }

    /// All tags are back: closes the server's end, so that the device can be removed.
    fn close_when_idle(&mut self) {
        if !self.is_idle() || !self.requests.is_empty() {
            return;
        }
        if let Closing::Stopping(closed) = &self.closing {
            self.queue = None;
            let _ = closed.send(()); // the thread waits for it
            self.closing = Closing::Removing;
        }
    }

    /// A tag came back without a request.
    fn given_back(&mut self, result: i32) {
        let taken = matches!(self.closing, Closing::No) && !self.failed && self.is_idle();
        if taken && self.requests.is_empty() {
            self.failed = true;
            let e = io::Error::from_raw_os_error(-result);
            self.complaints
                .push_back(format!("{} was stopped by somebody else ({e})", self.name()));
        }
    }
}

impl FrontEnd for UblkServer {
    fn start(&mut self, ring: &mut dyn Submitter) -> io::Result<()> {
        self.bell = Some(Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?));
        self.listen(ring)?;
        let (UblkSpec { number, take_over, .. }, geometry) =
            (self.spec, self.geometry(ring.places()));
        // The driver and udev may take their time, and the ring has other work.
        self.aside("make", move || {
            Word::Made(Admin::open().and_then(|mut admin| {
                let end =
                    if take_over { admin.take_over(number)? } else { admin.make(geometry)? };
                Ok((end, admin.legacy()))
            }))
        })
    }

    fn opened(&mut self) -> Option<io::Result<()>> {
        match std::mem::replace(&mut self.opening, Opening::Told) {
            still @ (Opening::Making | Opening::Under) => {
                self.opening = still;
                None
            }
            Opening::Ended(result) => Some(result),
            Opening::Told => Some(Ok(())),
        }
    }

    fn complaint(&mut self) -> Option<String> {
        self.complaints.pop_front()
    }

    fn on_cqe(&mut self, cqe: Completion, ring: &mut dyn Submitter, out: &mut Vec<Request>) {
        if self.listening.take(&cqe).is_some() {
            self.hear(ring);
            if self.bell.is_some() {
                let _ = self.listen(ring); // without it the loop looks at its next wake-up
            }
            return;
        }
        let Some(tag) = self.queue.as_mut().and_then(|queue| queue.returned(&cqe)) else { return };
        match cqe.result() {
            0 => out.extend(self.request_of(tag, ring)),
            result => self.given_back(result),
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
        let settled = self.requests.answer(id, result);
        self.settle(settled, ring);
    }

    fn lend(&mut self, id: RequestId) -> Option<u16> {
        self.requests.lend(id)
    }

    fn given_back(&mut self, id: RequestId, ring: &mut dyn Submitter) {
        let settled = self.requests.given_back(id);
        self.settle(settled, ring);
    }

    fn fail(&mut self, ring: &mut dyn Submitter) {
        self.failed = true;
        let ended = self.requests.end_all();
        let Some(queue) = &mut self.queue else { return };
        // The driver ends a request whose memory is lent when that has come back.
        for tag in ended {
            queue.commit(tag, -libc::EIO, ring);
        }
    }

    fn stop(&mut self, ring: &mut dyn Submitter) {
        match self.closing {
            Closing::No if matches!(self.opening, Opening::Making) => {
                self.closing = Closing::Waiting;
            }
            // It was never made, or taken over: what may have this number is not ours to remove.
            Closing::No if !self.exists => self.gone(),
            Closing::No => self.take_away(),
            _ => self.hurry(ring),
        }
    }

    fn is_stopped(&self) -> bool {
        self.left || self.is_over()
    }

    fn is_over(&self) -> bool {
        matches!(self.closing, Closing::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Owner, Ring};

    /// A server whose device the driver is just taking away.
    fn stopping() -> (UblkServer, Receiver<()>) {
        let spec = UblkSpec { number: 1, mark: 0, take_over: false };
        let export = Export { name: "t".into(), size: 1 << 20, block: 512 };
        let mut server = UblkServer::new(spec, export);
        let (closed, is_closed) = channel();
        (server.exists, server.closing) = (true, Closing::Stopping(closed));
        (server, is_closed)
    }

    #[test]
    fn a_read_that_hangs_does_not_keep_a_server_that_is_to_close_at_once() {
        let (mut server, is_closed) = stopping();
        let ring = &mut Ring::new().expect("a ring");
        let ring = &mut ring.owner(Owner::FRONT_END);
        let id = server.requests.add(0, 512, true);
        assert_eq!(server.lend(id), Some(0));
        server.stop(ring);
        assert!(server.is_stopped() && !server.is_over());
        let said = server.complaint().expect("it is said");
        assert!(said.contains("/dev/ublkb1") && said.contains("the disk has answered"), "{said}");
        server.stop(ring);
        assert_eq!(server.complaint(), None, "it is said once");
        // What was lent is back, and so are the tags: the device goes as usual.
        FrontEnd::given_back(&mut server, id, ring);
        server.close_when_idle();
        assert!(is_closed.try_recv().is_ok());
        server.gone();
        assert!(server.is_over());
    }

    #[test]
    fn what_has_come_back_lets_the_device_go_as_usual() {
        let (mut server, _is_closed) = stopping();
        let ring = &mut Ring::new().expect("a ring");
        let ring = &mut ring.owner(Owner::FRONT_END);
        let id = server.requests.add(0, 512, true);
        server.lend(id);
        FrontEnd::given_back(&mut server, id, ring);
        server.stop(ring);
        assert!(!server.is_stopped(), "the driver gives the tags back");
        assert_eq!(server.complaint(), None);
    }
}
