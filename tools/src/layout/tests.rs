//! Every layout to the letter.

use super::{active, clock, connect, detail, state};
use crate::fixture::{report, side};
use jiff::tz::{TimeZone, offset};
use mirror_agent::config::Config;
use mirror_agent::ctl::MirrorReport;
use mirror_agent::figures::{Connected, Figures};
use mirror_core::status::{Color, CopyKind, LinkStatus, Phase, RecoveryStatus, SideStatus};

fn unknown() -> SideStatus {
    SideStatus { active: None, disk_error: None, marked_regions: None, ..side(Color::Gray) }
}

/// 2004/03/04 17:30:05 in Japan.
const BROKE: i64 = 1_078_389_005;

fn shown(r: &MirrorReport) -> String {
    state(r, &TimeZone::fixed(offset(9)))
}

#[test]
fn normal() {
    let r = report(Phase::Normal, [side(Color::Green), side(Color::Green)]);
    let want = "\
Mirror Status: Normal

md1             server1         server2
------------------------------------------------------------
Mirror Color    GREEN           GREEN
";
    assert_eq!(shown(&r), want);
}

#[test]
fn recovery_needed() {
    let latest = SideStatus {
        last_update: Some(BROKE),
        break_time: Some(BROKE),
        difference_percent: Some(1),
        ..side(Color::Green)
    };
    let mut r = report(Phase::Abnormal, [latest, side(Color::Red)]);
    r.status.total_difference_percent = 1;
    let want = "\
Mirror Status: Abnormal
Total Difference: 1%

md1                 server1              server2
------------------------------------------------------------
Mirror Color        GREEN                RED
Lastupdate Time     2004/03/04 17:30:05  --
Break Time          2004/03/04 17:30:05  --
Disk Error          OK                   OK
Difference Percent  1%                   --
";
    assert_eq!(shown(&r), want);
}

#[test]
fn forced_recovery_needed() {
    let of = |update, broke| SideStatus {
        last_update: Some(update),
        break_time: Some(broke),
        difference_percent: Some(1),
        ..side(Color::Red)
    };
    let first = of(1_078_808_830, 1_078_808_781);
    let second = of(1_078_807_294, 1_078_807_294);
    let mut r = report(Phase::Abnormal, [first, second]);
    r.status.total_difference_percent = 1;
    r.status.needs_force = true;
    let want = "\
Mirror Status: Abnormal
Total Difference: 1%

md1                 server1              server2
------------------------------------------------------------
Mirror Color        RED                  RED
Lastupdate Time     2004/03/09 14:07:10  2004/03/09 13:41:34
Break Time          2004/03/09 14:06:21  2004/03/09 13:41:34
Disk Error          OK                   OK
Difference Percent  1%                   1%
";
    assert_eq!(shown(&r), want);
}

fn recovering() -> MirrorReport {
    let mut r = report(Phase::Recovering, [side(Color::Yellow), side(Color::Yellow)]);
    r.status.recovery = Some(RecoveryStatus {
        source: 0,
        target: 1,
        kind: CopyKind::Difference,
        percent: 7,
        used_seconds: 9,
        remain_seconds: Some(119),
        copied_bytes: 7,
        total_bytes: 100,
    });
    r
}

#[test]
fn recovery_under_way() {
    let want = "\
Mirror Status: Recovering

md1             server1         server2
------------------------------------------------------------
Mirror Color    YELLOW          YELLOW

Recovery Status Value
------------------------------------------------------------
Status:         Recovering
Direction:      server1 -> server2
Percent:        7%
Used Time:      00:00:09
Remain Time:    00:01:59
";
    assert_eq!(shown(&recovering()), want);
}

#[test]
fn the_direction_and_an_unknown_rest() {
    let mut r = recovering();
    let recovery = r.status.recovery.as_mut().expect("recovering");
    (recovery.source, recovery.target, recovery.remain_seconds) = (1, 0, None);
    let text = shown(&r);
    assert!(text.contains("\nDirection:      server2 -> server1\n"), "{text}");
    assert!(text.ends_with("\nRemain Time:    --\n"), "{text}");
    assert_eq!(clock(Some(100 * 3600 + 61)), "100:01:01");
}

#[test]
fn no_construction() {
    let r = report(Phase::NoConstruction, [side(Color::Red), side(Color::Red)]);
    let want = "\
Mirror Status: No Construction

md1             server1         server2
------------------------------------------------------------
Mirror Color    RED             RED
";
    assert_eq!(shown(&r), want);
}

#[test]
fn peer_unknown() {
    let r = report(Phase::Normal, [side(Color::Green), unknown()]);
    let want = "\
Mirror Status: Normal

md1             server1         server2
------------------------------------------------------------
Mirror Color    GREEN           GRAY
";
    assert_eq!(shown(&r), want);
    let mut broken = report(Phase::Abnormal, [unknown(), side(Color::Green)]);
    broken.status.total_difference_percent = 3;
    broken.status.sides[1].break_time = Some(BROKE);
    let want = "\
Mirror Status: Abnormal
Total Difference: 3%

md1                 server1              server2
------------------------------------------------------------
Mirror Color        GRAY                 GREEN
Lastupdate Time     --                   --
Break Time          --                   2004/03/04 17:30:05
Disk Error          --                   OK
Difference Percent  --                   --
";
    assert_eq!(shown(&broken), want);
}

