//! Frames of the agents' link: length of the payload (4 bytes), payload, tag.
//!
//! The tag covers the frame's number, its length and its payload. It has 32 bytes; on an encrypted
//! link the payload cannot be read, and its tag has 16. The reader's memory grows with what has
//! arrived, never with what a length announces.

use super::hello::Keys;
use mirror_core::buf::BufMut;
use mirror_core::wire::cipher::{Cipher, SEAL_BYTES};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest payload in bytes.
pub const FRAME_MAX: usize = 64 * 1024;

const TAG_LEN: usize = 32;

/// A connection after the hellos.
pub(super) struct Channel<S> {
    stream: S,
    keys: Keys,
}

/// What protects one direction, at the place where it is.
pub(super) enum Protection {
    /// Readable frames with a tag.
    Tags { key: [u8; 32], number: u64 },
    /// Encrypted frames.
    Encrypts(Box<Cipher>),
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn not_authentic() -> io::Error {
    invalid("a message is not authentic: do both servers have the same secret?")
}

fn tag(key: &[u8; 32], number: u64, payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&number.to_le_bytes());
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

impl Protection {
    const fn tag_len(&self) -> usize {
        match self {
            Self::Tags { .. } => TAG_LEN,
            Self::Encrypts(_) => SEAL_BYTES,
        }
    }

    /// Payload and tag as they are sent.
    pub(super) fn seal(&mut self, payload: &[u8]) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Tags { key, number } => {
                let tag = tag(key, *number, payload);
                *number += 1;
                [payload, tag.as_bytes()].concat()
            }
            Self::Encrypts(cipher) => {
                let sealed = cipher.seal_payload(payload).to_vec();
                cipher.advance().map_err(io::Error::other)?;
                sealed
            }
        })
    }

    /// The payload in what was received.
    fn open(&mut self, mut received: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::Tags { key, number } => {
                let at = received.len().checked_sub(TAG_LEN).ok_or_else(not_authentic)?;
                let theirs: [u8; TAG_LEN] =
                    received[at..].try_into().map_err(|_| not_authentic())?;
                received.truncate(at);
                // The comparison of hashes takes the same time wherever they differ.
                if tag(key, *number, &received) != blake3::Hash::from_bytes(theirs) {
                    return Err(not_authentic());
                }
                *number += 1;
                Ok(received)
            }
            Self::Encrypts(cipher) => {
                let sealed = BufMut::copied_from(&received);
                let payload = cipher.open_payload(sealed).ok_or_else(not_authentic)?;
                cipher.advance().map_err(io::Error::other)?;
                Ok(payload.to_vec())
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    pub(super) fn new(stream: S, keys: Keys) -> Self {
        Self { stream, keys }
    }

    pub(super) async fn send<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        let payload = serde_json::to_vec(value)?;
        let len = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= FRAME_MAX);
        let len = len.ok_or_else(|| invalid("a message is too long"))?;
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend(self.keys.send.seal(&payload)?);
        self.stream.write_all(&bytes).await
    }

    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let payload = self.receive_bytes().await?;
        Ok(serde_json::from_slice(&payload)?)
    }

    async fn receive_bytes(&mut self) -> io::Result<Vec<u8>> {
        let len = self.stream.read_u32_le().await?;
        let len = usize::try_from(len).ok().filter(|n| *n <= FRAME_MAX);
        let len = len.ok_or_else(|| invalid("a message is too long"))?;
        let whole = len + self.keys.receive.tag_len();
        let mut received = Vec::new();
        (&mut self.stream).take(whole as u64).read_to_end(&mut received).await?;
        if received.len() != whole {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.keys.receive.open(received)
    }
}
