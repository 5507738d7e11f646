//! One simulated server: its disks, and the agent's process if it runs.

use crate::disk::{ClusterDisk, DataDisk, Stamp};
use crate::rng::Rng;
use mirror_core::disk::layout::{BITMAP, BLOCK_BYTES, SUPERBLOCK_A, SUPERBLOCK_B, required_bytes};
use mirror_core::disk::superblock::{Loaded, load, repairs};
use mirror_core::io::RequestId;
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
    /// A write with this stamp.
    Write(Stamp),
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
    /// When a timer event is scheduled for, in microseconds.
    pub timer: u64,
    boot: Id16,
}

fn random_id(rng: &mut Rng) -> Id16 {
    let mut id = [0; 16];
    id.copy_from_slice(&rng.seed32()[..16]);
    Id16(id)
}

impl Node {
    /// A server that was never used.
    pub fn new(side: Side, rng: &mut Rng) -> Self {
        Self {
            side,
            mirror: None,
            incarnation: 0,
            landing: 0,
            data: DataDisk::new(SIZE),
            cluster: ClusterDisk::new(required_bytes(SIZE)),
            requests: BTreeMap::new(),
            timer: u64::MAX,
            boot: random_id(rng),
        }
    }

    /// Serves the device.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.mirror.as_ref().is_some_and(Mirror::is_active)
    }

    /// A new boot of the server.
    pub fn reboot(&mut self, rng: &mut Rng) {
        self.boot = random_id(rng);
    }

    /// Starts the agent's process; an error is a record that cannot be read back.
    ///
    /// # Errors
    /// The reason, as the report shows it.
    pub fn start(&mut self, now: Now, rng: &mut Rng) -> Result<(), String> {
        self.incarnation += 1;
        let block = BLOCK_BYTES as u64;
        let a = self.cluster.read(SUPERBLOCK_A, block).to_vec();
        let b = self.cluster.read(SUPERBLOCK_B, block).to_vec();
        let (record, fresh) = match load(&a, &b) {
            Loaded::NeverUsed => (Record::blank(random_id(rng), self.side), true),
            Loaded::Valid { record, .. } => {
                for (offset, bytes) in repairs(&record, &a, &b) {
                    self.cluster.write(offset, &bytes);
                }
                (*record, false)
            }
            Loaded::Broken(reason) => return Err(format!("{:?}: {reason}", self.side)),
        };
        let marks = (record.size != 0).then(|| {
            let len = required_bytes(SIZE) - BITMAP;
            let bytes = self.cluster.read(BITMAP, len);
            Marks::load(record.device, regions_in(record.size), bytes).0
        });
        let tuning = Tuning { hot_regions: 8, copy_depth: 3, ..Tuning::default() };
        let setup = Setup {
            record,
            fresh,
            marks,
            capacity: SIZE,
            device_block: 4096,
            boot: self.boot,
            seed: rng.seed32(),
            tuning,
        };
        self.mirror = Some(Mirror::new(setup, now));
        Ok(())
    }
}
