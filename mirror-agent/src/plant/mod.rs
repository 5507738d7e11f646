//! The real parts of the agent: partitions, the driver's thread and the core's mirror on one side,
//! block device and file system of this host on the other.

mod driver;
mod host;
mod nbd;
mod state;

use crate::agent::{DriverEvent, HostOps as _, MirrorHandle as _, Opened, Plant, Step, StepError};
use crate::config::{self, Config, MirrorConfig};
use crate::ctl::Answer;
use crate::driver::{Driver, DriverConfig, NetConfig, Partition, Report, Route, now, spawn};
use crate::host::carrier;
use crate::host::error::HostError;
use crate::host::nbd_devices;
use crate::messages::MdCode;
use crate::secret::Secret;
use driver::DriverHandle;
use host::Host;
use kmod_shim::nbd::kernel::Found;
use mirror_core::command::Command;
use mirror_core::mirror::{AutoRecovery, Mirror, Setup, Tuning};
use mirror_core::wire::link::LinkConfig;
use nbd::NbdDevice;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a partition may stay locked by what a predecessor had in flight.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// Events of a driver that the agent has not taken yet.
const MAX_EVENTS: usize = 1024;

/// Opens mirrors for real.
pub struct RealPlant;

impl Plant for RealPlant {
    fn open(
        &self,
        config: Arc<Config>,
        mirror: MirrorConfig,
        secret: Secret,
    ) -> Answer<Step<Opened>> {
        Box::pin(async move {
            let (host, failed) = Host::new(&config, &mirror);
            carrier::clear_stale(host.carrier_config(), host.runner())
                .await
                .map_err(|e| step(&e))?;
            let left = left_over(&config, &mirror, &host).await?;
            let (name, candidates) = (mirror.name.clone(), left.clone());
            let started =
                tokio::task::spawn_blocking(move || start(&config, &mirror, &secret, &candidates))
                    .await
                    .map_err(|e| internal(&e.to_string()))
                    .and_then(std::convert::identity);
            let resumed = started.as_ref().ok().and_then(|s| s.resumed.clone());
            for found in left.iter().filter(|found| Some(*found) != resumed.as_ref()) {
                take_down(&host, found).await;
            }
            let Started { driver, nbd, .. } = started?;
            let serving = host.serving(nbd);
            let (events, receiver) = mpsc::channel(MAX_EVENTS);
            tokio::spawn(forward(driver.reports, failed, events));
            let driver = DriverHandle::new(name, serving, driver.handle, driver.thread);
            if let Some(found) = resumed {
                go_on(&host, &driver, &found).await;
            }
            Ok(Opened { driver: Arc::new(driver), host: Arc::new(host), events: receiver })
        })
    }
}

/// The nbd devices that earlier agents have left of this mirror. Those of mirrors that are not
/// configured any more are taken down at once, and so is this mirror's if it is served in another
/// way now.
async fn left_over(config: &Config, mirror: &MirrorConfig, host: &Host) -> Step<Vec<Found>> {
    let run_dir = &config.agent.run_dir;
    let all = nbd_devices::all(run_dir).map_err(|e| internal(&format!("nbd: {e}")))?;
    let mut ours = Vec::new();
    for found in all {
        match nbd_devices::mirror_of(&found.identifier, run_dir) {
            Some(name) if name == mirror.name && host.is_nbd() => ours.push(found),
            Some(name) if name != mirror.name && config.mirror(name).is_some() => {}
            _ => take_down(host, &found).await,
        }
    }
    Ok(ours)
}

/// Takes down an nbd device that is not served again. If something of it resists, the rest goes on.
async fn take_down(host: &Host, found: &Found) {
    let taken = carrier::take_down_nbd(host.carrier_config(), found, host.runner()).await;
    if let Err(error) = taken {
        tracing::error!(number = found.number, %error, "an nbd device of a dead agent stays");
    }
}

/// Serves the device that an earlier agent has left; if that fails, it goes, and the mirror is
/// inactive.
async fn go_on(host: &Host, driver: &DriverHandle, found: &Found) {
    let served = async { host.attach(driver.open_front_end().await?).await };
    if let Err(error) = served.await {
        tracing::error!(%error, "{}: not served again", found.identifier);
        take_down(host, found).await;
        let _ = driver.close_front_end().await; // it is gone
        let _ = driver.command(Command::Deactivate).await; // a driver that has ended serves nobody
    }
}

/// A failure of the host, as the agent reports it.
fn step(e: &HostError) -> StepError {
    let code = MdCode::try_from(e.md_code()).unwrap_or(MdCode::Internal);
    let message = e.to_string();
    StepError { code, message }
}

fn internal(what: &str) -> StepError {
    StepError { code: MdCode::Internal, message: MdCode::Internal.fill(&[what]) }
}

fn unreadable(what: impl std::fmt::Display) -> StepError {
    let message = format!("{} ({what})", MdCode::ReadCluster.text());
    StepError { code: MdCode::ReadCluster, message }
}

