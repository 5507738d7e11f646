//! One client's connection as a machine without I/O.
//!
//! Bytes come in through a buffer that the machine lends ([`Connection::lend`],
//! [`Connection::received`]): small things through a staging buffer, the payload of larger writes
//! directly into the memory that the core gets. [`Connection::advance`] turns them into [`Part`]s,
//! [`Connection::ended`] takes their results, [`Connection::output`] has the bytes to send.
//!
//! Bounds: at most [`MAX_REQUESTS`] requests and about [`MAX_BYTES`] of payload are held, from
//! the header's arrival until the answer is handed out for sending. At a bound the machine lends
//! no buffer, so the client waits.

use super::Export;
use super::negotiate::{Negotiation, Progress};
use super::pending::{Kind, Pendings, Reply, charge};
pub use super::pending::{Part, PartId};
use super::protocol::{REQUEST_HEADER, RequestHeader, command, command_flag, error};
use crate::sys::Piece;
use mirror_core::buf::{Buf, BufMut};
use mirror_core::io::RequestError;
use mirror_core::units::{Extent, MAX_EXTENT_BYTES};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Requests held for one client.
pub const MAX_REQUESTS: usize = 64;
/// Payload held for one client, and the longest READ or WRITE that is served, in bytes.
pub const MAX_BYTES: u64 = 32 << 20;

const STAGING: usize = 64 << 10;
/// A payload whose missing part is shorter goes through the staging buffer, with what follows it.
const DIRECT: usize = 16 << 10;
/// Pieces of output handed out at a time.
const BATCH: usize = 64;
/// Unsent output of the negotiation beyond which nothing more is read.
const MAX_ANSWERS: usize = 4096;

/// The payload of a write that is arriving.
struct Payload {
    slot: usize,
    chunk: BufMut,
    filled: usize,
    /// Bytes after this chunk.
    rest: u64,
}

enum Phase {
    Negotiating(Negotiation),
    Serving,
}

/// What the next received bytes belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lent {
    Nothing,
    Staging,
    Payload,
}

/// See the module.
pub struct Connection {
    export: Arc<Export>,
    phase: Phase,
    staging: BufMut,
    unread: Range<usize>,
    lent: Lent,
    payload: Option<Payload>,
    /// Payload of a refused write that is still to be skipped.
    drain: u64,
    pendings: Pendings,
    /// Bytes charged.
    held: u64,
    answers: Vec<u8>,
    replies: VecDeque<Reply>,
    /// A bound is reached: nothing more is read.
    full: bool,
    open: bool,
    failed: bool,
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(export: Arc<Export>) -> Self {
        let mut answers = Vec::new();
        let phase = Phase::Negotiating(Negotiation::new(&mut answers));
        Self::in_phase(export, phase, answers)
    }

    /// A connection to a client that knows the export already, as the kernel's does: it begins
    /// with requests.
    #[must_use]
    pub fn negotiated(export: Arc<Export>) -> Self {
        Self::in_phase(export, Phase::Serving, Vec::new())
    }

    /// The mirror has grown. A client that was told its size asks for no more than that; the kernel is
    /// told the new one while it is connected, and asks then.
    pub fn grow(&mut self, export: Arc<Export>) {
        self.export = export;
    }

    fn in_phase(export: Arc<Export>, phase: Phase, answers: Vec<u8>) -> Self {
        Self {
            export,
            phase,
            staging: BufMut::zeroed(STAGING),
            unread: 0..0,
            lent: Lent::Nothing,
            payload: None,
            drain: 0,
            pendings: Pendings::default(),
            held: 0,
            answers,
            replies: VecDeque::new(),
            full: false,
            open: true,
            failed: false,
        }
    }

    /// The memory for the next bytes; `None` if nothing is to be read now.
    pub fn lend(&mut self) -> Option<(BufMut, Range<usize>)> {
        if !self.open || self.full || self.lent != Lent::Nothing || self.answers.len() > MAX_ANSWERS
        {
            return None;
        }
        if let Some(payload) = &mut self.payload {
            if self.unread.is_empty() && payload.chunk.len() - payload.filled >= DIRECT {
                self.lent = Lent::Payload;
                let range = payload.filled..payload.chunk.len();
                return Some((std::mem::replace(&mut payload.chunk, BufMut::empty()), range));
            }
        }
        self.lent = Lent::Staging;
        self.staging.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let range = self.unread.end..STAGING;
        Some((std::mem::replace(&mut self.staging, BufMut::empty()), range))
    }

