//! Figures of one mirror: how much it does and how long that takes.
//!
//! They are counted where things happen (the driver's thread, the agent's mounts, the core's waits),
//! each by one owner, so that nothing is locked on the way of a request. [`timings`],
//! [`gauges`] and [`counters`] name them once for every way in which they are shown.

pub mod csv;
mod histogram;
pub mod http;
pub mod openmetrics;

pub use histogram::{BUCKETS, Histogram};

use mirror_core::status::Waits;
use serde::{Deserialize, Serialize};

/// One kind of operation.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes of those that ended well.
    pub bytes: u64,
    /// Those that failed; the rest counts those that ended well.
    pub errors: u64,
    /// How long each took.
    pub time: Histogram,
}

impl Traffic {
    /// One that took so long ended well.
    pub fn add(&mut self, bytes: u64, us: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.time.add(us);
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(earlier.bytes),
            errors: self.errors.saturating_sub(earlier.errors),
            time: self.time.since(&earlier.time),
        }
    }
}

/// The kinds of block operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Write-zeroes and discards.
    Zero,
    /// Flushes.
    Flush,
}

/// Operations by kind.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Operations {
    /// Reads.
    pub read: Traffic,
    /// Writes.
    pub write: Traffic,
    /// Write-zeroes and discards.
    pub zero: Traffic,
    /// Flushes.
    pub flush: Traffic,
}

impl Operations {
    /// Those of a kind.
    pub fn of(&mut self, kind: Kind) -> &mut Traffic {
        match kind {
            Kind::Read => &mut self.read,
            Kind::Write => &mut self.write,
            Kind::Zero => &mut self.zero,
            Kind::Flush => &mut self.flush,
        }
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            read: self.read.since(&earlier.read),
            write: self.write.since(&earlier.write),
            zero: self.zero.since(&earlier.zero),
            flush: self.flush.since(&earlier.flush),
        }
    }
}

/// How much of something there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Level {
    /// Now.
    pub now: u64,
    /// The most there ever was.
    pub max: u64,
    /// The most since [`Level::take_peak`].
    pub peak: u64,
}

impl Level {
    /// It is so much now.
    pub fn set(&mut self, now: u64) {
        self.now = now;
        self.max = self.max.max(now);
        self.peak = self.peak.max(now);
    }

    /// Begins a new interval for [`Level::peak`].
    pub fn take_peak(&mut self) {
        self.peak = self.now;
    }
}

/// The connection to the peer that is in use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Connected {
    /// This server's address, without port.
    pub local: String,
    /// The peer's.
    pub remote: String,
}

/// Everything that is counted of one mirror, since its agent began.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Requests of the device's users.
    pub device: Operations,
    /// Writes of the device's users that ended on both disks.
    pub sync: Histogram,
    /// Requests under way.
    pub request_queue: Level,
    /// Operations on the data partition.
    pub disk: Operations,
    /// Writes to the cluster partition.
    pub cluster: Traffic,
    /// Bytes sent to the peer.
    pub sent_bytes: u64,
    /// Bytes received from the peer.
    pub received_bytes: u64,
    /// Bytes that wait to be sent.
    pub send_queue: Level,
    /// From sending a write to the peer's word that it is on its disk.
    pub sync_ack: Histogram,
    /// The same for blocks of a recovery.
    pub recovery_ack: Histogram,
    /// Bytes of a recovery that the peer has taken.
    pub recovery_sent_bytes: u64,
    /// Bytes of a recovery that came from the peer.
    pub recovery_received_bytes: u64,
    /// Round trip on the mirror connect as the kernel measures it, at each heartbeat of the peer.
    pub round_trip: Histogram,
    /// Between two heartbeats of the peer.
    pub heartbeat_gap: Histogram,
    /// Sessions that were opened.
    pub sessions: u64,
    /// How often this side went on alone.
    pub breaks: u64,
    /// Recoveries that were begun, in either direction.
    pub recoveries: u64,
    /// Waits between writes and recovery.
    pub waits: Waits,
    /// Bytes that one side has and the other lacks, looked at once a second.
    pub difference: Level,
    /// Unmounts.
    pub umount: Histogram,
    /// Checks of the file system.
    pub fsck: Histogram,
    /// The connection in use, if any.
    pub connected: Option<Connected>,
}

