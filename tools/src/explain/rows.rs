//! The rows of the direction table in a sentence each.

use mirror_core::direction::Row;

/// What the row of this name says; `None` for a name of another version.
pub(super) fn meaning(name: &str) -> Option<&'static str> {
    Row::ALL.iter().find(|row| row.name() == name).map(|row| of(*row))
}

const fn of(row: Row) -> &'static str {
    match row {
        Row::SameSide => {
            "both cluster partitions say that they are the same server's; one is in the wrong place."
        }
        Row::ForeignMirror => "the two disks belong to different mirrors.",
        Row::DiskFailed => "a disk of one server has failed, and nothing is copied from or to it.",
        Row::InitialConstruction => "both disks are new, so all is copied from the first server.",
        Row::SizeMismatch => "a data partition is smaller than the mirror.",
        Row::BlankResumed => {
            "one server is new and half copied; the copy goes on with what is left."
        }
        Row::BlankAndAbnormal => {
            "one server is new, and the other is not complete: nobody has all of the data."
        }
        Row::BlankTarget => {
            "one server is new, and the other knows that it has the latest data, so all is copied to the new one."
        }
        Row::BlankAndUnsure => {
            "one server is new, and the other cannot know whether it has the latest data, so it does not copy by itself."
        }
        Row::SplitBrain => "each server went on without the other, so neither is simply older.",
        Row::BothActive => "both servers are active.",
        Row::SourceAbnormal => {
            "the server that has the newer data is itself half copied, out of date or failed."
        }
        Row::TargetActive => {
            "the server that has the older data is active, and is not overwritten while it is."
        }
        Row::RestoredSource => "the newer server was restored from an image, so all is copied.",
        Row::RestoredTarget => "the older server was restored from an image, so all is copied.",
        Row::DescendantDifference => "one server went on alone; what it wrote since is copied.",
        Row::DescendantFull => {
            "one server went on alone, and its marks do not reach back to what the other has, so all is copied."
        }
        Row::BothAbnormal => "neither server is complete.",
        Row::InconsistentTarget => "a copy did not end; it goes on.",
        Row::BehindTarget => {
            "one server knows that the other may have gone on; what is marked is copied."
        }
        Row::SettleFromActive => {
            "after an interruption what was on its way is copied again from the active server."
        }
        Row::SettleFromUninterrupted => {
            "after a crash what was on its way is copied again from the server that ran on."
        }
        Row::SettleFromLastActivated => {
            "after both crashed what was on its way is copied again from the server that was active last."
        }
        Row::SettleFromFirst => {
            "after both crashed what was on its way is copied again from the first server."
        }
        Row::InSync => "both servers are equal.",
    }
}

#[cfg(test)]
mod tests {
    use super::meaning;
    use mirror_core::direction::Row;

    #[test]
    fn every_row_is_explained_and_no_two_alike() {
        let all: Vec<_> = Row::ALL.iter().filter_map(|row| meaning(row.name())).collect();
        assert_eq!(all.len(), Row::ALL.len());
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(meaning("of-another-version"), None);
    }
}
