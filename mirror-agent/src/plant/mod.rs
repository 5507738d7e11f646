//! The real parts of the agent: partitions, the driver's thread and the core's mirror on one side,
//! block device and file system of this host on the other.

mod driver;
mod host;
mod nbd;
mod state;
mod ublk;

use crate::agent::{DriverEvent, HostOps as _, Opened, Plant, Step, StepError};
use crate::config::{self, Config, MirrorConfig};
use crate::ctl::Answer;
use crate::driver::{
    Driver, DriverConfig, ListenError, ListenStep, NetConfig, NetNote, Partition, Report, Route,
    now, spawn,
};
use crate::host::carrier::{self, CarrierKind};
use crate::host::command::Runner;
use crate::host::error::HostError;
use crate::host::survivor::{self, DeviceRecord, Verdict};
use crate::messages::{Event, EventLog, MdCode, driver as texts};
use crate::secret::Secret;
use driver::{DriverHandle, Serving};
use host::Host;
use mirror_core::mirror::{AutoRecovery, Mirror, Tuning};
use mirror_core::units::Id16;
use mirror_core::wire::link::LinkConfig;
use nbd::{Left, Resumed};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a partition may stay locked by what a predecessor had in flight.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// Events of a driver that the agent has not taken yet.
const MAX_EVENTS: usize = 1024;

/// Opens mirrors for real, and logs what goes wrong on the way.
pub struct RealPlant(pub EventLog);

impl Plant for RealPlant {
    fn open(
        &self,
        config: Arc<Config>,
        mirror: MirrorConfig,
        secret: Secret,
    ) -> Answer<Step<Opened>> {
        let log = self.0.clone();
        Box::pin(async move {
            let (runner, settings) = (Runner::default(), host::ublk_settings(&config));
            let found = ublk::find(&settings, &mirror.name, &runner).await;
            let left = Left::new(found.map_err(|e| step(&e))?, &config, &mirror)?;
            let kind = kind_of(&left, &mirror).await?;
            let (host, failed) = Host::new(&config, &mirror, (&runner, log.clone()), (&left, kind));
            carrier::clear_stale(host.carrier_config(), &runner).await.map_err(|e| step(&e))?;
            let serving = host.serving();
            let (name, nmp) = (mirror.name.clone(), mirror.nmp);
            let (start_log, candidates) = (log.clone(), left.clone());
            let started = tokio::task::spawn_blocking(move || {
                start(&config, &mirror, (&secret, &start_log), &candidates)
            })
            .await
            .map_err(|e| internal(&e.to_string()))
            .and_then(std::convert::identity);
            let resumed = started.as_ref().ok().and_then(|s| s.resumed.as_ref());
            left.drop_nbd(host.carrier_config(), resumed, host.runner()).await;
            let Started { driver, identity, resumed } = started?;
            if left.ublk.is_some() && resumed.is_none() {
                // The core says why. Nothing may hang meanwhile.
                host.discard().await?;
            }
            if let Serving::Nbd(device) = &serving {
                device.identify(identity, resumed.as_ref().and_then(Resumed::nbd));
            }
            let (events, receiver) = mpsc::channel(MAX_EVENTS);
            tokio::spawn(forward(driver.reports, failed, events, (log, nmp)));
            Ok(Opened {
                driver: Arc::new(DriverHandle::new(name, serving, driver.handle, driver.thread)),
                host: Arc::new(host),
                events: receiver,
                resumed: resumed.is_some(),
            })
        })
    }

    fn sweep(&self, config: Arc<Config>) -> Answer<()> {
        Box::pin(async move {
            let names: Vec<&str> = config.mirrors.iter().map(|m| m.name.as_str()).collect();
            let runner = Runner::default();
            ublk::sweep(&host::ublk_settings(&config), &names, &runner).await;
            nbd::sweep(&config.agent, &names, &runner).await;
        })
    }
}

/// What carries the mirror: what an earlier agent has left, whatever the configuration says.
async fn kind_of(left: &Left, mirror: &MirrorConfig) -> Step<CarrierKind> {
    if let Some(kind) = left.kind() {
        return Ok(kind);
    }
    let mirror = mirror.clone();
    let looked = tokio::task::spawn_blocking(move || host::carrier_kind(&mirror)).await;
    looked.map_err(|e| internal(&e.to_string()))
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
    /// Identity of the cluster partition.
    identity: Id16,
    /// The device of an earlier agent that the mirror goes on with.
    resumed: Option<Resumed>,
}

