//! The superblock: the [`Record`] of a side as 4096 bytes, kept in two copies (rule 10).
//!
//! An update writes copy A durably, then copy B durably, and counts when both are there. Reading
//! takes the newer of the copies that verify. What does not add up is refused, never guessed at and
//! never initialised: an operator decides.

use super::layout::{BLOCK_BYTES, SUPERBLOCK_A, SUPERBLOCK_B};
use super::{array_at, crc_without, put, u32_at, u64_at};
use crate::buf::{Buf, BufMut};
use crate::record::{Inconsistent, LINEAGE_MAX, Lineage, NUMBER_MAX, Record, is_block_size};
use crate::rules::{Rule, holds};
use crate::units::{ActivationNo, Generation, Id16, MAX_MIRROR_BYTES, SessionNo, Side};

const MAGIC: [u8; 8] = *b"nmp-side";
/// Version of the superblock's format.
pub const VERSION: u32 = 1;

// Magic, version and checksum keep their place and meaning in every version to come, so that an
// older program can tell "newer" from "damaged".
const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const CRC_AT: usize = VERSION_AT + 4;
// The rest belongs to this version.
const SEQ_AT: usize = CRC_AT + 4;
const MIRROR_AT: usize = SEQ_AT + 8;
const DEVICE_AT: usize = MIRROR_AT + 16;
const BOOT_AT: usize = DEVICE_AT + 16;
const SIZE_AT: usize = BOOT_AT + 16;
const BLOCK_AT: usize = SIZE_AT + 8;
const FLAGS_AT: usize = BLOCK_AT + 4;
const GENERATION_AT: usize = FLAGS_AT + 4;
const BASES_AT: usize = GENERATION_AT + 8;
const FORCED_AT: usize = BASES_AT + 16;
const BORN_SESSION_AT: usize = FORCED_AT + 8;
const SESSION_AT: usize = BORN_SESSION_AT + 8;
const ACTIVATION_AT: usize = SESSION_AT + 8;
const KNOWN_ACTIVATION_AT: usize = ACTIVATION_AT + 8;
const TOWARD_AT: usize = KNOWN_ACTIVATION_AT + 8;
const BREAK_TIME_AT: usize = TOWARD_AT + 8;
const UPDATE_TIME_AT: usize = BREAK_TIME_AT + 8;
const SIDE_AT: usize = UPDATE_TIME_AT + 8;
const ANCESTOR_COUNT_AT: usize = SIDE_AT + 1;
const OVERRULED_COUNT_AT: usize = ANCESTOR_COUNT_AT + 1;
const PADDING_AT: usize = OVERRULED_COUNT_AT + 1;
const ANCESTORS_AT: usize = PADDING_AT + 5;
const OVERRULED_AT: usize = ANCESTORS_AT + 8 * LINEAGE_MAX;
const GROWN_AT: usize = OVERRULED_AT + 8 * LINEAGE_MAX;
const RESERVED_AT: usize = GROWN_AT + 8;

/// The smallest unit that any disk writes whole.
#[allow(dead_code)] // Rust 1.85 does not see the use in the assertion below
const SECTOR: usize = 512;
const _: () = assert!(RESERVED_AT <= SECTOR, "a torn write must not mix two records");
const _: () = assert!(ANCESTORS_AT % 8 == 0 && SEQ_AT == 16);

const SESSION_OPEN: u32 = 1 << 0;
const ACTIVE: u32 = 1 << 1;
const PEER_ACTIVE: u32 = 1 << 2;
const INCONSISTENT: u32 = 1 << 3;
const INCONSISTENT_ALL: u32 = 1 << 4;
const BEHIND: u32 = 1 << 5;
const PEER_BEHIND: u32 = 1 << 6;
const OWES_ALL: u32 = 1 << 7;
const CLEAN_STOP: u32 = 1 << 8;
const DISK_ERROR: u32 = 1 << 9;
const FORCED: u32 = 1 << 10;
const KNOWN_FLAGS: u32 = (1 << 11) - 1;

