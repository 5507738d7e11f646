//! What the text of the configuration does not show: two names for one partition, and its size.

use super::mistakes::{ConfigError, Fault, Mistakes};
use super::model::Config;
use mirror_core::units::MAX_MIRROR_BYTES;
use std::collections::HashMap;
use std::fs;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// What a path leads to: a block device by its number, anything else by its place.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    Device(u64),
    File(u64, u64),
}

/// `None` for what is not there.
fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok()?;
    Some(if meta.file_type().is_block_device() {
        Identity::Device(meta.rdev())
    } else {
        Identity::File(meta.dev(), meta.ino())
    })
}

/// Bytes of a block device or file; `None` for what is not there or cannot be opened.
fn size(path: &Path) -> Option<u64> {
    let kind = fs::metadata(path).ok()?.file_type();
    // Anything else might be waited for at the open.
    if !kind.is_block_device() && !kind.is_file() {
        return None;
    }
    fs::File::open(path).ok()?.seek(SeekFrom::End(0)).ok()
}

impl Config {
    /// Whether the partitions on this server can be mirrors: really different ones (a link or a
    /// second name may hide that a cluster partition is somebody's data), and none too large.
    ///
    /// # Errors
    /// Two of them are one (both names are told), or a data partition has more bytes than
    /// [`MAX_MIRROR_BYTES`]; all that are so are told.
    pub fn check_partitions(&self) -> Result<(), ConfigError> {
        let mistakes = Mistakes::of(&self.file);
        let side = self.side.index();
        let mut seen: HashMap<Identity, String> = HashMap::new();
        for m in &self.mirrors {
            let p = &m.partitions[side];
            for (key, path) in [("data_partition", &p.data), ("cluster_partition", &p.cluster)] {
                let Some(identity) = identity(path) else { continue };
                let who = format!("[[mirror]] {}: {key} = {}", m.name, path.display());
                if let Some(other) = seen.get(&identity) {
                    let what = format!("{who}: the same partition as {other}");
                    mistakes.whole(Fault::File, what);
                    continue;
                }
                seen.insert(identity, who);
            }
            if let Some(bytes) = size(&p.data).filter(|bytes| *bytes > MAX_MIRROR_BYTES) {
                let what = format!(
                    "[[mirror]] {}: data_partition = {}: it has {bytes} bytes, a mirror at most {MAX_MIRROR_BYTES}",
                    m.name,
                    p.data.display()
                );
                mistakes.whole(Fault::File, what);
            }
        }
        mistakes.into_error("").map_or(Ok(()), Err)
    }
}
