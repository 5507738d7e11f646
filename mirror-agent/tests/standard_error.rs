//! The agent does not depend on anybody who reads its standard error.

use std::process::{Command, Stdio};

/// The exit code of a start without a configuration, with or without a reader.
fn start(reader_stays: bool) -> Option<i32> {
    let (reader, writer) = nix::unistd::pipe().expect("pipe");
    let kept = reader_stays.then(|| reader.try_clone().expect("descriptor"));
    drop(reader);
    let mut agent = Command::new(env!("CARGO_BIN_EXE_clpmdagent"));
    agent.args(["--config", "/nowhere/clpmd.toml"]).stdin(Stdio::null()).stderr(writer);
    let code = agent.status().expect("runs").code();
    drop(kept);
    code
}

#[test]
fn a_log_that_nobody_reads_any_more_is_no_panic() {
    assert_eq!(start(true), Some(1));
    assert_eq!(start(false), Some(1));
}
