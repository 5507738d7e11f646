//! Frames of a peer that knows the rules, keeps them for a while, and breaks any of them.

use super::lying_honest::{Honest, payload};
use super::lying_peer::{BLOCK, CAPACITY};
use crate::input::Input;
use mirror_core::buf::BufMut;
use mirror_core::record::{Card, Inconsistent, Lineage, Record};
use mirror_core::units::{ActivationNo, Extent, Generation, Id16, SessionNo, Side};
use mirror_core::wire::{Beat, Frame, Message};

/// What the peer has seen of the mirror.
pub(crate) struct Known {
    side: Side,
    /// Its record, which a real liar would not know so exactly.
    pub(crate) record: Option<Record>,
    session: u64,
    row: u8,
    last_id: u64,
    honest: Honest,
}

impl Known {
    pub(crate) fn new(side: Side) -> Self {
        Self { side, record: None, session: 0, row: 0, last_id: 0, honest: Honest::default() }
    }

    pub(crate) fn connected(&mut self) {
        (self.session, self.row) = (0, 0);
        self.honest.connected();
    }

    pub(crate) fn sent(&mut self, frame: &Frame) {
        self.session = frame.session.0;
        let mut honest = std::mem::take(&mut self.honest);
        honest.hears(frame, || card(&mut Input::new(&[0, 0, 2]), self));
        self.honest = honest;
        match frame.message {
            Message::Verdict { row } => self.row = row,
            Message::Write { id, .. }
            | Message::Zero { id, .. }
            | Message::Copy { id, .. }
            | Message::Flush { id }
            | Message::Read { id, .. } => self.last_id = id,
            _ => {}
        }
    }

    /// The peer has shown this card.
    pub(crate) fn showed(&mut self, card: &Card) {
        self.honest.showed(card);
    }

    /// What an honest peer says next, with its session.
    pub(crate) fn answer(&mut self) -> Option<(u64, Message)> {
        self.honest.next()
    }
}

/// The next frame; `None` if the input asks for one that does not exist.
pub(crate) fn frame(input: &mut Input<'_>, known: &Known) -> Option<Frame> {
    let kind = input.u8();
    let session = match kind >> 6 {
        3 => input.number(known.session),
        2 => 0,
        _ => known.session,
    };
    let settled = if kind & 32 == 0 { 0 } else { input.number(known.last_id) };
    let message = message(kind & 31, input, known)?;
    Some(Frame { session: SessionNo(session), settled, message })
}

fn message(kind: u8, input: &mut Input<'_>, known: &Known) -> Option<Message> {
    let next = known.record.as_ref().map_or(0, |r| r.session.0);
    let own = known.record.as_ref().map_or(0, |r| r.activation.0);
    Some(match kind {
        0 => Message::Card(Box::new(card(input, known))),
        1 => Message::Verdict { row: if input.flag() { known.row } else { input.u8() } },
        2 => Message::Offer { session: SessionNo(input.number(next)) },
        3 => Message::Accept { session: SessionNo(input.number(next)) },
        4 => Message::Opened { session: SessionNo(input.number(next)) },
        5 => marks(input),
        6 => Message::MarksEnd,
        7 => copy_start(input),
        8 => Message::CopyReady,
        9 => Message::CopyStop,
        10 => adopt(input),
        11 => Message::Adopted,
        12 => write(input),
        13 => zero(input),
        14 => Message::Flush { id: input.number(0) },
        15 => copy(input),
        16 | 17 => Message::Ack { id: input.number(known.last_id), ok: input.u8() != 255 },
        18 => Message::Settled,
        19 => Message::Read { id: input.number(0), extent: extent(input) },
        20 => read_reply(input, known),
        21 => Message::Beat(beat(input)),
        22 => Message::ActivateAsk { number: ActivationNo(input.number(own)) },
        23 => Message::ActivateGrant { number: ActivationNo(input.number(own)) },
        24 => Message::ActivateRefuse { number: ActivationNo(input.number(own)) },
        25 => Message::Deactivated,
        26 => Message::Again,
        27 => Message::Bye { clean: input.flag() },
        28 => Message::Detach,
        29 => Message::Detached,
        _ => return None,
    })
}

