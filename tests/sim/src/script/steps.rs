//! The steps: what the application, the operator and fate do.

use super::hold::{Answer, Hold, Keep};
use super::stage::{A, B, Stage, Ticket};
use crate::disk::{BLOCK, ClusterDisk, DataDisk, Stamp, blocks, payload, stamps};
use crate::node::AppOp;
use crate::operator::Pending;
use crate::world::Happening;
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::disk::layout::{SUPERBLOCK_A, SUPERBLOCK_B};
use mirror_core::io::{CommandId, Event, IoFailure, Request, RequestId, RequestOp};
use mirror_core::mirror::Tuning;
use mirror_core::rules::{Rule, holds};
use mirror_core::units::Extent;

/// Both partitions of a server.
pub(super) type Image = (DataDisk, ClusterDisk);

fn block_at(block: usize) -> Extent {
    Extent::new(block as u64 * BLOCK, BLOCK)
}

impl Stage {
    // The application.

    fn request(&mut self, at: usize, waits: AppOp, op: RequestOp, extent: Extent) -> Ticket {
        let (stamp, fua) =
            if let AppOp::Write(stamp, fua) = &waits { (*stamp, *fua) } else { (0, false) };
        self.world.next_id += 1;
        let id = RequestId(self.world.next_id);
        if !self.has_failed() {
            self.world.request(at, waits, Request { id, op, extent, fua });
        }
        Ticket { id, stamp }
    }

    fn write_request(&mut self, at: usize, block: usize, fua: bool) -> Ticket {
        let extent = block_at(block);
        let stamp = self.world.oracle.begin(at, blocks(extent), false);
        self.say(&format!("server{} writes {stamp} to block {block}", at + 1));
        self.request(at, AppOp::Write(stamp, fua), RequestOp::Write(payload(extent, stamp)), extent)
    }

    /// The application on `at` begins to write a block.
    pub fn begin_write(&mut self, at: usize, block: usize) -> Ticket {
        self.write_request(at, block, false)
    }

    /// The application on `at` begins to write a block with FUA.
    pub fn begin_durable_write(&mut self, at: usize, block: usize) -> Ticket {
        self.write_request(at, block, true)
    }

    /// The application on `at` discards a block; returns once it is acknowledged.
    pub fn discard(&mut self, at: usize, block: usize) {
        self.say(&format!("server{} discards block {block}", at + 1));
        let extent = block_at(block);
        let stamp = self.world.oracle.begin(at, blocks(extent), true);
        let op = RequestOp::Zero { unmap: true };
        let ticket = self.request(at, AppOp::Write(stamp, false), op, extent);
        self.until_done(ticket);
    }

    /// The application on `at` begins to flush.
    pub fn begin_flush(&mut self, at: usize) -> Ticket {
        self.say(&format!("server{} flushes", at + 1));
        let covered = self.world.oracle.acked_now(at, self.world.is_detached(at));
        self.request(at, AppOp::Flush(covered), RequestOp::Flush, Extent::default())
    }

    /// The application on `at` begins to read a block.
    pub fn begin_read(&mut self, at: usize, block: usize) -> Ticket {
        self.say(&format!("server{} reads block {block}", at + 1));
        let went_on = self.world.oracle.lone[1 - at] && !self.world.is_detached(at);
        let judged = !went_on && !self.world.oracle.overruled[at];
        let extent = block_at(block);
        let waits = AppOp::Read(extent, self.world.oracle.read_begins(), judged);
        self.request(at, waits, RequestOp::Read, extent)
    }

    /// How a request ended, if it has.
    #[must_use]
    pub fn answer(&self, ticket: Ticket) -> Option<&Answer> {
        self.script().answers.get(&ticket.id)
    }

    /// What a read found, if it has ended well.
    #[must_use]
    pub fn found(&self, ticket: Ticket) -> Option<Stamp> {
        let data = self.answer(ticket)?.as_ref().ok()?.as_ref()?;
        stamps(data).next()
    }

    /// Whether a request has been answered.
    #[must_use]
    pub fn is_answered(&self, ticket: Ticket) -> bool {
        self.answer(ticket).is_some()
    }

