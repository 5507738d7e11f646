//! A small NBD client.

use super::LIMIT;
use kmod_shim::nbd::protocol::{RequestHeader, command};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection that has chosen the export.
pub struct Client(UnixStream);

impl Client {
    pub fn connect(path: &Path) -> Self {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.read_exact(&mut [0; 18]).unwrap();
        stream.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0").unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        Self(stream)
    }

    /// Sends a request and does not wait for its answer.
    pub fn ask(&mut self, command: u16, offset: u64, length: usize, payload: &[u8]) {
        let length = u32::try_from(length).unwrap();
        let header = RequestHeader { flags: 0, command, cookie: 5, offset, length };
        self.0.write_all(&header.encode()).unwrap();
        self.0.write_all(payload).unwrap();
    }

    /// The error of the next answer; 0 is success.
    pub fn answer(&mut self) -> u32 {
        let mut head = [0; 16];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!((&head[..4], head[15]), (&[0x67, 0x44, 0x66, 0x98][..], 5));
        u32::from_be_bytes([head[4], head[5], head[6], head[7]])
    }

    pub fn write(&mut self, offset: u64, payload: &[u8]) -> u32 {
        self.ask(command::WRITE, offset, payload.len(), payload);
        self.answer()
    }

    /// As [`write`](Self::write); `None` if the connection is lost.
    pub fn try_write(&mut self, offset: u64, payload: &[u8]) -> Option<u32> {
        let length = u32::try_from(payload.len()).ok()?;
        let header = RequestHeader { flags: 0, command: command::WRITE, cookie: 5, offset, length };
        let mut head = [0; 16];
        self.0.write_all(&[&header.encode()[..], payload].concat()).ok()?;
        self.0.read_exact(&mut head).ok()?;
        Some(u32::from_be_bytes([head[4], head[5], head[6], head[7]]))
    }

    pub fn flush(&mut self) -> u32 {
        self.ask(command::FLUSH, 0, 0, &[]);
        self.answer()
    }

    pub fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, u32> {
        self.ask(command::READ, offset, length, &[]);
        match self.answer() {
            0 => {
                let mut bytes = vec![0; length];
                self.0.read_exact(&mut bytes).unwrap();
                Ok(bytes)
            }
            error => Err(error),
        }
    }

    /// Whether the server has closed the connection, after what it still sent.
    pub fn is_closed(&mut self) -> bool {
        self.0.read(&mut [0]).unwrap_or(0) == 0
    }
}
