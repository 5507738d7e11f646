//! One connection to the peer: stream bytes in, frames out, and the other way round.
//!
//! The driver moves bytes, the link gives them meaning. After any error the connection must be
//! closed: the place in the stream, and with it every later frame, is lost.
//!
//! Memory: a handshake holds a few hundred bytes; afterwards a link holds one frame in the making
//! (at most 1 MiB, allocated only after its header proved sound) and the frames that were fed and
//! not taken with [`Link::next`] yet.

use super::cipher::{Exhausted, Security};
use super::codec::{self, Encoded};
use super::error::{FrameError, HandshakeError};
use super::handshake::{Agreed, Handshake, SUPPORTED, Secret, VersionRange};
use super::header::{HEADER_BYTES, Header};
use super::message::{Frame, PeerHello};
use super::seal::Sealer;
use crate::buf::BufMut;
use crate::units::Side;
use std::collections::VecDeque;
use thiserror::Error;

/// What a connection must know of the mirror.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The shared secret.
    pub secret: Secret,
    /// Name of the mirror, 1 to 31 printable ASCII characters without spaces; the same on both
    /// servers.
    pub mirror: String,
    /// This server.
    pub side: Side,
    /// What both sides must want.
    pub security: Security,
}

/// Why a connection must be closed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LinkError {
    /// The handshake failed.
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// A frame was damaged or against the rules.
    #[error("frame {counter} from the peer: {error}")]
    Frame {
        /// Number of the frame on this connection, from 0.
        counter: u64,
        /// What was wrong.
        error: FrameError,
    },
    /// The checksums of a frame are good but its tag is not: it was forged, repeated, moved or
    /// cut out on its way. If the connection is encrypted, any damage looks like this.
    #[error("frame {counter} from the peer is not authentic")]
    Forged {
        /// Number of the frame on this connection, from 0.
        counter: u64,
    },
    /// No number is left for another frame from the peer.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The driver reported more bytes than there was room for.
    #[error("{reported} bytes reported as received where {room} fit")]
    Overfilled {
        /// Reported bytes.
        reported: usize,
        /// Room in bytes.
        room: usize,
    },
    /// The driver fed bytes while it had the payload's memory on loan.
    #[error("bytes were fed while the payload memory was on loan")]
    OnLoan,
}

/// Why a frame cannot be sent. The link goes on as if it had not been asked.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum EncodeError {
    /// The handshake has not ended, or the link has failed.
    #[error("the link is not ready for frames")]
    NotReady,
    /// The last handshake message must be sent first.
    #[error("the handshake's output has not been taken yet")]
    OutputPending,
    /// The frame breaks a rule of the wire.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// No number is left for another frame.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// Something came from the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// The peer proved the secret; frames may be sent.
    Ready(PeerHello),
    /// A frame, checked and authentic.
    Frame(Frame),
}

/// Where the next bytes should go.
#[derive(PartialEq, Eq, Debug)]
pub enum Want<'a> {
    /// Any buffer, then [`Link::feed`]; at least this many bytes are missing for the next step.
    Stream(usize),
    /// Straight into this payload memory, then [`Link::filled`]. It is never empty, has exactly
    /// the missing bytes, and its start is page-aligned while none of them has come.
    /// [`Link::feed`] works here, too.
    Payload(&'a mut [u8]),
    /// Nowhere: the link has failed, or the memory is on loan.
    Nothing,
}

/// Payload memory on loan from a link, for receives that the kernel ends later (io_uring): it
/// lives on even if the link goes away meanwhile.
#[derive(Debug)]
pub struct Loan(Body);

impl Loan {
    /// The missing bytes; never empty. The memory stays where it is while the loan is moved.
    #[must_use]
    pub fn room(&mut self) -> &mut [u8] {
        self.0.room()
    }
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    state: State,
    output: Vec<u8>,
    events: VecDeque<LinkEvent>,
}

#[derive(Debug)]
enum State {
    Handshake(Box<Handshake>),
    Open(Box<Open>),
    Failed(LinkError),
}

#[derive(Debug)]
struct Open {
    send: Sealer,
    receive: Sealer,
    head: [u8; HEADER_BYTES],
    head_have: usize,
    body: Incoming,
}

/// What the next bytes are.
#[derive(Debug)]
enum Incoming {
    Header,
    Payload(Body),
    Lent,
}

/// A payload in the making, as it comes over the wire. Its header is sound, but authentic by then only
/// if the connection is encrypted.
#[derive(Debug)]
struct Body {
    header: Header,
    buf: BufMut,
    have: usize,
}

