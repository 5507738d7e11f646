//! A report for tests: two equal, inactive sides in a session.

use mirror_agent::ctl::MirrorReport;
use mirror_core::status::{Color, LinkStatus, MirrorStatus, Phase, SideStatus};

pub(crate) fn side(color: Color) -> SideStatus {
    SideStatus {
        color,
        active: Some(false),
        last_update: None,
        break_time: None,
        disk_error: Some(false),
        marked_regions: Some(0),
        difference_percent: None,
        generation: None,
    }
}

pub(crate) fn report(phase: Phase, sides: [SideStatus; 2]) -> MirrorReport {
    MirrorReport {
        name: "md1".to_owned(),
        device: "/dev/NMP1".to_owned(),
        mount_point: Some("/mnt/nmp1".to_owned()),
        mounted: Some(false),
        servers: ["server1".to_owned(), "server2".to_owned()],
        status: MirrorStatus {
            phase,
            sides,
            local: 0,
            total_difference_percent: 0,
            recovery: None,
            link: LinkStatus::Session,
            session: 1,
            verdict: None,
            block: 512,
            size: 1 << 30,
            separated: false,
            both_active: false,
            needs_force: false,
            constructing: false,
        },
        peer_by_agent: false,
    }
}
