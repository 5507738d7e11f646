//! `clpmdstat --perf`: the figures of a mirror, since its agent began and in an interval.

use crate::cli::{ask, unexpected};
use crate::layout::clock;
use crate::out::Failure;
use mirror_agent::ctl::{Client, Request, Response};
use mirror_agent::figures::{Figures, Histogram, Taken, counters, gauges, timings};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

/// Shows the figures of each named mirror: since its agent began, and of the last interval that is
/// over. With `interval` it goes on until interrupted, and shows what came in each.
///
/// # Errors
/// The agent refused or went away.
pub fn run(
    client: &mut Client,
    names: &[String],
    as_json: bool,
    interval: Option<u64>,
) -> Result<(), Failure> {
    let Some(seconds) = interval else {
        let mut all = Vec::new();
        for name in names {
            all.push((taken(client, name, false)?, taken(client, name, true)?));
        }
        return show(&all, as_json);
    };
    let mut before = each(client, names)?;
    loop {
        std::thread::sleep(Duration::from_secs(seconds));
        let now = each(client, names)?;
        let pairs: Vec<_> =
            now.iter().zip(&before).map(|(n, b)| (n.clone(), between(b, n))).collect();
        show(&pairs, as_json)?;
        before = now;
    }
}

fn each(client: &mut Client, names: &[String]) -> Result<Vec<Taken>, Failure> {
    names.iter().map(|name| taken(client, name, false)).collect()
}

fn taken(client: &mut Client, name: &str, last: bool) -> Result<Taken, Failure> {
    match ask(client, Request::Figures { mirror: name.to_owned(), last })? {
        Response::Figures(taken) => Ok(*taken),
        _ => Err(unexpected()),
    }
}

/// What came between two looks. The peaks of the agent's own interval say nothing of this one.
fn between(before: &Taken, now: &Taken) -> Taken {
    let figures = Box::new(now.figures.since(&before.figures));
    Taken { figures, millis: now.millis.saturating_sub(before.millis), ..now.clone() }
}

fn show(all: &[(Taken, Taken)], as_json: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for (total, new) in all {
        let text = if as_json { format!("{}\n", json_of(total, new)) } else { text_of(total, new) };
        out.write_all(text.as_bytes())?;
    }
    Ok(out.flush()?)
}

/// One line of JSON for a mirror.
#[must_use]
pub fn json_of(total: &Taken, new: &Taken) -> Value {
    json!({
        "mirror": total.mirror,
        "device": total.device,
        "server": total.server,
        "at": total.at,
        "connected": total.figures.connected,
        "since_start": values(total),
        "interval": values(new),
    })
}

fn values(taken: &Taken) -> Value {
    let f = &taken.figures;
    let mut map = Map::new();
    map.insert("milliseconds".to_owned(), taken.millis.into());
    for timing in timings(f) {
        let h = timing.time;
        let mut value = json!({
            "count": h.count,
            "total_us": h.sum_us,
            "mean_us": h.mean_us(),
            "p50_us": h.percentile_us(50),
            "p99_us": h.percentile_us(99),
            "max_us": h.max_us,
            "last_us": h.last_us,
        });
        if let Some((bytes, errors)) = timing.traffic {
            value["bytes"] = bytes.into();
            value["errors"] = errors.into();
        }
        map.insert(timing.key.to_owned(), value);
    }
    for (key, _, level) in gauges(f) {
        map.insert(key.to_owned(), json!({ "now": level.now, "max": level.max }));
    }
    for (key, _, value) in counters(f) {
        map.insert(key.to_owned(), value.into());
    }
    map.into()
}

