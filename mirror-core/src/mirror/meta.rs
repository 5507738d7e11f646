//! What is on the cluster partition: the record in two copies, and the marks.
//!
//! Nothing that depends on a record being durable happens before both copies are written (rule
//! 10): callers leave a [`Then`], which comes back when it is so.

use super::setup::Setup;
use crate::disk::{layout, superblock};
use crate::io::{Action, CommandId, ConnId, IoId};
use crate::marks::Marks;
use crate::record::Record;
use crate::rules::{Rule, holds};
use crate::units::ActivationNo;
use std::collections::{HashMap, VecDeque};

/// What goes on once a record is durable. Steps of an agreement name their connection, so that
/// one that came too late is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    Offer(ConnId),
    Accept(ConnId),
    Open(ConnId),
    /// What is owed is recorded: the verdict may be told.
    Owed(ConnId),
    CopyReady(ConnId),
    /// The target of a settling that has stopped is recorded as behind.
    StopNoted(ConnId),
    Adopt(ConnId),
    Adopted(ConnId),
    CopyDone(ConnId),
    Alone,
    Activated,
    /// The number is taken here: the peer may be asked for it.
    Ask(ConnId, ActivationNo),
    Granted(ConnId, ActivationNo),
    Deactivated,
    Forced {
        id: CommandId,
        contact: bool,
    },
    Noted(CommandId),
    Stopped,
    ErrorRecorded,
    /// The larger size is recorded here.
    Grown(CommandId),
    /// This side's data are recorded as out of date: the peer may be asked to serve.
    Detach(ConnId),
    /// Recorded that this side alone has the latest data.
    Detached(ConnId),
}

impl Then {
    /// The connection that the step belongs to; `None` = it goes on whatever becomes of that.
    pub(super) const fn connection(self) -> Option<ConnId> {
        match self {
            Self::Offer(conn)
            | Self::Accept(conn)
            | Self::Open(conn)
            | Self::Owed(conn)
            | Self::CopyReady(conn)
            | Self::StopNoted(conn)
            | Self::Adopt(conn)
            | Self::Adopted(conn)
            | Self::CopyDone(conn)
            | Self::Ask(conn, _)
            | Self::Granted(conn, _)
            | Self::Detach(conn)
            | Self::Detached(conn) => Some(conn),
            Self::Alone
            | Self::Activated
            | Self::Deactivated
            | Self::Forced { .. }
            | Self::Noted(_)
            | Self::Stopped
            | Self::ErrorRecorded
            | Self::Grown(_) => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MetaIo {
    CopyA,
    CopyB,
    Block(u32),
}

#[derive(Debug)]
pub(super) struct Meta {
    /// The record as it is to be; may be ahead of the disk.
    pub(super) record: Record,
    /// The marks, once the mirror has a size.
    pub(super) marks: Option<Marks>,
    /// Highest `seq` that is durable in both copies.
    durable: u64,
    /// Copy of the record whose two writes are in progress.
    writing: Option<Record>,
    in_flight: HashMap<IoId, MetaIo>,
    waiting: VecDeque<(u64, Then)>,
    /// A write to the cluster partition failed: nothing more can be promised.
    pub(super) failed: bool,
}

impl Meta {
    pub(super) fn new(setup: &mut Setup, record: Record) -> Self {
        let durable = record.seq;
        let mut marks = setup.marks.take();
        if let Some(marks) = &mut marks {
            marks.set(record.grown_regions());
        }
        let mut meta = Self {
            record,
            marks,
            durable,
            writing: None,
            in_flight: HashMap::new(),
            waiting: VecDeque::new(),
            failed: false,
        };
        if setup.fresh {
            meta.persist();
        }
        meta
    }

    /// The record has changed: write it.
    pub(super) fn persist(&mut self) {
        if !self.has_unsaved_record() {
            self.record.seq = self.newest_started() + 1;
        }
    }

    /// The record has changed: write it, then go on with `then`.
    pub(super) fn persist_then(&mut self, then: Then) {
        self.persist();
        self.waiting.push_back((self.record.seq, then));
    }

    fn newest_started(&self) -> u64 {
        self.writing.as_ref().map_or(self.durable, |r| r.seq)
    }

    fn has_unsaved_record(&self) -> bool {
        self.record.seq > self.newest_started()
    }

    /// Nothing is being written or waits to be.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.writing.is_none()
            && !self.has_unsaved_record()
            && self.marks.as_ref().is_none_or(Marks::idle)
    }

    /// Submits what is due. A failed cluster partition takes no more writes.
    ///
    /// # Errors
    /// The record could not be read back: it is not written, and nothing more is.
    pub(super) fn pump(
        &mut self,
        mut next_io: impl FnMut() -> IoId,
        out: &mut Vec<Action>,
    ) -> Result<(), superblock::Reason> {
        if self.failed {
            return Ok(());
        }
        if self.writing.is_none() && self.has_unsaved_record() {
            let record = self.record.clone();
            let bytes = superblock::checked(&record).inspect_err(|_| self.failed = true)?;
            self.writing = Some(record);
            let io = next_io();
            self.in_flight.insert(io, MetaIo::CopyA);
            out.push(Action::Meta { io, offset: layout::SUPERBLOCK_A, bytes });
        }
        let Some(marks) = &mut self.marks else { return Ok(()) };
        while let Some(write) = marks.next_write() {
            let io = next_io();
            self.in_flight.insert(io, MetaIo::Block(write.block));
            out.push(Action::Meta { io, offset: write.offset, bytes: write.bytes });
        }
        Ok(())
    }

    /// A write ended; returns whether it was one of these.
    pub(super) fn done(
        &mut self,
        io: IoId,
        ok: bool,
        next_io: impl FnOnce() -> IoId,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(what) = self.in_flight.remove(&io) else { return false };
        self.failed |= !ok;
        match what {
            MetaIo::Block(block) => {
                if let Some(marks) = &mut self.marks {
                    marks.write_done(block, ok);
                }
            }
            MetaIo::CopyA if ok => {
                if let Some(record) = &self.writing {
                    let io = next_io();
                    self.in_flight.insert(io, MetaIo::CopyB);
                    let bytes = superblock::encode(record);
                    out.push(Action::Meta { io, offset: layout::SUPERBLOCK_B, bytes });
                    if !holds(Rule::TwoCopies) {
                        self.durable = record.seq;
                    }
                }
            }
            MetaIo::CopyB if ok => {
                if let Some(record) = self.writing.take() {
                    self.durable = record.seq;
                }
            }
            MetaIo::CopyA | MetaIo::CopyB => {}
        }
        true
    }

    /// Steps that will never be durable, since the cluster partition failed.
    pub(super) fn next_hopeless(&mut self) -> Option<Then> {
        if !self.failed {
            return None;
        }
        self.waiting.pop_front().map(|(_, then)| then)
    }

    /// The next step whose record is durable now.
    pub(super) fn next_ready(&mut self) -> Option<Then> {
        let (seq, _) = self.waiting.front()?;
        if *seq > self.durable {
            return None;
        }
        self.waiting.pop_front().map(|(_, then)| then)
    }

    /// Every region of `regions` has a durable mark that stays (rule 1).
    pub(super) fn are_marked(&self, regions: std::ops::Range<u32>) -> bool {
        self.marks.as_ref().is_some_and(|m| m.all_marked(regions))
    }
}
