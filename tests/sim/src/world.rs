//! Two servers, their disks and the network between them, moved by one queue of events.

use crate::disk::{ClusterDisk, DataDisk, Stamp, Tearing, blocks, payload, stamps};
use crate::fate::Strike;
use crate::net::Net;
use crate::node::{AppOp, Node, SIZE};
use crate::operator::Pending;
use crate::options::Options;
use crate::oracle::Oracle;
use crate::promises::Promises;
use crate::rng::Rng;
use crate::script::hold::{Io, Script};
use mirror_core::buf::Buf;
use mirror_core::disk::layout::BITMAP;
use mirror_core::io::{
    Action, CommandId, ConnId, DataOp, Event, IoFailure, IoId, Notice, Request, RequestId,
    RequestOp,
};
use mirror_core::mirror::{AutoRecovery, Tuning};
use mirror_core::record::Record;
use mirror_core::rules::{Rule, holds};
use mirror_core::status::LinkStatus;
use mirror_core::units::{Extent, Generation, Millis, Now, Side};
use mirror_core::wire::Message;
use std::collections::BTreeMap;

/// What a bad disk answers.
const EIO: IoFailure = IoFailure::Errno(5);

/// How long the driver waits for a disk, in microseconds.
const IO_LIMIT: u64 = 3_000_000;

/// How long an operation on a disk takes while a script runs, in microseconds.
const SCRIPTED_IO: u64 = 100;

/// The settings of both agents in this run.
fn tuning(options: &Options, rng: &mut Rng) -> Tuning {
    let mut tuning = Tuning { hot_regions: 8, copy_depth: 3, ..Tuning::default() };
    tuning.fenced = rng.chance(options.fenced);
    tuning.detach = options.detach > 0 && rng.chance(options.detach);
    if rng.chance(options.reluctant) {
        let active = rng.chance(500);
        tuning.auto_recovery = if active { AutoRecovery::Active } else { AutoRecovery::Off };
    }
    tuning
}

/// An operation on a data partition under way.
#[derive(Debug)]
pub enum Landing {
    /// Stamps that land.
    Write {
        /// One per block.
        values: Vec<Stamp>,
        /// Not into the cache only.
        durable: bool,
    },
    /// A read.
    Read,
    /// A flush over this many cached writes.
    Flush(usize),
}

/// Something that will happen.
#[derive(Debug)]
pub enum Happening {
    /// An operation on the data partition ends.
    Data { node: usize, incarnation: u32, io: IoId, extent: Extent, what: Landing, ok: bool },
    /// An operation is over its time limit; its end is still to come.
    TimedOut { node: usize, incarnation: u32, io: IoId },
    /// A write to the cluster partition ends.
    Meta { node: usize, incarnation: u32, io: IoId, offset: u64, bytes: Buf, ok: bool },
    /// A write to the cluster partition is over its time limit; its end is still to come.
    MetaTimedOut { node: usize, incarnation: u32, io: IoId },
    /// A write to the data partition lands, and will once more when it ends.
    Early { node: usize, extent: Extent, values: Vec<Stamp> },
    /// Something strikes at a moment that decides.
    Strike(Strike),
    /// Frames of a connection may be due at `to`.
    Deliver { conn: ConnId, to: usize },
    /// A connection attempt ends.
    Dialled { incarnation: u32 },
    /// A connection is authenticated at `node`.
    Ready { conn: ConnId, node: usize },
    /// The end of a connection is noticed at `node`.
    Gone { conn: ConnId, node: usize },
    /// A deadline of the mirror.
    Timer { node: usize, incarnation: u32 },
    /// A command from the other server's agent, or its answer, arrives.
    AgentCommand { node: usize, incarnation: u32, command: mirror_core::command::Command },
    /// The front end hands over what an earlier agent has not answered.
    Reissue { node: usize, incarnation: u32, id: RequestId },
    /// The agent dies, its device does not.
    Orphan { node: usize, incarnation: u32 },
    /// The application, the operator and fate move.
    Step,
}

