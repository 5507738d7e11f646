//! One mirror whose disks answer at once, and a peer played by the test.

use mirror_core::buf::Buf;
use mirror_core::command::Command;
use mirror_core::io::{
    Action, CommandId, ConnId, DataOp, Event, IoId, Notice, Request, RequestId, RequestOp,
};
use mirror_core::marks::Marks;
use mirror_core::mirror::{Mirror, Setup, Tuning};
use mirror_core::record::{Card, Record};
use mirror_core::status::{CopyKind, MirrorStatus};
use mirror_core::units::{Extent, Id16, Millis, Now, SessionNo, regions_in};
use mirror_core::wire::{Frame, Message, PeerHello};

pub(crate) const CAPACITY: u64 = 64 << 20;
pub(crate) const BOOT: Id16 = Id16([3; 16]);
const CONN: ConnId = ConnId(7);

/// The first block is written.
pub(crate) fn write(id: u64) -> Request {
    let op = RequestOp::Write(Buf::copied_from(&[7; 4096]));
    Request { id: RequestId(id), op, extent: Extent::new(0, 4096), fua: false }
}

pub(crate) fn flush(id: u64) -> Request {
    Request { id: RequestId(id), op: RequestOp::Flush, extent: Extent::default(), fua: false }
}

pub(crate) struct Rig {
    mirror: Mirror,
    now: Now,
    sent: Vec<Message>,
    /// The cluster partition is slow: its writes end when it is not any more.
    pub(crate) slow_meta: bool,
    late: Vec<IoId>,
    /// How often it wanted its peer to be told that that one is behind.
    pub(crate) told_peer: usize,
    /// Bytes that are read for a request go straight there.
    pub(crate) straight: bool,
    /// For whom each read was.
    pub(crate) reads: Vec<Option<RequestId>>,
    /// Recoveries that began and ended, by kind.
    pub(crate) began: Vec<CopyKind>,
    pub(crate) finished: Vec<(CopyKind, bool)>,
    /// Why connections were closed.
    pub(crate) closed: Vec<String>,
    /// Answers to requests and commands, and orders to the front end, as they would be printed.
    pub(crate) said: Vec<String>,
}

impl Rig {
    pub(crate) fn new(record: Record) -> Self {
        Self::tuned(record, Tuning::default())
    }

    pub(crate) fn tuned(record: Record, tuning: Tuning) -> Self {
        Self::start(record, &[], tuning, false)
    }

    /// The front end has found a device, and `marked` regions are marked.
    pub(crate) fn resuming(record: Record, marked: &[u32], tuning: Tuning) -> Self {
        let mut rig = Self::start(record, marked, tuning, true);
        rig.handle(Event::Timer);
        rig
    }

