//! The operator's commands, what the agents tell each other, and fate.

use crate::disk::Stamp;
use crate::node::SIZE;
use crate::world::{Happening, World};
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::io::{CommandId, Event};
use mirror_core::units::SessionNo;

/// Who waits for a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pending {
    /// The operator.
    Operator,
    /// The operator activates this side and vouches that the other is off.
    PeerDown,
    /// The operator forces this side.
    Force,
    /// The cluster manager vouches that the other server is off.
    Vouched,
    /// The other server's agent told this side that it is behind.
    Told {
        /// The session that ended.
        session: SessionNo,
    },
    /// The agent's process, which ends then.
    Stop,
    /// Nobody.
    Agent,
}

impl World {
    pub(crate) fn command(&mut self, node: usize, command: Command, pending: Pending) -> CommandId {
        self.next_id += 1;
        let id = CommandId(self.next_id);
        let incarnation = self.nodes[node].incarnation;
        let pending = match command {
            Command::ToldBehind { session } => Pending::Told { session },
            _ => pending,
        };
        self.log(|| format!("server{}: {command:?}", node + 1));
        if let (Pending::Force, Some(mirror)) = (pending, &self.nodes[node].mirror) {
            let live = self.nodes[node].data.live().to_vec();
            self.forcing[node].push((id, mirror.record().generation, live));
        }
        self.commands.insert(id, pending);
        self.tell(node, incarnation, Event::Command { id, command });
        id
    }

    pub(crate) fn replied(&mut self, node: usize, id: CommandId, result: Result<Done, Refusal>) {
        self.log(|| format!("server{}: answers {result:?}", node + 1));
        if let Some(script) = &mut self.script {
            script.replied(id, result);
        }
        // A record whose write failed may be there all the same, which the next start shows.
        let undecided = result == Err(Refusal::NotRecorded);
        let ordered = self.forcing[node].iter().position(|(force, ..)| *force == id);
        let ordered = ordered.filter(|_| !undecided).map(|n| self.forcing[node].remove(n).2);
        match (self.commands.remove(&id), result) {
            (None, _) => self.fail(format!("command {} answered twice", id.0)),
            (Some(waits @ (Pending::Operator | Pending::PeerDown)), Ok(Done::Activated)) => {
                self.oracle.outlawed[node] = false;
                self.taken_over(node);
                self.activated(node, waits == Pending::PeerDown);
                if waits == Pending::PeerDown && self.options.power > 0 {
                    // What this side lost with its cache, the operator does not wait for.
                    self.oracle.disk_failed(1 - node);
                }
            }
            (Some(Pending::Vouched), Ok(Done::Noted)) => self.promises.vouched[node] = true,
            (Some(Pending::Force), Ok(_)) => {
                self.nodes[node].resumed = false;
                self.forced(node, &ordered.unwrap_or_default());
                // In contact the other one is inactive, and an activation ends this; but its next agent
                // may resume what the force has overruled.
                self.oracle.outlawed[1 - node] = true;
            }
            (Some(Pending::Told { session }), Ok(Done::Noted)) => {
                let (to, after) = (1 - node, 100 + self.rng.below(2000));
                let incarnation = self.nodes[to].incarnation;
                let command = Command::PeerConfirmedBehind { session };
                self.schedule(after, Happening::AgentCommand { node: to, incarnation, command });
            }
            (Some(Pending::Stop), Ok(Done::Stopped)) => self.stopping = Some(node),
            (Some(_), _) => {}
        }
    }

    pub(crate) fn tell_behind(&mut self, node: usize, session: SessionNo) {
        if self.net.agents_cut || self.nodes[1 - node].mirror.is_none() {
            return;
        }
        let (to, after) = (1 - node, 100 + self.rng.below(2000));
        let incarnation = self.nodes[to].incarnation;
        let command = Command::ToldBehind { session };
        self.schedule(after, Happening::AgentCommand { node: to, incarnation, command });
    }

    pub(crate) fn seen_active(&self, node: usize) -> Option<bool> {
        let other = &self.nodes[1 - node];
        (!self.net.agents_cut && other.mirror.is_some()).then(|| other.is_active())
    }

