//! Asynchronous I/O on one partition, as the core's actions ask for it.
//!
//! Every operation is answered once, and once more if it had been given up after the time limit
//! and ends later (rule 12).

use super::Cx;
use super::count::ById;
use super::partition::Partition;
use crate::figures::{Kind as Counted, Operations};
use kmod_shim::sys::{Completion, Ended, Op, Slots};
use mirror_core::buf::{Buf, BufMut};
use mirror_core::io::{DataOp, Event, IoFailure, IoId, RequestId};
use mirror_core::units::{Extent, MAX_EXTENT_BYTES, Millis};
use nix::libc;
use std::collections::VecDeque;

#[cfg(feature = "fault-injection")]
use super::faults::{Fault, Faults, Kind};

/// Repeats after EINTR or EAGAIN before the operation counts as failed.
const MAX_REPEATS: u8 = 100;

/// Which partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Data,
    Meta,
}

/// How to zero, best first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    Punch,
    ZeroRange,
    Write,
}

/// Memory of a request, for the bytes that are read for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lent {
    /// Whose it is.
    pub(super) request: RequestId,
    /// Its index in the ring.
    pub(super) place: u16,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Read,
    Write,
    Zero { method: Method, durable: bool },
    Sync,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    io: IoId,
    extent: Extent,
    step: Step,
    repeats: u8,
    lent: Option<Loan>,
}

/// Memory that a read goes straight to. A resubmission looks its place up anew, and by then that may
/// be another request's: so it holds only until [`Disk::end_loans`].
#[derive(Clone, Copy, Debug)]
struct Loan {
    request: RequestId,
    epoch: u64,
}

struct Open {
    /// Given up: what comes is the second answer.
    late: bool,
    /// For the figures: what it is, how much, and since when.
    kind: Counted,
    bytes: u64,
    at: u64,
}

/// One partition's operations.
pub(super) struct Disk {
    role: Role,
    partition: Partition,
    slots: Slots<Job>,
    open: ById<IoId, Open>,
    /// Flushes under way.
    flushes: usize,
    operations: Operations,
    /// Time limits in the order in which they end; entries of operations that have ended stay
    /// until they come to the front.
    limits: VecDeque<(Millis, IoId)>,
    limit_ms: u64,
    /// Operations that were given up and have not ended.
    late: usize,
    /// Changes when what is lent is not to be used again.
    loans: u64,
    /// Requests whose memory is not used any more.
    returned: Vec<RequestId>,
    /// What the partition turned out not to have.
    no_punch: bool,
    no_zero_range: bool,
    zeros: Option<Buf>,
    #[cfg(feature = "fault-injection")]
    faults: Faults,
    #[cfg(feature = "fault-injection")]
    delayed: Vec<(Millis, Op, Job)>,
}

impl Disk {
    /// The partition, measured anew.
    pub(super) fn measured(&mut self) -> &Partition {
        self.partition.measure();
        &self.partition
    }

    pub(super) fn new(role: Role, partition: Partition, limit_ms: u64) -> Self {
        Self {
            role,
            #[cfg(feature = "fault-injection")]
            faults: Faults::of(partition.path()),
            #[cfg(feature = "fault-injection")]
            delayed: Vec::new(),
            partition,
            slots: Slots::default(),
            open: ById::default(),
            flushes: 0,
            operations: Operations::default(),
            limits: VecDeque::new(),
            limit_ms,
            late: 0,
            loans: 0,
            returned: Vec::new(),
            no_punch: false,
            no_zero_range: false,
            zeros: None,
        }
    }

