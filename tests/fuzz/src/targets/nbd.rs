//! A client of the NBD server: the negotiation, then requests, cut anywhere, answered in any
//! order.
//!
//! What must hold: no panic; parts lie within the export and are short; a bounded number of them
//! and of bytes is held; the answers are well formed, one for each request at most.

use crate::input::Input;
use kmod_shim::nbd::Export;
use kmod_shim::nbd::connection::{Connection, MAX_BYTES, MAX_REQUESTS, Part};
use kmod_shim::nbd::protocol::{
    OPTION_MAGIC, OPTION_REPLY_MAGIC, REQUEST_MAGIC, RequestHeader, SIMPLE_REPLY_MAGIC, command,
    take_u32, take_u64,
};
use mirror_core::buf::BufMut;
use mirror_core::io::{RequestError, RequestOp};
use mirror_core::units::MAX_EXTENT_BYTES;
use std::collections::VecDeque;
use std::sync::Arc;

const SIZE: u64 = 40 << 20;
const BLOCK: u32 = 512;
const STEPS: usize = 200;

struct Rig {
    connection: Connection,
    parts: Vec<Part>,
    /// Bytes on their way to the server.
    wire: VecDeque<u8>,
    sent: Vec<u8>,
    requests: usize,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let export = Export { name: "md1".into(), size: SIZE, block: BLOCK };
    let mut rig = Rig {
        connection: Connection::new(Arc::new(export)),
        parts: Vec::new(),
        wire: VecDeque::new(),
        sent: Vec::new(),
        requests: 0,
    };
    let plain = input.flag();
    if plain {
        rig.negotiate();
    }
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        rig.step(&mut input);
    }
    rig.finish();
    if plain {
        rig.check_replies();
    }
}

impl Rig {
    fn negotiate(&mut self) {
        self.wire.extend([0, 0, 0, 3]);
        self.say_option(1, &[]);
        self.transfer(usize::MAX);
        self.collect();
        assert_eq!(std::mem::take(&mut self.sent).len(), 18 + 10);
    }

    fn say_option(&mut self, option: u32, data: &[u8]) {
        self.wire.extend(OPTION_MAGIC.to_be_bytes());
        self.wire.extend(option.to_be_bytes());
        self.wire.extend(u32::try_from(data.len()).expect("short").to_be_bytes());
        self.wire.extend(data);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let how = input.u8();
        match how & 15 {
            0..=4 => self.say_request(input),
            5 => {
                let count = usize::from(input.u8());
                let bytes = input.bytes(count).to_vec();
                self.wire.extend(bytes);
            }
            6 => {
                let (option, len) = (u32::from(input.u8()), input.u8());
                let data = input.bytes(usize::from(len)).to_vec();
                self.say_option(option, &data);
            }
            7 => self.say_info(input),
            8 => self.transfer(1 + usize::from(input.u8())),
            9 | 10 => self.transfer(usize::MAX),
            11 => self.end_part(input),
            12 => self.collect(),
            13 => self.end_all(),
            14 if how & 0xf0 == 0xf0 => self.connection.stop(),
            14 if how & 0xf0 == 0xe0 => self.fail(),
            14 if how & 0xf0 == 0xd0 => self.connection.abort(),
            _ => {
                let zeros = input.below(70_000);
                self.wire.extend(std::iter::repeat_n(0, zeros));
            }
        }
        assert!(self.parts.len() <= MAX_REQUESTS * 8, "{} parts", self.parts.len());
    }

    fn say_request(&mut self, input: &mut Input<'_>) {
        let how = input.u8();
        let offset = if how & 1 == 0 { u64::from(input.u16()) * 512 } else { input.number(SIZE) };
        let length = match how >> 1 & 3 {
            0 => u32::from(input.u8()) * 512,
            1 => u32::from(input.u8()) << 17,
            2 => input.u32(),
            _ => 512,
        };
        let command = if how & 8 == 0 { u16::from(input.u8() % 8) } else { input.u16() };
        let flags = if how & 16 == 0 { u16::from(how >> 5) } else { input.u16() };
        self.requests += 1;
        let cookie = self.requests as u64;
        let header = RequestHeader { flags, command, cookie, offset, length };
        self.wire.extend(header.encode());
        let payload = usize::try_from(length).expect("32 bits").min(70_000);
        if command == command::WRITE {
            self.wire.extend(std::iter::repeat_n(0x77, payload));
        }
    }

