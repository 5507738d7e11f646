//! What the records of two sides say when they meet: empty sides, images, ancestors, equal ones.

use super::region;
use crate::script::{A, B, Closed, Io, Keep, Scenario, Stage};
use mirror_core::command::Refusal;
use mirror_core::rules::Rule;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "empty-side-wins",
        about: "the cluster partition of the side that wrote alone is zeroed; the other is stale",
        closed: &[Closed {
            by: &[Rule::BlankUnsure],
            otherwise: "the older side is copied over the newer one",
        }],
        steps: empty_side_and_stale,
    },
    Scenario {
        name: "empty-side-wins/half-copied",
        about: "the cluster partition of the source is zeroed when recovery is half done",
        closed: &[Closed {
            by: &[Rule::AbnormalSource, Rule::BlankUnsure],
            otherwise: "the older side is copied over the newer one",
        }],
        steps: empty_side_and_half_copied,
    },
    Scenario {
        name: "old-image",
        about: "a side is restored from an image: the same generation, older marks",
        closed: &[Closed { by: &[Rule::Restored], otherwise: "has no mark" }],
        steps: old_image,
    },
    Scenario {
        name: "old-image/rotten-copy",
        about: "the copy of the record that tells of going alone rots, and the older one is taken",
        closed: &[Closed {
            by: &[Rule::TwoCopies],
            otherwise: "two sides that both wrote alone opened a session",
        }],
        steps: rotten_copy,
    },
    Scenario {
        name: "hours-old-standby",
        about: "the standby reboots while the active side goes on alone for hours, and dies",
        closed: &[Closed {
            by: &[Rule::PeerWasActive],
            otherwise: "not so: activating server2 is refused",
        }],
        steps: hours_old_standby,
    },
    Scenario {
        name: "equal-generations/crashed",
        about: "the active side lost a write with its cache, the other was not activated",
        closed: &[Closed { by: &[Rule::SettleUninterrupted], otherwise: "was acknowledged later" }],
        steps: crashed,
    },
    Scenario {
        name: "equal-generations/activated-and-only-read",
        about: "the other was activated and only read what the first had lost; both restart",
        closed: &[Closed {
            by: &[Rule::SettleActivation],
            otherwise: "a read on server2 has shown 1 since",
        }],
        steps: activated_and_only_read,
    },
    Scenario {
        name: "equal-generations/read-as-absent",
        about: "the other was activated and showed that a write was not there; both restart",
        closed: &[Closed {
            by: &[Rule::SettleActivation],
            otherwise: "not so: what a read showed absent stays absent",
        }],
        steps: read_as_absent,
    },
    Scenario {
        name: "equal-generations/left-undecided",
        about: "a suspended side has an unanswered write; the other showed that it was not there",
        closed: &[Closed {
            by: &[Rule::Undecided],
            otherwise: "not so: what a read showed absent stays absent",
        }],
        steps: left_undecided,
    },
    Scenario {
        name: "equal-generations/both-active-in-turn",
        about: "both active, the later one only for a while, and nothing written alone",
        closed: &[Closed { by: &[Rule::SettleActive], otherwise: "protocol error" }],
        steps: both_active_in_turn,
    },
    Scenario {
        name: "too-old-ancestor",
        about: "a side comes back older than what the marks of the other reach back to",
        closed: &[Closed { by: &[Rule::Restored, Rule::ReachBack], otherwise: "has no mark" }],
        steps: too_old_ancestor,
    },
];

fn the_good_copy_stays(s: &mut Stage, block: usize, stamp: u64) {
    s.wait(3000);
    let there = s.content(A, block) == stamp;
    s.expect("the only good copy is untouched", there);
    // The operator gives it up.
    s.force(B);
}

fn empty_side_and_stale(s: &mut Stage) {
    s.activate(A);
    s.part();
    let stamp = s.write_durably(A, 1);
    s.power_loss(A, Keep::Nothing);
    s.zero_cluster(A);
    s.heal();
    s.start(A);
    the_good_copy_stays(s, 1, stamp);
}