/// What the two copies say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// Both copies are all zero: this partition never belonged to a mirror.
    NeverUsed,
    /// A record can be relied on.
    Valid {
        /// The newer record.
        record: Box<Record>,
        /// The other copy is not identical: do [`repairs`] before anything else.
        repair: bool,
    },
    /// Nothing can be relied on; an operator must decide (`clpmdinit`).
    Broken(Reason),
}

/// Why a superblock is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reason {
    /// Neither copy verifies.
    #[error("neither copy of the superblock verifies, and they are not blank either")]
    Damaged,
    /// One copy is blank, the other does not verify.
    #[error("one copy of the superblock is blank and the other one does not verify")]
    HalfBlank,
    /// Written by a newer program.
    #[error("the superblock has version {found}, this program knows version {VERSION} only")]
    NewerVersion {
        /// The version there.
        found: u32,
    },
    /// The checksum is good, the content is not.
    #[error("the superblock verifies but its content makes no sense: {0}")]
    Nonsense(Nonsense),
    /// Both copies verify with one update number and differ.
    #[error("both copies of the superblock have update number {seq} but different content")]
    SameSeq {
        /// The number.
        seq: u64,
    },
    /// The copies are of two partitions.
    #[error("the two copies of the superblock belong to different cluster partitions")]
    TwoDevices,
    /// The copies are of two mirrors.
    #[error("the two copies of the superblock belong to different mirrors")]
    TwoMirrors,
}

/// What makes no sense in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Nonsense {
    /// Version 0 never existed.
    #[error("version 0")]
    Version,
    /// Flag bits that this version does not have.
    #[error("unknown flags {0:#x}")]
    Flags(u32),
    /// Neither 0 nor 1.
    #[error("side {0}")]
    Side(u8),
    /// No device identity.
    #[error("no identity of the cluster partition")]
    Device,
    /// Larger than any mirror.
    #[error("size of {0} bytes")]
    Size(u64),
    /// Neither 0 nor a power of two of 512 to 65536 bytes.
    #[error("logical block size of {0} bytes")]
    BlockSize(u32),
    /// A number of an update, a session or an activation that nobody can have counted up to.
    #[error("number {0} of an update, a session or an activation")]
    Number(u64),
    /// More entries than a list can have, a zero among them, or something after the last.
    #[error("list of ancestors or overruled generations")]
    List,
    /// A value without its flag, or a flag without its value.
    #[error("a value that contradicts its flag")]
    Contradiction,
    /// Reserved bytes are in use.
    #[error("reserved bytes that are not zero")]
    Reserved,
}

/// The image of `record`, for both copies, if [`load`] can read it back. Two copies of something
/// else in place of a good record would be the end of the mirror.
///
/// # Errors
/// What `load` would refuse it for.
pub fn checked(record: &Record) -> Result<Buf, Reason> {
    let image = image_of(record);
    decode(&image).map(|_| image)
}

/// The image of a record that came from [`load`], was checked, or was made here. All of it lies in
/// the first 512 bytes.
///
/// # Panics
/// Debug builds: if the record is one that [`load`] would refuse.
#[must_use]
pub fn encode(record: &Record) -> Buf {
    let image = image_of(record);
    debug_assert_eq!(decode(&image).as_ref(), Ok(record), "a record that cannot be read back");
    image
}

fn image_of(record: &Record) -> Buf {
    let mut image = BufMut::zeroed(BLOCK_BYTES);
    put(&mut image, MAGIC_AT, &MAGIC);
    put(&mut image, VERSION_AT, &VERSION.to_le_bytes());
    put_identity(&mut image, record);
    put_numbers(&mut image, record);
    put_list(&mut image, ANCESTOR_COUNT_AT, ANCESTORS_AT, &record.ancestors);
    put_list(&mut image, OVERRULED_COUNT_AT, OVERRULED_AT, &record.overruled);
    seal(&mut image);
    image.freeze()
}

fn seal(image: &mut [u8]) {
    let crc = crc_without(image, CRC_AT);
    put(image, CRC_AT, &crc.to_le_bytes());
}

