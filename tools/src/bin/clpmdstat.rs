//! See [`tools::clpmdstat`].

use std::process::ExitCode;
use tools::{cli, clpmdstat, out};

fn main() -> ExitCode {
    let args: clpmdstat::Args = cli::parse(cli::manual_options(std::env::args_os()));
    out::finish("clpmdstat", clpmdstat::run(&args))
}
