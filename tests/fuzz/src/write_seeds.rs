//! Writes the seeds of every target into a folder: `fuzz-seeds FOLDER`. They come from the real
//! encoders, so they follow the formats; `scripts/fuzz --merge` takes them into the corpora.

use mirror_fuzz::seeds;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).ok_or_else(|| io::Error::other("fuzz-seeds FOLDER"))?;
    for target in mirror_fuzz::TARGETS {
        let folder = Path::new(&folder).join(target.name);
        fs::create_dir_all(&folder)?;
        for (n, seed) in seeds::of(target.name).iter().enumerate() {
            assert!(seed.len() <= target.max_len, "{} {n}: too long", target.name);
            fs::write(folder.join(format!("seed-{n:03}")), seed)?;
        }
    }
    Ok(())
}
