//! The bodies of the few messages that do not fit in a header: `Card`, `Adopt` and `Beat`.
//!
//! Every value has exactly one spelling: a body that decodes gives the same bytes again.

use super::error::FrameError;
use super::header::Kind;
use super::message::Beat;
use crate::buf::Buf;
use crate::record::{Card, Inconsistent, LINEAGE_MAX, Lineage, Record};
use crate::units::{ActivationNo, Generation, Id16, SessionNo, Side};

/// Layout of the `Card` body.
const CARD_LAYOUT: u8 = 1;

// Bits of a card.
const CARD_ACTIVE: u16 = 1 << 0;
const CARD_UNINTERRUPTED: u16 = 1 << 1;
const CARD_WANTS_RECOVERY: u16 = 1 << 2;
const SESSION_OPEN: u16 = 1 << 3;
const ACTIVE: u16 = 1 << 4;
const PEER_ACTIVE: u16 = 1 << 5;
const BEHIND: u16 = 1 << 6;
const PEER_BEHIND: u16 = 1 << 7;
const OWES_ALL: u16 = 1 << 8;
const CLEAN_STOP: u16 = 1 << 9;
const DISK_ERROR: u16 = 1 << 10;
const HAS_FORCED_AT: u16 = 1 << 11;
const HAS_INCONSISTENT: u16 = 1 << 12;
const INCONSISTENT_ALL: u16 = 1 << 13;
const CARD_APART: u16 = 1 << 14;
const CARD_REJOINS: u16 = 1 << 15;
const CARD_BITS: u16 = u16::MAX;

// Bits of a beat.
const BEAT_ACTIVE: u16 = 1 << 0;
const BEAT_DISK_ERROR: u16 = 1 << 1;
const BEAT_BITS: u16 = 3;

pub(super) fn encode_card(card: &Card) -> Buf {
    let mut out = Writer::default();
    out.u8(CARD_LAYOUT);
    out.u16(card_bits(card));
    out.u64(card.capacity);
    out.u32(card.device_block);
    out.u32(card.marked);
    encode_record(&mut out, &card.record);
    out.finish()
}

pub(super) fn decode_card(bytes: &[u8]) -> Result<Card, FrameError> {
    let mut input = Reader { kind: Kind::Card, bytes };
    let found = input.u8()?;
    if found != CARD_LAYOUT {
        return Err(FrameError::BodyLayout { kind: Kind::Card, found, known: CARD_LAYOUT });
    }
    let bits = input.bits(CARD_BITS)?;
    if bits & INCONSISTENT_ALL != 0 && bits & HAS_INCONSISTENT == 0 {
        return Err(FrameError::BodyBits { kind: Kind::Card, bits: INCONSISTENT_ALL });
    }
    let capacity = input.u64()?;
    let device_block = input.u32()?;
    let marked = input.u32()?;
    let record = decode_record(&mut input, bits)?;
    input.finish()?;
    Ok(Card {
        record,
        active: bits & CARD_ACTIVE != 0,
        uninterrupted: bits & CARD_UNINTERRUPTED != 0,
        wants_recovery: bits & CARD_WANTS_RECOVERY != 0,
        apart: bits & CARD_APART != 0,
        rejoins: bits & CARD_REJOINS != 0,
        capacity,
        device_block,
        marked,
    })
}

fn card_bits(card: &Card) -> u16 {
    let record = &card.record;
    [
        (card.active, CARD_ACTIVE),
        (card.uninterrupted, CARD_UNINTERRUPTED),
        (card.wants_recovery, CARD_WANTS_RECOVERY),
        (card.apart, CARD_APART),
        (card.rejoins, CARD_REJOINS),
        (record.session_open, SESSION_OPEN),
        (record.active, ACTIVE),
        (record.peer_active, PEER_ACTIVE),
        (record.behind, BEHIND),
        (record.peer_behind, PEER_BEHIND),
        (record.owes_all, OWES_ALL),
        (record.clean_stop, CLEAN_STOP),
        (record.disk_error, DISK_ERROR),
        (record.forced_at.is_some(), HAS_FORCED_AT),
        (record.inconsistent.is_some(), HAS_INCONSISTENT),
        (record.inconsistent.is_some_and(|i| i.all), INCONSISTENT_ALL),
    ]
    .iter()
    .filter(|(set, _)| *set)
    .fold(0, |bits, (_, bit)| bits | bit)
}

