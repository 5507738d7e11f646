//! The other spelling of `clpmdchng` in the manual (§6.7).

use std::process::ExitCode;
use tools::{cli, clpmdchng, out};

fn main() -> ExitCode {
    let args: clpmdchng::Args = cli::parse(std::env::args_os());
    out::finish("clpmdchng", clpmdchng::run(&args, &mut std::io::stdout().lock()))
}