    /// One step of the application, the operator and fate; schedules the next.
    pub(crate) fn step(&mut self) {
        self.application();
        if self.faults {
            self.fate();
            let longest = if self.rng.chance(100) { 9_000_000 } else { 30_000 };
            let after = 500 + self.rng.below(longest);
            self.schedule(after, Happening::Step);
        } else {
            self.schedule(20_000, Happening::Step);
        }
    }

    fn fate(&mut self) {
        let options = self.options;
        let node = usize::from(self.rng.chance(500));
        if self.rng.chance(options.switch) {
            self.switch(node);
        }
        if self.rng.chance(options.kill) {
            self.kill(node, false);
        }
        self.leave_devices(node);
        if self.rng.chance(options.power) {
            self.kill(node, true);
            if self.rng.chance(300) {
                self.kill(1 - node, true);
            }
        }
        if self.rng.chance(options.cut) {
            self.cut();
        } else if self.net.is_cut() && self.rng.chance(300) {
            self.log(|| "the network works again".to_owned());
            self.heal();
        }
        if self.rng.chance(options.reset) {
            self.log(|| "connections are reset".to_owned());
            self.reset_connections();
        }
        if self.rng.chance(options.overlap) {
            self.second_connection();
        }
        if self.rng.chance(options.stop) {
            self.command_if_up(node, Command::Shutdown, Pending::Stop);
        }
        if self.rng.chance(options.vouch) {
            let other = &self.nodes[1 - node];
            let off = other.mirror.is_none() && other.landing == 0 && !other.device;
            if off {
                self.command_if_up(node, Command::PeerDown, Pending::Vouched);
            }
        }
        self.hardware();
        if self.rng.chance(options.clock) {
            self.clock_jumps(node);
        }
        if self.rng.chance(options.wrong) {
            self.say_anything(node);
        }
        if self.rng.chance(options.burst) {
            (0..3).for_each(|_| self.say_anything(node));
        }
        if self.rng.chance(options.recovery) {
            let cancel = self.rng.chance(500);
            let command = if cancel { Command::CancelRecovery } else { Command::Recover };
            self.command_if_up(node, command, Pending::Operator);
        }
        if options.grow > 0 && self.rng.chance(options.grow) {
            self.enlarge();
        }
        if options.grow > 0 && self.rng.chance(options.grow * 2) {
            self.resize(node);
        }
        if self.rng.chance(options.separate) {
            self.command_if_up(node, Command::Separate, Pending::Operator);
        }
        if self.rng.chance(options.force) && !self.nodes[node].restored {
            let command = Command::Force { peer_seen_active: self.seen_active(node) };
            self.command_if_up(node, command, Pending::Force);
        }
        self.restart_some();
    }

    /// The operator makes partitions larger, on one server or on both.
    fn enlarge(&mut self) {
        let most = SIZE + 40 * 65_536;
        let bytes = 4096 * (1 + self.rng.below(60));
        let only = self.rng.chance(200).then(|| usize::from(self.rng.chance(500)));
        for node in 0..2 {
            if only.is_none_or(|n| n == node) && self.nodes[node].capacity + bytes <= most {
                self.log(|| format!("server{}: {bytes} bytes are added", node + 1));
                let size = self.nodes[node].capacity + bytes;
                let blocks = usize::try_from(size / 4096).unwrap_or(0);
                let junk = self.oracle.grow(node, blocks);
                self.nodes[node].enlarge(bytes, junk);
                // One from before would not fit.
                self.image = None;
            }
        }
    }

    pub(crate) fn resize(&mut self, node: usize) {
        self.measure(node);
        self.command_if_up(node, Command::Resize, Pending::Operator);
    }

    pub(crate) fn measure(&mut self, node: usize) {
        let (capacity, incarnation) = (self.nodes[node].capacity, self.nodes[node].incarnation);
        self.tell(node, incarnation, Event::Measured { capacity });
    }

    pub(crate) fn command_if_up(&mut self, node: usize, command: Command, pending: Pending) {
        if self.nodes[node].mirror.is_some() {
            self.command(node, command, pending);
        }
    }

