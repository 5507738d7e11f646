//! `clpmdctrl`: operates the mirrors.

use crate::abandon;
use crate::cli::{Common, ask, unexpected};
use crate::out::{EXIT_CODES, Failure};
use crate::rwait;
use clap::{ArgGroup, Parser};
use mirror_agent::ctl::{Request, Response};
use mirror_agent::messages::MdCode;
use std::io::{self, BufRead, IsTerminal as _, Write};

const EXAMPLES: &str = "\
Examples:
  clpmdctrl --active md1               open /dev/NMP1 on this server and mount it
  clpmdctrl --active -nomount md1      open it only, for example for mkfs /dev/NMP1
  clpmdctrl --deactive md1             unmount and close it
  clpmdctrl --recovery md1             start the recovery; follow it with clpmdstat
  clpmdctrl --rwait md1 -timeout 600   wait until it has ended, ten minutes at most
  clpmdctrl --cancel md1               stop it; what was copied stays copied
  clpmdctrl --break md1                keep the servers apart until --recovery
  clpmdctrl --resize md1               both data partitions were made larger: so is the mirror
  clpmdctrl --force server1 md1        server1 holds the latest data: the other's is given up
  clpmdctrl --active --peer-down md1   the other server is off and wrote nothing alone
  clpmdctrl --reload                   the agent reads its configuration again
  clpmdctrl --abandon md1              without the agent: its device fails what waits on it

--recovery and --force return at once.
--force: compare the servers first (`clpmdstat --mirror md1`). Each server writes Lastupdate Time by
its own clock; if the clocks differ, the later time need not be the later data.";

/// Operate the mirror disks of this server
#[derive(Parser, Debug)]
#[command(name = "clpmdctrl", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(group = ArgGroup::new("what").args(["active", "deactive", "recovery", "force", "cancel", "separate", "rwait", "resize", "peer_down", "abandon", "reload"]).required(true).multiple(true))]
pub struct Args {
    /// Open the mirror disk for I/O on this server, and mount it
    #[arg(short, long, conflicts_with_all = ["deactive", "recovery", "force", "cancel", "separate", "rwait"])]
    pub active: bool,
    /// Unmount and close it
    #[arg(short, long, conflicts_with_all = ["recovery", "force", "cancel", "separate", "rwait", "peer_down"])]
    pub deactive: bool,
    /// Start a recovery in the direction that the states dictate
    #[arg(short, long, conflicts_with_all = ["force", "cancel", "separate", "rwait", "peer_down"])]
    pub recovery: bool,
    /// Declare that <SERVER> holds the latest data; the other server's changes are given up
    #[arg(short, long, conflicts_with_all = ["cancel", "separate", "rwait", "peer_down"])]
    pub force: bool,
    /// Stop a running recovery
    #[arg(short, long, conflicts_with_all = ["separate", "rwait", "peer_down"])]
    pub cancel: bool,
    /// Keep the servers apart: the standby gets nothing more until --recovery
    #[arg(short = 'b', long = "break", conflicts_with_all = ["rwait", "peer_down"])]
    pub separate: bool,
    /// Wait until no recovery runs; fails if the mirror is not whole then
    #[arg(short = 'w', long, conflicts_with_all = ["peer_down"])]
    pub rwait: bool,
    /// Take as much of the data partitions as both have, after both were made larger
    #[arg(long, conflicts_with_all = ["active", "deactive", "recovery", "force", "cancel", "separate", "rwait", "peer_down", "abandon", "yes"])]
    pub resize: bool,
    /// With --rwait: give up after so many seconds (also: -timeout) [default: never]
    #[arg(long, value_name = "SECONDS", requires = "rwait", conflicts_with_all = ["active", "deactive", "recovery", "force", "cancel", "separate", "peer_down"], value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub timeout: Option<u64>,
    /// With --rwait: when giving up, stop the recovery (also: -rcancel)
    #[arg(long, requires = "timeout")]
    pub rcancel: bool,
    /// With --active: do not mount (also: -nomount)
    #[arg(long, requires = "active", conflicts_with_all = ["deactive", "recovery", "force", "cancel", "separate", "rwait"])]
    pub nomount: bool,
    /// You vouch that the other server is off and wrote nothing alone; alone or with --active
    #[arg(long)]
    pub peer_down: bool,
    /// Stop the device of an agent that is gone or hangs: whatever waits on it gets I/O errors.
    /// Works without the agent
    #[arg(long, conflicts_with_all = ["active", "deactive", "recovery", "force", "cancel", "separate", "rwait", "peer_down", "nomount"])]
    pub abandon: bool,
    /// With --force and --abandon: do not ask
    #[arg(short, long, conflicts_with_all = ["active", "deactive", "recovery", "cancel", "separate", "rwait", "peer_down"])]
    pub yes: bool,
    /// Have the agent read its configuration again: mirrors are added and removed, settings taken
    /// over. What takes a restart is named, and nothing is changed then
    #[arg(long, conflicts_with_all = ["active", "deactive", "recovery", "force", "cancel", "separate", "rwait", "peer_down", "abandon", "nomount", "yes", "names"])]
    pub reload: bool,
    /// <MD>, or with --force: <SERVER> <MD>
    #[arg(value_name = "NAME", required_unless_present = "reload", num_args = 1..=2)]
    pub names: Vec<String>,
    /// Common options
    #[command(flatten)]
    pub common: Common,
}

