//! The messages as values; their bytes are in the codec beside this file.

use crate::buf::Buf;
use crate::record::{Card, Lineage};
use crate::units::{ActivationNo, Extent, Generation, Id16, SessionNo, Side};

/// What the peer proved or said in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerHello {
    /// Its place in the configuration.
    pub side: Side,
    /// The wire version both speak.
    pub version: u16,
}

/// One frame. Frames of data carry the session they belong to; a frame of an older session is
/// refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The session, or 0 before one is open.
    pub session: SessionNo,
    /// ack2, piggybacked: every write up to this id is settled on both sides.
    pub settled: u64,
    /// The message.
    pub message: Message,
}

/// The state a side tells while it is connected, once a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beat {
    /// Serving the device.
    pub active: bool,
    /// A disk failed.
    pub disk_error: bool,
    /// Seconds since 1970 UTC, 0 = unknown.
    pub break_time: i64,
    /// Seconds since 1970 UTC, 0 = unknown.
    pub update_time: i64,
    /// Marked regions.
    pub marked: u32,
    /// Bytes copied in the running recovery.
    pub copied: u64,
    /// Bytes to copy in the running recovery.
    pub total: u64,
    /// Milliseconds since the running recovery began.
    pub elapsed: u64,
}

/// The messages. The numbers on the wire are explicit and never reused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// What this side is (rule 8).
    Card(Box<Card>),
    /// The row of the direction table that this side found, as its number.
    Verdict {
        /// Row number; both sides must name the same row, seen from their own end.
        row: u8,
    },
    /// Acceptor: the session is durably offered.
    Offer {
        /// Its number.
        session: SessionNo,
    },
    /// Dialler: the session is durably open here.
    Accept {
        /// Its number.
        session: SessionNo,
    },
    /// Acceptor: the session is durably open here, too.
    Opened {
        /// Its number.
        session: SessionNo,
    },
    /// Target to source: some of its durable marks, as bits from `first_region` on (bit 0 of byte
    /// 0 first). Only stretches that have marks are sent.
    Marks {
        /// First region; a multiple of 8.
        first_region: u32,
        /// Bits.
        bits: Buf,
    },
    /// No more marks.
    MarksEnd,
    /// Source to target: what follows may copy onto you.
    CopyStart {
        /// The generation that is copied.
        toward: Generation,
        /// Everything is copied.
        all: bool,
        /// The target stays complete (settling onto an uninterrupted side).
        complete: bool,
    },
    /// Target: recorded durably as far as needed, before a copy and after a settling that was stopped.
    CopyReady,
    /// A write of the application.
    Write {
        /// Id, rising within the session.
        id: u64,
        /// Where.
        extent: Extent,
        /// Durable before the ack.
        durable: bool,
        /// The bytes.
        data: Buf,
    },
    /// Write-zeroes of the application.
    Zero {
        /// Id, rising within the session.
        id: u64,
        /// Where.
        extent: Extent,
        /// Space may be released.
        unmap: bool,
        /// Durable before the ack.
        durable: bool,
    },
    /// ack1: the operation has ended on the peer's disk.
    Ack {
        /// Id of a `Write`, `Zero`, `Flush` or `Copy`.
        id: u64,
        /// It is there (false: the disk failed).
        ok: bool,
    },
    /// ack2 when nothing else goes out to carry it.
    Settled,
    /// Make every acked write durable.
    Flush {
        /// Id, rising within the session.
        id: u64,
    },
    /// A block of the recovery.
    Copy {
        /// Id, rising within the session.
        id: u64,
        /// Where.
        extent: Extent,
        /// The bytes.
        data: Buf,
    },
    /// Source: all is copied and flushed on both; this is yours now.
    Adopt {
        /// The generation.
        generation: Generation,
        /// What it descends from.
        ancestors: Lineage,
        /// What it overrules.
        overruled: Lineage,
        /// The mirror.
        mirror: Id16,
    },
    /// Target: adopted durably.
    Adopted,
    /// The recovery ends early; the session goes on.
    CopyStop,
    /// Read a block that this side's disk cannot.
    Read {
        /// Id.
        id: u64,
        /// Where.
        extent: Extent,
    },
    /// The block; `None` = it cannot be read here either.
    ReadReply {
        /// Id of the `Read`.
        id: u64,
        /// The bytes.
        data: Option<Buf>,
    },
    /// Heartbeat with state.
    Beat(Beat),
    /// This side wants to be activated.
    ActivateAsk {
        /// Number above all that it knows.
        number: ActivationNo,
    },
    /// Recorded durably; go on.
    ActivateGrant {
        /// The number asked for.
        number: ActivationNo,
    },
    /// Not now: active here, or this side was first.
    ActivateRefuse {
        /// The number asked for.
        number: ActivationNo,
    },
    /// No longer active here; drained and flushed.
    Deactivated,
    /// The peer wants to agree anew (a command changed something): reconnect.
    Again,
    /// Active side: its disk has failed, which it has recorded; the peer's is to serve alone.
    Detach,
    /// Recorded durably: this side alone has the latest data.
    Detached,
    /// The agent stops; `clean` = drained and flushed.
    Bye {
        /// Drained and flushed.
        clean: bool,
    },
}

impl Message {
    /// The message's name, for the log.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Card(_) => "Card",
            Self::Verdict { .. } => "Verdict",
            Self::Offer { .. } => "Offer",
            Self::Accept { .. } => "Accept",
            Self::Opened { .. } => "Opened",
            Self::Marks { .. } => "Marks",
            Self::MarksEnd => "MarksEnd",
            Self::CopyStart { .. } => "CopyStart",
            Self::CopyReady => "CopyReady",
            Self::Write { .. } => "Write",
            Self::Zero { .. } => "Zero",
            Self::Ack { .. } => "Ack",
            Self::Settled => "Settled",
            Self::Flush { .. } => "Flush",
            Self::Copy { .. } => "Copy",
            Self::Adopt { .. } => "Adopt",
            Self::Adopted => "Adopted",
            Self::CopyStop => "CopyStop",
            Self::Read { .. } => "Read",
            Self::ReadReply { .. } => "ReadReply",
            Self::Beat(_) => "Beat",
            Self::ActivateAsk { .. } => "ActivateAsk",
            Self::ActivateGrant { .. } => "ActivateGrant",
            Self::ActivateRefuse { .. } => "ActivateRefuse",
            Self::Deactivated => "Deactivated",
            Self::Again => "Again",
            Self::Detach => "Detach",
            Self::Detached => "Detached",
            Self::Bye { .. } => "Bye",
        }
    }
}
