//! Figures and states as OpenMetrics 1.0 text.

use super::csv::seconds;
use super::{Figures, Histogram, Taken, counters, gauges, timings};
use mirror_core::status::{Color, LinkStatus, MirrorStatus, Phase};
use std::fmt::Write as _;

/// The content type of [`page`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Buckets end at these powers of two, in microseconds: 16 us to 67 s.
const OCTAVES: [u32; 12] = [4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26];

/// What is known of one mirror.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its name.
    pub mirror: String,
    /// Names of both servers in configuration order.
    pub servers: [String; 2],
    /// Its figures since the agent began; `None` if its driver does not run.
    pub taken: Option<Taken>,
    /// Its state.
    pub status: Option<MirrorStatus>,
}

/// The whole text.
#[must_use]
pub fn page(samples: &[Sample]) -> String {
    let mut out = String::new();
    states(&mut out, samples);
    let figures: Vec<(&str, &Figures)> = samples
        .iter()
        .filter_map(|s| Some((s.mirror.as_str(), &*s.taken.as_ref()?.figures)))
        .collect();
    all_timings(&mut out, &figures);
    all_levels(&mut out, &figures);
    out.push_str("# EOF\n");
    out
}

fn family(out: &mut String, name: &str, kind: &str, unit: &str, help: &str) {
    let _ = writeln!(out, "# TYPE clpmd_{name} {kind}");
    if !unit.is_empty() {
        let _ = writeln!(out, "# UNIT clpmd_{name} {unit}");
    }
    let _ = writeln!(out, "# HELP clpmd_{name} {help}");
}

fn states(out: &mut String, samples: &[Sample]) {
    family(out, "up", "gauge", "", "Whether the driver of the mirror runs here.");
    for s in samples {
        let up = u8::from(s.status.is_some());
        let _ = writeln!(out, "clpmd_up{{mirror=\"{}\"}} {up}", s.mirror);
    }
    let known: Vec<(&Sample, &MirrorStatus)> =
        samples.iter().filter_map(|s| Some((s, s.status.as_ref()?))).collect();
    let phases = [
        (Phase::Normal, "normal"),
        (Phase::Abnormal, "abnormal"),
        (Phase::Recovering, "recovering"),
        (Phase::NoConstruction, "no_construction"),
    ];
    family(out, "phase", "stateset", "", "Mirror status as this server sees it.");
    for (s, status) in &known {
        set(out, "phase", &format!("mirror=\"{}\"", s.mirror), status.phase, &phases);
    }
    let links = [
        (LinkStatus::Down, "down"),
        (LinkStatus::Negotiating, "negotiating"),
        (LinkStatus::Parked, "parked"),
        (LinkStatus::Session, "session"),
    ];
    family(out, "link", "stateset", "", "Mirror connect; session: mirroring.");
    for (s, status) in &known {
        set(out, "link", &format!("mirror=\"{}\"", s.mirror), status.link, &links);
    }
    sides(out, &known);
}

fn sides(out: &mut String, known: &[(&Sample, &MirrorStatus)]) {
    let colors = [
        (Color::Green, "green"),
        (Color::Red, "red"),
        (Color::Yellow, "yellow"),
        (Color::Gray, "gray"),
    ];
    let labels =
        |s: &Sample, n: usize| format!("mirror=\"{}\",server=\"{}\"", s.mirror, s.servers[n]);
    family(out, "color", "stateset", "", "Mirror color of each server.");
    for (s, status) in known {
        for (n, side) in status.sides.iter().enumerate() {
            set(out, "color", &labels(s, n), side.color, &colors);
        }
    }
    family(out, "active", "gauge", "", "Whether a server serves the mirror, where that is known.");
    for (s, status) in known {
        for (n, side) in status.sides.iter().enumerate() {
            if let Some(active) = side.active {
                let _ = writeln!(out, "clpmd_active{{{}}} {}", labels(s, n), u8::from(active));
            }
        }
    }
}

fn set<T: PartialEq + Copy>(out: &mut String, name: &str, labels: &str, is: T, all: &[(T, &str)]) {
    for (state, word) in all {
        let value = u8::from(*state == is);
        let _ = writeln!(out, "clpmd_{name}{{{labels},clpmd_{name}=\"{word}\"}} {value}");
    }
}

/// Samples of one family stand together, so mirrors are the inner loop.
fn all_timings(out: &mut String, all: &[(&str, &Figures)]) {
    let names = Figures::default();
    for (n, timing) in timings(&names).iter().enumerate() {
        let name = format!("{}_seconds", timing.key);
        family(out, &name, "histogram", "seconds", timing.help);
        for (mirror, f) in all {
            histogram(out, &name, mirror, timings(f)[n].time);
        }
        if timing.traffic.is_none() {
            continue;
        }
        for (what, unit) in [("bytes", "bytes"), ("errors", "")] {
            let name = format!("{}_{what}", timing.key);
            let help = if unit.is_empty() { "Those that failed." } else { timing.help };
            family(out, &name, "counter", unit, help);
            for (mirror, f) in all {
                let (bytes, errors) = timings(f)[n].traffic.unwrap_or_default();
                let value = if unit.is_empty() { errors } else { bytes };
                let _ = writeln!(out, "clpmd_{name}_total{{mirror=\"{mirror}\"}} {value}");
            }
        }
    }
}