impl Link {
    /// This side made the connection. `nonce` must be fresh randomness.
    ///
    /// # Errors
    /// The mirror's name does not fit.
    pub fn dial(config: LinkConfig, nonce: [u8; 32]) -> Result<Self, LinkError> {
        Self::dial_with(config, nonce, SUPPORTED)
    }

    /// The peer made the connection. `nonce` must be fresh randomness.
    ///
    /// # Errors
    /// The mirror's name does not fit.
    pub fn accept(config: LinkConfig, nonce: [u8; 32]) -> Result<Self, LinkError> {
        Self::accept_with(config, nonce, SUPPORTED)
    }

    pub(super) fn dial_with(
        config: LinkConfig,
        nonce: [u8; 32],
        versions: VersionRange,
    ) -> Result<Self, LinkError> {
        Ok(Self::new(Handshake::dial(config, nonce, versions)?))
    }

    pub(super) fn accept_with(
        config: LinkConfig,
        nonce: [u8; 32],
        versions: VersionRange,
    ) -> Result<Self, LinkError> {
        Ok(Self::new(Handshake::accept(config, nonce, versions)?))
    }

    fn new(mut handshake: Handshake) -> Self {
        let output = handshake.take_output();
        Self { state: State::Handshake(Box::new(handshake)), output, events: VecDeque::new() }
    }

    /// Handshake bytes to be sent now, before any frame; empty if there are none. Ask after
    /// creation and after every [`feed`](Self::feed), also after a failed one: the bytes then tell
    /// the peer why.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Takes bytes of the stream, cut anywhere.
    ///
    /// # Errors
    /// The connection must be closed; every later call gives the same error. Events from before
    /// the error can still be taken.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        let result = self.try_feed(&mut bytes);
        self.keep_error(result)
    }

    /// Where the next bytes should go.
    #[must_use]
    pub fn want(&mut self) -> Want<'_> {
        match &mut self.state {
            State::Handshake(handshake) => Want::Stream(handshake.missing()),
            State::Open(open) => open.want(),
            State::Failed(_) => Want::Nothing,
        }
    }

    /// Says that `n` bytes were received into the memory of [`Want::Payload`].
    ///
    /// # Errors
    /// As for [`feed`](Self::feed).
    pub fn filled(&mut self, n: usize) -> Result<(), LinkError> {
        let result = self.try_filled(n);
        self.keep_error(result)
    }

    /// Hands out the memory that [`Want::Payload`] would show, if a payload is due. Until it comes
    /// back with [`give_back`](Self::give_back) nothing else may be fed.
    #[must_use]
    pub fn lend(&mut self) -> Option<Loan> {
        match &mut self.state {
            State::Open(open) => open.lend(),
            State::Handshake(_) | State::Failed(_) => None,
        }
    }

    /// Takes the memory back, with `n` bytes received into [`Loan::room`].
    ///
    /// # Errors
    /// As for [`feed`](Self::feed).
    pub fn give_back(&mut self, loan: Loan, n: usize) -> Result<(), LinkError> {
        if let State::Open(open) = &mut self.state {
            if matches!(open.body, Incoming::Lent) {
                open.body = Incoming::Payload(loan.0);
            }
        }
        self.filled(n)
    }

    /// The next event, in the order of the stream.
    #[allow(clippy::should_implement_trait)] // it ends for now, not for good
    pub fn next(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Encodes a frame. The frames must be sent in the order in which they were encoded, each
    /// exactly once: the tag counts them.
    ///
    /// # Errors
    /// Not ready, or the frame breaks a rule of the wire; the link goes on.
    pub fn encode(&mut self, frame: &Frame) -> Result<Encoded, EncodeError> {
        let State::Open(open) = &mut self.state else {
            return Err(EncodeError::NotReady);
        };
        if !self.output.is_empty() {
            return Err(EncodeError::OutputPending);
        }
        let mut encoded = codec::encode(frame)?;
        encoded.payload = open.send.seal(&mut encoded.head, encoded.payload.take())?;
        Ok(encoded)
    }

    /// Whether the handshake has ended and no error has come since.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    fn keep_error(&mut self, result: Result<(), LinkError>) -> Result<(), LinkError> {
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }

    fn try_feed(&mut self, bytes: &mut &[u8]) -> Result<(), LinkError> {
        loop {
            match &mut self.state {
                State::Failed(error) => return Err(error.clone()),
                _ if bytes.is_empty() => return Ok(()),
                State::Open(open) => self.events.extend(open.feed(bytes)?.map(LinkEvent::Frame)),
                State::Handshake(handshake) => {
                    let result = handshake.feed(bytes);
                    self.output.extend(handshake.take_output());
                    if let Some(agreed) = result? {
                        self.open(agreed);
                    }
                }
            }
        }
    }

    fn try_filled(&mut self, n: usize) -> Result<(), LinkError> {
        match &mut self.state {
            State::Failed(error) => Err(error.clone()),
            State::Handshake(_) => Err(LinkError::Overfilled { reported: n, room: 0 }),
            State::Open(open) => {
                self.events.extend(open.filled(n)?.map(LinkEvent::Frame));
                Ok(())
            }
        }
    }

    fn open(&mut self, Agreed { peer, send, receive }: Agreed) {
        self.state = State::Open(Box::new(Open {
            send,
            receive,
            head: [0; HEADER_BYTES],
            head_have: 0,
            body: Incoming::Header,
        }));
        self.events.push_back(LinkEvent::Ready(peer));
    }
}

