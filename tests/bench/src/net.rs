//! Round trips over TCP: a request as large as a mirrored write, an answer as short as its ack.

use crate::samples::Samples;
use anyhow::{Context, Result};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const ANSWER: [u8; 32] = [0; 32];
/// Largest request that is answered.
const MAX_REQUEST: u32 = 64 << 20;

/// Answers whoever comes, one after the other. A connection says first how long its requests are.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept().context("accept")?;
        // The other end is gone when its measurement is over.
        let _ended = answer(stream);
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = u32::from_le_bytes(size);
    if size == 0 || size > MAX_REQUEST {
        return Err(io::Error::other("a request of no size"));
    }
    let mut request = vec![0; size as usize];
    loop {
        stream.read_exact(&mut request)?;
        stream.write_all(&ANSWER)?;
    }
}

/// Requests of `size` bytes, each sent when all but `depth - 1` of those before have been answered.
pub(crate) fn round_trips(
    address: SocketAddr,
    size: u32,
    depth: u8,
    length: Duration,
) -> Result<Samples> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.write_all(&size.to_le_bytes())?;
    let request = vec![0; size as usize];
    let mut answer = ANSWER;
    for _ in 1..depth {
        stream.write_all(&request)?;
    }
    Ok(Samples::take(length, size, || {
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn requests_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || answer(listener.accept().unwrap().0));
        let samples = round_trips(address, 4128, 3, Duration::from_millis(20)).unwrap();
        assert!(samples.json()["iops"].as_f64().unwrap() > 0.0);
        assert!(server.join().unwrap().is_err(), "it ends with its connection");
    }

    #[test]
    fn a_size_beyond_the_bound_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(answer(listener.accept().unwrap().0).is_err());
    }
}
