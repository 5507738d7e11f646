//! For the bench only: makes a cluster partition say that its mirror has another size and that the
//! two servers are equal all over. **That is a lie unless nobody looks at the data.** It spares the
//! bench the construction of a mirror of a tebibyte.

use anyhow::{Context, Result, bail};
use clap::Parser;
use mirror_core::disk::bitmap_block::{self, WORDS_PER_BLOCK};
use mirror_core::disk::layout::{self, BLOCK_BYTES, SUPERBLOCK_A, SUPERBLOCK_B};
use mirror_core::disk::superblock::{self, Loaded};
use mirror_core::record::Record;
use mirror_core::units::regions_in;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Declares a constructed mirror, whose agents are not running, to be of another size and whole.
#[derive(Parser)]
#[command(name = "unsafe-whole")]
struct Arguments {
    /// The cluster partition
    cluster: PathBuf,
    /// Size of the mirror in bytes: that of the data partition, a multiple of 4096
    size: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&arguments.cluster)
        .with_context(|| format!("open {}", arguments.cluster.display()))?;
    let room = file.metadata()?.len();
    layout::Layout::new(arguments.size, room).context("the cluster partition")?;
    let mut record = load(&file)?;
    record.size = arguments.size;
    clear(&file, &record)?;
    let image = superblock::checked(&record).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        file.write_all_at(&image, at)?;
    }
    file.sync_all()?;
    Ok(())
}

fn load(mut file: &File) -> Result<Record> {
    let mut start = vec![0; usize::try_from(layout::BITMAP)?];
    file.read_exact(&mut start)?;
    let copy = |at: u64| {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        start.get(at..at + BLOCK_BYTES).unwrap_or_default()
    };
    match superblock::load(copy(SUPERBLOCK_A), copy(SUPERBLOCK_B)) {
        Loaded::Valid { record, .. } if record.size > 0 => Ok(*record),
        _ => bail!("this is not the cluster partition of a constructed mirror"),
    }
}

/// Nothing is marked.
fn clear(file: &File, record: &Record) -> Result<()> {
    for block in 0..layout::blocks_for(regions_in(record.size)) {
        let image = bitmap_block::encode(record.device, block, &[0; WORDS_PER_BLOCK]);
        file.write_all_at(&image, layout::bitmap_block_offset(block))?;
    }
    Ok(())
}
