//! The network: ordered connections that stall while it is cut, and break. In some runs they carry
//! the real bytes (`wires`), else the frames as they are. The agents have a network of their own.

use crate::disk::{Stamp, blocks, stamps};
use crate::script::hold::Script;
use crate::wires::Wires;
use crate::world::{Happening, World};
use mirror_core::io::{ConnId, Event};
use mirror_core::units::{Extent, Side};
use mirror_core::wire::{Frame, Message, PeerHello};
use std::collections::{BTreeMap, VecDeque};

/// How long a frame travels while a script runs, in microseconds.
const SCRIPTED_DELAY: u64 = 50;

#[derive(Debug)]
struct Conn {
    incarnation: [u32; 2],
    open: [bool; 2],
    /// The handshake is over at this end.
    ready: [bool; 2],
    /// It was closed here, and what is under way arrives all the same.
    ghost: [bool; 2],
    /// It was reset; the ends will notice.
    reset: bool,
    /// Frames on their way to each side, with the time they are due.
    toward: [VecDeque<Sent>; 2],
    last_due: [u64; 2],
    /// The codecs at both ends, in a run with bytes.
    wires: Option<Wires>,
}

/// A frame on its way.
#[derive(Debug)]
struct Sent {
    due: u64,
    frame: Frame,
    bytes: Option<Vec<u8>>,
}

/// Every connection there was.
#[derive(Debug, Default)]
pub struct Net {
    /// Nothing reaches this server.
    pub cut: [bool; 2],
    /// The agents do not reach each other.
    pub agents_cut: bool,
    /// The connections of this run carry bytes.
    pub bytes: bool,
    conns: BTreeMap<ConnId, Conn>,
    next: u64,
}

impl Net {
    /// No connection yet; with `bytes` they will carry bytes.
    pub fn new(bytes: bool) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Some of it does not work.
    pub fn is_cut(&self) -> bool {
        self.agents_cut || self.cut != [false; 2]
    }

    /// Writes on their way to `node`.
    pub(crate) fn writes_toward(&self, node: usize) -> Vec<(Extent, Vec<Stamp>)> {
        let frames = self.conns.values().flat_map(|conn| &conn.toward[node]);
        frames
            .filter_map(|sent| match &sent.frame.message {
                Message::Write { extent, data, .. } | Message::Copy { extent, data, .. } => {
                    Some((*extent, stamps(data).collect()))
                }
                Message::Zero { extent, .. } => Some((*extent, vec![0; blocks(*extent).len()])),
                _ => None,
            })
            .collect()
    }
}

impl World {
    pub(crate) fn dialled(&mut self, incarnation: u32) {
        let up = self.net.cut == [false; 2] && self.nodes[1].mirror.is_some();
        if self.nodes[0].incarnation != incarnation {
            return;
        }
        if !up {
            self.tell(0, incarnation, Event::DialFailed);
            return;
        }
        self.connect();
    }

    /// A connection comes up between the two agents that run now.
    pub(crate) fn connect(&mut self) {
        self.net.next += 1;
        let conn = ConnId(self.net.next);
        let incarnation = [self.nodes[0].incarnation, self.nodes[1].incarnation];
        let wires = self.net.bytes.then(|| Wires::between(&mut self.rng));
        let fresh = Conn {
            wires,
            incarnation,
            open: [true; 2],
            ready: [false; 2],
            ghost: [false; 2],
            reset: false,
            toward: [VecDeque::new(), VecDeque::new()],
            last_due: [self.time; 2],
        };
        self.net.conns.insert(conn, fresh);
        for node in 0..2 {
            let after = 1 + self.rng.below(300);
            self.schedule(after, Happening::Ready { conn, node });
        }
    }

    pub(crate) fn conn_ready(&mut self, conn: ConnId, node: usize) {
        let Some(entry) = self.net.conns.get_mut(&conn) else { return };
        let incarnation = entry.incarnation[node];
        if !entry.open[node] {
            return;
        }
        entry.ready[node] = true;
        let side = if node == 0 { Side::Second } else { Side::First };
        let hello = PeerHello { side, version: 1 };
        self.measure(node);
        self.tell(node, incarnation, Event::PeerReady { conn, dialled: node == 0, hello });
        self.schedule(1, Happening::Deliver { conn, to: node });
    }

