//! Both sides are active when contact returns (§10.7, §11.5): which of them has to stop.
//!
//! Each side judges for itself, by the same setting and by the two cards that both have just seen
//! ([`Notice::BothActive`](crate::io::Notice::BothActive)), not by what the other does about it.
//! Neither side's data are touched: what is on the disks stays as it is until an operator chooses.

use crate::direction::Row;
use crate::record::Card;
use crate::units::Side;

/// What is to be done when both sides are active.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BothActive {
    /// Both go on, each for itself.
    GoOn,
    /// Both stop.
    StopBoth,
    /// This side goes on, the other stops.
    Survivor(Side),
}

impl BothActive {
    /// Whether `side` has to stop.
    #[must_use]
    pub fn stops(self, side: Side) -> bool {
        match self {
            Self::GoOn => false,
            Self::StopBoth => true,
            Self::Survivor(survivor) => survivor != side,
        }
    }
}

/// Both cards say *active*, and they belong together. A side whose disk has failed serves nothing
/// and is no reason to stop the other; nor is one of another mirror.
pub(crate) fn are_active(row: Row, mine: &Card, theirs: &Card) -> bool {
    matches!(row, Row::SplitBrain | Row::BothActive) && mine.active && theirs.active
}

#[cfg(test)]
mod tests {
    use super::BothActive::{GoOn, StopBoth, Survivor};
    use crate::units::Side::{First, Second};

    #[test]
    fn each_side_knows_whether_it_is_the_one_that_stops() {
        let stop = |rule: super::BothActive| [First, Second].map(|side| rule.stops(side));
        assert_eq!(stop(GoOn), [false, false]);
        assert_eq!(stop(StopBoth), [true, true]);
        assert_eq!(stop(Survivor(First)), [false, true]);
        assert_eq!(stop(Survivor(Second)), [true, false]);
    }
}