    /// Takes back the lent memory, of which `count` bytes were filled; 0 is the end of the stream.
    pub fn received(&mut self, buf: BufMut, count: usize) {
        match (std::mem::replace(&mut self.lent, Lent::Nothing), &mut self.payload) {
            (Lent::Staging, _) => {
                self.staging = buf;
                self.unread.end += count;
            }
            (Lent::Payload, Some(payload)) => {
                payload.chunk = buf;
                payload.filled += count;
            }
            _ => {} // the write was cut off meanwhile
        }
        if count == 0 {
            self.stop();
        }
    }

    /// Turns what has arrived into parts for the core, as far as the bounds allow.
    pub fn advance(&mut self, out: &mut Vec<Part>) {
        self.full = false;
        while self.open && self.step(out) {}
        self.pendings.issue(out);
    }

    /// Notes the result of a part.
    pub fn ended(&mut self, id: PartId, result: Result<Option<Buf>, RequestError>) {
        self.pendings.ended(id, result);
        self.collect(id.slot());
    }

    /// The next bytes to send, if any.
    pub fn output(&mut self) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut heads = std::mem::take(&mut self.answers);
        while pieces.len() < BATCH {
            let Some(reply) = self.replies.pop_front() else { break };
            self.held -= reply.charge;
            heads.extend(reply.head);
            if !reply.parts.is_empty() {
                pieces.push(Piece::Bytes(std::mem::take(&mut heads)));
                pieces.extend(reply.parts.into_iter().map(Piece::Shared));
            }
        }
        if !heads.is_empty() {
            pieces.push(Piece::Bytes(heads));
        }
        (!pieces.is_empty()).then_some(pieces)
    }

    /// Reads no more. What the core has is still answered; what it does not have yet fails.
    pub fn stop(&mut self) {
        self.close_input();
        self.fail_pending(false);
    }

    /// Every request, old or new, fails from now on, and nothing reaches the core. Results of
    /// parts that it has must not be handed in any more.
    pub fn fail(&mut self) {
        self.failed = true;
        self.fail_pending(true);
    }

    /// The client is gone: nothing is sent any more.
    pub fn abort(&mut self) {
        self.stop();
        self.answers.clear();
        self.replies.clear();
    }

    /// Whether nothing is read, waited for or to be sent any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.open && self.pendings.len() == 0 && self.replies.is_empty() && self.answers.is_empty()
    }

    fn close_input(&mut self) {
        self.open = false;
        if let Some(payload) = self.payload.take() {
            self.pendings.cut_write(payload.slot);
            self.collect(payload.slot);
        }
    }

    fn fail_pending(&mut self, running: bool) {
        self.pendings.fail_all(running);
        for slot in self.pendings.slots() {
            self.collect(slot);
        }
    }

    fn collect(&mut self, slot: usize) {
        if let Some(reply) = self.pendings.take_reply(slot) {
            self.replies.push_back(reply);
        }
    }

    /// What has arrived and is not looked at yet. Nothing while the staging buffer is lent.
    fn arrived(&self) -> &[u8] {
        match self.lent {
            Lent::Staging => &[],
            _ => &self.staging[self.unread.clone()],
        }
    }

    /// One step; false if more bytes or more room are needed.
    fn step(&mut self, out: &mut Vec<Part>) -> bool {
        if matches!(self.phase, Phase::Negotiating(_)) {
            self.negotiate()
        } else if self.drain > 0 {
            self.skip()
        } else if self.payload.is_some() {
            self.fill(out)
        } else {
            self.begin(out)
        }
    }

    fn negotiate(&mut self) -> bool {
        if self.lent == Lent::Staging {
            return false;
        }
        let Phase::Negotiating(machine) = &mut self.phase else { return false };
        let mut input = &self.staging[self.unread.clone()];
        let progress = machine.feed(&mut input, &mut self.answers, &self.export);
        self.unread.start = self.unread.end - input.len();
        match progress {
            Progress::NeedMore => return false,
            Progress::Done => self.phase = Phase::Serving,
            Progress::Close => self.close_input(),
        }
        true
    }

    fn skip(&mut self) -> bool {
        let here = self.arrived().len().min(usize::try_from(self.drain).unwrap_or(usize::MAX));
        self.unread.start += here;
        self.drain -= here as u64;
        here > 0
    }

    fn fill(&mut self, out: &mut Vec<Part>) -> bool {
        let staged = self.unread.clone();
        let staging_here = self.lent != Lent::Staging;
        let Some(payload) = &mut self.payload else { return false };
        if self.lent == Lent::Payload {
            return false;
        }
        if staging_here {
            let here = (payload.chunk.len() - payload.filled).min(staged.len());
            let from = staged.start..staged.start + here;
            payload.chunk[payload.filled..payload.filled + here]
                .copy_from_slice(&self.staging[from]);
            payload.filled += here;
            self.unread.start += here;
        }
        if payload.filled < payload.chunk.len() {
            return false;
        }
        if !self.pendings.has_room_for_part(payload.slot) {
            self.full = true;
            return false;
        }
        self.finish_chunk(out);
        true
    }

    fn finish_chunk(&mut self, out: &mut Vec<Part>) {
        let Some(Payload { slot, chunk, rest, .. }) = self.payload.take() else { return };
        self.pendings.issue_write(slot, chunk.freeze(), out);
        self.collect(slot); // it may have failed while its payload arrived
        if rest > 0 {
            self.payload = Some(new_payload(slot, rest));
        }
    }

    /// Looks at the next header.
    fn begin(&mut self, out: &mut Vec<Part>) -> bool {
        let Some(bytes) = self.arrived().first_chunk::<REQUEST_HEADER>() else { return false };
        let Some(header) = RequestHeader::decode(bytes) else {
            self.close_input(); // the framing is lost
            return true;
        };
        if self.pendings.len() + self.replies.len() >= MAX_REQUESTS {
            self.full = true;
            return false;
        }
        let judged = if self.failed { Err(error::ESHUTDOWN) } else { judge(&header, &self.export) };
        let charged = match judged {
            Ok((kind, extent)) => charge(kind, extent.len),
            Err(_) => 0,
        };
        if self.held > 0 && self.held + charged > MAX_BYTES {
            self.full = true;
            return false;
        }
        self.unread.start += REQUEST_HEADER;
        if header.command == command::DISC {
            self.close_input();
            return true;
        }
        match judged {
            Ok((kind, extent)) => self.accept(&header, kind, extent, out),
            Err(code) => self.refuse(&header, code),
        }
        true
    }

    fn accept(&mut self, header: &RequestHeader, kind: Kind, extent: Extent, out: &mut Vec<Part>) {
        let fua = header.flags & command_flag::FUA != 0
            && matches!(kind, Kind::Write | Kind::Zero { .. });
        self.held += charge(kind, extent.len);
        let slot = self.pendings.begin(header.cookie, kind, extent, fua);
        if kind == Kind::Write {
            self.payload = Some(new_payload(slot, extent.len));
        } else {
            self.pendings.issue_slot(slot, out); // at once: requests keep their order
        }
    }

    fn refuse(&mut self, header: &RequestHeader, code: u32) {
        if header.command == command::WRITE {
            self.drain = u64::from(header.length);
        }
        self.replies.push_back(Reply::of_error(header.cookie, code));
    }
}

