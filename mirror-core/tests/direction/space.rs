//! Products of card fields, and every pair of cards in them.

use crate::cards::{Change, blank, generation, in_sync};
use crate::rules::check;
use mirror_core::direction::Row;
use mirror_core::record::{Card, Lineage};
use mirror_core::units::{ActivationNo, Id16, SessionNo, Side};
use std::collections::HashMap;

const TO: [Option<(u64, bool)>; 5] =
    [None, Some((1, false)), Some((2, false)), Some((2, true)), Some((77, true))];
const SESSIONS: [(u64, bool); 4] = [(10, true), (11, false), (8, true), (10, false)];
/// Forced without contact at, last activation.
const FORCES: [(Option<u64>, u64); 5] =
    [(None, 5), (None, 6), (None, 7), (Some(6), 4), (Some(6), 6)];

/// (generation, bases, ancestors, overruled); no generation = no history.
type Past = (Option<u64>, &'static [u64], &'static [u64], &'static [u64]);
const HISTORIES: [Past; 10] = [
    (Some(1), &[1], &[], &[]),
    (None, &[], &[], &[]),
    (Some(1), &[8], &[8], &[]),
    (Some(2), &[1], &[1], &[]),
    (Some(2), &[2], &[1], &[]),
    (Some(3), &[2, 1], &[2, 1], &[]),
    (Some(3), &[8], &[2, 1], &[]),
    (Some(4), &[4], &[], &[]),
    (Some(5), &[], &[1], &[2, 3, 4]),
    (Some(6), &[], &[], &[5]),
];

/// The axes of a card; each has as many steps as `Space` says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Axis {
    History,
    Toward,
    Session,
    Force,
    Active,
    Uninterrupted,
    Behind,
    PeerBehind,
    OwesAll,
    Marked,
    Born,
    DiskError,
    Capacity,
    Block,
    Mirror,
    SizeRecorded,
}

impl Axis {
    fn steps(self) -> usize {
        match self {
            Self::History => HISTORIES.len(),
            Self::Toward => TO.len(),
            Self::Session => SESSIONS.len(),
            Self::Force => FORCES.len(),
            _ => 2,
        }
    }

    /// Step 0 is the usual state.
    fn apply(self, step: usize, card: &mut Card) {
        let on = step == 1;
        let r = &mut card.record;
        match self {
            Self::History => set_history(HISTORIES[step], card),
            Self::Toward => {
                let (to, all) = TO[step].map_or((0, false), |t| t);
                r.inconsistent = None;
                if to != 0 {
                    *card = card.clone().half_copied(to, all);
                }
            }
            Self::Session => {
                r.session = SessionNo(SESSIONS[step].0);
                r.session_open = SESSIONS[step].1;
            }
            Self::Force => {
                r.forced_at = FORCES[step].0.map(ActivationNo);
                r.activation = ActivationNo(FORCES[step].1);
            }
            Self::Active => card.active = on,
            Self::Uninterrupted => card.uninterrupted = !on,
            Self::Behind => r.behind = on,
            Self::PeerBehind => r.peer_behind = on,
            Self::OwesAll => r.owes_all = on,
            Self::DiskError => r.disk_error = on,
            Self::Marked => card.marked = u32::from(on),
            Self::Born => r.born_session = if on { r.session } else { SessionNo(3) },
            Self::Capacity if on => card.capacity = 4096,
            Self::Block if on => card.device_block = 4096,
            Self::Mirror if on => r.mirror = Id16([8; 16]),
            Self::SizeRecorded if on => r.size /= 2,
            Self::Capacity | Self::Block | Self::Mirror | Self::SizeRecorded => {}
        }
    }
}

fn set_history((own, bases, ancestors, overruled): Past, card: &mut Card) {
    let r = &mut card.record;
    r.generation = own.map(generation);
    r.bases = [bases.first(), bases.get(1)].map(|b| b.map(|g| generation(*g)));
    r.ancestors = ancestors.iter().map(|g| generation(*g)).collect::<Lineage>();
    r.overruled = overruled.iter().map(|g| generation(*g)).collect::<Lineage>();
}

