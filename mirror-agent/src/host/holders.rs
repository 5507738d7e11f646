//! Who keeps a file system busy, and how to make them let go.

use super::mounts::{self, DevNo};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A process that uses a file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// What it uses: `working folder`, `root folder`, `program`, `open file`, `mapped file` or
    /// `device`.
    pub uses: &'static str,
}

const POLL: Duration = Duration::from_millis(50);

/// All processes of this pid namespace.
pub(super) fn processes() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// The processes that use the file system of device `dev`, this one and process 1 excluded.
#[must_use]
pub fn of(dev: DevNo) -> Vec<Holder> {
    let points: Vec<PathBuf> = mounts::current()
        .unwrap_or_default()
        .into_iter()
        .filter(|m| m.dev == dev)
        .map(|m| m.point)
        .collect();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let others = processes().into_iter().filter(|pid| *pid != own && *pid != 1);
    others.filter_map(|pid| holder(pid, dev, &points)).collect()
}

fn holder(pid: i32, dev: DevNo, points: &[PathBuf]) -> Option<Holder> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let uses = use_of(&proc, dev, points)?;
    Some(Holder { pid, name: name_of(pid), uses })
}

fn use_of(proc: &Path, dev: DevNo, points: &[PathBuf]) -> Option<&'static str> {
    let links = [("cwd", "working folder"), ("root", "root folder"), ("exe", "program")];
    for (link, uses) in links {
        if is_on(&proc.join(link), dev, points) {
            return Some(uses);
        }
    }
    let files = fs::read_dir(proc.join("fd")).into_iter().flatten().flatten();
    if files.into_iter().any(|f| is_on(&f.path(), dev, points)) {
        return Some("open file");
    }
    maps_device(&fs::read_to_string(proc.join("maps")).unwrap_or_default(), dev)
        .then_some("mapped file")
}

/// The processes that have the block device `path` itself open, this one excluded. Links are
/// compared, not followed.
#[must_use]
pub fn of_device(path: &Path) -> Vec<Holder> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let has_it = |pid: &i32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|f| fs::read_link(f.path()).is_ok_and(|target| target == path))
    };
    let others = processes().into_iter().filter(|pid| *pid != own).filter(has_it);
    others.map(|pid| Holder { pid, name: name_of(pid), uses: "device" }).collect()
}

fn name_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Whether a link of `/proc` leads onto the device. The path is looked at first, because asking
/// a file of some other, hanging file system for its device would hang as well.
fn is_on(link: &Path, dev: DevNo, points: &[PathBuf]) -> bool {
    let Ok(target) = fs::read_link(link) else { return false };
    points.iter().any(|p| target.starts_with(p))
        && fs::metadata(link).is_ok_and(|m| DevNo::from_stat(m.dev()) == dev)
}

/// Whether a `maps` table names the device (fourth column, hexadecimal).
fn maps_device(maps: &str, dev: DevNo) -> bool {
    maps.lines().any(|line| {
        let number = line.split_ascii_whitespace().nth(3).and_then(|f| f.split_once(':'));
        number.is_some_and(|(major, minor)| {
            u64::from_str_radix(major, 16) == Ok(dev.major)
                && u64::from_str_radix(minor, 16) == Ok(dev.minor)
        })
    })
}

/// Ends the processes that use the file system: SIGTERM, and SIGKILL for those that are still
/// there after `grace`. Returns those that were asked to go.
pub async fn end(dev: DevNo, grace: Duration) -> Vec<Holder> {
    let asked = signal_all(dev, Signal::SIGTERM);
    let end = Instant::now() + grace;
    while Instant::now() < end && !of(dev).is_empty() {
        sleep(POLL).await;
    }
    // Looked for anew: the number of one that has gone may belong to somebody else by now.
    signal_all(dev, Signal::SIGKILL);
    let end = Instant::now() + grace;
    while Instant::now() < end && !of(dev).is_empty() {
        sleep(POLL).await;
    }
    asked
}

fn signal_all(dev: DevNo, signal: Signal) -> Vec<Holder> {
    let holders = of(dev);
    for holder in &holders {
        tracing::warn!(pid = holder.pid, name = %holder.name, uses = holder.uses, %signal,
            "ending a process that uses the file system");
        let _ = kill(Pid::from_raw(holder.pid), signal); // ESRCH: it has gone by itself
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_compared_by_hexadecimal_device() {
        let maps =
            "7f00-7f10 r-xp 00000000 fd:1a 131 /m/lib.so (deleted)\n7f20-7f30 rw-p 0 00:00 0 \n";
        assert!(maps_device(maps, DevNo { major: 0xfd, minor: 0x1a }));
        assert!(!maps_device(maps, DevNo { major: 0xfd, minor: 0x1b }));
        assert!(!maps_device("garbage\n\n", DevNo { major: 0, minor: 0 }));
    }

    #[test]
    fn this_process_is_never_among_the_holders() {
        let here = fs::metadata("/").expect("root folder").dev();
        let own = i32::try_from(std::process::id()).expect("fits");
        assert!(of(DevNo::from_stat(here)).iter().all(|h| h.pid != own && h.pid != 1));
    }
}
