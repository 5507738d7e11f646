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
}

#[test]
fn each_is_played() {
    let names: Vec<_> = scenarios::all().iter().map(|scenario| scenario.name).collect();
    assert_eq!(names, PLAYED, "the table and the tests name the same, in the same order");
}
