//! What a refused command means to the operator: the event that is logged, the exit code, and a
//! sentence each on what happened and on the one safe next command.

use super::events::{ActivateReason, DeactivateReason, Event, RecoveryReason, later};
use super::result::MdCode;
use mirror_core::command::Refusal;

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `--active`
    Activate,
    /// `--deactive`
    Deactivate,
    /// `--recovery`
    Recover,
    /// `--force`
    Force,
    /// `--cancel`
    Cancel,
    /// `--break`
    Separate,
    /// `--resize`
    Resize,
}

/// Names for the sentences.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// The mirror, as md1.
    pub mirror: &'a str,
    /// Its device, as /dev/NMP1.
    pub device: &'a str,
    /// This server.
    pub local: &'a str,
    /// The other server.
    pub peer: &'a str,
}

/// A refusal made plain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// The event to log, where the manual has one.
    pub event: Option<Event>,
    /// The exit code.
    pub code: MdCode,
    /// What happened and why.
    pub message: String,
    /// The one safe next step.
    pub next: String,
}

/// Explains why `operation` was refused.
#[must_use]
pub fn explain(operation: Operation, refusal: Refusal, who: Parties<'_>) -> Explained {
    let verb = match operation {
        Operation::Activate => "was not activated",
        Operation::Deactivate => "was not deactivated",
        Operation::Recover => "is not being recovered",
        Operation::Force => "was not forced",
        Operation::Cancel => "has no recovery to stop",
        Operation::Separate => "was not separated",
        Operation::Resize => "has not grown",
    };
    let code = code(refusal);
    let (text, cause) = (text(code, operation, who), cause(operation, refusal));
    Explained {
        event: event(operation, refusal, who.device),
        code,
        message: format!("{text} {} {verb} on {}: {cause}.", who.mirror, who.local),
        next: next_step(operation, refusal, who),
    }
}

/// The text of the manual for the code (§12.4.4), so that it can be looked up.
fn text(code: MdCode, operation: Operation, who: Parties<'_>) -> String {
    let option = match operation {
        Operation::Activate => "--active",
        Operation::Deactivate => "--deactive",
        Operation::Recover => "--recovery",
        Operation::Force => "--force",
        Operation::Cancel => "--cancel",
        Operation::Separate => "--break",
        Operation::Resize => "--resize",
    };
    match code {
        MdCode::AlreadyMounted | MdCode::NotMounted => code.fill(&[who.device]),
        MdCode::Failed => code.fill(&[&format!("clpmdctrl {option} {}", who.mirror)]),
        _ => code.fill(&[who.mirror]),
    }
}

/// One side is blank, and the other cannot exclude that it was ahead: what that is, and the way
/// out, which is the same for an activation and a recovery on either server. `full` is the server
/// that has data, `blank` the other.
#[must_use]
pub fn blank_and_unsure(
    refused: Explained,
    who: Parties<'_>,
    full: &str,
    blank: &str,
) -> Explained {
    let Parties { mirror, .. } = who;
    Explained {
        message: format!(
            "{} The cluster partition of {blank} is blank, as after a replaced disk, and {full} cannot \
             exclude that {blank} had newer data before (blank-and-unsure): so neither is taken for \
             the latest, and nothing is copied.",
            refused.message
        ),
        next: format!(
            "if no disk with newer data of {blank} is left to attach: clpmdctrl --force {full} {mirror}"
        ),
        ..refused
    }
}

/// The disk that has failed is not this server's: the other one works with this one's disk.
#[must_use]
pub fn serves_the_other(refused: Explained, who: Parties<'_>) -> Explained {
    let Parties { mirror, local, peer, .. } = who;
    let mine = Refusal::DiskFailed.to_string();
    let theirs =
        format!("the disk of {peer} has failed, and {peer} works with the disk of {local}");
    Explained {
        message: refused.message.replace(&mine, &theirs),
        next: format!(
            "on {peer}: clpmdctrl --deactive {mirror}, on {local}: clpmdctrl --active {mirror}; then replace the disk of {peer}, then on it, with the agent stopped: clpmdchng --execute <disk device>"
        ),
        ..refused
    }
}

