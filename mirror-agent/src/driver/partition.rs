//! Opening a partition: for this process alone, with direct I/O.

use super::sys;
use kmod_shim::sys::Fd;
use mirror_core::buf::{Buf, BufMut};
use mirror_core::disk::layout::room;
use mirror_core::units::MAX_MIRROR_BYTES;
use nix::fcntl::OFlag;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

const RETRY: Duration = Duration::from_millis(50);
/// Taken for a regular file if the kernel does not tell.
const DEFAULT_BLOCK: u32 = 4096;

/// Why a partition cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process uses it, or a predecessor's I/O is still in flight.
    #[error("{path}: in use by another process, or I/O of a former one has not ended")]
    InUse {
        /// The partition.
        path: PathBuf,
    },
    /// Something else.
    #[error("{path}: {source}")]
    Io {
        /// The partition.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An open partition (block device or regular file), locked for as long as any I/O on it lasts.
///
/// The lock is on the very open file that the I/O goes through. An operation in flight keeps the
/// open file, and so the lock, alive even after the process was killed: a successor gets the
/// partition only when nothing of its predecessor can land any more.
#[derive(Clone, Debug)]
pub struct Partition {
    path: PathBuf,
    file: Fd,
    size: u64,
    block: u32,
}

impl Partition {
    /// Opens `path` and waits up to `wait` for the lock.
    ///
    /// # Errors
    /// It stays in use, or cannot be opened for direct I/O.
    pub fn open(path: &Path, wait: Duration) -> Result<Self, OpenError> {
        let deadline = Instant::now() + wait;
        loop {
            match Self::try_open(path) {
                Ok(partition) => return Ok(partition),
                Err(source) if !is_in_use(&source) => {
                    return Err(OpenError::Io { path: path.to_owned(), source });
                }
                Err(_) if Instant::now() >= deadline => {
                    return Err(OpenError::InUse { path: path.to_owned() });
                }
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }

    fn try_open(path: &Path) -> io::Result<Self> {
        let device = std::fs::metadata(path)?.file_type().is_block_device();
        let mut flags = OFlag::O_DIRECT | OFlag::O_CLOEXEC;
        if device {
            flags |= OFlag::O_EXCL; // keeps mounts away
        }
        let file = File::options().read(true).write(true).custom_flags(flags.bits()).open(path)?;
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
        let file = OwnedFd::from(file);
        sys::lock(&file)?;
        let block = if device {
            sys::device_block(&file)?
        } else {
            sys::file_block(&file).unwrap_or(DEFAULT_BLOCK)
        };
        Ok(Self { path: path.to_owned(), file: Arc::new(file), size, block })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes, when it was measured last.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Measures it again: its owner may have made it larger. What was known stays, if it cannot be
    /// told.
    pub(super) fn measure(&mut self) {
        let now = self.plain().and_then(|file| io::Seek::seek(&mut &file, io::SeekFrom::End(0)));
        self.size = now.unwrap_or(self.size);
    }

    /// Bytes of a mirror with this data partition and its marks on `cluster`: whole blocks, and no
    /// more than both have room for.
    #[must_use]
    pub fn usable(&self, cluster: &Self) -> u64 {
        let block = u64::from(self.block).max(1);
        let size = self.size / block * block;
        size.min(room(cluster.size)).min(MAX_MIRROR_BYTES)
    }

    /// Logical block size in bytes: offsets and lengths are multiples of it.
    #[must_use]
    pub fn block(&self) -> u32 {
        self.block
    }

    pub(super) fn file(&self) -> Fd {
        self.file.clone()
    }

    /// Reads `len` bytes at `offset` and waits for them, for the time before the driver runs. Both
    /// are multiples of the block size.
    ///
    /// # Errors
    /// The disk's, or the range goes beyond the end.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Buf> {
        let mut buf = BufMut::zeroed(len);
        self.plain()?.read_exact_at(&mut buf, offset)?;
        Ok(buf.freeze())
    }

    /// Writes `bytes` at `offset` and waits until they are durable, for the time before the
    /// driver runs.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, offset: u64, bytes: &Buf) -> io::Result<()> {
        let file = self.plain()?;
        file.write_all_at(bytes, offset)?;
        file.sync_data()
    }

    fn plain(&self) -> io::Result<File> {
        self.file.try_clone().map(File::from)
    }
}

fn is_in_use(e: &io::Error) -> bool {
    use nix::libc::{EBUSY, EWOULDBLOCK};
    matches!(e.raw_os_error(), Some(EBUSY | EWOULDBLOCK))
}
