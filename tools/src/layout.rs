//! The layouts of `clpmdstat` (§11.10.2, §11.10.3).
//!
//! The label column is 16 wide in the short table and 20 in the long one; a server's column 16
//! and 21. Longer names push the columns apart and never run into each other.

mod more;

pub use more::{connect, detail};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mirror_agent::ctl::MirrorReport;
use mirror_core::status::{Color, Phase, RecoveryStatus, SideStatus};
use std::fmt::Write as _;

/// The line under a heading.
const RULE: &str = "------------------------------------------------------------";
/// Stands for a value that is not there or not known.
const NONE: &str = "--";

/// The state of one mirror, ending in a newline. Times are shown in `zone`.
#[must_use]
pub fn state(report: &MirrorReport, zone: &TimeZone) -> String {
    let s = &report.status;
    let mut out = heading(s.phase);
    if s.phase == Phase::Abnormal {
        let _ = writeln!(out, "Total Difference: {}%", s.total_difference_percent);
    }
    out.push('\n');
    let rows = if is_long(report) { long_rows(report, zone) } else { vec![colors(report)] };
    out.push_str(&table(report, &rows));
    if let (Phase::Recovering, Some(recovery)) = (s.phase, &s.recovery) {
        out.push('\n');
        out.push_str(&recovery_table(recovery, &report.servers));
    }
    out
}

/// Which side serves the mirror (`clpmdstat --active`).
#[must_use]
pub fn active(report: &MirrorReport) -> String {
    let word = |side: &SideStatus| match side.active {
        Some(true) => "Active",
        Some(false) => "Inactive",
        None => NONE,
    };
    let row = row_of("Active Status", report, |s| word(s).to_owned());
    format!("{}\n{}", heading(report.status.phase), table(report, &[row]))
}

fn heading(phase: Phase) -> String {
    let word = match phase {
        Phase::Normal => "Normal",
        Phase::Abnormal => "Abnormal",
        Phase::Recovering => "Recovering",
        Phase::NoConstruction => "No Construction",
    };
    format!("Mirror Status: {word}\n")
}

/// The long table also shows a failed disk or two active sides, whatever the phase.
fn is_long(report: &MirrorReport) -> bool {
    let s = &report.status;
    let failed = s.sides.iter().any(|side| side.disk_error == Some(true));
    s.phase == Phase::Abnormal || failed || s.both_active
}

struct Row {
    label: String,
    values: [String; 2],
}

fn row_of(label: &str, r: &MirrorReport, value: impl Fn(&SideStatus) -> String) -> Row {
    Row { label: label.to_owned(), values: [value(&r.status.sides[0]), value(&r.status.sides[1])] }
}

fn colors(report: &MirrorReport) -> Row {
    row_of("Mirror Color", report, |s| color(s.color).to_owned())
}

const fn color(color: Color) -> &'static str {
    match color {
        Color::Green => "GREEN",
        Color::Red => "RED",
        Color::Yellow => "YELLOW",
        Color::Gray => "GRAY",
    }
}

fn long_rows(report: &MirrorReport, zone: &TimeZone) -> Vec<Row> {
    let row = |label: &str, value: &dyn Fn(&SideStatus) -> String| row_of(label, report, value);
    let mut rows = vec![
        colors(report),
        row("Lastupdate Time", &|s| time(s.last_update, zone)),
        row("Break Time", &|s| time(s.break_time, zone)),
        row("Disk Error", &|s| disk(s.disk_error).to_owned()),
        row("Difference Percent", &|s| percent(s.difference_percent)),
    ];
    if report.status.both_active {
        let both = || "Active".to_owned();
        rows.push(Row { label: "Active Status".to_owned(), values: [both(), both()] });
    }
    rows
}

pub(crate) fn time(seconds: Option<i64>, zone: &TimeZone) -> String {
    seconds.and_then(|s| Timestamp::from_second(s).ok()).map_or(NONE.to_owned(), |t| {
        t.to_zoned(zone.clone()).strftime("%Y/%m/%d %H:%M:%S").to_string()
    })
}

const fn disk(error: Option<bool>) -> &'static str {
    match error {
        Some(false) => "OK",
        Some(true) => "ERROR",
        None => NONE,
    }
}

fn percent(value: Option<u8>) -> String {
    value.map_or(NONE.to_owned(), |n| format!("{n}%"))
}

fn table(report: &MirrorReport, rows: &[Row]) -> String {
    let (label, column) = if rows.len() > 1 { (20, 21) } else { (16, 16) };
    let label = label.max(report.name.len() + 2);
    let longest = rows.iter().map(|r| r.values[0].len()).max().unwrap_or(0);
    let column = column.max(report.servers[0].len().max(longest) + 2);
    let [first, second] = &report.servers;
    let mut out = line(label, column, &report.name, first, second);
    let _ = writeln!(out, "{RULE}");
    for r in rows {
        out.push_str(&line(label, column, &r.label, &r.values[0], &r.values[1]));
    }
    out
}

fn line(label: usize, column: usize, a: &str, b: &str, c: &str) -> String {
    let text = format!("{a:label$}{b:column$}{c}");
    format!("{}\n", text.trim_end())
}

fn recovery_table(r: &RecoveryStatus, servers: &[String; 2]) -> String {
    let name = |index: usize| servers.get(index).map_or(NONE, String::as_str);
    let direction = format!("{} -> {}", name(r.source), name(r.target));
    let rows = [
        ("Recovery Status", "Value".to_owned()),
        ("", RULE.to_owned()),
        ("Status:", "Recovering".to_owned()),
        ("Direction:", direction),
        ("Percent:", format!("{}%", r.percent)),
        ("Used Time:", clock(Some(r.used_seconds))),
        ("Remain Time:", clock(r.remain_seconds)),
    ];
    rows.iter()
        .map(|(label, value)| match label {
            &"" => format!("{value}\n"),
            label => format!("{label:16}{value}\n"),
        })
        .collect()
}

/// `hh:mm:ss`; more than 99 hours widen the first field.
#[must_use]
pub fn clock(seconds: Option<u64>) -> String {
    seconds.map_or(NONE.to_owned(), |s| format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60))
}

#[cfg(test)]
mod tests;
