//! See [`tools::clpmdctrl`].

use std::process::ExitCode;
use tools::{cli, clpmdctrl, out};

fn main() -> ExitCode {
    let args: clpmdctrl::Args = cli::parse(cli::manual_options(std::env::args_os()));
    out::finish("clpmdctrl", clpmdctrl::run(&args))
}
