//! The stream of frames after a good handshake, from a peer that has the keys: any header, any
//! payload, cut anywhere, taken in all the ways that a link offers.

use super::frame::fit;
use crate::input::Input;
use mirror_core::units::Side;
use mirror_core::wire::cipher::{Cipher, Ephemeral, SEAL_BYTES};
use mirror_core::wire::header::{HEADER_BYTES, TAG_BYTES};
use mirror_core::wire::{Frame, Link, LinkConfig, LinkError, LinkEvent, Secret, Security, Want};

const SECRET: [u8; 32] = [7; 32];
const RANDOM: [u8; 32] = [1; 32];
/// As the protocol has it.
const SESSION_CONTEXT: &str = "mirror-core 2026 wire v1: session keys from shared secret";

/// The lying peer's end of a connection that it dialled, and the honest end.
struct Pair {
    keys: Keys,
    honest: Link,
}

/// What the lying peer makes its frames with, as the protocol has it.
enum Keys {
    Tags { key: [u8; 32], counter: u64 },
    Cipher(Box<Cipher>),
}

fn config(side: Side, security: Security) -> LinkConfig {
    let secret = Secret::new(&SECRET).expect("long enough");
    LinkConfig { secret, mirror: "md1".to_owned(), side, security }
}

impl Pair {
    fn new(security: Security) -> Self {
        let (first, second) = (config(Side::First, security), config(Side::Second, security));
        let mut dialler = Link::dial(first, RANDOM).expect("a good name");
        let mut honest = Link::accept(second, [2; 32]).expect("a good name");
        let hello = dialler.take_output();
        honest.feed(&hello).expect("a good Hello");
        let reply = honest.take_output();
        dialler.feed(&reply).expect("a good Reply");
        let proof = dialler.take_output();
        honest.feed(&proof).expect("a good Proof");
        assert!(matches!(honest.next(), Some(LinkEvent::Ready(_))));
        let master = blake3::derive_key(SESSION_CONTEXT, &SECRET);
        let key = |label: &[u8], common: &[u8]| {
            let mut hasher = blake3::Hasher::new_keyed(&master);
            hasher.update(label).update(&hello).update(&reply).update(&proof).update(common);
            *hasher.finalize().as_bytes()
        };
        let keys = match security {
            Security::Authenticated => {
                Keys::Tags { key: key(b"frames, dialler ", &[]), counter: 0 }
            }
            Security::Encrypted => {
                let theirs = reply[32..64].try_into().expect("32 bytes");
                let common = Ephemeral::new(RANDOM).agree(&theirs).expect("a good key");
                Keys::Cipher(Box::new(Cipher::new(key(b"cipher, dialler ", &common))))
            }
        };
        Self { keys, honest }
    }

    /// The next frame with a good tag, whatever it says.
    fn sealed(&mut self, mut head: [u8; HEADER_BYTES], payload: &[u8]) -> Vec<u8> {
        let covered = HEADER_BYTES - TAG_BYTES;
        match &mut self.keys {
            Keys::Tags { key, counter } => {
                let mut hasher = blake3::Hasher::new_keyed(key);
                hasher.update(payload).update(&head[..covered]).update(&counter.to_le_bytes());
                *counter += 1;
                head[covered..].copy_from_slice(&hasher.finalize().as_bytes()[..TAG_BYTES]);
                [&head, payload].concat()
            }
            Keys::Cipher(cipher) => {
                let tag = cipher.seal_head(&mut head[..covered]);
                head[covered..].copy_from_slice(&tag);
                let payload = (!payload.is_empty()).then(|| cipher.seal_payload(payload));
                cipher.advance().expect("few frames");
                [&head, payload.as_deref().unwrap_or_default()].concat()
            }
        }
    }
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let cuts: [u8; 8] = input.fixed();
    let security = match cuts[7] & 1 {
        0 => Security::Authenticated,
        _ => Security::Encrypted,
    };
    let mut pair = Pair::new(security);
    let mut stream = Vec::new();
    for _ in 0..16 {
        if input.is_empty() {
            break;
        }
        let how = input.u8();
        let mut head: [u8; HEADER_BYTES] = [0; HEADER_BYTES];
        head[..40].copy_from_slice(&input.fixed::<40>());
        let len = if how & 8 == 0 { usize::from(input.u8()) } else { input.below(5000) };
        let mut payload = input.bytes(len).to_vec();
        payload.resize(len, 0x5a);
        if head[3] & 0x80 == 0 && how & 16 == 0 {
            payload.clear();
        }
        fit(how, &mut head, &payload);
        let sealed = pair.sealed(head, &payload);
        stream.extend(if how & 32 == 0 { sealed } else { [&head[..], &payload].concat() });
    }
    let mut whole = Pair::new(security);
    let result = whole.honest.feed(&stream);
    let frames = taken(&mut whole.honest);
    for how in 0..3 {
        let mut pair = Pair::new(security);
        let (cut_result, cut_frames) = cut(&mut pair.honest, &stream, &cuts, how);
        assert_eq!((&cut_result, &cut_frames), (&result, &frames), "cuts change nothing");
        let again = pair.honest.feed(&[0; 64]);
        assert!(result.is_ok() || again == result, "an error is for good");
    }
}

