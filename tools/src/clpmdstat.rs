//! `clpmdstat`: shows the state of the mirrors.

use crate::cli::{Common, ask, unexpected};
use crate::out::{EXIT_CODES, Failure};
use crate::{events, layout, perf, watch};
use clap::Parser;
use jiff::tz::TimeZone;
use mirror_agent::ctl::{Client, MirrorReport, Request, Response};
use mirror_agent::messages::MdCode;
use std::io::{self, Write};

const EXAMPLES: &str = "\
Examples:
  clpmdstat --mirror md1            state of md1
  clpmdstat --mirror md1 --watch    follow a recovery
  clpmdstat --active md1            which server serves md1
  clpmdstat --connect md1           which mirror connect is in use, and how long the way is
  clpmdstat --detail md1            everything about md1
  clpmdstat --explain md1           the state in plain words, and the one safe next command
  clpmdstat --perf md1              figures: since the start, and of the last minute
  clpmdstat --perf md1 --interval 5 figures of every 5 seconds, until interrupted
  clpmdstat --events                one line for each change, until interrupted
  clpmdstat --events md1 --json     the same for programs, one object a line
  clpmdstat -l                      names of the mirror disks
  clpmdstat --json                  everything, for programs

Colours: GREEN holds the latest data; RED does not, or nobody can tell; YELLOW is being
recovered; GRAY is not known. `--` stands for a value that is not there or not known.

Figures are counted since the agent started. Times are in milliseconds (--json: microseconds);
50% and 99% are read off buckets and at most a quarter too long. What each means, and how to
collect them as CSV or OpenMetrics: docs/operating.md, chapter Figures.";