/// Everything of the record that is not in the bits of the card. It is taken apart by name, so
/// that a new field cannot be forgotten here.
fn encode_record(out: &mut Writer, record: &Record) {
    #[rustfmt::skip]
    let Record {
        seq, mirror, device, side, size, block, generation, bases, ancestors, overruled,
        forced_at, born_session, session, activation, known_activation, boot, inconsistent,
        break_time, update_time,
        session_open: _, active: _, peer_active: _, behind: _, peer_behind: _, owes_all: _,
        clean_stop: _, disk_error: _,
        // A matter of that side's own bitmap; what it leads to is in `marked`.
        grown_from: _,
    } = record;
    out.u64(*seq);
    out.id16(*mirror);
    out.id16(*device);
    out.u8(if *side == Side::First { 0 } else { 1 });
    out.u64(*size);
    out.u32(*block);
    out.generation(*generation);
    bases.iter().for_each(|base| out.generation(*base));
    out.lineage(ancestors);
    out.lineage(overruled);
    if let Some(number) = forced_at {
        out.u64(number.0);
    }
    out.u64(born_session.0);
    out.u64(session.0);
    out.u64(activation.0);
    out.u64(known_activation.0);
    out.id16(*boot);
    if let Some(inconsistent) = inconsistent {
        out.u64(inconsistent.toward.get());
    }
    out.i64(*break_time);
    out.i64(*update_time);
}

/// Field expressions run in the order they are written, which is the order on the wire.
fn decode_record(input: &mut Reader<'_>, bits: u16) -> Result<Record, FrameError> {
    let has = |bit: u16| bits & bit != 0;
    Ok(Record {
        seq: input.u64()?,
        mirror: input.id16()?,
        device: input.id16()?,
        side: input.side()?,
        size: input.u64()?,
        block: input.u32()?,
        generation: Generation::new(input.u64()?),
        bases: [Generation::new(input.u64()?), Generation::new(input.u64()?)],
        ancestors: input.lineage()?,
        overruled: input.lineage()?,
        forced_at: input.when(has(HAS_FORCED_AT), Reader::u64)?.map(ActivationNo),
        born_session: SessionNo(input.u64()?),
        session: SessionNo(input.u64()?),
        activation: ActivationNo(input.u64()?),
        known_activation: ActivationNo(input.u64()?),
        boot: input.id16()?,
        inconsistent: input
            .when(has(HAS_INCONSISTENT), Reader::generation)?
            .map(|toward| Inconsistent { toward, all: has(INCONSISTENT_ALL) }),
        break_time: input.i64()?,
        update_time: input.i64()?,
        session_open: has(SESSION_OPEN),
        active: has(ACTIVE),
        peer_active: has(PEER_ACTIVE),
        behind: has(BEHIND),
        peer_behind: has(PEER_BEHIND),
        owes_all: has(OWES_ALL),
        clean_stop: has(CLEAN_STOP),
        disk_error: has(DISK_ERROR),
        grown_from: 0,
    })
}

/// The content of an `Adopt`.
pub(super) struct Adoption {
    pub(super) generation: Generation,
    pub(super) ancestors: Lineage,
    pub(super) overruled: Lineage,
    pub(super) mirror: Id16,
}

pub(super) fn encode_adopt(
    generation: Generation,
    ancestors: &Lineage,
    overruled: &Lineage,
    mirror: Id16,
) -> Buf {
    let mut out = Writer::default();
    out.u64(generation.get());
    out.id16(mirror);
    out.lineage(ancestors);
    out.lineage(overruled);
    out.finish()
}

