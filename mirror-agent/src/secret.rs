//! The secret that both servers share.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Shortest secret, in bytes.
pub const SECRET_MIN: usize = 16;
/// Longest secret file, in bytes.
const SECRET_MAX: usize = 4096;

/// The secret. Does not print itself.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Reads the secret. White space at its end does not count, so that an editor's newline on
    /// one server does no harm.
    ///
    /// # Errors
    /// The file cannot be read, is no regular file, is open to others than its owner, belongs to
    /// somebody else, or is too short or too long.
    pub fn load(path: &Path) -> io::Result<Self> {
        let refuse = |what: String| Err(io::Error::other(format!("{}: {what}", path.display())));
        let flags = nix::libc::O_NONBLOCK; // a fifo must not hang the start
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = match file {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return refuse(format!("cannot be read: {e}; make it with: clpmdsecret"));
            }
            Err(e) => return refuse(format!("cannot be read: {e}")),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return refuse("is no regular file".to_owned());
        }
        if meta.mode() & 0o177 != 0 {
            let mode = meta.mode() & 0o7777;
            return refuse(format!(
                "mode is {mode:04o}, must be 0600: chmod 600 {}",
                path.display()
            ));
        }
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            let (theirs, ours) = (meta.uid(), nix::unistd::geteuid());
            return refuse(format!(
                "belongs to user {theirs}, must belong to the agent's: chown {ours} {}",
                path.display()
            ));
        }
        let mut bytes = Vec::new();
        file.take(SECRET_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Self::parse(bytes).or_else(refuse)
    }

    /// The secret in the content of its file.
    ///
    /// # Errors
    /// Too short or too long.
    pub fn parse(mut bytes: Vec<u8>) -> Result<Self, String> {
        let len = bytes.trim_ascii_end().len();
        bytes.truncate(len);
        if !(SECRET_MIN..=SECRET_MAX).contains(&len) {
            return Err(format!("has {len} bytes, must have {SECRET_MIN} to {SECRET_MAX}"));
        }
        Ok(Self(bytes))
    }

    /// A secret from bytes, for tests and labs.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A key for one purpose.
    #[must_use]
    pub fn key(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_a_private_file_of_enough_bytes_is_taken() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("secret");
        let load = |bytes: &[u8], mode: u32| {
            fs::write(&path, bytes).expect("write");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
            Secret::load(&path).map(|s| s.bytes().to_vec()).map_err(|e| e.to_string())
        };
        assert_eq!(load(b"0123456789abcdef\n", 0o600), Ok(b"0123456789abcdef".to_vec()));
        assert!(load(b"0123456789abcdef", 0o640).expect_err("group").contains("0640"));
        assert!(load(b"0123456789abcdef", 0o604).expect_err("others").contains("0600"));
        let fix = format!("chmod 600 {}", path.display());
        assert!(load(b"0123456789abcdef", 0o644).expect_err("open to all").ends_with(&fix));
        assert!(load(b"0123456789abcde\n", 0o600).expect_err("short").contains("15 bytes"));
        assert!(load(&[7; 4097], 0o600).expect_err("long").contains("4097"));
        assert!(Secret::load(dir.path()).is_err());
        let none = Secret::load(&dir.path().join("none")).expect_err("not there");
        assert!(none.to_string().ends_with("make it with: clpmdsecret"), "{none}");
        assert_eq!(format!("{:?}", Secret::from_bytes(b"x")), "Secret(..)");
    }
}
