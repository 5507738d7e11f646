//! `clpmdstat --explain`: the state in plain words, how it came about, what is at risk, and the
//! one safe next command.

mod next;
mod rows;

use crate::layout::time;
use jiff::tz::TimeZone;
use mirror_agent::ctl::{MirrorReport, Past, Story};
use mirror_core::status::{Color, LinkStatus, Marked, Phase};

/// Ranges of each server that are shown; `--json` has more.
const RANGES_SHOWN: usize = 12;

/// The whole text, ending in a newline. Times are shown in `zone`.
#[must_use]
pub fn story(story: &Story, zone: &TimeZone) -> String {
    let report = &story.report;
    let mut parts = vec![format!("{}: {}", report.name, state(story))];
    parts.push(past(&story.past, zone));
    parts.push(format!("At risk now: {}", risk(story, zone)));
    if has_parted(report) {
        parts.push(written(story, zone));
    }
    parts.push(format!("Next: {}", next::step(report, growth(&story.past))));
    let mut text = parts.join("\n\n");
    text.push('\n');
    text
}

fn local(report: &MirrorReport) -> usize {
    report.status.local.min(1)
}

fn is_active(report: &MirrorReport, side: usize) -> bool {
    report.status.sides[side].active == Some(true)
}

/// Both have, or may have, what the other lacks.
fn has_parted(report: &MirrorReport) -> bool {
    let s = &report.status;
    let apart = matches!(s.verdict.as_deref(), Some("split-brain" | "both-active"));
    s.both_active || (s.needs_force && apart)
}

/// The server that goes on with the disk of the other, its own having failed. A disk error ends a
/// session in every other case.
fn detached(report: &MirrorReport) -> Option<usize> {
    let s = &report.status;
    let failed = |n: usize| s.sides[n].disk_error == Some(true);
    let serves = |n: usize| is_active(report, n) && s.sides[1 - n].color == Color::Green;
    (0..2).find(|&n| s.link == LinkStatus::Session && failed(n) && !failed(1 - n) && serves(n))
}

/// The server whose disk has failed.
fn failed(report: &MirrorReport) -> Option<usize> {
    (0..2).find(|&n| report.status.sides[n].disk_error == Some(true))
}

/// What is left to do of a growth (`clpmdctrl --resize`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Growth {
    /// What was added is to be copied.
    Copy,
    /// The other server has still to hear of it.
    Tell,
}

fn growth(past: &[Past]) -> Option<Growth> {
    past.iter().rev().find_map(|step| match step.kind.as_str() {
        "recovery-finished" => Some(None),
        "grown" => Some(Some(Growth::Copy)),
        "grows-later" => Some(Some(Growth::Tell)),
        _ => None,
    })?
}

fn state(story: &Story) -> String {
    let report = &story.report;
    let s = &report.status;
    let [first, second] = &report.servers;
    let me = &report.servers[local(report)];
    let peer = &report.servers[1 - local(report)];
    let mut text = match s.phase {
        Phase::NoConstruction => "the mirror has not been constructed yet.".to_owned(),
        _ if has_parted(report) => format!(
            "{first} and {second} have both written since they parted (split brain); neither is touched until you choose."
        ),
        _ if detached(report).is_some() => without_a_disk(report),
        Phase::Recovering => recovering(story),
        Phase::Normal if s.link == LinkStatus::Session => {
            "both servers hold the same data, and every write goes to both.".to_owned()
        }
        Phase::Normal => format!(
            "as far as {me} knows, both servers hold the same data, but they do not mirror now."
        ),
        Phase::Abnormal => abnormal(report),
    };
    text += &match (is_active(report, 0), is_active(report, 1)) {
        (true, true) => " It is active on both.".to_owned(),
        (true, false) => format!(" It is active on {first}."),
        (false, true) => format!(" It is active on {second}."),
        (false, false) => " It is active nowhere.".to_owned(),
    };
    text += match s.link {
        LinkStatus::Session => "",
        LinkStatus::Down => " The mirror connect is down.",
        LinkStatus::Negotiating => " The servers are just agreeing.",
        LinkStatus::Parked => " The servers are in contact, but do not mirror.",
    };
    if s.phase != Phase::Recovering && growth(&story.past) == Some(Growth::Tell) {
        text += &format!(
            " It is growing: {me} has recorded the new size ({}), {peer} takes it when they are in contact.",
            size(s.size)
        );
    }
    if s.separated {
        text += " An operator keeps them apart (clpmdctrl --break).";
    }
    if report.peer_by_agent {
        text += &format!(" What is said of {peer} came over the agents' link.");
    }
    match s.verdict.as_deref().and_then(rows::meaning) {
        Some(meaning) if s.phase != Phase::Normal => format!("{text}\nThe rule: {meaning}"),
        _ => text,
    }
}

/// Where the mirror is served from while `disk_error = "detach"` has an effect.
fn without_a_disk(report: &MirrorReport) -> String {
    let n = detached(report).unwrap_or_default();
    let (bad, good) = (&report.servers[n], &report.servers[1 - n]);
    format!(
        "the disk of {bad} has failed, and {bad} goes on with the disk of {good} (disk_error = \"detach\"). Nothing is mirrored: {good} has the only copy."
    )
}

fn recovering(story: &Story) -> String {
    let report = &story.report;
    let Some(r) = &report.status.recovery else {
        return "a recovery is about to begin.".to_owned();
    };
    let what = match growth(&story.past) {
        Some(_) => "the mirror has grown, and what was added",
        None => "what differs",
    };
    let name = |index: usize| report.servers[index.min(1)].as_str();
    format!(
        "{what} is being copied from {} to {} ({} % of {}).",
        name(r.source),
        name(r.target),
        r.percent,
        size(r.total_bytes)
    )
}

