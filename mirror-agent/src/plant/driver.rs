//! The driver's thread behind the agent's trait.

use super::nbd::NbdDevice;
use super::ublk::Place;
use super::{internal, step};
use crate::agent::{MirrorHandle, Step, StepError};
use crate::ctl::Answer;
use crate::driver::{FrontEndSpec, Handle};
use crate::figures::Figures;
use kmod_shim::nbd::Export;
use kmod_shim::ublk::device_path;
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::status::{Marked, MirrorStatus};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::time::timeout;

/// For a front end to serve; the kernel reads a new device's first blocks before.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// How the device is served.
#[derive(Clone, Debug)]
pub(super) enum Serving {
    /// On this NBD socket.
    Socket(PathBuf),
    /// By the ublk device of this place.
    Ublk(Arc<Place>),
    /// By a device of the kernel's NBD client.
    Nbd(NbdDevice),
}

impl Serving {
    /// Has the driver serve, and says where.
    async fn open(&self, handle: &Handle, export: Export) -> Step<PathBuf> {
        let (spec, place) = match self {
            Self::Nbd(device) => return device.open(handle, export).await,
            Self::Socket(path) => {
                (FrontEndSpec::NbdSocket { path: path.clone(), export }, path.clone())
            }
            Self::Ublk(place) => prepared(Arc::clone(place), export).await?,
        };
        if let Err(e) = opened(handle, spec).await {
            // One that is still opening, or just closing, is waited for.
            let _ = handle.close_front_end().await;
            self.clone().closed().await;
            return Err(internal(&format!("{}: {e}", place.display())));
        }
        Ok(place)
    }

    /// Makes the device that is open larger.
    async fn grow(self, size: u64) -> Result<(), String> {
        match self {
            Self::Socket(path) => {
                let path = path.display();
                Err(format!("what is connected to {path} keeps the size that it was told"))
            }
            Self::Nbd(device) => device.grow(size).await.map_err(|e| format!("nbd: {e}")),
            Self::Ublk(place) => tokio::task::spawn_blocking(move || place.grow(size))
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| e.to_string()),
        }
    }

    /// Does what is left to do when the front end is closed.
    async fn closed(self) {
        if let Self::Ublk(place) = self {
            // A panic there leaves the record to the next agent.
            let _ = tokio::task::spawn_blocking(move || place.closed()).await;
        }
    }
}

/// What the driver is to open, and where it will be. Waits for the kernel.
async fn prepared(place: Arc<Place>, export: Export) -> Step<(FrontEndSpec, PathBuf)> {
    let (size, block) = (export.size, export.block);
    let prepared = tokio::task::spawn_blocking(move || place.prepare(size, block)).await;
    let device = prepared.map_err(|e| internal(&e.to_string()))?.map_err(|e| step(&e))?;
    Ok((FrontEndSpec::Ublk { device, export }, device_path(device.number)))
}

/// Has the driver open a front end, and waits until it serves.
pub(super) async fn opened(handle: &Handle, spec: FrontEndSpec) -> io::Result<()> {
    match timeout(OPEN_LIMIT, handle.open_front_end(spec)).await {
        Ok(opened) => opened.map_err(|_| io::Error::other("the driver has ended"))?,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn gone() -> StepError {
    internal("the driver has ended")
}

/// The mirror as it is served.
async fn export_of(handle: &Handle, name: String) -> Step<Export> {
    let status = handle.status().await.map_err(|_| gone())?;
    Ok(Export { name, size: status.size, block: status.block })
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

    fn figures(&self, take_peaks: bool) -> Answer<Option<Box<Figures>>> {
        let answer = self.handle.figures(take_peaks);
        Box::pin(async move { answer.await.ok() })
    }

    fn open_front_end(&self) -> Answer<Step<PathBuf>> {
        let (handle, serving, name) =
            (self.handle.clone(), self.serving.clone(), self.name.clone());
        Box::pin(async move {
            let export = export_of(&handle, name).await?;
            serving.open(&handle, export).await
        })
    }

    fn grow_front_end(&self, size: u64) -> Answer<Result<(), String>> {
        Box::pin(self.serving.clone().grow(size))
    }

    fn close_front_end(&self) -> Answer<Step<()>> {
        let (handle, serving) = (self.handle.clone(), self.serving.clone());
        Box::pin(async move {
            if let Serving::Nbd(device) = &serving {
                device.close().await?;
            }
            // A driver that has ended serves nobody.
            let _ = handle.close_front_end().await;
            serving.closed().await;
            Ok(())
        })
    }

    fn end(&self) -> Answer<()> {
        self.handle.stop();
        self.ended()
    }

    fn leave(&self) -> Answer<()> {
        self.handle.leave();
        self.ended()
    }
}

impl DriverHandle {
    /// Waits for the thread.
    fn ended(&self) -> Answer<()> {
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
