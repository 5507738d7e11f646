//! Both sides prove the shared secret on fresh nonces before anything else is said.
//!
//! ```text
//! dialler                                             acceptor
//!   Hello  (versions, side, modes, mirror, nonce)  ->
//!          <-  Reply  (versions, chosen, side, mode, nonce, proof)
//!   Proof  (proof)                                 ->
//! ```
//!
//! Every message has a fixed size, so a stranger makes this side hold at most
//! [`HELLO_BYTES`] + [`REPLY_BYTES`] bytes each way. The first 16 bytes are the same in all
//! versions, so that two sides without a common version can tell each other so.

use super::cipher::{Ephemeral, Security};
use super::error::{HandshakeError, Refusal};
use super::header::array;
use super::link::LinkConfig;
use super::message::PeerHello;
use super::seal::{Key, Sealer};
use crate::units::Side;
use std::fmt;
use thiserror::Error;

/// The versions that this program speaks. See `docs/protocol.md` for their history.
pub const SUPPORTED: VersionRange = VersionRange { min: 1, max: 1 };

/// First eight bytes of every handshake message.
pub const MAGIC: [u8; 8] = *b"mdmirror";

/// Bytes of every handshake message that are the same in all versions.
pub const PREFIX_BYTES: usize = 16;
/// Bytes of a Hello.
pub const HELLO_BYTES: usize = 96;
/// Bytes of a Reply.
pub const REPLY_BYTES: usize = 96;
/// Bytes of a Proof.
pub const PROOF_BYTES: usize = 64;

/// Longest mirror name in bytes.
pub const MAX_NAME_BYTES: usize = 31;
/// Shortest secret in bytes.
pub const MIN_SECRET_BYTES: usize = 16;

/// Mode: every frame carries a tag, nothing is encrypted.
pub const MODE_AUTHENTICATED: u8 = 1;
/// Mode: the nonces are public keys, and every frame is encrypted.
pub const MODE_ENCRYPTED: u8 = 2;

// The prefix.
const AT_MIN: usize = 8;
const AT_MAX: usize = 10;
const AT_KIND: usize = 12;
const AT_REFUSAL: usize = 13;
const AT_CHOSEN: usize = 14;
// Hello and Reply.
const AT_SIDE: usize = 16;
const AT_MODES: usize = 17;
const AT_NAME_LEN: usize = 18;
const AT_NAME: usize = 32;
const AT_HELLO_NONCE: usize = 64;
const AT_REPLY_NONCE: usize = 32;
const AT_REPLY_PROOF: usize = 64;
// Proof.
const AT_PROOF: usize = 32;

const _: () = {
    assert!(AT_CHOSEN + 2 == PREFIX_BYTES && PREFIX_BYTES == AT_SIDE);
    assert!(AT_NAME + MAX_NAME_BYTES < AT_HELLO_NONCE && AT_HELLO_NONCE + 32 == HELLO_BYTES);
    assert!(AT_REPLY_NONCE + 32 == AT_REPLY_PROOF && AT_REPLY_PROOF + 32 == REPLY_BYTES);
    assert!(AT_PROOF + 32 == PROOF_BYTES && PROOF_BYTES <= HELLO_BYTES);
};

const KIND_HELLO: u8 = 1;
const KIND_REPLY: u8 = 2;
const KIND_PROOF: u8 = 3;

const PROOF_CONTEXT: &str = "mirror-core 2026 wire v1: handshake proof from shared secret";
const SESSION_CONTEXT: &str = "mirror-core 2026 wire v1: session keys from shared secret";

/// The secret that both servers share. Only keys derived from it are kept; `Debug` hides them.
#[derive(Clone)]
pub struct Secret {
    proof: Key,
    session: Key,
}

