//! Frames of the agents' link: length (4 bytes), payload, tag (32 bytes).
//!
//! The tag covers the frame's number, its length and its payload. The reader's memory grows with
//! what has arrived, never with what a length announces.

use super::hello::Keys;
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
    sent: u64,
    received: u64,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn tag(key: &[u8; 32], number: u64, payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&number.to_le_bytes());
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    pub(super) fn new(stream: S, keys: Keys) -> Self {
        Self { stream, keys, sent: 0, received: 0 }
    }

    pub(super) async fn send<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        let payload = serde_json::to_vec(value)?;
        let len = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= FRAME_MAX);
        let len = len.ok_or_else(|| invalid("a message is too long"))?;
        let tag = tag(&self.keys.send, self.sent, &payload);
        self.sent += 1;
        let mut bytes = Vec::with_capacity(4 + payload.len() + TAG_LEN);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(tag.as_bytes());
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
        let mut payload = Vec::new();
        (&mut self.stream).take(len as u64).read_to_end(&mut payload).await?;
        let mut theirs = [0; TAG_LEN];
        self.stream.read_exact(&mut theirs).await?;
        let ours = tag(&self.keys.receive, self.received, &payload);
        // The comparison of hashes takes the same time wherever they differ.
        if payload.len() != len || ours != blake3::Hash::from_bytes(theirs) {
            return Err(invalid(
                "a message is not authentic: do both servers have the same secret?",
            ));
        }
        self.received += 1;
        Ok(payload)
    }
}
