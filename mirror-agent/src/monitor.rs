//! The monitors of the manual: of the mirror disk (`mdw`, §12.5.6) and of the mirror connect
//! (`mdnw`, §12.5.7). What the agent knows is judged here; the texts are in the table of messages.

use crate::ctl::MirrorReport;
use crate::messages::table;
use mirror_core::status::{Color, LinkStatus, Phase};
use serde::{Deserialize, Serialize};

/// The other server's driver of a mirror, as its agent tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerDriver {
    /// It runs.
    Runs,
    /// Its agent runs, but the driver does not.
    Abnormal,
    /// Neither the driver nor the agent can be asked.
    Unknown,
}

/// What the agent gives the monitors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Monitored {
    /// The state; absent if this server's driver does not run.
    pub report: Option<MirrorReport>,
    /// The other server's driver.
    pub peer: PeerDriver,
}

/// A monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Monitor {
    /// Of the mirror disk.
    Disk,
    /// Of the mirror connect.
    Connect,
}

/// What a monitor found: its exit code, 0 for normal, and the text for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Exit code.
    pub code: u8,
    /// Text of the table with its argument filled in; `Normal.` for 0.
    pub text: String,
}

/// Codes that both monitors have.
pub mod code {
    /// Nothing wrong.
    pub const NORMAL: u8 = 0;
    /// The agent does not run.
    pub const NO_AGENT: u8 = 1;
    /// Wrong options.
    pub const OPTIONS: u8 = 2;
    /// The configuration cannot be used.
    pub const CONFIG: u8 = 4;
    /// The monitor names something that is not there.
    pub const MONITOR_CONFIG: u8 = 5;
    /// Anything else.
    pub const INTERNAL: u8 = 30;
}

impl Monitor {
    /// Its module type.
    #[must_use]
    pub const fn module(self) -> &'static str {
        match self {
            Self::Disk => "mdw",
            Self::Connect => "mdnw",
        }
    }

    /// The text for `code`, with `argument` (the mirror's name, or a reason) filled in.
    #[must_use]
    pub fn finding(self, code: u8, argument: &str) -> Finding {
        let text = match table::row(self.module(), u16::from(code)) {
            Some(message) => message.fill(&[argument]),
            None => "Normal.".to_owned(),
        };
        Finding { code, text }
    }

    /// Judges what the agent says of the mirror `name`.
    #[must_use]
    pub fn judge(self, name: &str, state: &Monitored) -> Finding {
        match self {
            Self::Disk => self.finding(disk(state), name),
            Self::Connect => match connect(state) {
                code::INTERNAL => self.finding(code::INTERNAL, "the local driver does not run"),
                code => self.finding(code, name),
            },
        }
    }
}

/// The worst that concerns this server comes first, then what concerns the other.
fn disk(state: &Monitored) -> u8 {
    let Some(report) = &state.report else {
        return if state.peer == PeerDriver::Abnormal { 54 } else { 53 };
    };
    let status = &report.status;
    let local = status.local.min(1);
    let colors = [status.sides[local].color, status.sides[1 - local].color];
    match (status.phase, colors, state.peer) {
        _ if status.both_active => 66,
        (Phase::Recovering, _, _) => 100,
        (Phase::NoConstruction, _, _) | (_, [Color::Gray, _], _) => 58,
        (_, [Color::Red, Color::Red], _) => 65,
        (_, [Color::Red, _], _) => 63,
        (_, _, PeerDriver::Abnormal) => 52,
        (_, _, PeerDriver::Unknown) => 51,
        (_, [_, Color::Red], _) => 64,
        (_, [_, Color::Gray], _) => 51,
        _ => code::NORMAL,
    }
}

fn connect(state: &Monitored) -> u8 {
    match state.report.as_ref().map(|r| r.status.link) {
        None => code::INTERNAL,
        Some(LinkStatus::Down) => 31,
        Some(LinkStatus::Negotiating | LinkStatus::Parked | LinkStatus::Session) => code::NORMAL,
    }
}

