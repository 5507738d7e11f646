//! The carrier made of `nbdfuse` and a loop device.

use super::state::{Device, State};
use super::{CarrierConfig, link, stale};
use crate::host::command::Runner;
use crate::host::error::HostError;
use crate::host::loops::LoopDevice;
use crate::host::mounts;
use crate::host::process::Process;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

/// Pause between two looks at something that is about to appear or to go.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// Pause between two attempts to take a part down.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A FUSE file served from the NBD socket, with a loop device on it.
#[derive(Debug)]
pub struct NbdFuse {
    config: CarrierConfig,
    runner: Runner,
    state: State,
    device: PathBuf,
    server: Option<Child>,
    /// Last line that the server process wrote.
    said: Arc<Mutex<String>>,
}

impl NbdFuse {
    pub(super) async fn open(
        config: &CarrierConfig,
        runner: &Runner,
        socket: &Path,
        export: &str,
    ) -> Result<Self, HostError> {
        stale::clear(config, runner).await?;
        link::check_free(&config.device())?;
        let mut carrier = Self::plan(config, runner)?;
        match carrier.build(&uri(socket, export)).await {
            Ok(()) => Ok(carrier),
            Err(error) => {
                if let Err(e) = carrier.close().await {
                    tracing::warn!(mirror = %config.mirror, error = %e,
                        "a failed carrier could not be taken down");
                }
                Err(error)
            }
        }
    }

    fn plan(config: &CarrierConfig, runner: &Runner) -> Result<Self, HostError> {
        let folder = config.run_dir.join(format!("{}-{:016x}", config.mirror, random()?));
        Ok(Self {
            state: State::new(folder, config.device())?,
            device: config.device(),
            config: config.clone(),
            runner: runner.clone(),
            server: None,
            said: Arc::default(),
        })
    }

    async fn build(&mut self, uri: &str) -> Result<(), HostError> {
        let folder = self.state.folder.clone();
        self.save()?;
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).create(&folder).map_err(HostError::system("carrier folder"))?;
        self.start_server(uri)?;
        self.save()?;
        self.wait_for_mount(&folder).await?;
        let file = self.state.file();
        let limit = self.config.command_limit;
        let device = LoopDevice::attach(&self.runner, &file, self.config.block_size, limit).await?;
        self.state.device = Some(Device::of(device));
        self.save()?;
        link::point(&self.device, device)
    }

    fn save(&self) -> Result<(), HostError> {
        self.state.save(&stale::state_file(&self.config))
    }

    fn start_server(&mut self, uri: &str) -> Result<(), HostError> {
        let name = format!("fsname=clpmd-{}", self.config.mirror);
        let command = self.runner.command("nbdfuse", Duration::MAX);
        let mut child = command.arg("-o").arg(name).arg(&self.state.folder).arg(uri).spawn()?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(listen(stderr, self.config.mirror.clone(), self.said.clone()));
        }
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        self.state.server = pid.and_then(Process::find);
        self.server = Some(child);
        Ok(())
    }

    /// The mount is asked for, not the file: looking at a file of a FUSE server that hangs would
    /// hang as well.
    async fn wait_for_mount(&mut self, folder: &Path) -> Result<(), HostError> {
        let end = Instant::now() + self.config.ready_limit;
        loop {
            let mounts = mounts::current().map_err(HostError::system("mount table"))?;
            if mounts::at(&mounts, folder).is_some() {
                return Ok(());
            }
            if let Some(child) = &mut self.server {
                if let Ok(Some(status)) = child.try_wait() {
                    self.server = None;
                    sleep(POLL).await; // its last words are on their way
                    return Err(HostError::Command(format!(
                        "nbdfuse: {status}: {}",
                        self.last_words()
                    )));
                }
            }
            if Instant::now() >= end {
                let limit = self.config.ready_limit;
                return Err(HostError::Timeout { command: "nbdfuse".into(), limit });
            }
            sleep(POLL).await;
        }
    }

    fn last_words(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    pub(super) async fn ended(&mut self) -> String {
        let Some(child) = &mut self.server else { return "nbdfuse has ended".into() };
        let status = child.wait().await;
        self.server = None;
        match status {
            Ok(status) => format!("nbdfuse: {status}: {}", self.last_words()),
            Err(error) => format!("nbdfuse: {error}"),
        }
    }

    pub(super) async fn close(&mut self) -> Result<(), HostError> {
        let mut result = self.take_down().await;
        for _ in 0..self.config.close_retries {
            if result.is_ok() {
                break;
            }
            sleep(RETRY_PAUSE).await;
            result = self.take_down().await;
        }
        result
    }

    async fn take_down(&mut self) -> Result<(), HostError> {
        let file = self.state.file();
        let ours = stale::our_loops(&self.state, &file);
        if let Some(used) = ours.iter().find_map(|l| stale::use_of(*l)) {
            return Err(HostError::Command(used));
        }
        for device in ours {
            link::remove(&self.device, Some(device))?;
            stale::detach(&self.config, &self.runner, device).await?;
        }
        link::remove(&self.device, None)?;
        stale::unmount_folder(&self.config, &self.runner, &self.state.folder, false).await?;
        self.stop_server().await?;
        stale::forget(&self.config, &self.state)
    }

    /// The server ends by itself once its mount is gone; one that does not serves nobody.
    async fn stop_server(&mut self) -> Result<(), HostError> {
        let Some(child) = &mut self.server else { return Ok(()) };
        if timeout(self.config.ready_limit, child.wait()).await.is_err() {
            child.kill().await.map_err(HostError::system("kill nbdfuse"))?;
        }
        self.server = None;
        Ok(())
    }
}

fn random() -> Result<u64, HostError> {
    getrandom::u64().map_err(|e| HostError::system("random number")(std::io::Error::other(e)))
}

/// The address of an export as `nbdfuse` takes it.
fn uri(socket: &Path, export: &str) -> String {
    let socket = escape(socket.as_os_str().as_bytes());
    format!("nbd+unix:///{}?socket={socket}", escape(export.as_bytes()))
}

/// Percent-escapes everything that could end a part of a URI.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &b in bytes {
        if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) {
            text.push(char::from(b));
        } else {
            text.push_str(&format!("%{b:02X}"));
        }
    }
    text
}

/// Passes on what the server says, so that its pipe never fills, and remembers the last line.
async fn listen(stream: impl AsyncRead + Unpin, mirror: String, said: Arc<Mutex<String>>) {
    const LONGEST: usize = 4096;
    let mut reader = BufReader::with_capacity(LONGEST, stream);
    loop {
        let chunk = match reader.fill_buf().await {
            Ok(chunk) if !chunk.is_empty() => chunk,
            _ => return,
        };
        let text = String::from_utf8_lossy(chunk).into_owned();
        let length = chunk.len();
        reader.consume(length);
        tracing::debug!(%mirror, "nbdfuse: {}", text.trim_end());
        if let Some(line) = text.lines().rfind(|l| !l.trim().is_empty()) {
            *said.lock().unwrap_or_else(PoisonError::into_inner) = line.trim().to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_parts_apart() {
        let plain = uri(Path::new("/run/md1.sock"), "md1");
        assert_eq!(plain, "nbd+unix:///md1?socket=/run/md1.sock");
        let odd = uri(Path::new("/r&n/a b#.sock"), "x?y");
        assert_eq!(odd, "nbd+unix:///x%3Fy?socket=/r%26n/a%20b%23.sock");
    }
}
