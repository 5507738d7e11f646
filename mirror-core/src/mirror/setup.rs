//! What a mirror is started with, and its source of random numbers.

use crate::marks::Marks;
use crate::record::Record;
use crate::units::{Generation, Id16};

/// When a recovery runs without an operator's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AutoRecovery {
    /// Whenever both servers are in contact and the direction is clear.
    #[default]
    Always,
    /// Only while the mirror is active (manual §11.10.1).
    Active,
    /// Never; settling after a crash and the initial construction still run.
    Off,
}

/// Time limits and budgets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// Interval of heartbeats, ms.
    pub heartbeat_ms: u64,
    /// A peer that is silent for this long is lost, ms.
    pub peer_timeout_ms: u64,
    /// Limit of one agreement before a session, ms.
    pub agree_ms: u64,
    /// How long an active side waits for a lost peer to come back before it goes on alone, ms.
    pub grace_ms: u64,
    /// First and longest pause between failed attempts, ms.
    pub retry_ms: (u64, u64),
    /// After this long without writes the hot marks are flushed and cleared, ms.
    pub cool_ms: u64,
    /// Regions that may stay marked while a session is open (64 KiB each).
    pub hot_regions: usize,
    /// Where a second region of so many neighbours is written, all of them are marked at once:
    /// the next writes there find their marks. 1 marks nothing ahead.
    pub ahead_regions: u32,
    /// Copies in flight during a recovery (1 MiB at most each).
    pub copy_depth: usize,
    /// Copies in flight while the application is busy.
    pub copy_depth_busy: usize,
    /// When recovery runs by itself.
    pub auto_recovery: AutoRecovery,
    /// `alone = "fenced"`: nothing completes alone before the peer confirmed that it is behind or
    /// the cluster manager vouched for it being off.
    pub fenced: bool,
    /// `disk_error = "detach"`: an active side whose data partition fails goes on with the disk
    /// of the peer, if that is whole.
    pub detach: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat_ms: 1000,
            peer_timeout_ms: 5000,
            agree_ms: 3000,
            grace_ms: 3000,
            retry_ms: (500, 10_000),
            cool_ms: 2000,
            hot_regions: 65_536,
            ahead_regions: 64,
            copy_depth: 16,
            copy_depth_busy: 2,
            auto_recovery: AutoRecovery::Always,
            fenced: false,
            detach: false,
        }
    }
}

/// Everything a mirror needs to know when its agent starts.
#[derive(Debug)]
pub struct Setup {
    /// The record as loaded, or [`Record::blank`] for a cluster partition that was never used.
    pub record: Record,
    /// The record is new and must be written at once. (A bad copy of an old one is repaired before
    /// the mirror starts, see `disk::superblock::repairs`.)
    pub fresh: bool,
    /// The marks as loaded; `None` until the mirror is constructed.
    pub marks: Option<Marks>,
    /// Usable bytes of the data partition.
    pub capacity: u64,
    /// Logical block size of the data partition in bytes.
    pub device_block: u32,
    /// Identity of this boot of the server.
    pub boot: Id16,
    /// The front end found the device of an earlier agent alive: applications may have it open,
    /// and wait for requests that nobody has answered. Never true after a boot of the server.
    ///
    /// If the record says *active* under this boot, and that this side may serve, the mirror starts
    /// active ([`Mirror::is_active`](super::Mirror::is_active)): it *resumes*, which is no
    /// activation. Requests wait until the peer was met, or until this side may go on alone.
    /// Otherwise it starts inactive, and the first call of
    /// [`Mirror::handle`](super::Mirror::handle) asks for
    /// [`Action::FailDevice`](crate::io::Action::FailDevice) after a
    /// [`Notice::NotResumed`](crate::io::Notice::NotResumed). So that call is to come at once
    /// ([`Event::Timer`](crate::io::Event::Timer) will do), and the requests after it.
    pub resume: bool,
    /// Fresh random bytes from the operating system.
    pub seed: [u8; 32],
    /// Time limits and budgets.
    pub tuning: Tuning,
}

/// Random numbers from one seed: the core has no randomness of its own.
#[derive(Debug)]
pub(super) struct Entropy(blake3::OutputReader);

impl Entropy {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self(blake3::Hasher::new_keyed(seed).finalize_xof())
    }

    pub(super) fn generation(&mut self) -> Generation {
        loop {
            let mut bytes = [0; 8];
            self.0.fill(&mut bytes);
            if let Some(generation) = Generation::new(u64::from_le_bytes(bytes)) {
                return generation;
            }
        }
    }

    pub(super) fn id(&mut self) -> Id16 {
        let mut bytes = [0; 16];
        self.0.fill(&mut bytes);
        Id16(bytes)
    }
}
