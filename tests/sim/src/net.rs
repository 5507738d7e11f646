//! The network: ordered connections that stall while it is cut, and break.

use crate::disk::{Stamp, blocks, stamps};
use crate::script::hold::Script;
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
    toward: [VecDeque<(u64, Frame)>; 2],
    last_due: [u64; 2],
}

/// Every connection there was.
#[derive(Debug, Default)]
pub struct Net {
    /// Nothing passes.
    pub cut: bool,
    conns: BTreeMap<ConnId, Conn>,
    next: u64,
}

impl Net {
    /// Writes on their way to `node`.
    pub(crate) fn writes_toward(&self, node: usize) -> Vec<(Extent, Vec<Stamp>)> {
        let frames = self.conns.values().flat_map(|conn| &conn.toward[node]);
        frames
            .filter_map(|(_, frame)| match &frame.message {
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
        let up = !self.net.cut && self.nodes[1].mirror.is_some();
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
        let fresh = Conn {
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
        entry.toward[to].push_back((due, frame));
        self.schedule(due - time, Happening::Deliver { conn, to });
    }

    /// Delivers what is due. Frames wait for the handshake to be over at their end.
    pub(crate) fn deliver(&mut self, conn: ConnId, to: usize) {
        while !self.net.cut {
            let time = self.time;
            let Some(entry) = self.net.conns.get_mut(&conn) else { return };
            let incarnation = entry.incarnation[to];
            let ends = (entry.open[to] || entry.ghost[to]) && entry.ready[to];
            if !ends || entry.toward[to].front().is_none_or(|(due, _)| *due > time) {
                return;
            }
            let front = entry.toward[to].front().map(|(_, frame)| &frame.message);
            let stops = |script: &mut Script| {
                front.is_some_and(|message| script.stops_frame(to, conn, message))
            };
            if self.script.as_mut().is_some_and(stops) {
                return;
            }
            let Some((_, frame)) = entry.toward[to].pop_front() else { return };
            self.tell(to, incarnation, Event::Frame { conn, frame });
        }
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
        if cut || !entry.open[node] {
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

    /// Both ends lose every connection, each at its own time, with what was under way.
    pub(crate) fn reset_connections(&mut self) {
        let open: Vec<ConnId> = self.open_conns();
        for conn in open {
            for node in 0..2 {
                let after = 1 + self.rng.below(3000);
                self.schedule(after, Happening::Gone { conn, node });
            }
            let keep = self.rng.below(3);
            if let Some(entry) = self.net.conns.get_mut(&conn) {
                entry.reset = true;
                for queue in &mut entry.toward {
                    let keep = usize::try_from(keep).unwrap_or(0).min(queue.len());
                    queue.truncate(keep);
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
        self.net.cut = false;
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
