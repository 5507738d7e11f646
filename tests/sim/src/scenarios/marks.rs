//! When a mark may go, and when there is one.

use super::region;
use crate::script::{A, B, Closed, Io, Keep, Scenario, Stage};
use mirror_core::rules::Rule;

const UNMARKED: &str = "has no mark";

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "hot-mark-is-dirty",
        about: "the standby lost a write; an ordinary flush in the next session takes its mark for done",
        closed: &[Closed { by: &[Rule::DirtyAtStart], otherwise: UNMARKED }],
        steps: hot_mark_is_dirty,
    },
    Scenario {
        name: "hot-mark-is-dirty/flush-began-before-the-write-ended",
        about: "a flush is submitted before the writes have landed, and ends after they have",
        closed: &[Closed { by: &[Rule::ClearLate], otherwise: UNMARKED }],
        steps: flush_began_before_the_write_ended,
    },
    Scenario {
        name: "hot-mark-is-dirty/second-write-during-the-flush",
        about: "a second write to the region is under way when the flush over the first one ends",
        closed: &[Closed { by: &[Rule::ClearIdle], otherwise: UNMARKED }],
        steps: second_write_during_the_flush,
    },
    Scenario {
        name: "hot-mark-is-dirty/failed-flush",
        about: "a flush fails and the disk gives up its cache; the next flush succeeds",
        closed: &[Closed { by: &[Rule::ErrorFails], otherwise: UNMARKED }],
        steps: failed_flush,
    },
    Scenario {
        name: "hot-mark-is-dirty/queued-clear",
        about: "a write comes while the clearing of its mark waits for another write of the bitmap",
        closed: &[Closed { by: &[Rule::QueuedClear], otherwise: UNMARKED }],
        steps: queued_clear,
    },
    Scenario {
        name: "hot-mark-is-dirty/clear-in-flight",
        about: "a write comes while the clearing of its mark is being written",
        closed: &[Closed { by: &[Rule::QueuedClear], otherwise: UNMARKED }],
        steps: clear_in_flight,
    },
];

fn hot_mark_is_dirty(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.power_loss(B, Keep::Nothing);
    // The copy of the region is slow, and an ordinary flush overtakes it.
    let copy = s.hold(A, Io::Read(0));
    s.start(B);
    s.until_held(copy);
    s.flush(A);
    s.wait(5000);
    s.land(copy);
}

/// One more region than may stay marked, so that a flush makes room at once.
const CROWD: std::ops::Range<usize> = 0..9;

fn flush_began_before_the_write_ended(s: &mut Stage) {
    s.activate(A);
    let flush = s.hold(B, Io::Flush);
    let slow: Vec<_> = CROWD.map(|n| s.hold(B, Io::Write(region(n)))).collect();
    let writes: Vec<_> = CROWD.map(|n| s.begin_write(A, region(n))).collect();
    s.until_held(flush);
    slow.into_iter().for_each(|hold| s.land(hold));
    writes.into_iter().for_each(|write| s.until_done(write));
    s.land(flush);
    s.wait(100);
}

fn second_write_during_the_flush(s: &mut Stage) {
    s.activate(A);
    let writes: Vec<_> = CROWD.map(|n| s.begin_write(A, region(n))).collect();
    writes.into_iter().for_each(|write| s.until_done(write));
    let flush = s.hold(B, Io::Flush);
    s.until_held(flush);
    let slow = s.hold(B, Io::Write(region(0)));
    let second = s.begin_write(A, region(0));
    s.until_held(slow);
    s.land(flush);
    s.wait(100);
    s.land(slow);
    s.until_done(second);
}

fn failed_flush(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    let flush = s.hold(A, Io::Flush);
    let first = s.begin_flush(A);
    s.until_held(flush);
    s.fail_flush(A, flush);
    s.until_refused(first);
    let second = s.begin_flush(A);
    s.until("an answer", |s| s.is_answered(second));
    s.wait(5000);
}

fn queued_clear(s: &mut Stage) {
    s.activate(A);
    s.write(A, region(0));
    let marks = s.hold(A, Io::Marks);
    let other = s.begin_write(A, region(5));
    s.until_held(marks);
    // The pause after which the first mark goes.
    s.wait(3500);
    let again = s.begin_write(A, region(0));
    s.wait(10);
    s.land(marks);
    s.until_done(other);
    s.until_done(again);
}

fn clear_in_flight(s: &mut Stage) {
    s.activate(A);
    s.write(A, region(0));
    let clear = s.hold(A, Io::Marks);
    s.until_held(clear);
    let again = s.begin_write(A, region(0));
    s.wait(10);
    s.land(clear);
    s.until_done(again);
}