    /// Runs until a request has ended well.
    pub fn until_done(&mut self, ticket: Ticket) {
        self.until("an answer to a request", |stage| stage.is_answered(ticket));
        let error = self.answer(ticket).and_then(|answer| answer.as_ref().err().copied());
        self.expect(&format!("the request succeeds ({error:?})"), error.is_none());
    }

    /// Runs until a request has failed.
    pub fn until_refused(&mut self, ticket: Ticket) {
        self.until("an answer to a request", |stage| stage.is_answered(ticket));
        let failed = self.answer(ticket).is_some_and(Result::is_err);
        self.expect("the request fails", failed);
    }

    /// The application on `at` writes a block; returns the stamp once it is acknowledged.
    pub fn write(&mut self, at: usize, block: usize) -> Stamp {
        let ticket = self.begin_write(at, block);
        self.until_done(ticket);
        ticket.stamp
    }

    /// The application on `at` writes a block with FUA.
    pub fn write_durably(&mut self, at: usize, block: usize) -> Stamp {
        let ticket = self.begin_durable_write(at, block);
        self.until_done(ticket);
        ticket.stamp
    }

    /// The application on `at` flushes.
    pub fn flush(&mut self, at: usize) {
        let ticket = self.begin_flush(at);
        self.until_done(ticket);
    }

    /// The application on `at` reads a block.
    pub fn read(&mut self, at: usize, block: usize) -> Stamp {
        let ticket = self.begin_read(at, block);
        self.until_done(ticket);
        self.found(ticket).unwrap_or(0)
    }

    /// The application on `at` finds `stamp` at `block`, whoever wrote it, and flushes: from here on
    /// it may rely on it.
    pub fn flush_what_is_read(&mut self, at: usize, block: usize, stamp: Stamp) {
        let found = self.read(at, block);
        self.expect("the write is there", found == stamp);
        self.flush(at);
        if !self.has_failed() {
            self.world.oracle.flushed(&[stamp]);
        }
    }

    // The operator.

    /// Gives a command to the agent of `at`.
    pub fn begin(&mut self, at: usize, command: Command) -> CommandId {
        if self.has_failed() {
            return CommandId(u64::MAX);
        }
        let pending = match command {
            Command::Activate { peer_down: true, .. } => Pending::PeerDown,
            Command::Force { .. } => Pending::Force,
            Command::Shutdown | Command::Suspend => Pending::Stop,
            Command::PeerDown => Pending::Vouched,
            _ => Pending::Operator,
        };
        self.world.command(at, command, pending)
    }

    /// Runs until a command has been answered.
    pub fn until_replied(&mut self, id: CommandId) -> Option<Result<Done, Refusal>> {
        self.until("an answer to a command", |stage| stage.script().replies.contains_key(&id));
        self.script().replies.get(&id).copied()
    }

    /// Gives a command and waits for its answer.
    pub fn order(&mut self, at: usize, command: Command) -> Option<Result<Done, Refusal>> {
        let id = self.begin(at, command);
        self.until_replied(id)
    }

    fn must(&mut self, at: usize, command: Command) {
        if let Some(Err(refusal)) = self.order(at, command) {
            self.expect(&format!("{command:?} on server{} is done ({refusal:?})", at + 1), false);
        }
    }

    /// The order to activate `at`, as the agent would give it now.
    #[must_use]
    pub fn activation(&self, at: usize, peer_down: bool) -> Command {
        Command::Activate { peer_down, peer_seen_active: self.world.seen_active(at) }
    }

    /// The operator activates `at`, which must succeed.
    pub fn activate(&mut self, at: usize) {
        self.must(at, self.activation(at, false));
    }

    /// The operator activates `at` with `--peer-down`, which must succeed.
    pub fn activate_vouched(&mut self, at: usize) {
        self.must(at, self.activation(at, true));
    }

    /// The operator tries to activate `at`; says whether it succeeded.
    pub fn try_activate(&mut self, at: usize, peer_down: bool) -> bool {
        let answer = self.order(at, self.activation(at, peer_down));
        answer.is_some_and(|answer| answer.is_ok())
    }

