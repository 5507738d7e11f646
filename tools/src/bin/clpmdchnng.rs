//! The other spelling of `clpmdchng` in the manual (§6.7).

use clap::Parser as _;
use std::process::ExitCode;
use tools::{clpmdchng, out};

fn main() -> ExitCode {
    let args = clpmdchng::Args::parse();
    out::finish("clpmdchng", clpmdchng::run(&args, &mut std::io::stdout().lock()))
}