fn put_identity(image: &mut [u8], record: &Record) {
    put(image, SEQ_AT, &record.seq.to_le_bytes());
    put(image, MIRROR_AT, &record.mirror.0);
    put(image, DEVICE_AT, &record.device.0);
    put(image, BOOT_AT, &record.boot.0);
    put(image, SIZE_AT, &record.size.to_le_bytes());
    put(image, GROWN_AT, &record.grown_from.to_le_bytes());
    put(image, BLOCK_AT, &record.block.to_le_bytes());
    put(image, FLAGS_AT, &flags_of(record).to_le_bytes());
    put(image, SIDE_AT, &[u8::from(record.side == Side::Second)]);
}

fn put_numbers(image: &mut [u8], record: &Record) {
    let [base_0, base_1] = record.bases;
    for (at, generation) in [
        (GENERATION_AT, record.generation),
        (BASES_AT, base_0),
        (BASES_AT + 8, base_1),
        (TOWARD_AT, record.inconsistent.map(|i| i.toward)),
    ] {
        put(image, at, &generation.map_or(0, Generation::get).to_le_bytes());
    }
    for (at, number) in [
        (FORCED_AT, record.forced_at.map_or(0, |n| n.0)),
        (BORN_SESSION_AT, record.born_session.0),
        (SESSION_AT, record.session.0),
        (ACTIVATION_AT, record.activation.0),
        (KNOWN_ACTIVATION_AT, record.known_activation.0),
    ] {
        put(image, at, &number.to_le_bytes());
    }
    put(image, BREAK_TIME_AT, &record.break_time.to_le_bytes());
    put(image, UPDATE_TIME_AT, &record.update_time.to_le_bytes());
}

fn put_list(image: &mut [u8], count_at: usize, at: usize, list: &Lineage) {
    let mut count = 0;
    for (slot, generation) in image[at..at + 8 * LINEAGE_MAX].chunks_exact_mut(8).zip(list.iter()) {
        slot.copy_from_slice(&generation.get().to_le_bytes());
        count += 1;
    }
    image[count_at] = count;
}

fn flags_of(record: &Record) -> u32 {
    [
        (SESSION_OPEN, record.session_open),
        (ACTIVE, record.active),
        (PEER_ACTIVE, record.peer_active),
        (INCONSISTENT, record.inconsistent.is_some()),
        (INCONSISTENT_ALL, record.inconsistent.is_some_and(|i| i.all)),
        (BEHIND, record.behind),
        (PEER_BEHIND, record.peer_behind),
        (OWES_ALL, record.owes_all),
        (CLEAN_STOP, record.clean_stop),
        (DISK_ERROR, record.disk_error),
        (FORCED, record.forced_at.is_some()),
    ]
    .into_iter()
    .filter(|(_, set)| *set)
    .fold(0, |flags, (bit, _)| flags | bit)
}

/// Judges the two copies, 4096 bytes each as read from the disk; a copy that cannot be read is
/// handed in as an empty slice.
#[must_use]
pub fn load(copy_a: &[u8], copy_b: &[u8]) -> Loaded {
    match judge(Copy::of(copy_a), Copy::of(copy_b)) {
        Ok(Some((record, repair))) => Loaded::Valid { record, repair },
        Ok(None) => Loaded::NeverUsed,
        Err(reason) => Loaded::Broken(reason),
    }
}

/// The writes (offset on the cluster partition, image) that make both copies say `record`, which
/// [`load`] found in them: those that do not say it already.
///
/// They must be durable before the first update. An update begins with copy A, and if that were
/// the only good one, a torn write would leave none. For the same reason `record` goes in
/// unchanged, and the good copy is left alone.
#[must_use]
pub fn repairs(record: &Record, copy_a: &[u8], copy_b: &[u8]) -> Vec<(u64, Buf)> {
    let image = encode(record);
    [(SUPERBLOCK_A, copy_a), (SUPERBLOCK_B, copy_b)]
        .into_iter()
        .filter(|(_, copy)| *copy != &*image && holds(Rule::RepairFirst))
        .map(|(offset, _)| (offset, image.clone()))
        .collect()
}