    fn switch(&mut self, node: usize) {
        if self.nodes[node].is_active() {
            if self.rng.chance(400) {
                self.command(node, Command::Deactivate, Pending::Operator);
            }
            return;
        }
        if self.nodes[node].restored {
            return;
        }
        // The operator vouches only for what is true: off, and nothing written alone.
        let other = 1 - node;
        let off = self.nodes[other].mirror.is_none() && !self.nodes[other].device;
        let went_on = self.oracle.lone[other] || self.oracle.parted[other];
        let peer_down = off && !went_on && self.rng.chance(500);
        let peer_seen_active = self.seen_active(node);
        let pending = if peer_down { Pending::PeerDown } else { Pending::Operator };
        self.command_if_up(node, Command::Activate { peer_down, peer_seen_active }, pending);
    }

    /// The agent dies; with `power` the whole server does, and its caches with it.
    pub(crate) fn kill(&mut self, node: usize, power: bool) {
        if self.nodes[node].mirror.is_none() && !power {
            return;
        }
        let what = if power { "loses power" } else { "is killed" };
        self.log(|| format!("server{} {what}", node + 1));
        self.process_ends(node);
        self.nodes[node].end_process();
        self.nodes[node].device = false;
        self.fail_requests(node);
        self.drop_connections_of(node, power);
        if power {
            self.lose_power(node);
        }
        self.judge_behind(node);
        self.oracle.interrupted(node, power || self.options.power > 0);
        self.take_up_interrupted_force(node);
    }

    /// A force that was not answered may have taken effect: the record says so, which may land after
    /// the death of its process.
    pub(crate) fn take_up_interrupted_force(&mut self, node: usize) {
        let record = self.nodes[node].durable_record().ok().flatten();
        // A later one may have begun with what the first one is about to record.
        let is_new = |g| self.forcing[node].first().is_some_and(|(_, before, _)| *before != g);
        let forced =
            record.is_some_and(|r| r.forced_at.is_some() && r.owes_all && is_new(r.generation));
        if forced {
            self.forcing[node].clear();
            self.forced(node, &[]);
            // In contact the other one is inactive, and an activation ends this.
            self.oracle.outlawed[1 - node] = true;
        }
    }

    /// `node` was forced, when it held `ordered` (nothing: not known). That was flushed first, so
    /// nothing older is meant.
    fn forced(&mut self, node: usize, ordered: &[Stamp]) {
        self.promises.forced(node);
        self.oracle.outlawed = [false; 2];
        let on_disk = self.nodes[node].data.possible();
        let mut content = self.possible_content(node);
        for ((block, disk), had) in content.iter_mut().zip(&on_disk).zip(ordered) {
            // Only on the disk itself: frames of the past may carry the same bytes.
            let older = disk.iter().position(|stamp| stamp == had).unwrap_or(0);
            block.drain(..older);
        }
        self.oracle.declare(node, content);
    }

    /// The agent of `node` has stopped in order.
    pub(crate) fn stopped(&mut self, node: usize) {
        if self.nodes[node].is_active() {
            self.leave_device(node);
            return;
        }
        let behind = self.nodes[node].mirror.as_ref().is_some_and(|m| m.record().behind);
        self.process_ends(node);
        self.nodes[node].end_process();
        self.nodes[node].device = false;
        self.fail_requests(node);
        self.drop_connections_of(node, false);
        // What knows itself to be behind is no redundancy.
        self.oracle.interrupted(node, behind && self.options.power > 0);
        self.take_up_interrupted_force(node);
    }

    pub(crate) fn restart_some(&mut self) {
        for node in 0..2 {
            let down = self.nodes[node].mirror.is_none() && self.nodes[node].landing == 0;
            if down && (!self.faults || self.rng.chance(300)) {
                self.before_start(node);
                self.mistake_device(node);
                self.start_agent(node);
            }
        }
    }

    pub(crate) fn start_agent(&mut self, node: usize) {
        self.log(|| format!("server{}: the agent starts", node + 1));
        self.forcing[node].clear();
        self.judge_behind(node);
        let now = self.now_at(node);
        let (nodes, rng) = (&mut self.nodes, &mut self.rng);
        match nodes[node].start(now, rng) {
            Ok(()) => {
                if self.options.verbose {
                    let record = self.nodes[node].mirror.as_ref().map(|m| m.record().clone());
                    self.log(|| format!("server{}: {record:?}", node + 1));
                }
                let incarnation = self.nodes[node].incarnation;
                let found = self.nodes[node].device;
                self.tell(node, incarnation, Event::Timer);
                if found {
                    self.take_up_device(node);
                }
            }
            Err(why) => self.fail(format!("the record cannot be read back: {why}")),
        }
    }
}
