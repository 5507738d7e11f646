//! See [`tools::clpmdmsg`].

use std::process::ExitCode;
use tools::{cli, clpmdmsg, out};

fn main() -> ExitCode {
    let args: clpmdmsg::Args = cli::parse(std::env::args_os());
    out::finish("clpmdmsg", clpmdmsg::run(&args))
}