impl Figures {
    /// What was counted since `earlier`, an older state of the same. Levels stay as they are.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let (w, e) = (&self.waits, &earlier.waits);
        Self {
            device: self.device.since(&earlier.device),
            sync: self.sync.since(&earlier.sync),
            request_queue: self.request_queue,
            disk: self.disk.since(&earlier.disk),
            cluster: self.cluster.since(&earlier.cluster),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
            send_queue: self.send_queue,
            sync_ack: self.sync_ack.since(&earlier.sync_ack),
            recovery_ack: self.recovery_ack.since(&earlier.recovery_ack),
            recovery_sent_bytes: self
                .recovery_sent_bytes
                .saturating_sub(earlier.recovery_sent_bytes),
            recovery_received_bytes: self
                .recovery_received_bytes
                .saturating_sub(earlier.recovery_received_bytes),
            round_trip: self.round_trip.since(&earlier.round_trip),
            heartbeat_gap: self.heartbeat_gap.since(&earlier.heartbeat_gap),
            sessions: self.sessions.saturating_sub(earlier.sessions),
            breaks: self.breaks.saturating_sub(earlier.breaks),
            recoveries: self.recoveries.saturating_sub(earlier.recoveries),
            waits: Waits {
                writes: w.writes.saturating_sub(e.writes),
                write_ms: w.write_ms.saturating_sub(e.write_ms),
                copies: w.copies.saturating_sub(e.copies),
                copy_ms: w.copy_ms.saturating_sub(e.copy_ms),
            },
            difference: self.difference,
            umount: self.umount.since(&earlier.umount),
            fsck: self.fsck.since(&earlier.fsck),
            connected: self.connected.clone(),
        }
    }

    /// Begins a new interval for all peaks.
    pub fn take_peaks(&mut self) {
        self.request_queue.take_peak();
        self.send_queue.take_peak();
        self.difference.take_peak();
        let all = [
            &mut self.sync,
            &mut self.sync_ack,
            &mut self.recovery_ack,
            &mut self.round_trip,
            &mut self.heartbeat_gap,
            &mut self.umount,
            &mut self.fsck,
        ];
        all.into_iter().for_each(Histogram::take_peak);
    }
}

/// Something that took time, under its name.
#[derive(Clone, Copy, Debug)]
pub struct Timing<'a> {
    /// For programs.
    pub key: &'static str,
    /// For people.
    pub label: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Bytes and errors, for what has them.
    pub traffic: Option<(u64, u64)>,
    /// How often and how long.
    pub time: &'a Histogram,
}

/// Everything that took time.
#[must_use]
pub fn timings(f: &Figures) -> [Timing<'_>; 16] {
    let of = |key, label, help, t: &'_ Traffic| (key, label, help, Some((t.bytes, t.errors)));
    let only = |key, label, help| (key, label, help, None);
    let timing = |(key, label, help, traffic), time| Timing { key, label, help, traffic, time };
    let traffic = |key, label, help, t| timing(of(key, label, help, t), &t.time);
    let time = |key, label, help, h| timing(only(key, label, help), h);
    [
        traffic("device_write", "Device write", "Writes through the device.", &f.device.write),
        traffic("device_zero", "Device zero", "Zeroes and discards there.", &f.device.zero),
        traffic("device_read", "Device read", "Reads through the device.", &f.device.read),
        traffic("device_flush", "Device flush", "Flushes of the device.", &f.device.flush),
        time(
            "sync",
            "On both disks",
            "Writes through the device that ended on both disks.",
            &f.sync,
        ),
        time("sync_ack", "Peer's ack", "From sending a write to the peer's ack.", &f.sync_ack),
        traffic("disk_write", "Disk write", "Writes to the data partition.", &f.disk.write),
        traffic("disk_zero", "Disk zero", "Zeroes and discards there.", &f.disk.zero),
        traffic("disk_read", "Disk read", "Reads of the data partition.", &f.disk.read),
        traffic("disk_flush", "Disk flush", "Flushes of the data partition.", &f.disk.flush),
        traffic(
            "cluster_write",
            "Cluster partition",
            "Writes to the cluster partition.",
            &f.cluster,
        ),
        time(
            "recovery_ack",
            "Recovery ack",
            "From sending a block to the peer's ack.",
            &f.recovery_ack,
        ),
        time("round_trip", "Round trip", "On the mirror connect, by the kernel.", &f.round_trip),
        time("heartbeat_gap", "Heartbeat gap", "Between two heartbeats.", &f.heartbeat_gap),
        time("unmount", "Unmount", "Unmounts.", &f.umount),
        time("fsck", "Fsck", "Checks of the file system.", &f.fsck),
    ]
}

/// How much there is of something, under its name.
#[must_use]
pub fn gauges(f: &Figures) -> [(&'static str, &'static str, Level); 3] {
    [
        ("request_queue", "Requests under way", f.request_queue),
        ("send_queue_bytes", "Bytes that wait to be sent", f.send_queue),
        ("difference_bytes", "Bytes that one side lacks", f.difference),
    ]
}

/// What is only counted, under its name.
#[must_use]
pub fn counters(f: &Figures) -> [(&'static str, &'static str, u64); 11] {
    [
        ("sent_bytes", "Bytes sent to the other server", f.sent_bytes),
        ("received_bytes", "Bytes received from it", f.received_bytes),
        ("recovery_sent_bytes", "Bytes of recoveries that it took", f.recovery_sent_bytes),
        ("recovery_received_bytes", "Bytes of recoveries from it", f.recovery_received_bytes),
        ("write_waits", "Writes that waited for a recovery", f.waits.writes),
        ("write_wait_milliseconds", "How long, in ms", f.waits.write_ms),
        ("recovery_waits", "Recovery blocks that waited for writes", f.waits.copies),
        ("recovery_wait_milliseconds", "How long, in ms", f.waits.copy_ms),
        ("sessions", "Sessions opened", f.sessions),
        ("breaks", "Times it went on alone", f.breaks),
        ("recoveries", "Recoveries begun", f.recoveries),
    ]
}

/// Figures that cover a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// Name of the mirror.
    pub mirror: String,
    /// Its device.
    pub device: String,
    /// The server that counted.
    pub server: String,
    /// When they were taken, seconds since 1970 UTC.
    pub at: i64,
    /// Milliseconds that they cover.
    pub millis: u64,
    /// The figures.
    pub figures: Box<Figures>,
}
