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
            otherwise: "server2 knows itself behind, which it does not",
        }],
        steps: missed_end_of_recovery_fenced,
    },
    Scenario {
        name: "flush-completes-alone",
        about: "an acknowledged write is flushed without the standby, which takes over and then loses it",
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
        name: "flush-completes-alone/after-a-failover",
        about: "the new active side flushes what its dead peer wrote on both and lost, and writes nothing",
        closed: &[Closed {
            by: &[Rule::FlushInherited],
            otherwise: "acknowledged later and flushed",
        }],
        steps: flush_after_a_failover,
    },
    Scenario {
        name: "flush-completes-alone/after-a-restart",
        about: "a restarted active side flushes what it wrote on both before, and the other has lost since",
        closed: &[Closed {
            by: &[Rule::FlushInherited],
            otherwise: "acknowledged later and flushed",
        }],
        steps: flush_after_a_restart,
    },
    Scenario {
        name: "flush-completes-alone/overtaken",
        about: "the same with a write that the dead side's disk had ended after the flush of both began",
        closed: &[Closed {
            by: &[Rule::FlushInherited],
            otherwise: "acknowledged later and flushed",
        }],
        steps: flush_overtakes_the_write,
    },
    Scenario {
        name: "flush-completes-alone/before-the-adoption",
        about: "the same with a write between the last flush of a copy and the adoption",
        closed: &[Closed {
            by: &[Rule::FlushInherited],
            otherwise: "acknowledged later and flushed",
        }],
        steps: write_before_the_adoption,
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
    Scenario {
        name: "needless/fenced",
        about: "with `alone = \"fenced\"` a waiting side that is switched off leaves no split brain",
        closed: &[
            Closed { by: &[Rule::Fenced], otherwise: "server1 is fenced, and wrote alone" },
            Closed {
                by: &[Rule::WordFirst],
                otherwise: "the verdict is split-brain, not descendant-difference",
            },
        ],
        steps: needless_fenced,
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

/// The active side is dead. The other one takes over with what it has in its cache, and loses that
/// with its power before it has changed anything. It is activated again, on the word that the first
/// is off, goes on alone, and they meet.
fn standby_takes_over(s: &mut Stage) {
    s.activate(B);
    the_cache_is_lost(s);
}

fn the_cache_is_lost(s: &mut Stage) {
    s.power_loss(B, Keep::Nothing);
    s.start(B);
    s.activate_vouched(B);
    s.write(B, 384);
    s.flush(B);
    s.heal();
    s.start(A);
    s.wait(5000);
}

fn flush_completes_alone(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.part();
    s.flush(A);
    s.power_loss(A, Keep::Nothing);
    standby_takes_over(s);
}

fn deactivation_completes_alone(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.part();
    s.deactivate(A);
    s.kill(A);
    standby_takes_over(s);
}

fn flush_after_a_failover(s: &mut Stage) {
    s.activate(B);
    let stamp = s.write(B, 1);
    s.power_loss(B, Keep::Nothing);
    s.part();
    s.activate(A);
    s.flush_what_is_read(A, 1, stamp);
    s.power_loss(A, Keep::Nothing);
    s.start(B);
    s.activate_vouched(B);
    s.write(B, 2);
    s.heal();
    s.start(A);
    s.wait(3000);
}

/// Server2 is active and loses what it had not flushed; server1 takes over, flushes what it reads,
/// and loses its power before the two meet.
fn taken_over_and_flushed(s: &mut Stage) {
    let stamp = s.content(A, 1);
    s.power_loss(B, Keep::Nothing);
    s.part();
    s.activate(A);
    s.flush_what_is_read(A, 1, stamp);
    s.power_loss(A, Keep::Nothing);
    s.start(B);
    s.activate_vouched(B);
    s.write(B, 2);
    s.heal();
    s.start(A);
    s.wait(3000);
}

fn flush_overtakes_the_write(s: &mut Stage) {
    s.activate(B);
    let slow = s.hold(B, Io::Write(1));
    let write = s.begin_write(B, 1);
    s.until_held(slow);
    s.wait(20);
    s.flush(B);
    s.land(slow);
    s.until_done(write);
    // A later operation and a heartbeat tell the standby that all of it is settled.
    s.read(B, 40);
    s.wait(1500);
    taken_over_and_flushed(s);
}

fn write_before_the_adoption(s: &mut Stage) {
    s.activate(B);
    s.part();
    s.write(B, 384);
    let adopt = s.hold_frame(A, "Adopt");
    s.heal();
    s.until_held(adopt);
    let record = s.hold(A, Io::RecordA);
    s.land(adopt);
    s.until_held(record);
    s.write(B, 1);
    s.land(record);
    s.wait(1000);
    taken_over_and_flushed(s);
}

fn flush_after_a_restart(s: &mut Stage) {
    s.activate(A);
    let stamp = s.write(A, 1);
    s.part();
    s.kill(A);
    s.activate(B);
    s.power_loss(B, Keep::Nothing);
    s.start(A);
    s.activate_vouched(A);
    s.flush_what_is_read(A, 1, stamp);
    s.power_loss(A, Keep::Nothing);
    the_cache_is_lost(s);
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

fn needless_fenced(s: &mut Stage) {
    s.restart_with(|tuning| tuning.fenced = true);
    s.activate(A);
    s.write(A, 1);
    s.part();
    let write = s.begin_write(A, 2);
    s.wait(20_000);
    let waits = !s.is_answered(write);
    s.expect("nothing completes alone", waits);
    // The cluster manager switches it off, and says so to the other.
    s.power_loss(A, Keep::Everything);
    s.activate_vouched(B);
    s.write(B, 3);
    s.heal();
    s.start(A);
    s.until_verdict("descendant-difference");
    s.until_normal();
}