impl Secret {
    /// From the content of the secret file.
    ///
    /// # Errors
    /// Shorter than [`MIN_SECRET_BYTES`].
    pub fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        if bytes.len() < MIN_SECRET_BYTES {
            return Err(SecretError { len: bytes.len() });
        }
        Ok(Self {
            proof: Key(blake3::derive_key(PROOF_CONTEXT, bytes)),
            session: Key(blake3::derive_key(SESSION_CONTEXT, bytes)),
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A secret that is too short to be one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the shared secret has {len} bytes, at least {MIN_SECRET_BYTES} are needed")]
pub struct SecretError {
    /// Its length in bytes.
    pub len: usize,
}

/// The wire versions that a program speaks, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionRange {
    /// Oldest, at least 1.
    pub min: u16,
    /// Newest.
    pub max: u16,
}

impl VersionRange {
    /// The newest version in both ranges.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let version = self.max.min(other.max);
        (version >= self.min.max(other.min)).then_some(version)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.min),
            false => write!(f, "{} to {}", self.min, self.max),
        }
    }
}

/// The end of a successful handshake.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) peer: PeerHello,
    pub(super) send: Sealer,
    pub(super) receive: Sealer,
}

/// What this side waits for.
#[derive(Debug)]
enum Due {
    Hello,
    Reply,
    Proof(PeerHello),
}

/// A running handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    secret: Secret,
    mirror: String,
    side: Side,
    security: Security,
    /// Whose public part is the nonce, if the connection is to be encrypted.
    ephemeral: Ephemeral,
    nonce: [u8; 32],
    versions: VersionRange,
    due: Due,
    inbox: [u8; HELLO_BYTES],
    have: usize,
    hello: [u8; HELLO_BYTES],
    reply: [u8; REPLY_BYTES],
    outbox: Vec<u8>,
}

impl Handshake {
    pub(super) fn dial(
        config: LinkConfig,
        random: [u8; 32],
        versions: VersionRange,
    ) -> Result<Self, HandshakeError> {
        let mut this = Self::new(config, random, versions, Due::Reply)?;
        this.hello = this.make_hello();
        this.outbox.extend(this.hello);
        Ok(this)
    }

    pub(super) fn accept(
        config: LinkConfig,
        random: [u8; 32],
        versions: VersionRange,
    ) -> Result<Self, HandshakeError> {
        Self::new(config, random, versions, Due::Hello)
    }

    fn new(
        config: LinkConfig,
        random: [u8; 32],
        versions: VersionRange,
        due: Due,
    ) -> Result<Self, HandshakeError> {
        let LinkConfig { secret, mirror, side, security } = config;
        if !good_name(mirror.as_bytes()) {
            return Err(HandshakeError::BadName(mirror));
        }
        let ephemeral = Ephemeral::new(random);
        let nonce = match security {
            Security::Authenticated => random,
            Security::Encrypted => ephemeral.public(),
        };
        Ok(Self {
            secret,
            mirror,
            side,
            security,
            ephemeral,
            nonce,
            versions,
            due,
            inbox: [0; HELLO_BYTES],
            have: 0,
            hello: [0; HELLO_BYTES],
            reply: [0; REPLY_BYTES],
            outbox: Vec::new(),
        })
    }

