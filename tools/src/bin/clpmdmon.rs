//! See [`tools::clpmdmon`].

use std::process::ExitCode;
use tools::clpmdmon;

fn main() -> ExitCode {
    match clpmdmon::parse() {
        Ok(args) => clpmdmon::run(&args),
        Err(code) => code,
    }
}