#[test]
fn both_active() {
    let on = || SideStatus { active: Some(true), difference_percent: Some(2), ..side(Color::Red) };
    let mut r = report(Phase::Abnormal, [on(), on()]);
    r.status.both_active = true;
    r.status.total_difference_percent = 4;
    let want = "\
Mirror Status: Abnormal
Total Difference: 4%

md1                 server1              server2
------------------------------------------------------------
Mirror Color        RED                  RED
Lastupdate Time     --                   --
Break Time          --                   --
Disk Error          OK                   OK
Difference Percent  2%                   2%
Active Status       Active               Active
";
    assert_eq!(shown(&r), want);
}

#[test]
fn disk_error_shows_whatever_the_phase() {
    let bad = SideStatus { disk_error: Some(true), ..side(Color::Red) };
    let r = report(Phase::Normal, [side(Color::Green), bad]);
    let want = "\
Mirror Status: Normal

md1                 server1              server2
------------------------------------------------------------
Mirror Color        GREEN                RED
Lastupdate Time     --                   --
Break Time          --                   --
Disk Error          OK                   ERROR
Difference Percent  --                   --
";
    assert_eq!(shown(&r), want);
}

#[test]
fn which_side_is_active() {
    let mut r = report(Phase::Normal, [side(Color::Green), unknown()]);
    r.status.sides[0].active = Some(true);
    let want = "\
Mirror Status: Normal

md1             server1         server2
------------------------------------------------------------
Active Status   Active          --
";
    assert_eq!(active(&r), want);
}

#[test]
fn long_names_never_run_together() {
    let mut r = report(Phase::Normal, [side(Color::Green), side(Color::Green)]);
    r.name = "a-mirror-with-a-long-name".to_owned();
    r.servers = ["a-server-with-a-long-name".to_owned(), "b".to_owned()];
    let text = shown(&r);
    let widths: Vec<_> =
        text.lines().skip(2).step_by(2).map(|l| l.split_whitespace().count()).collect();
    assert_eq!(widths, [3, 4], "{text}");
    let at = |line: &str, word: &str| line.rfind(word);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(at(lines[2], "b"), at(lines[4], "GREEN"), "columns line up: {text}");
}

/// The configuration of the two servers of the fixture, with two mirror connects.
fn config() -> Config {
    let text = "[[server]]\nname = \"server1\"\nmirror_connect = [\"10.0.0.1\", \"10.1.0.1\"]\n\
         [[server]]\nname = \"server2\"\nmirror_connect = [\"10.0.0.2\", \"10.1.0.2\"]\n\
         [[mirror]]\nname = \"md1\"\nmount_point = \"/mnt/nmp1\"\n\
         data_partition = \"/dev/sdb2\"\ncluster_partition = \"/dev/sdb1\"\n";
    Config::parse(std::path::Path::new("x.toml"), text, Some("server1"), "").expect("good")
}

fn second_in_use() -> Figures {
    let mut figures = Figures::default();
    let [local, remote] = ["10.1.0.1", "10.1.0.2"].map(str::to_owned);
    figures.connected = Some(Connected { local, remote });
    figures.round_trip.add(1900);
    figures.round_trip.add(412);
    figures
}

#[test]
fn the_mirror_connect_in_use() {
    let mut r = report(Phase::Normal, [side(Color::Green), side(Color::Green)]);
    r.status.link = LinkStatus::Session;
    let want = "\
Mirror Connect Status: Connected

md1                 server1              server2
------------------------------------------------------------
Mirror Connect 1    10.0.0.1             10.0.0.2
Mirror Connect 2    10.1.0.1             10.1.0.2  (in use)
Port                29051                29051

Round Trip:         0.412 ms
Longest:            1.900 ms
";
    assert_eq!(connect(&r, &config(), &second_in_use()), want);
    r.status.link = LinkStatus::Down;
    let cut = connect(&r, &config(), &Figures::default());
    assert!(cut.starts_with("Mirror Connect Status: Not Connected\n"), "{cut}");
    assert!(!cut.contains("in use") && cut.contains("Round Trip:         --\n"), "{cut}");
}

#[test]
fn everything_at_once() {
    let mut r = report(Phase::Normal, [side(Color::Green), side(Color::Green)]);
    r.status.link = LinkStatus::Session;
    let text = detail(&r, &config(), &second_in_use(), &TimeZone::UTC);
    for line in [
        "Mirror Status: Normal",
        "Mirror Color        GREEN                GREEN",
        "Data Partition      /dev/sdb2            /dev/sdb2",
        "Mirror Connect 2    10.1.0.1             10.1.0.2  (in use)",
        "Device:             /dev/NMP1",
        "File System:        ext4",
        "Heartbeat:          every 1000 ms, lost after 5000 ms",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert_eq!(text.matches("Active Status").count(), 1);
    assert_eq!(text.matches("Mirror Color").count(), 1);
}
