//! See [`tools::clpmdsecret`].

use std::process::ExitCode;
use tools::{cli, clpmdsecret, out};

fn main() -> ExitCode {
    let args: clpmdsecret::Args = cli::parse(std::env::args_os());
    out::finish("clpmdsecret", clpmdsecret::run(&args, &mut std::io::stdout().lock()))
}
