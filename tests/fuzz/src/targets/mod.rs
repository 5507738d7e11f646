//! The targets.

use crate::Target;

mod agents_link;
mod bitmap;
mod config;
mod control;
mod drivers;
mod files;
mod frame;
mod handshake;
mod lying_frames;
mod lying_honest;
mod lying_peer;
mod nbd;
mod partition;
mod stream;
mod superblock;

/// All of them. `scripts/fuzz` reads this table, one line each.
#[rustfmt::skip]
pub const TARGETS: &[Target] = &[
    Target { name: "superblock", run: superblock::run, max_len: 1200, runs: 20000 },
    Target { name: "bitmap", run: bitmap::run, max_len: 256, runs: 10000 },
    Target { name: "partition", run: partition::run, max_len: 1200, runs: 4000 },
    Target { name: "frame", run: frame::run, max_len: 2048, runs: 30000 },
    Target { name: "handshake", run: handshake::run, max_len: 512, runs: 5000 },
    Target { name: "stream", run: stream::run, max_len: 2048, runs: 3000 },
    Target { name: "lying_peer", run: lying_peer::run, max_len: 2048, runs: 1500 },
    Target { name: "nbd", run: nbd::run, max_len: 1024, runs: 10000 },
    Target { name: "drivers", run: drivers::run, max_len: 512, runs: 50000 },
    Target { name: "config", run: config::run, max_len: 4096, runs: 3000 },
    Target { name: "control", run: control::run, max_len: 2048, runs: 10000 },
    Target { name: "agents_link", run: agents_link::run, max_len: 2048, runs: 3000 },
    Target { name: "files", run: files::run, max_len: 4200, runs: 5000 },
];