fn abnormal(report: &MirrorReport) -> String {
    let green: Vec<_> = (0..2).filter(|&n| report.status.sides[n].color == Color::Green).collect();
    match green.as_slice() {
        [one] => format!(
            "only {} holds the latest data; {} is out of date.",
            report.servers[*one],
            report.servers[1 - one]
        ),
        [] if failed(report).is_some() => {
            let n = failed(report).unwrap_or_default();
            format!(
                "the disk of {} has failed, and it serves nothing; what {} has is not known here.",
                report.servers[n],
                report.servers[1 - n]
            )
        }
        _ => "nobody can tell by itself which server holds the latest data.".to_owned(),
    }
}

fn past(steps: &[Past], zone: &TimeZone) -> String {
    if steps.is_empty() {
        return "How it came about: nothing has happened since the agent started.".to_owned();
    }
    let lines = steps.iter().map(|step| {
        let rule = step.rule.as_ref().map(|r| format!(" [{r}]")).unwrap_or_default();
        let times = if step.times > 1 { format!(" ({} times)", step.times) } else { String::new() };
        format!("  {}  {}{rule}{times}", time(Some(step.at), zone), step.what)
    });
    let lines: Vec<_> = lines.collect();
    format!("How it came about, as this server saw it:\n{}", lines.join("\n"))
}

/// What would be gone if a server failed now.
fn risk(story: &Story, zone: &TimeZone) -> String {
    let report = &story.report;
    let s = &report.status;
    let green: Vec<_> = (0..2).filter(|&n| s.sides[n].color == Color::Green).collect();
    if has_parted(report) {
        return "each server alone has what it wrote since they parted; whichever is lost or not chosen takes that with it.".to_owned();
    }
    if let Some(n) = detached(report) {
        let (bad, good) = (&report.servers[n], &report.servers[1 - n]);
        return format!(
            "the work on {bad}. If {good} or the mirror connect failed now, everything on {bad} would get errors and stop; nothing that was acknowledged would be lost, it is on the disk of {good}. If that disk failed, all would be lost."
        );
    }
    match (s.phase, s.recovery.as_ref()) {
        (Phase::Normal, _) if s.link == LinkStatus::Session => {
            "nothing. Either server may fail, and what was acknowledged is on the other.".to_owned()
        }
        (Phase::Normal, _) => {
            "nothing that this server knows of; but while they do not mirror, the next write is on one server only.".to_owned()
        }
        (Phase::NoConstruction, _) => "nothing: there is no data yet.".to_owned(),
        (Phase::Recovering, Some(r)) if growth(&story.past).is_some() => format!(
            "what is written to the part that was added is only on {} until the copy has ended, and {} cannot take over before. All the rest is on both.",
            report.servers[r.source.min(1)],
            report.servers[r.target.min(1)]
        ),
        (Phase::Recovering, Some(r)) => format!(
            "only {} is complete until the copy has ended. If it failed now, {} alone could not be used.",
            report.servers[r.source.min(1)],
            report.servers[r.target.min(1)]
        ),
        _ => match green.as_slice() {
            [one] => lone(story, *one, zone),
            [] if failed(report).is_some() => {
                let n = failed(report).unwrap_or_default();
                format!(
                    "what {} has is not known here; nothing is written on {} any more.",
                    report.servers[1 - n],
                    report.servers[n]
                )
            }
            _ => "what the latest data is has to be decided first; until then nothing is copied and nothing is lost.".to_owned(),
        },
    }
}

/// Only side `one` has the latest data.
fn lone(story: &Story, one: usize, zone: &TimeZone) -> String {
    let report = &story.report;
    let since = match report.status.sides[one].break_time {
        Some(at) => format!("since {}", time(Some(at), zone)),
        None => "since they parted".to_owned(),
    };
    let much = match &story.marked[one] {
        Some(marked) => format!(" (at most {})", size(marked.bytes)),
        None => String::new(),
    };
    format!(
        "what was written on {} {since}{much} is on that server only. If it failed now, that would be lost.",
        report.servers[one]
    )
}

/// Before anyone chooses: how much, where and when each side wrote.
fn written(story: &Story, zone: &TimeZone) -> String {
    let sides = [0, 1].map(|n| {
        let side = &story.report.status.sides[n];
        let when = format!(
            "from {} to {} by its own clock",
            time(side.break_time, zone),
            time(side.last_update, zone)
        );
        let server = &story.report.servers[n];
        match &story.marked[n] {
            Some(marked) => {
                format!("  {server}, {when}: at most {}\n{}", size(marked.bytes), ranges(marked))
            }
            None => format!("  {server}, {when}: it could not be asked how much\n"),
        }
    });
    format!("Written since they parted:\n{}", sides.concat().trim_end())
}

fn ranges(marked: &Marked) -> String {
    let mut text: String = marked
        .ranges
        .iter()
        .take(RANGES_SHOWN)
        .map(|r| format!("    {:>16} .. {:>16}  {}\n", r.offset, r.offset + r.len, size(r.len)))
        .collect();
    let hidden = marked.ranges.len().saturating_sub(RANGES_SHOWN) as u64 + marked.more;
    if hidden > 0 {
        text += &format!("    and {hidden} more ranges (--json names more)\n");
    }
    text
}

/// Bytes for people, rounded up.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, shift)| bytes >= 10 << shift);
    match unit {
        Some((name, shift)) => format!("{} {name}", bytes.div_ceil(1 << shift)),
        None if bytes >= 1 << 10 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests;
