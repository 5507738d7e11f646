//! Why a frame cannot be sent, and why a frame or a handshake is refused.

use super::cipher::Security;
use super::handshake::{MAX_NAME_BYTES, MODE_AUTHENTICATED, MODE_ENCRYPTED, VersionRange};
use super::header::Kind;
use crate::units::Side;
use std::fmt;
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

/// What the peer did not like. Not authenticated, so it is good for the log only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No common version.
    Version,
    /// The name belongs to another mirror there.
    Mirror,
    /// It has the same place in the configuration.
    Side,
    /// Its setting of `security` is another.
    Mode,
    /// The proof was wrong there.
    Proof,
    /// A reason that this version does not know.
    Other(u8),
}

impl Refusal {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::Mirror => 2,
            Self::Side => 3,
            Self::Mode => 4,
            Self::Proof => 5,
            Self::Other(number) => number,
        }
    }

    pub(super) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Version,
            2 => Self::Mirror,
            3 => Self::Side,
            4 => Self::Mode,
            5 => Self::Proof,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("no common wire version"),
            Self::Mirror => f.write_str("it expects another mirror here"),
            Self::Side => f.write_str("it has the same place in the configuration"),
            Self::Mode => f.write_str("its setting of security in [agent] is another"),
            Self::Proof => f.write_str("the shared secrets differ"),
            Self::Other(number) => write!(f, "reason {number}"),
        }
    }
}

/// Why the handshake failed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum HandshakeError {
    /// The configured name does not fit.
    #[error("mirror name {0:?} must have 1 to {MAX_NAME_BYTES} printable ASCII characters")]
    BadName(String),
    /// The peer is something else.
    #[error("the peer does not speak the mirror protocol")]
    NotMirror,
    /// The peer and this side have no version in common.
    #[error("no common wire version: this side speaks {ours}, the peer {theirs}")]
    Version {
        /// This side's.
        ours: VersionRange,
        /// The peer's.
        theirs: VersionRange,
    },
    /// A handshake message out of turn.
    #[error("handshake message {found} came where {expected} was due")]
    OutOfTurn {
        /// Due (1 Hello, 2 Reply, 3 Proof).
        expected: u8,
        /// Came.
        found: u8,
    },
    /// A field of a handshake message makes no sense.
    #[error("handshake message {kind} has a wrong {field}")]
    Malformed {
        /// 1 Hello, 2 Reply, 3 Proof.
        kind: u8,
        /// Field.
        field: &'static str,
    },
    /// The peer's mirror has another name.
    #[error("the peer's mirror is {theirs:?}, this one is {ours:?}")]
    WrongMirror {
        /// This side's name.
        ours: String,
        /// The peer's name.
        theirs: String,
    },
    /// Both ends have the same place in the configuration.
    #[error("the peer says that it is server {}, too", .0.index())]
    SameSide(Side),
    /// The peer does not want what this side wants.
    #[error(
        "security = \"{}\" here, but {} on the peer: both servers need the same setting in [agent]",
        .ours.word(),
        mode_words(*.theirs)
    )]
    Mode {
        /// This side's setting.
        ours: Security,
        /// What the peer offers, as bits.
        theirs: u8,
    },
    /// This side's own nonce came back: a loop or an attempt to reflect.
    #[error("the peer sends this side's own words back")]
    Reflected,
    /// The peer's public key is none.
    #[error("the peer gave no usable key for the encryption")]
    NoKey,
    /// The peer does not know the secret, or the exchange was changed or replayed.
    #[error("the peer did not prove the shared secret")]
    WrongProof,
    /// The peer ended the handshake.
    #[error("the peer refused: {0}")]
    Refused(Refusal),
}

/// The settings that a peer's mode bits stand for.
fn mode_words(bits: u8) -> String {
    let known =
        [(MODE_AUTHENTICATED, Security::Authenticated), (MODE_ENCRYPTED, Security::Encrypted)];
    let words: Vec<String> = known
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, security)| format!("\"{}\"", security.word()))
        .collect();
    match words.is_empty() {
        true => format!("something unknown ({bits:#04x})"),
        false => words.join(" or "),
    }
}
