//! Going alone: what must be known of it before anything completes.

use crate::script::{A, B, Closed, Io, Keep, Scenario, Stage};
use mirror_core::command::Command;
use mirror_core::rules::Rule;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "missed-end-of-recovery",
        about: "the target adopts, the source does not hear of it, both go alone one after the other",
        closed: &[Closed {
            by: &[Rule::MayHold],
            otherwise: "two sides that both wrote alone opened a session",
        }],
        steps: missed_end_of_recovery,
    },
    Scenario {
        name: "missed-end-of-recovery/fenced",
        about: "with `alone = \"fenced\"`: a target that was told to adopt is not known to be behind",
        closed: &[Closed {
            by: &[Rule::ToldMayHold],
            otherwise: "the verdict is split-brain, not descendant-difference",
        }],
        steps: missed_end_of_recovery_fenced,
    },
    Scenario {
        name: "flush-completes-alone",
        about: "the standby lost an acknowledged write; the active side flushes it without the other",
        closed: &[Closed { by: &[Rule::FlushAlone], otherwise: "acknowledged later and flushed" }],
        steps: flush_completes_alone,
    },
    Scenario {
        name: "flush-completes-alone/deactivation",
        about: "the same with a deactivation in place of the flush",
        closed: &[Closed { by: &[Rule::FlushAlone], otherwise: "acknowledged later and flushed" }],
        steps: deactivation_completes_alone,
    },
    Scenario {
        name: "stale-card",
        about: "a write completes alone between the card and the session",
        closed: &[Closed { by: &[Rule::CardFreezes], otherwise: "differ" }],
        steps: stale_card,
    },
    Scenario {
        name: "needless",
        about: "accepted: going alone is recorded, nothing completes, and it is a split brain all the same",
        closed: &[],
        steps: needless,
    },
];

fn missed_end_of_recovery(s: &mut Stage) {
    s.activate(A);
    s.part();
    s.write(A, 1);
    let adopted = s.hold_frame(A, "Adopted");
    s.heal();
    s.until_held(adopted);
    s.part();
    s.write(A, 2);
    s.kill(A);
    s.activate(B);
    s.write(B, 3);
    s.heal();
    s.start(A);
    s.until_verdict("split-brain");
}

fn missed_end_of_recovery_fenced(s: &mut Stage) {
    s.restart_with(|tuning| tuning.fenced = true);
    s.activate(A);
    s.kill(B);
    s.order(A, Command::PeerDown);
    s.write(A, 1);
    let adopted = s.hold_frame(A, "Adopted");
    s.start(B);
    s.until_held(adopted);
    s.part();
    // The target is whole: nothing may complete here before somebody says that it is off.
    s.begin_write(A, 2);
    s.wait(10_000);
    s.kill(A);
    s.activate_vouched(B);
    s.write(B, 3);
    s.heal();
    s.start(A);
    s.until_verdict("descendant-difference");
}

/// Both hold an unflushed write, the standby has just lost it, and is down.
fn write_that_the_standby_loses(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.power_loss(B, Keep::Nothing);
}

/// The servers meet while the active one is down for a moment; just when the standby has recorded
/// the session, both go. Then the standby comes up alone, and the operator vouches, as is true,
/// that the other is off and wrote nothing alone.
fn standby_takes_over(s: &mut Stage) {
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

fn flush_completes_alone(s: &mut Stage) {
    write_that_the_standby_loses(s);
    s.flush(A);
    s.power_loss(A, Keep::Nothing);
    standby_takes_over(s);
}

fn deactivation_completes_alone(s: &mut Stage) {
    write_that_the_standby_loses(s);
    s.deactivate(A);
    s.kill(A);
    standby_takes_over(s);
}

fn stale_card(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.wait(5000);
    s.reset();
    let offer = s.hold_frame(A, "Offer");
    s.until_held(offer);
    let write = s.begin_write(A, 40);
    s.wait(20);
    s.land(offer);
    s.until_done(write);
    s.until_verdict("in-sync");
}

fn needless(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.part();
    let slow = s.hold(A, Io::Write(2));
    s.begin_write(A, 2);
    s.until_held(slow);
    s.power_loss(A, Keep::Everything);
    s.activate(B);
    s.write(B, 3);
    s.heal();
    s.start(A);
    s.until_verdict("split-brain");
}
