//! Forces and activations that meet something.

use crate::script::{A, B, Closed, Keep, Scenario, Stage};
use mirror_core::command::Refusal;
use mirror_core::rules::Rule;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "half-forced",
        about: "a force is interrupted when the loser is half copied; the loser looks usable",
        closed: &[Closed {
            by: &[Rule::AbnormalActive],
            otherwise: "not so: activating server2 is refused: NotLatest",
        }],
        steps: half_forced,
    },
    Scenario {
        name: "half-forced/before-the-loser-knows",
        about: "a force is interrupted before the loser records it; the loser goes on alone",
        closed: &[Closed {
            by: &[Rule::ForceSince],
            otherwise: "the verdict is descendant-full, not split-brain",
        }],
        steps: force_unknown_to_the_loser,
    },
    Scenario {
        name: "half-forced/one-server",
        about: "a force without contact, which does not know what the other wrote alone",
        closed: &[Closed {
            by: &[Rule::ForceUnseen],
            otherwise: "the verdict is split-brain, not descendant-full",
        }],
        steps: forced_alone,
    },
    Scenario {
        name: "both-activate",
        about: "both servers are activated at the same time",
        closed: &[Closed { by: &[Rule::Grant], otherwise: "both are active in session" }],
        steps: both_activate,
    },
];

/// Both sides have written alone, are inactive, and in contact.
fn split_brain(s: &mut Stage) {
    s.activate(A);
    s.part();
    s.write(A, 1);
    s.activate(B);
    s.write(B, 2);
    s.deactivate(A);
    s.deactivate(B);
    s.heal();
    s.until_verdict("split-brain");
}

fn half_forced(s: &mut Stage) {
    split_brain(s);
    let copy = s.hold_frame(B, "Copy");
    s.force(A);
    s.until_held(copy);
    s.power_loss(A, Keep::Everything);
    s.power_loss(B, Keep::Everything);
    s.start(B);
    s.activation_refused(B, false, Refusal::NotLatest);
    s.activation_refused(B, true, Refusal::NotLatest);
    s.start(A);
    s.until_normal();
}

fn force_unknown_to_the_loser(s: &mut Stage) {
    split_brain(s);
    let card = s.hold_frame(B, "Card");
    s.force(A);
    s.until_held(card);
    s.power_loss(A, Keep::Everything);
    s.power_loss(B, Keep::Everything);
    s.start(B);
    s.activate_vouched(B);
    s.write_durably(B, 3);
    s.deactivate(B);
    s.start(A);
    s.until_verdict("split-brain");
}

fn forced_alone(s: &mut Stage) {
    s.activate(B);
    s.part();
    s.write_durably(B, 1);
    s.power_loss(B, Keep::Nothing);
    s.activate(A);
    s.write(A, 2);
    s.force(A);
    s.write(A, 3);
    s.heal();
    s.start(B);
    s.until_verdict("descendant-full");
}

fn both_activate(s: &mut Stage) {
    let orders = [A, B].map(|at| (at, s.activation(at, false)));
    let ids = orders.map(|(at, command)| s.begin(at, command));
    let answers = ids.map(|id| s.until_replied(id));
    let won = answers.iter().flatten().filter(|answer| answer.is_ok()).count();
    s.expect("one of the two is activated", won == 1);
    s.wait(100);
}
