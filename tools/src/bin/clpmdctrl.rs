//! See [`tools::clpmdctrl`].

use clap::Parser as _;
use std::process::ExitCode;
use tools::{cli, clpmdctrl, out};

fn main() -> ExitCode {
    let args = clpmdctrl::Args::parse_from(cli::manual_options(std::env::args_os()));
    out::finish("clpmdctrl", clpmdctrl::run(&args))
}
