//! One TCP connection: its link, its queue of bytes to send, and its receives.

use kmod_shim::sys::{Fd, Op, Piece};
use mirror_core::buf::BufMut;
use mirror_core::io::ConnId;
use mirror_core::units::Millis;
use mirror_core::wire::{Frame, Link, LinkEvent, Loan, Want};
use std::collections::VecDeque;

/// Memory for what a stranger sends.
const HANDSHAKE_BYTES: usize = 512;
const STAGING_BYTES: usize = 64 << 10;
/// A payload whose missing part is shorter goes through the staging buffer, with what follows it.
const DIRECT: usize = 16 << 10;
/// Largest batch of one send.
const BATCH_PIECES: usize = 64;
const BATCH_BYTES: usize = 4 << 20;
/// A peer that lets this much pile up unsent is lost. More than all requests of the front end
/// together; their payload is shared, so the queue itself costs little.
const MAX_QUEUED: usize = 1 << 30;

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Who it is has not been proved yet.
    Handshake,
    /// The core knows of it.
    Ready,
    /// What is queued is still sent, and what comes is dropped until the peer closes, too: closing
    /// with unread bytes would take away from the peer what is on its way.
    Closing,
    /// Nothing more happens but the end of the operations under way.
    Gone,
}

/// The core is told this often, at the most, that a frame goes on arriving.
const ALIVE_EACH_MS: u64 = 250;
/// A frame that has not arrived after so long is no sign of life any more.
const FRAME_MS: u64 = 60_000;

/// The frame that is just arriving, on a slow line.
#[derive(Default)]
pub(super) struct Parts {
    /// Since when.
    since: Option<Millis>,
    told: Option<Millis>,
}

impl Parts {
    /// Bytes came, with the end of a frame (`whole`) or without: whether they are to be told as a sign
    /// of life. A whole frame tells by itself.
    pub(super) fn says_alive(&mut self, now: Millis, whole: bool) -> bool {
        if whole {
            *self = Self::default();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let lately = self.told.is_some_and(|told| now.since(told) < ALIVE_EACH_MS);
        if lately || now.since(since) > FRAME_MS {
            return false;
        }
        self.told = Some(now);
        true
    }
}

/// See the module.
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) dialled: bool,
    pub(super) phase: Phase,
    /// End of the handshake or of the closing, at the latest.
    pub(super) deadline: Option<Millis>,
    pub(super) remote: String,
    /// When closing: the peer's own end is waited for.
    pub(super) waits_for_peer: bool,
    pub(super) parts: Parts,
    socket: Fd,
    link: Link,
    queue: VecDeque<Piece>,
    queued: usize,
    /// Of what is queued and what is being sent.
    unsent: usize,
    sending: bool,
    receiving: bool,
    staging: Option<BufMut>,
    /// Sending failed. What the peer sent before it went is still to be received.
    deaf: bool,
}

/// A connection failed, and why.
pub(super) type Lost = String;

impl Conn {
    pub(super) fn new(
        id: ConnId,
        (socket, remote): (Fd, String),
        mut link: Link,
        dialled: bool,
        deadline: Millis,
    ) -> Self {
        let hello = link.take_output();
        let mut conn = Self {
            id,
            dialled,
            phase: Phase::Handshake,
            deadline: Some(deadline),
            remote,
            waits_for_peer: false,
            parts: Parts::default(),
            socket,
            link,
            queue: VecDeque::new(),
            queued: 0,
            unsent: 0,
            sending: false,
            receiving: false,
            staging: Some(BufMut::zeroed(HANDSHAKE_BYTES)),
            deaf: false,
        };
        conn.push(Piece::Bytes(hello));
        conn
    }

    pub(super) fn socket(&self) -> &Fd {
        &self.socket
    }

