//! Processes that are remembered across restarts of the agent.

use serde::{Deserialize, Serialize};
use std::fs;

/// A process, told apart from a later one with the same number by its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Clock ticks between boot and its start.
    start: u64,
}

impl Process {
    /// The running process with this number.
    #[must_use]
    pub fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything, so count from its end.
        let start = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, start })
    }

    /// This process.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::find(i32::try_from(std::process::id()).ok()?)
    }

    /// Whether it still runs. One that has ended and was not collected does not.
    #[must_use]
    pub fn is_running(self) -> bool {
        Self::find(self.pid) == Some(self) && !is_zombie(self.pid)
    }
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let process = Process::own().expect("is running");
        assert!(process.is_running());
        assert!(!Process { start: process.start + 1, ..process }.is_running());
    }
}
