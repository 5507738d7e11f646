//! Devices that outlive their agent: the agent dies or is suspended, what its application waits for
//! stays, and the next agent gets it again, in any order.

use crate::node::AppOp;
use crate::operator::Pending;
use crate::world::{Happening, World};
use mirror_core::command::Command;
use mirror_core::io::{Event, Request, RequestId};

impl World {
    pub(crate) fn leave_devices(&mut self, node: usize) {
        if self.strikes(self.options.survive) {
            self.orphan(node);
        }
        if self.strikes(self.options.suspend) && self.nodes[node].mirror.is_some() {
            self.command(node, Command::Suspend, Pending::Stop);
        }
    }

    /// Draws a number only where it may count, so that runs without these faults stay as they are.
    fn strikes(&mut self, rate: u64) -> bool {
        rate > 0 && self.faults && self.rng.chance(rate)
    }

    /// The agent dies and its device, if it serves one, does not.
    pub(crate) fn orphan(&mut self, node: usize) {
        if !self.nodes[node].is_active() {
            self.kill(node, false);
            return;
        }
        self.log(|| format!("server{} is killed, its device lives", node + 1));
        self.leave_device(node);
        self.take_up_interrupted_force(node);
    }

    /// The process is gone, and what it has not answered is left to the next.
    pub(crate) fn leave_device(&mut self, node: usize) {
        self.nodes[node].end_process();
        self.nodes[node].device = true;
        self.drop_connections_of(node, false);
    }

    /// Now and then a front end takes something for its device that is none of it, or one that an
    /// earlier boot has left a trace of.
    pub(crate) fn mistake_device(&mut self, node: usize) {
        let claims = self.strikes(self.options.claim);
        self.nodes[node].device |= claims && !self.nodes[node].restored;
    }

    /// The agent has started: it serves the device that it found, or that fails.
    pub(crate) fn take_up_device(&mut self, node: usize) {
        if !self.nodes[node].is_active() {
            self.abandon(node);
            return;
        }
        if !self.nodes[node].durable_record().is_ok_and(|r| r.is_some_and(|r| r.active)) {
            self.fail(format!("server{} serves a device that was closed", node + 1));
        }
        self.nodes[node].resumed = true;
        let incarnation = self.nodes[node].incarnation;
        let left: Vec<RequestId> = self.nodes[node].orders.keys().copied().collect();
        for id in left {
            let after = self.rng.below(4000);
            self.schedule(after, Happening::Reissue { node, incarnation, id });
        }
        if self.strikes(self.options.survive * 3) {
            let after = self.rng.below(10_000);
            self.schedule(after, Happening::Orphan { node, incarnation });
        }
    }

    pub(crate) fn reissue(&mut self, node: usize, incarnation: u32, id: RequestId) {
        if self.nodes[node].incarnation != incarnation {
            return;
        }
        if let Some((request, handed)) = self.nodes[node].orders.get_mut(&id) {
            *handed = incarnation;
            let request = request.clone();
            self.tell(node, incarnation, Event::Request(request));
        }
    }

    /// The device is gone or fails, and with it what the mirror was not asked for.
    pub(crate) fn abandon(&mut self, node: usize) {
        if !std::mem::take(&mut self.nodes[node].device) {
            return;
        }
        let (runs, now) = (self.nodes[node].mirror.is_some(), self.nodes[node].incarnation);
        let handed = |order: &(Request, u32)| runs && order.1 == now;
        let left: Vec<RequestId> =
            self.nodes[node].orders.iter().filter(|(_, o)| !handed(o)).map(|(id, _)| *id).collect();
        for id in left {
            self.fail_request(node, id);
        }
        self.oracle.interrupted(node, self.options.power > 0);
    }

    pub(crate) fn fail_requests(&mut self, node: usize) {
        let all: Vec<RequestId> = self.nodes[node].requests.keys().copied().collect();
        for id in all {
            self.fail_request(node, id);
        }
    }

    fn fail_request(&mut self, node: usize, id: RequestId) {
        self.nodes[node].orders.remove(&id);
        if let Some(AppOp::Write(stamp, _)) = self.nodes[node].requests.remove(&id) {
            self.oracle.failed(stamp);
        }
    }

    /// A side was activated: what a dead agent's device has on the other disk is no redundancy.
    pub(crate) fn taken_over(&mut self, by: usize) {
        let other = &self.nodes[1 - by];
        let away = other.device && (other.mirror.is_none() || other.resumed);
        if away && self.options.power > 0 {
            self.oracle.disk_failed(1 - by);
        }
    }

    /// The agent dies between the end of an operation and its answer to the application.
    pub(crate) fn dies_before_answer(&mut self, node: usize) -> bool {
        let rate = self.options.unanswered;
        let dies = rate > 0 && self.faults && self.rng.below(100_000) < rate;
        if dies {
            self.dying = Some(node);
        }
        dies
    }

    /// The two were in contact and open no session.
    pub(crate) fn check_parked(&mut self, node: usize) {
        let both = self.nodes.iter().all(crate::node::Node::is_active);
        if both && self.nodes[node].resumed {
            self.fail(format!("server{} resumed and serves beside the other one", node + 1));
        }
    }
}
