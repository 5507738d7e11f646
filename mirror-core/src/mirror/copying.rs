//! Recovery, seen from the source (rules 6 and 7).
//!
//! ```text
//! AwaitMarks ──▶ Owing (full copy: all marks durable) ──▶ AwaitReady ──▶ Running ◀──▶ Stopped
//!                                                                          │
//!                             Adopting ◀── PreparingAdoption ◀── LastFlush ◀┘
//! ```
//! A copy holds its range from the local read until the peer's ack, so a live write and a copy of
//! the same block are ordered. The mark of a copied region goes after a flush of both disks.

use super::app::Origin;
use super::link::Link;
use super::meta::Then;
use super::session::{Role, Session};
use super::{Mirror, Owner};
use crate::bitmap::Bitmap;
use crate::buf::Buf;
use crate::direction::Mode;
use crate::io::{DataOp, IoFailure, Notice};
use crate::marks::Marks;
use crate::ranges;
use crate::rules::{Rule, holds};
use crate::status::CopyKind;
use crate::units::{Extent, MAX_EXTENT_BYTES, Millis, REGION_BYTES, region_extent, regions_in};
use crate::wire::Message;
use std::collections::BTreeMap;

/// After this many copied bytes both disks are flushed, so that their marks can go: what an
/// interruption makes to be copied again.
const FLUSH_EVERY_BYTES: u64 = 64 << 20;

/// An application that asked for something within this time is busy: recovery steps back, ms.
const BUSY_MS: u64 = 50;

/// Longest copy while the application is busy, bytes: what a request may have to wait for at the disks.
const BUSY_COPY_BYTES: u64 = 256 << 10;

/// What a recovery flush is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AfterFlush {
    /// Marks of copied regions may go.
    GoOn,
    /// The target may adopt the generation.
    Adopt,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    AwaitMarks,
    Owing,
    AwaitReady,
    Running,
    Stopped,
    LastFlush,
    PreparingAdoption,
    Adopting,
}

#[derive(Debug)]
pub(super) struct Copying {
    mode: Mode,
    kind: CopyKind,
    step: Step,
    cursor: u32,
    in_flight: BTreeMap<u64, Extent>,
    since_flush: u64,
    flushing: bool,
    /// Settling: how often it was stopped without the target having recorded that.
    unnoted: u32,
    pub(super) copied: u64,
    pub(super) total: u64,
    pub(super) started: Millis,
}

impl Copying {
    pub(super) fn new(mode: Mode, kind: CopyKind) -> Self {
        Self {
            mode,
            kind,
            step: Step::AwaitMarks,
            cursor: 0,
            in_flight: BTreeMap::new(),
            since_flush: 0,
            flushing: false,
            unnoted: 0,
            copied: 0,
            total: 0,
            started: Millis(0),
        }
    }

    /// The target has recorded what it must; from here on writes go to both.
    pub(super) fn takes_writes(&self) -> bool {
        !matches!(self.step, Step::AwaitMarks | Step::Owing | Step::AwaitReady)
    }

    pub(super) fn awaits_marks(&self) -> bool {
        self.step == Step::AwaitMarks
    }

    /// Blocks are being copied: it can be stopped.
    pub(super) fn is_copying(&self) -> bool {
        self.step == Step::Running
    }

    /// Copying, or finishing to.
    pub(super) fn is_running(&self) -> bool {
        !matches!(self.step, Step::Stopped)
    }

    /// The target may still take itself for whole, or become it.
    pub(super) fn is_unsettled(&self) -> bool {
        self.is_running() || self.unnoted > 0
    }

    /// Copies are in flight.
    pub(super) fn has_copies(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// A block within `extent` is on its way.
    pub(super) fn is_at(&self, extent: Extent) -> bool {
        self.in_flight.values().any(|e| e.overlaps(extent))
    }

    pub(super) fn kind(&self) -> CopyKind {
        self.kind
    }
}

pub(super) fn kind_of(mode: Mode) -> CopyKind {
    match mode {
        Mode::Initial => CopyKind::Initial,
        Mode::Full => CopyKind::Full,
        Mode::Difference => CopyKind::Difference,
        Mode::Settle { .. } => CopyKind::Settle,
    }
}

/// Everything is copied, whatever the marks say.
pub(super) const fn copies_all(mode: Mode) -> bool {
    matches!(mode, Mode::Full | Mode::Initial)
}

/// Bytes of the mirror within the regions that are set.
pub(super) fn bytes_of(dirty: &Bitmap, size: u64) -> u64 {
    let whole = u64::from(dirty.count()) * REGION_BYTES;
    let last = regions_in(size).saturating_sub(1);
    if dirty.get(last) { whole - REGION_BYTES + region_extent(last, size).len } else { whole }
}

impl Mirror {
    fn copying_mut(&mut self) -> Option<&mut Copying> {
        self.session_mut().and_then(|s| s.copying.as_mut())
    }

