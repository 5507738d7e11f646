//! The kernel's NBD client as the front end of a mirror: making its device, going on with one that
//! an earlier agent has left, and taking it away.

use super::driver::opened;
use super::{internal, step};
use crate::agent::Step;
use crate::config::{AgentConfig as Agent, Config, MirrorConfig};
use crate::driver::{FrontEndSpec, Handle};
use crate::host::carrier::{self, CarrierConfig, CarrierKind};
use crate::host::command::Runner;
use crate::host::nbd_devices::{self, Identity};
use crate::host::survivor::DeviceRecord;
use crate::host::watchdog;
use kmod_shim::nbd::Export;
use kmod_shim::nbd::kernel::{self, Found, Geometry};
use mirror_core::units::Id16;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
    Here { number: u32, identifier: String },
}

/// The nbd device of a mirror.
#[derive(Clone, Debug)]
pub(super) struct NbdDevice {
    run_dir: PathBuf,
    /// The configuration file.
    config: PathBuf,
    mirror: String,
    nmp: u8,
    /// How long the device waits for another agent; zero: for ever.
    patience: Duration,
    /// Of the cluster partition, once that is read.
    identity: Arc<OnceLock<Id16>>,
    place: Arc<Mutex<Place>>,
}

impl NbdDevice {
    pub(super) fn new(config: &Config, mirror: &MirrorConfig) -> Self {
        Self {
            run_dir: config.agent.run_dir.clone(),
            config: config.file.clone(),
            mirror: mirror.name.clone(),
            nmp: mirror.nmp,
            patience: config.agent.agent_timeout,
            identity: Arc::default(),
            place: Arc::default(),
        }
    }

    /// Tells the mirror's cluster partition, and the device that an earlier agent has left and
    /// that is to be served again.
    pub(super) fn identify(&self, cluster_partition: Id16, left: Option<Found>) {
        let _ = self.identity.set(cluster_partition); // it does not change
        if let Some(found) = left {
            self.put(Place::Left(found));
        }
    }

    /// What a new device is to be.
    fn geometry(&self, export: &Export) -> Step<Geometry> {
        let id = self.identity.get().ok_or_else(|| internal("nbd: no cluster partition"))?;
        let identity = Identity {
            mirror: self.mirror.clone(),
            cluster_partition: *id,
            nmp: self.nmp,
            patience_s: self.patience.as_secs(),
        };
        let identifier = identity.text(&self.run_dir);
        let dead_limit = dead_limit(identity.patience_s);
        Ok(Geometry { size: export.size, block: export.block, identifier, dead_limit })
    }

    /// A panic while it was held leaves a whole value behind.
    fn put(&self, place: Place) -> Place {
        std::mem::replace(&mut self.place.lock().unwrap_or_else(PoisonError::into_inner), place)
    }

    /// Makes the device, or goes on with the one that was left, and serves it; gives its node.
    pub(super) async fn open(&self, handle: &Handle, export: Export) -> Step<PathBuf> {
        let number = match self.put(Place::Nowhere) {
            Place::Left(found) => self.resume(found, handle, export).await?,
            _ => self.make(handle, export).await?,
        };
        // Before, there would be nothing to watch over.
        watchdog::ensure(&self.run_dir, &self.config);
        Ok(kernel::device_path(number))
    }

    async fn make(&self, handle: &Handle, export: Export) -> Step<u32> {
        let geometry = self.geometry(&export)?;
        let identifier = geometry.identifier.clone();
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        serve(handle, ours, export, false).await?;
        match blocking(move || kernel::connect(&geometry, theirs.as_fd())).await {
            Ok(number) => {
                self.put(Place::Here { number, identifier });
                Ok(number)
            }
            Err(e) => {
                let _ = handle.close_front_end().await; // a driver that has ended serves nobody
                Err(failed(e))
            }
        }
    }

    async fn resume(&self, found: Found, handle: &Handle, export: Export) -> Step<u32> {
        let Found { number, identifier, .. } = found;
        let patience = Identity::parse(&identifier, &self.run_dir).map_or(0, |i| i.patience_s);
        let dead_limit = dead_limit(patience);
        let (size, block) = (export.size, export.block);
        let geometry = Geometry { size, block, identifier: identifier.clone(), dead_limit };
        let ours = blocking(move || take_over(number, &geometry)).await.map_err(failed)?;
        serve(handle, ours, export, true).await?;
        self.put(Place::Here { number, identifier });
        Ok(number)
    }

    /// Makes the device larger for all who have it open.
    pub(super) async fn grow(&self, size: u64) -> io::Result<()> {
        let here = match &*self.place.lock().unwrap_or_else(PoisonError::into_inner) {
            Place::Here { number, identifier } => Some((*number, identifier.clone())),
            Place::Nowhere | Place::Left(_) => None,
        };
        let (number, identifier) = here.ok_or(io::ErrorKind::NotFound)?;
        blocking(move || kernel::grow(number, &identifier, size)).await
    }

    /// Takes the device away, before its front end is closed. What is gone is taken away.
    pub(super) async fn close(&self) -> Step<()> {
        let Place::Here { number, identifier } = self.put(Place::Nowhere) else { return Ok(()) };
        let asked = identifier.clone();
        let closed = blocking(move || kernel::disconnect(number, &asked)).await;
        closed.map_err(|e| {
            self.put(Place::Here { number, identifier });
            failed(e)
        })
    }
}

/// When the kernel itself fails new requests. The watchdog is to come first.
fn dead_limit(patience_s: u64) -> Duration {
    match patience_s {
        0 => FOR_EVER,
        s => Duration::from_secs(s) + AFTER_WATCHDOG,
    }
}

