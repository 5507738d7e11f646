//! Which partitions lie on a disk.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Whether `partition` is `disk` itself or lies on it. Block devices are compared by what the
/// kernel knows of them, through device-mapper and the like down to the disk; anything else by
/// its path.
///
/// # Errors
/// One of them is not there.
pub fn lies_on(partition: &Path, disk: &Path) -> io::Result<bool> {
    let (p, d) = (fs::metadata(partition)?, fs::metadata(disk)?);
    if !p.file_type().is_block_device() || !d.file_type().is_block_device() {
        return Ok(fs::canonicalize(partition)? == fs::canonicalize(disk)?);
    }
    if p.rdev() == d.rdev() {
        return Ok(true);
    }
    let (p, d) = (sysfs(p.rdev())?, sysfs(d.rdev())?);
    Ok(reaches(&p, &d, 0))
}

fn sysfs(dev: u64) -> io::Result<PathBuf> {
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))
}

/// Levels of devices upon devices that are followed.
const DEPTH: usize = 8;

/// A partition's folder lies in its disk's; a stacked device names what it stands on under
/// `slaves`.
fn reaches(device: &Path, disk: &Path, depth: usize) -> bool {
    if device.starts_with(disk) {
        return true;
    }
    if depth == DEPTH {
        return false;
    }
    let below = fs::read_dir(device.join("slaves")).into_iter().flatten().flatten();
    below.filter_map(|e| fs::canonicalize(e.path()).ok()).any(|p| reaches(&p, disk, depth + 1))
}

#[cfg(test)]
mod tests {
    use super::{lies_on, reaches};
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_are_compared_by_path() {
        let dir = tempfile::tempdir().expect("folder");
        let (a, b, link) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("l"));
        fs::write(&a, "").expect("file");
        fs::write(&b, "").expect("file");
        symlink(&a, &link).expect("link");
        assert!(lies_on(&a, &link).expect("there"));
        assert!(!lies_on(&a, &b).expect("there"));
        assert!(lies_on(&a, &dir.path().join("none")).is_err());
    }

    /// The kernel's tree, laid out in a folder: sdb, sdb1 on it, dm-0 on sdb1, sdbc beside it.
    #[test]
    fn partitions_and_stacked_devices_reach_their_disk() {
        let dir = tempfile::tempdir().expect("folder");
        let root = fs::canonicalize(dir.path()).expect("path");
        for d in ["block/sdb/sdb1", "block/sdbc/sdbc1", "virtual/dm-0/slaves"] {
            fs::create_dir_all(root.join(d)).expect("folder");
        }
        let (sdb, sdb1) = (root.join("block/sdb"), root.join("block/sdb/sdb1"));
        symlink(&sdb1, root.join("virtual/dm-0/slaves/sdb1")).expect("link");
        assert!(reaches(&sdb1, &sdb, 0));
        assert!(reaches(&root.join("virtual/dm-0"), &sdb, 0));
        assert!(!reaches(&root.join("block/sdbc/sdbc1"), &sdb, 0));
        symlink(root.join("virtual/dm-0"), root.join("virtual/dm-0/slaves/self")).expect("loop");
        assert!(!reaches(&root.join("virtual/dm-0"), &root.join("block/sdbc"), 0), "ends");
    }
}
