//! The loop itself: wait for the ring, turn completions into events, hand them to the machine,
//! carry out its actions.

use super::count::Count;
use super::disk::{Disk, Lent, Role};
use super::net::Net;
use super::patience::{For, Patience};
use super::{Cx, DriverConfig, FrontEndSpec, Machine, Order, Report, memory, now, now_and_micros};
use crate::figures::Figures;
use kmod_shim::front::FrontEnd;
use kmod_shim::nbd::NbdServer;
use kmod_shim::sys::{Completion, Fd, Op, Owner, Ring, Slots, Submitter};
use kmod_shim::ublk::UblkServer;
use mirror_core::buf::{self, Buf, BufMut};
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::io::{
    Action, CommandId, DataOp, Event, IoId, Notice, Request, RequestError, RequestId,
};
use mirror_core::units::{Extent, Millis, Now};
use mirror_core::wire::{Frame, Message};
use nix::sys::eventfd::EventFd;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// A front end that does not close by itself within this time is closed harshly.
const FRONT_END_LIMIT_MS: u64 = 5000;
/// Pause before the agent is offered again what it had no room for.
const OWED_RETRY_MS: u64 = 100;
/// How often memory that is not needed any more is given back.
const RELEASE_MS: u64 = 10_000;
/// Shortest wait for the machine's own deadline: one that stays in the past must not spin.
const MIN_WAIT: Duration = Duration::from_millis(1);

struct Front {
    end: Box<dyn FrontEnd>,
    /// Who is to be told that it serves.
    opening: Option<oneshot::Sender<io::Result<()>>>,
    closing: Option<Closing>,
}

struct Closing {
    answers: Vec<oneshot::Sender<()>>,
    /// When patience ends.
    deadline: Option<Millis>,
}

/// See the module.
pub(super) struct EventLoop<M> {
    ring: Ring,
    /// The time, read once in each round, after the wait.
    now: Now,
    /// The same in microseconds, for the figures.
    micros: u64,
    count: Count,
    patience: Patience,
    machine: M,
    data: Disk,
    cluster: Disk,
    net: Net,
    front: Option<Front>,
    /// Front ends that are closed to everybody, but have something to bring to its end.
    leftovers: Vec<Box<dyn FrontEnd>>,
    /// Size of the mirror that the machine has told, 0 before.
    size: u64,
    /// Size of the device that is open, as far as that is known, 0 if it is not.
    opened_with: u64,
    /// The device must fail: so must one of an earlier agent that is yet to be taken over.
    failed: bool,
    orders: Receiver<Order>,
    eventfd: Fd,
    wake: Slots<()>,
    wake_token: u64,
    events: VecDeque<Event>,
    commands: HashMap<CommandId, oneshot::Sender<Result<Done, Refusal>>>,
    next_command: u64,
    reports: mpsc::Sender<Report>,
    /// Reports that must not be lost and for which the agent had no room yet; few.
    owed: Vec<Report>,
    /// When stopping: until when disk operations are waited for.
    stopping: Option<Millis>,
    disk_limit_ms: u64,
    /// When memory is given back next, if anything happens by then.
    release: Millis,
}

impl<M: Machine> EventLoop<M> {
    pub(super) fn new(
        config: DriverConfig,
        machine: M,
        orders: Receiver<Order>,
        wake: &EventFd,
        reports: mpsc::Sender<Report>,
    ) -> io::Result<Self> {
        let disk_limit_ms = u64::try_from(config.disk_limit.as_millis()).unwrap_or(u64::MAX);
        let (now, micros) = now_and_micros();
        Ok(Self {
            ring: Ring::new()?,
            now,
            micros,
            count: Count::default(),
            patience: Patience::new(std::thread::available_parallelism().map_or(1, usize::from)),
            machine,
            data: Disk::new(Role::Data, config.data, disk_limit_ms),
            cluster: Disk::new(Role::Meta, config.cluster, disk_limit_ms),
            net: Net::new(config.net)?,
            front: None,
            leftovers: Vec::new(),
            size: 0,
            opened_with: 0,
            failed: false,
            orders,
            eventfd: Arc::new(wake.as_fd().try_clone_to_owned()?),
            wake: Slots::default(),
            wake_token: 0,
            events: VecDeque::new(),
            commands: HashMap::new(),
            next_command: 0,
            reports,
            owed: Vec::new(),
            stopping: None,
            disk_limit_ms,
            release: Millis(0),
        })
    }

