//! The boundary of the core: what happens to a mirror, and what it wants done.
//!
//! The driver loop and the simulator turn [`Action`]s into I/O and hand the results back as
//! [`Event`]s. Contracts: every `Data` and `Meta` action is answered by exactly one event with its
//! [`IoId`], also after an error, and also when the connection it served is gone; every
//! [`Request`] is answered by exactly one `Complete`, or by none once
//! [`Command::Suspend`] was given; frames of one connection are sent and
//! delivered in order; after `Close` or `PeerGone` nothing more is delivered from that
//! connection.
//!
//! Where the device outlives the agent, the front end keeps each request until it is answered. What
//! a dead or suspended agent has not answered it hands to the successor as new requests, in any
//! order, also mixed with later ones; some of it may be on either disk already.

use crate::buf::Buf;
use crate::command::{Command, Done, Refusal};
use crate::status::CopyKind;
use crate::units::Extent;
use crate::wire::{Frame, PeerHello};

/// A block request, named by the front end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A disk operation, named by the core; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IoId(pub u64);

/// A connection, named by the driver; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// A command, named by the agent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u64);

/// What the application asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestOp {
    /// Read `extent`.
    Read,
    /// Write these bytes (one private copy, made at submission) at `extent`.
    Write(Buf),
    /// Zero `extent`. A discard comes as this with `unmap` (rule 5).
    Zero {
        /// Space may be released, if zeros are read back all the same.
        unmap: bool,
    },
    /// Make every completed write durable.
    Flush,
}

/// A block request. The front end has split it to at most
/// [`MAX_EXTENT_BYTES`](crate::units::MAX_EXTENT_BYTES) and aligned it to the block size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// What to do.
    pub op: RequestOp,
    /// Where; empty for a flush.
    pub extent: Extent,
    /// Complete a write only when it is durable on both sides.
    pub fua: bool,
}

/// Why a disk operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoFailure {
    /// The disk answered with this errno.
    Errno(i32),
    /// No answer within the disk's time limit. The operation may still land: its own answer may
    /// follow as a second event with the same id, which is ignored. A write or a flush that is given
    /// up is a failed disk at once: its side takes no other write and opens no session, and its
    /// successor starts when what is under way has ended (rule 12).
    TimedOut,
}

/// Why a request failed, as the front end's errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestError {
    /// EIO.
    Io,
    /// EINVAL: outside the device or misaligned.
    Invalid,
    /// ESHUTDOWN: the device is not active here.
    Inactive,
}

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The front end hands over a request.
    Request(Request),
    /// An operation on the data partition ended; reads carry their bytes, unless these were put where
    /// a request wants them ([`Mirror::read_for`](crate::mirror::Mirror::read_for)).
    DataDone {
        /// The operation.
        io: IoId,
        /// Its result.
        result: Result<Option<Buf>, IoFailure>,
    },
    /// A write to the cluster partition ended; success means durable.
    MetaDone {
        /// The operation.
        io: IoId,
        /// Its result.
        result: Result<(), IoFailure>,
    },
    /// A connection to the peer is authenticated and ready for frames.
    PeerReady {
        /// The connection.
        conn: ConnId,
        /// This side dialled it.
        dialled: bool,
        /// What the peer said of itself in the handshake.
        hello: PeerHello,
    },
    /// A frame arrived (its checksums and tag are good).
    Frame {
        /// The connection.
        conn: ConnId,
        /// The frame.
        frame: Frame,
    },
    /// Part of a frame arrived: whoever sends it lives, however long the rest takes.
    Heard {
        /// The connection.
        conn: ConnId,
    },
    /// A connection ended, for whatever reason.
    PeerGone {
        /// The connection.
        conn: ConnId,
    },
    /// Every address was tried after `Dial`, without success.
    DialFailed,
    /// An operator or the agent wants something.
    Command {
        /// Its name.
        id: CommandId,
        /// The command.
        command: Command,
    },
    /// The partitions were measured: to come before each [`Event::PeerReady`] and
    /// [`Command::Resize`], since an operator may have made them larger.
    Measured {
        /// Usable bytes of the data partition, and no more than the cluster partition has room for.
        capacity: u64,
    },
    /// A deadline that the core named has passed.
    Timer,
}

/// An operation on the data partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DataOp {
    /// Read the extent.
    Read,
    /// Write the bytes; with `durable` it ends only when they are (RWF_DSYNC).
    Write {
        /// The bytes.
        data: Buf,
        /// FUA.
        durable: bool,
    },
    /// Zero the extent.
    Zero {
        /// Space may be released.
        unmap: bool,
        /// FUA.
        durable: bool,
    },
    /// Flush the disk's volatile cache.
    Flush,
}