    /// The operator tries to activate `at`, which must be refused.
    pub fn activation_refused(&mut self, at: usize, peer_down: bool, refusal: Refusal) {
        let answer = self.order(at, self.activation(at, peer_down));
        let what = format!("activating server{} is refused: {refusal:?} ({answer:?})", at + 1);
        self.expect(&what, answer == Some(Err(refusal)));
    }

    /// The operator deactivates `at`.
    pub fn deactivate(&mut self, at: usize) {
        let covered = self.world.oracle.acked_now(at, self.world.is_detached(at));
        self.must(at, Command::Deactivate);
        if !self.has_failed() {
            // A device that was closed in order has flushed all it had.
            self.world.oracle.flushed(&covered);
        }
    }

    /// The operator says `--force` on `at`.
    pub fn force(&mut self, at: usize) {
        self.must(at, self.forcing(at));
    }

    /// The order to force `at`, as the agent would give it now.
    #[must_use]
    pub fn forcing(&self, at: usize) -> Command {
        Command::Force { peer_seen_active: self.world.seen_active(at) }
    }

    /// The agent of `at` stops in order.
    pub fn stop(&mut self, at: usize) {
        self.must(at, Command::Shutdown);
        self.wait(1);
    }

    /// The agent of `at` leaves its device to the next one.
    pub fn suspend(&mut self, at: usize) {
        self.must(at, Command::Suspend);
        self.wait(1);
    }

    // Fate.

    /// The agent of `at` is killed; what it had given to the disks still lands.
    pub fn kill(&mut self, at: usize) {
        if !self.has_failed() {
            self.say(&format!("the agent of server{} is killed", at + 1));
            self.world.kill(at, false);
        }
    }

    /// The agent of `at` is killed, and its device lives on: the next agent gets the requests that
    /// nobody has answered.
    pub fn kill_agent_only(&mut self, at: usize) {
        if !self.has_failed() {
            self.world.orphan(at);
        }
    }

    /// The front end of `at` does not hand over again what nobody has answered.
    pub fn withhold_requests(&mut self, at: usize) {
        self.world.nodes[at].orders.clear();
    }

    /// The front end of `at` takes something that an earlier boot left for a device that is alive.
    pub fn mistake_device(&mut self, at: usize) {
        self.say(&format!("server{} takes something for its device", at + 1));
        self.world.nodes[at].device = true;
    }

    /// Server `at` loses power: what was under way, and of the cache all but `keep`.
    pub fn power_loss(&mut self, at: usize, keep: Keep) {
        if self.has_failed() {
            return;
        }
        self.say(&format!("server{} loses power", at + 1));
        self.script_mut().keep = keep;
        self.world.kill(at, true);
    }

    /// The agent of `at` starts, once the last operation of its predecessor has ended.
    pub fn start(&mut self, at: usize) {
        self.until("the last operation of the predecessor", |s| s.lock_is_free(at));
        self.start_now(at);
    }

    /// The lock on the partitions of `at` is free: no operation of a dead process is under way.
    fn lock_is_free(&self, at: usize) -> bool {
        self.world.nodes[at].landing == 0 || !holds(Rule::Lock)
    }

    /// The agent of `at` tries to start; says whether it could have the lock.
    pub fn try_start(&mut self, at: usize) -> bool {
        let is_free = self.lock_is_free(at);
        if is_free {
            self.start_now(at);
        }
        is_free
    }

    fn start_now(&mut self, at: usize) {
        if !self.has_failed() {
            self.forget_notices();
            self.world.start_agent(at);
        }
    }

    /// Nothing passes between the servers.
    pub fn cut(&mut self) {
        self.say("the network is cut");
        self.world.net.cut = [true; 2];
        self.world.net.agents_cut = true;
    }

    /// The network works again.
    pub fn heal(&mut self) {
        self.say("the network works again");
        self.forget_notices();
        self.world.heal();
    }

    /// Every connection ends at both sides, with what is under way.
    pub fn reset(&mut self) {
        self.say("connections are reset");
        self.forget_notices();
        self.world.end_connections();
        self.wait(1);
    }

    /// Connections end at one side only.
    pub fn reset_at(&mut self, at: usize) {
        self.say(&format!("server{} loses its connection", at + 1));
        self.world.end_connections_at(at);
        self.wait(1);
    }