    pub(super) fn run(mut self) {
        let result = self.serve().map_err(|e| e.to_string());
        if let Err(why) = &result {
            tracing::error!(why, "the mirror's loop failed");
        }
        // The agent may be gone, too.
        let _ = self.reports.try_send(Report::Ended(result));
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut done = Vec::new();
        self.listen_for_wakes();
        self.net_do(Net::accept);
        loop {
            self.take_orders(self.now);
            self.expire(self.now);
            self.dispatch();
            self.net_do(Net::flush);
            self.look_after_front_end(self.now);
            self.tell_owed();
            self.release_memory();
            if self.is_stopped(self.now) {
                return Ok(());
            }
            self.wait(&mut done)?;
            for (owner, cqe) in done.drain(..) {
                self.complete(owner, cqe);
            }
        }
    }

    fn wait(&mut self, done: &mut Vec<(Owner, Completion)>) -> io::Result<()> {
        let limit = self.wait_limit();
        let (_, begun) = now_and_micros();
        let under_way = self.data.under_way().max(self.count.sent_writes());
        let what = match under_way {
            0 if self.front.is_some() => For::Application,
            0 => For::Peer,
            _ if self.data.is_flushing() => For::Thread,
            _ => For::Operation,
        };
        let awake = match self.patience.awake(what, under_way) {
            Some(awake) => Some(self.ring.wait_awake(awake, limit, done)?),
            None => self.ring.wait(limit, done).map(|()| None)?,
        };
        (self.now, self.micros) = now_and_micros();
        self.patience.waited(what, self.micros.saturating_sub(begun), awake);
        Ok(())
    }

    /// How long the ring may be waited for.
    fn wait_limit(&mut self) -> Option<Duration> {
        let front = self.front.as_ref().and_then(|f| f.closing.as_ref()?.deadline);
        let owed = (!self.owed.is_empty()).then(|| now().mono.plus(OWED_RETRY_MS));
        let deadline = [
            owed,
            self.machine.deadline(),
            self.data.deadline(),
            self.cluster.deadline(),
            self.net.deadline(),
            front,
            self.stopping,
        ]
        .into_iter()
        .flatten()
        .min()?;
        let now = now().mono;
        Some(Duration::from_millis(deadline.since(now)).max(MIN_WAIT))
    }

    fn complete(&mut self, owner: Owner, cqe: Completion) {
        match owner {
            Owner::DATA => {
                self.data_do(|disk, cx| disk.on_cqe(&cqe, cx));
                self.give_back();
            }
            Owner::META => self.cluster_do(|disk, cx| disk.on_cqe(&cqe, cx)),
            Owner::NET => self.net_do(|net, cx| net.on_cqe(&cqe, cx)),
            Owner::FRONT_END => {
                self.leftovers_do(|end, ring| end.on_cqe(cqe.clone(), ring, &mut Vec::new()));
                self.front_do(|end, ring, out| end.on_cqe(cqe, ring, out));
            }
            _ => {
                self.wake.take(&cqe);
                if self.stopping.is_none() {
                    self.listen_for_wakes();
                }
            }
        }
    }

    fn expire(&mut self, now: Now) {
        self.data_do(Disk::expire);
        self.cluster_do(Disk::expire);
        self.net_do(Net::expire);
        if self.machine.deadline().is_some_and(|d| d <= now.mono) {
            self.events.push_back(Event::Timer);
        }
    }

    /// Hands all events to the machine and carries out what it wants.
    fn dispatch(&mut self) {
        let mut actions = Vec::new();
        while let Some(event) = self.events.pop_front() {
            self.count.event(&event, self.micros);
            self.hear_beat(&event);
            if is_measured(&event) {
                let capacity = self.data.measured().usable(self.cluster.measured());
                self.machine.handle(self.now, Event::Measured { capacity }, &mut actions);
            }
            self.machine.handle(self.now, event, &mut actions);
            for action in actions.drain(..) {
                self.count.action(&action, self.micros);
                self.perform(action);
            }
        }
    }

    /// At each heartbeat the kernel is asked how long the way to the peer and back takes.
    fn hear_beat(&mut self, event: &Event) {
        if let Event::Frame { conn, frame: Frame { message: Message::Beat(_), .. } } = event {
            if let Some(us) = self.net.round_trip_us(*conn) {
                self.count.figures.round_trip.add(us);
            }
        }
    }