    /// Starts an operation of the core; what a read brings goes to `lent`, if there is that.
    pub(super) fn start(
        &mut self,
        (io, op, extent): (IoId, DataOp, Extent),
        lent: Option<Lent>,
        cx: &mut Cx<'_>,
    ) {
        let open = Open { late: false, kind: kind_of(&op), bytes: extent.len, at: cx.micros };
        self.flushes += usize::from(open.kind == Counted::Flush);
        self.open.insert(io, open);
        self.limits.push_back((cx.now.plus(self.limit_ms), io));
        let loan = lent.map(|l| Loan { request: l.request, epoch: self.loans });
        let mut job = Job { io, extent, step: Step::Sync, repeats: 0, lent: loan };
        if !self.is_sound(&op, extent) {
            return self.end(job, Err(libc::EINVAL), cx);
        }
        let op = match op {
            DataOp::Read => self.read(&mut job, lent.map(|l| l.place)),
            DataOp::Write { data, durable } => self.write(&mut job, data, durable),
            DataOp::Zero { unmap, durable } => {
                let method = if unmap { Method::Punch } else { Method::ZeroRange };
                let method = self.available(method);
                self.zero(&mut job, method, durable)
            }
            DataOp::Flush => Op::Sync { file: self.partition.file() },
        };
        self.submit(op, job, cx);
    }

    pub(super) fn on_cqe(&mut self, cqe: &Completion, cx: &mut Cx<'_>) {
        let Some(Ended { tag: job, op, result, .. }) = self.slots.take(cqe) else { return };
        match result {
            Ok(count) => self.go_on(job, op, count, cx),
            Err(libc::EINTR | libc::EAGAIN) if job.repeats < MAX_REPEATS => {
                let (op, job) = self.lawful(op, Job { repeats: job.repeats + 1, ..job });
                self.slots.submit(op, job, cx.ring);
            }
            Err(errno) if matches!(op, Op::ReadStraight { .. }) && errno != libc::EIO => {
                self.read_again(job, cx);
            }
            Err(errno) => self.refused(job, errno, cx),
        }
    }