    pub(crate) fn send(&mut self, conn: ConnId, from: usize, frame: Frame) {
        let slow = if self.rng.chance(30) { 20_000 } else { 120 };
        let random = 20 + self.rng.below(slow);
        let delay = if self.script.is_some() { SCRIPTED_DELAY } else { random };
        let (time, to) = (self.time, 1 - from);
        let Some(entry) = self.net.conns.get_mut(&conn) else { return };
        if !entry.open[from] || entry.reset {
            return;
        }
        let due = (time + delay).max(entry.last_due[to] + 1);
        entry.last_due[to] = due;
        let decides = decides(&frame.message);
        let mut bytes = entry.wires.as_mut().map(|w| w.encode(from, &frame));
        if let Some(bytes) = &mut bytes {
            self.flip(bytes);
        }
        if let Some(entry) = self.net.conns.get_mut(&conn) {
            entry.toward[to].push_back(Sent { due, frame, bytes });
        }
        self.schedule(due - time, Happening::Deliver { conn, to });
        if decides {
            self.moment();
        }
    }

    /// Bits may be flipped on the way.
    fn flip(&mut self, bytes: &mut [u8]) {
        if self.faults && self.rng.below(100_000) < self.options.flip {
            let at = usize::try_from(self.rng.below(bytes.len() as u64)).unwrap_or(0);
            bytes[at] ^= 1 << self.rng.below(8);
            self.log(|| format!("a bit is flipped in byte {at} of a frame"));
        }
    }

    /// Delivers what is due. Frames wait for the handshake to be over at their end.
    pub(crate) fn deliver(&mut self, conn: ConnId, to: usize) {
        while !self.net.cut[to] {
            let time = self.time;
            let Some(entry) = self.net.conns.get_mut(&conn) else { return };
            let incarnation = entry.incarnation[to];
            let ends = (entry.open[to] || entry.ghost[to]) && entry.ready[to];
            if !ends || entry.toward[to].front().is_none_or(|sent| sent.due > time) {
                return;
            }
            let front = entry.toward[to].front().map(|sent| &sent.frame.message);
            let stops = |script: &mut Script| {
                front.is_some_and(|message| script.stops_frame(to, conn, message))
            };
            if self.script.as_mut().is_some_and(stops) {
                return;
            }
            let Some(sent) = entry.toward[to].pop_front() else { return };
            let Some(bytes) = sent.bytes else {
                self.tell(to, incarnation, Event::Frame { conn, frame: sent.frame });
                continue;
            };
            let Some(wires) = &mut entry.wires else { return };
            match wires.feed(to, &bytes) {
                Ok(frames) => {
                    for frame in frames {
                        let same = frame == sent.frame;
                        self.tell(to, incarnation, Event::Frame { conn, frame });
                        if !same {
                            self.fail("a frame came out of the codec that nobody sent".to_owned());
                        }
                    }
                }
                Err(why) => self.garbled(conn, to, &why),
            }
        }
    }

    /// The codec at this end refused what came: the driver ends the connection.
    fn garbled(&mut self, conn: ConnId, to: usize, why: &str) {
        self.log(|| format!("server{}: connection {}: {why}", to + 1, conn.0));
        let Some(entry) = self.net.conns.get(&conn) else { return };
        let incarnation = entry.incarnation[to];
        self.close(conn, to);
        self.tell(to, incarnation, Event::PeerGone { conn });
    }

    /// One end closes; the other learns of it after what was sent before, if the network is up.
    pub(crate) fn close(&mut self, conn: ConnId, by: usize) {
        let (time, other) = (self.time, 1 - by);
        let lossy = self.rng.chance(300) && self.script.is_none();
        let ghosts = match &self.script {
            Some(script) => script.ghosts,
            None => self.rng.chance(self.options.ghosts),
        };
        let Some(entry) = self.net.conns.get_mut(&conn) else { return };
        if !std::mem::replace(&mut entry.open[by], false) {
            return;
        }
        if !ghosts {
            entry.toward[by].clear();
        }
        entry.ghost[by] = ghosts;
        if lossy {
            entry.toward[other].clear();
        }
        let due = entry.last_due[other].max(time) + 2;
        self.schedule(due - time, Happening::Gone { conn, node: other });
    }