    /// Everything that is counted, gathered from those who count it.
    fn figures(&mut self, take_peaks: bool) -> Box<Figures> {
        let figures = &mut self.count.figures;
        figures.disk.clone_from(self.data.operations());
        figures.cluster.clone_from(&self.cluster.operations().write);
        self.net.tell_figures(figures);
        figures.waits = self.machine.waits();
        let told = figures.clone();
        if take_peaks {
            figures.take_peaks();
            self.net.take_peaks();
        }
        told
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Data { io, op, extent } => {
                let lent = self.lend((io, &op));
                self.data_do(|disk, cx| disk.start((io, op, extent), lent, cx));
                self.give_back();
            }
            Action::Meta { io, offset, bytes } => {
                let extent = Extent::new(offset, bytes.len() as u64);
                let op = DataOp::Write { data: bytes, durable: true };
                self.cluster_do(|disk, cx| disk.start((io, op, extent), None, cx));
            }
            Action::Complete { id, result } => self.answer(id, result),
            Action::Send { conn, frame } => self.net_do(|net, cx| net.send(conn, &frame, cx)),
            Action::Close { conn, why } => self.net_do(|net, cx| net.close(conn, &why, cx)),
            Action::Dial => self.net_do(Net::dial),
            Action::Reply { id, result } => {
                if let Some(answer) = self.commands.remove(&id) {
                    let _ = answer.send(result); // whoever asked may be gone
                }
            }
            Action::FailDevice => {
                self.failed = true;
                self.data.end_loans();
                self.front_do(|end, ring, _| end.fail(ring));
                self.owe(Report::DeviceFailed);
            }
            Action::Grow { size } => self.grow(size),
            Action::TellPeerBehind { session } => self.owe(Report::TellPeerBehind { session }),
            // What is done in an emergency hangs on these.
            Action::Notice(notice @ (Notice::ErrorRecorded { .. } | Notice::BothActive)) => {
                self.owe(Report::Notice(notice));
            }
            Action::Notice(notice) => self.report(notice),
        }
    }

    /// The mirror has this size; the device, if one is open, is the agent's to make larger.
    fn grow(&mut self, size: u64) {
        self.size = size;
        self.front_do(|end, _, _| end.grow(size));
        if self.front.is_some() && size > self.opened_with {
            self.opened_with = size;
            self.owe(Report::Grown(size));
        }
    }

    /// The memory of the request that a read is for, if the bytes can go straight there. Of a disk
    /// that hangs nobody knows when the memory would come back.
    fn lend(&mut self, (io, op): (IoId, &DataOp)) -> Option<Lent> {
        if *op != DataOp::Read || self.data.hangs() {
            return None;
        }
        let request = self.machine.read_for(io)?;
        let place = self.front.as_mut()?.end.lend(request)?;
        Some(Lent { request, place })
    }

    /// Gives back the memory of requests that no read uses any more.
    fn give_back(&mut self) {
        for request in self.data.take_returned() {
            self.leftovers_do(|end, ring| end.given_back(request, ring));
            self.front_do(|end, ring, _| end.given_back(request, ring));
        }
    }

    fn answer(&mut self, id: RequestId, result: Result<Option<Buf>, RequestError>) {
        self.front_do(|end, ring, out| end.complete(id, result, ring, out));
    }

    fn report(&mut self, notice: Notice) {
        self.tell(Report::Notice(notice));
    }

    fn tell(&mut self, report: Report) {
        if let Err(e) = self.reports.try_send(report) {
            tracing::warn!(error = %e, "a notice to the agent was dropped");
        }
    }

    /// Remembers a report until the agent has it; a newer one of its kind takes its place.
    fn owe(&mut self, report: Report) {
        self.owed.retain(|r| !is_same_kind(r, &report));
        self.owed.push(report);
    }

    fn tell_owed(&mut self) {
        use mpsc::error::TrySendError::Full;
        let reports = &self.reports;
        self.owed.retain(|r| matches!(reports.try_send(r.clone()), Err(Full(_))));
    }

    fn release_memory(&mut self) {
        if self.release <= self.now.mono {
            self.release = self.now.mono.plus(RELEASE_MS);
            buf::release_unused();
        }
    }

    fn take_orders(&mut self, now: Now) {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Command(command, answer)) => self.command(command, answer),
                Ok(Order::Status(answer)) => {
                    let _ = answer.send(self.machine.status(now)); // whoever asked may be gone
                }
                Ok(Order::Marked(limit, answer)) => {
                    let _ = answer.send(self.machine.marked(limit)); // whoever asked may be gone
                }
                Ok(Order::Figures(take_peaks, answer)) => {
                    let _ = answer.send(self.figures(take_peaks)); // whoever asked may be gone
                }
                Ok(Order::OpenFrontEnd(spec, answer)) => self.open_front_end(&spec, answer),
                Ok(Order::CloseFrontEnd(answer)) => self.close_front_end(Some(answer), now.mono),
                Ok(Order::Leave) => {
                    self.data.end_loans();
                    self.front = None;
                    self.stop(now.mono);
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => self.stop(now.mono),
                Err(TryRecvError::Empty) => return,
            }
            if self.stopping.is_some() {
                return;
            }
        }
    }

    fn command(&mut self, command: Command, answer: oneshot::Sender<Result<Done, Refusal>>) {
        self.next_command += 1;
        let id = CommandId(self.next_command);
        self.commands.retain(|_, waiting| !waiting.is_closed());
        self.commands.insert(id, answer);
        self.events.push_back(Event::Command { id, command });
    }

    fn open_front_end(&mut self, spec: &FrontEndSpec, answer: oneshot::Sender<io::Result<()>>) {
        match self.start_front_end(spec) {
            Ok(end) => self.front = Some(Front { end, opening: Some(answer), closing: None }),
            Err(e) => {
                let _ = answer.send(Err(e)); // whoever asked may be gone
            }
        }
    }

    fn start_front_end(&mut self, spec: &FrontEndSpec) -> io::Result<Box<dyn FrontEnd>> {
        memory::ready_for(spec);
        if self.front.is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a front end is open"));
        }
        let (mut end, is_old): (Box<dyn FrontEnd>, bool) = match spec {
            FrontEndSpec::NbdSocket { path, export } => {
                (Box::new(NbdServer::new(path, export.clone())), false)
            }
            FrontEndSpec::NbdKernel { socket, export, take_over } => {
                let sockets = vec![socket.try_clone()?];
                (Box::new(NbdServer::connected(sockets, export.clone())), *take_over)
            }
            FrontEndSpec::Ublk { device, export } => {
                (Box::new(UblkServer::new(*device, export.clone())), device.take_over)
            }
        };
        self.failed &= is_old;
        // An earlier agent may not have come to make it larger.
        self.opened_with = if is_old { 0 } else { spec.export().size };
        if is_old && self.size > 0 {
            self.owe(Report::Grown(self.size));
        }
        self.count.forget_requests();
        end.start(&mut self.ring.owner(Owner::FRONT_END))?;
        if self.failed {
            end.fail(&mut self.ring.owner(Owner::FRONT_END));
        }
        Ok(end)
    }

    fn close_front_end(&mut self, answer: Option<oneshot::Sender<()>>, now: Millis) {
        let Some(front) = &mut self.front else {
            answer.map(|a| a.send(())); // there is nothing to close
            return;
        };
        let closing = front.closing.get_or_insert_with(|| {
            front.end.stop(&mut self.ring.owner(Owner::FRONT_END));
            Closing { answers: Vec::new(), deadline: Some(now.plus(FRONT_END_LIMIT_MS)) }
        });
        closing.answers.extend(answer);
    }

    fn look_after_front_end(&mut self, now: Now) {
        self.look_after_opening(now);
        self.hear_complaints();
        let Some(front) = &mut self.front else { return };
        let Some(closing) = &mut front.closing else { return };
        if closing.deadline.is_some_and(|d| d <= now.mono) {
            closing.deadline = None;
            self.data.end_loans();
            front.end.stop(&mut self.ring.owner(Owner::FRONT_END));
        }
        if front.end.is_stopped() {
            for answer in closing.answers.drain(..) {
                let _ = answer.send(()); // whoever asked may be gone
            }
            let rest = self.front.take().filter(|front| !front.end.is_over());
            self.leftovers.extend(rest.map(|front| front.end));
            self.count.forget_requests();
        }
    }

    fn look_after_opening(&mut self, now: Now) {
        let Some(front) = &mut self.front else { return };
        if front.opening.is_none() {
            return;
        }
        if front.closing.is_some() {
            front.opening = None; // whoever waits is told by that
            return;
        }
        let Some(opened) = front.end.opened() else { return };
        let failed = opened.is_err();
        if let Some(answer) = front.opening.take() {
            let _ = answer.send(opened); // whoever asked may be gone
        }
        if failed {
            self.close_front_end(None, now.mono);
        }
    }

    fn hear_complaints(&mut self) {
        let front = self.front.iter_mut().map(|front| &mut front.end);
        let all = front.chain(&mut self.leftovers);
        let said: Vec<_> = all.flat_map(|end| std::iter::from_fn(|| end.complaint())).collect();
        for what in said {
            tracing::error!("{what}");
            self.tell(Report::FrontEnd(what));
        }
    }

    fn stop(&mut self, now: Millis) {
        if self.stopping.is_none() {
            // What is lent to a disk that hangs must be answered before: nobody could later.
            self.stopping = Some(now.plus(self.disk_limit_ms.max(FRONT_END_LIMIT_MS + 1000)));
            self.close_front_end(None, now);
            self.net_do(Net::stop);
            self.ring.owner(Owner::WAKE).cancel(self.wake_token);
        }
    }

    fn is_stopped(&self, now: Now) -> bool {
        self.stopping.is_some_and(|limit| {
            let closed = self.front.is_none() && self.net.is_stopped();
            let idle = self.data.is_idle() && self.cluster.is_idle() && self.wake.is_empty();
            (closed && idle) || limit <= now.mono
        })
    }

    fn listen_for_wakes(&mut self) {
        let file = self.eventfd.clone();
        let op = Op::Read { file, offset: 0, buf: BufMut::zeroed(8), range: 0..8 };
        self.wake_token = self.wake.submit(op, (), &mut self.ring.owner(Owner::WAKE));
    }

    fn data_do(&mut self, work: impl FnOnce(&mut Disk, &mut Cx<'_>)) {
        let mut ring = self.ring.owner(Owner::DATA);
        let out = &mut self.events;
        work(
            &mut self.data,
            &mut Cx { now: self.now.mono, micros: self.micros, ring: &mut ring, out },
        );
    }

    fn cluster_do(&mut self, work: impl FnOnce(&mut Disk, &mut Cx<'_>)) {
        let mut ring = self.ring.owner(Owner::META);
        let out = &mut self.events;
        work(
            &mut self.cluster,
            &mut Cx { now: self.now.mono, micros: self.micros, ring: &mut ring, out },
        );
    }

    fn net_do(&mut self, work: impl FnOnce(&mut Net, &mut Cx<'_>)) {
        let mut ring = self.ring.owner(Owner::NET);
        let out = &mut self.events;
        work(
            &mut self.net,
            &mut Cx { now: self.now.mono, micros: self.micros, ring: &mut ring, out },
        );
        for note in self.net.take_notes() {
            // Full: what the agent does not take, it has enough of.
            let _ = self.reports.try_send(Report::Net(note));
        }
    }

    fn leftovers_do(&mut self, work: impl Fn(&mut dyn FrontEnd, &mut dyn Submitter)) {
        let ring = &mut self.ring.owner(Owner::FRONT_END);
        self.leftovers.iter_mut().for_each(|end| work(end.as_mut(), ring));
        self.leftovers.retain(|end| !end.is_over());
    }

    fn front_do(
        &mut self,
        work: impl FnOnce(&mut dyn FrontEnd, &mut dyn Submitter, &mut Vec<Request>),
    ) {
        if let Some(front) = &mut self.front {
            let mut requests = Vec::new();
            work(front.end.as_mut(), &mut self.ring.owner(Owner::FRONT_END), &mut requests);
            self.events.extend(requests.into_iter().map(Event::Request));
        }
    }
}

/// Before it the partitions are measured: a card, or a growth, is about to follow from it.
fn is_measured(event: &Event) -> bool {
    matches!(event, Event::PeerReady { .. } | Event::Command { command: Command::Resize, .. })
}

fn is_same_kind(a: &Report, b: &Report) -> bool {
    use std::mem::discriminant;
    match (a, b) {
        (Report::Notice(a), Report::Notice(b)) => discriminant(a) == discriminant(b),
        _ => discriminant(a) == discriminant(b),
    }
}

#[cfg(test)]
mod tests {
    use super::{Notice, Report, is_same_kind};
    use mirror_core::units::SessionNo;

    /// Of what waits for the agent, only a newer one of its own kind takes a report's place.
    #[test]
    fn emergencies_do_not_replace_each_other() {
        let recorded = |durable| Report::Notice(Notice::ErrorRecorded { durable });
        let both = Report::Notice(Notice::BothActive);
        let behind = |n| Report::TellPeerBehind { session: SessionNo(n) };
        assert!(is_same_kind(&recorded(true), &recorded(false)));
        assert!(is_same_kind(&behind(1), &behind(2)));
        assert!(!is_same_kind(&recorded(true), &both));
        assert!(!is_same_kind(&both, &behind(1)));
    }
}