/// The bytes of a write go to the peer from another place than to the disk: they could change in
/// between.
fn sends_a_copy(actions: &[Action]) -> bool {
    let written = |sent: &Buf| {
        actions.iter().any(|action| match action {
            Action::Data { op: DataOp::Write { data, .. }, .. } => data.as_ptr() == sent.as_ptr(),
            _ => false,
        })
    };
    actions.iter().any(|action| match action {
        Action::Send { frame, .. } => match &frame.message {
            Message::Write { data, .. } => !written(data),
            _ => false,
        },
        _ => false,
    })
}

/// The whole simulation.
#[derive(Debug)]
pub struct World {
    pub(crate) rng: Rng,
    pub(crate) options: Options,
    /// Virtual time in microseconds.
    pub time: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    pub(crate) nodes: [Node; 2],
    pub(crate) net: Net,
    pub(crate) oracle: Oracle,
    pub(crate) commands: BTreeMap<CommandId, Pending>,
    pub(crate) next_id: u64,
    pub(crate) failure: Option<String>,
    /// What happened, for the report.
    pub history: Vec<String>,
    pub(crate) faults: bool,
    pub(crate) stepped: bool,
    /// For each server: the forces that are not answered yet, with the generation it had before.
    pub(crate) forcing: [Vec<(CommandId, Option<Generation>)>; 2],
    /// The agent of this server has just stopped.
    pub(crate) stopping: Option<usize>,
    /// The agent of this server dies at once, its device does not.
    pub(crate) dying: Option<usize>,
    /// The server whose hardware is bad in this run.
    pub(crate) weak: usize,
    /// An image of both partitions of that server.
    pub(crate) image: Option<(DataDisk, ClusterDisk)>,
    pub(crate) promises: Promises,
    /// Steps in place of chance, and what they wait for.
    pub(crate) script: Option<Script>,
}

