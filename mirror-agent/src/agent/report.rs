//! What `clpmdstat` is given: this side's view, completed by the other agent's where the mirror
//! connect is cut.

use super::managed::Managed;
use crate::ctl::{MirrorReport, Refused};
use crate::monitor::{Monitored, PeerDriver};
use mirror_core::status::{Color, LinkStatus, MirrorStatus};

/// What the monitors are given. It does not wait for an activation that is under way.
pub(super) async fn monitored(mirror: &Managed) -> Monitored {
    let Ok(mut report) = without_mount(mirror).await else {
        return Monitored { report: None, peer: mirror.peer.driver() };
    };
    let connected = report.status.link != LinkStatus::Down;
    complete_by_agent(mirror, &mut report);
    let peer = if connected { PeerDriver::Runs } else { mirror.peer.driver() };
    Monitored { report: Some(report), peer }
}

/// This side's view alone: what the other agent is given.
pub(super) async fn own(mirror: &Managed) -> Result<MirrorReport, Refused> {
    let report = without_mount(mirror).await?;
    Ok(MirrorReport { mounted: mirror.is_mounted().await, ..report })
}

async fn without_mount(mirror: &Managed) -> Result<MirrorReport, Refused> {
    let status = mirror.status().await.ok_or_else(|| mirror.silent())?;
    Ok(MirrorReport {
        name: mirror.config.name.clone(),
        device: mirror.device.clone(),
        mount_point: mirror.settings().mount.as_ref().map(|m| m.point.display().to_string()),
        mounted: None,
        servers: mirror.servers.clone(),
        status,
        peer_by_agent: false,
    })
}

/// This side's view, and what the other agent said lately if there is no session.
pub(super) async fn complete(mirror: &Managed) -> Result<MirrorReport, Refused> {
    let mut report = own(mirror).await?;
    complete_by_agent(mirror, &mut report);
    Ok(report)
}

fn complete_by_agent(mirror: &Managed, report: &mut MirrorReport) {
    if report.status.link == LinkStatus::Session {
        mirror.peer.forget();
        return;
    }
    if let Some(theirs) = mirror.peer.report() {
        report.peer_by_agent = true;
        fill(&mut report.status, &theirs.status);
    }
}

/// Fills in what this side does not know of the peer with what the peer says of itself. What
/// this side does know stays: a peer that has missed everything still thinks well of itself.
fn fill(ours: &mut MirrorStatus, theirs: &MirrorStatus) {
    let (local, peer) = (ours.local.min(1), 1 - ours.local.min(1));
    let same = ours.sides[local].generation == theirs.sides[peer].generation;
    let said = &theirs.sides[peer];
    let side = &mut ours.sides[peer];
    // Two different generations are not both the latest, and this is not the place to judge.
    if side.color == Color::Gray && (same || said.color != Color::Green) {
        side.color = said.color;
    }
    side.active = said.active;
    side.last_update = side.last_update.or(said.last_update);
    side.break_time = side.break_time.or(said.break_time);
    side.disk_error = said.disk_error.or(side.disk_error);
    side.marked_regions = said.marked_regions.or(side.marked_regions);
    side.difference_percent = side.difference_percent.or(said.difference_percent);
    if side.generation.is_none() {
        side.generation.clone_from(&said.generation);
    }
    if ours.sides.iter().all(|s| s.active == Some(true)) {
        ours.both_active = true;
        ours.sides.iter_mut().for_each(|s| s.color = Color::Red);
    }
}

#[cfg(test)]
mod tests {
    use super::fill;
    use crate::agent::tests::fakes::status;
    use mirror_core::status::Color;

    #[test]
    fn only_what_is_not_known_is_filled_in() {
        let mut ours = status(0);
        ours.sides[1].color = Color::Gray;
        ours.sides[1].active = None;
        ours.sides[1].break_time = Some(7);
        let mut theirs = status(1);
        theirs.sides[1].break_time = Some(9);
        theirs.sides[1].last_update = Some(8);
        fill(&mut ours, &theirs);
        let peer = &ours.sides[1];
        assert_eq!((peer.color, peer.active), (Color::Green, Some(false)));
        assert_eq!((peer.break_time, peer.last_update), (Some(7), Some(8)));
    }

    #[test]
    fn a_peer_known_to_be_behind_does_not_turn_green_by_its_own_word() {
        let mut ours = status(0);
        ours.sides[1].color = Color::Red;
        fill(&mut ours, &status(1));
        assert_eq!(ours.sides[1].color, Color::Red);
        ours.sides[1].color = Color::Gray;
        ours.sides[0].generation = Some("b".to_owned());
        fill(&mut ours, &status(1));
        assert_eq!(ours.sides[1].color, Color::Gray, "of another generation");
    }

    #[test]
    fn two_active_sides_are_both_red() {
        let (mut ours, mut theirs) = (status(1), status(0));
        ours.sides[1].active = Some(true);
        theirs.sides[0].active = Some(true);
        fill(&mut ours, &theirs);
        assert!(ours.both_active);
        assert!(ours.sides.iter().all(|s| s.color == Color::Red));
    }
}
