//! Frames to header and payload, and back. Payloads are shared, not copied.

use super::body;
use super::error::FrameError;
use super::header::{
    FLAG_ALL, FLAG_CLEAN, FLAG_COMPLETE, FLAG_DURABLE, FLAG_OK, FLAG_PAYLOAD, FLAG_UNMAP,
    HEADER_BYTES, Header, Kind, MAX_DATA_BYTES, MAX_MARKS_BYTES, check_extent,
};
use super::message::{Frame, Message};
use crate::buf::Buf;
use crate::units::{ActivationNo, Extent, Generation, SessionNo};

/// A frame ready to be sent: first `head`, then `payload`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded {
    /// The header.
    pub head: [u8; HEADER_BYTES],
    /// The payload; for data frames the very buffer of the message.
    pub payload: Option<Buf>,
}

impl Encoded {
    /// The payload's bytes, empty if there is none.
    #[must_use]
    pub fn payload_bytes(&self) -> &[u8] {
        self.payload.as_deref().unwrap_or_default()
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        HEADER_BYTES + self.payload_bytes().len()
    }
}

/// Encodes a frame, its tag still zero.
///
/// # Errors
/// The frame breaks a rule of the wire; nothing is sent.
pub fn encode(frame: &Frame) -> Result<Encoded, FrameError> {
    let parts = Parts::of(&frame.message);
    let length = parts.length()?;
    let payload_flag = if parts.payload.is_some() { FLAG_PAYLOAD } else { 0 };
    let header = Header {
        kind: parts.kind,
        flags: parts.flags | payload_flag,
        length,
        session: frame.session.0,
        settled: frame.settled,
        id: parts.id,
        offset: parts.extent.map_or(0, |e| e.offset),
        payload_crc: parts.payload.as_deref().map_or(0, crc32fast::hash),
    };
    let head = header.encode()?;
    check_numbers(&header)?;
    Ok(Encoded { head, payload: parts.payload })
}

/// Makes the frame from a good header and its payload, which shares the memory of `payload`.
///
/// # Errors
/// Payload damaged or of another length, a body that does not parse, or a number out of range.
pub fn decode(header: &Header, payload: Option<Buf>) -> Result<Frame, FrameError> {
    check_payload(header, payload.as_deref().unwrap_or_default())?;
    decode_checked(header, payload)
}

/// [`decode`] after [`check_payload`].
pub(super) fn decode_checked(header: &Header, payload: Option<Buf>) -> Result<Frame, FrameError> {
    check_numbers(header)?;
    let message = message(header, payload)?;
    Ok(Frame { session: SessionNo(header.session), settled: header.settled, message })
}

/// Whether `payload` is the one that the header speaks of.
pub(super) fn check_payload(header: &Header, payload: &[u8]) -> Result<(), FrameError> {
    let (kind, expected) = (header.kind, header.payload_len());
    if payload.len() != expected {
        let (stated, found) = (expected as u64, payload.len() as u64);
        return Err(FrameError::LengthMismatch { kind, stated, found });
    }
    let (stated, computed) = (header.payload_crc, crc32fast::hash(payload));
    if stated != computed {
        return Err(FrameError::PayloadCrc { kind, stated, computed });
    }
    Ok(())
}

