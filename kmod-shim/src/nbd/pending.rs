//! The requests of one client that wait for the core, and their splitting into parts.

use super::protocol::{REPLY_HEADER, error, simple_reply};
use mirror_core::buf::Buf;
use mirror_core::io::{RequestError, RequestOp};
use mirror_core::units::{Extent, MAX_EXTENT_BYTES};

/// Parts of one request that are in flight at a time.
const MAX_PARTS: u32 = 8;

/// Names a part within its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartId {
    slot: usize,
    part: usize,
}

/// A client's request or a part of it, short enough for the core.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub id: PartId,
    /// What to do.
    pub op: RequestOp,
    /// Where.
    pub extent: Extent,
    /// Durable before the answer.
    pub fua: bool,
}

/// An answer ready to be sent.
pub(super) struct Reply {
    pub(super) head: [u8; REPLY_HEADER],
    pub(super) parts: Vec<Buf>,
    /// Bytes that the request was charged with.
    pub(super) charge: u64,
}

impl Reply {
    pub(super) fn of_error(cookie: u64, error: u32) -> Self {
        Self { head: simple_reply(cookie, error), parts: Vec::new(), charge: 0 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    /// Its parts come one by one, as their payload does.
    Write,
    Zero {
        unmap: bool,
    },
    Flush,
}

struct Pending {
    cookie: u64,
    kind: Kind,
    extent: Extent,
    fua: bool,
    /// Bytes whose parts were issued.
    issued: u64,
    all_issued: bool,
    running: u32,
    parts: usize,
    error: u32,
    read: Vec<Option<Buf>>,
}

impl Pending {
    /// The extent of the next part, if one may be issued now.
    fn next(&mut self) -> Option<(usize, Extent)> {
        if self.all_issued || self.running >= MAX_PARTS {
            return None;
        }
        let len = (self.extent.len - self.issued).min(MAX_EXTENT_BYTES);
        let extent = Extent::new(self.extent.offset + self.issued, len);
        self.issued += len;
        self.all_issued = self.issued == self.extent.len;
        self.parts += 1;
        self.running += 1;
        Some((self.parts - 1, extent))
    }

    fn charge(&self) -> u64 {
        charge(self.kind, self.extent.len)
    }

    fn fail(&mut self, error: u32) {
        if self.error == 0 {
            self.error = error;
        }
        // The payload of a write still comes; everything else ends with what runs.
        self.all_issued |= self.kind != Kind::Write;
    }

    fn ended(&mut self, part: usize, result: Result<Option<Buf>, RequestError>) {
        self.running = self.running.saturating_sub(1);
        match result {
            Ok(data) if self.kind == Kind::Read => self.read[part] = data,
            Ok(_) => {}
            Err(e) => self.fail(errno(e)),
        }
    }

    fn into_reply(self) -> Reply {
        let charge = self.charge();
        let mut parts: Vec<Buf> = self.read.into_iter().flatten().collect();
        let length: u64 = parts.iter().map(|p| p.len() as u64).sum();
        let mut code = self.error;
        if code == 0 && self.kind == Kind::Read && length != self.extent.len {
            code = error::EIO; // a short answer would break the framing
        }
        if code != 0 {
            parts.clear();
        }
        Reply { head: simple_reply(self.cookie, code), parts, charge }
    }
}

/// Bytes of memory that a request stands for while it is pending.
pub(super) fn charge(kind: Kind, len: u64) -> u64 {
    match kind {
        Kind::Read | Kind::Write => len,
        Kind::Zero { .. } | Kind::Flush => 0,
    }
}

fn errno(e: RequestError) -> u32 {
    match e {
        RequestError::Io => error::EIO,
        RequestError::Invalid => error::EINVAL,
        RequestError::Inactive => error::ESHUTDOWN,
    }
}

/// All pending requests of a connection.
#[derive(Default)]
pub(super) struct Pendings {
    slots: Vec<Option<Pending>>,
    count: usize,
    /// Requests, other than writes, with parts still to be issued.
    unissued: usize,
}

impl Pendings {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn begin(&mut self, cookie: u64, kind: Kind, extent: Extent, fua: bool) -> usize {
        let parts = usize::try_from(extent.len.div_ceil(MAX_EXTENT_BYTES)).unwrap_or(usize::MAX);
        let pending = Pending {
            cookie,
            kind,
            extent,
            fua,
            issued: 0,
            all_issued: false,
            running: 0,
            parts: 0,
            error: 0,
            read: if kind == Kind::Read { vec![None; parts] } else { Vec::new() },
        };
        self.count += 1;
        self.unissued += usize::from(kind != Kind::Write);
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(pending);
        slot
    }

    /// Issues what may be issued of everything but writes.
    pub(super) fn issue(&mut self, out: &mut Vec<Part>) {
        if self.unissued > 0 {
            (0..self.slots.len()).for_each(|slot| self.issue_slot(slot, out));
        }
    }

    /// Issues what may be issued of one request, unless it is a write.
    pub(super) fn issue_slot(&mut self, slot: usize, out: &mut Vec<Part>) {
        let Some(pending) = &mut self.slots[slot] else { return };
        let op = match pending.kind {
            Kind::Write => return,
            Kind::Read => RequestOp::Read,
            Kind::Zero { unmap } => RequestOp::Zero { unmap },
            Kind::Flush => RequestOp::Flush,
        };
        let fua = pending.fua;
        while let Some((part, extent)) = pending.next() {
            out.push(Part { id: PartId { slot, part }, op: op.clone(), extent, fua });
            self.unissued -= usize::from(pending.all_issued);
        }
    }

    /// Whether another part of a write may be issued.
    pub(super) fn has_room_for_part(&self, slot: usize) -> bool {
        self.slots[slot].as_ref().is_some_and(|p| p.running < MAX_PARTS)
    }

    /// Issues the next part of a write. After an error the bytes are only dropped.
    pub(super) fn issue_write(&mut self, slot: usize, data: Buf, out: &mut Vec<Part>) {
        let Some(pending) = &mut self.slots[slot] else { return };
        let Some((part, extent)) = pending.next() else { return };
        if pending.error != 0 {
            pending.running -= 1;
            return;
        }
        let (op, fua) = (RequestOp::Write(data), pending.fua);
        out.push(Part { id: PartId { slot, part }, op, extent, fua });
    }

    /// Notes the end of a part.
    pub(super) fn ended(&mut self, id: PartId, result: Result<Option<Buf>, RequestError>) {
        if let Some(Some(pending)) = self.slots.get_mut(id.slot) {
            let before = pending.all_issued;
            pending.ended(id.part, result);
            self.unissued -= usize::from(!before && pending.all_issued);
        }
    }

    /// Takes the answer of `slot` if nothing of it is left to do.
    pub(super) fn take_reply(&mut self, slot: usize) -> Option<Reply> {
        let pending = self.slots.get_mut(slot)?;
        if pending.as_ref().is_none_or(|p| !p.all_issued || p.running > 0) {
            return None;
        }
        self.count -= 1;
        pending.take().map(Pending::into_reply)
    }

    /// The payload of this write will not come.
    pub(super) fn cut_write(&mut self, slot: usize) {
        if let Some(Some(pending)) = self.slots.get_mut(slot) {
            pending.fail(error::ESHUTDOWN);
            pending.all_issued = true;
        }
    }

    /// Fails what is there: what was not issued yet and, with `running`, also what was.
    pub(super) fn fail_all(&mut self, running: bool) {
        for pending in self.slots.iter_mut().flatten() {
            if running {
                pending.running = 0;
            }
            if running || !pending.all_issued {
                pending.fail(error::ESHUTDOWN);
            }
        }
        self.unissued = 0;
    }

    /// Every slot in use.
    pub(super) fn slots(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|i| self.slots[*i].is_some()).collect()
    }
}

impl PartId {
    pub(super) fn slot(self) -> usize {
        self.slot
    }
}
