//! The application of the two-machine lab: numbered records, each durable before the next.
//!
//! - `lab-load write FILE ACKS FROM`: records from number FROM on, until FILE.stop appears. Each is
//!   written and synced to disk; then a line `number milliseconds` goes to ACKS. At the first error
//!   `error number errno` goes there, and the program ends with 1.
//! - `lab-load check FILE LAST`: every record up to LAST whose place was not written again is there,
//!   whole and to the byte.
//! - `lab-load verify FILE ACKS FROM`: four writers past the page cache that read back what they wrote;
//!   acknowledgements, the stop and errors as for `write`.
//! - `lab-load bench DEVICE MIB SECONDS BYTES DEPTH`: writes past the page cache at random places of
//!   the first MIB; prints writes per second, and median and 99th percentile of their microseconds.
//!
//! Records lie in turn in places of 64 KiB; every eighth fills its place, the others are of 4 KiB.
//! The place of record LAST + 1 says nothing: it may have been on its way.

mod bench;
mod verify;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PLACES: u64 = 192;
const PLACE: u64 = 64 * 1024;
const SMALL: u64 = 4096;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = match words[..] {
        ["write", file, acks, from] => number(from).and_then(|n| write(file, acks, n)),
        ["verify", file, acks, from] => number(from).and_then(|n| verify::verify(file, acks, n)),
        ["check", file, last] => number(last).and_then(|n| check(file, n)),
        ["bench", device, mib, seconds, bytes, depth] => {
            run_of(mib, seconds, bytes, depth).and_then(|run| bench::bench(device, run))
        }
        _ => Err(io::Error::other(
            "usage: lab-load write FILE ACKS FROM | check FILE LAST | verify ... | bench ...",
        )),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lab-load: {e}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| io::Error::other(format!("{text} is no number")))
}

fn run_of(mib: &str, seconds: &str, bytes: &str, depth: &str) -> io::Result<bench::Run> {
    let piece = usize::try_from(number(bytes)?).map_err(io::Error::other)?;
    let length = Duration::from_secs(number(seconds)?);
    Ok(bench::Run { span: number(mib)? << 20, length, piece, depth: number(depth)? })
}

/// The bytes of a record: its number, then what follows from it.
fn record(number: u64) -> Vec<u8> {
    let length = if number % 8 == 0 { PLACE } else { SMALL };
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = number.to_le_bytes().to_vec();
    for _ in 1..length / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data
}

fn place(number: u64) -> u64 {
    number % PLACES * PLACE
}

fn write(path: &str, acks: &str, from: u64) -> io::Result<()> {
    let stop = format!("{path}.stop");
    let mut acks = OpenOptions::new().append(true).open(acks)?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let begin = Instant::now();
    let mut number = from;
    while !Path::new(&stop).exists() {
        if let Err(e) = write_one(&file, number) {
            let _ = writeln!(acks, "error {number} {}", e.raw_os_error().unwrap_or(0));
            return Err(e);
        }
        // One write: the line must not be torn by the end of the machine.
        acks.write_all(format!("{number} {}\n", begin.elapsed().as_millis()).as_bytes())?;
        number += 1;
    }
    Ok(())
}

fn write_one(file: &File, number: u64) -> io::Result<()> {
    file.write_all_at(&record(number), place(number))?;
    file.sync_data()
}

fn check(path: &str, last: u64) -> io::Result<()> {
    let file = File::open(path)?;
    let first = (last + 2).saturating_sub(PLACES).max(1);
    let mut bad = 0;
    for number in first..=last {
        let expected = record(number);
        let mut found = vec![0; expected.len()];
        let whole = file.read_exact_at(&mut found, place(number));
        if whole.is_err() || found != expected {
            let there = found.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
            eprintln!(
                "record {number}: {}",
                match whole {
                    Err(e) => format!("not readable: {e}"),
                    Ok(()) if there == number => "torn".into(),
                    Ok(()) => format!("record {there} is in its place"),
                }
            );
            bad += 1;
        }
    }
    println!("{} records looked at, {bad} wrong", (last + 1).saturating_sub(first));
    if bad > 0 { Err(io::Error::other("acknowledged records are lost")) } else { Ok(()) }
}