/// The rules for numbers that the header carries in its id field for the message.
fn check_numbers(header: &Header) -> Result<(), FrameError> {
    let (kind, value) = (header.kind, header.id);
    let limit = |max: u64| match value {
        v if v > max => Err(FrameError::OutOfRange { kind, value, max }),
        _ => Ok(()),
    };
    match kind {
        Kind::Verdict => limit(u64::from(u8::MAX)),
        Kind::CopyStart if value == 0 => Err(FrameError::ZeroGeneration(kind)),
        Kind::Marks => {
            // Region numbers fit in 32 bits, so the last bit's does, too.
            limit((1_u64 << 32).saturating_sub(8 * u64::from(header.length)))?;
            match number(header)? {
                first if first % 8 != 0 => Err(FrameError::MarksMisaligned(first)),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// The id field as a narrower number.
fn number<T: TryFrom<u64>>(header: &Header) -> Result<T, FrameError> {
    let (kind, value) = (header.kind, header.id);
    let max = (1_u64 << (8 * size_of::<T>())) - 1;
    T::try_from(value).map_err(|_| FrameError::OutOfRange { kind, value, max })
}

fn message(header: &Header, payload: Option<Buf>) -> Result<Message, FrameError> {
    let (id, extent) = (header.id, header.extent());
    let flag = |bit: u8| header.flags & bit != 0;
    let needed = |payload: Option<Buf>| payload.ok_or(FrameError::PayloadMissing(header.kind));
    let bytes = payload.as_deref().unwrap_or_default();
    Ok(match header.kind {
        Kind::Card => Message::Card(Box::new(body::decode_card(bytes)?)),
        Kind::Verdict => Message::Verdict { row: number(header)? },
        Kind::Offer => Message::Offer { session: SessionNo(id) },
        Kind::Accept => Message::Accept { session: SessionNo(id) },
        Kind::Opened => Message::Opened { session: SessionNo(id) },
        Kind::Marks => Message::Marks { first_region: number(header)?, bits: needed(payload)? },
        Kind::MarksEnd => Message::MarksEnd,
        Kind::CopyStart => Message::CopyStart {
            toward: Generation::new(id).ok_or(FrameError::ZeroGeneration(header.kind))?,
            all: flag(FLAG_ALL),
            complete: flag(FLAG_COMPLETE),
        },
        Kind::CopyReady => Message::CopyReady,
        Kind::CopyStop => Message::CopyStop,
        Kind::Adopt => adopt(bytes)?,
        Kind::Adopted => Message::Adopted,
        Kind::Write => {
            Message::Write { id, extent, durable: flag(FLAG_DURABLE), data: needed(payload)? }
        }
        Kind::Zero => {
            Message::Zero { id, extent, unmap: flag(FLAG_UNMAP), durable: flag(FLAG_DURABLE) }
        }
        Kind::Flush => Message::Flush { id },
        Kind::Copy => Message::Copy { id, extent, data: needed(payload)? },
        Kind::Ack => Message::Ack { id, ok: flag(FLAG_OK) },
        Kind::Settled => Message::Settled,
        Kind::Read => Message::Read { id, extent },
        Kind::ReadReply => Message::ReadReply { id, data: payload },
        Kind::Beat => Message::Beat(body::decode_beat(bytes)?),
        Kind::ActivateAsk => Message::ActivateAsk { number: ActivationNo(id) },
        Kind::ActivateGrant => Message::ActivateGrant { number: ActivationNo(id) },
        Kind::ActivateRefuse => Message::ActivateRefuse { number: ActivationNo(id) },
        Kind::Deactivated => Message::Deactivated,
        Kind::Again => Message::Again,
        Kind::Detach => Message::Detach,
        Kind::Detached => Message::Detached,
        Kind::Bye => Message::Bye { clean: flag(FLAG_CLEAN) },
    })
}

fn adopt(bytes: &[u8]) -> Result<Message, FrameError> {
    let body::Adoption { generation, ancestors, overruled, mirror } = body::decode_adopt(bytes)?;
    Ok(Message::Adopt { generation, ancestors, overruled, mirror })
}

/// What a message puts into the header, and its payload.
struct Parts {
    kind: Kind,
    flags: u8,
    id: u64,
    extent: Option<Extent>,
    payload: Option<Buf>,
}

impl Parts {
    fn of(message: &Message) -> Self {
        let bare = Self::bare;
        match message {
            Message::Card(card) => bare(Kind::Card).payload(body::encode_card(card)),
            Message::Verdict { row } => bare(Kind::Verdict).id(u64::from(*row)),
            Message::Offer { session } => bare(Kind::Offer).id(session.0),
            Message::Accept { session } => bare(Kind::Accept).id(session.0),
            Message::Opened { session } => bare(Kind::Opened).id(session.0),
            Message::Marks { first_region, bits } => {
                bare(Kind::Marks).id(u64::from(*first_region)).payload(bits.clone())
            }
            Message::MarksEnd => bare(Kind::MarksEnd),
            Message::CopyStart { toward, all, complete } => bare(Kind::CopyStart)
                .id(toward.get())
                .flag(FLAG_ALL, *all)
                .flag(FLAG_COMPLETE, *complete),
            Message::CopyReady => bare(Kind::CopyReady),
            Message::CopyStop => bare(Kind::CopyStop),
            Message::Adopt { generation, ancestors, overruled, mirror } => bare(Kind::Adopt)
                .payload(body::encode_adopt(*generation, ancestors, overruled, *mirror)),
            Message::Adopted => bare(Kind::Adopted),
            Message::Write { id, extent, durable, data } => bare(Kind::Write)
                .id(*id)
                .extent(*extent)
                .flag(FLAG_DURABLE, *durable)
                .payload(data.clone()),
            Message::Zero { id, extent, unmap, durable } => bare(Kind::Zero)
                .id(*id)
                .extent(*extent)
                .flag(FLAG_UNMAP, *unmap)
                .flag(FLAG_DURABLE, *durable),
            Message::Flush { id } => bare(Kind::Flush).id(*id),
            Message::Copy { id, extent, data } => {
                bare(Kind::Copy).id(*id).extent(*extent).payload(data.clone())
            }
            Message::Ack { id, ok } => bare(Kind::Ack).id(*id).flag(FLAG_OK, *ok),
            Message::Settled => bare(Kind::Settled),
            Message::Read { id, extent } => bare(Kind::Read).id(*id).extent(*extent),
            Message::ReadReply { id, data } => {
                Self { payload: data.clone(), ..bare(Kind::ReadReply).id(*id) }
            }
            Message::Beat(beat) => bare(Kind::Beat).payload(body::encode_beat(beat)),
            Message::ActivateAsk { number } => bare(Kind::ActivateAsk).id(number.0),
            Message::ActivateGrant { number } => bare(Kind::ActivateGrant).id(number.0),
            Message::ActivateRefuse { number } => bare(Kind::ActivateRefuse).id(number.0),
            Message::Deactivated => bare(Kind::Deactivated),
            Message::Again => bare(Kind::Again),
            Message::Detach => bare(Kind::Detach),
            Message::Detached => bare(Kind::Detached),
            Message::Bye { clean } => bare(Kind::Bye).flag(FLAG_CLEAN, *clean),
        }
    }

    const fn bare(kind: Kind) -> Self {
        Self { kind, flags: 0, id: 0, extent: None, payload: None }
    }

    fn id(self, id: u64) -> Self {
        Self { id, ..self }
    }

    fn extent(self, extent: Extent) -> Self {
        Self { extent: Some(extent), ..self }
    }

    fn payload(self, payload: Buf) -> Self {
        Self { payload: Some(payload), ..self }
    }

    fn flag(self, bit: u8, set: bool) -> Self {
        Self { flags: if set { self.flags | bit } else { self.flags }, ..self }
    }

    /// The length field, checked here while it is still wide; the header checks the rest.
    fn length(&self) -> Result<u32, FrameError> {
        let kind = self.kind;
        let found = self.payload.as_ref().map(|p| p.len() as u64);
        if let Some(extent) = self.extent {
            check_extent(kind, extent)?;
            if found.is_some_and(|found| found != extent.len) {
                let (stated, found) = (extent.len, found.unwrap_or(0));
                return Err(FrameError::LengthMismatch { kind, stated, found });
            }
        }
        let length = self.extent.map(|e| e.len).or(found).unwrap_or(0);
        let max = if kind == Kind::Marks { MAX_MARKS_BYTES } else { MAX_DATA_BYTES };
        u32::try_from(length).map_err(|_| FrameError::PayloadTooLong { kind, length, max })
    }
}
