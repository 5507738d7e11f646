//! Inputs to begin with, out of the real encoders and of scripts in the language of each target.

mod agents;
mod disk;
mod drivers;
mod nbd;
mod peer;
mod wire;

/// The seeds of a target.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "superblock" => disk::superblocks(),
        "bitmap" => disk::bitmaps(),
        "partition" => disk::partitions(),
        "frame" => wire::frames(),
        "handshake" => wire::handshakes(),
        "stream" => wire::streams(),
        "lying_peer" => peer::scripts(),
        "nbd" => nbd::scripts(),
        "drivers" => drivers::answers(),
        "config" => agents::configs(),
        "control" => agents::lines(),
        "agents_link" => agents::questions(),
        "files" => agents::files(),
        _ => Vec::new(),
    }
}