/// The request that the arguments ask for.
///
/// # Errors
/// Too many or too few names.
pub fn request(args: &Args) -> Result<Request, Failure> {
    let wrong = |what: &str| {
        Err(Failure::new(MdCode::BadOptions, format!("{} {what}", MdCode::BadOptions.text())))
    };
    if args.reload {
        return Ok(Request::Reload);
    }
    let mirror = match (args.names.as_slice(), args.force) {
        ([mirror], false) => mirror.clone(),
        ([server, mirror], true) => {
            return Ok(Request::Force { server: server.clone(), mirror: mirror.clone() });
        }
        (_, true) => return wrong("--force takes two names: clpmdctrl --force <server> <md>"),
        (_, false) => return wrong("one mirror disk is to be named"),
    };
    Ok(match args {
        a if a.active => Request::Activate { mirror, nomount: a.nomount, peer_down: a.peer_down },
        a if a.deactive => Request::Deactivate { mirror },
        a if a.recovery => Request::Recover { mirror },
        a if a.cancel => Request::Cancel { mirror },
        a if a.separate => Request::Separate { mirror },
        a if a.resize => Request::Resize { mirror },
        a if a.rwait => Request::Status { mirror: Some(mirror) },
        a if a.abandon => return wrong("--abandon takes one name"),
        _ => Request::PeerDown { mirror },
    })
}

/// What `--force` does, for the question.
#[must_use]
pub fn force_warning(server: &str, mirror: &str) -> String {
    format!(
        "The data of {server} becomes the latest data of {mirror}. Everything that only the other server has is lost.\n\
         Lastupdate Time depends on the servers' clocks: make sure that {server} really has what you want to keep.\n"
    )
}

/// Asks for a `yes` in full. No answer is a no.
///
/// # Errors
/// The question could not be asked.
pub fn confirmed(text: &str, input: &mut impl BufRead, out: &mut impl Write) -> io::Result<bool> {
    write!(out, "{text}Go on? (yes/no) ")?;
    out.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "yes" | "y"))
}

fn confirm(args: &Args, request: &Request) -> Result<(), Failure> {
    let Request::Force { server, mirror } = request else { return Ok(()) };
    if args.yes {
        return Ok(());
    }
    let warning = force_warning(server, mirror);
    if !io::stdin().is_terminal() {
        let what = format!("{warning}This is not a terminal: nothing was done.");
        return Err(Failure::new(MdCode::BadOptions, what)
            .next(format!("clpmdctrl --force {server} {mirror} --yes")));
    }
    if confirmed(&warning, &mut io::stdin().lock(), &mut io::stderr().lock())? {
        Ok(())
    } else {
        Err(Failure::new(MdCode::Failed, "Nothing was done."))
    }
}

