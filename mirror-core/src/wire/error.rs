//! Why a frame cannot be sent or is refused.

use super::header::Kind;
use thiserror::Error;

/// A frame breaks a rule of the wire. The same rules hold on the way out and on the way in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FrameError {
    /// The stream is out of step, or the peer speaks something else.
    #[error("frame starts with {0:02x?}, not with the frame magic")]
    Magic([u8; 2]),
    /// The header was damaged on its way.
    #[error("header checksum is {stated:08x}, its bytes give {computed:08x}")]
    HeaderCrc {
        /// Read from the header.
        stated: u32,
        /// Computed over it.
        computed: u32,
    },
    /// A message that this version does not know.
    #[error("message number {0} is not known")]
    UnknownKind(u8),
    /// The mode bit for encryption is set, which this version does not have.
    #[error("{0:?} frame is marked as encrypted, which this version does not have")]
    Encrypted(Kind),
    /// A flag that the message does not have.
    #[error("{kind:?} frame has reserved flags {bits:#04x}")]
    ReservedFlags {
        /// Message.
        kind: Kind,
        /// The offending bits.
        bits: u8,
    },
    /// An id where the message has none.
    #[error("{kind:?} frame has id {id}, but the message has none")]
    StrayId {
        /// Message.
        kind: Kind,
        /// The id.
        id: u64,
    },
    /// An offset where the message has no extent.
    #[error("{kind:?} frame has offset {offset}, but the message has no extent")]
    StrayOffset {
        /// Message.
        kind: Kind,
        /// The offset in bytes.
        offset: u64,
    },
    /// A length where the message has neither extent nor payload.
    #[error("{kind:?} frame has length {length}, but the message has nothing of a length")]
    StrayLength {
        /// Message.
        kind: Kind,
        /// The length in bytes.
        length: u32,
    },
    /// The message needs a payload.
    #[error("{0:?} frame has no payload")]
    PayloadMissing(Kind),
    /// The message has no payload.
    #[error("{0:?} frame has a payload, but the message has none")]
    PayloadUnexpected(Kind),
    /// A payload of no bytes.
    #[error("{0:?} frame has an empty payload")]
    PayloadEmpty(Kind),
    /// The payload is longer than the message may have.
    #[error("{kind:?} frame has a payload of {length} bytes, more than {max}")]
    PayloadTooLong {
        /// Message.
        kind: Kind,
        /// Its length in bytes.
        length: u64,
        /// Largest length in bytes.
        max: u32,
    },
    /// Payload and stated length (or extent) differ.
    #[error("{kind:?} frame states {stated} bytes, but has {found}")]
    LengthMismatch {
        /// Message.
        kind: Kind,
        /// In the header or the extent, in bytes.
        stated: u64,
        /// The payload's, in bytes.
        found: u64,
    },
    /// An extent of no bytes.
    #[error("{0:?} frame has an empty extent")]
    ExtentEmpty(Kind),
    /// An extent of more than `MAX_EXTENT_BYTES`.
    #[error("{kind:?} frame has an extent of {length} bytes, more than 1 MiB")]
    ExtentTooLong {
        /// Message.
        kind: Kind,
        /// Its length in bytes.
        length: u64,
    },
    /// An extent beyond `MAX_MIRROR_BYTES`.
    #[error("{kind:?} frame has an extent at {offset}, beyond the end of the largest mirror")]
    ExtentBeyondEnd {
        /// Message.
        kind: Kind,
        /// Its offset in bytes.
        offset: u64,
    },
    /// The payload was damaged on its way.
    #[error("{kind:?} payload checksum is {stated:08x}, its bytes give {computed:08x}")]
    PayloadCrc {
        /// Message.
        kind: Kind,
        /// Read from the header.
        stated: u32,
        /// Computed over the payload.
        computed: u32,
    },
    /// A number beyond the range of its field.
    #[error("{kind:?} frame has {value} where at most {max} fits")]
    OutOfRange {
        /// Message.
        kind: Kind,
        /// The number.
        value: u64,
        /// The largest.
        max: u64,
    },
    /// Marks must start at a whole byte of the bitmap.
    #[error("Marks frame starts at region {0}, not a multiple of 8")]
    MarksMisaligned(u32),
    /// Generation 0 where there must be one.
    #[error("{0:?} frame names generation 0")]
    ZeroGeneration(Kind),
    /// More generations than a lineage holds.
    #[error("{kind:?} frame has a lineage of {count} generations, more than 16")]
    LineageTooLong {
        /// Message.
        kind: Kind,
        /// How many.
        count: u8,
    },
    /// The body ends in the middle of a field.
    #[error("{0:?} body is too short")]
    BodyShort(Kind),
    /// The body goes on after its last field.
    #[error("{kind:?} body has {rest} bytes after its end")]
    BodyLong {
        /// Message.
        kind: Kind,
        /// Bytes left over.
        rest: usize,
    },
    /// The body has another layout.
    #[error("{kind:?} body has layout {found}, this version knows {known}")]
    BodyLayout {
        /// Message.
        kind: Kind,
        /// In the body.
        found: u8,
        /// Ours.
        known: u8,
    },
    /// A reserved bit in a body is set.
    #[error("{kind:?} body has reserved bits {bits:#06x}")]
    BodyBits {
        /// Message.
        kind: Kind,
        /// The offending bits.
        bits: u16,
    },
    /// Neither server 0 nor 1.
    #[error("{kind:?} body names side {side}, which is neither 0 nor 1")]
    BadSide {
        /// Message.
        kind: Kind,
        /// As read.
        side: u8,
    },
}
