//! Faults on demand, for tests: a control file, read again at every operation, says what goes
//! wrong. Each of its lines is `PATH KIND FAULT`:
//!
//! - `PATH`: the partition as it was opened;
//! - `KIND`: `read`, `write` (write-zeroes, too) or `flush`;
//! - `FAULT`: `fail` (EIO, without touching the disk) or `delay MILLISECONDS` (before it starts).
//!
//! The file's path is in the environment variable `MIRROR_FAULTS`; without that, or without the
//! file, nothing happens. The first line that matches counts.

use std::path::{Path, PathBuf};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    Fail,
    Delay(u64),
}

pub(super) struct Faults {
    control: Option<PathBuf>,
    partition: String,
}

impl Faults {
    pub(super) fn of(partition: &Path) -> Self {
        let control = std::env::var_os("MIRROR_FAULTS").map(PathBuf::from);
        Self { control, partition: partition.display().to_string() }
    }

    /// What is to happen to the next operation of this kind.
    pub(super) fn of_next(&self, kind: Kind) -> Option<Fault> {
        let text = std::fs::read_to_string(self.control.as_ref()?).ok()?;
        text.lines().find_map(|line| parse(line, &self.partition, kind))
    }
}

fn parse(line: &str, partition: &str, kind: Kind) -> Option<Fault> {
    let mut words = line.split_whitespace();
    let word = match kind {
        Kind::Read => "read",
        Kind::Write => "write",
        Kind::Flush => "flush",
    };
    if words.next()? != partition || words.next()? != word {
        return None;
    }
    match words.next()? {
        "fail" => Some(Fault::Fail),
        "delay" => words.next()?.parse().ok().map(Fault::Delay),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_matched_by_partition_and_kind() {
        let line = "/dev/a write delay 250";
        assert_eq!(parse(line, "/dev/a", Kind::Write), Some(Fault::Delay(250)));
        assert_eq!(parse(line, "/dev/a", Kind::Read), None);
        assert_eq!(parse(line, "/dev/b", Kind::Write), None);
        assert_eq!(parse("/dev/a flush fail", "/dev/a", Kind::Flush), Some(Fault::Fail));
        assert_eq!(parse("/dev/a flush", "/dev/a", Kind::Flush), None);
        assert_eq!(parse("", "/dev/a", Kind::Flush), None);
    }
}
