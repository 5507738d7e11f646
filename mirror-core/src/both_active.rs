//! Both sides are active when contact returns (§10.7, §11.5): which of them has to stop.
//!
//! Each side judges for itself, by the same setting and by what the two have shown each other over
//! the mirror connect. Neither side's data are touched: what is on the disks stays as it is until
//! an operator chooses.

use crate::status::{LinkStatus, MirrorStatus};
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
    /// Whether the side that sees `status` has to stop. Only what the peer says of itself over the
    /// mirror connect counts, and only while there is no session: what another path has said may
    /// be old, and a session is never open between two active sides.
    #[must_use]
    pub fn stops(self, status: &MirrorStatus) -> bool {
        if status.link != LinkStatus::Parked || !are_active(status) {
            return false;
        }
        match self {
            Self::GoOn => false,
            Self::StopBoth => true,
            Self::Survivor(side) => side.index() != status.local,
        }
    }
}

fn are_active(status: &MirrorStatus) -> bool {
    status.both_active && status.sides.iter().all(|s| s.active == Some(true))
}

#[cfg(test)]
mod tests {
    use super::BothActive;
    use crate::status::{Color, LinkStatus, MirrorStatus, Phase, SideStatus};
    use crate::units::Side;

    fn status(local: usize, active: [Option<bool>; 2], link: LinkStatus) -> MirrorStatus {
        let side = |active| SideStatus {
            color: Color::Red,
            active,
            last_update: None,
            break_time: None,
            disk_error: Some(false),
            marked_regions: Some(0),
            difference_percent: None,
            generation: None,
        };
        MirrorStatus {
            phase: Phase::Abnormal,
            sides: active.map(side),
            local,
            total_difference_percent: 0,
            recovery: None,
            link,
            session: 1,
            verdict: None,
            size: 1 << 20,
            block: 512,
            separated: false,
            both_active: active == [Some(true); 2],
            needs_force: true,
        }
    }

    const RULES: [BothActive; 4] = [
        BothActive::GoOn,
        BothActive::StopBoth,
        BothActive::Survivor(Side::First),
        BothActive::Survivor(Side::Second),
    ];

    /// Who stops, by rule, as [first server, second server].
    const STOPS: [[bool; 2]; 4] = [[false; 2], [true; 2], [false, true], [true, false]];

    #[test]
    fn each_side_knows_whether_it_is_the_one_that_stops() {
        for (rule, stops) in RULES.into_iter().zip(STOPS) {
            let both = |local| status(local, [Some(true); 2], LinkStatus::Parked);
            assert_eq!([0, 1].map(|local| rule.stops(&both(local))), stops, "{rule:?}");
        }
    }

    #[test]
    fn nobody_stops_unless_both_say_over_the_connect_that_they_are_active() {
        let not_both = [
            ([Some(true), Some(false)], LinkStatus::Parked),
            ([Some(false), Some(true)], LinkStatus::Parked),
            ([Some(true), None], LinkStatus::Parked),
            ([Some(true), Some(true)], LinkStatus::Down),
            ([Some(true), Some(true)], LinkStatus::Negotiating),
            ([Some(true), Some(true)], LinkStatus::Session),
        ];
        for (active, link) in not_both {
            for (rule, local) in RULES.into_iter().flat_map(|r| [(r, 0), (r, 1)]) {
                assert!(!rule.stops(&status(local, active, link)), "{rule:?} {active:?} {link:?}");
            }
        }
    }
}
