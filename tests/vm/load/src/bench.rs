//! Writes past the page cache at random places, some at a time, and how long they took.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::time::{Duration, Instant};

/// `O_DIRECT` on x86-64.
pub(crate) const DIRECT: i32 = 0o40000;
/// Of memory and places on the disk.
pub(crate) const ALIGN: usize = 4096;

/// What is to be measured.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// Part of the device that is written, in bytes.
    pub(crate) span: u64,
    /// How long.
    pub(crate) length: Duration,
    /// Bytes of one write, a multiple of 4096.
    pub(crate) piece: usize,
    /// Writes at a time.
    pub(crate) depth: u64,
}

/// Prints writes per second, and median and 99th percentile of their time in microseconds.
pub(crate) fn bench(device: &str, run: Run) -> io::Result<()> {
    let file = OpenOptions::new().write(true).custom_flags(DIRECT).open(device)?;
    let begin = Instant::now();
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..run.depth)
            .map(|n| {
                scope.spawn({
                    let file = &file;
                    move || write(file, run, n)
                })
            })
            .collect();
        for writer in writers {
            times.extend(writer.join().map_err(|_| io::Error::other("a writer died"))??);
        }
        Ok::<(), io::Error>(())
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).map_or(0, Duration::as_micros);
    println!("{:.0} {} {}", times.len() as f64 / seconds, at(50), at(99));
    Ok(())
}

fn write(file: &File, run: Run, seed: u64) -> io::Result<Vec<Duration>> {
    let data = vec![0xa5_u8; run.piece + ALIGN];
    let skip = data.as_ptr().align_offset(ALIGN);
    let piece = &data[skip..skip + run.piece];
    let (begin, mut state, mut times) = (Instant::now(), seed * 2 + 1, Vec::new());
    while begin.elapsed() < run.length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let offset = state % (run.span / run.piece as u64) * run.piece as u64;
        let before = Instant::now();
        file.write_all_at(piece, offset)?;
        times.push(before.elapsed());
    }
    Ok(times)
}
