//! The first bytes of a connection, and the keys that follow from them.

use crate::secret::Secret;
use mirror_core::units::Side;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Length of a hello: magic 8, version 2, side 1, zero 5, nonce 32.
const HELLO_LEN: usize = 48;
const MAGIC: [u8; 8] = *b"CLPMDAG1";
/// Version of the link; both sides must speak the same.
const VERSION: u16 = 1;

const PURPOSE: &str = "clpmdagent link between agents, version 1";

/// One side's hello.
pub(super) struct Hello {
    bytes: [u8; HELLO_LEN],
}

impl Hello {
    fn new(side: Side) -> io::Result<Self> {
        let mut bytes = [0; HELLO_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = side_number(side);
        getrandom::fill(&mut bytes[16..]).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self { bytes })
    }

    /// Checks a hello that must come from `side`.
    fn check(bytes: [u8; HELLO_LEN], side: Side) -> io::Result<Self> {
        let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if bytes[..8] != MAGIC {
            return refuse("not an agent of this kind".to_owned());
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return refuse(format!("the link's version is {version} there and {VERSION} here"));
        }
        if bytes[10] != side_number(side) || bytes[11..16] != [0; 5] {
            return refuse("the other agent takes itself for another server".to_owned());
        }
        Ok(Self { bytes })
    }
}

const fn side_number(side: Side) -> u8 {
    match side {
        Side::First => 1,
        Side::Second => 2,
    }
}

/// The keys of one connection.
pub(super) struct Keys {
    /// For what this side sends.
    pub(super) send: [u8; 32],
    /// For what the other side sends.
    pub(super) receive: [u8; 32],
}

/// The keys follow from the secret and every byte of both hellos. Each direction has its own, so
/// that no frame can be sent back to its author.
fn keys(secret: &Secret, dialler: &Hello, acceptor: &Hello, dialled: bool) -> Keys {
    let master = secret.key(PURPOSE);
    let derive = |direction: &[u8]| {
        let mut hasher = blake3::Hasher::new_keyed(&master);
        hasher.update(direction).update(&dialler.bytes).update(&acceptor.bytes);
        *hasher.finalize().as_bytes()
    };
    let (out, back) = (derive(b"dialler -> acceptor"), derive(b"acceptor -> dialler"));
    if dialled { Keys { send: out, receive: back } } else { Keys { send: back, receive: out } }
}

/// Exchanges hellos. Nothing is proven yet: the first frame with a good tag does that.
pub(super) async fn exchange<S>(
    stream: &mut S,
    secret: &Secret,
    own: Side,
    dialled: bool,
) -> io::Result<Keys>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mine = Hello::new(own)?;
    stream.write_all(&mine.bytes).await?;
    let mut bytes = [0; HELLO_LEN];
    stream.read_exact(&mut bytes).await?;
    let theirs = Hello::check(bytes, own.other())?;
    let (dialler, acceptor) = if dialled { (&mine, &theirs) } else { (&theirs, &mine) };
    Ok(keys(secret, dialler, acceptor, dialled))
}
