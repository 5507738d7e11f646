//! See [`tools::clpmdinit`].

use std::process::ExitCode;
use tools::{cli, clpmdinit, out};

fn main() -> ExitCode {
    let args: clpmdinit::Args = cli::parse(std::env::args_os());
    out::finish("clpmdinit", clpmdinit::run(&args, &mut std::io::stdout().lock()))
}