    pub(crate) fn conn_gone(&mut self, conn: ConnId, node: usize) {
        let cut = self.net.cut;
        let Some(entry) = self.net.conns.get_mut(&conn) else { return };
        if cut[node] || !entry.open[node] {
            return;
        }
        entry.open[node] = false;
        let (incarnation, ready) = (entry.incarnation[node], entry.ready[node]);
        if ready {
            self.tell(node, incarnation, Event::PeerGone { conn });
        } else if node == 0 {
            // It ended before the handshake was over: the attempt to dial has failed.
            self.tell(node, incarnation, Event::DialFailed);
        }
    }

    /// Both ends lose every connection, each at its own time, with what was under way. Of the first
    /// frame that does not arrive any part does. Where it stays half open, one end notices nothing.
    pub(crate) fn reset_connections(&mut self) {
        let open: Vec<ConnId> = self.open_conns();
        for conn in open {
            let deaf = if self.rng.chance(self.options.half_open) { self.rng.below(2) } else { 2 };
            for node in (0..2).filter(|n| *n as u64 != deaf) {
                let after = 1 + self.rng.below(3000);
                self.schedule(after, Happening::Gone { conn, node });
            }
            let (keep, cut) = (self.rng.below(3), self.rng.next());
            if let Some(entry) = self.net.conns.get_mut(&conn) {
                entry.reset = true;
                for queue in &mut entry.toward {
                    let keep = usize::try_from(keep).unwrap_or(0);
                    let partly = entry.wires.is_some() && keep < queue.len();
                    queue.truncate(keep + usize::from(partly));
                    if let Some(bytes) = queue.get_mut(keep).and_then(|s| s.bytes.as_mut()) {
                        let cut = usize::try_from(cut % (bytes.len() as u64).max(1)).unwrap_or(0);
                        bytes.truncate(cut);
                    }
                }
            }
        }
    }

    /// Every connection ends at both sides now, with what is under way.
    pub(crate) fn end_connections(&mut self) {
        for conn in self.open_conns() {
            if let Some(entry) = self.net.conns.get_mut(&conn) {
                entry.reset = true;
                entry.toward.iter_mut().for_each(VecDeque::clear);
            }
            for node in 0..2 {
                self.schedule(1, Happening::Gone { conn, node });
            }
        }
    }

    /// Connections end at `node` now; the other end does not know yet, and what is under way to
    /// it still arrives.
    pub(crate) fn end_connections_at(&mut self, node: usize) {
        for conn in self.open_conns() {
            self.schedule(1, Happening::Gone { conn, node });
        }
    }

    /// What has stopped at a held frame goes on.
    pub(crate) fn deliver_all(&mut self) {
        let conns: Vec<ConnId> = self.net.conns.keys().copied().collect();
        for conn in conns {
            (0..2).for_each(|to| self.schedule(1, Happening::Deliver { conn, to }));
        }
    }

    fn open_conns(&self) -> Vec<ConnId> {
        let conns = self.net.conns.iter();
        conns.filter(|(_, c)| c.open != [false; 2]).map(|(id, _)| *id).collect()
    }

    /// The process on `node` is gone: the kernel ends its connections.
    pub(crate) fn drop_connections_of(&mut self, node: usize, silently: bool) {
        for conn in self.open_conns() {
            if silently {
                if let Some(entry) = self.net.conns.get_mut(&conn) {
                    entry.open[node] = false;
                }
            } else {
                self.close(conn, node);
            }
        }
    }

    /// The network works again: what stalled goes on, and ends that were missed are noticed.
    pub(crate) fn heal(&mut self) {
        self.net.cut = [false; 2];
        self.net.agents_cut = false;
        for conn in self.open_conns() {
            for node in 0..2 {
                self.schedule(1, Happening::Deliver { conn, to: node });
                let half_open = self
                    .net
                    .conns
                    .get(&conn)
                    .is_some_and(|c| c.open[node] && (c.reset || !c.open[1 - node]));
                if half_open {
                    let after = 100 + self.rng.below(1000);
                    self.schedule(after, Happening::Gone { conn, node });
                }
            }
        }
    }
}

/// A message with which something is decided, as opposed to data and signs of life.
const fn decides(message: &Message) -> bool {
    !matches!(
        message,
        Message::Write { .. }
            | Message::Zero { .. }
            | Message::Copy { .. }
            | Message::Flush { .. }
            | Message::Read { .. }
            | Message::ReadReply { .. }
            | Message::Ack { .. }
            | Message::Settled
            | Message::Marks { .. }
            | Message::Beat(_)
    )
}
