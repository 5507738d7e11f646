//! The kernel's NBD client as the front end of a mirror: making its device, going on with one that
//! an earlier agent has left, and taking it away.

use super::internal;
use crate::agent::Step;
use crate::driver::{FrontEndSpec, Handle};
use kmod_shim::nbd::Export;
use kmod_shim::nbd::kernel::{self, Found, Geometry};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For the kernel to notice that the earlier agent's connection has ended.
const TAKE_LIMIT: Duration = Duration::from_secs(30);
const TAKE_PAUSE: Duration = Duration::from_millis(20);
/// The watchdog is to come first: it ends everything, the kernel only what is new.
const AFTER_WATCHDOG: Duration = Duration::from_secs(10);
/// The kernel knows no limit that is none.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Where a mirror's device is.
#[derive(Debug, Default)]
enum Place {
    #[default]
    Nowhere,
    /// An earlier agent has left it.
    Left(Found),
    /// It is connected to this agent.
    Here(u32),
}

/// The nbd device of a mirror.
#[derive(Clone, Debug)]
pub(super) struct NbdDevice {
    identifier: String,
    dead_limit: Duration,
    place: Arc<Mutex<Place>>,
}

impl NbdDevice {
    /// A device that waits for another agent for `patience`; zero: for ever. `left` is one that an
    /// earlier agent has left and that is to be served again.
    pub(super) fn new(identifier: String, patience: Duration, left: Option<Found>) -> Self {
        let dead_limit = if patience.is_zero() { FOR_EVER } else { patience + AFTER_WATCHDOG };
        let place = Arc::new(Mutex::new(left.map_or(Place::Nowhere, Place::Left)));
        Self { identifier, dead_limit, place }
    }

    fn geometry(&self, export: &Export) -> Geometry {
        Geometry {
            size: export.size,
            block: export.block,
            identifier: self.identifier.clone(),
            dead_limit: self.dead_limit,
        }
    }

    /// A panic while it was held leaves a whole value behind.
    fn put(&self, place: Place) -> Place {
        std::mem::replace(&mut self.place.lock().unwrap_or_else(PoisonError::into_inner), place)
    }

    /// Makes the device, or goes on with the one that was left, and serves it; gives its node.
    pub(super) async fn open(&self, handle: &Handle, export: Export) -> Step<PathBuf> {
        let number = match self.put(Place::Nowhere) {
            Place::Left(found) => self.resume(found.number, handle, export).await?,
            _ => self.make(handle, export).await?,
        };
        self.put(Place::Here(number));
        Ok(kernel::device_path(number))
    }

    async fn make(&self, handle: &Handle, export: Export) -> Step<u32> {
        let geometry = self.geometry(&export);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        serve(handle, ours, export).await?;
        let made = blocking(move || kernel::connect(&geometry, theirs.as_fd())).await;
        if made.is_err() {
            let _ = handle.close_front_end().await; // a driver that has ended serves nobody
        }
        made.map_err(failed)
    }

    async fn resume(&self, number: u32, handle: &Handle, export: Export) -> Step<u32> {
        let geometry = self.geometry(&export);
        let ours = blocking(move || take_over(number, &geometry)).await.map_err(failed)?;
        serve(handle, ours, export).await?;
        Ok(number)
    }

    /// Takes the device away, before its front end is closed. What is gone is taken away.
    pub(super) async fn close(&self) -> Step<()> {
        let Place::Here(number) = self.put(Place::Nowhere) else { return Ok(()) };
        let identifier = self.identifier.clone();
        let closed = blocking(move || kernel::disconnect(number, &identifier)).await;
        closed.map_err(|e| {
            self.put(Place::Here(number));
            failed(e)
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

async fn serve(handle: &Handle, socket: UnixStream, export: Export) -> Step<()> {
    let spec = FrontEndSpec::NbdKernel { socket: Arc::new(socket.into()), export };
    let opened = handle.open_front_end(spec).await;
    opened.map_err(|_| internal("the driver has ended"))?.map_err(failed)
}

/// Gives the device a new connection; ours is the end to serve.
fn take_over(number: u32, geometry: &Geometry) -> io::Result<UnixStream> {
    let end = Instant::now() + TAKE_LIMIT;
    loop {
        let (ours, theirs) = UnixStream::pair()?;
        kernel::reconnect(number, geometry, theirs.as_fd())?;
        drop(theirs);
        if !is_at_end(&ours)? {
            return Ok(ours);
        }
        if Instant::now() >= end {
            let what = "the connection of the earlier agent does not end";
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        std::thread::sleep(TAKE_PAUSE);
    }
}

/// Whether nobody has the other end of a connection any more.
fn is_at_end(socket: &UnixStream) -> io::Result<bool> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(socket.as_raw_fd(), &mut [0], flags) {
        Ok(count) => Ok(count == 0),
        Err(Errno::EAGAIN) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(e: io::Error) -> crate::agent::StepError {
    internal(&format!("nbd: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_the_kernel_did_not_take_is_at_its_end() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        assert!(!is_at_end(&ours).expect("looks"));
        let taken = theirs.try_clone().expect("a second descriptor");
        drop(theirs);
        assert!(!is_at_end(&ours).expect("looks"));
        drop(taken);
        assert!(is_at_end(&ours).expect("looks"));
    }
}
