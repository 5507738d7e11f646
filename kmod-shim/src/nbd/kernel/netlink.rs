//! As much of generic netlink as four commands need.
//!
//! The crates for it were looked at: `neli` brings derive macros, builders and locks, and
//! `netlink-packet-generic` traits to be implemented for every attribute of a family it does not
//! know. The format itself is a header and a list of (length, number, bytes).

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes of the headers `nlmsghdr` and `genlmsghdr`.
const MESSAGE_HEADER: usize = 16;
const COMMAND_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// Messages of this type hold an error number, 0 for success.
const ERROR: u16 = 2;
/// An answer is wanted to this request, and at least a confirmation.
const REQUEST_AND_ACK: u16 = 1 | 4;
/// The attribute's value is a list of attributes.
const NESTED: u16 = 1 << 15;
/// Bits of an attribute's number that are not its number.
const ATTRIBUTE_FLAGS: u16 = 3 << 14;

/// The family that knows the numbers of the others.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Answers are short; one that is longer is an error.
const MAX_ANSWER: usize = 16 << 10;
/// The kernel answers before the request's send returns, so nothing is ever waited for long.
const ANSWER_LIMIT: TimeVal = TimeVal::new(10, 0);

/// A list of attributes under construction.
#[derive(Clone, Default, Debug)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    fn put(mut self, number: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len())
            .expect("attributes are names, numbers and a few sockets");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(number.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn u32(self, number: u16, value: u32) -> Self {
        self.put(number, &value.to_ne_bytes())
    }

    pub(super) fn u64(self, number: u16, value: u64) -> Self {
        self.put(number, &value.to_ne_bytes())
    }

    /// A text and the zero byte that ends it.
    pub(super) fn text(self, number: u16, value: &str) -> Self {
        self.put(number, &[value.as_bytes(), &[0]].concat())
    }

    pub(super) fn list(self, number: u16, value: &Self) -> Self {
        self.put(number | NESTED, &value.0)
    }
}

/// The attributes in `bytes`, as far as they are well-formed.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<ATTRIBUTE_HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let number = u16::from_ne_bytes([header[2], header[3]]) & !ATTRIBUTE_FLAGS;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((number, value))
    })
}

/// The value of an attribute that is a number of 32 bits.
pub(super) fn find_u32(bytes: &[u8], number: u16) -> Option<u32> {
    let (_, value) = attributes(bytes).find(|(n, _)| *n == number)?;
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

fn find_u16(bytes: &[u8], number: u16) -> Option<u16> {
    let (_, value) = attributes(bytes).find(|(n, _)| *n == number)?;
    Some(u16::from_ne_bytes(value.try_into().ok()?))
}

fn request(family: u16, sequence: u32, command: u8, attributes: &Attributes) -> Vec<u8> {
    let length = MESSAGE_HEADER + COMMAND_HEADER + attributes.0.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).expect("a request is short").to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend(REQUEST_AND_ACK.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes()); // the kernel knows the sender
    bytes.extend([command, 1, 0, 0]); // version 1
    bytes.extend(&attributes.0);
    bytes
}

/// What one message of an answer means.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    /// The attributes that were asked for.
    Attributes(Vec<u8>),
    /// The end, with an error number or 0.
    End(i32),
}

/// Takes the next message for `sequence` off the front of `bytes`; others are passed over.
fn next_answer(bytes: &mut &[u8], sequence: u32) -> Option<Answer> {
    loop {
        let header = bytes.first_chunk::<MESSAGE_HEADER>()?;
        let word =
            |at| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = usize::try_from(word(0)).ok()?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = bytes.get(MESSAGE_HEADER..length)?;
        let ours = word(8) == sequence;
        *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        match body.first_chunk::<4>() {
            _ if !ours => {}
            Some(error) if kind == ERROR => {
                return Some(Answer::End(i32::from_ne_bytes(*error).saturating_neg()));
            }
            Some(_) => return Some(Answer::Attributes(body[COMMAND_HEADER..].to_vec())),
            None => {}
        }
    }
}

