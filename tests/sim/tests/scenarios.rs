//! Every sequence that broke an earlier version of the rules holds with all rules in force, and is
//! noticed without those that close it (with `--features mutations`).

use mirror_sim::scenarios;

macro_rules! plays {
    ($($test:ident: $name:literal;)*) => {
        $(#[test]
        fn $test() {
            scenarios::find($name).expect("a scenario of this name").check();
        })*

        const PLAYED: &[&str] = &[$($name),*];
    };
}

plays! {
    missed_end_of_recovery: "missed-end-of-recovery";
    flush_completes_alone: "flush-completes-alone";
    flush_completes_alone_deactivation: "flush-completes-alone/deactivation";
    stale_card: "stale-card";
    hot_mark_is_dirty: "hot-mark-is-dirty";
    hot_mark_is_dirty_flush_began_before_the_write_ended: "hot-mark-is-dirty/flush-began-before-the-write-ended";
    hot_mark_is_dirty_second_write_during_the_flush: "hot-mark-is-dirty/second-write-during-the-flush";
    hot_mark_is_dirty_failed_flush: "hot-mark-is-dirty/failed-flush";
    hot_mark_is_dirty_queued_clear: "hot-mark-is-dirty/queued-clear";
    hot_mark_is_dirty_clear_in_flight: "hot-mark-is-dirty/clear-in-flight";
}

#[test]
fn each_is_played() {
    let names: Vec<_> = scenarios::all().iter().map(|scenario| scenario.name).collect();
    assert_eq!(names, PLAYED, "the table and the tests name the same, in the same order");
}