/// One copy on its own.
enum Copy {
    Zero,
    Unverifiable,
    /// It verifies, but this program cannot use it. Not a matter for the other copy: it may be
    /// the newer one.
    Refused(Reason),
    Good(Box<Record>),
}

impl Copy {
    fn of(bytes: &[u8]) -> Self {
        if bytes.len() != BLOCK_BYTES {
            return Self::Unverifiable;
        }
        if bytes.iter().all(|b| *b == 0) {
            return Self::Zero;
        }
        if !bytes.starts_with(&MAGIC) || u32_at(bytes, CRC_AT) != crc_without(bytes, CRC_AT) {
            return Self::Unverifiable;
        }
        match decode(bytes) {
            Ok(record) => Self::Good(Box::new(record)),
            Err(reason) => Self::Refused(reason),
        }
    }
}

fn judge(a: Copy, b: Copy) -> Result<Option<(Box<Record>, bool)>, Reason> {
    match (a, b) {
        (Copy::Refused(reason), _) | (_, Copy::Refused(reason)) => Err(reason),
        (Copy::Zero, Copy::Zero) => Ok(None),
        (Copy::Good(a), Copy::Good(b)) => newer(a, b).map(Some),
        (Copy::Good(one), _) | (_, Copy::Good(one)) => Ok(Some((one, true))),
        (Copy::Unverifiable, Copy::Unverifiable) => Err(Reason::Damaged),
        (Copy::Zero, Copy::Unverifiable) | (Copy::Unverifiable, Copy::Zero) => {
            Err(Reason::HalfBlank)
        }
    }
}

fn newer(a: Box<Record>, b: Box<Record>) -> Result<(Box<Record>, bool), Reason> {
    if a == b {
        return Ok((a, false));
    }
    if a.device != b.device {
        return Err(Reason::TwoDevices);
    }
    // Construction names the mirror; a crash within that update leaves one copy without it.
    if a.mirror != b.mirror && a.mirror != Id16::NONE && b.mirror != Id16::NONE {
        return Err(Reason::TwoMirrors);
    }
    if a.seq == b.seq {
        return Err(Reason::SameSeq { seq: a.seq });
    }
    Ok((if a.seq > b.seq { a } else { b }, true))
}

/// The record in an image with good magic and checksum.
fn decode(image: &[u8]) -> Result<Record, Reason> {
    match u32_at(image, VERSION_AT) {
        0 => Err(Reason::Nonsense(Nonsense::Version)),
        VERSION => decode_v1(image).map_err(Reason::Nonsense),
        found => Err(Reason::NewerVersion { found }),
    }
}

fn decode_v1(image: &[u8]) -> Result<Record, Nonsense> {
    let flags = flags(image)?;
    let has = |bit| flags & bit != 0;
    let generation = |at| Generation::new(u64_at(image, at));
    check_reserved(image)?;
    let record = Record {
        seq: u64_at(image, SEQ_AT),
        mirror: Id16(array_at(image, MIRROR_AT)),
        device: device(image)?,
        side: side(image)?,
        size: size(image)?,
        grown_from: grown_from(image)?,
        block: block_size(image)?,
        generation: generation(GENERATION_AT),
        bases: [generation(BASES_AT), generation(BASES_AT + 8)],
        ancestors: list(image, ANCESTOR_COUNT_AT, ANCESTORS_AT)?,
        overruled: list(image, OVERRULED_COUNT_AT, OVERRULED_AT)?,
        forced_at: forced_at(image, has(FORCED))?,
        born_session: SessionNo(u64_at(image, BORN_SESSION_AT)),
        session: SessionNo(u64_at(image, SESSION_AT)),
        session_open: has(SESSION_OPEN),
        activation: ActivationNo(u64_at(image, ACTIVATION_AT)),
        known_activation: ActivationNo(u64_at(image, KNOWN_ACTIVATION_AT)),
        active: has(ACTIVE),
        boot: Id16(array_at(image, BOOT_AT)),
        peer_active: has(PEER_ACTIVE),
        inconsistent: inconsistent(image, has(INCONSISTENT), has(INCONSISTENT_ALL))?,
        behind: has(BEHIND),
        peer_behind: has(PEER_BEHIND),
        owes_all: has(OWES_ALL),
        clean_stop: has(CLEAN_STOP),
        disk_error: has(DISK_ERROR),
        break_time: i64::from_le_bytes(array_at(image, BREAK_TIME_AT)),
        update_time: i64::from_le_bytes(array_at(image, UPDATE_TIME_AT)),
    };
    match record.highest_number().max(record.seq) {
        number if number > NUMBER_MAX => Err(Nonsense::Number(number)),
        _ => Ok(record),
    }
}

