//! One mirror whose disks answer at once, and a peer played by the test.

use mirror_core::command::Command;
use mirror_core::io::{Action, CommandId, ConnId, Event, Request};
use mirror_core::marks::Marks;
use mirror_core::mirror::{Mirror, Setup, Tuning};
use mirror_core::record::{Card, Record};
use mirror_core::units::{Id16, Now, SessionNo, regions_in};
use mirror_core::wire::{Frame, Message, PeerHello};

pub(crate) const CAPACITY: u64 = 64 << 20;
const CONN: ConnId = ConnId(7);

pub(crate) struct Rig {
    mirror: Mirror,
    sent: Vec<Message>,
    /// Answers to requests and commands, and orders to the front end, as they would be printed.
    pub(crate) said: Vec<String>,
}

impl Rig {
    pub(crate) fn new(record: Record) -> Self {
        Self::tuned(record, Tuning::default())
    }

    pub(crate) fn tuned(record: Record, tuning: Tuning) -> Self {
        let marks = record.generation.map(|_| Marks::blank(regions_in(record.size), record.device));
        let setup = Setup {
            record,
            fresh: false,
            marks,
            capacity: CAPACITY,
            device_block: 512,
            boot: Id16([3; 16]),
            resume: false,
            seed: [5; 32],
            tuning,
        };
        Self { mirror: Mirror::new(setup, Now::default()), sent: Vec::new(), said: Vec::new() }
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
            self.mirror.handle(Now::default(), event, &mut out);
            for action in out {
                match action {
                    Action::Data { io, .. } => {
                        events.push(Event::DataDone { io, result: Ok(None) });
                    }
                    Action::Meta { io, .. } => events.push(Event::MetaDone { io, result: Ok(()) }),
                    Action::Send { frame, .. } => self.sent.push(frame.message),
                    Action::FailDevice => self.said.push("device fails".to_owned()),
                    Action::Complete { result, .. } => self.said.push(format!("{result:?}")),
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