impl Body {
    fn room(&mut self) -> &mut [u8] {
        &mut self.buf[self.have..]
    }
}

impl Open {
    /// Takes bytes for one step: the rest of a header or of a payload.
    fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, LinkError> {
        let room = match &mut self.body {
            Incoming::Header => &mut self.head[self.head_have..],
            Incoming::Payload(body) => body.room(),
            Incoming::Lent => return Err(LinkError::OnLoan),
        };
        let (taken, rest) = bytes.split_at(bytes.len().min(room.len()));
        room[..taken.len()].copy_from_slice(taken);
        *bytes = rest;
        match self.body {
            Incoming::Header => self.head_filled(taken.len()),
            _ => self.filled(taken.len()),
        }
    }

    fn want(&mut self) -> Want<'_> {
        match &mut self.body {
            Incoming::Header => Want::Stream(HEADER_BYTES - self.head_have),
            Incoming::Payload(body) => Want::Payload(body.room()),
            Incoming::Lent => Want::Nothing,
        }
    }

    fn lend(&mut self) -> Option<Loan> {
        match std::mem::replace(&mut self.body, Incoming::Lent) {
            Incoming::Payload(body) => Some(Loan(body)),
            other => {
                self.body = other;
                None
            }
        }
    }

    fn head_filled(&mut self, n: usize) -> Result<Option<Frame>, LinkError> {
        self.head_have += n;
        if self.head_have < HEADER_BYTES {
            return Ok(None);
        }
        self.head_have = 0;
        if !self.receive.open_head(&mut self.head) {
            return Err(self.forged());
        }
        let header = Header::decode(&self.head).map_err(|error| self.bad(error))?;
        match header.payload_len() {
            0 => self.complete(&header, None).map(Some),
            len => {
                let buf = BufMut::to_fill(len + self.receive.after_payload());
                self.body = Incoming::Payload(Body { header, buf, have: 0 });
                Ok(None)
            }
        }
    }

    fn filled(&mut self, n: usize) -> Result<Option<Frame>, LinkError> {
        let Incoming::Payload(body) = &mut self.body else {
            return Err(LinkError::Overfilled { reported: n, room: 0 });
        };
        let room = body.room().len();
        if n > room {
            return Err(LinkError::Overfilled { reported: n, room });
        }
        body.have += n;
        if n < room {
            return Ok(None);
        }
        match std::mem::replace(&mut self.body, Incoming::Header) {
            Incoming::Payload(body) => self.complete(&body.header, Some(body.buf)).map(Some),
            _ => Ok(None),
        }
    }

    /// The checksum is looked at first, so that a fault of a wire or a memory is not reported as
    /// an attack; the content only after the tag.
    fn complete(&mut self, header: &Header, buf: Option<BufMut>) -> Result<Frame, LinkError> {
        let buf = match buf.map(|buf| self.receive.open_payload(buf)) {
            Some(None) => return Err(self.forged()),
            Some(open) => open,
            None => None,
        };
        let payload = buf.as_deref().unwrap_or_default();
        codec::check_payload(header, payload).map_err(|error| self.bad(error))?;
        let counter = self.receive.counter();
        if !self.receive.open(&self.head, payload)? {
            return Err(LinkError::Forged { counter });
        }
        codec::decode_checked(header, buf.map(BufMut::freeze))
            .map_err(|error| LinkError::Frame { counter, error })
    }

    fn forged(&self) -> LinkError {
        LinkError::Forged { counter: self.receive.counter() }
    }

    fn bad(&self, error: FrameError) -> LinkError {
        LinkError::Frame { counter: self.receive.counter(), error }
    }
}
