//! `clpmdmon`: the monitors of the manual, for cluster managers and for people.

use crate::cli::Common;
use crate::out::Failure;
use clap::Parser;
use jiff::Zoned;
use mirror_agent::config::Config;
use mirror_agent::ctl::{Client, ClientError, Request, Response};
use mirror_agent::messages::MdCode;
use mirror_agent::monitor::{Finding, Monitor, code};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  clpmdmon --disk md1                        one look; the exit code says what was found
  clpmdmon --connect md1                     the same for the mirror connect
  clpmdmon --disk md1 --connect md1 --watch  stay up, one line for each change
  clpmdmon --disk md1 --watch --json         the same for programs

Exit codes of --disk (module mdw), with the text that is printed:
  0    Normal.
  1    Need to start mirror agent at first.
  2    Options or parameters are invalid.
  4    Getting of config was failed.
  5    Monitor config error.(md1): no such mirror disk
  30   Internal error[status=...]
  51   Remote driver status is unknown.
  52   Remote driver is abnormal.
  53   Local driver is abnormal.
  54   Both drivers are abnormal.
  58   Local mirror disk status is unknown or not constructed.(md1)
  63   Local mirror disk is abnormal. (md1)
  64   Remote mirror disk is abnormal.(md1)
  65   Both mirror disks are abnormal.(md1)
  66   Mirror disk was activated on both servers.(md1)
  100  The recovery is in progress. (md1)
Exit codes of --connect (module mdnw): 0, 1, 2, 4, 5, 30, and
  31   Network was interrupted

Meaning and remedy of each: clpmdmsg mdw-64";

/// Monitor a mirror disk and its mirror connect
#[derive(Parser, Debug)]
#[command(name = "clpmdmon", version, after_help = EXAMPLES)]
pub struct Args {
    /// Look at the state of this mirror disk on both servers
    #[arg(short, long, value_name = "MD", required_unless_present = "connect")]
    pub disk: Option<String>,
    /// Look at the mirror connect of this mirror disk
    #[arg(short, long, value_name = "MD")]
    pub connect: Option<String>,
    /// One JSON object for each line
    #[arg(long)]
    pub json: bool,
    /// Stay up and write a line for each change, until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// With --watch: seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1, requires = "watch",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// Seconds to wait for an answer of the agent
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=300))]
    pub timeout: u64,
    /// Common options
    #[command(flatten)]
    pub common: Common,
}

/// A monitor and the mirror that it looks at.
type Target = (Monitor, String);

impl Args {
    fn targets(&self) -> Vec<Target> {
        let disk = self.disk.iter().map(|md| (Monitor::Disk, md.clone()));
        let connect = self.connect.iter().map(|md| (Monitor::Connect, md.clone()));
        disk.chain(connect).collect()
    }
}

/// Parses the command line; what is wrong with it is said with the text of the table.
///
/// # Errors
/// The exit code for a command line that cannot be used.
pub fn parse() -> Result<Args, ExitCode> {
    let args = Args::try_parse().and_then(|args| {
        let both = args.disk.is_some() && args.connect.is_some();
        if both && !args.watch {
            use clap::CommandFactory as _;
            let what = "--disk and --connect together need --watch: there is one exit code";
            return Err(Args::command().error(clap::error::ErrorKind::ArgumentConflict, what));
        }
        Ok(args)
    });
    args.map_err(|e| {
        if !e.use_stderr() {
            e.exit(); // help and version
        }
        println!("{}", MdCode::BadOptions.text());
        let _ = e.print(); // standard error may be closed; the code still tells
        ExitCode::from(code::OPTIONS)
    })
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let result = if args.watch { watch(args) } else { once(args) };
    result.unwrap_or_else(|failure| {
        eprintln!("clpmdmon: {failure}");
        ExitCode::from(code::INTERNAL)
    })
}

fn once(args: &Args) -> Result<ExitCode, Failure> {
    let mut eyes = Eyes { args, client: None };
    let mut last = code::NORMAL;
    for target in args.targets() {
        let (finding, detail) = eyes.look(&target);
        if let Some(detail) = detail {
            eprintln!("clpmdmon: {detail}");
        }
        let text = if args.json { json(&target, &finding)? } else { finding.text };
        match writeln!(io::stdout().lock(), "{text}") {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e.into()),
            _ => last = finding.code,
        }
    }
    Ok(ExitCode::from(last))
}

