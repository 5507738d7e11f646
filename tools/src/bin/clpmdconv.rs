//! See [`tools::clpmdconv`].

use std::process::ExitCode;
use tools::{cli, clpmdconv, out};

fn main() -> ExitCode {
    let args: clpmdconv::Args = cli::parse(std::env::args_os());
    out::finish("clpmdconv", clpmdconv::run(&args, &mut std::io::stdout().lock()))
}
