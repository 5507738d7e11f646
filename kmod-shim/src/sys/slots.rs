//! The table of operations in flight: each owns its memory until its completion.

use super::ring::{Completion, Submitter};
use io_uring::types::FsyncFlags;
use io_uring::{opcode, squeue, types};
use mirror_core::buf::{Buf, BufMut};
use mirror_core::wire::Loan;
use nix::libc;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use std::net::SocketAddr;
use std::ops::{Deref, Range};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// A descriptor that stays open while an operation uses it.
pub type Fd = Arc<OwnedFd>;

/// Most pieces that one send takes; the rest stays for the next.
const MAX_PIECES: usize = 128;
const INDEX_BITS: u32 = 24;

/// Bytes to send.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Small things: headers.
    Bytes(Vec<u8>),
    /// Payload.
    Shared(Buf),
}

impl Deref for Piece {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Shared(buf) => buf,
        }
    }
}

/// An operation with all that it needs. Buffers come back in [`Ended`].
#[derive(Debug)]
pub enum Op {
    /// Accept one connection.
    Accept {
        /// Listening socket.
        socket: Fd,
    },
    /// Connect a socket.
    Connect {
        /// Socket.
        socket: Fd,
        /// To where.
        address: SocketAddr,
    },
    /// Receive into `buf[range]`.
    Recv {
        /// Connected socket.
        socket: Fd,
        /// Memory.
        buf: BufMut,
        /// The part of it to fill.
        range: Range<usize>,
    },
    /// Receive the payload of a frame straight into its own memory.
    RecvFrame {
        /// Connected socket.
        socket: Fd,
        /// Memory; the missing bytes of it are filled.
        loan: Loan,
    },
    /// Send `pieces` without their first `skip` bytes. May end before all is sent.
    Send {
        /// Connected socket.
        socket: Fd,
        /// What.
        pieces: Vec<Piece>,
        /// Bytes sent already.
        skip: usize,
    },
    /// Read `buf[range]` from `offset` on.
    Read {
        /// File; for one that cannot seek (eventfd) the offset is 0.
        file: Fd,
        /// Byte offset in the file of `buf[range.start]`.
        offset: u64,
        /// Memory.
        buf: BufMut,
        /// The part of it to fill.
        range: Range<usize>,
    },
    /// Read from `offset` on, straight into memory that a driver of the kernel's has registered
    /// with the ring: no copy passes here.
    ReadStraight {
        /// File.
        file: Fd,
        /// Byte offset in the file of `range.start`.
        offset: u64,
        /// Index of the memory in the ring.
        place: u16,
        /// The part of it to fill, in bytes.
        range: Range<usize>,
    },
    /// Write `buf[range]` at `offset`.
    Write {
        /// File.
        file: Fd,
        /// Byte offset in the file of `buf[range.start]`.
        offset: u64,
        /// The bytes.
        buf: Buf,
        /// The part of them to write.
        range: Range<usize>,
        /// End only when they are durable (RWF_DSYNC).
        durable: bool,
    },
    /// Let some time pass.
    Pause {
        /// How much.
        time: Duration,
    },
    /// Make everything written durable (fdatasync).
    Sync {
        /// File.
        file: Fd,
    },
    /// Zero a range of a file (fallocate), keeping its size.
    Zero {
        /// File.
        file: Fd,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// Release the space.
        punch: bool,
    },
}

/// An operation that has ended.
#[derive(Debug)]
pub struct Ended<T> {
    /// What the submitter noted with it.
    pub tag: T,
    /// The operation, with its buffers.
    pub op: Op,
    /// Count of bytes or 0, or an errno.
    pub result: Result<usize, i32>,
    /// The new connection of an [`Op::Accept`] that succeeded.
    pub accepted: Option<OwnedFd>,
}

/// Memory that only the submission needs.
enum Aside {
    Nothing,
    Message(Box<libc::msghdr>, #[allow(dead_code)] Vec<libc::iovec>), // the header points to it
    Address(Box<SockaddrStorage>),
    Time(Box<types::Timespec>),
}

struct InFlight<T> {
    tag: T,
    op: Op,
    #[allow(dead_code)] // only kept alive
    aside: Aside,
}

struct Slot<T> {
    generation: u32,
    content: Option<Box<InFlight<T>>>,
}

/// Operations in flight, by token. A token is never the same for two operations that could be
/// mistaken for each other: it carries a generation.
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// How many operations are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Submits `op` and returns its token. `tag` comes back with it.
    ///
    /// # Panics
    /// A range is outside of its buffer, or 2^24 operations are in flight: errors of the caller.
    pub fn submit(&mut self, op: Op, tag: T, ring: &mut dyn Submitter) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, content: None });
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let index = u64::try_from(index).expect("an index fits in 64 bits");
        assert!(index >> INDEX_BITS == 0, "too many operations in flight");
        let token = (u64::from(slot.generation) << INDEX_BITS) | index;
        let content = slot.content.insert(Box::new(InFlight { tag, op, aside: Aside::Nothing }));
        let entry = build(&mut content.op, &mut content.aside);
        // SAFETY: everything that the entry points to is owned by `content` (heap memory that does
        // not move with it), which stays in the table until `take` gets this token's completion,
        // or for ever if the table is dropped before.
        unsafe { ring.push(entry, token) };
        token
    }

    /// Takes back the operation that `cqe` ends; `None` if it is not one of this table.
    pub fn take(&mut self, cqe: &Completion) -> Option<Ended<T>> {
        let index = usize::try_from(cqe.token() & ((1 << INDEX_BITS) - 1)).ok()?;
        let slot = self.slots.get_mut(index)?;
        if u64::from(slot.generation) != cqe.token() >> INDEX_BITS {
            return None;
        }
        let InFlight { tag, op, .. } = *slot.content.take()?;
        self.free.push(index);
        let result = usize::try_from(cqe.result()).map_err(|_| -cqe.result());
        let accepted = match (&op, result) {
            // SAFETY: a successful accept returns a new descriptor that nobody else owns.
            (Op::Accept { .. }, Ok(_)) => Some(unsafe { OwnedFd::from_raw_fd(cqe.result()) }),
            _ => None,
        };
        Some(Ended { tag, op, result, accepted })
    }

    /// The tags of all operations in flight.
    pub fn tags(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.content.as_ref().map(|c| &c.tag))
    }
}