pub(super) fn decode_adopt(bytes: &[u8]) -> Result<Adoption, FrameError> {
    let mut input = Reader { kind: Kind::Adopt, bytes };
    let generation = input.generation()?;
    let mirror = input.id16()?;
    let ancestors = input.lineage()?;
    let overruled = input.lineage()?;
    input.finish()?;
    Ok(Adoption { generation, ancestors, overruled, mirror })
}

pub(super) fn encode_beat(beat: &Beat) -> Buf {
    let Beat { active, disk_error, break_time, update_time, marked, copied, total, elapsed } =
        *beat;
    let mut out = Writer::default();
    let active = if active { BEAT_ACTIVE } else { 0 };
    out.u16(active | if disk_error { BEAT_DISK_ERROR } else { 0 });
    out.u32(marked);
    out.i64(break_time);
    out.i64(update_time);
    out.u64(copied);
    out.u64(total);
    out.u64(elapsed);
    out.finish()
}

pub(super) fn decode_beat(bytes: &[u8]) -> Result<Beat, FrameError> {
    let mut input = Reader { kind: Kind::Beat, bytes };
    let bits = input.bits(BEAT_BITS)?;
    let marked = input.u32()?;
    let beat = Beat {
        active: bits & BEAT_ACTIVE != 0,
        disk_error: bits & BEAT_DISK_ERROR != 0,
        marked,
        break_time: input.i64()?,
        update_time: input.i64()?,
        copied: input.u64()?,
        total: input.u64()?,
        elapsed: input.u64()?,
    };
    input.finish()?;
    Ok(beat)
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend(value.to_le_bytes());
    }

    fn id16(&mut self, value: Id16) {
        self.0.extend(value.0);
    }

    fn generation(&mut self, value: Option<Generation>) {
        self.u64(value.map_or(0, Generation::get));
    }

    fn lineage(&mut self, value: &Lineage) {
        // A lineage cannot hold more; the cut keeps count and entries in step whatever happens.
        let entries: Vec<_> = value.iter().take(LINEAGE_MAX).collect();
        self.u8(u8::try_from(entries.len()).expect("LINEAGE_MAX fits in a byte"));
        entries.iter().for_each(|g| self.u64(g.get()));
    }

    fn finish(self) -> Buf {
        Buf::copied_from(&self.0)
    }
}

struct Reader<'a> {
    kind: Kind,
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (field, rest) =
            self.bytes.split_first_chunk().ok_or(FrameError::BodyShort(self.kind))?;
        self.bytes = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.take().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, FrameError> {
        self.take().map(i64::from_le_bytes)
    }

    fn id16(&mut self) -> Result<Id16, FrameError> {
        self.take().map(Id16)
    }

    fn bits(&mut self, known: u16) -> Result<u16, FrameError> {
        let bits = self.take().map(u16::from_le_bytes)?;
        match bits & !known {
            0 => Ok(bits),
            reserved => Err(FrameError::BodyBits { kind: self.kind, bits: reserved }),
        }
    }

    fn side(&mut self) -> Result<Side, FrameError> {
        match self.u8()? {
            0 => Ok(Side::First),
            1 => Ok(Side::Second),
            side => Err(FrameError::BadSide { kind: self.kind, side }),
        }
    }

    fn generation(&mut self) -> Result<Generation, FrameError> {
        Generation::new(self.u64()?).ok_or(FrameError::ZeroGeneration(self.kind))
    }

    fn lineage(&mut self) -> Result<Lineage, FrameError> {
        let count = self.u8()?;
        if usize::from(count) > LINEAGE_MAX {
            return Err(FrameError::LineageTooLong { kind: self.kind, count });
        }
        (0..count).map(|_| self.generation()).collect()
    }

    fn when<T>(
        &mut self,
        present: bool,
        read: impl FnOnce(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Option<T>, FrameError> {
        if present { read(self).map(Some) } else { Ok(None) }
    }

    fn finish(self) -> Result<(), FrameError> {
        match self.bytes.len() {
            0 => Ok(()),
            rest => Err(FrameError::BodyLong { kind: self.kind, rest }),
        }
    }
}