/// Reads one datagram of an answer: attributes are left in `found`. The end, if it is there: the
/// kernel's word.
pub(super) fn read_answer(
    mut datagram: &[u8],
    sequence: u32,
    found: &mut Vec<u8>,
) -> Option<io::Result<()>> {
    while let Some(answer) = next_answer(&mut datagram, sequence) {
        match answer {
            Answer::Attributes(bytes) => *found = bytes,
            Answer::End(0) => return Some(Ok(())),
            Answer::End(errno) => return Some(Err(io::Error::from_raw_os_error(errno))),
        }
    }
    None
}

/// A socket to one family.
pub(super) struct Netlink {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket to the family of this name.
    ///
    /// # Errors
    /// ENOENT: there is none in this network namespace.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkGeneric;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &ANSWER_LIMIT)?;
        let mut netlink = Self { socket, family: CONTROL, sequence: 0 };
        let answer = netlink.ask(GET_FAMILY, &Attributes::default().text(FAMILY_NAME, name))?;
        netlink.family =
            find_u16(&answer, FAMILY_ID).ok_or_else(|| malformed("no family number"))?;
        Ok(netlink)
    }

    /// Sends a command; gives the attributes of the answer, empty if there is only a confirmation.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn ask(&mut self, command: u8, attributes: &Attributes) -> io::Result<Vec<u8>> {
        self.sequence += 1;
        let bytes = request(self.family, self.sequence, command, attributes);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut found = Vec::new();
        let mut buffer = vec![0; MAX_ANSWER];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)?;
            let datagram = buffer.get(..length).ok_or_else(|| malformed("too long an answer"))?;
            if let Some(end) = read_answer(datagram, self.sequence, &mut found) {
                return end.map(|()| found);
            }
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("netlink: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(MESSAGE_HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_control_family_is_found_by_its_name() {
        // The one family that every kernel has.
        let netlink = Netlink::open("nlctrl").expect("the kernel has generic netlink");
        assert_eq!(netlink.family, CONTROL);
        let error = Netlink::open("no-such-family").err().expect("there is none");
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOENT));
    }

    #[test]
    fn attributes_are_padded_and_come_back() {
        let inner = Attributes::default().u32(1, 7);
        let list = Attributes::default().text(10, "md1").list(7, &inner).u32(1, 42).u64(2, 1 << 40);
        assert_eq!(list.0.len(), 8 + 12 + 8 + 12);
        assert_eq!(find_u32(&list.0, 1), Some(42));
        let found: Vec<_> = attributes(&list.0).map(|(n, v)| (n, v.to_vec())).collect();
        assert_eq!(found[0], (10, b"md1\0".to_vec()));
        assert_eq!(found[1], (7, inner.0));
        assert_eq!(find_u32(&list.0, 2), None, "it has 64 bits");
        assert_eq!(find_u16(&list.0, 9), None);
    }

    #[test]
    fn answers_to_other_requests_are_passed_over() {
        let body = [&[1, 1, 0, 0], Attributes::default().u32(1, 3).0.as_slice()].concat();
        let bytes = [
            message(30, 4, &body),
            message(30, 5, &body),
            message(ERROR, 5, &(-16_i32).to_ne_bytes()),
        ]
        .concat();
        let mut rest = bytes.as_slice();
        let Some(Answer::Attributes(found)) = next_answer(&mut rest, 5) else { panic!("first") };
        assert_eq!(find_u32(&found, 1), Some(3));
        assert_eq!(next_answer(&mut rest, 5), Some(Answer::End(16)));
        assert_eq!(next_answer(&mut rest, 5), None);
    }

    proptest! {
        #[test]
        fn garbage_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = bytes.as_slice();
            while let Some(answer) = next_answer(&mut rest, 0) {
                if let Answer::Attributes(found) = answer {
                    prop_assert!(attributes(&found).count() <= 50);
                }
            }
        }
    }
}
