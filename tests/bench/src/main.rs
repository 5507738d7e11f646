//! What the machine itself allows, measured beside the mirror: one direct write to the local disk,
//! one round trip of the bytes of a mirrored write, one copy in memory.
//!
//! `scripts/bench` computes from these what no mirror can beat.

mod disk;
mod files;
mod memory;
mod net;
mod samples;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Measures a limit and prints it as one line of JSON; times are microseconds.
#[derive(Parser)]
#[command(name = "limits")]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Length of a measurement, in seconds
    #[arg(long, global = true, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

#[derive(Subcommand)]
enum What {
    /// Answers round trips until it is killed; says "ready" when it listens
    Serve {
        /// Where to listen
        address: SocketAddr,
    },
    /// Sends a request of SIZE bytes and waits for a short answer, one after the other
    RoundTrip {
        /// Where `limits serve` listens
        address: SocketAddr,
        /// Bytes of a request
        #[arg(long, default_value_t = 4096 + 32)]
        size: u32,
        /// Requests on their way at a time: more than one fills the line
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
        depth: u8,
    },
    /// Direct writes of 4 KiB at random places of a file, one after the other
    Write {
        /// A file whose every block has been written
        file: PathBuf,
        /// Flush after each
        #[arg(long)]
        flush: bool,
    },
    /// Copies of SIZE bytes from one buffer to another
    Copy {
        /// Bytes of one copy
        #[arg(long, default_value_t = 1 << 20)]
        size: u32,
    },
    /// Copies the first MiB of each STRIDE bytes of a file to another of the same size, once
    CopyFile {
        /// What is read, with direct I/O
        from: PathBuf,
        /// What is written, with direct I/O and a flush at the end
        to: PathBuf,
        /// 1 MiB copies everything
        #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1 << 20..))]
        stride: u64,
        /// Copies at a time
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
        depth: u8,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let length = Duration::from_secs(arguments.seconds);
    let samples = match arguments.what {
        What::Serve { address } => return net::serve(address),
        What::RoundTrip { address, size, depth } => net::round_trips(address, size, depth, length)?,
        What::Write { file, flush } => disk::writes(&file, flush, length)?,
        What::CopyFile { from, to, stride, depth } => files::copies(&from, &to, stride, depth)?,
        What::Copy { size } => memory::copies(size, length),
    };
    println!("{}", samples.json());
    Ok(())
}
