//! `clpmdctrl --rwait`: waits until no recovery of a mirror runs any more.

use crate::cli::{ask, unexpected};
use crate::out::Failure;
use crate::watch::bar;
use indicatif::ProgressBar;
use mirror_agent::ctl::{Client, MirrorReport, Request, Response};
use mirror_agent::messages::MdCode;
use mirror_core::status::{LinkStatus, MirrorStatus, Phase};
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(500);
/// A recovery that ended early begins anew by itself within this time, or never.
const RESTART: Duration = Duration::from_secs(15);

/// What a state means to somebody who waits for the recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Whole,
    Copying,
    /// Neither whole nor being copied; it may still begin.
    Idle,
    /// It will not begin without the operator.
    Stuck,
}

fn look(status: &MirrorStatus) -> Seen {
    match status.phase {
        Phase::Recovering => Seen::Copying,
        _ if status.separated || status.needs_force => Seen::Stuck,
        Phase::Normal if status.link == LinkStatus::Session => Seen::Whole,
        Phase::Normal | Phase::Abnormal | Phase::NoConstruction => Seen::Idle,
    }
}

/// Waits until `mirror` is whole.
///
/// # Errors
/// Code 83 after `limit` seconds, and the recovery is stopped if `cancel`; 89 if the mirror is not
/// whole and nothing runs that would make it so; what the agent says.
pub fn run(
    client: &mut Client,
    mirror: &str,
    limit: Option<u64>,
    cancel: bool,
) -> Result<(), Failure> {
    let start = Instant::now();
    let (mut idle_since, mut progress) = (start, None);
    loop {
        let report = report(client, mirror)?;
        match look(&report.status) {
            Seen::Whole => return say(&format!("{mirror} is whole: both servers hold the same.")),
            Seen::Stuck => return Err(stuck(&report)),
            Seen::Idle if idle_since.elapsed() >= RESTART => return Err(stuck(&report)),
            Seen::Idle => {}
            Seen::Copying => {
                idle_since = Instant::now();
                show(&mut progress, &report);
            }
        }
        if limit.is_some_and(|s| start.elapsed() >= Duration::from_secs(s)) {
            return Err(too_long(client, mirror, limit.unwrap_or_default(), cancel));
        }
        std::thread::sleep(PAUSE);
    }
}

fn say(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

fn report(client: &mut Client, mirror: &str) -> Result<MirrorReport, Failure> {
    let missing = || Failure::new(MdCode::NoMirror, MdCode::NoMirror.fill(&[mirror]));
    match ask(client, Request::Status { mirror: Some(mirror.to_owned()) })? {
        Response::Status(found) => found.into_iter().next().ok_or_else(missing),
        _ => Err(unexpected()),
    }
}

/// On a terminal one bar for the whole wait.
fn show(progress: &mut Option<ProgressBar>, report: &MirrorReport) {
    let Some(recovery) = &report.status.recovery else { return };
    if !io::stdout().is_terminal() {
        return;
    }
    let shown = progress.get_or_insert_with(|| bar(&report.name, recovery));
    shown.set_length(recovery.total_bytes);
    shown.set_position(recovery.copied_bytes.min(recovery.total_bytes));
}

fn stuck(report: &MirrorReport) -> Failure {
    let (name, status) = (&report.name, &report.status);
    let (why, next) = if status.separated {
        ("an operator keeps the servers apart", format!("clpmdctrl --recovery {name}"))
    } else if status.needs_force {
        ("only an operator can say whose data is to be kept", format!("clpmdstat --mirror {name}"))
    } else if status.link == LinkStatus::Down {
        ("the servers are not in contact", format!("clpmdstat --mirror {name}, on both servers"))
    } else {
        ("no recovery runs", format!("clpmdctrl --recovery {name}"))
    };
    let what = format!("{name} is not whole, and is not being recovered: {why}.");
    Failure::new(MdCode::Failed, what).next(next)
}

fn too_long(client: &mut Client, mirror: &str, limit: u64, cancel: bool) -> Failure {
    let mut what = MdCode::Timeout.fill(&["recovery", &format!("{limit}s")]);
    if cancel {
        let cancelled = ask(client, Request::Cancel { mirror: mirror.to_owned() });
        what += &match cancelled {
            Ok(Response::Done(text)) => format!("\n{text}"),
            Ok(_) => String::new(),
            Err(failure) => format!("\nIt was not stopped: {failure}"),
        };
    }
    let next = if cancel { "clpmdctrl --recovery" } else { "clpmdctrl --rwait" };
    Failure::new(MdCode::Timeout, what).next(format!("{next} {mirror}"))
}

#[cfg(test)]
mod tests {
    use super::{Seen, look};
    use crate::fixture::{report, side};
    use mirror_core::status::{Color, LinkStatus, MirrorStatus, Phase};

    fn status(phase: Phase, link: LinkStatus) -> MirrorStatus {
        let sides = [side(Color::Green), side(Color::Green)];
        MirrorStatus { link, ..report(phase, sides).status }
    }

    #[test]
    fn only_a_whole_mirror_ends_the_wait_well() {
        use LinkStatus::{Down, Parked, Session};
        for (phase, link, want) in [
            (Phase::Normal, Session, Seen::Whole),
            (Phase::Normal, Down, Seen::Idle),
            (Phase::Abnormal, Session, Seen::Idle),
            (Phase::Abnormal, Parked, Seen::Idle),
            (Phase::NoConstruction, Down, Seen::Idle),
            (Phase::Recovering, Session, Seen::Copying),
        ] {
            assert_eq!(look(&status(phase, link)), want, "{phase:?} {link:?}");
        }
    }

    #[test]
    fn what_needs_the_operator_is_not_waited_for() {
        let parked = status(Phase::Abnormal, LinkStatus::Parked);
        assert_eq!(look(&MirrorStatus { needs_force: true, ..parked.clone() }), Seen::Stuck);
        assert_eq!(look(&MirrorStatus { separated: true, ..parked }), Seen::Stuck);
        let normal = status(Phase::Normal, LinkStatus::Parked);
        assert_eq!(look(&MirrorStatus { separated: true, ..normal }), Seen::Stuck);
    }
}
