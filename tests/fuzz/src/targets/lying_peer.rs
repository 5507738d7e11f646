//! A mirror whose peer has the secret and lies: frames of every kind in any order at any state,
//! between an application, an operator, disks and a clock that do what the input says.
//!
//! What must hold: no panic; no operation outside the mirror or the partitions; what a frame can
//! make it do at once is bounded; what it makes durable can be read back; and whatever was said,
//! every request and command is answered once the disks have answered, the peer is gone and an
//! operator has vouched for it.

use super::lying_frames::{Known, frame};
use crate::input::Input;
use mirror_core::buf::BufMut;
use mirror_core::command::{Command, Done};
use mirror_core::disk::layout::{BITMAP, SUPERBLOCK_A, SUPERBLOCK_B, required_bytes};
use mirror_core::disk::superblock::{Loaded, load};
use mirror_core::io::{
    Action, CommandId, ConnId, DataOp, Event, IoFailure, IoId, Notice, Request, RequestId,
    RequestOp,
};
use mirror_core::marks::Marks;
use mirror_core::mirror::{AutoRecovery, Mirror, Setup, Tuning};
use mirror_core::record::Record;
use mirror_core::units::{
    ActivationNo, Extent, Generation, Id16, Millis, Now, SessionNo, Side, regions_in,
};
use mirror_core::wire::{Message, PeerHello};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Bytes of the data partition: 24 regions and a part of one.
pub(crate) const CAPACITY: u64 = 24 * 65_536 + 8192;
pub(crate) const BLOCK: u32 = 512;
/// What one event may make a mirror do at once: one frame may end a session, which ends or
/// repeats everything that was under way, and there are never more than `STEPS` of these.
const ACTIONS_MAX: usize = 4 * STEPS + 64;
/// Steps of one input.
const STEPS: usize = 400;

struct Rig {
    mirror: Mirror,
    now: Now,
    cluster: Vec<u8>,
    /// Operations that have not ended yet.
    data: VecDeque<(IoId, DataOp, Extent)>,
    meta: VecDeque<(IoId, u64, Vec<u8>)>,
    /// Writes that timed out and may still land.
    late: Vec<IoId>,
    conns: u64,
    /// Connections that stand; the newest is the one that the peer uses.
    live: BTreeSet<u64>,
    dialling: bool,
    next: u64,
    requests: BTreeSet<RequestId>,
    commands: BTreeMap<CommandId, Command>,
    known: Known,
    /// What came about, by name: sessions by their verdict, and what commands and copies came to.
    reached: BTreeSet<&'static str>,
}

pub(crate) fn run(bytes: &[u8]) {
    play(bytes);
}

/// Plays an input to its end; what came about.
fn play(bytes: &[u8]) -> BTreeSet<&'static str> {
    let mut input = Input::new(bytes);
    let mut rig = Rig::new(&mut input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        rig.step(&mut input);
    }
    rig.settle();
    rig.reached
}

fn record(input: &mut Input<'_>, side: Side) -> Record {
    let mut record = Record::blank(Id16([0xd1; 16]), side);
    let how = input.u8();
    if how & 1 == 0 {
        return record;
    }
    record.mirror = Id16([0xa0; 16]);
    record.size = CAPACITY;
    record.block = BLOCK;
    record.generation = Generation::new(5);
    record.bases = [Generation::new(if how & 2 == 0 { 5 } else { 4 }), None];
    record.ancestors.push(Generation::new(4).expect("not zero"));
    record.session = SessionNo(3);
    record.born_session = SessionNo(if how & 4 == 0 { 2 } else { 3 });
    record.activation = ActivationNo(2);
    record.known_activation = ActivationNo(2);
    record.clean_stop = how & 8 != 0;
    record.peer_behind = how & 16 != 0;
    record.behind = how & 32 != 0;
    record.active = how & 64 != 0;
    record.owes_all = how & 128 != 0;
    record
}