/// Runs the command.
///
/// # Errors
/// It was refused, or failed.
pub fn run(args: &Args) -> Result<(), Failure> {
    if let (true, [mirror]) = (args.abandon, args.names.as_slice()) {
        return abandon::run(&args.common, mirror, args.yes);
    }
    let request = request(args)?;
    confirm(args, &request)?;
    let mut client = args.common.connect()?;
    if args.rwait {
        return rwait::run(&mut client, &args.names[0], args.timeout, args.rcancel);
    }
    match ask(&mut client, request)? {
        Response::Done(text) => Ok(writeln!(io::stdout().lock(), "{text}")?),
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Args, confirmed, force_warning, request};
    use crate::cli::manual_options;
    use clap::Parser as _;
    use mirror_agent::ctl::Request;
    use std::ffi::OsString;

    fn parse(line: &str) -> Option<Request> {
        let words = line.split(' ').map(OsString::from);
        let args = Args::try_parse_from(manual_options(words)).ok()?;
        request(&args).ok()
    }

    fn activate(nomount: bool, peer_down: bool) -> Option<Request> {
        Some(Request::Activate { mirror: "md1".to_owned(), nomount, peer_down })
    }

    #[test]
    fn the_manuals_lines_and_short_forms() {
        let md1 = || "md1".to_owned();
        let force = Some(Request::Force { server: "server1".to_owned(), mirror: md1() });
        for (line, want) in [
            ("clpmdctrl --active md1", activate(false, false)),
            ("clpmdctrl -a md1", activate(false, false)),
            ("clpmdctrl --active -nomount md1", activate(true, false)),
            ("clpmdctrl -a md1 -nomount", activate(true, false)),
            ("clpmdctrl -nomount md1 --active", activate(true, false)),
            ("clpmdctrl --active --nomount md1", activate(true, false)),
            ("clpmdctrl --active --peer-down md1", activate(false, true)),
            ("clpmdctrl --deactive md1", Some(Request::Deactivate { mirror: md1() })),
            ("clpmdctrl -d md1", Some(Request::Deactivate { mirror: md1() })),
            ("clpmdctrl --recovery md1", Some(Request::Recover { mirror: md1() })),
            ("clpmdctrl -r md1", Some(Request::Recover { mirror: md1() })),
            ("clpmdctrl --force server1 md1", force.clone()),
            ("clpmdctrl -f server1 md1 --yes", force.clone()),
            ("clpmdctrl server1 md1 --force", force),
            ("clpmdctrl --cancel md1", Some(Request::Cancel { mirror: md1() })),
            ("clpmdctrl -c md1", Some(Request::Cancel { mirror: md1() })),
            ("clpmdctrl --break md1", Some(Request::Separate { mirror: md1() })),
            ("clpmdctrl --resize md1", Some(Request::Resize { mirror: md1() })),
            ("clpmdctrl -b md1", Some(Request::Separate { mirror: md1() })),
            (
                "clpmdctrl --rwait md1 -timeout 5 -rcancel",
                Some(Request::Status { mirror: Some(md1()) }),
            ),
            ("clpmdctrl -w md1", Some(Request::Status { mirror: Some(md1()) })),
            ("clpmdctrl --peer-down md1", Some(Request::PeerDown { mirror: md1() })),
            ("clpmdctrl --reload", Some(Request::Reload)),
        ] {
            assert_eq!(parse(line), want, "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "clpmdctrl md1",
            "clpmdctrl --active",
            "clpmdctrl --active md1 md2",
            "clpmdctrl --force md1",
            "clpmdctrl --force a b c",
            "clpmdctrl --active --deactive md1",
            "clpmdctrl --recovery --cancel md1",
            "clpmdctrl --deactive -nomount md1",
            "clpmdctrl --recovery --peer-down md1",
            "clpmdctrl --force --peer-down server1 md1",
            "clpmdctrl --active --yes md1",
            "clpmdctrl --break --recovery md1",
            "clpmdctrl --resize --recovery md1",
            "clpmdctrl --rwait --rcancel md1",
            "clpmdctrl --recovery --timeout 5 md1",
            "clpmdctrl --rwait md1 --timeout 0",
            "clpmdctrl --peer-down --yes md1",
            "clpmdctrl --abandon --deactive md1",
            "clpmdctrl --abandon md1 md2",
            "clpmdctrl --reload md1",
            "clpmdctrl --reload --active md1",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        let text = force_warning("server1", "md1");
        assert!(text.contains("server1") && text.contains("md1") && text.contains("clocks"));
        for (answer, want) in [
            ("yes\n", true),
            ("Y\n", true),
            ("no\n", false),
            ("\n", false),
            ("", false),
            ("yess\n", false),
        ] {
            let mut out = Vec::new();
            let got = confirmed(&text, &mut answer.as_bytes(), &mut out).expect("asked");
            assert_eq!(got, want, "{answer:?}");
            assert!(String::from_utf8_lossy(&out).contains("Lastupdate Time depends"));
        }
    }
}