    /// The source begins with its own marks, all of them dirty (rule 2); the target's follow.
    pub(super) fn begin_as_source(&mut self) {
        let regions = regions_in(self.meta.record.size);
        let mut dirty = Bitmap::new(regions);
        if let Some(marks) = &self.meta.marks {
            dirty.union(marks.wanted());
        }
        if let Some(session) = self.session_mut() {
            session.dirty = Some(dirty);
        }
    }

    pub(super) fn on_marks_end(&mut self) {
        let owes_all = self.meta.record.owes_all;
        let regions = regions_in(self.meta.record.size);
        let Some(session) = self.session_mut() else { return };
        let (Some(copying), Some(dirty)) = (&mut session.copying, &mut session.dirty) else {
            self.protocol_error("the end of marks that were not awaited");
            return;
        };
        if copying.step != Step::AwaitMarks {
            self.protocol_error("the end of marks twice");
            return;
        }
        if owes_all {
            dirty.set(0..regions);
            copying.step = Step::Owing;
            if let Some(marks) = &mut self.meta.marks {
                marks.set_all();
            }
        } else {
            self.start_copy();
        }
    }

    /// Full copy: once every mark is durable they, not the flag, say what is owed, and an
    /// interruption goes on from what is left. The flag stays until the target says that it is
    /// half copied: until then it may be all that tells the two apart.
    fn marks_owed(&mut self) {
        let owing = self
            .session()
            .is_some_and(|s| s.copying.as_ref().is_some_and(|c| c.step == Step::Owing));
        if owing && self.meta.marks.as_ref().is_some_and(Marks::idle) {
            self.start_copy();
        }
    }

    pub(super) fn start_copy(&mut self) {
        let now = self.now.mono;
        let size = self.meta.record.size;
        let Some(toward) = self.meta.record.generation else { return };
        let Some(session) = self.session_mut() else { return };
        let (Some(copying), Some(dirty)) = (&mut session.copying, &session.dirty) else { return };
        copying.step = Step::AwaitReady;
        copying.flushing = false;
        copying.started = now;
        copying.total = bytes_of(dirty, size);
        let all = copies_all(copying.mode);
        let complete = copying.mode == Mode::Settle { complete: true };
        let (kind, bytes) = (copying.kind(), copying.total);
        self.send(Message::CopyStart { toward, all, complete });
        self.notice(Notice::RecoveryStarted { kind, source: true, bytes });
    }

    pub(super) fn on_copy_ready(&mut self) {
        let complete = self.session().is_some_and(|s| {
            s.copying.as_ref().is_some_and(|c| c.mode == Mode::Settle { complete: true })
        });
        let Some(copying) = self.copying_mut() else { return };
        if copying.unnoted > 0 {
            copying.unnoted -= 1;
            return;
        }
        if copying.step != Step::AwaitReady {
            self.protocol_error("ready for a copy that was not announced");
            return;
        }
        copying.step = Step::Running;
        if !complete {
            // The target is durably inconsistent: it cannot be activated without us.
            self.meta.record.peer_behind = true;
            self.meta.record.owes_all = false;
            self.meta.persist();
        }
    }

    /// Keeps the recovery going: as many copies as the application leaves room for.
    pub(super) fn feed_copy(&mut self) {
        self.marks_owed();
        let depth = self.copy_depth();
        while self.session().is_some_and(|s| {
            s.copying.as_ref().is_some_and(|c| c.step == Step::Running && c.in_flight.len() < depth)
        }) {
            let Some(extent) = self.next_copy() else {
                self.finish_copy_when_drained();
                return;
            };
            let token = self.id();
            if let Some(copying) = self.copying_mut() {
                copying.in_flight.insert(token, extent);
            }
            if self.ranges.enter(token, extent, ranges::Mode::Exclusive) {
                self.copy_granted(token);
            } else {
                self.copy_waits(token);
            }
        }
    }

