//! See [`tools::clpmdstat`].

use clap::Parser as _;
use std::process::ExitCode;
use tools::{cli, clpmdstat, out};

fn main() -> ExitCode {
    let args = clpmdstat::Args::parse_from(cli::manual_options(std::env::args_os()));
    out::finish("clpmdstat", clpmdstat::run(&args))
}
