//! What a script holds back, and what it has seen.

use crate::disk::blocks;
use crate::world::Happening;
use mirror_core::buf::Buf;
use mirror_core::command::{Done, Refusal};
use mirror_core::disk::layout::{SUPERBLOCK_A, SUPERBLOCK_B};
use mirror_core::io::{CommandId, ConnId, DataOp, Notice, RequestError, RequestId};
use mirror_core::units::Extent;
use mirror_core::wire::Message;
use std::collections::BTreeMap;

/// An operation on a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// A read of the data partition that begins at this block.
    Read(usize),
    /// A write (or zeroing) of the data partition that begins at this block.
    Write(usize),
    /// A flush of the data partition.
    Flush,
    /// A write of the first copy of the record.
    RecordA,
    /// A write of the second copy of the record.
    RecordB,
    /// A write of the bitmap.
    Marks,
}

impl Io {
    pub(crate) fn of_data(op: &DataOp, extent: Extent) -> Self {
        let block = blocks(extent).start;
        match op {
            DataOp::Read => Self::Read(block),
            DataOp::Write { .. } | DataOp::Zero { .. } => Self::Write(block),
            DataOp::Flush => Self::Flush,
        }
    }

    pub(crate) fn of_meta(offset: u64) -> Self {
        match offset {
            SUPERBLOCK_A => Self::RecordA,
            SUPERBLOCK_B => Self::RecordB,
            _ => Self::Marks,
        }
    }
}

/// Names something that is held back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Hold(pub(crate) u64);

#[derive(Debug)]
enum Filter {
    /// Operations of this kind at `node`.
    Io { node: usize, kind: Io },
    /// Frames of this name toward `node`, and everything behind them on their connection; on
    /// that connection only, once there is one.
    Frame { node: usize, name: &'static str, conn: Option<ConnId> },
}

#[derive(Debug)]
struct Entry {
    filter: Filter,
    /// More that matches is held, too.
    is_open: bool,
    /// How many that match go through first.
    skip: usize,
    seen: bool,
    /// Operations whose end is held.
    ends: Vec<Happening>,
}

/// What is left of a volatile cache when the power goes.
#[derive(Clone, Debug)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// All of it.
    Everything,
    /// What was written to these blocks.
    Blocks(Vec<usize>),
}

impl Keep {
    pub(crate) fn keeps(&self, block: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Blocks(blocks) => blocks.contains(&block),
        }
    }
}

/// How a request ended.
pub type Answer = Result<Option<Buf>, RequestError>;

/// The part of a script that the simulator asks and tells.
#[derive(Debug)]
pub struct Script {
    holds: BTreeMap<Hold, Entry>,
    next: u64,
    pub(crate) keep: Keep,
    /// Connections that were closed still deliver what was under way.
    pub(crate) ghosts: bool,
    /// Blocks that cannot be read, with their server.
    pub(crate) bad: Vec<(usize, usize)>,
    pub(crate) answers: BTreeMap<RequestId, Answer>,
    pub(crate) replies: BTreeMap<CommandId, Result<Done, Refusal>>,
    /// Everything noticed, with the server.
    pub(crate) notices: Vec<(usize, Notice)>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            holds: BTreeMap::new(),
            next: 0,
            keep: Keep::Nothing,
            ghosts: false,
            bad: Vec::new(),
            answers: BTreeMap::new(),
            replies: BTreeMap::new(),
            notices: Vec::new(),
        }
    }
}

impl Script {
    fn add(&mut self, filter: Filter, skip: usize) -> Hold {
        self.next += 1;
        let hold = Hold(self.next);
        let entry = Entry { filter, is_open: true, skip, seen: false, ends: Vec::new() };
        self.holds.insert(hold, entry);
        hold
    }

    pub(crate) fn hold_io(&mut self, node: usize, kind: Io, skip: usize) -> Hold {
        self.add(Filter::Io { node, kind }, skip)
    }

    pub(crate) fn hold_frame(&mut self, node: usize, name: &'static str, skip: usize) -> Hold {
        self.add(Filter::Frame { node, name, conn: None }, skip)
    }

    /// From now on only what is held already stays held.
    pub(crate) fn close(&mut self, hold: Hold) {
        if let Some(entry) = self.holds.get_mut(&hold) {
            entry.is_open = false;
        }
    }

    /// The operation goes on, unless it is held.
    pub(crate) fn pass(&mut self, at: usize, what: Io, end: Happening) -> Option<Happening> {
        let matches = |entry: &Entry| {
            entry.is_open
                && matches!(entry.filter, Filter::Io { node, kind } if node == at && kind == what)
        };
        let Some(entry) = self.holds.values_mut().find(|e| matches(e)) else { return Some(end) };
        if entry.skip > 0 {
            entry.skip -= 1;
            return Some(end);
        }
        entry.seen = true;
        entry.ends.push(end);
        None
    }

    /// Whether a frame, the next on its connection, is held.
    pub(crate) fn stops_frame(&mut self, to: usize, on: ConnId, message: &Message) -> bool {
        let matches = |entry: &Entry| match entry.filter {
            Filter::Frame { node, name, conn } => {
                node == to
                    && name == message.name()
                    && conn.map_or(entry.is_open, |conn| conn == on)
            }
            Filter::Io { .. } => false,
        };
        let Some(entry) = self.holds.values_mut().find(|e| matches(e)) else { return false };
        if entry.skip > 0 {
            entry.skip -= 1;
            return false;
        }
        entry.seen = true;
        if let Filter::Frame { conn, .. } = &mut entry.filter {
            *conn = Some(on);
        }
        true
    }

    /// Whether a read of `extent` at `node` meets a bad sector.
    pub(crate) fn is_bad(&self, node: usize, extent: Extent) -> bool {
        self.bad.iter().any(|(at, block)| *at == node && blocks(extent).contains(block))
    }

    pub(crate) fn is_holding(&self, hold: Hold) -> bool {
        self.holds.get(&hold).is_some_and(|entry| entry.seen)
    }

    /// Lets go of what is held; ends of operations are to be scheduled.
    pub(crate) fn release(&mut self, hold: Hold) -> Vec<Happening> {
        self.holds.remove(&hold).map(|entry| entry.ends).unwrap_or_default()
    }

    pub(crate) fn release_all(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.holds).into_values().flat_map(|entry| entry.ends).collect()
    }

    /// Ends of operations that are held.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Happening> {
        self.holds.values().flat_map(|entry| &entry.ends)
    }

    pub(crate) fn held_by(&self, hold: Hold) -> &[Happening] {
        self.holds.get(&hold).map_or(&[], |entry| &entry.ends)
    }

    /// What `node` had under way is gone. Says what its cache keeps.
    pub(crate) fn power_lost(&mut self, node: usize) -> Keep {
        for entry in self.holds.values_mut() {
            entry.ends.retain(|end| !is_of(end, node));
        }
        self.keep.clone()
    }

    pub(crate) fn noticed(&mut self, node: usize, notice: &Notice) {
        self.notices.push((node, notice.clone()));
    }

    pub(crate) fn answered(&mut self, id: RequestId, answer: &Answer) {
        self.answers.insert(id, answer.clone());
    }

    pub(crate) fn replied(&mut self, id: CommandId, result: Result<Done, Refusal>) {
        self.replies.insert(id, result);
    }
}

fn is_of(end: &Happening, at: usize) -> bool {
    match end {
        Happening::Data { node, .. } | Happening::Meta { node, .. } => *node == at,
        _ => false,
    }
}
