//! Second lines: rules that nothing notices alone, since another one covers for each. Without all of
//! them the sequence fails; with any one of them in force it holds (`tests/mutations.rs`).

use crate::script::{A, B, Closed, Io, Keep, Scenario, Stage};
use mirror_core::rules::Rule;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "second-line/flush-completes-alone",
        about: "the standby loses a write, which is flushed without it; they meet for a moment only",
        closed: &[Closed {
            by: &[Rule::FlushAlone, Rule::PeerWasActive],
            otherwise: "acknowledged later and flushed",
        }],
        steps: flush_completes_alone,
    },
    Scenario {
        name: "second-line/orphan-lands-late",
        about: "a write of the last session lands at the standby after the next one has opened",
        closed: &[Closed { by: &[Rule::Drain, Rule::Overlap], otherwise: "has no mark" }],
        steps: orphan_lands_late,
    },
    Scenario {
        name: "second-line/force-over-an-image",
        about: "a side is forced without contact, and the other is then restored from an image",
        closed: &[Closed {
            by: &[Rule::Restored, Rule::ReachBack, Rule::ForceOwes],
            otherwise: "has no mark",
        }],
        steps: force_over_an_image,
    },
];

/// Just when the standby has recorded the session, both go. Then it comes up alone, and the operator
/// vouches, as is true, that the other is off and wrote nothing alone.
fn flush_completes_alone(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.power_loss(B, Keep::Nothing);
    s.flush(A);
    s.power_loss(A, Keep::Nothing);
    s.start(A);
    let opened = s.hold_frame(B, "CopyStart");
    s.start(B);
    s.until("the servers to meet", |s| s.is_held(opened) || s.is_parked());
    s.power_loss(A, Keep::Nothing);
    s.power_loss(B, Keep::Nothing);
    s.start(B);
    if s.try_activate(B, true) {
        s.write(B, 384);
        s.flush(B);
    }
    s.start(A);
    s.wait(5000);
}

fn orphan_lands_late(s: &mut Stage) {
    s.activate(A);
    let orphan = s.hold(B, Io::Write(1));
    let write = s.begin_write(A, 1);
    s.until_held(orphan);
    s.hold_no_more(orphan);
    s.reset();
    s.wait(1000);
    if s.is_answered(write) {
        // The next session has opened over it.
        s.write(A, 1);
    }
    s.land(orphan);
    s.until_done(write);
    s.wait(5000);
}

fn force_over_an_image(s: &mut Stage) {
    s.stop(B);
    s.take_image(B);
    s.start(B);
    s.until_normal();
    s.activate(A);
    s.write(A, 1);
    s.flush(A);
    s.wait(5000);
    s.deactivate(A);
    s.stop(B);
    s.force(A);
    s.restore_image(B);
    s.start(B);
    s.wait(3000);
}