/// The cause in words. Without contact only an activation asks who has the latest data.
fn cause(operation: Operation, refusal: Refusal) -> String {
    match refusal {
        Refusal::NoContact if operation != Operation::Activate => {
            "the other server cannot be reached".to_owned()
        }
        _ => refusal.to_string(),
    }
}

fn event(operation: Operation, refusal: Refusal, device: &str) -> Option<Event> {
    let device = device.to_owned();
    match operation {
        Operation::Activate => activate_reason(refusal).map(|r| Event::ActivateFailed(r, device)),
        Operation::Deactivate => match refusal {
            Refusal::NotActive => {
                Some(Event::DeactivateFailed(DeactivateReason::NotActive, device))
            }
            _ => None,
        },
        Operation::Recover => recovery_reason(refusal).map(|r| Event::RecoveryFailed(r, device)),
        Operation::Force => Some(match recovery_reason(refusal) {
            Some(reason) => Event::RecoveryFailed(reason, device),
            None => Event::later(later::FORCE_FAILED, &[&sentence(refusal), &device]),
        }),
        Operation::Cancel => Some(Event::later(later::CANCEL_FAILED, &[&device])),
        Operation::Separate => {
            Some(Event::later(later::ISOLATE_FAILED, &[&sentence(refusal), &device]))
        }
        Operation::Resize => Some(Event::later(later::EXTEND_FAILED, &[&device])),
    }
}

/// The refusal as a reason in the manner of the manual's: with a capital and a full stop.
pub fn sentence(refusal: Refusal) -> String {
    let text = refusal.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).chain(['.']).collect()
}

fn activate_reason(refusal: Refusal) -> Option<ActivateReason> {
    use ActivateReason as R;
    match refusal {
        Refusal::NotLatest | Refusal::SplitBrain => Some(R::NotLatest),
        Refusal::NoContact | Refusal::WasActive | Refusal::PeerWasActive => Some(R::NoContact),
        Refusal::PeerActive | Refusal::TargetActive => Some(R::RemoteActive),
        Refusal::AlreadyActive => Some(R::AlreadyActive),
        Refusal::NotConstructed
        | Refusal::DiskFailed
        | Refusal::NotRecorded
        | Refusal::Stopping => Some(R::OpenPort),
        Refusal::Busy
        | Refusal::NotActive
        | Refusal::RecoveryRunning
        | Refusal::NoRecovery
        | Refusal::NoDirection
        | Refusal::NoRoom
        | Refusal::NoRoomAtPeer
        | Refusal::GrowsLater
        | Refusal::SourceAbnormal => None,
    }
}

fn recovery_reason(refusal: Refusal) -> Option<RecoveryReason> {
    use RecoveryReason as R;
    match refusal {
        Refusal::RecoveryRunning => Some(R::Running),
        Refusal::TargetActive | Refusal::PeerActive => Some(R::TargetActive),
        Refusal::NoDirection | Refusal::SplitBrain => Some(R::NoDirection),
        Refusal::SourceAbnormal
        | Refusal::DiskFailed
        | Refusal::NotRecorded
        | Refusal::NoContact
        | Refusal::NotLatest
        | Refusal::WasActive
        | Refusal::PeerWasActive => Some(R::SourceAbnormal),
        Refusal::AlreadyActive
        | Refusal::NotActive
        | Refusal::NotConstructed
        | Refusal::Busy
        | Refusal::NoRecovery
        | Refusal::NoRoom
        | Refusal::NoRoomAtPeer
        | Refusal::GrowsLater
        | Refusal::Stopping => None,
    }
}

/// The nearest code of §12.4.4; those that it does not foresee are "command failed".
const fn code(refusal: Refusal) -> MdCode {
    match refusal {
        Refusal::NotLatest
        | Refusal::SplitBrain
        | Refusal::NoContact
        | Refusal::WasActive
        | Refusal::PeerWasActive => MdCode::NotLatest,
        Refusal::AlreadyActive => MdCode::AlreadyMounted,
        Refusal::NotActive => MdCode::NotMounted,
        Refusal::NotConstructed => MdCode::ReadCluster,
        Refusal::DiskFailed | Refusal::NotRecorded => MdCode::WriteCluster,
        Refusal::PeerActive
        | Refusal::Busy
        | Refusal::RecoveryRunning
        | Refusal::NoRecovery
        | Refusal::NoDirection
        | Refusal::SourceAbnormal
        | Refusal::TargetActive
        | Refusal::NoRoom
        | Refusal::NoRoomAtPeer
        | Refusal::GrowsLater
        | Refusal::Stopping => MdCode::Failed,
    }
}

