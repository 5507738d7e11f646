//! The driver's thread behind the agent's trait.

use super::internal;
use crate::agent::{MirrorHandle, Step};
use crate::ctl::Answer;
use crate::driver::{FrontEndSpec, Handle};
use kmod_shim::nbd::Export;
use kmod_shim::ublk::device_path;
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::status::{Marked, MirrorStatus};
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread::JoinHandle;

/// How the device is served.
#[derive(Clone, Debug)]
pub(super) enum Serving {
    /// On this NBD socket.
    Socket(PathBuf),
    /// By the ublk device of this number.
    Ublk(u32),
}

impl Serving {
    /// What the driver is to open, and where it will be.
    fn spec(&self, export: Export) -> (FrontEndSpec, PathBuf) {
        match self {
            Self::Socket(path) => {
                (FrontEndSpec::NbdSocket { path: path.clone(), export }, path.clone())
            }
            Self::Ublk(number) => {
                (FrontEndSpec::Ublk { number: *number, export }, device_path(*number))
            }
        }
    }
}

/// A running driver.
pub(super) struct DriverHandle {
    name: String,
    serving: Serving,
    handle: Handle,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl DriverHandle {
    pub(super) fn new(
        name: String,
        serving: Serving,
        handle: Handle,
        thread: JoinHandle<()>,
    ) -> Self {
        Self { name, serving, handle, thread: Mutex::new(Some(thread)) }
    }
}

impl MirrorHandle for DriverHandle {
    fn command(&self, command: Command) -> Answer<Result<Done, Refusal>> {
        let answer = self.handle.command(command);
        Box::pin(async move { answer.await.unwrap_or(Err(Refusal::Stopping)) })
    }

    fn status(&self) -> Answer<Option<MirrorStatus>> {
        let answer = self.handle.status();
        Box::pin(async move { answer.await.ok() })
    }

    fn marked(&self, limit: usize) -> Answer<Option<Marked>> {
        let answer = self.handle.marked(limit);
        Box::pin(async move { answer.await.ok() })
    }

    fn open_front_end(&self) -> Answer<Step<PathBuf>> {
        let (handle, serving, name) =
            (self.handle.clone(), self.serving.clone(), self.name.clone());
        Box::pin(async move {
            let gone = || internal("the driver has ended");
            let status = handle.status().await.map_err(|_| gone())?;
            let export = Export { name, size: status.size, block: status.block };
            let (spec, place) = serving.spec(export);
            let opened = handle.open_front_end(spec).await.map_err(|_| gone())?;
            opened.map_err(|e| internal(&format!("{}: {e}", place.display())))?;
            Ok(place)
        })
    }

    fn close_front_end(&self) -> Answer<Step<()>> {
        let answer = self.handle.close_front_end();
        Box::pin(async move {
            // A driver that has ended serves nobody.
            let _ = answer.await;
            Ok(())
        })
    }

    fn end(&self) -> Answer<()> {
        self.handle.stop();
        // A panic while it was held leaves a whole value behind.
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        Box::pin(async move {
            let Some(thread) = thread else { return };
            let ended = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
            if !matches!(ended, Ok(true)) {
                tracing::error!("a driver's thread ended abnormally");
            }
        })
    }
}
