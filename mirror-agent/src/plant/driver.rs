//! The driver's thread behind the agent's trait.

use super::internal;
use super::nbd::NbdDevice;
use crate::agent::{MirrorHandle, Step, StepError};
use crate::ctl::Answer;
use crate::driver::{FrontEndSpec, Handle};
use kmod_shim::nbd::Export;
use kmod_shim::ublk::device_path;
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::status::MirrorStatus;
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
            Self::Ublk(number) => {
                (FrontEndSpec::Ublk { number: *number, export }, device_path(*number))
            }
        };
        let opened = handle.open_front_end(spec).await.map_err(|_| gone())?;
        opened.map_err(|e| internal(&format!("{}: {e}", place.display())))?;
        Ok(place)
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

    fn open_front_end(&self) -> Answer<Step<PathBuf>> {
        let (handle, serving, name) =
            (self.handle.clone(), self.serving.clone(), self.name.clone());
        Box::pin(async move {
            let export = export_of(&handle, name).await?;
            serving.open(&handle, export).await
        })
    }

    fn close_front_end(&self) -> Answer<Step<()>> {
        let (handle, serving) = (self.handle.clone(), self.serving.clone());
        Box::pin(async move {
            if let Serving::Nbd(device) = serving {
                device.close().await?;
            }
            // A driver that has ended serves nobody.
            let _ = handle.close_front_end().await;
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