fn flags(image: &[u8]) -> Result<u32, Nonsense> {
    let flags = u32_at(image, FLAGS_AT);
    match flags & !KNOWN_FLAGS {
        0 => Ok(flags),
        unknown => Err(Nonsense::Flags(unknown)),
    }
}

fn check_reserved(image: &[u8]) -> Result<(), Nonsense> {
    let mut reserved = image[PADDING_AT..ANCESTORS_AT].iter().chain(&image[RESERVED_AT..]);
    if reserved.all(|b| *b == 0) { Ok(()) } else { Err(Nonsense::Reserved) }
}

fn device(image: &[u8]) -> Result<Id16, Nonsense> {
    let device = Id16(array_at(image, DEVICE_AT));
    if device == Id16::NONE { Err(Nonsense::Device) } else { Ok(device) }
}

fn side(image: &[u8]) -> Result<Side, Nonsense> {
    match image[SIDE_AT] {
        0 => Ok(Side::First),
        1 => Ok(Side::Second),
        other => Err(Nonsense::Side(other)),
    }
}

fn size(image: &[u8]) -> Result<u64, Nonsense> {
    let size = u64_at(image, SIZE_AT);
    if size > MAX_MIRROR_BYTES { Err(Nonsense::Size(size)) } else { Ok(size) }
}

/// Growing begins within the mirror.
fn grown_from(image: &[u8]) -> Result<u64, Nonsense> {
    let (from, size) = (u64_at(image, GROWN_AT), size(image)?);
    if from != 0 && from >= size { Err(Nonsense::Contradiction) } else { Ok(from) }
}

fn block_size(image: &[u8]) -> Result<u32, Nonsense> {
    match u32_at(image, BLOCK_AT) {
        0 => Ok(0),
        size if is_block_size(size) => Ok(size),
        size => Err(Nonsense::BlockSize(size)),
    }
}

fn forced_at(image: &[u8], flag: bool) -> Result<Option<ActivationNo>, Nonsense> {
    match (flag, u64_at(image, FORCED_AT)) {
        (true, number) => Ok(Some(ActivationNo(number))),
        (false, 0) => Ok(None),
        (false, _) => Err(Nonsense::Contradiction),
    }
}

fn inconsistent(image: &[u8], flag: bool, all: bool) -> Result<Option<Inconsistent>, Nonsense> {
    match (flag, Generation::new(u64_at(image, TOWARD_AT))) {
        (true, Some(toward)) => Ok(Some(Inconsistent { toward, all })),
        (false, None) if !all => Ok(None),
        _ => Err(Nonsense::Contradiction),
    }
}

fn list(image: &[u8], count_at: usize, at: usize) -> Result<Lineage, Nonsense> {
    let count = usize::from(image[count_at]);
    if count > LINEAGE_MAX {
        return Err(Nonsense::List);
    }
    let (used, unused) = image[at..at + 8 * LINEAGE_MAX].split_at(8 * count);
    if unused.iter().any(|b| *b != 0) {
        return Err(Nonsense::List);
    }
    used.chunks_exact(8)
        .map(|entry| Generation::new(u64_at(entry, 0)).ok_or(Nonsense::List))
        .collect()
}

#[cfg(test)]
mod tests;