fn new_payload(slot: usize, len: u64) -> Payload {
    let here = len.min(MAX_EXTENT_BYTES);
    let size = usize::try_from(here).expect("at most 1 MiB");
    Payload { slot, chunk: BufMut::to_fill(size), filled: 0, rest: len - here }
}

/// What a request asks for, or the error that answers it.
fn judge(header: &RequestHeader, export: &Export) -> Result<(Kind, Extent), u32> {
    let allowed = match header.command {
        command::WRITE_ZEROES => command_flag::FUA | command_flag::NO_HOLE,
        _ => command_flag::FUA,
    };
    if header.flags & !allowed != 0 {
        return Err(error::EINVAL);
    }
    let kind = match header.command {
        command::READ => Kind::Read,
        command::WRITE => Kind::Write,
        command::TRIM => Kind::Zero { unmap: true },
        command::WRITE_ZEROES => Kind::Zero { unmap: header.flags & command_flag::NO_HOLE == 0 },
        command::FLUSH | command::DISC => return Ok((Kind::Flush, Extent::default())),
        _ => return Err(error::EINVAL),
    };
    let extent = Extent::new(header.offset, u64::from(header.length));
    if is_within(extent, export) && charge(kind, extent.len) <= MAX_BYTES {
        Ok((kind, extent))
    } else {
        Err(error::EINVAL)
    }
}

fn is_within(extent: Extent, export: &Export) -> bool {
    let block = u64::from(export.block.max(1));
    extent.len != 0
        && extent.offset % block == 0
        && extent.len % block == 0
        && extent.offset.checked_add(extent.len).is_some_and(|end| end <= export.size)
}
