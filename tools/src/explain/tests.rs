//! The sentences for the states that an operator meets.

use super::{size, story};
use crate::fixture::{report, side};
use jiff::tz::TimeZone;
use mirror_agent::ctl::{MirrorReport, Past, Story};
use mirror_core::status::{
    Color, CopyKind, LinkStatus, Marked, Phase, Range, RecoveryStatus, SideStatus,
};

fn told(report: MirrorReport) -> String {
    with(report, [None, None])
}

fn with(report: MirrorReport, marked: [Option<Marked>; 2]) -> String {
    story(&Story { report, past: Vec::new(), marked }, &TimeZone::UTC)
}

fn next(text: &str) -> &str {
    text.rsplit("Next: ").next().unwrap_or_default().trim_end()
}

fn equal() -> MirrorReport {
    report(Phase::Normal, [side(Color::Green), side(Color::Green)])
}

/// server1 went on alone at the start of 2026.
fn alone() -> MirrorReport {
    let first =
        SideStatus { active: Some(true), break_time: Some(1_767_225_600), ..side(Color::Green) };
    let mut r = report(Phase::Abnormal, [first, side(Color::Red)]);
    r.status.link = LinkStatus::Down;
    r
}

fn apart() -> MirrorReport {
    let red = || SideStatus { last_update: Some(1_767_225_700), ..side(Color::Red) };
    let mut r = report(Phase::Abnormal, [red(), red()]);
    r.status.link = LinkStatus::Parked;
    r.status.verdict = Some("split-brain".to_owned());
    r.status.needs_force = true;
    r
}

#[test]
fn a_healthy_pair_risks_nothing_and_needs_nothing() {
    let mut r = equal();
    r.status.sides[0].active = Some(true);
    let text = told(r);
    assert!(text.contains("every write goes to both. It is active on server1."), "{text}");
    assert!(text.contains("At risk now: nothing."), "{text}");
    assert_eq!(next(&text), "nothing");
    assert_eq!(next(&told(equal())), "nothing; to use it here: clpmdctrl --active md1");
}

#[test]
fn a_side_alone_says_since_when_and_how_much_only_it_has() {
    let marked = Marked { bytes: 200 << 20, ranges: Vec::new(), more: 0 };
    let text = with(alone(), [Some(marked), None]);
    assert!(text.contains("only server1 holds the latest data; server2 is out of date"), "{text}");
    let lost = "what was written on server1 since 2026/01/01 00:00:00 (at most 200 MiB) is on that server only";
    assert!(text.contains(lost), "{text}");
    assert!(next(&text).starts_with("start the agent on server2"), "{text}");
}

