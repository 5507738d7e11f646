//! See [`tools::clpmdinit`].

use clap::Parser as _;
use std::process::ExitCode;
use tools::{clpmdinit, out};

fn main() -> ExitCode {
    let args = clpmdinit::Args::parse();
    out::finish("clpmdinit", clpmdinit::run(&args, &mut std::io::stdout().lock()))
}