/// Looks again and again. An agent that is down, or a configuration that cannot be used, is a
/// finding like any other.
fn watch(args: &Args) -> Result<ExitCode, Failure> {
    let mut eyes = Eyes { args, client: None };
    let targets = args.targets();
    let mut last: Vec<Option<Finding>> = vec![None; targets.len()];
    loop {
        for (target, last) in targets.iter().zip(&mut last) {
            let (finding, _) = eyes.look(target);
            if last.as_ref() == Some(&finding) {
                continue;
            }
            let text = if args.json { json(target, &finding)? } else { line(target, &finding) };
            let mut out = io::stdout().lock();
            match writeln!(out, "{text}").and_then(|()| out.flush()) {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                Err(e) => return Err(e.into()),
                Ok(()) => *last = Some(finding),
            }
        }
        std::thread::sleep(Duration::from_secs(args.interval));
    }
}

fn line((monitor, md): &Target, finding: &Finding) -> String {
    let time = Zoned::now().strftime("%Y/%m/%d %H:%M:%S");
    format!("{time} {} {md} {} {}", monitor.module(), finding.code, finding.text)
}

fn json((monitor, md): &Target, finding: &Finding) -> Result<String, Failure> {
    let value = serde_json::json!({
        "time": jiff::Timestamp::now().to_string(),
        "monitor": monitor.module(),
        "mirror": md,
        "code": finding.code,
        "text": finding.text,
    });
    Ok(serde_json::to_string(&value).map_err(io::Error::from)?)
}

/// Looks at the agent, and keeps the connection to it for the next look.
struct Eyes<'a> {
    args: &'a Args,
    client: Option<Client>,
}

impl Eyes<'_> {
    /// What is found, and what more there is to say of it.
    fn look(&mut self, (monitor, md): &Target) -> (Finding, Option<String>) {
        match self.ask(md) {
            Ok(Response::Monitor(state)) => (monitor.judge(md, &state), None),
            Ok(Response::Refused(r)) if r.code == MdCode::NoMirror => {
                (monitor.finding(code::MONITOR_CONFIG, md), Some(r.message))
            }
            Ok(other) => {
                let what = match other {
                    Response::Refused(r) => r.message,
                    Response::Error(what) => what,
                    _ => "unexpected answer of the agent".to_owned(),
                };
                (monitor.finding(code::INTERNAL, &what), None)
            }
            Err((code::INTERNAL, why)) => (monitor.finding(code::INTERNAL, &why), None),
            Err((code, why)) => (monitor.finding(code, md), Some(why)),
        }
    }

    fn ask(&mut self, md: &str) -> Result<Response, (u8, String)> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.connect(md)?,
        };
        match client.ask(Request::Monitor { mirror: md.to_owned() }, |_| {}) {
            Ok(answer) => {
                self.client = Some(client);
                Ok(answer)
            }
            // It has gone, or another one runs by now.
            Err(ClientError::Broken(_)) => {
                let request = Request::Monitor { mirror: md.to_owned() };
                let mut client = self.connect(md)?;
                client.ask(request, |_| {}).map_err(|e| (code::INTERNAL, e.to_string()))
            }
            Err(e) => Err((code::INTERNAL, e.to_string())),
        }
    }

    fn connect(&self, md: &str) -> Result<Client, (u8, String)> {
        let config = Config::load_anywhere(&self.args.common.file())
            .map_err(|e| (code::CONFIG, e.to_string()))?;
        if config.mirror(md).is_none() {
            let what = format!("{} has no mirror disk {md}", config.file.display());
            return Err((code::MONITOR_CONFIG, what));
        }
        let limit = Duration::from_secs(self.args.timeout);
        Client::connect_within(&config.agent.socket, limit).map_err(|e| match e {
            ClientError::NoAgent(_) => (code::NO_AGENT, e.to_string()),
            other => (code::INTERNAL, other.to_string()),
        })
    }
}