fn taken(link: &mut Link) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(event) = link.next() {
        match event {
            LinkEvent::Frame(frame) => frames.push(frame),
            LinkEvent::Ready(_) => panic!("ready twice"),
        }
    }
    frames
}

fn cut(
    link: &mut Link,
    stream: &[u8],
    cuts: &[u8; 8],
    how: u8,
) -> (Result<(), LinkError>, Vec<Frame>) {
    let (mut rest, mut frames, mut n) = (stream, Vec::new(), 0);
    while !rest.is_empty() {
        let piece = (usize::from(cuts[n % 8]) + 1) * if n % 3 == 0 { 1 } else { 40 };
        n += 1;
        let piece = piece.min(rest.len());
        let result = match how {
            0 => feed(link, &mut rest, piece),
            1 => fill(link, &mut rest, piece),
            _ => lend(link, &mut rest, piece),
        };
        frames.extend(taken(link));
        if result.is_err() {
            return (result, frames);
        }
    }
    (Ok(()), frames)
}

fn feed(link: &mut Link, rest: &mut &[u8], piece: usize) -> Result<(), LinkError> {
    let (now, later) = rest.split_at(piece);
    *rest = later;
    link.feed(now)
}

fn fill(link: &mut Link, rest: &mut &[u8], piece: usize) -> Result<(), LinkError> {
    match link.want() {
        Want::Payload(room) => {
            assert!(!room.is_empty() && room.len() <= (1 << 20) + SEAL_BYTES);
            let n = piece.min(room.len());
            room[..n].copy_from_slice(&rest[..n]);
            *rest = &rest[n..];
            link.filled(n)
        }
        Want::Stream(missing) => {
            assert!(missing > 0);
            feed(link, rest, piece.min(missing))
        }
        Want::Nothing => panic!("a link without an error wants bytes"),
    }
}

fn lend(link: &mut Link, rest: &mut &[u8], piece: usize) -> Result<(), LinkError> {
    let Some(mut loan) = link.lend() else { return fill(link, rest, piece) };
    let n = piece.min(loan.room().len());
    loan.room()[..n].copy_from_slice(&rest[..n]);
    *rest = &rest[n..];
    link.give_back(loan, n)
}

#[cfg(test)]
mod tests {
    use super::{Pair, taken};
    use mirror_core::units::SessionNo;
    use mirror_core::wire::{Frame, Message, Security, codec};

    /// Otherwise nothing behind the check of the tags is ever reached.
    #[test]
    fn what_the_liar_says_is_heard() {
        for security in [Security::Authenticated, Security::Encrypted] {
            let mut pair = Pair::new(security);
            for row in 0..3 {
                let message = Message::Verdict { row };
                let frame = Frame { session: SessionNo(0), settled: 0, message };
                let bytes = pair.sealed(codec::encode(&frame).expect("a frame").head, &[]);
                pair.honest.feed(&bytes).expect("good");
                assert_eq!(taken(&mut pair.honest), [frame]);
            }
        }
    }
}
