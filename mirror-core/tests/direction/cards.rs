//! Cards by hand.

use mirror_core::record::{Card, Inconsistent, Record};
use mirror_core::units::{ActivationNo, Generation, Id16, SessionNo, Side};

pub(crate) const SIZE: u64 = 1 << 30;
/// The session that both sides had open last, unless a test says otherwise.
pub(crate) const SESSION: u64 = 10;

pub(crate) fn generation(number: u64) -> Generation {
    Generation::new(number).expect("not 0")
}

/// A side without history.
pub(crate) fn blank(side: Side) -> Card {
    let device = Id16([if side == Side::First { 1 } else { 2 }; 16]);
    Card {
        record: Record::blank(device, side),
        active: false,
        uninterrupted: false,
        wants_recovery: false,
        apart: false,
        rejoins: false,
        capacity: SIZE,
        device_block: 512,
        marked: 0,
    }
}

/// A side in sync at generation `number`, which ran on since.
pub(crate) fn in_sync(side: Side, number: u64) -> Card {
    let mut card = blank(side);
    card.uninterrupted = true;
    let r = &mut card.record;
    r.mirror = Id16([9; 16]);
    r.size = SIZE;
    r.block = 512;
    r.generation = Some(generation(number));
    r.bases = [Some(generation(number)), None];
    r.session = SessionNo(SESSION);
    r.born_session = SessionNo(1);
    r.activation = ActivationNo(0);
    r.known_activation = ActivationNo(5);
    card
}

/// What may be done to a card; each returns it, so that a state reads as one expression.
pub(crate) trait Change: Sized {
    fn with(self, change: impl FnOnce(&mut Card)) -> Self;

    /// It went on alone at `number`; the marks reach back to where it was.
    fn alone_at(self, number: u64) -> Self {
        self.with(|c| {
            let r = &mut c.record;
            let former = r.generation.replace(generation(number));
            former.into_iter().for_each(|g| r.ancestors.push(g));
            r.bases = [former, None];
            r.born_session = r.session;
            c.marked = 3;
        })
    }

    /// `--force` at `number`, knowing of the generation `over`.
    fn forced_at(self, number: u64, over: Option<u64>) -> Self {
        self.with(|c| {
            let r = &mut c.record;
            r.generation.replace(generation(number)).into_iter().for_each(|g| r.ancestors.push(g));
            over.into_iter().for_each(|g| r.overruled.push(generation(g)));
            r.inconsistent = None;
            r.behind = false;
            r.owes_all = true;
            r.bases = [None; 2];
            r.born_session = r.session;
        })
    }

    /// `--force` without contact.
    fn forced_alone_at(self, number: u64) -> Self {
        self.forced_at(number, None).with(|c| {
            c.record.known_activation = c.record.known_activation.next();
            c.record.forced_at = Some(c.record.known_activation);
        })
    }

    fn active(self) -> Self {
        self.with(|c| c.active = true)
    }

    fn interrupted(self) -> Self {
        self.with(|c| c.uninterrupted = false)
    }

    fn marked(self, regions: u32) -> Self {
        self.with(|c| c.marked = regions)
    }

    fn activation(self, number: u64) -> Self {
        self.with(|c| c.record.activation = ActivationNo(number))
    }

    fn behind(self) -> Self {
        self.with(|c| c.record.behind = true)
    }

    fn half_copied(self, toward: u64, all: bool) -> Self {
        self.with(|c| {
            c.record.inconsistent = Some(Inconsistent { toward: generation(toward), all });
        })
    }

    /// Last session `number`, really open.
    fn session(self, number: u64) -> Self {
        self.with(|c| {
            c.record.session = SessionNo(number);
            c.record.session_open = true;
        })
    }

    /// Session `number` was offered only.
    fn offered(self, number: u64) -> Self {
        self.with(|c| {
            c.record.session = SessionNo(number);
            c.record.session_open = false;
        })
    }

    fn owes_all(self) -> Self {
        self.with(|c| {
            c.record.owes_all = true;
            c.record.bases = [None; 2];
        })
    }
}

impl Change for Card {
    fn with(mut self, change: impl FnOnce(&mut Card)) -> Self {
        change(&mut self);
        self
    }
}