    fn say_info(&mut self, input: &mut Input<'_>) {
        let how = input.u8();
        let name: &[u8] = if how & 1 == 0 { b"md1" } else { input.bytes(5) };
        let mut data = u32::try_from(name.len()).expect("short").to_be_bytes().to_vec();
        data.extend(name);
        data.extend(u16::from(how >> 4).to_be_bytes());
        data.extend(input.bytes(usize::from(how >> 4) * 2));
        self.say_option(if how & 2 == 0 { 7 } else { 6 }, &data);
    }

    /// The server takes what it wants of what is on its way, at most `limit` bytes at a time.
    fn transfer(&mut self, limit: usize) {
        for _ in 0..64 {
            if self.wire.is_empty() {
                return;
            }
            let Some((mut buf, range)) = self.connection.lend() else { return };
            assert!(!range.is_empty(), "an empty buffer was lent");
            let count = range.len().min(self.wire.len()).min(limit);
            for (slot, byte) in buf[range].iter_mut().zip(self.wire.drain(..count)) {
                *slot = byte;
            }
            self.connection.received(buf, count);
            self.advance();
            if limit != usize::MAX {
                return;
            }
        }
    }

    fn advance(&mut self) {
        let before = self.parts.len();
        self.connection.advance(&mut self.parts);
        for part in &self.parts[before..] {
            let extent = part.extent;
            if let RequestOp::Write(data) = &part.op {
                assert_eq!(data.len() as u64, extent.len);
            }
            let flush = matches!(part.op, RequestOp::Flush);
            assert!(flush || extent.is_valid_for(SIZE, BLOCK), "{extent:?}");
        }
        let held: u64 = self.parts.iter().map(|p| held(&p.op, p.extent.len)).sum();
        assert!(held <= MAX_BYTES + MAX_EXTENT_BYTES, "{held} bytes are held");
    }

    fn end_part(&mut self, input: &mut Input<'_>) {
        let how = input.u8();
        if self.parts.is_empty() {
            return;
        }
        let part = self.parts.swap_remove(usize::from(how >> 3) % self.parts.len());
        match how & 7 {
            0 => self.connection.ended(part.id, Err(RequestError::Io)),
            1 => self.connection.ended(part.id, Ok(None)),
            2 => self.connection.ended(part.id, Ok(Some(BufMut::zeroed(512).freeze()))),
            _ => self.end_well(&part),
        }
        self.advance();
    }

    fn end_well(&mut self, part: &Part) {
        let len = usize::try_from(part.extent.len).expect("1 MiB");
        let read = matches!(part.op, RequestOp::Read);
        self.connection.ended(part.id, Ok(read.then(|| BufMut::zeroed(len).freeze())));
    }

    fn end_all(&mut self) {
        for _ in 0..1000 {
            let Some(part) = self.parts.pop() else { return };
            self.end_well(&part);
            self.advance();
        }
    }

    /// The results of what the core has are not handed in any more.
    fn fail(&mut self) {
        self.parts.clear();
        self.connection.fail();
        self.advance();
        assert!(self.parts.is_empty(), "nothing reaches the core any more");
    }

    fn collect(&mut self) {
        while let Some(pieces) = self.connection.output() {
            pieces.iter().for_each(|p| self.sent.extend_from_slice(p));
        }
        self.advance();
    }

    /// The client goes: everything comes to its end.
    fn finish(&mut self) {
        self.connection.stop();
        for _ in 0..100 {
            self.end_all();
            self.collect();
        }
        assert!(self.connection.is_finished(), "something is left");
    }

    /// One answer for each request at most, whole but for the data that follows it.
    fn check_replies(&self) {
        let mut rest = self.sent.as_slice();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(magic) = take_u32(&mut rest) {
            if magic != SIMPLE_REPLY_MAGIC {
                // Data of a read is zeros in this rig.
                assert_eq!(magic, 0, "neither an answer nor data");
                continue;
            }
            let error = take_u32(&mut rest).expect("a whole answer");
            let cookie = take_u64(&mut rest).expect("a whole answer");
            assert!([0, 5, 22, 108].contains(&error), "error {error}");
            let made_up = cookie == 0 || cookie > self.requests as u64;
            assert!(made_up || seen.insert(cookie), "{cookie} is answered twice");
        }
        let _ = (REQUEST_MAGIC, OPTION_REPLY_MAGIC);
    }
}

fn held(op: &RequestOp, len: u64) -> u64 {
    if matches!(op, RequestOp::Read | RequestOp::Write(_)) { len } else { 0 }
}
