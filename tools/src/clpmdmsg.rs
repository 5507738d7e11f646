//! `clpmdmsg`: what a message means and what to do about it.

use crate::out::Failure;
use clap::Parser;
use mirror_agent::messages::table::{self, Origin, Raised};
use mirror_agent::messages::{MdCode, Message};
use std::io::{self, Write};

const EXAMPLES: &str = "\
Examples:
  clpmdmsg mdadmn-5                  event 5 of mdadmn; also: mdadmn:5, mdadmn 5
  clpmdmsg md-81                     result 81 of activation and deactivation
  clpmdmsg mdw                       all messages of the mirror disk monitor
  clpmdmsg 'NMP1 accept failed(x).'  a line, or a part of one, from a log
  clpmdmsg --list                    every message, one line each

Modules: mdagent, mdadmn, liscal (events); md (activation and deactivation), mdw, mdnw (monitors).
It needs neither the agent nor a configuration.

Exit codes:
  0  found
  2  wrong options, or no such message";

/// Explain a message: its meaning and its remedy
#[derive(Parser, Debug)]
#[command(name = "clpmdmsg", version, after_help = EXAMPLES)]
pub struct Args {
    /// MODULE-ID, or a part of the text, or a line from a log
    #[arg(value_name = "MESSAGE", required_unless_present = "list")]
    pub what: Vec<String>,
    /// Every message (of MESSAGE), one line each
    #[arg(short, long)]
    pub list: bool,
    /// One JSON array
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// There is no such message.
pub fn run(args: &Args) -> Result<(), Failure> {
    let what = args.what.join(" ");
    let found: Vec<&Message> =
        if args.what.is_empty() { table::all().collect() } else { table::find(&what) };
    if found.is_empty() {
        let text = format!("{} There is no message like {what:?}.", MdCode::BadOptions.text());
        return Err(Failure::new(MdCode::BadOptions, text).next("clpmdmsg --list"));
    }
    let mut out = io::stdout().lock();
    if args.json {
        let all: Vec<_> = found.iter().map(|m| json(m)).collect();
        let text = serde_json::to_string_pretty(&all).map_err(io::Error::from)?;
        return Ok(writeln!(out, "{text}")?);
    }
    for (n, message) in found.into_iter().enumerate() {
        if args.list {
            writeln!(out, "{:<12}{:<12}{}", message.name(), message.level.word(), message.text)?;
            continue;
        }
        let gap = if n == 0 { "" } else { "\n" };
        write!(out, "{gap}{}", message.page())?;
    }
    Ok(())
}

fn json(m: &Message) -> serde_json::Value {
    let origin = match m.origin {
        Origin::Manual(section) => section,
        Origin::Later => "later product",
        Origin::Own => "own",
    };
    serde_json::json!({
        "name": m.name(),
        "module": m.module,
        "id": m.id,
        "level": m.level.word(),
        "text": m.text,
        "alert": m.to.alert,
        "syslog": m.to.syslog,
        "mail": m.to.mail,
        "meaning": m.meaning,
        "remedy": m.remedy,
        "origin": origin,
        "given_here": m.raised == Raised::Here,
    })
}