#[cfg(test)]
mod tests {
    use super::{Finding, Monitor, Monitored, PeerDriver};
    use crate::agent::fake_report;
    use mirror_core::status::{Color, LinkStatus, MirrorStatus, Phase};

    fn state(peer: PeerDriver, change: impl FnOnce(&mut MirrorStatus)) -> Monitored {
        let mut report = fake_report();
        change(&mut report.status);
        Monitored { report: Some(report), peer }
    }

    fn colors(local: Color, remote: Color, peer: PeerDriver) -> u8 {
        let state = state(peer, |s| {
            s.phase = Phase::Abnormal;
            s.sides[s.local].color = local;
            s.sides[1 - s.local].color = remote;
        });
        Monitor::Disk.judge("md1", &state).code
    }

    #[test]
    fn every_row_of_12_5_6_has_its_state() {
        use Color::{Gray, Green, Red};
        use PeerDriver::{Abnormal, Runs, Unknown};
        let judge = |state: &Monitored| Monitor::Disk.judge("md1", state).code;
        assert_eq!(judge(&state(Runs, |_| ())), 0);
        assert_eq!(colors(Green, Gray, Unknown), 51);
        assert_eq!(colors(Green, Red, Unknown), 51, "it cannot be recovered before it is back");
        assert_eq!(colors(Green, Gray, Runs), 51);
        assert_eq!(colors(Green, Red, Abnormal), 52);
        assert_eq!(judge(&Monitored { report: None, peer: Runs }), 53);
        assert_eq!(judge(&Monitored { report: None, peer: Unknown }), 53);
        assert_eq!(judge(&Monitored { report: None, peer: Abnormal }), 54);
        assert_eq!(judge(&state(Runs, |s| s.phase = Phase::NoConstruction)), 58);
        assert_eq!(colors(Gray, Green, Runs), 58);
        assert_eq!(colors(Red, Green, Runs), 63);
        assert_eq!(colors(Red, Gray, Unknown), 63, "what concerns this server comes first");
        assert_eq!(colors(Green, Red, Runs), 64);
        assert_eq!(colors(Red, Red, Runs), 65);
        assert_eq!(judge(&state(Runs, |s| s.both_active = true)), 66);
        assert_eq!(judge(&state(Runs, |s| s.phase = Phase::Recovering)), 100);
    }

    #[test]
    fn every_row_of_12_5_7_has_its_state() {
        let judge = |link| {
            let state = state(PeerDriver::Unknown, |s| s.link = link);
            Monitor::Connect.judge("md1", &state).code
        };
        assert_eq!(judge(LinkStatus::Down), 31);
        assert_eq!(judge(LinkStatus::Negotiating), 0);
        assert_eq!(judge(LinkStatus::Parked), 0, "connected, whatever else is wrong");
        assert_eq!(judge(LinkStatus::Session), 0);
        let none = Monitored { report: None, peer: PeerDriver::Runs };
        assert_eq!(Monitor::Connect.judge("md1", &none).code, 30);
    }

    #[test]
    fn texts_are_those_of_the_table() {
        let text = |monitor: Monitor, code| monitor.finding(code, "md1").text;
        assert_eq!(text(Monitor::Disk, 64), "Remote mirror disk is abnormal.(md1)");
        assert_eq!(text(Monitor::Disk, 100), "The recovery is in progress. (md1)");
        assert_eq!(text(Monitor::Disk, 51), "Remote driver status is unknown.");
        assert_eq!(text(Monitor::Connect, 31), "Network was interrupted");
        assert_eq!(text(Monitor::Connect, 5), "Monitor config error.(md1)");
        let normal = Finding { code: 0, text: "Normal.".to_owned() };
        assert_eq!(Monitor::Disk.finding(0, "md1"), normal);
    }
}
