//! Two names for one partition, which the text of the configuration does not show.

use super::mistakes::{ConfigError, Fault, Mistakes};
use super::model::Config;
use std::collections::HashMap;
use std::fs;
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

impl Config {
    /// Whether the partitions on this server are really different ones: a link or a second name
    /// may hide that a cluster partition is somebody's data.
    ///
    /// # Errors
    /// Two of them are one; both names are told, for all that are so.
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
        }
        mistakes.into_error("").map_or(Ok(()), Err)
    }
}
