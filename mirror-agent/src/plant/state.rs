//! What the partitions say when the agent starts.

use super::{internal, unreadable};
use crate::agent::Step;
use crate::driver::Partition;
use crate::messages::{DriverMessage, driver};
use mirror_core::disk::layout::{BITMAP, BLOCK_BYTES, Layout, SUPERBLOCK_A, SUPERBLOCK_B};
use mirror_core::disk::superblock::{self, Loaded};
use mirror_core::marks::Marks;
use mirror_core::mirror::{Setup, Tuning};
use mirror_core::record::Record;
use mirror_core::units::{Id16, MAX_MIRROR_BYTES, Side};

/// Bytes of the bitmap that are read at once.
const CHUNK: usize = 1 << 20;

/// Reads the record and the marks; a bad copy of the record is repaired before anything else.
///
/// `note` is told what cannot be read.
pub(super) fn load(
    data: &Partition,
    cluster: &Partition,
    side: Side,
    note: &dyn Fn(DriverMessage, &[&str]),
) -> Step<Setup> {
    let capacity = capacity(data)?;
    let too_small = |e| unreadable(format!("{}: {e}", cluster.path().display()));
    // Unreadable copies are judged as such by `superblock::load`.
    let copy = |at| match cluster.read(at, BLOCK_BYTES) {
        Ok(bytes) => bytes.to_vec(),
        Err(e) => {
            tracing::warn!("{}: {e}", cluster.path().display());
            note(driver::FLAG_READ, &[]);
            Vec::new()
        }
    };
    let (a, b) = (copy(SUPERBLOCK_A), copy(SUPERBLOCK_B));
    let (record, fresh) = match superblock::load(&a, &b) {
        Loaded::NeverUsed => (Record::blank(Id16(random()?), side), true),
        Loaded::Valid { record, .. } => (*record, false),
        Loaded::Broken(why) => {
            return Err(unreadable(format!("{}: {why}", cluster.path().display())));
        }
    };
    // What a grown data partition needs there is asked for when the mirror is to grow, too.
    let needed = if record.size == 0 { capacity } else { record.size };
    let layout = Layout::new(needed, cluster.size()).map_err(too_small)?;
    check(&record, capacity, data, cluster, side)?;
    if !fresh {
        for (offset, bytes) in superblock::repairs(&record, &a, &b) {
            cluster.write(offset, &bytes).map_err(unreadable)?;
        }
    }
    let marks = if record.size == 0 { None } else { Some(marks(&record, cluster, layout, note)?) };
    Ok(Setup {
        fresh,
        marks,
        capacity: data.usable(cluster),
        device_block: data.block(),
        boot: boot_id()?,
        resume: false,
        seed: random()?,
        record,
        tuning: Tuning::default(),
    })
}

/// Bytes of the whole blocks of the data partition. One that is too large is refused, not used in
/// part: the size of the mirror would be a surprise.
fn capacity(data: &Partition) -> Step<u64> {
    let block = u64::from(data.block()).max(1);
    let bytes = data.size() / block * block;
    if bytes > MAX_MIRROR_BYTES {
        return Err(unreadable(format!(
            "{}: it has {bytes} bytes, a mirror at most {MAX_MIRROR_BYTES}",
            data.path().display()
        )));
    }
    Ok(bytes)
}

fn check(
    record: &Record,
    capacity: u64,
    data: &Partition,
    cluster: &Partition,
    side: Side,
) -> Step<()> {
    if record.side != side {
        return Err(unreadable(format!(
            "{}: it belongs to the other server of the configuration",
            cluster.path().display()
        )));
    }
    if capacity < record.size {
        return Err(unreadable(format!(
            "{}: the data partition has {capacity} bytes, but the mirror has {}",
            data.path().display(),
            record.size
        )));
    }
    Ok(())
}

fn marks(
    record: &Record,
    cluster: &Partition,
    of_mirror: Layout,
    note: &dyn Fn(DriverMessage, &[&str]),
) -> Step<Marks> {
    let len = usize::try_from(of_mirror.bitmap_bytes()).map_err(|e| internal(&e.to_string()))?;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let chunk = CHUNK.min(len - bytes.len());
        match cluster.read(BITMAP + bytes.len() as u64, chunk) {
            Ok(read) => bytes.extend_from_slice(&read),
            // What cannot be read is all marked.
            Err(e) => {
                tracing::warn!("{}: {e}", cluster.path().display());
                note(driver::BITMAP_READ, &[&e.to_string()]);
                bytes.resize(bytes.len() + chunk, 0);
            }
        }
    }
    let (marks, damaged) = Marks::load(record.device, of_mirror.regions(), &bytes);
    if damaged > 0 {
        tracing::warn!(
            "{}: {damaged} blocks of the bitmap are damaged; what they cover counts as different",
            cluster.path().display()
        );
    }
    Ok(marks)
}

fn random<const N: usize>() -> Step<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| internal(&e.to_string()))?;
    Ok(bytes)
}

/// The kernel's identity of this boot.
fn boot_id() -> Step<Id16> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|e| internal(&format!("boot id: {e}")))?;
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok()).collect();
    let mut id = [0; 16];
    if digits.len() != 32 {
        return Err(internal("boot id"));
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(Id16(id))
}