    fn copy_depth(&self) -> usize {
        if self.is_busy() { self.tuning.copy_depth_busy } else { self.tuning.copy_depth }
    }

    fn is_busy(&self) -> bool {
        let lately = |last| self.now.mono.since(last) < BUSY_MS;
        self.active && (self.app.has_requests() || self.last_request.is_some_and(lately))
    }

    /// The next run of dirty regions, at most one frame long, and less while the application is busy.
    fn next_copy(&mut self) -> Option<Extent> {
        let size = self.meta.record.size;
        let longest = if self.is_busy() { BUSY_COPY_BYTES } else { MAX_EXTENT_BYTES };
        let most = u32::try_from(longest / REGION_BYTES).unwrap_or(1);
        let session = self.session_mut()?;
        let (copying, dirty) = (session.copying.as_mut()?, session.dirty.as_ref()?);
        let first = dirty.next_set(copying.cursor)?;
        let mut end = first + 1;
        while end < dirty.len() && end - first < most && dirty.get(end) {
            end += 1;
        }
        copying.cursor = end;
        let start = region_extent(first, size);
        let last = region_extent(end - 1, size);
        Some(Extent::new(start.offset, last.end() - start.offset))
    }

    pub(super) fn copy_granted(&mut self, token: u64) {
        let Some(copying) = self.copying_mut() else { return };
        let Some(extent) = copying.in_flight.get(&token).copied() else { return };
        self.submit(Owner::Copy(token), DataOp::Read, extent);
    }

    pub(super) fn copy_read_done(&mut self, token: u64, result: Result<Option<Buf>, IoFailure>) {
        let known = self.copying_mut().and_then(|c| c.in_flight.get(&token).copied());
        let Some(extent) = known else {
            // Its session ended meanwhile.
            self.leave_range(token);
            return;
        };
        match result {
            Ok(Some(data)) if data.len() as u64 == extent.len => {
                self.send(Message::Copy { id: token, extent, data });
            }
            _ => self.copy_read_failed(token, extent),
        }
    }

    /// An unreadable block keeps its mark, and ends the recovery with an error (rule 7).
    fn copy_read_failed(&mut self, token: u64, extent: Extent) {
        self.notice(Notice::DiskError {
            cluster_partition: false,
            what: "read",
            offset: extent.offset,
        });
        self.copy_left(token);
        if !holds(Rule::UnreadableEnds) {
            let again = extent.regions().start;
            self.copying_mut().into_iter().for_each(|c| c.cursor = c.cursor.min(again));
            return;
        }
        self.cancelled = true;
        self.stop_copying("a block of the source cannot be read");
    }

    fn copy_left(&mut self, token: u64) -> Option<Extent> {
        let extent = self.copying_mut()?.in_flight.remove(&token)?;
        self.leave_range(token);
        Some(extent)
    }

    /// The peer answered a copy; false if it is none.
    pub(super) fn copy_acked(&mut self, token: u64, ok: bool) -> bool {
        let Some(extent) = self.copy_left(token) else { return false };
        if !ok {
            self.drop_link("the disk of the other server failed");
            return true;
        }
        if let Some(session) = self.session_mut() {
            if let Some(dirty) = &mut session.dirty {
                dirty.clear(extent.regions());
            }
            if let Some(copying) = &mut session.copying {
                copying.copied += extent.len;
                copying.since_flush += extent.len;
            }
        }
        self.hot.copied(extent.regions());
        if !holds(Rule::FlushCopied) {
            self.hot.flushed(self.hot.ends());
            self.clear_copied_marks();
        }
        self.flush_copied();
        true
    }

    fn flush_copied(&mut self) {
        let Some(copying) = self.copying_mut() else { return };
        if copying.since_flush >= FLUSH_EVERY_BYTES && !copying.flushing {
            copying.since_flush = 0;
            copying.flushing = true;
            self.begin_flush(Origin::Copy(AfterFlush::GoOn));
        }
    }

    fn finish_copy_when_drained(&mut self) {
        let Some(copying) = self.copying_mut() else { return };
        if copying.in_flight.is_empty() && !copying.flushing {
            copying.step = Step::LastFlush;
            copying.flushing = true;
            self.begin_flush(Origin::Copy(AfterFlush::Adopt));
            self.advance_waiting();
        }
    }