#[test]
fn what_each_side_wrote_is_told_before_anyone_chooses() {
    let ranges = (0..20).map(|n| Range { offset: n << 20, len: 65536 }).collect();
    let marked = Marked { bytes: 20 << 16, ranges, more: 5 };
    let text = with(apart(), [Some(marked), None]);
    for part in [
        "split brain",
        "Written since they parted:",
        "server1, from -- to 2026/01/01 00:01:40 by its own clock: at most 1280 KiB",
        "         1048576 ..          1114112  64 KiB",
        "and 13 more ranges",
        "server2, from -- to 2026/01/01 00:01:40 by its own clock: it could not be asked",
        "The rule: each server went on without the other",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(next(&text).ends_with("clpmdctrl --force <server> md1"), "{text}");
    assert!(!with(alone(), [None, None]).contains("Written since"));
}

#[test]
fn an_active_side_is_closed_before_a_force() {
    let mut r = apart();
    r.status.sides[1].active = Some(true);
    assert!(next(&told(r.clone())).ends_with("on server2 first: clpmdctrl --deactive md1"));
    r.status.sides[0].active = Some(true);
    assert!(
        next(&told(r))
            .contains("given up, once its applications are stopped: clpmdctrl --deactive")
    );
}

/// A copy that has just begun.
fn copying(source: usize, target: usize, kind: CopyKind, total_bytes: u64) -> MirrorReport {
    let mut r = equal();
    r.status.phase = Phase::Recovering;
    r.status.recovery = Some(RecoveryStatus {
        source,
        target,
        kind,
        percent: 7,
        used_seconds: 3,
        remain_seconds: None,
        copied_bytes: 7,
        total_bytes,
    });
    r
}

#[test]
fn the_next_step_fits_the_state() {
    let mut separated = alone();
    separated.status.link = LinkStatus::Parked;
    separated.status.separated = true;
    assert!(next(&told(separated)).ends_with("clpmdctrl --recovery md1"));
    let mut cancelled = alone();
    cancelled.status.link = LinkStatus::Session;
    assert_eq!(next(&told(cancelled)), "clpmdctrl --recovery md1");
    let mut failed = alone();
    failed.status.sides[1].disk_error = Some(true);
    assert!(next(&told(failed)).starts_with("replace the disk of server2"));
    let copying = copying(1, 0, CopyKind::Full, 100 << 30);
    let text = told(copying);
    assert!(text.contains("copied from server2 to server1 (7 % of 100 GiB)"), "{text}");
    assert!(text.contains("only server2 is complete until the copy has ended"), "{text}");
    assert_eq!(next(&text), "wait for it: clpmdctrl --rwait md1");
    let mut new = equal();
    new.status.phase = Phase::NoConstruction;
    assert!(next(&told(new)).starts_with("start the agent on both servers"));
}

/// server1 goes on with the disk of server2.
fn detached() -> MirrorReport {
    let first = SideStatus { active: Some(true), disk_error: Some(true), ..side(Color::Red) };
    report(Phase::Abnormal, [first, side(Color::Green)])
}

#[test]
fn a_server_without_its_disk_risks_its_work_and_is_left_soon() {
    for local in [0, 1] {
        let mut r = detached();
        r.status.local = local;
        let text = told(r);
        for part in [
            "the disk of server1 has failed, and server1 goes on with the disk of server2",
            "server2 has the only copy. It is active on server1.",
            "At risk now: the work on server1. If server2 or the mirror connect failed now, everything on server1 would get errors and stop; nothing that was acknowledged would be lost",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert_eq!(
            next(&text),
            "on server1: clpmdctrl --deactive md1, on server2: clpmdctrl --active md1; then replace the disk of server1, then on it, with the agent stopped: clpmdchng --execute <disk device>"
        );
    }
    // When contact is lost, too, server1 has nothing, and cannot tell of server2.
    let mut r = detached();
    r.status.link = LinkStatus::Down;
    r.status.sides[1].color = Color::Gray;
    let text = told(r);
    assert!(text.contains("the disk of server1 has failed, and it serves nothing"), "{text}");
    assert!(!text.contains("goes on with the disk"), "{text}");
    assert!(next(&text).starts_with("on server1: clpmdctrl --deactive md1, on server2"), "{text}");
}

fn grown(report: MirrorReport, kinds: &[&str]) -> String {
    let past = kinds.iter().map(|kind| Past {
        kind: (*kind).to_owned(),
        at: 0,
        what: (*kind).to_owned(),
        rule: None,
        times: 1,
    });
    story(&Story { report, past: past.collect(), marked: [None, None] }, &TimeZone::UTC)
}

#[test]
fn a_mirror_that_grows_is_told_from_one_that_is_recovered() {
    let copying = copying(0, 1, CopyKind::Difference, 1 << 30);
    for last in ["grown", "grows-later"] {
        let text = grown(copying.clone(), &["recovery-finished", last, "recovery-started"]);
        assert!(
            text.contains("has grown, and what was added is being copied from server1"),
            "{text}"
        );
        assert!(
            text.contains("server2 cannot take over before. All the rest is on both"),
            "{text}"
        );
        assert!(next(&text).starts_with("wait for it: clpmdctrl --rwait md1; then make"), "{text}");
    }
    let text = grown(copying, &["grown", "recovery-finished", "recovery-started"]);
    assert!(text.contains("what differs is being copied"), "{text}");
    let text = grown(alone(), &["grows-later"]);
    assert!(
        text.contains("server1 has recorded the new size (1024 MiB), server2 takes it"),
        "{text}"
    );
    let mut small = apart();
    small.status.verdict = Some("size-mismatch".to_owned());
    assert!(next(&told(small)).starts_with("make the data partition that is too small"));
}

#[test]
fn the_past_names_times_and_rules() {
    let step = |what: &str, rule: Option<&str>, times| Past {
        kind: "note".to_owned(),
        at: 1_767_225_600,
        what: what.to_owned(),
        rule: rule.map(str::to_owned),
        times,
    };
    let past = vec![step("contact was lost", None, 3), step("contact", Some("in-sync"), 1)];
    let text = story(&Story { report: equal(), past, marked: [None, None] }, &TimeZone::UTC);
    assert!(text.contains("  2026/01/01 00:00:00  contact was lost (3 times)\n"), "{text}");
    assert!(text.contains("  2026/01/01 00:00:00  contact [in-sync]\n"), "{text}");
}

#[test]
fn sizes_are_rounded_up() {
    for (bytes, want) in [
        (0, "0 bytes"),
        (65536, "64 KiB"),
        ((10 << 20) - 1, "10240 KiB"),
        (10 << 20, "10 MiB"),
        ((10 << 30) + 1, "11 GiB"),
    ] {
        assert_eq!(size(bytes), want);
    }
}