fn grow_partitions(server: &str, mirror: &str) -> String {
    format!(
        "make the data partition larger on both servers (for example lvextend), and the cluster partition where the table in docs/on-disk.md says so; it lacks room on {server}: clpmdctrl --resize {mirror}"
    )
}

fn next_step(operation: Operation, refusal: Refusal, who: Parties<'_>) -> String {
    let Parties { mirror, local, peer, .. } = who;
    match refusal {
        Refusal::NotLatest => format!(
            "start the agent on {peer} if it does not run, then bring {local} up to date: clpmdctrl --recovery {mirror}"
        ),
        Refusal::NoDirection if operation == Operation::Force => format!(
            "`clpmdstat --mirror {mirror} --json` names the reason as verdict; attach the right disk, or on the server whose disk is to be given up, with its agent stopped: clpmdinit --create force {mirror}"
        ),
        Refusal::SplitBrain | Refusal::NoDirection => {
            format!(
                "deactivate {mirror} on both servers, see with `clpmdstat --mirror {mirror}` which one to keep, then: clpmdctrl --force <server> {mirror}"
            )
        }
        Refusal::NoContact | Refusal::WasActive if operation == Operation::Activate => format!(
            "start the agent on {peer}; only if {peer} is off and wrote nothing alone: clpmdctrl --active {mirror} --peer-down"
        ),
        Refusal::PeerWasActive if operation == Operation::Activate => format!(
            "start the agent on {peer}; if {peer} is lost for good and its last writes may be given up: clpmdctrl --force {local} {mirror}"
        ),
        Refusal::NoContact | Refusal::WasActive | Refusal::PeerWasActive => {
            format!("start the agent on {peer} and check the mirror connect, then ask again")
        }
        Refusal::PeerActive if operation == Operation::Resize => {
            format!("on {peer}: clpmdctrl --resize {mirror}")
        }
        Refusal::NoRoom => grow_partitions(local, mirror),
        Refusal::NoRoomAtPeer => grow_partitions(peer, mirror),
        Refusal::GrowsLater => format!(
            "start the agent on {peer} and check the mirror connect; the rest follows by itself: clpmdstat --mirror {mirror} --watch"
        ),
        Refusal::PeerActive | Refusal::TargetActive => {
            format!("on {peer}: clpmdctrl --deactive {mirror}")
        }
        Refusal::AlreadyActive | Refusal::NotActive | Refusal::NoRecovery => {
            format!("clpmdstat --mirror {mirror}")
        }
        Refusal::NotConstructed => format!(
            "start the agent on both servers; the first construction runs by itself: clpmdstat --mirror {mirror} --watch; if only {local} has lost its cluster partition, on {peer}: clpmdctrl --recovery {mirror}"
        ),
        Refusal::RecoveryRunning if operation == Operation::Separate => {
            format!("clpmdctrl --rwait {mirror}, or clpmdctrl --cancel {mirror}")
        }
        Refusal::Busy | Refusal::RecoveryRunning => {
            format!("wait, and follow it with: clpmdstat --mirror {mirror} --watch")
        }
        Refusal::SourceAbnormal => {
            format!("clpmdstat --mirror {mirror}, on both servers")
        }
        Refusal::DiskFailed => format!(
            "replace the disk of {local}, then with the agent stopped: clpmdchng --execute <disk device>"
        ),
        Refusal::NotRecorded => format!(
            "order nothing on {peer} yet; on {local}: systemctl restart clusterpro_md, then `clpmdstat --mirror {mirror}` shows what is recorded (if {mirror} cannot be opened, with the agent stopped: clpmdchng --execute <disk device>)"
        ),
        Refusal::Stopping => "start the agent again".to_owned(),
    }
}
