//! One io_uring, shared by several owners on one thread.
//!
//! `user_data` of an entry: the top 8 bits are the [`Owner`], the low 56 bits are the owner's own
//! token. Owner 0xff is nobody: its completions are dropped (cancellations).

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

const TOKEN_BITS: u32 = 56;
const TOKEN_MASK: u64 = (1 << TOKEN_BITS) - 1;
const SUBMISSIONS: u32 = 256;
const COMPLETIONS: u32 = 4096;
/// Places for memory that the kernel registers itself ([`Op::ReadStraight`](super::Op)).
const PLACES: u16 = 256;

/// A look at the ring that took so long was no look: other threads had this processor.
const OTHERS_RAN: Duration = Duration::from_micros(50);

/// How staying awake ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awake {
    /// With a completion.
    Found,
    /// With nothing: it was too short.
    TooShort,
    /// Others need this processor.
    Disturbed,
}

/// Who submitted an operation and gets its completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner(pub u8);

impl Owner {
    /// The block front end.
    pub const FRONT_END: Self = Self(0);
    /// The data partition.
    pub const DATA: Self = Self(1);
    /// The cluster partition.
    pub const META: Self = Self(2);
    /// The connections to the peer.
    pub const NET: Self = Self(3);
    /// Wake-ups from other threads.
    pub const WAKE: Self = Self(4);
    const NOBODY: Self = Self(0xff);
}

/// The end of one operation, as the kernel reported it. Only a [`Ring`] makes these.
#[derive(Clone, Debug)]
pub struct Completion {
    token: u64,
    result: i32,
    flags: u32,
}

impl Completion {
    /// The owner's token.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The operation's result; negative is an errno.
    #[must_use]
    pub fn result(&self) -> i32 {
        self.result
    }

    /// The completion's flags.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags
    }
}

/// Where an owner puts its operations.
pub trait Submitter {
    /// Queues `entry` for submission; its completion carries `token` (56 bits).
    ///
    /// # Safety
    /// Whatever memory and descriptors the entry names stay valid until its completion has been
    /// taken from the ring.
    unsafe fn push(&mut self, entry: squeue::Entry, token: u64);

    /// Asks the kernel to end the operation with this token early; its completion still comes.
    fn cancel(&mut self, token: u64);

    /// How many places the ring has for memory that a driver of the kernel's registers: their
    /// indexes are below this.
    fn places(&self) -> u16 {
        0
    }
}

/// An io_uring with room for entries that the kernel's queue has no room for yet.
pub struct Ring {
    uring: IoUring,
    places: u16,
    backlog: VecDeque<squeue::Entry>,
    /// The disks' entries, which go after all others: what a write needs most time for is its way
    /// over the network, so that begins first.
    last: Vec<squeue::Entry>,
}

