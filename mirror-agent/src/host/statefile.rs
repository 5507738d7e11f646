//! Small JSON files in the run folder that tell the next agent what this one has made.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// What the file is, for messages.
pub(super) fn what(path: &Path) -> String {
    format!("state file {}", path.display())
}

/// The content of a file; `None` if there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
        Ok(file) => file.take(MAX_BYTES).read_to_end(&mut bytes)?,
    };
    Ok(Some(bytes))
}

/// Reads a file; `None` if there is none.
///
/// # Errors
/// When there is one that cannot be understood: it is never taken for "nothing left".
pub(super) fn load<T: DeserializeOwned>(
    path: &Path,
    is_known: impl FnOnce(&T) -> bool,
) -> io::Result<Option<T>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let state = serde_json::from_slice(&bytes).map_err(|e| invalid(&e.to_string()))?;
    if is_known(&state) { Ok(Some(state)) } else { Err(invalid("of another version")) }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Writes a file; a reader sees the old or the new one.
pub(super) fn save(path: &Path, state: &impl Serialize) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("-new");
    let new = path.with_file_name(name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec_pretty(state)?)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// The kernel's identity of this boot.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