    /// The requests whose memory is not used any more, since this was asked last.
    pub(super) fn take_returned(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.returned)
    }

    /// What is lent may belong to somebody else as soon as its reads have ended: none of them is
    /// submitted once more.
    pub(super) fn end_loans(&mut self) {
        self.loans += 1;
    }

    /// Whether an operation has not ended within its time limit, and still has not.
    pub(super) fn hangs(&self) -> bool {
        self.late > 0
    }

    /// Gives up what is over its time limit.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) {
        while let Some((limit, io)) = self.limits.front().copied() {
            match self.open.get_mut(&io) {
                Some(open) if limit <= cx.now && !open.late => {
                    open.late = true;
                    self.late += 1;
                    self.operations.of(open.kind).errors += 1;
                    cx.out.push_back(self.event(io, Err(IoFailure::TimedOut)));
                }
                Some(open) if !open.late => break,
                _ => {}
            }
            self.limits.pop_front();
        }
        self.release_delayed(cx);
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn deadline(&mut self) -> Option<Millis> {
        while self.limits.front().is_some_and(|(_, io)| !self.open.contains_key(io)) {
            self.limits.pop_front();
        }
        let limit = self.limits.front().map(|(limit, _)| *limit);
        limit.into_iter().chain(self.delayed_until()).min()
    }

    /// What was done, by kind.
    pub(super) fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Operations under way.
    pub(super) fn under_way(&self) -> usize {
        self.open.len()
    }

    /// Whether a flush is under way: a thread of the kernel's does it.
    pub(super) fn is_flushing(&self) -> bool {
        self.flushes > 0
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether direct I/O can do it: aligned, within the partition, as long as its bytes. The
    /// memory itself is always aligned.
    fn is_sound(&self, op: &DataOp, extent: Extent) -> bool {
        let fits = match op {
            DataOp::Flush => return true,
            DataOp::Write { data, .. } => data.len() as u64 == extent.len,
            DataOp::Read => extent.len <= MAX_EXTENT_BYTES,
            DataOp::Zero { .. } => true,
        };
        let block = u64::from(self.partition.block());
        fits && extent.len > 0
            && extent.offset % block == 0
            && extent.len % block == 0
            && extent.offset.checked_add(extent.len).is_some_and(|e| e <= self.partition.size())
    }

    fn read(&self, job: &mut Job, place: Option<u16>) -> Op {
        job.step = Step::Read;
        let len = usize::try_from(job.extent.len).expect("at most 1 MiB");
        let (file, offset, range) = (self.partition.file(), job.extent.offset, 0..len);
        match place {
            Some(place) => Op::ReadStraight { file, offset, place, range },
            None => Op::Read { file, offset, buf: BufMut::to_fill(len), range },
        }
    }

    /// The partition does not read straight into a request's memory, as that is not aligned for it:
    /// once more into memory of this program.
    fn read_again(&mut self, job: Job, cx: &mut Cx<'_>) {
        let (op, job) = self.read_here(job);
        self.submit(op, job, cx);
    }

    /// The whole read, into memory of this program.
    fn read_here(&mut self, mut job: Job) -> (Op, Job) {
        self.returned.extend(job.lent.take().map(|loan| loan.request));
        (self.read(&mut job, None), job)
    }

    /// What may be submitted for this operation: itself, unless it uses what is lent no more.
    fn lawful(&mut self, op: Op, job: Job) -> (Op, Job) {
        let ended = job.lent.is_some_and(|loan| loan.epoch != self.loans);
        if ended && matches!(op, Op::ReadStraight { .. }) {
            return self.read_here(job);
        }
        (op, job)
    }

    fn submit(&mut self, op: Op, job: Job, cx: &mut Cx<'_>) {
        let (op, job) = self.lawful(op, job);
        self.push(op, job, cx);
    }

    fn write(&self, job: &mut Job, data: Buf, durable: bool) -> Op {
        job.step = Step::Write;
        let (file, offset, range) = (self.partition.file(), job.extent.offset, 0..data.len());
        Op::Write { file, offset, buf: data, range, durable }
    }

    /// Zeroes `job.extent` by `method`; by writing, its first part.
    fn zero(&mut self, job: &mut Job, method: Method, durable: bool) -> Op {
        job.step = Step::Zero { method, durable };
        let Extent { offset, len } = job.extent;
        let file = self.partition.file();
        if method != Method::Write {
            return Op::Zero { file, offset, len, punch: method == Method::Punch };
        }
        let zeros = self.zeros.get_or_insert_with(|| {
            BufMut::zeroed(usize::try_from(MAX_EXTENT_BYTES).expect("1 MiB")).freeze()
        });
        let here = usize::try_from(len).unwrap_or(usize::MAX).min(zeros.len());
        Op::Write { file, offset, buf: zeros.clone(), range: 0..here, durable }
    }

    /// A part of an operation succeeded with `count`.
    fn go_on(&mut self, mut job: Job, op: Op, count: usize, cx: &mut Cx<'_>) {
        let next = match (job.step, op) {
            (Step::Sync, _) => return self.end(job, Ok(None), cx),
            (_, Op::Read { file, offset, buf, range }) => {
                if count == range.len() {
                    return self.end(job, Ok(Some(buf.freeze())), cx);
                }
                let (offset, range) = (offset + count as u64, range.start + count..range.end);
                Op::Read { file, offset, buf, range }
            }
            (_, Op::ReadStraight { file, offset, place, range }) => {
                if count == range.len() {
                    return self.end(job, Ok(None), cx);
                }
                let (offset, range) = (offset + count as u64, range.start + count..range.end);
                Op::ReadStraight { file, offset, place, range }
            }
            (_, Op::Write { file, offset, buf, range, durable }) if count < range.len() => {
                let (offset, range) = (offset + count as u64, range.start + count..range.end);
                Op::Write { file, offset, buf, range, durable }
            }
            (Step::Zero { method: Method::Write, durable }, Op::Write { range, .. }) => {
                let done = range.end as u64;
                job.extent = Extent::new(job.extent.offset + done, job.extent.len - done);
                if job.extent.len == 0 {
                    return self.end(job, Ok(None), cx);
                }
                self.zero(&mut job, Method::Write, durable)
            }
            (Step::Zero { durable: true, .. }, Op::Zero { file, .. }) => {
                job.step = Step::Sync;
                Op::Sync { file }
            }
            _ => return self.end(job, Ok(None), cx),
        };
        if count == 0 && !matches!(next, Op::Zero { .. } | Op::Sync { .. }) {
            return self.end(job, Err(libc::EIO), cx); // the end of the partition
        }
        self.submit(next, job, cx);
    }

    /// An operation failed; zeroing goes on by another method, down to plain writes.
    fn refused(&mut self, mut job: Job, errno: i32, cx: &mut Cx<'_>) {
        let missing = matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY);
        match job.step {
            Step::Zero { method, durable } if method != Method::Write => {
                self.no_punch |= missing && method == Method::Punch;
                self.no_zero_range |= missing && method == Method::ZeroRange;
                let next = if method == Method::Punch { Method::ZeroRange } else { Method::Write };
                let next = self.available(next);
                let op = self.zero(&mut job, next, durable);
                self.submit(op, job, cx);
            }
            _ => self.end(job, Err(errno), cx),
        }
    }

    fn available(&self, wanted: Method) -> Method {
        match wanted {
            Method::Punch if self.no_punch => self.available(Method::ZeroRange),
            Method::ZeroRange if self.no_zero_range => Method::Write,
            _ => wanted,
        }
    }

    fn end(&mut self, job: Job, result: Result<Option<Buf>, i32>, cx: &mut Cx<'_>) {
        self.returned.extend(job.lent.map(|loan| loan.request));
        let open = self.open.remove(&job.io);
        self.flushes -= usize::from(open.as_ref().is_some_and(|o| o.kind == Counted::Flush));
        match (open, &result) {
            (Some(open), _) if open.late => self.late -= 1, // it has failed already
            (Some(Open { kind, bytes, at, .. }), Ok(_)) => {
                self.operations.of(kind).add(bytes, cx.micros.saturating_sub(at));
            }
            (Some(open), Err(_)) => self.operations.of(open.kind).errors += 1,
            (None, _) => {}
        }
        cx.out.push_back(self.event(job.io, result.map_err(IoFailure::Errno)));
    }

    fn event(&self, io: IoId, result: Result<Option<Buf>, IoFailure>) -> Event {
        match self.role {
            Role::Data => Event::DataDone { io, result },
            Role::Meta => Event::MetaDone { io, result: result.map(|_| ()) },
        }
    }
}