    /// Whether nothing of it is left.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Gone && !self.sending && !self.receiving
    }

    /// Whether a closing connection has sent what it had.
    pub(super) fn has_nothing_to_send(&self) -> bool {
        (self.queue.is_empty() || self.deaf) && !self.sending
    }

    /// Bytes that wait to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.unsent
    }

    /// Whether sending has failed.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Queues a frame.
    pub(super) fn send(&mut self, frame: &Frame) -> Result<(), Lost> {
        let encoded = self.link.encode(frame).map_err(|e| format!("cannot send: {e}"))?;
        self.push(Piece::Bytes(encoded.head.to_vec()));
        if let Some(payload) = encoded.payload {
            self.push(Piece::Shared(payload));
        }
        if self.queued > MAX_QUEUED {
            return Err("the peer does not take what it is sent".to_owned());
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece) {
        if piece.is_empty() || self.deaf {
            return;
        }
        self.queued += piece.len();
        self.unsent += piece.len();
        match (self.queue.back_mut(), piece) {
            (Some(Piece::Bytes(last)), Piece::Bytes(more)) => last.extend(more),
            (_, piece) => self.queue.push_back(piece),
        }
    }

    /// The next send, if one can start.
    pub(super) fn next_send(&mut self) -> Option<Op> {
        if self.sending || self.deaf || self.queue.is_empty() || self.phase == Phase::Gone {
            return None;
        }
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while pieces.len() < BATCH_PIECES && bytes < BATCH_BYTES {
            let Some(piece) = self.queue.pop_front() else { break };
            bytes += piece.len();
            pieces.push(piece);
        }
        self.queued -= bytes;
        self.sending = true;
        Some(Op::Send { socket: self.socket.clone(), pieces, skip: 0 })
    }

    /// A send ended; the rest of it, if it was cut short.
    pub(super) fn sent(&mut self, op: Op, result: Result<usize, i32>) -> Option<Op> {
        self.sending = false;
        let Op::Send { socket, pieces, skip } = op else { return None };
        let Ok(count @ 1..) = result else {
            self.deaf = true;
            self.queue.clear();
            self.queued = 0;
            self.unsent = 0;
            return None;
        };
        self.unsent = self.unsent.saturating_sub(count);
        let total: usize = pieces.iter().map(|p| p.len()).sum();
        if skip + count == total || self.phase == Phase::Gone {
            return None;
        }
        self.sending = true;
        Some(Op::Send { socket, pieces, skip: skip + count })
    }

    /// The next receive, if one can start.
    pub(super) fn next_receive(&mut self) -> Option<Op> {
        if self.receiving || self.phase == Phase::Gone {
            return None;
        }
        let (room, direct) = match self.link.want() {
            _ if self.phase == Phase::Closing => (self.staging.as_ref()?.len(), false),
            Want::Nothing => return None,
            Want::Payload(room) if room.len() >= DIRECT => (0, true),
            Want::Payload(_) => (STAGING_BYTES, false),
            // Before the peer has proved itself, not a byte more than the next step needs.
            Want::Stream(missing) if self.phase == Phase::Handshake => {
                (missing.min(HANDSHAKE_BYTES), false)
            }
            Want::Stream(_) => (STAGING_BYTES, false),
        };
        let socket = self.socket.clone();
        if direct {
            let loan = self.link.lend()?;
            self.receiving = true;
            return Some(Op::RecvFrame { socket, loan });
        }
        let mut buf = self.staging.take()?;
        if buf.len() < room {
            buf = BufMut::zeroed(STAGING_BYTES);
        }
        self.receiving = true;
        Some(Op::Recv { socket, buf, range: 0..room })
    }

    /// A receive ended. What it brought is to be taken with [`next_event`](Self::next_event), also
    /// after an error.
    pub(super) fn received(&mut self, op: Op, result: Result<usize, i32>) -> Result<(), Lost> {
        self.receiving = false;
        let count = match result {
            Ok(0) => Err("the peer closed the connection".to_owned()),
            Ok(count) => Ok(count),
            Err(e) => Err(format!("receiving failed: {}", text(e))),
        };
        match op {
            Op::Recv { buf, .. } => {
                let fed = count.and_then(|n| self.feed(&buf[..n]));
                self.staging = Some(buf);
                fed
            }
            Op::RecvFrame { loan, .. } => count.and_then(|n| self.give_back(loan, n)),
            _ => Ok(()),
        }
    }

    pub(super) fn next_event(&mut self) -> Option<LinkEvent> {
        self.link.next()
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        if !matches!(self.phase, Phase::Handshake | Phase::Ready) {
            return Ok(());
        }
        let fed = self.link.feed(bytes).map_err(|e| e.to_string());
        let answer = self.link.take_output();
        self.push(Piece::Bytes(answer));
        fed
    }

    fn give_back(&mut self, loan: Loan, count: usize) -> Result<(), Lost> {
        self.link.give_back(loan, count).map_err(|e| e.to_string())
    }
}

fn text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

#[cfg(test)]
mod tests {
    use super::{FRAME_MS, Millis, Parts};

    #[test]
    fn a_frame_that_goes_on_arriving_is_a_sign_of_life_for_a_time() {
        let mut parts = Parts::default();
        assert!(parts.says_alive(Millis(1000), false));
        assert!(!parts.says_alive(Millis(1100), false), "too often");
        assert!(parts.says_alive(Millis(1500), false));
        assert!(!parts.says_alive(Millis(1600), true), "a whole frame tells by itself");
        // The next frame begins; whoever never ends it is not alive for ever.
        assert!(parts.says_alive(Millis(2000), false));
        assert!(parts.says_alive(Millis(2000 + FRAME_MS), false));
        assert!(!parts.says_alive(Millis(2001 + FRAME_MS + 250), false));
    }
}
