//! Copies from one file to another: what a recovery could be at best if both disks are this one.

use crate::samples::Samples;
use anyhow::{Context, Result, ensure};
use nix::libc::O_DIRECT;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// Bytes of one read and one write.
const RUN: u32 = 1 << 20;
const ALIGN: usize = 4096;

/// Copies the first MiB of each `stride` bytes of a file, `depth` of them at a time.
pub(crate) fn copies(from: &Path, to: &Path, stride: u64, depth: u8) -> Result<Samples> {
    let source = open(from, OpenOptions::new().read(true))?;
    let target = open(to, OpenOptions::new().write(true))?;
    let len = source.metadata()?.len().min(target.metadata()?.len());
    let runs = len / stride;
    ensure!(runs > 0, "{}: smaller than one stride", from.display());
    let next = AtomicU64::new(0);
    let start = Instant::now();
    let times: io::Result<Vec<Vec<f64>>> = thread::scope(|scope| {
        let worker = || one_of_many(&source, &target, stride, runs, &next);
        let workers: Vec<_> = (0..depth).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|w| w.join().expect("a copy does not panic")).collect()
    });
    target.sync_data()?;
    Ok(Samples::of(times?.concat(), RUN, start.elapsed()))
}

fn open(path: &Path, how: &mut OpenOptions) -> Result<File> {
    how.custom_flags(O_DIRECT).open(path).with_context(|| format!("open {}", path.display()))
}

fn one_of_many(
    source: &File,
    target: &File,
    stride: u64,
    runs: u64,
    next: &AtomicU64,
) -> io::Result<Vec<f64>> {
    let mut room = vec![0_u8; RUN as usize + ALIGN];
    let start = room.as_ptr().align_offset(ALIGN);
    let block = &mut room[start..start + RUN as usize];
    let mut micros = Vec::new();
    loop {
        let run = next.fetch_add(1, Ordering::Relaxed);
        if run >= runs {
            return Ok(micros);
        }
        let begin = Instant::now();
        source.read_exact_at(block, run * stride)?;
        target.write_all_at(block, run * stride)?;
        micros.push(begin.elapsed().as_secs_f64() * 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runs_and_nothing_between_them_are_copied() {
        let name =
            |what| std::env::temp_dir().join(format!("limits.{what}.{}", std::process::id()));
        let (from, to) = (name("from"), name("to"));
        std::fs::write(&from, vec![7; 8 << 20]).unwrap();
        std::fs::write(&to, vec![0; 8 << 20]).unwrap();
        let done = copies(&from, &to, 4 << 20, 3);
        let got = std::fs::read(&to).unwrap();
        std::fs::remove_file(&from).unwrap();
        std::fs::remove_file(&to).unwrap();
        assert!(done.unwrap().json()["mbps"].as_f64().unwrap() > 0.0);
        let sevens = |mib: usize| got[mib << 20..(mib + 1) << 20].iter().all(|b| *b == 7);
        assert!(sevens(0) && sevens(4) && !sevens(1) && !sevens(3) && !sevens(5));
    }
}
