//! What the programs' command lines have in common.

use crate::out::Failure;
use mirror_agent::config::{self, Config};
use mirror_agent::ctl::{Client, Request, Response};
use mirror_agent::messages::MdCode;
use std::ffi::OsString;
use std::path::PathBuf;

/// Options of every program.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Common {
    /// Configuration file [default: CLPMD_CONFIG, else /etc/clpmd/clpmd.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

impl Common {
    /// The file to read.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        config::file(self.config.clone())
    }

    /// Connects to the agent of this server.
    ///
    /// # Errors
    /// The configuration cannot be used, or the agent does not run.
    pub fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.config()?.agent.socket)?)
    }

    /// The configuration, as far as it is the same on both servers.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load_anywhere(&self.file())?)
    }
}

/// Long options that the manuals write with a single dash.
const MANUAL: [&str; 3] = ["-nomount", "-timeout", "-rcancel"];

/// Turns the single-dash long options of the manuals (`-nomount`) into what the parser knows. Only
/// whole words before a `--` are touched.
pub fn manual_options(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut rest = false;
    args.into_iter()
        .map(|arg| {
            rest |= arg == "--";
            let known = !rest && MANUAL.iter().any(|&option| arg == option);
            if known {
                let mut long = OsString::from("-");
                long.push(arg);
                long
            } else {
                arg
            }
        })
        .collect()
}

/// Parses the command line. What is wrong with it is said after the text of the manual for it
/// (§12.4.4, 2), which is also the exit code; `--help` and the like end with 0.
pub fn parse<T: clap::Parser>(args: impl IntoIterator<Item = OsString>) -> T {
    T::try_parse_from(args).unwrap_or_else(|e| {
        if e.use_stderr() {
            eprintln!("{}", MdCode::BadOptions.text());
        }
        e.exit()
    })
}

/// Asks the agent and turns refusals into failures.
///
/// # Errors
/// The agent refused, failed or went away.
pub fn ask(client: &mut Client, request: Request) -> Result<Response, Failure> {
    match client.ask(request, |_| {})? {
        Response::Refused(refused) => Err(Failure::Md(refused)),
        Response::Error(what) => {
            Err(Failure::new(MdCode::Internal, MdCode::Internal.fill(&[&what])))
        }
        other => Ok(other),
    }
}

/// An answer of a kind that the request does not have.
#[must_use]
pub fn unexpected() -> Failure {
    Failure::new(MdCode::Internal, MdCode::Internal.fill(&["unexpected answer of the agent"]))
}

#[cfg(test)]
mod tests {
    use super::manual_options;
    use std::ffi::OsString;

    fn run(args: &[&str]) -> Vec<String> {
        let args = args.iter().map(OsString::from);
        manual_options(args).into_iter().map(|a| a.into_string().expect("utf-8")).collect()
    }

    #[test]
    fn the_manuals_single_dash_is_taken_wherever_it_stands() {
        assert_eq!(
            run(&["x", "--active", "-nomount", "md1"]),
            ["x", "--active", "--nomount", "md1"]
        );
        assert_eq!(run(&["x", "-a", "md1", "-nomount"]), ["x", "-a", "md1", "--nomount"]);
        assert_eq!(run(&["x", "-a", "--", "-nomount"]), ["x", "-a", "--", "-nomount"]);
        assert_eq!(run(&["x", "-nomounts", "-n"]), ["x", "-nomounts", "-n"]);
    }
}