impl Ring {
    /// A ring for the calling thread, which alone may use it.
    ///
    /// # Errors
    /// The kernel has no io_uring, or forbids it.
    pub fn new() -> io::Result<Self> {
        // The commands that the agent starts have no business with the ring's memory.
        let modern = IoUring::builder()
            .dontfork()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSIONS);
        let uring = match modern {
            Ok(uring) => uring,
            Err(_) => IoUring::builder().dontfork().setup_cqsize(COMPLETIONS).build(SUBMISSIONS)?,
        };
        if !uring.params().is_feature_ext_arg() || !uring.params().is_feature_nodrop() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring is too old (< 5.11)"));
        }
        // Older kernels have none (before 5.19).
        let registered = uring.submitter().register_buffers_sparse(u32::from(PLACES));
        let places = if registered.is_ok() { PLACES } else { 0 };
        Ok(Self { uring, places, backlog: VecDeque::new(), last: Vec::new() })
    }

    /// See [`Submitter::places`].
    #[must_use]
    pub fn places(&self) -> u16 {
        self.places
    }

    /// The ring as `owner` sees it.
    pub fn owner(&mut self, owner: Owner) -> Tagged<'_> {
        Tagged { ring: self, owner }
    }

    /// Submits what is queued, waits for at least one completion or until `limit` has passed, and
    /// appends all completions to `out`. `None` waits without end, zero does not wait.
    ///
    /// # Errors
    /// The ring is broken; nothing but giving up helps.
    pub fn wait(
        &mut self,
        limit: Option<Duration>,
        out: &mut Vec<(Owner, Completion)>,
    ) -> io::Result<()> {
        self.refill()?;
        self.block(limit)?;
        self.reap(out);
        Ok(())
    }

    /// As [`wait`](Self::wait), but stays awake for the first `awake` of it: whoever completes an
    /// operation then need not wake this thread. For no longer than a burst of work: a thread that
    /// yields goes behind the least important one, so this does not.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_awake(
        &mut self,
        awake: Duration,
        limit: Option<Duration>,
        out: &mut Vec<(Owner, Completion)>,
    ) -> io::Result<Awake> {
        self.refill()?;
        self.enter()?;
        let found = self.look(limit.map_or(awake, |limit| awake.min(limit)))?;
        if self.has_none() {
            self.block(limit)?;
        }
        self.reap(out);
        Ok(found)
    }

    fn has_none(&mut self) -> bool {
        self.uring.completion().is_empty()
    }

    /// Looks for completions for as long as `awake`.
    fn look(&mut self, awake: Duration) -> io::Result<Awake> {
        let begun = Instant::now();
        let mut before = begun;
        while self.has_none() {
            std::hint::spin_loop();
            let now = Instant::now();
            if self.uring.submission().taskrun() {
                self.enter()?;
                // Whatever the kernel makes of it, the look ends.
                if self.has_none() && begun.elapsed() > awake {
                    return Ok(Awake::TooShort);
                }
                continue;
            }
            if now - before > OTHERS_RAN {
                return Ok(Awake::Disturbed);
            }
            if now - begun > awake {
                return Ok(Awake::TooShort);
            }
            before = now;
        }
        Ok(Awake::Found)
    }

    /// Submits what is queued, and has the kernel post what it says has ended.
    fn enter(&mut self) -> io::Result<()> {
        self.uring.submit().map_or_else(tolerate, |_| Ok(()))
    }

    fn block(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let done = match limit {
            _ if !self.backlog.is_empty() => self.uring.submit(),
            None => self.uring.submit_and_wait(1),
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        };
        done.map_or_else(tolerate, |_| Ok(()))
    }

    fn reap(&mut self, out: &mut Vec<(Owner, Completion)>) {
        for cqe in self.uring.completion() {
            let owner = Owner(cqe.user_data().to_be_bytes()[0]);
            if owner != Owner::NOBODY {
                let token = cqe.user_data() & TOKEN_MASK;
                out.push((owner, Completion { token, result: cqe.result(), flags: cqe.flags() }));
            }
        }
    }

    /// Moves waiting entries to the kernel's queue, as far as they fit.
    fn refill(&mut self) -> io::Result<()> {
        self.backlog.extend(self.last.drain(..));
        while let Some(entry) = self.backlog.pop_front() {
            if self.offer(&entry) {
                continue;
            }
            self.backlog.push_front(entry);
            if let Err(e) = self.uring.submit() {
                tolerate(e)?;
                return Ok(());
            }
        }
        Ok(())
    }

    fn offer(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: whoever built the entry promised (`Submitter::push`) that what it names lives
        // until its completion.
        unsafe { self.uring.submission().push(entry).is_ok() }
    }

    fn queue(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() || !self.offer(&entry) {
            self.backlog.push_back(entry);
        }
    }
}

/// Errors of `io_uring_enter` after which the next round goes on as usual: the time limit passed,
/// a signal came, or completions must be reaped first.
fn tolerate(e: io::Error) -> io::Result<()> {
    use nix::libc::{EAGAIN, EBUSY, EINTR, ETIME};
    match e.raw_os_error() {
        Some(ETIME | EINTR | EBUSY | EAGAIN) => Ok(()),
        _ => Err(e),
    }
}

/// A [`Ring`] as one owner sees it.
pub struct Tagged<'a> {
    ring: &'a mut Ring,
    owner: Owner,
}

impl Tagged<'_> {
    fn user_data(&self, token: u64) -> u64 {
        (u64::from(self.owner.0) << TOKEN_BITS) | (token & TOKEN_MASK)
    }
}

impl Submitter for Tagged<'_> {
    unsafe fn push(&mut self, entry: squeue::Entry, token: u64) {
        let entry = entry.user_data(self.user_data(token));
        if self.owner == Owner::DATA {
            self.ring.last.push(entry);
        } else {
            self.ring.queue(entry);
        }
    }

    fn cancel(&mut self, token: u64) {
        let entry = opcode::AsyncCancel::new(self.user_data(token)).build();
        self.ring.queue(entry.user_data(u64::from(Owner::NOBODY.0) << TOKEN_BITS));
    }

    fn places(&self) -> u16 {
        self.ring.places
    }
}
