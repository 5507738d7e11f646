//! `clpmdstat`: shows the state of the mirrors.

use crate::cli::{Common, ask, unexpected};
use crate::layout;
use crate::out::{EXIT_CODES, Failure};
use crate::watch;
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
  clpmdstat --explain md1           the state in plain words, and the one safe next command
  clpmdstat -l                      names of the mirror disks
  clpmdstat --json                  everything, for programs

Colours: GREEN holds the latest data; RED does not, or nobody can tell; YELLOW is being
recovered; GRAY is not known. `--` stands for a value that is not there or not known.";

/// Show the state of the mirror disks
#[derive(Parser, Debug)]
#[command(name = "clpmdstat", version, after_help = format!("{EXAMPLES}\n\nclpmdstat ends with 0 whenever it could show the state, whatever that is.\n{EXIT_CODES}"))]
pub struct Args {
    /// State of this mirror disk; without it, of all
    #[arg(short, long, value_name = "MD", conflicts_with_all = ["list", "active"])]
    pub mirror: Option<String>,
    /// Names of the mirror disks, as <md1>
    #[arg(short, long, conflicts_with_all = ["active", "watch"])]
    pub list: bool,
    /// Which server serves this mirror disk
    #[arg(short, long, value_name = "MD", conflicts_with_all = ["json"])]
    pub active: Option<String>,
    /// What state it is in, how it got there, what is at risk, and what to do
    #[arg(short, long, value_name = "MD", conflicts_with_all = ["mirror", "list", "active", "watch"])]
    pub explain: Option<String>,
    /// One JSON object (with --mirror or --explain) or array
    #[arg(long)]
    pub json: bool,
    /// Show the state again every second until interrupted, with a progress bar on a terminal
    #[arg(short, long, conflicts_with_all = ["json", "active"])]
    pub watch: bool,
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
    let mut out = io::stdout().lock();
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