fn extent(input: &mut Input<'_>) -> Extent {
    if input.u8() & 7 != 0 {
        let offset = u64::from(input.u16()) * 512 % CAPACITY;
        return Extent::new(offset, (1 + u64::from(input.u8())) * 512);
    }
    Extent::new(input.number(CAPACITY), input.number(4096))
}

fn marks(input: &mut Input<'_>) -> Message {
    let first_region = u32::from(input.u8()) * 8;
    let len = input.below(64) + 1;
    let mut bits = BufMut::zeroed(len);
    let given = input.bytes(len);
    bits[..given.len()].copy_from_slice(given);
    Message::Marks { first_region, bits: bits.freeze() }
}

fn generation(input: &mut Input<'_>) -> Option<Generation> {
    Generation::new(input.number(5))
}

fn lineage(input: &mut Input<'_>) -> Lineage {
    (0..input.u8() % 20).filter_map(|_| generation(input)).collect()
}

fn copy_start(input: &mut Input<'_>) -> Message {
    let toward = generation(input).unwrap_or(Generation::new(5).expect("not zero"));
    Message::CopyStart { toward, all: input.flag(), complete: input.flag() }
}

fn adopt(input: &mut Input<'_>) -> Message {
    Message::Adopt {
        generation: generation(input).unwrap_or(Generation::new(5).expect("not zero")),
        ancestors: lineage(input),
        overruled: lineage(input),
        mirror: Id16([input.u8(); 16]),
    }
}

fn write(input: &mut Input<'_>) -> Message {
    let extent = extent(input);
    Message::Write { id: input.number(0), extent, durable: input.flag(), data: payload(extent.len) }
}

fn zero(input: &mut Input<'_>) -> Message {
    Message::Zero {
        id: input.number(0),
        extent: extent(input),
        unmap: input.flag(),
        durable: input.flag(),
    }
}

fn copy(input: &mut Input<'_>) -> Message {
    let extent = extent(input);
    Message::Copy { id: input.number(0), extent, data: payload(extent.len) }
}

fn read_reply(input: &mut Input<'_>, known: &Known) -> Message {
    let id = input.number(known.last_id);
    let len = u64::from(input.u8()) * 512;
    Message::ReadReply { id, data: (len > 0).then(|| payload(len)) }
}

fn beat(input: &mut Input<'_>) -> Beat {
    let bits = input.u8();
    let (break_time, update_time) = (input.time(), input.time());
    let mut number = || input.number(0);
    Beat {
        active: bits & 1 != 0,
        disk_error: bits & 2 != 0,
        break_time,
        update_time,
        marked: u32::try_from(number() & 0xffff_ffff).expect("cut"),
        copied: number(),
        total: number(),
        elapsed: number(),
    }
}

/// A card that fits the mirror's own, with as many changes as the input makes.
pub(crate) fn card(input: &mut Input<'_>, known: &Known) -> Card {
    let side = known.side;
    let mut record = match (&known.record, input.flag()) {
        (Some(own), false) => Record { side, device: Id16([0xd2; 16]), ..own.clone() },
        _ => Record::blank(Id16([0xd2; 16]), side),
    };
    for _ in 0..input.u8() % 16 {
        change(&mut record, input);
    }
    let how = input.u8();
    let mut card = Card {
        record,
        active: how & 1 != 0,
        uninterrupted: how & 2 != 0,
        wants_recovery: how & 4 == 0,
        apart: how & 0xe0 == 0xe0,
        rejoins: how & 0xe0 == 0x60,
        capacity: CAPACITY,
        device_block: BLOCK,
        marked: u32::from(how >> 5),
    };
    if how & 8 != 0 {
        card.capacity = input.number(CAPACITY);
    }
    if how & 16 != 0 {
        card.device_block = u32::try_from(input.number(512) & 0xffff_ffff).expect("cut");
    }
    card
}