impl Rig {
    fn new(input: &mut Input<'_>) -> Self {
        let how = input.u8();
        let side = if how & 1 == 0 { Side::First } else { Side::Second };
        let record = record(input, side);
        let tuning = Tuning {
            fenced: how & 2 != 0,
            auto_recovery: match how >> 2 & 3 {
                0 | 1 => AutoRecovery::Always,
                2 => AutoRecovery::Active,
                _ => AutoRecovery::Off,
            },
            hot_regions: if how & 16 == 0 { 65_536 } else { 2 },
            ..Tuning::default()
        };
        let marks = record.generation.map(|_| Marks::blank(regions_in(record.size), record.device));
        let setup = Setup {
            fresh: true,
            marks,
            capacity: CAPACITY,
            device_block: BLOCK,
            boot: Id16([3; 16]),
            resume: how & 32 != 0,
            seed: [5; 32],
            tuning,
            record,
        };
        let now = Now { mono: Millis(1000), wall: 1_700_000_000 };
        let known = Known::new(side.other());
        let len = usize::try_from(required_bytes(CAPACITY)).expect("small");
        let mut rig = Self {
            mirror: Mirror::new(setup, now),
            now,
            cluster: vec![0; len],
            data: VecDeque::new(),
            meta: VecDeque::new(),
            late: Vec::new(),
            conns: 0,
            live: BTreeSet::new(),
            dialling: false,
            next: 0,
            requests: BTreeSet::new(),
            commands: BTreeMap::new(),
            known,
            reached: BTreeSet::new(),
        };
        rig.handle(Event::Timer);
        rig
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 32 {
            0..12 => self.receive(input),
            12..16 => self.end_data(input),
            16..18 => self.end_meta(input),
            18 => self.settle_disks(),
            19 => {
                let rounds = input.u8();
                self.converse(rounds);
            }
            20..23 => self.request(input),
            23..25 => self.command(input),
            25..27 => self.pass(u64::from(input.u8()) * 40),
            27 | 28 => self.connect(),
            29 => self.agree_honestly(input),
            30 => self.lose_peer(),
            _ => self.answer(input),
        }
    }

    fn handle(&mut self, event: Event) {
        let mut out = Vec::new();
        self.mirror.handle(self.now, event, &mut out);
        assert!(out.len() <= ACTIONS_MAX, "{} actions of one event", out.len());
        self.known.record = Some(self.mirror.record().clone());
        out.into_iter().for_each(|action| self.take(action));
        let _ = self.mirror.status(self.now);
    }

    fn take(&mut self, action: Action) {
        match action {
            Action::Data { io, op, extent } => self.begin_data(io, op, extent),
            Action::Meta { io, offset, bytes } => {
                assert!(offset % 4096 == 0 && bytes.len() % 4096 == 0 && !bytes.is_empty());
                let end = offset + bytes.len() as u64;
                assert!(end <= self.cluster.len() as u64, "beyond the cluster partition: {end}");
                self.meta.push_back((io, offset, bytes.to_vec()));
            }
            Action::Complete { id, result } => {
                assert!(self.requests.remove(&id), "{id:?} is answered twice: {result:?}");
            }
            Action::Reply { id, result } => {
                assert!(
                    self.commands.remove(&id).is_some(),
                    "{id:?} is answered twice: {result:?}"
                );
                match result {
                    Ok(Done::ForcedWithCopy | Done::ForcedAlone) => self.reach("forced"),
                    Ok(Done::Activated) => self.reach("activated"),
                    _ => {}
                }
            }
            Action::Send { conn, frame } => {
                assert!(self.live.contains(&conn.0), "{frame:?} over {conn:?}, which is gone");
                self.known.sent(&frame);
            }
            Action::Close { conn, .. } => {
                assert!(self.live.remove(&conn.0), "{conn:?} is closed twice");
            }
            Action::Dial => {
                assert!(!self.dialling, "it dials twice");
                self.dialling = true;
            }
            Action::Notice(notice) => self.note(&notice),
            Action::FailDevice | Action::Grow { .. } | Action::TellPeerBehind { .. } => {}
        }
    }

    fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::BadRecord(why) => panic!("a record that cannot be read back: {why}"),
            Notice::SessionOpened { verdict } => self.reach(verdict),
            Notice::RecoveryFinished { source: true, .. } => self.reach("copied"),
            Notice::RecoveryFinished { source: false, .. } => self.reach("adopted"),
            _ => {}
        }
    }

    fn reach(&mut self, what: &'static str) {
        self.reached.insert(what);
    }

    fn begin_data(&mut self, io: IoId, op: DataOp, extent: Extent) {
        let size = self.mirror.record().size;
        match &op {
            DataOp::Flush => {}
            DataOp::Write { data, .. } if data.len() as u64 != extent.len => {
                panic!("{} bytes at {extent:?}", data.len());
            }
            _ => assert!(
                extent.is_valid_for(size.min(CAPACITY), BLOCK),
                "{extent:?} in a mirror of {size} bytes"
            ),
        }
        self.data.push_back((io, op, extent));
    }

    fn receive(&mut self, input: &mut Input<'_>) {
        if self.live.is_empty() {
            self.connect();
        }
        if let Some(frame) = frame(input, &self.known) {
            self.deliver(frame.session.0, frame.settled, frame.message);
        }
    }

    fn deliver(&mut self, session: u64, settled: u64, message: Message) {
        if let Message::Card(card) = &message {
            self.known.showed(card);
        }
        if let Some(conn) = self.live.last().copied() {
            let frame = mirror_core::wire::Frame { session: SessionNo(session), settled, message };
            // What cannot be said on the wire cannot arrive.
            if mirror_core::wire::codec::encode(&frame).is_ok() {
                self.handle(Event::Frame { conn: ConnId(conn), frame });
            }
        }
    }

    fn connect(&mut self) {
        let side = self.mirror.record().side;
        if side == Side::First && !std::mem::take(&mut self.dialling) {
            return;
        }
        self.conns += 1;
        self.live.insert(self.conns);
        self.known.connected();
        let hello = PeerHello { side: side.other(), version: 1 };
        let dialled = side == Side::First;
        self.handle(Event::PeerReady { conn: ConnId(self.conns), dialled, hello });
    }

    fn lose_peer(&mut self) {
        if let Some(conn) = self.live.pop_last() {
            self.handle(Event::PeerGone { conn: ConnId(conn) });
        } else if std::mem::take(&mut self.dialling) {
            self.handle(Event::DialFailed);
        }
    }

    /// An agreement as an honest peer comes to it, with a card as the input wants it.
    fn agree_honestly(&mut self, input: &mut Input<'_>) {
        for _ in 0..12 {
            if self.dialling || self.mirror.record().side == Side::Second {
                break;
            }
            self.pass(1000);
        }
        self.connect();
        self.settle_disks();
        let card = super::lying_frames::card(input, &self.known);
        self.deliver(0, 0, Message::Card(Box::new(card)));
        self.converse(4);
    }

    /// Disks and peer answer as they should, for some rounds.
    fn converse(&mut self, rounds: u8) {
        self.settle_disks();
        for _ in 0..rounds {
            let Some((session, message)) = self.known.answer() else { return };
            self.deliver(session, 0, message);
            self.settle_disks();
        }
    }

    /// What an honest peer would say next, mostly.
    fn answer(&mut self, input: &mut Input<'_>) {
        let how = input.u8();
        let Some((session, message)) = self.known.answer() else { return };
        let said = match how {
            0..160 => Some(message),
            160..240 => super::lying_frames::twist(message, input, &self.known),
            _ => None,
        };
        if let Some(message) = said {
            self.deliver(session, 0, message);
        }
    }

    fn end_data(&mut self, input: &mut Input<'_>) {
        let how = input.u8();
        if how == 255 {
            if let Some(io) = self.late.pop() {
                self.handle(Event::DataDone { io, result: Ok(None) });
            }
            return;
        }
        if self.data.is_empty() {
            return;
        }
        let at = usize::from(how >> 4) % self.data.len();
        let Some((io, op, extent)) = self.data.remove(at) else { return };
        let result = match how & 15 {
            15 => Err(IoFailure::Errno(5)),
            14 => Err(IoFailure::TimedOut),
            _ => Ok(read(&op, extent)),
        };
        if result == Err(IoFailure::TimedOut) {
            self.late.push(io);
        }
        self.handle(Event::DataDone { io, result });
    }

    fn end_meta(&mut self, input: &mut Input<'_>) {
        let ok = input.u8() != 255;
        let Some((io, offset, bytes)) = self.meta.pop_front() else { return };
        if ok {
            self.write_cluster(offset, &bytes);
        }
        let result = if ok { Ok(()) } else { Err(IoFailure::Errno(5)) };
        self.handle(Event::MetaDone { io, result });
    }

    fn write_cluster(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).expect("small");
        self.cluster[at..at + bytes.len()].copy_from_slice(bytes);
        if offset < BITMAP {
            let copy = |at: u64| {
                let at = usize::try_from(at).expect("small");
                &self.cluster[at..at + 4096]
            };
            let loaded = load(copy(SUPERBLOCK_A), copy(SUPERBLOCK_B));
            assert!(matches!(loaded, Loaded::Valid { .. }), "{loaded:?}");
        }
    }

    /// The disks answer everything, well.
    fn settle_disks(&mut self) {
        for _ in 0..100_000 {
            if let Some((io, offset, bytes)) = self.meta.pop_front() {
                self.write_cluster(offset, &bytes);
                self.handle(Event::MetaDone { io, result: Ok(()) });
            } else if let Some((io, op, extent)) = self.data.pop_front() {
                self.handle(Event::DataDone { io, result: Ok(read(&op, extent)) });
            } else {
                return;
            }
        }
        panic!("the disks never come to rest");
    }

    fn request(&mut self, input: &mut Input<'_>) {
        self.next += 1;
        let id = RequestId(self.next);
        let how = input.u8();
        let extent = if how & 64 == 0 {
            let offset = u64::from(input.u16()) * 512 % CAPACITY;
            Extent::new(offset, (1 + u64::from(input.u8())) * 512)
        } else {
            Extent::new(input.number(CAPACITY), input.number(4096))
        };
        let op = match how & 3 {
            0 => RequestOp::Read,
            1 => {
                let len = usize::try_from(extent.len.min(1 << 20)).expect("small");
                RequestOp::Write(BufMut::zeroed(len).freeze())
            }
            2 => RequestOp::Zero { unmap: how & 16 != 0 },
            _ => RequestOp::Flush,
        };
        let extent = if how & 3 == 3 { Extent::default() } else { extent };
        self.requests.insert(id);
        self.handle(Event::Request(Request { id, op, extent, fua: how & 8 != 0 }));
    }

    fn command(&mut self, input: &mut Input<'_>) {
        let how = input.u8();
        let seen = match how >> 4 & 3 {
            0 | 1 => None,
            2 => Some(false),
            _ => Some(true),
        };
        let session = SessionNo(input.number(self.mirror.record().session.0));
        let command = match how & 15 {
            0..=5 => Command::Activate { peer_down: how & 64 != 0, peer_seen_active: seen },
            6 | 7 => Command::Deactivate,
            8 => Command::Recover,
            9 => Command::CancelRecovery,
            10 => Command::Force { peer_seen_active: seen },
            11 => Command::ToldBehind { session },
            12 => Command::PeerConfirmedBehind { session },
            13 => Command::PeerDown,
            14 => Command::Shutdown,
            15 if how & 64 != 0 => Command::Separate,
            _ => Command::Activate { peer_down: true, peer_seen_active: None },
        };
        self.order(command);
    }

    fn order(&mut self, command: Command) {
        self.next += 1;
        let id = CommandId(self.next);
        self.commands.insert(id, command);
        self.handle(Event::Command { id, command });
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus(ms);
        self.handle(Event::Timer);
    }

    /// The peer is off, the disks work, an operator vouches: nothing may be left unanswered.
    fn settle(&mut self) {
        for io in std::mem::take(&mut self.late) {
            self.handle(Event::DataDone { io, result: Ok(None) });
        }
        for _ in 0..60 {
            self.lose_peer();
            self.settle_disks();
            self.pass(1000);
        }
        self.order(Command::PeerDown);
        for _ in 0..30 {
            self.lose_peer();
            self.settle_disks();
            self.pass(1000);
        }
        assert!(self.requests.is_empty(), "never answered: {:?}", self.requests);
        assert!(self.commands.is_empty(), "never answered: {:?}", self.commands);
    }
}

/// What a good disk answers.
fn read(op: &DataOp, extent: Extent) -> Option<mirror_core::buf::Buf> {
    let len = usize::try_from(extent.len).expect("at most 1 MiB");
    matches!(op, DataOp::Read).then(|| BufMut::zeroed(len).freeze())
}

#[cfg(test)]
mod tests {
    use super::play;
    use std::collections::BTreeSet;

    /// What is fed must get as far as the honest can get, or the lies are all told at the door.
    #[test]
    fn the_seeds_reach_sessions_copies_adoptions_and_forces() {
        let reached: BTreeSet<_> =
            crate::seeds::of("lying_peer").iter().flat_map(|seed| play(seed)).collect();
        for what in ["in-sync", "initial-construction", "copied", "adopted", "forced", "activated"]
        {
            assert!(reached.contains(what), "{what} is not among {reached:?}");
        }
    }
}
