//! The first bytes of a connection, and the keys that follow from them.

use super::Identity;
use super::frame::Protection;
use crate::secret::Secret;
use mirror_core::units::Side;
use mirror_core::wire::Security;
use mirror_core::wire::cipher::{Cipher, Ephemeral};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Length of a hello: magic 8, version 2, side 1, security 1, zero 4, nonce or public key 32.
const HELLO_LEN: usize = 48;
const MAGIC: [u8; 8] = *b"CLPMDAG1";
/// Version of the link; both sides must speak the same.
const VERSION: u16 = 2;

const PURPOSE: &str = "clpmdagent link between agents, version 2";

/// One side's hello.
pub(super) struct Hello {
    bytes: [u8; HELLO_LEN],
}

impl Hello {
    /// With a fresh key pair, whose public part stands for the nonce if the link is to be encrypted.
    fn new(side: Side, security: Security) -> io::Result<(Self, Ephemeral)> {
        let mut bytes = [0; HELLO_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = side_number(side);
        bytes[11] = security_number(security);
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
        let ephemeral = Ephemeral::new(random);
        bytes[16..].copy_from_slice(&match security {
            Security::Authenticated => random,
            Security::Encrypted => ephemeral.public(),
        });
        Ok((Self { bytes }, ephemeral))
    }

    /// Checks a hello that must come from `side` and want the same `security`.
    fn check(bytes: [u8; HELLO_LEN], side: Side, security: Security) -> io::Result<Self> {
        let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if bytes[..8] != MAGIC {
            return refuse("not an agent of this kind".to_owned());
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return refuse(format!("the link's version is {version} there and {VERSION} here"));
        }
        if bytes[10] != side_number(side) || bytes[12..16] != [0; 4] {
            return refuse("the other agent takes itself for another server".to_owned());
        }
        if bytes[11] != security_number(security) {
            let here = security.word();
            return refuse(format!(
                "security = \"{here}\" here, but not on the other server: both need the same setting in [agent]"
            ));
        }
        Ok(Self { bytes })
    }

    /// The nonce or public key.
    fn nonce(&self) -> [u8; 32] {
        let mut nonce = [0; 32];
        nonce.copy_from_slice(&self.bytes[16..]);
        nonce
    }
}

const fn side_number(side: Side) -> u8 {
    match side {
        Side::First => 1,
        Side::Second => 2,
    }
}

const fn security_number(security: Security) -> u8 {
    match security {
        Security::Authenticated => 1,
        Security::Encrypted => 2,
    }
}

/// What protects the two directions of one connection.
pub(super) struct Keys {
    /// For what this side sends.
    pub(super) send: Protection,
    /// For what the other side sends.
    pub(super) receive: Protection,
}

/// The keys follow from the secret, every byte of both hellos and, if the link is encrypted, what
/// only the two key pairs give. Each direction has its own, so that no frame can be sent back to its
/// author.
fn keys(
    secret: &Secret,
    (dialler, acceptor): (&Hello, &Hello),
    common: Option<[u8; 32]>,
    dialled: bool,
) -> Keys {
    let master = secret.key(PURPOSE);
    let derive = |direction: &[u8]| {
        let mut hasher = blake3::Hasher::new_keyed(&master);
        hasher.update(direction).update(&dialler.bytes).update(&acceptor.bytes);
        hasher.update(common.as_ref().map_or(&[], |common| &common[..]));
        let key = *hasher.finalize().as_bytes();
        match common {
            None => Protection::Tags { key, number: 0 },
            Some(_) => Protection::Encrypts(Box::new(Cipher::new(key))),
        }
    };
    let (out, back) = (derive(b"dialler -> acceptor"), derive(b"acceptor -> dialler"));
    if dialled { Keys { send: out, receive: back } } else { Keys { send: back, receive: out } }
}

/// Exchanges hellos. Nothing is proven yet: the first frame with a good tag does that.
pub(super) async fn exchange<S>(stream: &mut S, own: &Identity, dialled: bool) -> io::Result<Keys>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mine, ephemeral) = Hello::new(own.side, own.security)?;
    stream.write_all(&mine.bytes).await?;
    let mut bytes = [0; HELLO_LEN];
    stream.read_exact(&mut bytes).await?;
    let theirs = Hello::check(bytes, own.side.other(), own.security)?;
    let common = match own.security {
        Security::Authenticated => None,
        Security::Encrypted => Some(ephemeral.agree(&theirs.nonce()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "no usable key for the encryption")
        })?),
    };
    let hellos = if dialled { (&mine, &theirs) } else { (&theirs, &mine) };
    Ok(keys(&own.secret, hellos, common, dialled))
}
