//! When a file system is checked before it is mounted, and what the check's exit code means.

use super::command::{Exit, Runner};
use super::error::HostError;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// When an ext file system is checked at activation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FsckTiming {
    /// Never.
    Never,
    /// At each activation.
    Always,
    /// At each n-th activation. Range 0-999; 0 is the same as [`Self::Never`].
    Every(u32),
}

impl Default for FsckTiming {
    /// Every 10th activation.
    fn default() -> Self {
        Self::Every(10)
    }
}

/// What a check did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FsckResult {
    /// There was nothing to correct.
    Clean,
    /// Errors were found and corrected.
    Corrected,
}

/// Counts an activation in `counter` and says whether the check is due. A counter that cannot be
/// read counts as due: a check too many harms nobody.
///
/// # Errors
/// When the counter cannot be written: it would otherwise stand still for ever.
pub(super) fn due(timing: FsckTiming, counter: &Path) -> io::Result<bool> {
    let interval = match timing {
        FsckTiming::Never | FsckTiming::Every(0) => return Ok(false),
        FsckTiming::Always => return Ok(true),
        FsckTiming::Every(n) => n,
    };
    let before = match fs::read_to_string(counter) {
        Ok(text) => text.trim().parse().unwrap_or(u32::MAX),
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(_) => u32::MAX,
    };
    let count = before.saturating_add(1);
    let is_due = count >= interval;
    store(counter, if is_due { 0 } else { count })?;
    Ok(is_due)
}

fn store(counter: &Path, count: u32) -> io::Result<()> {
    let new = counter.with_extension("new");
    fs::write(&new, format!("{count}\n"))?;
    fs::rename(&new, counter)
}

/// Checks an ext file system.
///
/// # Errors
/// [`HostError::Fsck`] when errors remain or the check broke off; the command's own otherwise.
pub(super) async fn e2fsck(
    runner: &Runner,
    device: &Path,
    options: &[String],
    limit: Duration,
) -> Result<FsckResult, HostError> {
    let output = runner.command("e2fsck", limit).args(options).arg(device).run().await?;
    let code = match output.exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    };
    tracing::info!(device = %device.display(), code, "e2fsck: {}", output.last_line());
    meaning(code).map_err(|meaning| HostError::Fsck { device: device.to_owned(), code, meaning })
}

/// Checks an xfs file system with `xfs_repair`.
///
/// # Errors
/// [`HostError::Fsck`] when it did not succeed; the command's own otherwise.
pub(super) async fn xfs_repair(
    runner: &Runner,
    device: &Path,
    options: &[String],
    limit: Duration,
) -> Result<FsckResult, HostError> {
    let output = runner.command("xfs_repair", limit).args(options).arg(device).run().await?;
    tracing::info!(device = %device.display(), exit = %output.exit, "xfs_repair: {}", output.last_line());
    let (code, meaning) = match output.exit {
        Exit::Code(0) => return Ok(FsckResult::Corrected),
        Exit::Code(code @ 1) => (code, "the file system could not be repaired"),
        Exit::Code(code @ 2) => (code, "the log must be replayed by a mount first"),
        Exit::Code(code) => (code, "unknown result"),
        Exit::Signal(signal) => (128 + signal, "the check was killed"),
    };
    Err(HostError::Fsck { device: device.to_owned(), code, meaning })
}

/// The exit code of `e2fsck` is a sum of bits; the worst one decides. Bit 2 asks for a restart of
/// the server only when the file system is mounted meanwhile, which this one is not.
fn meaning(code: i32) -> Result<FsckResult, &'static str> {
    match code {
        0 => Ok(FsckResult::Clean),
        1..=3 => Ok(FsckResult::Corrected),
        code if code & 128 != 0 => Err("the check was killed or lacks a library"),
        code if code & 32 != 0 => Err("the check was cancelled"),
        code if code & 16 != 0 => Err("the fsck options are wrong"),
        code if code & 8 != 0 => Err("the check could not work on the device"),
        code if code & 4 != 0 => Err("errors were left uncorrected"),
        _ => Err("unknown result"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(timing: FsckTiming, times: usize) -> Vec<bool> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let counter = dir.path().join("md1.fsck");
        (0..times).map(|_| due(timing, &counter).expect("counts")).collect()
    }

    #[test]
    fn every_third_activation_is_checked() {
        let third = [false, false, true, false, false, true];
        assert_eq!(run(FsckTiming::Every(3), 6), third);
        assert_eq!(run(FsckTiming::Every(1), 2), [true, true]);
        assert_eq!(run(FsckTiming::Every(0), 2), [false, false]);
        assert_eq!(run(FsckTiming::Always, 2), [true, true]);
        assert_eq!(run(FsckTiming::Never, 2), [false, false]);
    }

    #[test]
    fn a_counter_that_makes_no_sense_leads_to_a_check() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let counter = dir.path().join("md1.fsck");
        fs::write(&counter, "many").expect("is written");
        assert!(due(FsckTiming::Every(10), &counter).expect("counts"));
        assert!(!due(FsckTiming::Every(10), &counter).expect("counts"), "starts over");
    }

    #[test]
    fn the_worst_bit_of_the_exit_code_decides() {
        assert_eq!(meaning(0), Ok(FsckResult::Clean));
        assert_eq!(meaning(1), Ok(FsckResult::Corrected));
        assert_eq!(meaning(3), Ok(FsckResult::Corrected));
        assert_eq!(meaning(1 | 4), Err("errors were left uncorrected"));
        assert_eq!(meaning(4 | 8), Err("the check could not work on the device"));
        assert_eq!(meaning(128 + 9), Err("the check was killed or lacks a library"));
        assert!(meaning(-1).is_err() && meaning(64).is_err());
    }
}
