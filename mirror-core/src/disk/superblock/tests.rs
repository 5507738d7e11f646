use super::*;
use proptest::prelude::*;

const DEVICE: Id16 = Id16([0xd1; 16]);
const ZERO: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

fn generation(number: u64) -> Generation {
    Generation::new(number).expect("not zero")
}

/// A record in which every field has a value of its own.
fn full() -> Record {
    Record {
        seq: 0x0102_0304_0506_0708,
        mirror: Id16([0xa0; 16]),
        device: DEVICE,
        side: Side::Second,
        size: 0x0000_0011_2233_4000,
        block: 4096,
        generation: Some(generation(0x1111)),
        bases: [Some(generation(0x2222)), None],
        ancestors: [0x31, 0x32, 0x33].into_iter().map(generation).collect(),
        overruled: [0x41, 0x42].into_iter().map(generation).collect(),
        forced_at: Some(ActivationNo(0x51)),
        born_session: SessionNo(0x61),
        session: SessionNo(0x62),
        session_open: true,
        activation: ActivationNo(0x71),
        known_activation: ActivationNo(0x72),
        active: true,
        boot: Id16([0xb0; 16]),
        peer_active: false,
        inconsistent: Some(Inconsistent { toward: generation(0x81), all: true }),
        behind: true,
        peer_behind: false,
        owes_all: true,
        clean_stop: false,
        disk_error: true,
        break_time: 0x6500_0000,
        update_time: -2,
        grown_from: 0,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn valid(record: &Record, repair: bool) -> Loaded {
    Loaded::Valid { record: Box::new(record.clone()), repair }
}

/// Changes an image below its checksum.
fn with(image: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut changed = image.to_vec();
    change(&mut changed);
    seal(&mut changed);
    changed
}

#[test]
fn the_image_is_pinned() {
    let image = encode(&full());
    let zeros = |bytes: usize| "00".repeat(bytes);
    let expected = [
        "6e6d702d73696465",                 // magic
        "01000000",                         // version
        "029b7966",                         // checksum
        "0807060504030201",                 // seq
        "a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0", // mirror
        "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1", // device
        "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0", // boot
        "0040332211000000",                 // size
        "00100000",                         // block size
        "bb060000",                         // flags
        "1111000000000000",                 // generation
        "2222000000000000",                 // bases
        "0000000000000000",
        "5100000000000000", // forced at
        "6100000000000000", // born session
        "6200000000000000", // session
        "7100000000000000", // activation
        "7200000000000000", // known activation
        "8100000000000000", // inconsistent toward
        "0000006500000000", // break time
        "feffffffffffffff", // update time
        "01",               // side
        "03",               // ancestors
        "02",               // overruled
        "0000000000",
        "310000000000000032000000000000003300000000000000",
        &zeros(13 * 8),
        "41000000000000004200000000000000",
        &zeros(14 * 8),
        &zeros(8), // grown from
    ]
    .concat();
    assert_eq!(hex(&image[..RESERVED_AT]), expected);
    assert!(image[RESERVED_AT..].iter().all(|b| *b == 0));
    assert_eq!(RESERVED_AT, 448);
}

#[test]
fn blank_and_half_blank() {
    let image = encode(&full());
    let damaged = {
        let mut copy = image.to_vec();
        copy[20] ^= 1;
        copy
    };
    assert_eq!(load(&ZERO, &ZERO), Loaded::NeverUsed);
    assert_eq!(load(&image, &ZERO), valid(&full(), true));
    assert_eq!(load(&ZERO, &image), valid(&full(), true));
    assert_eq!(load(&damaged, &ZERO), Loaded::Broken(Reason::HalfBlank));
    assert_eq!(load(&ZERO, &damaged), Loaded::Broken(Reason::HalfBlank));
    assert_eq!(load(&damaged, &damaged), Loaded::Broken(Reason::Damaged));
    assert_eq!(load(&[], &[]), Loaded::Broken(Reason::Damaged));
    assert_eq!(load(&[], &ZERO), Loaded::Broken(Reason::HalfBlank));
    assert_eq!(load(&[], &image), valid(&full(), true));
    assert_eq!(load(&image[..512], &image), valid(&full(), true));
}

#[test]
fn one_bit_in_a_blank_copy_is_not_blank() {
    let mut dirty = ZERO;
    dirty[4095] = 1;
    assert_eq!(load(&dirty, &ZERO), Loaded::Broken(Reason::HalfBlank));
}

#[test]
fn the_newer_copy_wins_wherever_it_is() {
    let old = full();
    let new = Record { seq: old.seq + 1, behind: false, ..full() };
    let (old_image, new_image) = (encode(&old), encode(&new));
    assert_eq!(load(&old_image, &new_image), valid(&new, true));
    assert_eq!(load(&new_image, &old_image), valid(&new, true));
    assert_eq!(load(&new_image, &new_image), valid(&new, false));
}

#[test]
fn copies_that_contradict_each_other_are_refused() {
    let image = encode(&full());
    let seq = full().seq;
    let newer = Record { seq: seq + 1, ..full() };
    let cases = [
        (Record { behind: false, ..full() }, Reason::SameSeq { seq }),
        (Record { device: Id16([9; 16]), ..newer.clone() }, Reason::TwoDevices),
        (Record { mirror: Id16([9; 16]), ..newer.clone() }, Reason::TwoMirrors),
    ];
    for (other, reason) in cases {
        assert_eq!(load(&image, &encode(&other)), Loaded::Broken(reason));
        assert_eq!(load(&encode(&other), &image), Loaded::Broken(reason));
    }
    let unnamed = Record { mirror: Id16::NONE, ..full() };
    assert_eq!(load(&encode(&newer), &encode(&unnamed)), valid(&newer, true));
}

#[test]
fn a_newer_version_is_refused_even_beside_a_good_copy() {
    let image = encode(&full());
    let newer = with(&image, |i| i[VERSION_AT] = 2);
    let refused = Loaded::Broken(Reason::NewerVersion { found: 2 });
    assert_eq!(load(&newer, &newer), refused);
    assert_eq!(load(&newer, &image), refused);
    assert_eq!(load(&image, &newer), refused);
    assert_eq!(load(&ZERO, &newer), refused);
}

#[test]
fn a_damaged_version_is_damage_and_not_a_newer_version() {
    let image = encode(&full());
    let mut damaged = image.to_vec();
    damaged[VERSION_AT] = 2;
    assert_eq!(load(&damaged, &image), valid(&full(), true));
}

#[test]
fn content_without_sense_is_refused_although_the_checksum_is_good() {
    let cases: [(usize, &[u8], Nonsense); 19] = [
        (VERSION_AT, &[0; 4], Nonsense::Version),
        (FLAGS_AT + 1, &[0x08], Nonsense::Flags(0x800)),
        (FLAGS_AT + 3, &[0x80], Nonsense::Flags(0x8000_0000)),
        (SIDE_AT, &[2], Nonsense::Side(2)),
        (DEVICE_AT, &[0; 16], Nonsense::Device),
        (SIZE_AT, &[0xff; 8], Nonsense::Size(u64::MAX)),
        (BLOCK_AT, &[1, 0, 0, 0], Nonsense::BlockSize(1)),
        (BLOCK_AT, &[0, 3, 0, 0], Nonsense::BlockSize(768)),
        (BLOCK_AT, &[0, 0, 2, 0], Nonsense::BlockSize(131_072)),
        (SEQ_AT, &[0xff; 8], Nonsense::Number(u64::MAX)),
        (SESSION_AT, &[0xff; 8], Nonsense::Number(u64::MAX)),
        (KNOWN_ACTIVATION_AT, &[0xff; 8], Nonsense::Number(u64::MAX)),
        (ANCESTOR_COUNT_AT, &[17], Nonsense::List),
        (ANCESTORS_AT + 8, &[0; 8], Nonsense::List),
        (OVERRULED_AT + 16, &[1], Nonsense::List),
        (TOWARD_AT, &[0; 8], Nonsense::Contradiction),
        (FLAGS_AT + 1, &[0x02], Nonsense::Contradiction),
        (PADDING_AT, &[1], Nonsense::Reserved),
        (RESERVED_AT, &[1], Nonsense::Reserved),
    ];
    let image = encode(&full());
    for (at, bytes, nonsense) in cases {
        let changed = with(&image, |i| put(i, at, bytes));
        let refused = Loaded::Broken(Reason::Nonsense(nonsense));
        assert_eq!(load(&changed, &changed), refused, "byte {at}");
        assert_eq!(load(&changed, &image), refused, "byte {at}, other copy good");
    }
    let tail = with(&image, |i| i[BLOCK_BYTES - 1] = 1);
    assert_eq!(load(&tail, &tail), Loaded::Broken(Reason::Nonsense(Nonsense::Reserved)));
}

#[test]
fn all_without_inconsistent_is_a_contradiction() {
    let image = encode(&Record { inconsistent: None, ..full() });
    let all = u8::try_from(INCONSISTENT_ALL).expect("low byte");
    let changed = with(&image, |i| i[FLAGS_AT] |= all);
    let refused = Loaded::Broken(Reason::Nonsense(Nonsense::Contradiction));
    assert_eq!(load(&changed, &changed), refused);
}

#[test]
fn refusals_read_well() {
    let text = Reason::NewerVersion { found: 7 }.to_string();
    assert_eq!(text, "the superblock has version 7, this program knows version 1 only");
    let text = Reason::Nonsense(Nonsense::Side(3)).to_string();
    assert_eq!(text, "the superblock verifies but its content makes no sense: side 3");
}

/// Runs an update from `old` to `new` (copy A, then copy B) into every state that `torn` makes of
/// a single 4096-byte write, and hands both copies to `check`.
fn crash_everywhere(old: &[u8], new: &[u8], torn: &[Vec<u8>], check: impl Fn(&[u8], &[u8])) {
    check(old, old);
    torn.iter().for_each(|a| check(a, old));
    check(new, old);
    torn.iter().for_each(|b| check(new, b));
    check(new, new);
}

/// Every subset of the eight sectors of a write has reached the disk.
fn sector_subsets(old: &[u8], new: &[u8]) -> Vec<Vec<u8>> {
    (0..256_u32)
        .map(|subset| {
            let mut image = old.to_vec();
            for sector in (0..8).filter(|n| subset >> n & 1 == 1) {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                image[range.clone()].copy_from_slice(&new[range]);
            }
            image
        })
        .collect()
}

/// The write stopped after each number of bytes.
fn prefixes(old: &[u8], new: &[u8]) -> Vec<Vec<u8>> {
    (0..=BLOCK_BYTES).map(|at| [&new[..at], &old[at..]].concat()).collect()
}

fn update() -> (Record, Record) {
    let new = Record {
        seq: full().seq + 1,
        generation: Some(generation(0x9999)),
        bases: [full().generation, full().generation],
        ancestors: [0x11, 0x31, 0x32, 0x33].into_iter().map(generation).collect(),
        inconsistent: None,
        update_time: 0x6600_0000,
        ..full()
    };
    (full(), new)
}

fn is_one_of(loaded: &Loaded, records: &[&Record]) -> bool {
    matches!(loaded, Loaded::Valid { record, .. } if records.contains(&&**record))
}

#[test]
fn an_update_that_is_cut_off_leaves_the_old_or_the_new_record() {
    let (old, new) = update();
    let (before, after) = (encode(&old), encode(&new));
    for torn in [sector_subsets(&before, &after), prefixes(&before, &after)] {
        crash_everywhere(&before, &after, &torn, |a, b| {
            let loaded = load(a, b);
            assert!(is_one_of(&loaded, &[&old, &new]), "{loaded:?}");
            if *a == *after {
                assert!(is_one_of(&loaded, &[&new]), "copy A is whole");
            }
            if a != b {
                assert!(matches!(loaded, Loaded::Valid { repair: true, .. }));
            }
        });
    }
}

#[test]
fn a_first_write_that_is_cut_off_leaves_nothing_or_the_record() {
    let new = full();
    let after = encode(&new);
    crash_everywhere(&ZERO, &after, &sector_subsets(&ZERO, &after), |a, b| {
        let loaded = load(a, b);
        assert!(loaded == Loaded::NeverUsed || is_one_of(&loaded, &[&new]), "{loaded:?}");
    });
    crash_everywhere(&ZERO, &after, &prefixes(&ZERO, &after), |a, b| {
        let loaded = load(a, b);
        let refused = loaded == Loaded::Broken(Reason::HalfBlank);
        assert!(refused || loaded == Loaded::NeverUsed || is_one_of(&loaded, &[&new]));
    });
}

#[test]
fn a_repair_writes_the_bad_copy_only_and_may_be_cut_off_anywhere() {
    let (old, new) = update();
    let (before, after) = (encode(&old), encode(&new));
    for bad in [&before[..], &ZERO, &[1; BLOCK_BYTES], &[]] {
        assert_eq!(repairs(&new, bad, &after), [(SUPERBLOCK_A, after.clone())]);
        assert_eq!(repairs(&new, &after, bad), [(SUPERBLOCK_B, after.clone())]);
    }
    assert!(repairs(&new, &after, &after).is_empty());
    for torn in sector_subsets(&before, &after).iter().chain(&prefixes(&before, &after)) {
        assert!(is_one_of(&load(torn, &after), &[&new]));
        assert!(is_one_of(&load(&after, torn), &[&new]));
    }
}

fn id16() -> impl Strategy<Value = Id16> {
    prop_oneof![Just(Id16::NONE), any::<[u8; 16]>().prop_map(Id16)]
}

fn any_generation() -> impl Strategy<Value = Generation> {
    (1..=u64::MAX).prop_map(generation)
}

fn maybe_generation() -> impl Strategy<Value = Option<Generation>> {
    prop::option::of(any_generation())
}

fn lineage() -> impl Strategy<Value = Lineage> {
    prop::collection::vec(any_generation(), 0..=LINEAGE_MAX).prop_map(|v| v.into_iter().collect())
}

fn any_record() -> impl Strategy<Value = Record> {
    let identity = (
        0..=NUMBER_MAX,
        id16(),
        any::<[u8; 16]>().prop_filter("an identity", |id| *id != [0; 16]),
        id16(),
        0..=MAX_MIRROR_BYTES,
        prop_oneof![Just(0), (9..=16_u32).prop_map(|n| 1 << n)],
    );
    let generations = (
        maybe_generation(),
        maybe_generation(),
        maybe_generation(),
        lineage(),
        lineage(),
        prop::option::of((any_generation(), any::<bool>())),
    );
    let counted = [0..=NUMBER_MAX, 0..=NUMBER_MAX, 0..=NUMBER_MAX, 0..=NUMBER_MAX];
    let numbers = (counted, prop::option::of(0..=NUMBER_MAX), any::<[i64; 2]>());
    (identity, generations, numbers, any::<[bool; 9]>()).prop_map(|(id, gens, nums, bools)| {
        let (seq, mirror, device, boot, size, block) = id;
        let (generation, base_0, base_1, ancestors, overruled, inconsistent) = gens;
        let ([born, session, activation, known], forced_at, [break_time, update_time]) = nums;
        let [second, session_open, active, peer_active, behind, peer_behind, owes, clean, error] =
            bools;
        Record {
            seq,
            mirror,
            device: Id16(device),
            side: if second { Side::Second } else { Side::First },
            size,
            grown_from: size / 2,
            block,
            generation,
            bases: [base_0, base_1],
            ancestors,
            overruled,
            forced_at: forced_at.map(ActivationNo),
            born_session: SessionNo(born),
            session: SessionNo(session),
            session_open,
            activation: ActivationNo(activation),
            known_activation: ActivationNo(known),
            active,
            boot,
            peer_active,
            inconsistent: inconsistent.map(|(toward, all)| Inconsistent { toward, all }),
            behind,
            peer_behind,
            owes_all: owes,
            clean_stop: clean,
            disk_error: error,
            break_time,
            update_time,
        }
    })
}

proptest! {
    #[test]
    fn every_record_comes_back(record in any_record()) {
        let image = encode(&record);
        prop_assert_eq!(image.len(), BLOCK_BYTES);
        prop_assert!(image[SECTOR..].iter().all(|b| *b == 0));
        prop_assert_eq!(load(&image, &image), valid(&record, false));
    }

    #[test]
    fn one_damaged_byte_in_either_copy_is_repaired_from_the_other(
        record in any_record(),
        in_a in any::<bool>(),
        at in prop_oneof![0..SECTOR, 0..BLOCK_BYTES],
        flip in 1..=u8::MAX,
    ) {
        let image = encode(&record);
        let mut damaged = image.to_vec();
        damaged[at] ^= flip;
        let loaded = if in_a { load(&damaged, &image) } else { load(&image, &damaged) };
        prop_assert_eq!(loaded, valid(&record, true));
    }

    #[test]
    fn any_update_survives_a_cut_at_any_byte(
        old in any_record(),
        new in any_record(),
        at in 0..=BLOCK_BYTES,
        second_copy in any::<bool>(),
    ) {
        let old = Record { seq: new.seq.wrapping_sub(1), device: new.device, mirror: new.mirror, ..old };
        prop_assume!(old.seq < new.seq);
        let (before, after) = (encode(&old), encode(&new));
        let torn = [&after[..at], &before[at..]].concat();
        let loaded = if second_copy { load(&after, &torn) } else { load(&torn, &before) };
        prop_assert!(is_one_of(&loaded, &[&old, &new]));
        prop_assert!(!second_copy || is_one_of(&loaded, &[&new]));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        body in prop::collection::vec(any::<u8>(), SECTOR - 16),
        length in prop_oneof![Just(BLOCK_BYTES), 0..2 * BLOCK_BYTES],
    ) {
        let mut bytes = vec![0; BLOCK_BYTES];
        put(&mut bytes, MAGIC_AT, &MAGIC);
        put(&mut bytes, VERSION_AT, &VERSION.to_le_bytes());
        put(&mut bytes, 16, &body);
        seal(&mut bytes);
        bytes.resize(length, 0);
        let _ = load(&bytes, &ZERO);
        let _ = load(&bytes, &bytes);
    }
}

/// A growth is one update: whatever part of it is there, the size and what it says of the marks
/// belong together.
#[test]
fn a_growth_that_is_cut_off_anywhere_is_there_or_not() {
    let old = Record { inconsistent: None, size: 1 << 30, grown_from: 0, ..full() };
    let new = Record { seq: old.seq + 1, size: 2 << 30, grown_from: 1 << 30, ..old.clone() };
    let (before, after) = (encode(&old), encode(&new));
    for cut in prefixes(&before, &after) {
        for (a, b) in [(&cut[..], &before[..]), (&after[..], &cut[..])] {
            assert!(is_one_of(&load(a, b), &[&old, &new]));
        }
    }
    for subset in 0..=u8::MAX {
        let mut cut = before.to_vec();
        for sector in (0..8).filter(|n| subset & (1 << n) != 0) {
            let range = sector * 512..(sector + 1) * 512;
            cut[range.clone()].copy_from_slice(&after[range]);
        }
        for (a, b) in [(&cut[..], &before[..]), (&after[..], &cut[..])] {
            assert!(is_one_of(&load(a, b), &[&old, &new]));
        }
    }
}

#[test]
fn a_growth_from_behind_the_end_makes_no_sense() {
    let record = Record { inconsistent: None, size: 1 << 30, grown_from: 1 << 29, ..full() };
    assert_eq!(load(&encode(&record), &encode(&record)), valid(&record, false));
    let mut image = encode(&record).to_vec();
    image[GROWN_AT..GROWN_AT + 8].copy_from_slice(&(1_u64 << 30).to_le_bytes());
    seal(&mut image);
    assert!(matches!(
        load(&image, &image),
        Loaded::Broken(Reason::Nonsense(Nonsense::Contradiction))
    ));
}