/// Opens the partitions, reads what they say and starts the thread. By then the earlier agent's
/// I/O is over: it would hold the partitions' locks. The mirror resumes, if it may, where there is
/// a device that an earlier agent has left.
fn start(
    config: &Config,
    mirror: &MirrorConfig,
    (secret, log): (&Secret, &EventLog),
    left: &Left,
) -> Step<Started> {
    let paths = &mirror.partitions[config.side.index()];
    let open = |path: &Path| Partition::open(path, LOCK_WAIT).map_err(unreadable);
    let data = open(&paths.data)?;
    let cluster = open(&paths.cluster)?;
    let note = |message, more: &[&str]| log.log(Event::driver(message, mirror.nmp, more));
    let mut setup = state::load(&data, &cluster, config.side, &note)?;
    setup.tuning = tuning(config, mirror);
    let identity = setup.record.device;
    let fitting = left.fitting(identity, (setup.record.size, setup.record.block));
    setup.resume = fitting.is_some();
    let net = net_config(config, mirror, secret)?;
    let name = mirror.name.clone();
    let disk_limit = mirror.timing.disk;
    let driver = DriverConfig { name, data, cluster, net, disk_limit };
    let machine = Mirror::new(setup, now());
    let resumed = fitting.filter(|_| machine.is_active());
    let driver = spawn(driver, machine).map_err(|e| {
        if let Some(failed) = e.get_ref().and_then(|e| e.downcast_ref::<ListenError>()) {
            log.log(not_listening(failed, mirror.nmp));
        }
        internal(&e.to_string())
    })?;
    Ok(Started { driver, identity, resumed })
}

fn not_listening(failed: &ListenError, nmp: u8) -> Event {
    let why = failed.to_string();
    match failed.step {
        ListenStep::Socket => Event::Driver(texts::SOCKET, vec![why]),
        ListenStep::Bind => Event::driver(texts::BIND, nmp, &[&why]),
        ListenStep::Listen => Event::driver(texts::LISTEN, nmp, &[&why]),
    }
}

/// What happens on the mirror connect before the core knows of it.
fn net_event(note: &NetNote, nmp: u8) -> Event {
    match note {
        NetNote::ConnectFailed(why) => Event::driver(texts::CONNECT, nmp, &[why]),
        NetNote::NoNetwork => Event::Driver(texts::NO_NETWORK, Vec::new()),
        NetNote::AcceptFailed(why) => Event::driver(texts::ACCEPT, nmp, &[why]),
        NetNote::Refused(why) => Event::driver(texts::REFUSED, nmp, &[why]),
        NetNote::NoFrame => Event::driver(texts::WRONG_MAGIC, nmp, &[]),
    }
}

/// Whether a device that is left is still that of a mirror of this size and block size.
fn fits(left: &DeviceRecord, mirror: (u64, u32)) -> bool {
    let verdict = survivor::look(left, true, Some(mirror));
    if !matches!(verdict, Ok(Verdict::Adopt)) {
        tracing::error!(
            "{}: the device of an earlier agent does not fit: {verdict:?}",
            left.mirror
        );
    }
    matches!(verdict, Ok(Verdict::Adopt))
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
        detach: mirror.detach,
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
        link: LinkConfig {
            secret,
            mirror: mirror.name.clone(),
            side: config.side,
            security: config.agent.security,
        },
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
    (log, nmp): (EventLog, u8),
) {
    loop {
        let event = tokio::select! {
            report = reports.recv() => match report {
                Some(Report::Notice(notice)) => DriverEvent::Notice(notice),
                Some(Report::Net(note)) => {
                    log.log(net_event(&note, nmp));
                    continue;
                }
                Some(Report::TellPeerBehind { session }) => DriverEvent::TellPeerBehind(session),
                Some(Report::DeviceFailed) => DriverEvent::DeviceFailed,
                Some(Report::Grown(size)) => DriverEvent::Grown(size),
                Some(Report::FrontEnd(what)) => DriverEvent::FrontEnd(what),
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

#[cfg(test)]
mod tests;