fn histogram(out: &mut String, name: &str, mirror: &str, h: &Histogram) {
    for octave in OCTAVES {
        let (le, n) = (seconds(1 << octave), h.below(octave));
        let _ = writeln!(out, "clpmd_{name}_bucket{{mirror=\"{mirror}\",le=\"{le}\"}} {n}");
    }
    let n = h.count;
    let _ = writeln!(out, "clpmd_{name}_bucket{{mirror=\"{mirror}\",le=\"+Inf\"}} {n}");
    let _ = writeln!(out, "clpmd_{name}_count{{mirror=\"{mirror}\"}} {n}");
    let _ = writeln!(out, "clpmd_{name}_sum{{mirror=\"{mirror}\"}} {}", seconds(h.sum_us));
}

fn all_levels(out: &mut String, all: &[(&str, &Figures)]) {
    let names = Figures::default();
    for (n, (key, help, _)) in gauges(&names).iter().enumerate() {
        let unit = if key.ends_with("_bytes") { "bytes" } else { "" };
        family(out, key, "gauge", unit, &format!("{help}."));
        for (mirror, f) in all {
            let _ = writeln!(out, "clpmd_{key}{{mirror=\"{mirror}\"}} {}", gauges(f)[n].2.now);
        }
    }
    for (n, (key, help, _)) in counters(&names).iter().enumerate() {
        let millis = key.strip_suffix("_milliseconds");
        let name = millis.map_or_else(|| (*key).to_owned(), |k| format!("{k}_seconds"));
        let unit = ["bytes", "seconds"].into_iter().find(|u| name.ends_with(&format!("_{u}")));
        let help = help.trim_end_matches(", in ms");
        family(out, &name, "counter", unit.unwrap_or_default(), &format!("{help}."));
        for (mirror, f) in all {
            let value = counters(f)[n].2;
            let value = match millis {
                Some(_) => seconds(value.saturating_mul(1000)),
                None => value.to_string(),
            };
            let _ = writeln!(out, "clpmd_{name}_total{{mirror=\"{mirror}\"}} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Sample, page};
    use crate::agent::fake_report;
    use crate::figures::{Figures, Taken};
    use std::collections::BTreeSet;

    fn sample(mirror: &str) -> Sample {
        let mut figures = Box::<Figures>::default();
        figures.device.write.add(4096, 100);
        figures.device.write.add(4096, 70_000_000);
        figures.waits.write_ms = 1234;
        let servers = ["server1".to_owned(), "server2".to_owned()];
        let mirror = mirror.to_owned();
        let (device, server) = ("/dev/NMP1".to_owned(), servers[0].clone());
        let taken = Taken { mirror: mirror.clone(), device, server, at: 0, millis: 1, figures };
        Sample { mirror, servers, taken: Some(taken), status: Some(fake_report().status) }
    }

    #[test]
    fn the_page_has_each_family_once_and_ends_as_it_must() {
        let broken = Sample { taken: None, status: None, ..sample("md2") };
        let text = page(&[sample("md1"), broken, sample("md3")]);
        assert!(text.ends_with("# EOF\n"));
        let mut seen = BTreeSet::new();
        let mut family = String::new();
        for line in text.lines().filter(|l| *l != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().expect("a name").to_owned();
                assert!(seen.insert(family.clone()), "{family} twice");
            }
            let name = line.trim_start_matches("# UNIT ").trim_start_matches("# HELP ");
            assert!(name.trim_start_matches("# TYPE ").starts_with(&family), "{family}: {line}");
        }
        for line in [
            "clpmd_up{mirror=\"md2\"} 0",
            "clpmd_phase{mirror=\"md1\",clpmd_phase=\"normal\"} 1",
            "clpmd_device_write_seconds_bucket{mirror=\"md1\",le=\"0.000256\"} 1",
            "clpmd_device_write_seconds_bucket{mirror=\"md1\",le=\"67.108864\"} 1",
            "clpmd_device_write_seconds_bucket{mirror=\"md1\",le=\"+Inf\"} 2",
            "clpmd_device_write_seconds_sum{mirror=\"md1\"} 70.000100",
            "clpmd_device_write_bytes_total{mirror=\"md3\"} 8192",
            "clpmd_write_wait_seconds_total{mirror=\"md1\"} 1.234000",
            "clpmd_active{mirror=\"md1\",server=\"server2\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
    }
}
