//! Making a cluster partition blank: all zero, which means *never used*.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The part that is made durable first: both copies of the superblock lie in it. After that the
/// partition counts as never used, whatever becomes of the rest.
const HEAD: u64 = 1024 * 1024;
const CHUNK: usize = 1024 * 1024;

/// Opens a partition for this process alone: a block device that is mounted or otherwise in use
/// is refused by the kernel (`O_EXCL`); a file that another process holds, by the lock.
///
/// # Errors
/// It is not there, in use, or neither a block device nor a file.
pub fn open(path: &Path) -> io::Result<File> {
    let kind = std::fs::metadata(path)?.file_type();
    if !kind.is_block_device() && !kind.is_file() {
        return Err(io::Error::other("neither a block device nor a file"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if kind.is_block_device() {
        options.custom_flags(nix::libc::O_EXCL);
    }
    options.open(path)
}

/// Takes the lock on `file` that the agent's I/O holds, or fails at once.
///
/// # Errors
/// Some process still has I/O on it.
pub fn lock(file: File) -> io::Result<nix::fcntl::Flock<File>> {
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|(_, e)| io::Error::from(e))
}

/// Bytes of `file`, a block device or a file.
///
/// # Errors
/// It cannot be told.
pub fn size(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Writes zeros over all of `file`, the superblocks durably first.
///
/// # Errors
/// A write failed; the command can be given again.
pub fn zero(file: &mut File) -> io::Result<u64> {
    let size = size(file)?;
    let head = HEAD.min(size);
    zero_range(file, 0, head)?;
    file.sync_all()?;
    zero_range(file, head, size)?;
    file.sync_all()?;
    Ok(size)
}

/// Zeros where there are none yet, so that a sparse file or a fresh disk costs a read.
fn zero_range(file: &mut File, mut at: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0_u8; CHUNK];
    let mut found = vec![0_u8; CHUNK];
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        file.seek(SeekFrom::Start(at))?;
        // A part that cannot be read is written, which lets the disk replace it.
        let blank = file.read_exact(&mut found[..len]).is_ok() && found[..len] == zeros[..len];
        if !blank {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&zeros[..len])?;
        }
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{lock, open, zero};
    use std::io::Write as _;

    #[test]
    fn all_of_it_becomes_zero_and_its_size_stays() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("cp");
        for len in [1_usize, 4096, 1024 * 1024 + 4096, 3 * 1024 * 1024 + 1] {
            std::fs::File::create(&path).expect("file").write_all(&vec![0xa5; len]).expect("fill");
            let mut file = open(&path).expect("open");
            assert_eq!(zero(&mut file).expect("zero"), len as u64);
            let bytes = std::fs::read(&path).expect("read");
            assert!(bytes.len() == len && bytes.iter().all(|b| *b == 0), "{len}");
        }
    }

    #[test]
    fn what_is_in_use_or_no_partition_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("cp");
        std::fs::write(&path, b"x").expect("file");
        let held = lock(open(&path).expect("open")).expect("free");
        assert!(lock(open(&path).expect("open")).is_err());
        drop(held);
        assert!(lock(open(&path).expect("open")).is_ok());
        assert!(open(dir.path()).is_err());
        assert!(open(&dir.path().join("none")).is_err());
    }
}