fn kind_of(op: &DataOp) -> Counted {
    match op {
        DataOp::Read => Counted::Read,
        DataOp::Write { .. } => Counted::Write,
        DataOp::Zero { .. } => Counted::Zero,
        DataOp::Flush => Counted::Flush,
    }
}

#[cfg(not(feature = "fault-injection"))]
impl Disk {
    fn push(&mut self, op: Op, job: Job, cx: &mut Cx<'_>) {
        self.slots.submit(op, job, cx.ring);
    }

    #[allow(clippy::unused_self)] // the other build has some
    fn release_delayed(&mut self, _: &mut Cx<'_>) {}

    #[allow(clippy::unused_self)] // the other build has some
    fn delayed_until(&self) -> Option<Millis> {
        None
    }
}

#[cfg(feature = "fault-injection")]
impl Disk {
    fn push(&mut self, op: Op, job: Job, cx: &mut Cx<'_>) {
        let kind = match op {
            Op::Read { .. } | Op::ReadStraight { .. } => Kind::Read,
            Op::Sync { .. } => Kind::Flush,
            _ => Kind::Write,
        };
        match self.faults.of_next(kind) {
            None => {
                self.slots.submit(op, job, cx.ring);
            }
            Some(Fault::Fail) => self.end(job, Err(libc::EIO), cx),
            Some(Fault::Delay(ms)) => self.delayed.push((cx.now.plus(ms), op, job)),
        }
    }

    fn release_delayed(&mut self, cx: &mut Cx<'_>) {
        let (due, later) =
            std::mem::take(&mut self.delayed).into_iter().partition(|d| d.0 <= cx.now);
        self.delayed = later;
        let due: Vec<_> = due;
        for (_, op, job) in due {
            let (op, job) = self.lawful(op, job);
            self.slots.submit(op, job, cx.ring);
        }
    }

    fn delayed_until(&self) -> Option<Millis> {
        self.delayed.iter().map(|d| d.0).min()
    }
}

#[cfg(test)]
mod tests;
