//! What operators and the agent ask of a mirror, and how it answers.

use crate::units::SessionNo;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A request to the mirror on this server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Open the device for I/O here.
    Activate {
        /// The operator or cluster manager vouches: the peer is off and wrote nothing alone.
        peer_down: bool,
        /// What another path (the agents' link) says about the peer being active, if it works.
        peer_seen_active: Option<bool>,
    },
    /// Drain, flush on both sides and close the device.
    Deactivate,
    /// Start the recovery that the cards dictate.
    Recover,
    /// Stop a running recovery; what was copied stays copied.
    CancelRecovery,
    /// Keep the servers apart on purpose (`--break`): no session until [`Command::Recover`] or
    /// [`Command::Force`] on either side, or until the agent starts anew.
    Separate,
    /// This side is declared to hold the latest data.
    Force {
        /// What another path says about the peer being active, if it works.
        peer_seen_active: Option<bool>,
    },
    /// The peer says over another path: it goes on alone, this side is behind as of `session`.
    ToldBehind {
        /// The session that ended.
        session: SessionNo,
    },
    /// The peer confirmed over another path that it durably knows itself behind.
    PeerConfirmedBehind {
        /// The session that ended.
        session: SessionNo,
    },
    /// The cluster manager vouches that the peer is off (for `alone = "fenced"`).
    PeerDown,
    /// The device fails its requests until it is deactivated, though its disk is good: for a side
    /// that has to give way to another that is active, too (§10.7). Changes nothing on the disk.
    FailDevice,
    /// Both data partitions were made larger: so is the mirror to be, as far as both have room. The
    /// sides must be in contact and equal.
    Resize,
    /// The agent stops: drain, flush, record a clean stop, say goodbye.
    Shutdown,
    /// The agent stops, and the device stays for its successor ([`Setup::resume`]): what is on its
    /// way to a disk ends, both disks are flushed and the marks cleared if there is a session, and
    /// the record stays *active*. Requests that have not begun, and those that still come, are
    /// left unanswered for the successor; nothing is waited for but disks and an open session.
    /// Answered by [`Done::Stopped`]. On an inactive mirror the same as [`Command::Shutdown`].
    ///
    /// [`Setup::resume`]: crate::mirror::Setup::resume
    Suspend,
}

/// What a command did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Done {
    /// The device may be opened.
    Activated,
    /// The device is closed and flushed.
    Deactivated,
    /// A recovery begins now.
    RecoveryStarted,
    /// There is no difference to copy.
    NothingToRecover,
    /// The recovery was stopped.
    RecoveryCancelled,
    /// The servers stay apart from now on.
    Separated,
    /// They no longer do; what differs is recovered once they are in contact.
    Rejoining,
    /// This side is the latest; a full copy to the peer begins.
    ForcedWithCopy,
    /// This side is the latest; there is no peer to copy to now.
    ForcedAlone,
    /// Both sides have recorded the new size in bytes, and the device has it if it is open.
    Grown(u64),
    /// Recorded durably.
    Noted,
    /// Everything is flushed and recorded; the process may end.
    Stopped,
}

/// Why a command was refused. Each says what happened; the tools add the safe next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// This side does not hold the latest data (behind, a recovery target, or overruled).
    NotLatest,
    /// Both sides have gone apart; only `--force` decides.
    SplitBrain,
    /// No contact, and this side cannot know that it is the latest (restarted since).
    NoContact,
    /// No contact, and this side was active when its server went down.
    WasActive,
    /// No contact, and the peer was active when this side restarted.
    PeerWasActive,
    /// The peer is active.
    PeerActive,
    /// This side is active already.
    AlreadyActive,
    /// This side is not active.
    NotActive,
    /// The mirror was never constructed.
    NotConstructed,
    /// The sides are just agreeing or settling; ask again in a moment.
    Busy,
    /// A recovery runs already.
    RecoveryRunning,
    /// No recovery runs.
    NoRecovery,
    /// The direction of a recovery cannot be told.
    NoDirection,
    /// The side that would be the source is half copied, behind or failed.
    SourceAbnormal,
    /// The side that would be overwritten is active.
    TargetActive,
    /// A disk of this side has failed.
    DiskFailed,
    /// The record of this side could not be written. One of its two copies may have it all the same,
    /// which the next start of the agent finds.
    NotRecorded,
    /// This server's partitions have no room for a larger mirror.
    NoRoom,
    /// The other server's partitions have no room for a larger mirror.
    NoRoomAtPeer,
    /// The larger size is recorded here; the other server takes it when it is in contact.
    GrowsLater,
    /// The mirror is stopping.
    Stopping,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLatest => "this server does not hold the latest data",
            Self::SplitBrain => "both servers have gone apart (split brain)",
            Self::NoContact => {
                "the other server cannot be reached, and this one cannot know that it holds the latest data"
            }
            Self::WasActive => {
                "the other server cannot be reached, and this one was active when it went down"
            }
            Self::PeerWasActive => {
                "the other server cannot be reached, and it was active when this one last heard of it"
            }
            Self::PeerActive => "the mirror disk is active on the other server",
            Self::AlreadyActive => "the mirror disk is already active on this server",
            Self::NotActive => "the mirror disk is not active on this server",
            Self::NotConstructed => "the mirror has not been constructed yet",
            Self::Busy => "the servers are just agreeing on the state of the mirror",
            Self::RecoveryRunning => "a mirror recovery is in progress",
            Self::NoRecovery => "no mirror recovery is in progress",
            Self::NoDirection => "the direction of the recovery cannot be judged",
            Self::SourceAbnormal => "the server that would be copied from is abnormal",
            Self::TargetActive => "the server that would be overwritten is active",
            Self::DiskFailed => "a disk of this server has failed",
            Self::NotRecorded => {
                "the cluster partition of this server failed, and what was ordered may be recorded there all the same"
            }
            Self::NoRoom => {
                "the data partition of this server is not larger than the mirror, or its cluster partition has no room for a larger one"
            }
            Self::NoRoomAtPeer => {
                "the data partition of the other server is not larger than the mirror, or its cluster partition has no room for a larger one"
            }
            Self::GrowsLater => {
                "this server has recorded the larger size, and the other one takes it when they are in contact"
            }
            Self::Stopping => "the mirror is stopping",
        })
    }
}