/// Show the state of the mirror disks
#[derive(Parser, Debug)]
#[command(name = "clpmdstat", version, after_help = format!("{EXAMPLES}\n\nclpmdstat ends with 0 whenever it could show the state, whatever that is.\n{EXIT_CODES}"))]
pub struct Args {
    /// State of this mirror disk; without it, of all
    #[arg(short, long, value_name = "MD", group = "what")]
    pub mirror: Option<String>,
    /// Names of the mirror disks, as <md1>
    #[arg(short, long, group = "what")]
    pub list: bool,
    /// Which server serves this mirror disk
    #[arg(short, long, value_name = "MD", group = "what", conflicts_with_all = ["json"])]
    pub active: Option<String>,
    /// Its mirror connects, which of them is in use, and how long the way is
    #[arg(short, long, value_name = "MD", group = "what", conflicts_with_all = ["json"])]
    pub connect: Option<String>,
    /// Everything about this mirror disk: state, partitions, connection, settings
    #[arg(short, long, value_name = "MD", group = "what", conflicts_with_all = ["json"])]
    pub detail: Option<String>,
    /// What state it is in, how it got there, what is at risk, and what to do
    #[arg(short, long, value_name = "MD", group = "what")]
    pub explain: Option<String>,
    /// Figures of this mirror disk, or of all: since the agent started, and of the last interval
    /// that it wrote a line for (`figures_interval`)
    #[arg(short, long, value_name = "MD", num_args = 0..=1, group = "what")]
    pub perf: Option<Option<String>>,
    /// What happens to this mirror disk, or to all: one line for each change until interrupted,
    /// also through restarts of the agent
    #[arg(long, value_name = "MD", num_args = 0..=1, group = "what")]
    pub events: Option<Option<String>>,
    /// One JSON object (with --mirror or --explain) or array; with --perf and --events one object
    /// a line
    #[arg(long)]
    pub json: bool,
    /// Show the state again every second until interrupted, with a progress bar on a terminal
    #[arg(short, long, conflicts_with_all = ["json", "list", "active", "connect", "detail", "explain", "perf", "events"])]
    pub watch: bool,
    /// With --perf: show the figures of every so many seconds until interrupted
    #[arg(long, value_name = "SECONDS", requires = "perf",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub interval: Option<u64>,
    /// Common options
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// The state could not be shown.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.common.connect()?;
    if let Some(mirror) = &args.events {
        return events::run(&args.common, client, mirror.as_deref(), args.json);
    }
    if let Some(mirror) = &args.perf {
        let names = names(&mut client, mirror.as_deref())?;
        return perf::run(&mut client, &names, args.json, args.interval);
    }
    let mut out = io::stdout().lock();
    if let Some(name) = args.connect.as_ref().or(args.detail.as_ref()) {
        let text = configured(args, &mut client, name)?;
        return Ok(out.write_all(text.as_bytes())?);
    }
    if args.list {
        return list(&mut client, args.json, &mut out);
    }
    if let Some(name) = &args.explain {
        return explain(&mut client, name, args.json, &mut out);
    }
    if args.watch {
        drop(out);
        return watch::run(&mut client, args.mirror.as_deref());
    }
    let reports = reports(&mut client, args.active.as_deref().or(args.mirror.as_deref()))?;
    let text = if args.json {
        json(&reports, args.mirror.is_some())?
    } else if args.active.is_some() {
        reports.iter().map(layout::active).collect()
    } else {
        states(&reports)
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// The names that are meant: one, or all.
fn names(client: &mut Client, mirror: Option<&str>) -> Result<Vec<String>, Failure> {
    if let Some(name) = mirror {
        return Ok(vec![name.to_owned()]);
    }
    match ask(client, Request::List)? {
        Response::List(names) => Ok(names),
        _ => Err(unexpected()),
    }
}

/// What needs the configuration beside the state.
fn configured(args: &Args, client: &mut Client, name: &str) -> Result<String, Failure> {
    let report = report(client, name)?;
    let request = Request::Figures { mirror: name.to_owned(), last: false };
    let Response::Figures(taken) = ask(client, request)? else { return Err(unexpected()) };
    let config = args.common.config()?;
    Ok(if args.connect.is_some() {
        layout::connect(&report, &config, &taken.figures)
    } else {
        layout::detail(&report, &config, &taken.figures, &TimeZone::system())
    })
}

fn explain(
    client: &mut Client,
    name: &str,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let request = Request::Explain { mirror: name.to_owned() };
    let Response::Story(story) = ask(client, request)? else { return Err(unexpected()) };
    let text = if json {
        let text = serde_json::to_string_pretty(&story).map_err(io::Error::from)?;
        format!("{text}\n")
    } else {
        crate::explain::story(&story, &TimeZone::system())
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// Every state in its layout, with an empty line between two.
#[must_use]
pub fn states(reports: &[MirrorReport]) -> String {
    let zone = TimeZone::system();
    let all: Vec<_> = reports.iter().map(|r| layout::state(r, &zone)).collect();
    all.join("\n")
}

fn json(reports: &[MirrorReport], one: bool) -> Result<String, Failure> {
    let text = match reports {
        [report] if one => serde_json::to_string_pretty(report),
        all => serde_json::to_string_pretty(all),
    };
    let text = text.map_err(io::Error::from)?;
    Ok(format!("{text}\n"))
}

/// The names, in angle brackets, as scripts look for them.
fn list(client: &mut Client, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let Response::List(names) = ask(client, Request::List)? else { return Err(unexpected()) };
    if json {
        writeln!(out, "{}", serde_json::to_string(&names).map_err(io::Error::from)?)?;
        return Ok(());
    }
    for name in names {
        writeln!(out, "<{name}>")?;
    }
    Ok(())
}

/// The state of one mirror, or of each. Each is asked for by itself, so that no number of
/// mirrors makes an answer too long, and that one which could not be opened does not hide the
/// others: it gets a line on standard error.
///
/// # Errors
/// The agent refused the one mirror, or all of them, or went away.
pub fn reports(client: &mut Client, mirror: Option<&str>) -> Result<Vec<MirrorReport>, Failure> {
    if let Some(name) = mirror {
        return Ok(vec![report(client, name)?]);
    }
    let Response::List(names) = ask(client, Request::List)? else { return Err(unexpected()) };
    let (mut all, mut last) = (Vec::new(), None);
    for name in &names {
        match report(client, name) {
            Ok(found) => all.push(found),
            Err(failure @ Failure::Md(_)) => {
                eprintln!("clpmdstat: {failure}");
                last = Some(failure);
            }
            Err(Failure::Pipe) => return Err(Failure::Pipe),
        }
    }
    match last {
        Some(failure) if all.is_empty() => Err(failure),
        _ => Ok(all),
    }
}

fn report(client: &mut Client, name: &str) -> Result<MirrorReport, Failure> {
    let missing = || Failure::new(MdCode::NoMirror, MdCode::NoMirror.fill(&[name]));
    match ask(client, Request::Status { mirror: Some(name.to_owned()) })? {
        Response::Status(found) => found.into_iter().next().ok_or_else(missing),
        _ => Err(unexpected()),
    }
}
