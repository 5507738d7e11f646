//! One mirror whose data partition answers when the test says so, and a peer played by the test.

use mirror_core::buf::{Buf, BufMut};
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::direction::judge;
use mirror_core::disk::layout::BITMAP;
use mirror_core::io::{
    Action, CommandId, ConnId, DataOp, Event, IoFailure, IoId, Notice, Request, RequestError,
    RequestId, RequestOp,
};
use mirror_core::marks::Marks;
use mirror_core::mirror::{Mirror, Setup, Tuning};
use mirror_core::record::{Card, Record};
use mirror_core::units::{Extent, Generation, Id16, Millis, Now, SessionNo, Side, regions_in};
use mirror_core::wire::{Frame, Message, PeerHello};

pub(crate) const SIZE: u64 = 8 << 20;
const CONN: ConnId = ConnId(7);

/// What one side of a mirror in sync has recorded.
pub(crate) fn constructed(side: Side) -> Record {
    let mut record = Record::blank(Id16([4; 16]), side);
    record.mirror = Id16([9; 16]);
    record.size = SIZE;
    record.block = 512;
    record.generation = Generation::new(1);
    record.bases = [record.generation, None];
    record.session = SessionNo(10);
    record
}

pub(crate) struct Rig {
    mirror: Mirror,
    now: Now,
    side: Side,
    next_id: u64,
    /// Bytes of the data partition of the peer.
    pub(crate) room: u64,
    /// What the data partition has not answered yet, oldest first.
    pub(crate) data: Vec<(IoId, DataOp, Extent)>,
    pub(crate) sent: Vec<Message>,
    pub(crate) completed: Vec<(RequestId, Result<Option<Buf>, RequestError>)>,
    pub(crate) replies: Vec<(CommandId, Result<Done, Refusal>)>,
    /// Sessions as of which the peer is to be told that it is behind.
    pub(crate) told: Vec<SessionNo>,
    /// Writes to the cluster partition fail from now on.
    pub(crate) cluster_fails: bool,
    /// Writes to the cluster partition do not end.
    pub(crate) cluster_waits: bool,
    waiting: Vec<IoId>,
    /// What was said after a disk error: whether it is recorded.
    pub(crate) errors_recorded: Vec<bool>,
    /// How often it was said that both sides are active.
    pub(crate) both_active: u32,
    /// How often the peer broke the protocol.
    pub(crate) faults: u32,
    /// How often a record was not written since it could not be read back.
    pub(crate) bad_records: u32,
    /// Writes to the copies of the record.
    pub(crate) record_writes: u32,
}

impl Rig {
    pub(crate) fn new(record: Record) -> Self {
        Self::with(record, Tuning::default())
    }

    pub(crate) fn with(record: Record, tuning: Tuning) -> Self {
        let side = record.side;
        let marks = Some(Marks::blank(regions_in(record.size), record.device));
        let setup = Setup {
            record,
            fresh: false,
            marks,
            capacity: SIZE,
            device_block: 512,
            boot: Id16([3; 16]),
            resume: false,
            seed: [5; 32],
            tuning,
        };
        let now = Now { mono: Millis(1), wall: 1 };
        let mut rig = Self {
            mirror: Mirror::new(setup, now),
            now,
            side,
            next_id: 0,
            room: SIZE,
            data: Vec::new(),
            sent: Vec::new(),
            completed: Vec::new(),
            replies: Vec::new(),
            told: Vec::new(),
            cluster_fails: false,
            cluster_waits: false,
            waiting: Vec::new(),
            errors_recorded: Vec::new(),
            both_active: 0,
            faults: 0,
            bad_records: 0,
            record_writes: 0,
        };
        rig.handle(Event::Timer);
        rig
    }

    /// Active without contact, since the peer has confirmed that it is behind.
    pub(crate) fn active_alone() -> Self {
        let mut record = constructed(Side::First);
        record.peer_behind = true;
        let mut rig = Self::new(record);
        let id = rig.command(Command::Activate { peer_down: false, peer_seen_active: None });
        assert_eq!(rig.replies, [(id, Ok(Done::Activated))]);
        rig
    }

    /// In a session with a peer in sync.
    pub(crate) fn in_session() -> Self {
        let mut rig = Self::new(constructed(Side::First));
        rig.open_session();
        rig
    }

    /// Active, in a session with a peer in sync.
    pub(crate) fn active() -> Self {
        let mut rig = Self::in_session();
        rig.command(Command::Activate { peer_down: false, peer_seen_active: None });
        let number = rig.asked().expect("the peer is asked");
        rig.receive(11, Message::ActivateGrant { number });
        assert!(rig.mirror.is_active());
        rig
    }

    /// The number that the peer was asked to grant last.
    pub(crate) fn asked(&self) -> Option<mirror_core::units::ActivationNo> {
        self.sent.iter().rev().find_map(|m| match m {
            Message::ActivateAsk { number } => Some(*number),
            _ => None,
        })
    }

    /// Regions that are marked here.
    pub(crate) fn marked(&self) -> u64 {
        self.mirror.marked(usize::MAX).bytes >> 16
    }

    /// Whether the byte at `offset` counts as different.
    pub(crate) fn is_marked(&self, offset: u64) -> bool {
        let ranges = self.mirror.marked(usize::MAX).ranges;
        ranges.iter().any(|r| (r.offset..r.offset + r.len).contains(&offset))
    }