    fn start(record: Record, marked: &[u32], tuning: Tuning, resume: bool) -> Self {
        let marks = record.generation.map(|_| {
            let mut marks = Marks::blank(regions_in(record.size), record.device);
            marked.iter().for_each(|r| marks.set(*r..r + 1));
            while let Some(write) = marks.next_write() {
                marks.write_done(write.block, true);
            }
            marks
        });
        let setup = Setup {
            record,
            fresh: false,
            marks,
            capacity: CAPACITY,
            device_block: 512,
            boot: BOOT,
            resume,
            seed: [5; 32],
            tuning,
        };
        Self {
            mirror: Mirror::new(setup, Now::default()),
            now: Now::default(),
            sent: Vec::new(),
            slow_meta: false,
            late: Vec::new(),
            told_peer: 0,
            straight: false,
            reads: Vec::new(),
            began: Vec::new(),
            finished: Vec::new(),
            closed: Vec::new(),
            said: Vec::new(),
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.mirror.is_active()
    }

    pub(crate) fn status(&self) -> MirrorStatus {
        self.mirror.status(self.now)
    }

    /// Marked regions, without contact.
    pub(crate) fn marked(&self) -> Option<u32> {
        let status = self.status();
        status.sides[status.local].marked_regions
    }

    /// Lets time pass: each deadline that the mirror has named brings a timer.
    pub(crate) fn wait(&mut self, ms: u64) {
        let until = self.now.mono.plus(ms);
        while let Some(due) = self.mirror.deadline().filter(|due| *due <= until) {
            self.now.mono = due.max(Millis(self.now.mono.0 + 1));
            self.handle(Event::Timer);
        }
        self.now.mono = until;
    }

    /// The cluster partition catches up.
    pub(crate) fn end_meta(&mut self) {
        self.slow_meta = false;
        for io in std::mem::take(&mut self.late) {
            self.handle(Event::MetaDone { io, result: Ok(()) });
        }
    }

    /// A part of a frame arrives.
    pub(crate) fn hear(&mut self) {
        self.handle(Event::Heard { conn: CONN });
    }

    pub(crate) fn lose_peer(&mut self) {
        self.handle(Event::PeerGone { conn: CONN });
    }

    /// The card that it has shown last.
    pub(crate) fn shown(&self) -> Option<Card> {
        self.sent_last(|message| match message {
            Message::Card(card) => Some((**card).clone()),
            _ => None,
        })
    }

    /// Of the messages that it has sent, the last that `pick` makes something of.
    pub(crate) fn sent_last<T>(&self, pick: impl Fn(&Message) -> Option<T>) -> Option<T> {
        self.sent.iter().rev().find_map(pick)
    }

    pub(crate) fn record(&self) -> &Record {
        self.mirror.record()
    }

    /// The card that it would show.
    pub(crate) fn card(&self) -> Card {
        let mut twin = Self::new(self.record().clone());
        twin.connect();
        let card = twin.sent.into_iter().find_map(|message| match message {
            Message::Card(card) => Some(*card),
            _ => None,
        });
        card.expect("it shows a card")
    }

    /// One event, and the disks' answers to all that comes of it.
    fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut out = Vec::new();
            self.mirror.handle(self.now, event, &mut out);
            for action in out {
                match action {
                    Action::Data { io, op, extent } => {
                        let len = usize::try_from(extent.len).expect("small");
                        let request = self.mirror.read_for(io);
                        let elsewhere = self.straight && request.is_some();
                        let data = (op == DataOp::Read && !elsewhere)
                            .then(|| Buf::copied_from(&vec![0; len]));
                        if op == DataOp::Read {
                            self.reads.push(request);
                        }
                        events.push(Event::DataDone { io, result: Ok(data) });
                    }
                    Action::Meta { io, .. } if self.slow_meta => self.late.push(io),
                    Action::Notice(Notice::Resumed) => self.said.push("resumed".to_owned()),
                    Action::Notice(Notice::NotResumed { why }) => {
                        self.said.push(format!("not resumed: {why}"));
                    }
                    Action::Notice(Notice::RecoveryStarted { kind, .. }) => self.began.push(kind),
                    Action::Notice(Notice::RecoveryFinished { kind, source }) => {
                        self.finished.push((kind, source));
                    }
                    Action::Meta { io, .. } => events.push(Event::MetaDone { io, result: Ok(()) }),
                    Action::Send { frame, .. } => self.sent.push(frame.message),
                    Action::Close { why, .. } => self.closed.push(why),
                    Action::FailDevice => self.said.push("device fails".to_owned()),
                    Action::Complete { result, .. } => {
                        self.said.push(format!("{:?}", result.map(|_| ())));
                    }
                    Action::TellPeerBehind { .. } => self.told_peer += 1,
                    Action::Reply { result, .. } => self.said.push(format!("{result:?}")),
                    _ => {}
                }
            }
        }
    }

    /// Whether it has sent a message that `pick` takes.
    pub(crate) fn has_sent(&self, pick: impl Fn(&Message) -> bool) -> bool {
        self.sent.iter().any(pick)
    }

    /// What it sends before any write to the cluster partition has ended.
    pub(crate) fn sends_at_once(&mut self, message: Message) -> Vec<Message> {
        let frame = Frame { session: SessionNo(0), settled: 0, message };
        let mut out = Vec::new();
        self.mirror.handle(Now::default(), Event::Frame { conn: CONN, frame }, &mut out);
        let sent = out.into_iter().filter_map(|action| match action {
            Action::Send { frame, .. } => Some(frame.message),
            _ => None,
        });
        sent.collect()
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.handle(Event::Command { id: CommandId(1), command });
    }

    pub(crate) fn request(&mut self, request: Request) {
        self.handle(Event::Request(request));
    }

    pub(crate) fn connect(&mut self) {
        let side = self.record().side;
        let hello = PeerHello { side: side.other(), version: 1 };
        let dialled = side.index() == 0;
        self.handle(Event::PeerReady { conn: CONN, dialled, hello });
    }

    pub(crate) fn receive(&mut self, session: u64, message: Message) {
        let frame = Frame { session: SessionNo(session), settled: 0, message };
        self.handle(Event::Frame { conn: CONN, frame });
    }

    /// The first server's way into session `number` with a peer that shows `theirs`.
    pub(crate) fn open(&mut self, theirs: Card, number: u64) {
        self.connect();
        self.agree_with(theirs);
        self.receive(0, Message::Offer { session: SessionNo(number) });
        self.receive(0, Message::Opened { session: SessionNo(number) });
    }

    /// The peer answers every copy and flush, those that follow, too.
    pub(crate) fn answer_copies(&mut self, session: u64) {
        let mut answered = 0;
        while let Some(n) = (answered..self.sent.len())
            .find(|n| matches!(self.sent[*n], Message::Copy { .. } | Message::Flush { .. }))
        {
            answered = n + 1;
            if let Message::Copy { id, .. } | Message::Flush { id } = self.sent[n] {
                self.receive(session, Message::Ack { id, ok: true });
            }
        }
    }

    /// The peer shows its card and comes to the same verdict.
    pub(crate) fn agree_with(&mut self, theirs: Card) {
        self.receive(0, Message::Card(Box::new(theirs)));
        let row = self.sent.iter().rev().find_map(|message| match message {
            Message::Verdict { row } => Some(*row),
            _ => None,
        });
        self.receive(0, Message::Verdict { row: row.expect("it judged") });
    }
}