    /// Bytes for the peer, also after an error: a refusal tells it why.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outbox)
    }

    /// Bytes that are still missing for the next step.
    pub(super) fn missing(&self) -> usize {
        self.message_len() - self.have
    }

    /// Takes bytes from the front of `bytes`, which it shortens; what follows the handshake is
    /// left there.
    pub(super) fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Agreed>, HandshakeError> {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(self.missing()));
            self.inbox[self.have..self.have + taken.len()].copy_from_slice(taken);
            self.have += taken.len();
            *bytes = rest;
            if self.have == PREFIX_BYTES {
                self.prefix()?;
            } else if self.missing() == 0 {
                self.have = 0;
                if let Some(agreed) = self.message()? {
                    return Ok(Some(agreed));
                }
            }
        }
        Ok(None)
    }

    fn message_len(&self) -> usize {
        if self.have < PREFIX_BYTES {
            return PREFIX_BYTES;
        }
        match self.inbox[AT_KIND] {
            KIND_PROOF => PROOF_BYTES,
            _ => HELLO_BYTES,
        }
    }

    const fn due_kind(&self) -> u8 {
        match self.due {
            Due::Hello => KIND_HELLO,
            Due::Reply => KIND_REPLY,
            Due::Proof(_) => KIND_PROOF,
        }
    }

    /// The part that is the same in all versions.
    fn prefix(&mut self) -> Result<(), HandshakeError> {
        if self.inbox[..MAGIC.len()] != MAGIC {
            return Err(HandshakeError::NotMirror);
        }
        let (expected, found) = (self.due_kind(), self.inbox[AT_KIND]);
        // A Hello where a Reply is due may be our own; its nonce will tell.
        if found != expected && !(found == KIND_HELLO && expected == KIND_REPLY) {
            return Err(HandshakeError::OutOfTurn { expected, found });
        }
        let chosen = self.check_versions()?;
        if self.inbox[AT_REFUSAL] != 0 {
            let reason = Refusal::from_number(self.inbox[AT_REFUSAL]);
            return Err(HandshakeError::Refused(reason));
        }
        let stated = self.inbox_u16(AT_CHOSEN);
        if stated != if found == KIND_HELLO { 0 } else { chosen } {
            return Err(HandshakeError::Malformed { kind: found, field: "version" });
        }
        Ok(())
    }

    fn check_versions(&mut self) -> Result<u16, HandshakeError> {
        let ours = self.versions;
        let theirs = VersionRange { min: self.inbox_u16(AT_MIN), max: self.inbox_u16(AT_MAX) };
        if theirs.min == 0 || theirs.min > theirs.max {
            let kind = self.inbox[AT_KIND];
            return Err(HandshakeError::Malformed { kind, field: "version range" });
        }
        match ours.common(theirs) {
            Some(version) => Ok(version),
            None => {
                // A refusal must not answer a refusal.
                if matches!(self.due, Due::Hello) {
                    self.refuse(KIND_REPLY, Refusal::Version);
                }
                Err(HandshakeError::Version { ours, theirs })
            }
        }
    }

    fn message(&mut self) -> Result<Option<Agreed>, HandshakeError> {
        match self.due {
            Due::Hello => self.on_hello().map(|()| None),
            Due::Reply => self.on_reply().map(Some),
            Due::Proof(peer) => self.on_proof(peer).map(Some),
        }
    }

    fn on_hello(&mut self) -> Result<(), HandshakeError> {
        self.hello = self.inbox;
        self.check_zero(AT_NAME_LEN + 1..AT_NAME)?;
        self.check_name()?;
        let peer = self.peer()?;
        if self.hello[AT_MODES] & mode(self.security) == 0 {
            self.refuse(KIND_REPLY, Refusal::Mode);
            return Err(self.other_mode(self.hello[AT_MODES]));
        }
        if array(&self.hello, AT_HELLO_NONCE..HELLO_BYTES) == self.nonce {
            return Err(HandshakeError::Reflected);
        }
        self.reply = self.make_reply(peer.version);
        self.outbox.extend(self.reply);
        self.due = Due::Proof(peer);
        Ok(())
    }

    fn on_reply(&mut self) -> Result<Agreed, HandshakeError> {
        if self.inbox[AT_KIND] == KIND_HELLO {
            return Err(self.hello_for_reply());
        }
        self.reply = self.inbox;
        self.check_zero(AT_NAME_LEN..AT_REPLY_NONCE)?;
        let peer = self.peer()?;
        if self.reply[AT_MODES] != mode(self.security) {
            return Err(self.other_mode(self.reply[AT_MODES]));
        }
        if array(&self.reply, AT_REPLY_NONCE..AT_REPLY_PROOF) == self.nonce {
            return Err(HandshakeError::Reflected);
        }
        let stated = blake3::Hash::from_bytes(array(&self.reply, AT_REPLY_PROOF..REPLY_BYTES));
        if stated != self.acceptor_proof() {
            self.refuse(KIND_PROOF, Refusal::Proof);
            return Err(HandshakeError::WrongProof);
        }
        let proof = self.make_proof(peer.version);
        let theirs = array(&self.reply, AT_REPLY_NONCE..AT_REPLY_PROOF);
        let agreed = self.agreed(peer, &proof, theirs, true)?;
        self.outbox.extend(proof);
        Ok(agreed)
    }

    fn on_proof(&mut self, peer: PeerHello) -> Result<Agreed, HandshakeError> {
        let proof: [u8; PROOF_BYTES] = array(&self.inbox, 0..PROOF_BYTES);
        let stated = blake3::Hash::from_bytes(array(&proof, AT_PROOF..PROOF_BYTES));
        if stated != self.dialler_proof(&proof) {
            return Err(HandshakeError::WrongProof);
        }
        self.check_zero(PREFIX_BYTES..AT_PROOF)?;
        let theirs = array(&self.hello, AT_HELLO_NONCE..HELLO_BYTES);
        self.agreed(peer, &proof, theirs, false)
    }

    fn other_mode(&self, theirs: u8) -> HandshakeError {
        HandshakeError::Mode { ours: self.security, theirs }
    }

    fn hello_for_reply(&self) -> HandshakeError {
        match self.inbox[AT_HELLO_NONCE..] == self.nonce {
            true => HandshakeError::Reflected,
            false => HandshakeError::OutOfTurn { expected: KIND_REPLY, found: KIND_HELLO },
        }
    }

    /// What Hello or Reply in the inbox says of the peer.
    fn peer(&mut self) -> Result<PeerHello, HandshakeError> {
        let kind = self.inbox[AT_KIND];
        let side = match self.inbox[AT_SIDE] {
            0 => Side::First,
            1 => Side::Second,
            _ => return Err(HandshakeError::Malformed { kind, field: "side" }),
        };
        if side == self.side {
            self.refuse(kind + 1, Refusal::Side);
            return Err(HandshakeError::SameSide(side));
        }
        Ok(PeerHello { side, version: self.check_versions()? })
    }

    fn check_name(&mut self) -> Result<(), HandshakeError> {
        let malformed = HandshakeError::Malformed { kind: KIND_HELLO, field: "mirror name" };
        let field = &self.hello[AT_NAME..AT_HELLO_NONCE];
        let len = usize::from(self.hello[AT_NAME_LEN]).min(field.len());
        let (name, padding) = field.split_at(len);
        if !good_name(name) || padding.iter().any(|b| *b != 0) {
            return Err(malformed);
        }
        if name != self.mirror.as_bytes() {
            let theirs = String::from_utf8_lossy(name).into_owned();
            self.refuse(KIND_REPLY, Refusal::Mirror);
            return Err(HandshakeError::WrongMirror { ours: self.mirror.clone(), theirs });
        }
        Ok(())
    }

    fn check_zero(&self, range: std::ops::Range<usize>) -> Result<(), HandshakeError> {
        match self.inbox[range].iter().all(|b| *b == 0) {
            true => Ok(()),
            false => {
                let kind = self.inbox[AT_KIND];
                Err(HandshakeError::Malformed { kind, field: "reserved byte" })
            }
        }
    }

    fn inbox_u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(array(&self.inbox, at..at + 2))
    }

    fn refuse(&mut self, kind: u8, reason: Refusal) {
        self.outbox.extend(self.make_prefix(kind, reason.number(), 0));
    }

    fn make_prefix(&self, kind: u8, refusal: u8, chosen: u16) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        bytes[AT_MIN..AT_MAX].copy_from_slice(&self.versions.min.to_le_bytes());
        bytes[AT_MAX..AT_KIND].copy_from_slice(&self.versions.max.to_le_bytes());
        bytes[AT_KIND] = kind;
        bytes[AT_REFUSAL] = refusal;
        bytes[AT_CHOSEN..].copy_from_slice(&chosen.to_le_bytes());
        bytes
    }

    fn make_hello(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        let name = self.mirror.as_bytes();
        bytes[..PREFIX_BYTES].copy_from_slice(&self.make_prefix(KIND_HELLO, 0, 0));
        bytes[AT_SIDE] = side_byte(self.side);
        bytes[AT_MODES] = mode(self.security);
        bytes[AT_NAME_LEN] = u8::try_from(name.len()).expect("the name was checked");
        bytes[AT_NAME..AT_NAME + name.len()].copy_from_slice(name);
        bytes[AT_HELLO_NONCE..].copy_from_slice(&self.nonce);
        bytes
    }

    fn make_reply(&mut self, version: u16) -> [u8; REPLY_BYTES] {
        let mut bytes = [0; REPLY_BYTES];
        bytes[..PREFIX_BYTES].copy_from_slice(&self.make_prefix(KIND_REPLY, 0, version));
        bytes[AT_SIDE] = side_byte(self.side);
        bytes[AT_MODES] = mode(self.security);
        bytes[AT_REPLY_NONCE..AT_REPLY_PROOF].copy_from_slice(&self.nonce);
        self.reply = bytes;
        bytes[AT_REPLY_PROOF..].copy_from_slice(self.acceptor_proof().as_bytes());
        bytes
    }

    fn make_proof(&self, version: u16) -> [u8; PROOF_BYTES] {
        let mut bytes = [0; PROOF_BYTES];
        bytes[..PREFIX_BYTES].copy_from_slice(&self.make_prefix(KIND_PROOF, 0, version));
        let proof = self.dialler_proof(&bytes);
        bytes[AT_PROOF..].copy_from_slice(proof.as_bytes());
        bytes
    }

    /// Over the Hello and the Reply up to the proof itself.
    fn acceptor_proof(&self) -> blake3::Hash {
        let reply = &self.reply[..AT_REPLY_PROOF];
        keyed(&self.secret.proof, b"acceptor proof  ", &[&self.hello, reply])
    }

    /// Over everything before the proof itself.
    fn dialler_proof(&self, proof: &[u8; PROOF_BYTES]) -> blake3::Hash {
        let parts = [&self.hello[..], &self.reply, &proof[..AT_PROOF]];
        keyed(&self.secret.proof, b"dialler proof   ", &parts)
    }

    /// Each direction has its own key, over everything that was said. If the connection is to be
    /// encrypted, over what only the two key pairs give, too.
    fn agreed(
        &self,
        peer: PeerHello,
        proof: &[u8; PROOF_BYTES],
        theirs: [u8; 32],
        dialled: bool,
    ) -> Result<Agreed, HandshakeError> {
        let said = [&self.hello[..], &self.reply, proof];
        let key =
            |label, parts: &[&[u8]]| Key(*keyed(&self.secret.session, label, parts).as_bytes());
        let (from_dialler, from_acceptor) = match self.security {
            Security::Authenticated => (
                Sealer::tagging(key(b"frames, dialler ", &said)),
                Sealer::tagging(key(b"frames, acceptor", &said)),
            ),
            Security::Encrypted => {
                let common = self.ephemeral.agree(&theirs).ok_or(HandshakeError::NoKey)?;
                let parts = [said[0], said[1], said[2], &common];
                (
                    Sealer::encrypting(key(b"cipher, dialler ", &parts)),
                    Sealer::encrypting(key(b"cipher, acceptor", &parts)),
                )
            }
        };
        Ok(match dialled {
            true => Agreed { peer, send: from_dialler, receive: from_acceptor },
            false => Agreed { peer, send: from_acceptor, receive: from_dialler },
        })
    }
}

const fn mode(security: Security) -> u8 {
    match security {
        Security::Authenticated => MODE_AUTHENTICATED,
        Security::Encrypted => MODE_ENCRYPTED,
    }
}

fn keyed(key: &Key, label: &[u8; 16], parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(label);
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    hasher.finalize()
}

fn good_name(name: &[u8]) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic)
}

const fn side_byte(side: Side) -> u8 {
    match side {
        Side::First => 0,
        Side::Second => 1,
    }
}
