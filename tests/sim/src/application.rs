//! The application: what it asks of an active side, and what the answers mean.

use crate::disk::{Stamp, blocks, payload, stamps};
use crate::node::{AppOp, Node};
use crate::world::World;
use mirror_core::buf::Buf;
use mirror_core::io::{Event, Request, RequestId, RequestOp};
use mirror_core::status::LinkStatus;
use mirror_core::units::Extent;

impl World {
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

    pub(crate) fn completed(
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
        // agent is gone by now, once caches can be lost.
        let loses = self.options.power > 0;
        let now = self.now();
        let half = |node: &Node| match &node.mirror {
            Some(mirror) => {
                let record = mirror.record();
                // It may have adopted what was copied, and not recorded it yet.
                let copied = mirror.status(now).recovery.is_some() && node.is_half_copied();
                record.inconsistent.is_some() || copied
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
        let on_other = on[1 - writer] || self.oracle.was_joint(stamp);
        self.oracle.acked(stamp, holders, (on[writer] && on_other) || detached);
        // What the peer's disk alone has, that side has alone.
        self.oracle.lone[1 - writer] |= detached && !self.oracle.outlawed[writer];
        self.check_fenced(writer, on_other);
    }
}