    pub(super) fn copy_flushed(&mut self, after: AfterFlush, ok: bool) {
        let Some(conn) = self.current() else { return };
        let Some(copying) = self.copying_mut() else { return };
        copying.flushing = false;
        if !ok {
            return;
        }
        let step = copying.step;
        self.clear_copied_marks();
        if after == AfterFlush::Adopt && step == Step::LastFlush {
            if let Some(copying) = self.copying_mut() {
                copying.step = Step::PreparingAdoption;
            }
            // Once it is told, the target may hold our generation and be whole.
            self.meta.record.peer_behind &= !holds(Rule::ToldMayHold);
            self.meta.persist_then(Then::Adopt(conn));
        }
    }

    fn clear_copied_marks(&mut self) {
        let dirty = self.session().and_then(|s| s.dirty.as_ref());
        let Link::Session(_) = &self.link else { return };
        let gone = match dirty {
            Some(dirty) => {
                let dirty = dirty.clone();
                self.hot.take_copied(|r| dirty.get(r))
            }
            None => self.hot.take_copied(|_| false),
        };
        if let Some(marks) = &mut self.meta.marks {
            for r in gone {
                marks.clear(r);
            }
        }
    }

    pub(super) fn send_adopt(&mut self) {
        let Some(copying) = self.copying_mut() else { return };
        copying.step = Step::Adopting;
        let record = &self.meta.record;
        let Some(generation) = record.generation else { return };
        let message = Message::Adopt {
            generation,
            ancestors: record.ancestors.clone(),
            overruled: record.overruled.clone(),
            mirror: record.mirror,
        };
        self.send(message);
    }

    pub(super) fn on_adopted(&mut self) {
        let Some(conn) = self.current() else { return };
        if !self.copying_mut().is_some_and(|c| c.step == Step::Adopting) {
            self.protocol_error("an adoption that was not asked for");
            return;
        }
        self.record_in_sync();
        self.meta.persist_then(Then::CopyDone(conn));
    }

    pub(super) fn end_copy(&mut self) {
        let Some(session) = self.session_mut() else { return };
        let Some(copying) = session.copying.take() else { return };
        session.role = Role::Equal;
        session.dirty = None;
        self.cancelled = false;
        self.uninterrupted = true;
        self.resume.settled();
        // What is still hot cools down like after a write.
        self.last_write = Some(self.now.mono);
        self.copy_finished(copying.kind(), true);
    }

    /// Ends the copying; the session and the mirroring of writes go on.
    pub(super) fn stop_copying(&mut self, reason: &'static str) {
        let Some(copying) = self.copying_mut() else { return };
        if copying.step != Step::Running {
            return;
        }
        copying.step = Step::Stopped;
        let settles = copying.mode == Mode::Settle { complete: true };
        copying.unnoted += u32::from(settles && holds(Rule::StoppedBehind));
        let kind = copying.kind();
        self.send(Message::CopyStop);
        self.notice(Notice::RecoveryAborted { kind, source: true, reason });
    }

    /// Takes up a stopped copying; false if none was stopped.
    pub(super) fn resume_copying(&mut self) -> bool {
        let now = self.now.mono;
        let size = self.meta.record.size;
        let Some(session) = self.session_mut() else { return false };
        let (Some(copying), Some(dirty)) = (&mut session.copying, &session.dirty) else {
            return false;
        };
        if copying.step != Step::Stopped {
            return false;
        }
        copying.step = Step::Running;
        copying.cursor = 0;
        copying.started = now;
        copying.copied = 0;
        copying.total = bytes_of(dirty, size);
        let (kind, bytes) = (copying.kind(), copying.total);
        self.notice(Notice::RecoveryStarted { kind, source: true, bytes });
        true
    }

    /// The session ended under a recovery: its copies give up their ranges once their reads are
    /// over.
    pub(super) fn copy_aborted(&mut self, session: &Session) {
        let Some(copying) = &session.copying else {
            if let Some(target) = &session.target {
                self.target_aborted(target);
            }
            return;
        };
        let reading: Vec<u64> = self
            .ios
            .values()
            .filter_map(|o| if let Owner::Copy(token) = o { Some(*token) } else { None })
            .collect();
        for token in copying.in_flight.keys() {
            if !reading.contains(token) {
                self.leave_range(*token);
            }
        }
        let kind = copying.kind();
        let reason = "the connection was lost";
        self.notice(Notice::RecoveryAborted { kind, source: true, reason });
    }
}
