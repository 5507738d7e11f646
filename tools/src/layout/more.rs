//! `clpmdstat --connect` and `--detail`: the connection, and everything at once.

use super::{NONE, Row, heading, long_rows, row_of, table};
use jiff::tz::TimeZone;
use mirror_agent::config::{Config, MirrorConfig};
use mirror_agent::ctl::MirrorReport;
use mirror_agent::figures::Figures;
use mirror_core::status::{LinkStatus, SideStatus};
use std::fmt::Write as _;

/// The mirror connects of a mirror, which of them is in use, and how long the way is
/// (`clpmdstat --connect`).
#[must_use]
pub fn connect(report: &MirrorReport, config: &Config, figures: &Figures) -> String {
    let mut rows = connects(report, config, figures);
    if let Some(mirror) = config.mirror(&report.name) {
        let port = || mirror.port.to_string();
        rows.push(Row { label: "Port".to_owned(), values: [port(), port()] });
    }
    let mut out = format!(
        "Mirror Connect Status: {}\n\n{}\n",
        link(report.status.link),
        table(report, &rows)
    );
    let beat = &figures.round_trip;
    let times = match (&figures.connected, beat.count) {
        (Some(_), 1..) => [millis(beat.last_us), millis(beat.max_us)],
        _ => [NONE.to_owned(), NONE.to_owned()],
    };
    out.push_str(&list(&[("Round Trip:", times[0].clone()), ("Longest:", times[1].clone())]));
    out
}

/// Everything about a mirror (`clpmdstat --detail`). Times are shown in `zone`.
#[must_use]
pub fn detail(
    report: &MirrorReport,
    config: &Config,
    figures: &Figures,
    zone: &TimeZone,
) -> String {
    let s = &report.status;
    let mut rows = long_rows(report, zone);
    rows.retain(|r| r.label != "Active Status");
    rows.push(row_of("Active Status", report, |s| active(s).to_owned()));
    rows.push(row_of("Generation", report, |s| {
        s.generation.clone().unwrap_or_else(|| NONE.to_owned())
    }));
    let mirror = config.mirror(&report.name);
    if let Some(mirror) = mirror {
        let [a, b] = &mirror.partitions;
        let shown = |path: &std::path::Path| path.display().to_string();
        let row = |label: &str, values| Row { label: label.to_owned(), values };
        rows.push(row("Data Partition", [shown(&a.data), shown(&b.data)]));
        rows.push(row("Cluster Partition", [shown(&a.cluster), shown(&b.cluster)]));
    }
    rows.extend(connects(report, config, figures));
    let mut out = heading(s.phase);
    let _ = writeln!(out, "Total Difference: {}%\n", s.total_difference_percent);
    out.push_str(&table(report, &rows));
    out.push('\n');
    let mut lines = vec![
        ("Device:", report.device.clone()),
        ("Size:", format!("{} bytes, blocks of {}", s.size, s.block)),
        ("Connection:", format!("{}, session {}", link(s.link), s.session)),
        ("Rule:", s.verdict.clone().unwrap_or_else(|| NONE.to_owned())),
    ];
    lines.extend(mirror.map(|m| settings(m, report)).into_iter().flatten());
    out.push_str(&list(&lines));
    out
}

fn settings(mirror: &MirrorConfig, report: &MirrorReport) -> Vec<(&'static str, String)> {
    let mounted = match report.mounted {
        Some(true) => "mounted here",
        Some(false) => "not mounted here",
        None => "not known whether it is mounted",
    };
    let place = report.mount_point.as_ref().map_or(NONE.to_owned(), |p| format!("{p}, {mounted}"));
    let timing = &mirror.timing;
    vec![
        ("File System:", mirror.fs.word().to_owned()),
        ("Mount Point:", place),
        ("Port:", mirror.port.to_string()),
        (
            "Heartbeat:",
            format!(
                "every {} ms, lost after {} ms",
                timing.heartbeat.as_millis(),
                timing.peer.as_millis()
            ),
        ),
    ]
}

fn connects(report: &MirrorReport, config: &Config, figures: &Figures) -> Vec<Row> {
    let [a, b] = &config.servers;
    let local = report.status.local.min(1);
    let pairs = a.mirror_connect.iter().zip(&b.mirror_connect).enumerate();
    pairs
        .map(|(n, (a, b))| {
            let values = [a.to_string(), b.to_string()];
            let used = figures
                .connected
                .as_ref()
                .is_some_and(|c| values[local] == c.local && values[1 - local] == c.remote);
            let label = format!("Mirror Connect {}", n + 1);
            let [first, second] = values;
            let second = if used { format!("{second}  (in use)") } else { second };
            Row { label, values: [first, second] }
        })
        .collect()
}

const fn link(link: LinkStatus) -> &'static str {
    match link {
        LinkStatus::Down => "Not Connected",
        LinkStatus::Negotiating => "Connecting",
        LinkStatus::Parked => "Connected, but not mirroring",
        LinkStatus::Session => "Connected",
    }
}

const fn active(side: &SideStatus) -> &'static str {
    match side.active {
        Some(true) => "Active",
        Some(false) => "Inactive",
        None => NONE,
    }
}

fn millis(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}

fn list(lines: &[(&str, String)]) -> String {
    lines.iter().map(|(label, value)| format!("{label:20}{value}\n")).collect()
}
