//! Direct writes to a file.

use crate::samples::Samples;
use anyhow::{Context, Result, ensure};
use nix::libc::O_DIRECT;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

const BLOCK: usize = 4096;

/// Writes of 4 KiB at random places, one after the other, each flushed if `flush` is set.
pub(crate) fn writes(path: &Path, flush: bool, length: Duration) -> Result<Samples> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(O_DIRECT)
        .open(path)
        .with_context(|| format!("open {} for direct writes", path.display()))?;
    let blocks = file.metadata()?.len() / BLOCK as u64;
    ensure!(blocks > 0, "{}: smaller than one block", path.display());
    let room = vec![0_u8; 2 * BLOCK];
    let start = room.as_ptr().align_offset(BLOCK);
    let block = &room[start..start + BLOCK];
    let mut place = 0_u64;
    Ok(Samples::take(length, 4096, || {
        place = next(place);
        file.write_all_at(block, place % blocks * BLOCK as u64)?;
        if flush { file.sync_data() } else { Ok::<(), io::Error>(()) }
    })?)
}

/// A sequence that goes everywhere and is the same each time.
fn next(place: u64) -> u64 {
    place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_block_is_refused() {
        let path = std::env::temp_dir().join(format!("limits.{}", std::process::id()));
        std::fs::write(&path, b"x").unwrap();
        let error = writes(&path, false, Duration::from_millis(1)).err().map(|e| e.to_string());
        std::fs::remove_file(&path).unwrap();
        assert!(error.is_some());
    }
}