/// Devices that earlier agents have left of one mirror.
#[derive(Clone, Default, Debug)]
pub(super) struct Left {
    pub(super) ublk: Option<DeviceRecord>,
    nbd: Vec<(Found, Identity)>,
}

/// The one that the mirror goes on with.
#[derive(Clone, Debug)]
pub(super) enum Resumed {
    Ublk,
    Nbd(Found),
}

impl Resumed {
    pub(super) fn nbd(&self) -> Option<Found> {
        match self {
            Self::Ublk => None,
            Self::Nbd(found) => Some(found.clone()),
        }
    }
}

impl Left {
    /// All that is left of `mirror`, `ublk` among it.
    pub(super) fn new(
        ublk: Option<DeviceRecord>,
        config: &Config,
        mirror: &MirrorConfig,
    ) -> Step<Self> {
        let nbd = nbd_devices::of_mirror(&config.agent.run_dir, &mirror.name).map_err(failed)?;
        Ok(Self { ublk, nbd })
    }

    /// What carries the mirror, whatever the configuration says, as long as something is left.
    pub(super) fn kind(&self) -> Option<CarrierKind> {
        let nbd = (!self.nbd.is_empty()).then_some(CarrierKind::KernelNbd);
        self.ublk.as_ref().map(|_| CarrierKind::Ublk).or(nbd)
    }

    /// The device that is still that of a mirror of this cluster partition, size and block size; the
    /// mirror may have grown since.
    pub(super) fn fitting(&self, identity: Id16, mirror: (u64, u32)) -> Option<Resumed> {
        if let Some(record) = &self.ublk {
            return super::fits(record, mirror).then_some(Resumed::Ublk);
        }
        let is_ours = |(found, of): &&(Found, Identity)| {
            let fits = found.size <= mirror.0 && found.block == mirror.1;
            of.cluster_partition == identity && fits
        };
        self.nbd.iter().find(is_ours).map(|(found, _)| Resumed::Nbd(found.clone()))
    }

    /// Takes down the nbd devices that are not served again.
    pub(super) async fn drop_nbd(
        &self,
        config: &CarrierConfig,
        resumed: Option<&Resumed>,
        runner: &Runner,
    ) {
        let kept = resumed.and_then(Resumed::nbd);
        for (found, _) in self.nbd.iter().filter(|(found, _)| Some(found) != kept.as_ref()) {
            // If something of it resists, the rest goes on.
            if let Err(error) = carrier::take_down_nbd(config, found, runner).await {
                tracing::error!(number = found.number, %error, "an nbd device of a dead agent stays");
            }
        }
    }
}

/// Takes down all nbd devices of a mirror, also those in use.
pub(super) async fn discard(config: &CarrierConfig, runner: &Runner) -> Step<()> {
    for (found, _) in nbd_devices::of_mirror(&config.run_dir, &config.mirror).map_err(failed)? {
        carrier::take_down_nbd(config, &found, runner).await.map_err(|e| step(&e))?;
    }
    Ok(())
}

/// Takes down the nbd devices of mirrors that are not in the configuration any more.
pub(super) async fn sweep(agent: &Agent, configured: &[&str], runner: &Runner) {
    let all = match nbd_devices::known(&agent.run_dir) {
        Ok(all) => all,
        Err(e) => return tracing::error!("nbd: {e}"),
    };
    for (found, of) in all {
        if configured.contains(&of.mirror.as_str()) {
            continue;
        }
        let config = CarrierConfig {
            device_dir: agent.device_dir.clone(),
            run_dir: agent.run_dir.clone(),
            ..CarrierConfig::new(of.mirror, u32::from(of.nmp))
        };
        if let Err(e) = carrier::take_down_nbd(&config, &found, runner).await {
            tracing::error!("what an earlier agent has left cannot be cleared: {e}");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

async fn serve(handle: &Handle, socket: UnixStream, export: Export, take_over: bool) -> Step<()> {
    let spec = FrontEndSpec::NbdKernel { socket: Arc::new(socket.into()), export, take_over };
    opened(handle, spec).await.map_err(failed)
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
    fn what_is_left_is_served_again_if_it_is_this_mirrors_() {
        let found = |number, id, size| {
            let identity = Identity {
                mirror: "md1".into(),
                cluster_partition: Id16([id; 16]),
                nmp: 1,
                patience_s: 60,
            };
            let identifier = identity.text(std::path::Path::new("/run/clpmd"));
            (Found { number, size, block: 512, identifier }, identity)
        };
        let none = Left::default();
        assert!(none.kind().is_none() && none.fitting(Id16([1; 16]), (4096, 512)).is_none());
        let left =
            Left { ublk: None, nbd: vec![found(1, 2, 4096), found(2, 1, 8192), found(3, 1, 4096)] };
        assert_eq!(left.kind(), Some(CarrierKind::KernelNbd));
        let fitting = |id, mirror| {
            let fitting = left.fitting(Id16([id; 16]), mirror);
            fitting.and_then(|r| r.nbd()).map(|found| found.number)
        };
        assert_eq!(fitting(1, (4096, 512)), Some(3));
        assert_eq!(fitting(2, (4096, 512)), Some(1));
        assert_eq!(fitting(2, (6144, 512)), Some(1), "the mirror has grown since");
        assert_eq!(fitting(2, (2048, 512)), None);
        assert_eq!(fitting(3, (4096, 512)), None);
        assert_eq!(fitting(1, (4096, 4096)), None);
    }

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
