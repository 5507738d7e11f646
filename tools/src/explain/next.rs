//! The one safe next command for a state.

use super::{Growth, failed, has_parted, is_active, local};
use mirror_agent::ctl::MirrorReport;
use mirror_core::status::{LinkStatus, Phase};

/// What to do now.
pub(super) fn step(report: &MirrorReport, growth: Option<Growth>) -> String {
    let s = &report.status;
    let name = &report.name;
    let (me, peer) = (local(report), 1 - local(report));
    let server = |n: usize| &report.servers[n];
    if let Some(bad) = failed(report) {
        return disk_failed(report, bad);
    }
    if has_parted(report) {
        return parted(report);
    }
    if s.separated {
        return format!("when they are to be equal again: clpmdctrl --recovery {name}");
    }
    match (s.phase, s.link) {
        (Phase::NoConstruction, _) => {
            "start the agent on both servers: the first construction runs by itself".to_owned()
        }
        (_, LinkStatus::Negotiating) => format!("wait a moment, then: clpmdstat --explain {name}"),
        (Phase::Recovering, _) if growth.is_some() => format!(
            "wait for it: clpmdctrl --rwait {name}; then make the file system larger: docs/operating.md, Change the size of a mirror"
        ),
        (Phase::Recovering, _) => format!("wait for it: clpmdctrl --rwait {name}"),
        (Phase::Normal, LinkStatus::Session) if is_active(report, 0) || is_active(report, 1) => {
            "nothing".to_owned()
        }
        (Phase::Normal, LinkStatus::Session) => {
            format!("nothing; to use it here: clpmdctrl --active {name}")
        }
        (_, LinkStatus::Down) => format!(
            "start the agent on {} (systemctl start clusterpro_md) and check the mirror connect; the rest follows by itself",
            server(peer)
        ),
        (Phase::Abnormal, _) if s.needs_force => by_force(report),
        (Phase::Abnormal, _) => format!("clpmdctrl --recovery {name}"),
        (Phase::Normal, _) if s.sides[me].active == Some(true) => {
            format!("clpmdctrl --recovery {name}")
        }
        (Phase::Normal, _) => format!("wait a moment, then: clpmdstat --explain {name}"),
    }
}

/// What is active on the server goes to the other one first, also where it still works there.
fn disk_failed(report: &MirrorReport, bad: usize) -> String {
    let name = &report.name;
    let [bad_name, good] = [bad, 1 - bad].map(|n| &report.servers[n]);
    let first = if is_active(report, bad) {
        format!(
            "on {bad_name}: clpmdctrl --deactive {name}, on {good}: clpmdctrl --active {name}; then "
        )
    } else {
        String::new()
    };
    format!(
        "{first}replace the disk of {bad_name}, then on it, with the agent stopped: clpmdchng --execute <disk device>"
    )
}

/// An operator has to choose. Force is refused while the server to be overwritten is active.
fn parted(report: &MirrorReport) -> String {
    let name = &report.name;
    let active: Vec<_> =
        (0..2).filter(|&n| is_active(report, n)).map(|n| &report.servers[n]).collect();
    match active.as_slice() {
        [] => format!(
            "choose the server whose data is to be kept (the other's is overwritten): clpmdctrl --force <server> {name}"
        ),
        [one] => format!(
            "to keep the data of {one}: clpmdctrl --force {one} {name}; to give it up, on {one} first: clpmdctrl --deactive {name}"
        ),
        _ => format!(
            "on the server whose data is to be given up, once its applications are stopped: clpmdctrl --deactive {name}"
        ),
    }
}

fn by_force(report: &MirrorReport) -> String {
    let name = &report.name;
    match report.status.verdict.as_deref() {
        Some("target-active") => {
            let active = (0..2).find(|&n| is_active(report, n)).unwrap_or(1 - local(report));
            format!("on {}: clpmdctrl --deactive {name}", report.servers[active])
        }
        Some("size-mismatch") => format!(
            "make the data partition that is too small as large as the other, then on that server: systemctl restart clusterpro_md; or, if its disk is to be given up, with its agent stopped: clpmdinit --create force {name}"
        ),
        Some("foreign-mirror" | "same-side") => format!(
            "attach the right disk; or, on the server whose disk is to be given up, with its agent stopped: clpmdinit --create force {name}"
        ),
        _ => format!(
            "look at both servers' times above, then declare the one to keep: clpmdctrl --force <server> {name}"
        ),
    }
}