impl World {
    /// Two servers that were never used, switched off.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::new(seed);
        let weak = usize::from(seed % 2 == 1);
        let tuning = tuning(&options, &mut rng);
        let mut node = |side| {
            let more = if rng.chance(options.sizes) { 4096 * rng.below(40) } else { 0 };
            let mut node = Node::new(side, SIZE + more, tuning, &mut rng);
            if rng.chance(options.blocks) {
                node.device_block = 512;
            }
            node
        };
        let nodes = [node(Side::First), node(Side::Second)];
        let bytes = rng.chance(options.bytes);
        let count = nodes.iter().map(|n| n.data.live().len()).max().unwrap_or(0);
        Self {
            rng,
            options,
            time: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            nodes,
            net: Net::new(bytes),
            oracle: Oracle::new(count),
            commands: BTreeMap::new(),
            next_id: 0,
            failure: None,
            history: Vec::new(),
            faults: true,
            stepped: false,
            forcing: [Vec::new(), Vec::new()],
            stopping: None,
            dying: None,
            weak,
            image: None,
            promises: Promises::default(),
            script: None,
        }
    }

    pub(crate) fn now(&self) -> Now {
        let wall = 1_700_000_000 + i64::try_from(self.time / 1_000_000).unwrap_or(0);
        Now { mono: Millis(self.time / 1000), wall }
    }

    /// The time by the clock of `node`.
    pub(crate) fn now_at(&self, node: usize) -> Now {
        let (now, node) = (self.now(), &self.nodes[node]);
        Now { mono: now.mono.plus(node.ahead_ms), wall: now.wall + node.wall_off }
    }

    pub(crate) fn log(&mut self, text: impl FnOnce() -> String) {
        let line = format!("{:>10.3} ms  {}", self.time as f64 / 1000.0, text());
        if self.options.verbose {
            println!("{line}");
        }
        self.history.push(line);
    }

    pub(crate) fn fail(&mut self, text: String) {
        self.log(|| format!("FAILED: {text}"));
        self.failure.get_or_insert(text);
    }

    pub(crate) fn schedule(&mut self, after_us: u64, what: Happening) {
        self.sequence += 1;
        self.queue.insert((self.time + after_us, self.sequence), what);
    }

    /// Runs until `until` (microseconds), a failure, or `stop` says so.
    pub fn run_until(&mut self, until: u64, mut stop: impl FnMut(&mut Self) -> bool) -> bool {
        while self.failure.is_none() {
            let Some((&(at, n), _)) = self.queue.first_key_value() else { return false };
            if at > until {
                self.time = until;
                return false;
            }
            let Some(happening) = self.queue.remove(&(at, n)) else { return false };
            self.time = at;
            self.happen(happening);
            if self.script.is_some() {
                self.check_invariants();
            }
            if stop(self) {
                return true;
            }
        }
        false
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Data { node, incarnation, io, extent, what, ok } => {
                let result = if ok {
                    Ok(self.land(node, extent, &what))
                } else {
                    // An error that a dead process does not hear is not the mirror's to remember: the
                    // kernel tells it to the next one that opens the disk.
                    let heard = self.nodes[node].incarnation == incarnation;
                    if heard || !matches!(what, Landing::Flush(_)) {
                        self.land_badly(node, extent, what);
                    }
                    Err(EIO)
                };
                self.nodes[node].landing -= 1;
                self.tell(node, incarnation, Event::DataDone { io, result });
            }
            Happening::TimedOut { node, incarnation, io } => {
                let result = Err(IoFailure::TimedOut);
                self.tell(node, incarnation, Event::DataDone { io, result });
            }
            Happening::Meta { node, incarnation, io, offset, bytes, ok } => {
                if ok {
                    self.nodes[node].cluster.write(offset, &bytes);
                } else {
                    self.nodes[node].cluster.tear(offset, &bytes, &mut self.rng);
                }
                self.nodes[node].landing -= 1;
                if self.nodes[node].incarnation != incarnation {
                    self.take_up_interrupted_force(node);
                }
                let result = if ok { Ok(()) } else { Err(EIO) };
                self.tell(node, incarnation, Event::MetaDone { io, result });
            }
            Happening::MetaTimedOut { node, incarnation, io } => {
                let result = Err(IoFailure::TimedOut);
                self.tell(node, incarnation, Event::MetaDone { io, result });
            }
            Happening::Early { node, extent, values } => {
                self.nodes[node].data.write(extent, values.into_iter());
            }
            Happening::Strike(strike) => self.strike(strike),
            Happening::Deliver { conn, to } => self.deliver(conn, to),
            Happening::Dialled { incarnation } => self.dialled(incarnation),
            Happening::Ready { conn, node } => self.conn_ready(conn, node),
            Happening::Gone { conn, node } => self.conn_gone(conn, node),
            Happening::Timer { node, incarnation } => {
                self.nodes[node].timer = u64::MAX;
                self.tell(node, incarnation, Event::Timer);
            }
            Happening::AgentCommand { node, incarnation, command } => {
                if self.nodes[node].incarnation == incarnation {
                    self.command(node, command, Pending::Agent);
                }
            }
            Happening::Reissue { node, incarnation, id } => self.reissue(node, incarnation, id),
            Happening::Orphan { node, incarnation } => {
                if self.nodes[node].incarnation == incarnation {
                    self.orphan(node);
                }
            }
            Happening::Step => {
                self.stepped = true;
                self.step();
                self.check_invariants();
            }
        }
    }

    fn land(&mut self, node: usize, extent: Extent, what: &Landing) -> Option<Buf> {
        if let (Some(block), Landing::Write { values, .. }) = (self.options.watch, what) {
            if let Some(n) = blocks(extent).position(|b| b == block) {
                let stamp = values[n];
                self.log(|| format!("server{}: block {block} becomes {stamp}", node + 1));
            }
        }
        let disk = &mut self.nodes[node].data;
        match what {
            Landing::Write { values, durable: true } => {
                disk.write_durably(extent, values.iter().copied());
                None
            }
            Landing::Write { values, durable: false } => {
                disk.write(extent, values.iter().copied());
                None
            }
            Landing::Read => Some(disk.read(extent)),
            Landing::Flush(landed) => {
                disk.flush(*landed);
                None
            }
        }
    }

    /// A failed operation: any part of a write may be there, and a flush gives up what it covers.
    fn land_badly(&mut self, node: usize, extent: Extent, what: Landing) {
        match what {
            Landing::Write { values, .. } => self.land_part(node, extent, values),
            Landing::Flush(landed) => self.nodes[node].data.fail_flush(landed, &mut self.rng),
            Landing::Read => {}
        }
    }

    fn land_part(&mut self, node: usize, extent: Extent, values: Vec<Stamp>) {
        let landed = values.len().min(usize::try_from(self.rng.below(5)).unwrap_or(0));
        let start = Extent::new(extent.offset, landed as u64 * 4096);
        let tearing = &mut Tearing { rate: self.options.torn, torn: &mut self.oracle.torn };
        let (disk, rng) = (&mut self.nodes[node].data, &mut self.rng);
        let old = disk.live()[blocks(start)].to_vec();
        let left = old.into_iter().zip(values).map(|(old, new)| tearing.left(old, new, rng));
        let left: Vec<Stamp> = left.collect();
        disk.write(start, left.into_iter());
    }

    /// Hands an event to the process it is for, if that still runs, and does what it wants.
    pub(crate) fn tell(&mut self, node: usize, incarnation: u32, event: Event) {
        let now = self.now_at(node);
        if self.nodes[node].incarnation != incarnation {
            return;
        }
        let Some(mirror) = &mut self.nodes[node].mirror else { return };
        let mut actions = Vec::new();
        mirror.handle(now, event, &mut actions);
        if sends_a_copy(&actions) && !self.has_failed(node) {
            self.fail(format!("server{} sends other bytes than it writes", node + 1));
            return;
        }
        let Some(mirror) = &self.nodes[node].mirror else { return };
        let deadline = mirror.deadline();
        for action in actions {
            self.act(node, action);
            if let Some(node) = self.dying.take() {
                self.stopping = None;
                self.orphan(node);
                return;
            }
        }
        if self.nodes[node].device && !self.nodes[node].is_active() {
            self.abandon(node);
        }
        if let Some(node) = self.stopping.take() {
            self.stopped(node);
            return;
        }
        if let Some(deadline) = deadline {
            let deadline = deadline.0.saturating_sub(self.nodes[node].ahead_ms);
            let at = (deadline * 1000).max(self.time + 1000);
            if at < self.nodes[node].timer {
                self.nodes[node].timer = at;
                self.schedule(at - self.time, Happening::Timer { node, incarnation });
            }
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        let incarnation = self.nodes[node].incarnation;
        match action {
            Action::Data { io, op, extent } => self.submit(node, io, op, extent),
            Action::Meta { io, offset, bytes } => {
                self.nodes[node].landing += 1;
                let mut after = 30 + self.rng.below(200) + self.slowness();
                if self.goes_bad(node, self.options.meta_hang) {
                    self.schedule(IO_LIMIT, Happening::MetaTimedOut { node, incarnation, io });
                    after += IO_LIMIT + self.rng.below(4_000_000);
                }
                let ok = !self.goes_bad(node, self.options.meta_error);
                if offset < BITMAP {
                    self.moment();
                }
                let kind = Io::of_meta(offset);
                let meta = Happening::Meta { node, incarnation, io, offset, bytes, ok };
                self.begin_io(node, kind, after, meta);
            }
            Action::Complete { .. } if self.dies_before_answer(node) => {}
            Action::Complete { id, result } => self.completed(node, id, result),
            Action::Send { conn, frame } => self.send(conn, node, frame),
            Action::Close { conn, why } => {
                self.log(|| format!("server{}: closes connection {}: {why}", node + 1, conn.0));
                self.close(conn, node);
            }
            Action::Dial => {
                let after = 200 + self.rng.below(2000);
                self.schedule(after, Happening::Dialled { incarnation });
            }
            Action::Reply { id, result } => self.replied(node, id, result),
            Action::FailDevice => self.log(|| format!("server{}: device fails", node + 1)),
            Action::Grow { size } => {
                self.log(|| format!("server{}: the device has {size} bytes", node + 1));
                self.nodes[node].device_size = size;
            }
            Action::TellPeerBehind { session } => self.tell_behind(node, session),
            Action::Notice(notice) => self.noticed(node, &notice),
        }
    }

    fn submit(&mut self, node: usize, io: IoId, op: DataOp, extent: Extent) {
        let incarnation = self.nodes[node].incarnation;
        let kind = Io::of_data(&op, extent);
        let (what, base) = match op {
            DataOp::Read => (Landing::Read, 40),
            DataOp::Write { data, durable } => {
                (Landing::Write { values: stamps(&data).collect(), durable }, 40)
            }
            // A disk that reads back the old bytes after a discard, if nobody sees to it.
            DataOp::Zero { unmap: true, .. } if node == 1 && !holds(Rule::DiscardZeroes) => {
                (Landing::Write { values: Vec::new(), durable: false }, 40)
            }
            DataOp::Zero { durable, .. } => {
                (Landing::Write { values: blocks(extent).map(|_| 0).collect(), durable }, 40)
            }
            DataOp::Flush => (Landing::Flush(self.nodes[node].data.landed()), 100),
        };
        let slow = if self.rng.chance(20) { 5000 } else { 150 };
        let mut after = base + self.rng.below(slow) + self.slowness();
        if self.goes_bad(node, self.options.hang) {
            self.schedule(IO_LIMIT, Happening::TimedOut { node, incarnation, io });
            after += IO_LIMIT + self.rng.below(4_000_000);
        }
        let is_read = matches!(what, Landing::Read);
        let bad = self.script.as_ref().is_some_and(|script| script.is_bad(node, extent));
        let ok = !self.goes_bad(node, self.options.data_error)
            && !(is_read && (bad || self.goes_bad(node, self.options.read_error)));
        self.land_early(node, extent, &what, after);
        self.nodes[node].landing += 1;
        let data = Happening::Data { node, incarnation, io, extent, what, ok };
        self.begin_io(node, kind, after, data);
    }

    /// An operation is under way, if no script holds it.
    fn begin_io(&mut self, node: usize, kind: Io, after: u64, end: Happening) {
        match &mut self.script {
            None => self.schedule(after, end),
            Some(script) => {
                if let Some(end) = script.pass(node, kind, end) {
                    self.schedule(SCRIPTED_IO, end);
                }
            }
        }
    }

    /// Something below repeats a write: it is there early, and lands again when it ends.
    fn land_early(&mut self, node: usize, extent: Extent, what: &Landing, end: u64) {
        if let Landing::Write { values, .. } = what {
            if self.rng.chance(self.options.twice) {
                let values = values.clone();
                let after = self.rng.below(end);
                self.schedule(after, Happening::Early { node, extent, values });
            }
        }
    }

    /// Per block, what the disk of `node` may hold once everything under way there has ended.
    pub(crate) fn possible_content(&self, node: usize) -> Vec<Vec<Stamp>> {
        let mut all = self.nodes[node].data.possible();
        let held = self.script.iter().flat_map(Script::held);
        for happening in self.queue.values().chain(held) {
            if let Happening::Data {
                node: n, extent, what: Landing::Write { values, .. }, ..
            } = happening
            {
                let blocks = blocks(*extent).zip(values).filter(|_| *n == node);
                blocks.for_each(|(block, stamp)| all[block].push(*stamp));
            }
        }
        for (extent, values) in self.net.writes_toward(node) {
            blocks(extent).zip(values).for_each(|(block, stamp)| all[block].push(stamp));
        }
        // What lies behind the end of the mirror is nobody's.
        let size = self.nodes[node].durable_record().ok().flatten().map_or(0, |r| r.size);
        all.truncate(usize::try_from(size / 4096).unwrap_or(0));
        all
    }

    fn slowness(&mut self) -> u64 {
        if self.rng.chance(self.options.slow) { self.rng.below(1_000_000) } else { 0 }
    }

    /// Whether bad hardware strikes, at a rate in 100 000.
    fn goes_bad(&mut self, node: usize, rate: u64) -> bool {
        rate > 0 && self.faults && node == self.weak && self.rng.below(100_000) < rate
    }

    /// The power of `node` goes: of what was under way any part may have landed.
    pub(crate) fn lose_power(&mut self, node: usize) {
        let of_node = |h: &Happening| match h {
            Happening::Data { node: n, .. }
            | Happening::Meta { node: n, .. }
            | Happening::Early { node: n, .. }
            | Happening::MetaTimedOut { node: n, .. }
            | Happening::TimedOut { node: n, .. } => *n == node,
            _ => false,
        };
        let keys: Vec<(u64, u64)> =
            self.queue.iter().filter(|(_, h)| of_node(h)).map(|(k, _)| *k).collect();
        let scripted = self.script.is_some();
        for key in keys {
            match self.queue.remove(&key) {
                // A script lands what is to be there.
                Some(_) if scripted => {}
                Some(Happening::Data { extent, what: Landing::Write { values, .. }, .. }) => {
                    self.land_part(node, extent, values);
                }
                Some(Happening::Meta { offset, bytes, .. }) => {
                    self.nodes[node].cluster.tear(offset, &bytes, &mut self.rng);
                }
                _ => {}
            }
        }
        self.nodes[node].landing = 0;
        let script = self.script.as_mut().map(|script| script.power_lost(node));
        let tearing = &mut Tearing { rate: self.options.torn, torn: &mut self.oracle.torn };
        match script {
            Some(keep) => self.nodes[node].data.lose_power_but(|block| keep.keeps(block)),
            None => self.nodes[node].data.lose_power(tearing, &mut self.rng),
        }
        self.nodes[node].reboot(&mut self.rng);
    }

    fn noticed(&mut self, node: usize, notice: &Notice) {
        self.log(|| format!("server{}: {notice:?}", node + 1));
        self.promise_at(node, notice);
        if let Some(script) = &mut self.script {
            script.noticed(node, notice);
        }
        if matches!(notice, Notice::SessionOpened { .. } | Notice::Broke) {
            self.nodes[node].resumed = false;
        }
        match notice {
            Notice::SessionOpened { .. } if self.oracle.lone == [true, true] => {
                self.fail("two sides that both wrote alone opened a session".to_owned());
            }
            Notice::DiskError { what, .. } if *what != "read" => self.oracle.disk_failed(node),
            // Without power loss a cache is as good as the disk, and nothing is excused.
            Notice::Parked { verdict } => {
                self.parked_in_sync(verdict);
                self.check_parked(node);
            }
            Notice::Broke if self.options.power > 0 => self.oracle.went_alone(node),
            Notice::SessionOpened { verdict } => {
                self.nodes[node].restored = false;
                self.adopted_unheard(verdict);
                // Both sides are drained, and the dialler is not in the session yet.
                let dialler = self.nodes[0].durable_record().ok().flatten();
                let session = |r: &Record| (r.session, r.generation);
                let mine = self.nodes[1].durable_record().ok().flatten();
                // If the dialler is not in this session, or has gone on since, its frame has
                // outlived its side of the connection.
                let lives = dialler.as_ref().map(session) == mine.as_ref().map(session);
                if *verdict == "in-sync" && node == 1 && lives {
                    if self.differing_block().is_some() {
                        self.fail("in sync, they said, and the disks differ".to_owned());
                    }
                    self.oracle.lone = [false; 2];
                    self.oracle.parted = [false; 2];
                }
                self.oracle.overruled = [false; 2];
                self.oracle.alone = [false; 2];
                self.oracle.outlawed = [false; 2];
            }
            Notice::RecoveryFinished { .. } => {
                self.oracle.lone = [false; 2];
                self.oracle.parted = [false; 2];
            }
            Notice::Protocol(what) => self.fail(format!("protocol error: {what}")),
            _ => {}
        }
    }

    // The application.

    /// Keeps the application on an active side busy.
    pub(crate) fn application(&mut self) {
        for node in 0..2 {
            let room = 6_usize.saturating_sub(self.nodes[node].requests.len());
            if !self.nodes[node].is_active() {
                continue;
            }
            for _ in 0..self.rng.below(room as u64 + 1) {
                self.issue(node);
            }
        }
    }

    fn random_extent(&mut self, node: usize) -> Extent {
        let count = self.nodes[node].device_size / 4096;
        let first = if self.rng.chance(500) { self.rng.below(20) } else { self.rng.below(count) };
        let len = 1 + self.rng.below(4).min(count - first - 1);
        Extent::new(first * 4096, len * 4096)
    }

    fn issue(&mut self, node: usize) {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let extent = self.random_extent(node);
        let kind = self.rng.below(10);
        let fua = kind == 9;
        let (op, waits, extent) = match kind {
            0 => {
                let detached = self.is_detached(node);
                let covered = self.oracle.acked_now(node, detached);
                (RequestOp::Flush, AppOp::Flush(covered), Extent::default())
            }
            1..=3 => {
                let went_on = self.oracle.lone[1 - node] || self.oracle.parted[1 - node];
                // Without a disk of its own it reads what the other has.
                let went_on = went_on && !self.is_detached(node);
                let judged = !went_on && !self.oracle.overruled[node];
                let began = self.oracle.read_begins();
                (RequestOp::Read, AppOp::Read(extent, began, judged), extent)
            }
            4 if self.rng.chance(300) => {
                let stamp = self.oracle.begin(node, blocks(extent), true);
                (RequestOp::Zero { unmap: false }, AppOp::Write(stamp, fua), extent)
            }
            _ => {
                let stamp = self.oracle.begin(node, blocks(extent), false);
                (RequestOp::Write(payload(extent, stamp)), AppOp::Write(stamp, fua), extent)
            }
        };
        self.request(node, waits, Request { id, op, extent, fua });
    }

    pub(crate) fn request(&mut self, node: usize, waits: AppOp, request: Request) {
        self.nodes[node].requests.insert(request.id, waits);
        let incarnation = self.nodes[node].incarnation;
        self.nodes[node].orders.insert(request.id, (request.clone(), incarnation));
        self.tell(node, incarnation, Event::Request(request));
    }

    fn completed(
        &mut self,
        node: usize,
        id: RequestId,
        result: Result<Option<Buf>, mirror_core::io::RequestError>,
    ) {
        let Some(op) = self.nodes[node].requests.remove(&id) else {
            self.fail(format!("server{}: request {} answered twice", node + 1, id.0));
            return;
        };
        if let Some(script) = &mut self.script {
            script.answered(id, &result);
        }
        self.nodes[node].orders.remove(&id);
        // A device that outlived its agent may show what a peer that took over has replaced.
        let outrun = self.nodes[node].device && self.oracle.lone[1 - node];
        let judged = !self.oracle.overruled[node] && !outrun;
        match (op, result) {
            (AppOp::Write(stamp, durable), Ok(_)) => {
                if self.options.watch.is_some() {
                    self.log(|| format!("server{}: write {stamp} is acknowledged", node + 1));
                }
                self.write_acked(stamp);
                if durable {
                    self.oracle.flushed(&[stamp]);
                }
            }
            (AppOp::Write(stamp, _), Err(_)) => self.oracle.failed(stamp),
            (AppOp::Flush(covered), Ok(_)) => self.oracle.flushed(&covered),
            (AppOp::Read(extent, began, true), Ok(Some(data))) if judged => {
                for (block, stamp) in blocks(extent).zip(stamps(&data)) {
                    if let Err(text) = self.oracle.check(block, stamp, began) {
                        self.fail(format!("a read on server{}: {text}", node + 1));
                    }
                }
                self.read_shows(node, extent, &data, began);
            }
            _ => {}
        }
    }

    fn write_acked(&mut self, stamp: Stamp) {
        // A half-copied side is no redundancy: it cannot be used without the other. Nor is one whose
        // agent is gone by now, or that knows itself to be behind, once caches can be lost.
        let loses = self.options.power > 0;
        let now = self.now();
        let half = |node: &Node| match &node.mirror {
            Some(mirror) => {
                let record = mirror.record();
                // It may have adopted what was copied, and not recorded it yet.
                let copied = mirror.status(now).recovery.is_some() && node.is_half_copied();
                record.inconsistent.is_some() || copied || (loses && record.behind)
            }
            None => loses,
        };
        let has = |node: &Node| self.oracle.is_on(stamp, node.data.live());
        let on = [has(&self.nodes[0]), has(&self.nodes[1])];
        let mut holders = [on[0] && !half(&self.nodes[0]), on[1] && !half(&self.nodes[1])];
        let writer = self.oracle.node_of(stamp);
        let with_peer = |node: &Node| {
            node.mirror.as_ref().is_some_and(|m| m.status(now).link == LinkStatus::Session)
        };
        // An ack can outlive the process that sent it.
        holders[1 - writer] &= !loses || self.nodes.iter().all(with_peer);
        let detached = self.is_detached(writer);
        self.oracle.acked(stamp, holders, on == [true, true] || detached);
        // What the peer's disk alone has, that side has alone.
        self.oracle.lone[1 - writer] |= detached && !self.oracle.outlawed[writer];
        self.check_fenced(writer, on[1 - writer]);
    }
}
