//! One simulated server: its disks, and the agent's process if it runs.

use crate::disk::{ClusterDisk, DataDisk, Stamp};
use crate::rng::Rng;
use mirror_core::disk::layout::{BITMAP, BLOCK_BYTES, SUPERBLOCK_A, SUPERBLOCK_B, required_bytes};
use mirror_core::disk::superblock::{Loaded, load, repairs};
use mirror_core::io::{Request, RequestId};
use mirror_core::marks::Marks;
use mirror_core::mirror::{Mirror, Setup, Tuning};
use mirror_core::record::Record;
use mirror_core::units::{Extent, Id16, Now, Side, regions_in};
use std::collections::BTreeMap;

/// Bytes of the simulated mirror: 24 regions and a partial one.
pub const SIZE: u64 = 24 * 65_536 + 8192;

/// What the application waits for.
#[derive(Clone, Debug)]
pub enum AppOp {
    /// A write with this stamp, to be durable or not.
    Write(Stamp, bool),
    /// A read that began at this time of the oracle; false = what it sees is not to be judged.
    Read(Extent, u64, bool),
    /// A flush over these writes.
    Flush(Vec<Stamp>),
}

/// One server.
#[derive(Debug)]
pub struct Node {
    /// Its place in the configuration.
    pub side: Side,
    /// The running mirror.
    pub mirror: Option<Mirror>,
    /// Counts the processes.
    pub incarnation: u32,
    /// Operations that still may land, of any incarnation.
    pub landing: u64,
    /// The data partition.
    pub data: DataDisk,
    /// The cluster partition.
    pub cluster: ClusterDisk,
    /// Requests under way.
    pub requests: BTreeMap<RequestId, AppOp>,
    /// The same as the front end keeps them until they are answered, and the process (by its
    /// incarnation) that was asked last.
    pub orders: BTreeMap<RequestId, (Request, u32)>,
    /// The device has outlived an agent (or is taken for one that has).
    pub device: bool,
    /// The mirror has resumed, and since then neither had a session nor gone alone.
    pub resumed: bool,
    /// When a timer event is scheduled for, in microseconds.
    pub timer: u64,
    /// Settings of its agent.
    pub tuning: Tuning,
    /// Bytes of the data partition.
    pub capacity: u64,
    /// Bytes of the device, which its user may address.
    pub device_size: u64,
    /// Both partitions came from an image, and no session has been open since.
    pub restored: bool,
    /// The process that was in the last session.
    pub last_met: Option<u32>,
    /// Logical block size of the data partition.
    pub device_block: u32,
    /// How far its monotonic clock has jumped ahead, ms.
    pub ahead_ms: u64,
    /// How far its wall clock is off, seconds.
    pub wall_off: i64,
    boot: Id16,
}

fn random_id(rng: &mut Rng) -> Id16 {
    let mut id = [0; 16];
    id.copy_from_slice(&rng.seed32()[..16]);
    Id16(id)
}

impl Node {
    /// A server that was never used.
    pub fn new(side: Side, capacity: u64, tuning: Tuning, rng: &mut Rng) -> Self {
        Self {
            tuning,
            capacity,
            device_size: SIZE,
            restored: false,
            last_met: None,
            device_block: 4096,
            ahead_ms: 0,
            wall_off: 0,
            side,
            mirror: None,
            incarnation: 0,
            landing: 0,
            data: DataDisk::new(capacity),
            cluster: ClusterDisk::new(required_bytes(capacity)),
            requests: BTreeMap::new(),
            orders: BTreeMap::new(),
            device: false,
            resumed: false,
            timer: u64::MAX,
            boot: random_id(rng),
        }
    }

