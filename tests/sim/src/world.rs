//! Two servers, their disks and the network between them, moved by one queue of events.

use crate::disk::{ClusterDisk, DataDisk, Stamp};
use crate::fate::Strike;
use crate::landing::{EIO, IO_LIMIT, Landing};
use crate::net::Net;
use crate::node::{Node, SIZE};
use crate::operator::Pending;
use crate::options::Options;
use crate::oracle::Oracle;
use crate::promises::Promises;
use crate::rng::Rng;
use crate::script::hold::{Io, Script};
use mirror_core::buf::Buf;
use mirror_core::disk::layout::BITMAP;
use mirror_core::io::{Action, CommandId, ConnId, DataOp, Event, IoFailure, IoId, RequestId};
use mirror_core::mirror::{AutoRecovery, Tuning};
use mirror_core::units::{Extent, Generation, Millis, Now, Side};
use mirror_core::wire::Message;
use std::collections::BTreeMap;

/// The settings of both agents in this run.
fn tuning(options: &Options, rng: &mut Rng) -> Tuning {
    let mut tuning =
        Tuning { hot_regions: 8, copy_depth: 3, ahead_regions: 1, ..Tuning::default() };
    tuning.fenced = rng.chance(options.fenced);
    tuning.detach = options.detach > 0 && rng.chance(options.detach);
    if rng.chance(options.reluctant) {
        let active = rng.chance(500);
        tuning.auto_recovery = if active { AutoRecovery::Active } else { AutoRecovery::Off };
    }
    // Few: marks that no write needs hide the lack of those that one does.
    if rng.chance(options.ahead) {
        tuning.ahead_regions = 3;
    }
    tuning
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

/// A force that was ordered, with the generation that its server had before, and what was on its disk
/// then.
pub type Ordered = (CommandId, Option<Generation>, Vec<Stamp>);

/// The whole simulation.
#[derive(Debug)]
pub struct World {
    pub(crate) rng: Rng,
    pub(crate) options: Options,
    /// Virtual time in microseconds.
    pub time: u64,
    pub(crate) queue: BTreeMap<(u64, u64), Happening>,
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
    /// For each server: the forces that are not answered yet.
    pub(crate) forcing: [Vec<Ordered>; 2],
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
                if offset < BITMAP {
                    self.judge_behind(node);
                }
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

    /// Its record may have changed: whether it knows itself to be behind is what an agent that starts
    /// now would find.
    pub(crate) fn judge_behind(&mut self, node: usize) {
        let record = self.nodes[node].durable_record().ok().flatten();
        // Without power loss a cache is as good as the disk, and nothing is excused.
        let behind = record.is_some_and(|r| r.behind) && self.options.power > 0;
        self.oracle.is_behind(node, behind, self.nodes[node].data.live());
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
}