/// The tables for people.
#[must_use]
pub fn text_of(total: &Taken, new: &Taken) -> String {
    let mut out = format!("Figures of {} ({}) on {}\n\n", total.mirror, total.device, total.server);
    let head = |out: &mut String, what: &str| {
        let _ = writeln!(
            out,
            "{what:26}{:>10}{:>11}{:>11}{:>11}{:>11}{:>11}",
            "count", "bytes", "mean ms", "50% ms", "99% ms", "max ms"
        );
    };
    head(&mut out, &format!("Since start ({})", clock(Some(total.millis / 1000))));
    times(&mut out, &total.figures);
    out.push('\n');
    head(&mut out, &format!("Interval ({}.{} s)", new.millis / 1000, new.millis % 1000 / 100));
    times(&mut out, &new.figures);
    let _ = writeln!(out, "\n{:40}{:>14}{:>16}", "", "now", "most");
    for (_, label, level) in gauges(&total.figures) {
        let _ = writeln!(out, "{label:40}{:>14}{:>16}", level.now, level.max);
    }
    let _ = writeln!(out, "\n{:40}{:>14}{:>16}", "", "interval", "since start");
    let since = counters(&new.figures);
    for ((_, label, all), (_, _, new)) in counters(&total.figures).iter().zip(since) {
        let _ = writeln!(out, "{label:40}{new:>14}{all:>16}");
    }
    let errors: u64 = timings(&total.figures).iter().filter_map(|t| t.traffic).map(|t| t.1).sum();
    let _ = writeln!(out, "{:40}{:>14}{errors:>16}\n", "Operations that failed", "");
    out
}

/// Only what has happened.
fn times(out: &mut String, f: &Figures) {
    let mut none = true;
    for timing in timings(f).iter().filter(|t| t.time.count > 0) {
        none = false;
        let h: &Histogram = timing.time;
        let bytes = timing.traffic.map_or(String::new(), |(bytes, _)| bytes.to_string());
        let _ = writeln!(
            out,
            "  {:24}{:>10} {bytes:>10} {:>10} {:>10} {:>10} {:>10}",
            timing.label,
            h.count,
            ms(h.mean_us()),
            ms(h.percentile_us(50)),
            ms(h.percentile_us(99)),
            ms(h.max_us),
        );
    }
    if none {
        out.push_str("  nothing\n");
    }
}

/// Microseconds as milliseconds.
fn ms(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use super::{between, json_of, text_of};
    use mirror_agent::figures::{Figures, Taken};

    fn taken(millis: u64, change: impl Fn(&mut Figures)) -> Taken {
        let [mirror, device, server] = ["md1", "/dev/NMP1", "server1"].map(str::to_owned);
        let mut figures = Box::<Figures>::default();
        change(&mut figures);
        Taken { mirror, device, server, at: 7, millis, figures }
    }

    fn one(f: &mut Figures) {
        f.device.write.add(4096, 1500);
        f.request_queue.set(3);
        f.sessions = 1;
    }

    fn two(f: &mut Figures) {
        one(f);
        f.device.write.add(512, 2500);
        f.device.read.errors = 1;
        f.sent_bytes = 5000;
        f.request_queue.set(0);
    }

    #[test]
    fn an_interval_shows_what_came_in_it() {
        let (before, now) = (taken(60_000, one), taken(61_500, two));
        let new = between(&before, &now);
        let json = json_of(&now, &new);
        assert_eq!(json["since_start"]["device_write"]["bytes"], 4608);
        assert_eq!(json["interval"]["device_write"]["count"], 1);
        assert_eq!(json["interval"]["device_write"]["max_us"], 2500);
        assert_eq!(json["interval"]["milliseconds"], 1500);
        assert_eq!(
            (&json["interval"]["sessions"], &json["since_start"]["sessions"]),
            (&0.into(), &1.into())
        );
        assert_eq!(json["since_start"]["request_queue"]["max"], 3);
        assert_eq!(json["since_start"]["device_read"]["errors"], 1);
    }

    #[test]
    fn the_tables_have_what_happened_and_only_that() {
        let (before, now) = (taken(3_600_000, one), taken(3_601_500, two));
        let text = text_of(&now, &between(&before, &now));
        for line in [
            "Figures of md1 (/dev/NMP1) on server1",
            "Since start (01:00:01)         count      bytes    mean ms     50% ms     99% ms     max ms",
            "  Device write                     2       4608      2.000      1.535      2.500      2.500",
            "Interval (1.5 s)               count      bytes    mean ms     50% ms     99% ms     max ms",
            "  Device write                     1        512      2.500      2.500      2.500      2.500",
            "Requests under way                                   0               3",
            "Bytes sent to the other server                    5000            5000",
            "Operations that failed                                               1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("Fsck"), "{text}");
        let quiet = text_of(&now, &between(&now, &now));
        assert!(quiet.contains("  nothing\n"), "{quiet}");
    }
}