/// Changes one field.
fn change(record: &mut Record, input: &mut Input<'_>) {
    match input.u8() % 28 {
        0 => record.seq = input.number(record.seq),
        1 => record.mirror = Id16([input.u8(); 16]),
        2 => record.device = Id16([input.u8(); 16]),
        3 => record.side = if input.flag() { Side::First } else { Side::Second },
        4 => record.size = input.number(CAPACITY),
        5 => record.block = u32::try_from(input.number(512) & 0xffff_ffff).expect("cut"),
        6 => record.generation = generation(input),
        7 => record.bases = [generation(input), generation(input)],
        8 => record.ancestors = lineage(input),
        9 => record.overruled = lineage(input),
        10 => record.forced_at = input.flag().then(|| ActivationNo(input.number(2))),
        11 => record.born_session = SessionNo(input.number(record.born_session.0)),
        12 => record.session = SessionNo(input.number(record.session.0)),
        13 => record.session_open = input.flag(),
        14 => record.activation = ActivationNo(input.number(record.activation.0)),
        15 => record.known_activation = ActivationNo(input.number(record.known_activation.0)),
        16 => record.active = input.flag(),
        17 => record.boot = Id16([input.u8(); 16]),
        18 => record.peer_active = input.flag(),
        19 => record.inconsistent = inconsistent(input),
        20 => record.behind = input.flag(),
        21 => record.peer_behind = input.flag(),
        22 => record.owes_all = input.flag(),
        23 => record.clean_stop = input.flag(),
        24 => record.disk_error = input.flag(),
        25 => record.break_time = input.time(),
        26 => record.update_time = input.time(),
        _ => {}
    }
}

fn inconsistent(input: &mut Input<'_>) -> Option<Inconsistent> {
    let all = input.flag();
    generation(input).map(|toward| Inconsistent { toward, all })
}

/// An honest answer with one thing in it changed, or something else in its place.
pub(crate) fn twist(message: Message, input: &mut Input<'_>, known: &Known) -> Option<Message> {
    Some(match message {
        Message::Offer { session } => Message::Offer { session: near(session, input) },
        Message::Accept { session } => Message::Accept { session: near(session, input) },
        Message::Opened { session } => Message::Opened { session: near(session, input) },
        Message::Verdict { .. } => Message::Verdict { row: input.u8() },
        Message::Ack { id, .. } if input.flag() => Message::Ack { id, ok: false },
        Message::Ack { id, .. } => Message::Ack { id: input.number(id), ok: true },
        Message::ReadReply { id, .. } if input.flag() => Message::ReadReply { id, data: None },
        Message::ReadReply { .. } => read_reply(input, known),
        Message::ActivateGrant { number } => {
            Message::ActivateGrant { number: ActivationNo(input.number(number.0)) }
        }
        Message::CopyStart { toward, all, complete } => match input.u8() % 3 {
            0 => Message::CopyStart { toward, all: !all, complete },
            1 => Message::CopyStart { toward, all, complete: !complete },
            _ => copy_start(input),
        },
        Message::Copy { id, .. } => {
            let extent = extent(input);
            Message::Copy { id: input.number(id), extent, data: payload(extent.len) }
        }
        Message::Adopt { generation: is, ancestors, overruled, mirror } => match input.u8() % 4 {
            0 => Message::Adopt { generation: is, ancestors, overruled, mirror: Id16::NONE },
            1 => Message::Adopt { generation: is, ancestors: lineage(input), overruled, mirror },
            2 => Message::Adopt { generation: is, ancestors, overruled: lineage(input), mirror },
            _ => adopt(input),
        },
        Message::MarksEnd => marks(input),
        Message::Card(_) => Message::Card(Box::new(card(input, known))),
        _ => self::message(input.u8() & 31, input, known)?,
    })
}

fn near(session: SessionNo, input: &mut Input<'_>) -> SessionNo {
    SessionNo(input.number(session.0))
}