    /// Serves the device.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.mirror.as_ref().is_some_and(Mirror::is_active)
    }

    /// The agent's process is gone.
    pub fn end_process(&mut self) {
        self.mirror = None;
        self.incarnation += 1;
        self.timer = u64::MAX;
        self.resumed = false;
    }

    /// Its durable record says that it is half copied.
    pub fn is_half_copied(&self) -> bool {
        let record = self.durable_record().ok().flatten();
        record.is_some_and(|r| r.inconsistent.is_some())
    }

    /// A new boot of the server.
    pub fn reboot(&mut self, rng: &mut Rng) {
        self.boot = random_id(rng);
    }

    /// New, empty disks; with `keep_data` only the cluster partition is zeroed.
    pub fn replace_disks(&mut self, keep_data: bool) {
        self.cluster = ClusterDisk::new(required_bytes(self.capacity));
        if !keep_data {
            self.data = DataDisk::new(self.capacity);
        }
    }

    /// Both partitions are made larger by their owner, who tells nobody.
    pub fn enlarge(&mut self, bytes: u64, junk: Stamp) {
        self.capacity += bytes;
        self.data.grow(self.capacity, junk);
        self.cluster.grow(required_bytes(self.capacity));
    }

    fn copies(&self) -> [Vec<u8>; 2] {
        let block = BLOCK_BYTES as u64;
        [SUPERBLOCK_A, SUPERBLOCK_B].map(|at| self.cluster.read(at, block).to_vec())
    }

    /// The record as an agent that starts now would find it; `None` if it was never used.
    ///
    /// # Errors
    /// The reason, as the report shows it.
    pub fn durable_record(&self) -> Result<Option<Record>, String> {
        let [a, b] = self.copies();
        match load(&a, &b) {
            Loaded::NeverUsed => Ok(None),
            Loaded::Valid { record, .. } => Ok(Some(*record)),
            Loaded::Broken(reason) => Err(format!("{:?}: {reason}", self.side)),
        }
    }

    /// The marks as an agent that starts now would find them.
    pub fn durable_marks(&self, record: &Record) -> Option<Marks> {
        (record.size != 0).then(|| {
            let len = required_bytes(record.size) - BITMAP;
            let bytes = self.cluster.read(BITMAP, len);
            let mut marks = Marks::load(record.device, regions_in(record.size), bytes).0;
            marks.set(record.grown_regions());
            marks
        })
    }

    /// A byte of the bitmap goes bad, or of a copy of the record beside a good one.
    pub fn rot(&mut self, rng: &mut Rng) -> Option<&'static str> {
        let block = BLOCK_BYTES as u64;
        self.durable_record().ok().flatten()?;
        if rng.chance(500) {
            self.cluster.rot(BITMAP, block, rng);
            return Some("the bitmap");
        }
        let [a, b] = self.copies();
        let first = rng.chance(500);
        let (at, hit, other) = if first { (SUPERBLOCK_A, &a, &b) } else { (SUPERBLOCK_B, &b, &a) };
        let good = |copy: &[u8]| match load(copy, &[]) {
            Loaded::Valid { record, .. } => Some(record),
            Loaded::NeverUsed | Loaded::Broken(_) => None,
        };
        let (hit, other) = (good(hit), good(other)?);
        // A force that was interrupted is taken for done when one copy has it.
        if hit.is_some_and(|r| r.forced_at.is_some() && r.generation != other.generation) {
            return None;
        }
        self.cluster.rot(at, block, rng);
        Some("a copy of the record")
    }

    /// Starts the agent's process; an error is a record that cannot be read back.
    ///
    /// # Errors
    /// The reason, as the report shows it.
    pub fn start(&mut self, now: Now, rng: &mut Rng) -> Result<(), String> {
        self.incarnation += 1;
        let [a, b] = self.copies();
        let (record, fresh) = match self.durable_record()? {
            None => (Record::blank(random_id(rng), self.side), true),
            Some(record) => {
                for (offset, bytes) in repairs(&record, &a, &b) {
                    self.cluster.write(offset, &bytes);
                }
                (record, false)
            }
        };
        let marks = self.durable_marks(&record);
        let setup = Setup {
            record,
            fresh,
            marks,
            capacity: self.capacity,
            device_block: self.device_block,
            boot: self.boot,
            resume: self.device,
            seed: rng.seed32(),
            tuning: self.tuning,
        };
        self.mirror = Some(Mirror::new(setup, now));
        Ok(())
    }
}