    pub(crate) fn record(&self) -> &Record {
        self.mirror.record()
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut out = Vec::new();
            self.mirror.handle(self.now, event, &mut out);
            for action in out {
                match action {
                    Action::Data { io, op, extent } => self.data.push((io, op, extent)),
                    Action::Meta { io, .. } if self.cluster_waits => self.waiting.push(io),
                    Action::Meta { io, offset, .. } => {
                        self.record_writes += u32::from(offset < BITMAP);
                        let failed = Err(IoFailure::Errno(5));
                        let result = if self.cluster_fails { failed } else { Ok(()) };
                        events.push(Event::MetaDone { io, result });
                    }
                    Action::Send { frame, .. } => self.sent.push(frame.message),
                    Action::Complete { id, result } => self.completed.push((id, result)),
                    Action::Reply { id, result } => self.replies.push((id, result)),
                    Action::TellPeerBehind { session } => self.told.push(session),
                    Action::Notice(Notice::BothActive) => self.both_active += 1,
                    Action::Notice(Notice::Protocol(_)) => self.faults += 1,
                    Action::Notice(Notice::BadRecord(_)) => self.bad_records += 1,
                    Action::Notice(Notice::ErrorRecorded { durable }) => {
                        self.errors_recorded.push(durable);
                    }
                    _ => {}
                }
            }
        }
    }

    pub(crate) fn waits(&self) -> mirror_core::status::Waits {
        self.mirror.waits()
    }

    /// The peer has ended the newest write, flush or copy that was sent to it.
    pub(crate) fn acks(&mut self, session: u64) {
        let id = self.sent.iter().rev().find_map(|m| match m {
            Message::Write { id, .. } | Message::Flush { id } | Message::Copy { id, .. } => {
                Some(*id)
            }
            _ => None,
        });
        self.receive(session, Message::Ack { id: id.expect("something was sent"), ok: true });
    }

    /// Both disks end what is asked of them, until nothing is; reads bring `block`.
    pub(crate) fn all_goes_well(&mut self, session: u64, block: &Buf) {
        let mut seen = 0;
        loop {
            while let Some((_, op, _)) = self.data.first() {
                let bytes = matches!(op, DataOp::Read).then(|| block.clone());
                self.data_ends(Ok(bytes));
            }
            let Some(message) = self.sent.get(seen) else { return };
            seen += 1;
            if let Message::Write { id, .. } | Message::Flush { id } | Message::Copy { id, .. } =
                *message
            {
                self.receive(session, Message::Ack { id, ok: true });
            }
        }
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus(ms);
        self.handle(Event::Timer);
    }

    pub(crate) fn command(&mut self, command: Command) -> CommandId {
        self.next_id += 1;
        let id = CommandId(self.next_id);
        self.handle(Event::Command { id, command });
        id
    }

    fn request(&mut self, op: RequestOp, extent: Extent) -> RequestId {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        self.handle(Event::Request(Request { id, op, extent, fua: false }));
        id
    }

    pub(crate) fn write(&mut self, offset: u64) -> RequestId {
        let data = BufMut::zeroed(512).freeze();
        self.request(RequestOp::Write(data), Extent::new(offset, 512))
    }

    pub(crate) fn read(&mut self, offset: u64) -> RequestId {
        self.request(RequestOp::Read, Extent::new(offset, 512))
    }

    /// The oldest operation on the data partition ends.
    pub(crate) fn data_ends(&mut self, result: Result<Option<Buf>, IoFailure>) {
        let (io, ..) = self.data.remove(0);
        self.handle(Event::DataDone { io, result });
    }

    /// What has waited for the cluster partition goes on.
    pub(crate) fn cluster_goes_on(&mut self) {
        self.cluster_waits = false;
        for io in std::mem::take(&mut self.waiting) {
            self.handle(Event::MetaDone { io, result: Ok(()) });
        }
    }

    pub(crate) fn connect(&mut self) {
        let hello = PeerHello { side: self.side.other(), version: 1 };
        self.handle(Event::PeerReady { conn: CONN, dialled: self.side.index() == 0, hello });
    }

    pub(crate) fn disconnect(&mut self) {
        self.handle(Event::PeerGone { conn: CONN });
    }

    pub(crate) fn receive(&mut self, session: u64, message: Message) {
        let frame = Frame { session: SessionNo(session), settled: 0, message };
        self.handle(Event::Frame { conn: CONN, frame });
    }

    pub(crate) fn card(&self) -> Option<&Card> {
        self.sent.iter().rev().find_map(|m| match m {
            Message::Card(card) => Some(&**card),
            _ => None,
        })
    }

    /// A peer in sync comes to the same verdict.
    pub(crate) fn agree(&mut self) {
        self.meet(constructed(self.side.other()), false);
    }

    /// A peer with this card comes to the same verdict.
    pub(crate) fn meet(&mut self, record: Record, active: bool) {
        self.connect();
        let theirs = Card {
            record,
            active,
            uninterrupted: true,
            wants_recovery: true,
            apart: false,
            rejoins: false,
            capacity: self.room,
            device_block: 512,
            marked: 0,
        };
        let row = judge(self.card().expect("it shows a card"), &theirs).row as u8;
        self.receive(0, Message::Card(Box::new(theirs)));
        self.receive(0, Message::Verdict { row });
    }

    fn open_session(&mut self) {
        self.agree();
        self.receive(0, Message::Offer { session: SessionNo(11) });
        self.receive(0, Message::Opened { session: SessionNo(11) });
    }
}