fn empty_side_and_half_copied(s: &mut Stage) {
    s.activate(A);
    s.part();
    let stamp = s.write_durably(A, 1);
    s.write_durably(A, region(5));
    let copy = s.hold_frame(B, "Copy");
    s.heal();
    s.until_held(copy);
    s.power_loss(A, Keep::Nothing);
    s.zero_cluster(A);
    s.start(A);
    the_good_copy_stays(s, 1, stamp);
}

/// The standby stops for a moment, in which an image of it is taken.
fn image_of_the_standby(s: &mut Stage) {
    s.stop(B);
    s.take_image(B);
    s.start(B);
    s.until_normal();
}

fn old_image(s: &mut Stage) {
    image_of_the_standby(s);
    s.activate(A);
    s.write(A, 1);
    s.deactivate(A);
    s.stop(B);
    s.restore_image(B);
    s.start(B);
    s.wait(1000);
}

fn rotten_copy(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.flush(A);
    s.part();
    let second = s.hold(A, Io::RecordB);
    s.begin_durable_write(A, 1);
    s.until_held(second);
    s.wait(100);
    s.power_loss(A, Keep::Everything);
    s.rot_record(A, true);
    s.activate(B);
    s.write(B, 2);
    s.heal();
    s.start(A);
    s.wait(3000);
}

fn hours_old_standby(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.part();
    s.power_loss(B, Keep::Everything);
    s.start(B);
    s.write(A, 2);
    s.wait(3_600_000);
    s.write(A, 3);
    s.power_loss(A, Keep::Everything);
    s.activation_refused(B, false, Refusal::PeerWasActive);
    s.activation_refused(B, true, Refusal::PeerWasActive);
}

fn crashed(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.power_loss(A, Keep::Nothing);
    s.start(A);
    s.until_normal();
}

fn activated_and_only_read(s: &mut Stage) {
    s.caches_survive();
    s.activate(A);
    let stamp = s.write(A, 1);
    s.power_loss(A, Keep::Nothing);
    s.part();
    s.activate(B);
    let read = s.read(B, 1);
    s.expect("server2 has the write", read == stamp);
    s.kill(B);
    s.heal();
    s.start(B);
    s.start(A);
    s.until_normal();
}

fn read_as_absent(s: &mut Stage) {
    s.activate(A);
    let write = s.hold_frame(B, "Write");
    s.begin_write(A, 1);
    s.until_held(write);
    s.wait(1);
    s.reset();
    s.kill(A);
    s.activate(B);
    let read = s.read(B, 1);
    s.expect("server2 has never had the write", read == 0);
    s.kill(B);
    s.start(B);
    s.start(A);
    s.until_normal();
    let contents = [A, B].map(|at| s.content(at, 1));
    s.expect("what a read showed absent stays absent", contents == [0, 0]);
}

fn left_undecided(s: &mut Stage) {
    s.activate(A);
    let write = s.hold_frame(B, "Write");
    s.begin_write(A, 1);
    s.until_held(write);
    s.wait(1);
    s.part();
    s.suspend(A);
    s.activate(B);
    let read = s.read(B, 1);
    s.expect("server2 has never had the write", read == 0);
    s.kill(B);
    s.heal();
    s.start(B);
    s.start(A);
    s.until_normal();
    let contents = [A, B].map(|at| s.content(at, 1));
    s.expect("what a read showed absent stays absent", contents == [0, 0]);
}

fn both_active_in_turn(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    // Else server2 would record going alone for the flush at the end of its time.
    s.flush(A);
    // The next heartbeat tells server2 that both have flushed.
    s.wait(1500);
    s.part();
    s.activate(B);
    s.read(B, 1);
    s.deactivate(B);
    s.heal();
    s.until_normal();
}

fn too_old_ancestor(s: &mut Stage) {
    image_of_the_standby(s);
    s.activate(A);
    s.part();
    s.write(A, 1);
    s.heal();
    s.until_normal();
    s.deactivate(A);
    s.stop(B);
    s.restore_image(B);
    s.start(B);
    s.wait(1000);
}