/// A driver at its start.
struct Started {
    driver: Driver,
    /// What the mirror's nbd device would be.
    nbd: NbdDevice,
    /// The device of an earlier agent that the mirror goes on with.
    resumed: Option<Found>,
}

/// Opens the partitions, reads what they say and starts the thread. By then the earlier agent's
/// I/O is over: it would hold the partitions' locks. `left` are nbd devices that may be the
/// mirror's.
fn start(config: &Config, mirror: &MirrorConfig, secret: &Secret, left: &[Found]) -> Step<Started> {
    let paths = &mirror.partitions[config.side.index()];
    let open = |path: &Path| Partition::open(path, LOCK_WAIT).map_err(unreadable);
    let data = open(&paths.data)?;
    let cluster = open(&paths.cluster)?;
    let mut setup = state::load(&data, &cluster, config.side)?;
    setup.tuning = tuning(config, mirror);
    let run_dir = &config.agent.run_dir;
    let nbd = nbd_devices::of_partitions(run_dir, &mirror.name, setup.record.device);
    let fitting = left.iter().find(|found| fits(found, &nbd, &setup)).cloned();
    setup.resume = fitting.is_some();
    let net = net_config(config, mirror, secret)?;
    let name = mirror.name.clone();
    let disk_limit = mirror.timing.disk;
    let driver = DriverConfig { name, data, cluster, net, disk_limit };
    let machine = Mirror::new(setup, now());
    let resumed = fitting.filter(|_| machine.is_active());
    let driver = spawn(driver, machine).map_err(|e| internal(&e.to_string()))?;
    Ok(Started {
        driver,
        nbd: NbdDevice::new(nbd, config.agent.agent_timeout, resumed.clone()),
        resumed,
    })
}

/// Whether a device of an earlier agent is that of this mirror.
fn fits(found: &Found, identifier: &str, setup: &Setup) -> bool {
    let Found { size, block, .. } = *found;
    found.identifier == identifier && (size, block) == (setup.record.size, setup.record.block)
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

fn tuning(config: &Config, mirror: &MirrorConfig) -> Tuning {
    let timing = &mirror.timing;
    Tuning {
        heartbeat_ms: millis(timing.heartbeat),
        peer_timeout_ms: millis(timing.peer),
        agree_ms: millis(timing.connect),
        grace_ms: millis(timing.connect),
        hot_regions: mirror.hot_regions as usize,
        auto_recovery: match config.agent.auto_recovery {
            config::AutoRecovery::Always => AutoRecovery::Always,
            config::AutoRecovery::Active => AutoRecovery::Active,
            config::AutoRecovery::Off => AutoRecovery::Off,
        },
        fenced: config.agent.alone == config::Alone::Fenced,
        ..Tuning::default()
    }
}

fn net_config(config: &Config, mirror: &MirrorConfig, secret: &Secret) -> Step<NetConfig> {
    let secret = mirror_core::wire::Secret::new(secret.bytes())
        .map_err(|e| StepError { code: MdCode::NoConfig, message: e.to_string() })?;
    let (ours, theirs) = (&config.local().mirror_connect, &config.peer().mirror_connect);
    let at = |ip| SocketAddr::new(ip, mirror.port);
    let mut listen: Vec<SocketAddr> = ours.iter().map(|ip| at(*ip)).collect();
    listen.dedup();
    let route = |(own, other): (&std::net::IpAddr, &std::net::IpAddr)| Route {
        local: Some(*own),
        remote: at(*other),
    };
    Ok(NetConfig {
        link: LinkConfig { secret, mirror: mirror.name.clone(), side: config.side },
        routes: ours.iter().zip(theirs).map(route).collect(),
        listen,
        connect_limit: mirror.timing.connect,
        handshake_limit: mirror.timing.connect,
    })
}

/// Brings what the driver and the carrier tell into the agent's terms.
async fn forward(
    mut reports: mpsc::Receiver<Report>,
    mut carrier_ended: mpsc::Receiver<String>,
    events: mpsc::Sender<DriverEvent>,
) {
    loop {
        let event = tokio::select! {
            report = reports.recv() => match report {
                Some(Report::Notice(notice)) => DriverEvent::Notice(notice),
                Some(Report::TellPeerBehind { session }) => DriverEvent::TellPeerBehind(session),
                Some(Report::DeviceFailed) => DriverEvent::DeviceFailed,
                Some(Report::Ended(Ok(()))) => return,
                Some(Report::Ended(Err(why))) => DriverEvent::Ended(why),
                // A thread that ends well says so.
                None => DriverEvent::Ended("its thread is gone".to_owned()),
            },
            Some(why) = carrier_ended.recv() => {
                tracing::error!("the block device ended: {why}");
                DriverEvent::DeviceFailed
            }
        };
        let last = matches!(event, DriverEvent::Ended(_));
        if events.send(event).await.is_err() || last {
            return;
        }
    }
}

/// The NBD socket of a mirror.
fn socket_path(run_dir: &Path, mirror: &str) -> PathBuf {
    run_dir.join(format!("{mirror}.nbd"))
}