fn size(axes: &[Axis]) -> usize {
    axes.iter().map(|axis| axis.steps()).product()
}

/// A card with each axis at the step that `draw` takes of that many; the others stay as usual.
fn card(axes: &[Axis], side: Side, mut draw: impl FnMut(usize) -> usize) -> Card {
    let mut card = in_sync(side, 1);
    for axis in axes {
        axis.apply(draw(axis.steps()), &mut card);
    }
    if card.record.generation.is_none() {
        let fresh = blank(side).record;
        let r = &mut card.record;
        (r.mirror, r.size, r.block) = (fresh.mirror, fresh.size, fresh.block);
    }
    card
}

/// Every card of the product of `axes`.
fn all(axes: &[Axis], side: Side) -> Vec<Card> {
    let number = |mut left: usize| {
        move |steps| {
            let step = left % steps;
            left /= steps;
            step
        }
    };
    (0..size(axes)).map(|n| card(axes, side, number(n))).collect()
}

type Counts = HashMap<Row, u64>;

fn check_all(axes: &[Axis]) -> Counts {
    let mut counts = Counts::new();
    let (first, second) = (all(axes, Side::First), all(axes, Side::Second));
    for a in &first {
        for b in &second {
            *counts.entry(check(a, b).row).or_default() += 1;
        }
    }
    counts
}

use Axis::{
    Active, Behind, Block, Born, Capacity, DiskError, Force, History, Marked, Mirror, OwesAll,
    PeerBehind, Session, SizeRecorded, Toward, Uninterrupted,
};

const EVERY: [Axis; 16] = [
    History,
    Toward,
    Session,
    Force,
    Active,
    Uninterrupted,
    Behind,
    PeerBehind,
    OwesAll,
    DiskError,
    Marked,
    Born,
    Capacity,
    Block,
    Mirror,
    SizeRecorded,
];

#[test]
fn histories_and_half_copies() {
    check_all(&[History, Toward, Session, Active, OwesAll]);
}

#[test]
fn histories_and_forces() {
    check_all(&[History, Force, Active, Behind, OwesAll]);
}

#[test]
fn settling() {
    let counts = check_all(&[Session, Force, Active, Uninterrupted, Behind, OwesAll, Marked]);
    for row in [
        Row::SettleFromActive,
        Row::SettleFromUninterrupted,
        Row::SettleFromLastActivated,
        Row::SettleFromFirst,
    ] {
        assert!(counts.contains_key(&row), "{}", row.name());
    }
}

#[test]
fn sides_without_history() {
    check_all(&[History, Toward, Active, Behind, PeerBehind, OwesAll, Born]);
}

#[test]
fn disks_and_mirrors() {
    check_all(&[History, DiskError, Capacity, Block, Mirror, SizeRecorded]);
}

/// Pairs from the product of everything, by a fixed sequence of numbers: all rows are there.
#[test]
fn a_sample_of_everything() {
    const PAIRS: usize = 1_000_000;
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below
    };
    let mut counts = Counts::new();
    for _ in 0..PAIRS {
        let mut pair = [Side::First, Side::Second];
        if draw(200) == 0 {
            pair[1] = Side::First;
        }
        // Faults of the disk hide the rest of the table: most pairs have none.
        let axes = if draw(8) == 0 { &EVERY[..] } else { &EVERY[..11] };
        // Half of the time the usual state, so that the rare ones are met one at a time.
        let [a, b] =
            pair.map(|side| card(axes, side, |steps| if draw(2) == 0 { 0 } else { draw(steps) }));
        *counts.entry(check(&a, &b).row).or_default() += 1;
    }
    for row in Row::ALL {
        println!("{:28} {}", row.name(), counts.get(row).copied().unwrap_or(0));
    }
    for row in Row::ALL {
        assert!(counts.get(row).is_some_and(|n| *n > 0), "{} is never reached", row.name());
    }
}