impl<T> Drop for Slots<T> {
    /// What is still in flight is leaked: the kernel may be using it.
    fn drop(&mut self) {
        for slot in &mut self.slots {
            std::mem::forget(slot.content.take());
        }
    }
}

fn build(op: &mut Op, aside: &mut Aside) -> squeue::Entry {
    match op {
        Op::Accept { socket } => {
            opcode::Accept::new(fd(socket), std::ptr::null_mut(), std::ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build()
        }
        Op::Connect { socket, address } => connect(socket, *address, aside),
        Op::Recv { socket, buf, range } => {
            let part = &mut buf[range.clone()];
            opcode::Recv::new(fd(socket), part.as_mut_ptr(), length(part.len())).build()
        }
        Op::RecvFrame { socket, loan } => {
            let room = loan.room();
            opcode::Recv::new(fd(socket), room.as_mut_ptr(), length(room.len())).build()
        }
        Op::Send { socket, pieces, skip } => send(socket, pieces, *skip, aside),
        Op::Read { file, offset, buf, range } => {
            let part = &mut buf[range.clone()];
            opcode::Read::new(fd(file), part.as_mut_ptr(), length(part.len()))
                .offset(*offset)
                .build()
        }
        Op::ReadStraight { file, offset, place, range } => {
            // The registered memory begins at the address 0; the kernel keeps it until the
            // operation has ended, and refuses what is outside of it.
            let start = std::ptr::without_provenance_mut(range.start);
            opcode::ReadFixed::new(fd(file), start, length(range.len()), *place)
                .offset(*offset)
                .build()
        }
        Op::Write { file, offset, buf, range, durable } => {
            let part = &buf[range.clone()];
            opcode::Write::new(fd(file), part.as_ptr(), length(part.len()))
                .offset(*offset)
                .rw_flags(if *durable { libc::RWF_DSYNC } else { 0 })
                .build()
        }
        Op::Pause { time } => {
            *aside = Aside::Time(Box::new(types::Timespec::from(*time)));
            let Aside::Time(stored) = aside else { unreachable!("just set") };
            opcode::Timeout::new(&raw const **stored).build()
        }
        Op::Sync { file } => opcode::Fsync::new(fd(file)).flags(FsyncFlags::DATASYNC).build(),
        Op::Zero { file, offset, len, punch } => {
            let how = if *punch { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
            opcode::Fallocate::new(fd(file), *len)
                .offset(*offset)
                .mode(how | libc::FALLOC_FL_KEEP_SIZE)
                .build()
        }
    }
}

fn fd(file: &Fd) -> types::Fd {
    types::Fd(file.as_raw_fd())
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("a buffer of one operation is far below 4 GiB")
}

fn connect(socket: &Fd, address: SocketAddr, aside: &mut Aside) -> squeue::Entry {
    *aside = Aside::Address(Box::new(SockaddrStorage::from(address)));
    let Aside::Address(stored) = aside else { unreachable!("just set") };
    opcode::Connect::new(fd(socket), stored.as_ptr(), stored.len()).build()
}

fn send(socket: &Fd, pieces: &[Piece], mut skip: usize, aside: &mut Aside) -> squeue::Entry {
    let mut vectors = Vec::with_capacity(pieces.len().min(MAX_PIECES));
    for piece in pieces {
        let skipped = skip.min(piece.len());
        skip -= skipped;
        let rest = &piece[skipped..];
        if !rest.is_empty() && vectors.len() < MAX_PIECES {
            vectors.push(libc::iovec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            });
        }
    }
    // SAFETY: all zero is a valid message header (null pointers with lengths of 0).
    let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    *aside = Aside::Message(header, vectors);
    let Aside::Message(header, _) = aside else { unreachable!("just set") };
    let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
    opcode::SendMsg::new(fd(socket), &raw const **header).flags(flags.unsigned_abs()).build()
}