/// Something that operators should know, for the event log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The mirror broke: this side goes on alone.
    Broke,
    /// The connection to the peer was lost or ended.
    LinkLost(String),
    /// A session is open, with the row of the direction table that decided.
    SessionOpened {
        /// Name of the row.
        verdict: &'static str,
    },
    /// Contact, but no session: the row that decided.
    Parked {
        /// Name of the row.
        verdict: &'static str,
    },
    /// Both sides are active, by the cards that led to [`Notice::Parked`].
    BothActive,
    /// A copy begins.
    RecoveryStarted {
        /// Kind.
        kind: CopyKind,
        /// This side is the source.
        source: bool,
        /// Bytes to copy.
        bytes: u64,
    },
    /// The copy ended well.
    RecoveryFinished {
        /// Kind.
        kind: CopyKind,
        /// This side is the source.
        source: bool,
    },
    /// The copy ended early.
    RecoveryAborted {
        /// Kind.
        kind: CopyKind,
        /// This side is the source.
        source: bool,
        /// Why.
        reason: &'static str,
    },
    /// The device of an earlier agent is served again.
    Resumed,
    /// The device of an earlier agent fails its requests: why it is not served.
    NotResumed {
        /// Why.
        why: &'static str,
    },
    /// A disk of this side failed.
    DiskError {
        /// True: the cluster partition; false: the data partition.
        cluster_partition: bool,
        /// What was being done.
        what: &'static str,
        /// First byte of the operation.
        offset: u64,
    },
    /// The record of this side could not be read back, and was not written: a defect of this
    /// program. [`Notice::DiskError`] follows, for the cluster partition.
    BadRecord(crate::disk::superblock::Reason),
    /// What followed [`Notice::DiskError`], once: whether the record that says so is durable. If it
    /// is not (the cluster partition takes no more writes), a later start knows nothing of it.
    ErrorRecorded {
        /// It is.
        durable: bool,
    },
    /// This side's disk has failed, and it works with the peer's from here on (`detach`).
    Detached,
    /// The peer's disk serves the peer's applications no more: this side has failed for good.
    DetachedLost,
    /// The peer's disk has failed, and it works with the disk of this side.
    ServesPeer,
    /// The peer did something that this version does not expect.
    Protocol(String),
}

/// Something to be done.
#[derive(Debug)]
pub enum Action {
    /// Do an operation on the data partition.
    Data {
        /// Its name.
        io: IoId,
        /// What.
        op: DataOp,
        /// Where; empty for a flush.
        extent: Extent,
    },
    /// Write to the cluster partition, durably (RWF_DSYNC).
    Meta {
        /// Its name.
        io: IoId,
        /// Byte offset in the cluster partition, a multiple of 4096.
        offset: u64,
        /// A multiple of 4096 bytes.
        bytes: Buf,
    },
    /// Answer a request.
    Complete {
        /// The request.
        id: RequestId,
        /// Reads carry their bytes.
        result: Result<Option<Buf>, RequestError>,
    },
    /// Send a frame.
    Send {
        /// The connection.
        conn: ConnId,
        /// The frame.
        frame: Frame,
    },
    /// End a connection.
    Close {
        /// The connection.
        conn: ConnId,
        /// For the log.
        why: String,
    },
    /// Try to connect to the peer, over each address pair in turn. Answered by exactly one
    /// `PeerReady` (with `dialled`) or `DialFailed`.
    Dial,
    /// Answer a command.
    Reply {
        /// The command.
        id: CommandId,
        /// Done or refused.
        result: Result<Done, Refusal>,
    },
    /// The device must stop serving: fail what is there and what comes, also what an earlier agent
    /// has left and what was not handed over yet. If the mirror is inactive after this (it could
    /// not resume, see [`Notice::NotResumed`]), no deactivation closes the device: the front end
    /// does, and before the next activation.
    FailDevice,
    /// The mirror has grown while the device is open: it is to have this size from now on. To be
    /// ignored if it has.
    Grow {
        /// Bytes.
        size: u64,
    },
    /// Tell the peer over every other path that it is behind as of `session`; the answer comes
    /// back as [`Command::PeerConfirmedBehind`].
    TellPeerBehind {
        /// The session that ended.
        session: crate::units::SessionNo,
    },
    /// For the event log.
    Notice(Notice),
}