    /// The network is cut, and both sides notice at once. What is under way is lost.
    pub fn part(&mut self) {
        self.world.end_connections();
        let until = self.world.time + 10;
        self.world.run_until(until, |_| false);
        self.cut();
    }

    /// Connections that are closed still deliver what was under way.
    pub fn let_ghosts_arrive(&mut self) {
        self.script_mut().ghosts = true;
    }

    /// What is held fails with EIO; writes have not landed.
    pub fn fail(&mut self, hold: Hold) {
        for end in self.script_mut().release(hold) {
            let end = match end {
                Happening::Data { node, incarnation, io, .. } => {
                    self.world.nodes[node].landing -= 1;
                    let result = Err(IoFailure::Errno(5));
                    (node, incarnation, Event::DataDone { io, result })
                }
                Happening::Meta { node, incarnation, io, .. } => {
                    self.world.nodes[node].landing -= 1;
                    let result = Err(IoFailure::Errno(5));
                    (node, incarnation, Event::MetaDone { io, result })
                }
                _ => continue,
            };
            self.world.weak = end.0;
            self.world.tell(end.0, end.1, end.2);
        }
        self.wait(1);
    }

    /// A held flush fails, and the disk gives up what it covered (reads still find it).
    pub fn fail_flush(&mut self, at: usize, hold: Hold) {
        self.world.nodes[at].data.forget_cache();
        self.fail(hold);
    }

    /// What is held is over its time limit, but still under way.
    pub fn time_out(&mut self, hold: Hold) {
        let late: Vec<_> = self.script().held_by(hold).iter().filter_map(timed_out).collect();
        for (node, incarnation, event) in late {
            self.world.weak = node;
            self.world.tell(node, incarnation, event);
        }
        self.wait(1);
    }

    /// A block of `at` cannot be read from now on.
    pub fn bad_sector(&mut self, at: usize, block: usize) {
        self.say(&format!("block {block} of server{} cannot be read", at + 1));
        self.script_mut().bad.push((at, block));
    }

    /// Both agents stop in order and start again with other settings.
    pub fn restart_with(&mut self, change: impl Fn(&mut Tuning)) {
        for at in [A, B] {
            self.stop(at);
            change(&mut self.world.nodes[at].tuning);
        }
        self.start(A);
        self.start(B);
        self.until_normal();
    }

    /// An image of both partitions of `at` is taken.
    pub fn take_image(&mut self, at: usize) {
        self.say(&format!("an image of server{} is taken", at + 1));
        let node = &self.world.nodes[at];
        self.images[at] = Some((node.data.clone(), node.cluster.clone()));
    }

    /// Both partitions of `at`, whose agent does not run, are restored from the image.
    pub fn restore_image(&mut self, at: usize) {
        self.say(&format!("server{} is restored from the image", at + 1));
        if let Some((data, cluster)) = self.images[at].clone() {
            (self.world.nodes[at].data, self.world.nodes[at].cluster) = (data, cluster);
        }
    }

    /// The cluster partition of `at`, whose agent does not run, is zeroed.
    pub fn zero_cluster(&mut self, at: usize) {
        self.say(&format!("the cluster partition of server{} is zeroed", at + 1));
        self.world.nodes[at].replace_disks(true);
    }

    /// A byte of the first (or second) copy of the record of `at` rots.
    pub fn rot_record(&mut self, at: usize, first: bool) {
        self.say(&format!("a copy of the record of server{} rots", at + 1));
        let offset = if first { SUPERBLOCK_A } else { SUPERBLOCK_B };
        self.world.nodes[at].cluster.flip(offset + 100);
    }

    /// No cache is ever lost in this scenario, so nothing acknowledged may be gone at all.
    pub fn caches_survive(&mut self) {
        self.world.options.power = 0;
    }
}

fn timed_out(end: &Happening) -> Option<(usize, u32, Event)> {
    match end {
        Happening::Data { node, incarnation, io, .. } => {
            let result = Err(IoFailure::TimedOut);
            Some((*node, *incarnation, Event::DataDone { io: *io, result }))
        }
        Happening::Meta { node, incarnation, io, .. } => {
            let result = Err(IoFailure::TimedOut);
            Some((*node, *incarnation, Event::MetaDone { io: *io, result }))
        }
        _ => None,
    }
}
