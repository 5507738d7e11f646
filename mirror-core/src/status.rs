//! What a mirror shows of itself: the source of `clpmdstat`, the monitors and `--json`.

use serde::{Deserialize, Serialize};

/// The colours of the manual (§11.10.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Color {
    /// Holds the latest data.
    Green,
    /// Does not hold the latest data, or nobody knows which side does.
    Red,
    /// Takes part in a running recovery.
    Yellow,
    /// Not known.
    Gray,
}

/// The first line of `clpmdstat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Both sides are equal, or nothing is known to the contrary.
    Normal,
    /// A recovery, forced or not, is needed.
    Abnormal,
    /// A recovery or the initial construction runs.
    Recovering,
    /// The mirror was never constructed.
    NoConstruction,
}

/// One side as this server sees it. `None` = not known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SideStatus {
    /// Colour.
    pub color: Color,
    /// Serving the device.
    pub active: Option<bool>,
    /// Last write, seconds since 1970 UTC by that server's clock.
    pub last_update: Option<i64>,
    /// When the mirror broke, seconds since 1970 UTC by that server's clock.
    pub break_time: Option<i64>,
    /// A disk of that side has failed.
    pub disk_error: Option<bool>,
    /// Marked regions of that side.
    pub marked_regions: Option<u32>,
    /// Share of the mirror that this side has to give to the other, 0-100, rounded up.
    pub difference_percent: Option<u8>,
    /// Generation of its data, in hexadecimal.
    pub generation: Option<String>,
}

/// Where a side has what the other lacks, or may lack.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Marked {
    /// Bytes in all, in whole regions of 64 KiB.
    pub bytes: u64,
    /// The ranges in order of place, neighbours joined; only the first ones if there are many.
    pub ranges: Vec<Range>,
    /// Ranges that are not listed.
    pub more: u64,
}

/// How long the application's writes and the blocks of a recovery have waited for each other, since
/// the process began. A wait that is shorter than the clock's millisecond counts, but takes no time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Waits {
    /// Writes that had to wait for a block of a recovery.
    pub writes: u64,
    /// Milliseconds that they waited in all.
    pub write_ms: u64,
    /// Blocks of a recovery that had to wait for the application.
    pub copies: u64,
    /// Milliseconds that they waited in all.
    pub copy_ms: u64,
}

/// A range of a mirror, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// What kind of copy runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyKind {
    /// All blocks (message 7: NORMAL).
    Full,
    /// The marked regions (message 7: FAST).
    Difference,
    /// The marked regions after a crash, between sides of one generation.
    Settle,
    /// All blocks, for the first time.
    Initial,
}

/// A running recovery.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecoveryStatus {
    /// Index (0 or 1) of the server copied from.
    pub source: usize,
    /// Index (0 or 1) of the server copied to.
    pub target: usize,
    /// Kind of copy.
    pub kind: CopyKind,
    /// 0-100, rounded down.
    pub percent: u8,
    /// Seconds since it began.
    pub used_seconds: u64,
    /// Estimated seconds to go; `None` before there is a rate.
    pub remain_seconds: Option<u64>,
    /// Bytes copied.
    pub copied_bytes: u64,
    /// Bytes to copy in all.
    pub total_bytes: u64,
}

/// How the mirror stands with its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkStatus {
    /// No contact.
    Down,
    /// Connected, agreeing.
    Negotiating,
    /// Connected, but no session: an operator's decision or command is needed.
    Parked,
    /// Mirroring.
    Session,
}

/// One mirror as this server sees it. Index 0 is the first server of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// First line of `clpmdstat`.
    pub phase: Phase,
    /// Both sides, in configuration order.
    pub sides: [SideStatus; 2],
    /// Which of the two is this server.
    pub local: usize,
    /// Union of both sides' differences, 0-100, rounded up.
    pub total_difference_percent: u8,
    /// The running recovery, if any.
    pub recovery: Option<RecoveryStatus>,
    /// The connection.
    pub link: LinkStatus,
    /// Number of the session, 0 = never one.
    pub session: u64,
    /// Name of the row of the direction table that decided last, if any.
    pub verdict: Option<String>,
    /// Size of the mirror in bytes; 0 = not constructed.
    pub size: u64,
    /// Logical block size of the mirror in bytes; 0 = not constructed.
    pub block: u32,
    /// An operator keeps the servers apart (`--break`), as far as this server knows.
    #[serde(default)]
    pub separated: bool,
    /// Both sides are active.
    pub both_active: bool,
    /// Nothing can be lost by choosing: only `--force` helps.
    pub needs_force: bool,
    /// The initial construction has begun, is not known here to have ended, and nobody has used the
    /// mirror.
    #[serde(default)]
    pub constructing: bool,
}
