//! Start-up and shutdown of the agent.

use super::emergency::Emergency;
use super::managed::{Gate, Managed};
use super::notify::notify;
use super::parts::{DriverEvent, Opened, Plant, Step, StepError};
use super::reload::{self, Ordered, Orders};
use super::service::{Control, FromPeer};
use super::{Agent, Entry, FOLLOWERS, folder, follow, measure};
use crate::config::{Config, ConfigError, Fault, MirrorConfig};
use crate::ctl::{Answer, CtlServer};
use crate::host::power::Power;
use crate::lock::{Lock, LockError, Role};
use crate::messages::{Event, EventLog, StartReason, driver};
use crate::peer::{Identity, PeerLink, PeerServer};
use crate::secret::Secret;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;

/// What the surroundings decide.
pub struct Options {
    /// Where events go.
    pub events: EventLog,
    /// The service manager's socket, if any.
    pub notify: Option<OsString>,
    /// What ends this server in an emergency.
    pub power: Arc<dyn Power>,
    /// A signal that has the configuration read again.
    pub hangup: Option<Signal>,
}

/// How an agent that had started ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Every mirror was closed and cleanly stopped.
    Cleanly,
    /// It was asked to, but a mirror could not be closed.
    Uncleanly,
    /// By itself: a driver had ended.
    Died,
}

/// Why the agent did not start.
#[derive(Debug)]
pub struct StartError {
    /// The reason of message `mdagent` 2.
    pub reason: StartReason,
    /// Details.
    pub what: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.reason, self.what)
    }
}

impl std::error::Error for StartError {}

fn failure(reason: StartReason, what: impl fmt::Display) -> StartError {
    StartError { reason, what: what.to_string() }
}

/// The start error for a configuration that cannot be used.
#[must_use]
pub fn config_failure(e: &ConfigError) -> StartError {
    let reason = match e.fault() {
        Fault::Address => StartReason::Address,
        Fault::ServerName => StartReason::ServerName,
        Fault::File => StartReason::Config,
    };
    failure(reason, e)
}

/// How the agent is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Every mirror is deactivated.
    Stop,
    /// Devices that can outlive the agent stay, with their mounts, for the next one.
    Suspend,
}

/// Runs the agent until `stop` is ready, and stops it. If a
/// driver ends by itself, so does the agent, and not cleanly: the process must end then, since the
/// clients of that driver hang as long as it lives.
///
/// # Errors
/// It could not start; the event has been logged.
pub async fn run(
    config: Config,
    plant: Arc<dyn Plant>,
    options: Options,
    stop: impl Future<Output = End>,
) -> Result<Ended, StartError> {
    let events = options.events.clone();
    match Running::start(config, plant, options).await {
        Ok(mut running) => {
            tokio::pin!(stop);
            let agent = Arc::clone(&running.agent);
            loop {
                // A reload is done before anything else is looked at: it never stops half way.
                tokio::select! {
                    end = &mut stop => {
                        let clean = running.stop(end).await;
                        return Ok(if clean { Ended::Cleanly } else { Ended::Uncleanly });
                    }
                    () = agent.died.notified() => {
                        // Unmounting what hangs would hang; the next start clears up.
                        events.log(Event::AgentStopFailed);
                        return Ok(Ended::Died);
                    }
                    order = reload::next(&mut running.hangup, &mut running.orders) => {
                        reload::answer(order, running.reload().await);
                    }
                }
            }
        }
        Err(e) => {
            events.log(Event::AgentStartFailed(e.reason));
            Err(e)
        }
    }
}

pub(super) struct Running {
    pub(super) agent: Arc<Agent>,
    /// As it was last loaded.
    pub(super) config: Arc<Config>,
    pub(super) plant: Arc<dyn Plant>,
    pub(super) secret: Secret,
    /// The sockets.
    servers: JoinSet<()>,
    /// What goes on by itself, for each mirror.
    pub(super) tasks: BTreeMap<String, JoinSet<()>>,
    notify: Option<OsString>,
    hangup: Option<Signal>,
    orders: mpsc::Receiver<Ordered>,
    /// Last, so that it is held until all else is gone.
    _lock: Lock,
}

impl Running {
    async fn start(
        config: Config,
        plant: Arc<dyn Plant>,
        options: Options,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let made = !config.agent.run_dir.exists();
        let lock = Lock::take(&config.agent.run_dir, Role::Agent).map_err(|e| lock_failure(&e))?;
        config.check_partitions().map_err(|e| config_failure(&e))?;
        let secret =
            Secret::load(&config.agent.secret_file).map_err(|e| failure(StartReason::Config, e))?;
        // Bound before the drivers start: what fails here must leave no device behind.
        let peers = listen_to_peer(&config)?;
        let access = folder::prepare(&config.agent, made)
            .map_err(|what| failure(StartReason::Config, what))?;
        let ctl = CtlServer::bind(&config.agent.socket, access).map_err(|e| {
            failure(StartReason::Socket, format!("{}: {e}", config.agent.socket.display()))
        })?;
        let identity =
            Identity { side: config.side, secret: secret.clone(), security: config.agent.security };
        let link = PeerLink::new(identity.clone(), config.agent_pairs());
        plant.sweep(Arc::clone(&config)).await;
        let all = &config.mirrors;
        let opened = open_all(&config, all, &*plant, &secret, &options.events).await;
        let events = options.events;
        let count = opened.iter().filter(|o| o.receiver.is_some()).count().to_string();
        events.log(Event::Driver(driver::REGISTERED, vec!["0".to_owned(), count]));
        let (reloads, orders) = Orders::new();
        let agent = Arc::new(Agent {
            config: Arc::clone(&config),
            mirrors: RwLock::default(),
            reloads,
            peer: Box::new(Arc::new(link)),
            events: events.clone(),
            stopping: AtomicBool::new(false),
            died: Notify::new(),
            emergency: Emergency::new(options.power),
            changes: Arc::default(),
            followers: Semaphore::new(FOLLOWERS),
        });
        agent.set_entries(opened.iter().map(|o| o.entry.clone()).collect());
        let mut tasks = BTreeMap::new();
        for o in opened {
            tasks.insert(o.entry.name().to_owned(), o.follow(&agent).await);
        }
        let mut servers = JoinSet::new();
        servers.spawn(ctl.run(Arc::new(Control(Arc::clone(&agent)))));
        servers.spawn(peers.run(identity, Arc::new(FromPeer(Arc::clone(&agent)))));
        servers.spawn(measure::serve_page(Arc::clone(&agent)));
        let (notify, hangup) = (options.notify, options.hangup);
        let running = Self {
            agent,
            config,
            plant,
            secret,
            servers,
            tasks,
            notify,
            hangup,
            orders,
            _lock: lock,
        };
        running.tell("READY=1");
        events.log(Event::AgentStarted);
        Ok(running)
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.notify {
            if let Err(e) = notify(socket, state) {
                tracing::warn!("the service manager was not told {state}: {e}");
            }
        }
    }

    async fn stop(mut self, end: End) -> bool {
        self.tell("STOPPING=1");
        // No new activation may begin while the mirrors are being closed. What goes on by itself
        // goes on: a last write may wait for the peer's word that it knows itself behind.
        self.agent.stopping.store(true, Ordering::SeqCst);
        self.servers.shutdown().await;
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for mirror in self.agent.open_mirrors() {
            let stays = end == End::Suspend && mirror.would_stay().await;
            if stays { &mut stay } else { &mut go }.push(mirror);
        }
        // A device that stays has no server from its leaving on, and its users wait: it is left
        // when all that takes long is done.
        let clean = self.stop_all(go, end).await & self.stop_all(stay, end).await;
        for tasks in self.tasks.values_mut() {
            tasks.shutdown().await;
        }
        let events = &self.agent.events;
        events.log(Event::Driver(driver::UNREGISTERED, Vec::new()));
        events.log(if clean { Event::AgentStopped } else { Event::AgentStopFailed });
        clean
    }

    /// Gives whether all of them stopped cleanly.
    async fn stop_all(&self, mirrors: Vec<Arc<Managed>>, end: End) -> bool {
        let mut stopping = JoinSet::new();
        let gate = Gate::new();
        for mirror in mirrors {
            let gate = gate.clone();
            stopping.spawn(async move {
                let stopped = match end {
                    End::Stop => mirror.stop().await,
                    End::Suspend => mirror.suspend(gate).await,
                };
                (mirror.config.name.clone(), stopped)
            });
        }
        drop(gate);
        let mut clean = true;
        while let Some(ended) = stopping.join_next().await {
            if !stopped_well(ended.map_err(io::Error::from)) {
                clean = false;
                self.agent.events.log(Event::Driver(driver::STILL_OPEN, Vec::new()));
            }
        }
        clean
    }
}

fn stopped_well(ended: io::Result<(String, Result<(), StepError>)>) -> bool {
    match ended {
        Ok((_, Ok(()))) => true,
        Ok((name, Err(e))) => {
            tracing::error!("{name} did not stop cleanly: {e}");
            false
        }
        Err(e) => {
            tracing::error!("a mirror did not stop cleanly: {e}");
            false
        }
    }
}

fn lock_failure(e: &LockError) -> StartError {
    let reason = match e {
        LockError::Held(Role::Agent) => StartReason::AgentRunning,
        LockError::Held(Role::Init) => StartReason::InitRunning,
        LockError::Held(Role::Chng) => StartReason::ChngRunning,
        LockError::Io(_) => StartReason::Config,
    };
    failure(reason, e)
}

fn listen_to_peer(config: &Config) -> Result<PeerServer, StartError> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for (own, _) in config.agent_pairs() {
        if !addresses.contains(&own) {
            addresses.push(own);
        }
    }
    PeerServer::bind(&addresses).map_err(|e| {
        let reason = match e.kind() {
            io::ErrorKind::AddrNotAvailable => StartReason::Address,
            _ => StartReason::Socket,
        };
        failure(reason, e)
    })
}

/// A mirror of the configuration, opened or not.
pub(super) struct Tried {
    pub(super) entry: Entry,
    receiver: Option<mpsc::Receiver<DriverEvent>>,
}

impl Tried {
    /// Starts what goes on by itself for it.
    pub(super) async fn follow(self, agent: &Arc<Agent>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        match (self.entry, self.receiver) {
            (Entry::Open(mirror), Some(receiver)) => {
                follow::start(agent, &mirror, receiver, &mut tasks).await;
            }
            (Entry::Broken { name, peer, .. }, _) => {
                tasks.spawn(follow::watch_peer_of_broken(Arc::clone(agent), name, peer));
            }
            (Entry::Open(_), None) => {}
        }
        tasks
    }
}

/// Opens mirrors, all at once: one that waits for what its predecessor has in flight must not keep
/// the others' users waiting.
pub(super) async fn open_all(
    config: &Arc<Config>,
    which: &[MirrorConfig],
    plant: &dyn Plant,
    secret: &Secret,
    events: &EventLog,
) -> Vec<Tried> {
    let mut opening = JoinSet::new();
    for (n, m) in which.iter().enumerate() {
        let opened = plant.open(Arc::clone(config), m.clone(), secret.clone());
        let entering = enter(Arc::clone(config), m.clone(), opened, events.clone());
        opening.spawn(async move { (n, entering.await) });
    }
    // A panic is one of this program: it goes on to whoever started the agent.
    let mut all = opening.join_all().await;
    all.sort_unstable_by_key(|(n, _)| *n);
    let all = which.iter().zip(all).map(|(m, (_, opened))| match opened {
        Ok((mirror, receiver)) => Tried { entry: Entry::Open(mirror), receiver: Some(receiver) },
        Err(error) => {
            tracing::error!("{} could not be opened: {error}", m.name);
            events.log(Event::ResourceFailed(m.name.clone()));
            let entry = Entry::Broken { name: m.name.clone(), error, peer: Arc::default() };
            Tried { entry, receiver: None }
        }
    });
    all.collect()
}

/// Manages a mirror once it is opened. The device that a predecessor left is served again.
async fn enter(
    config: Arc<Config>,
    m: MirrorConfig,
    opened: Answer<Step<Opened>>,
    events: EventLog,
) -> Step<(Arc<Managed>, mpsc::Receiver<DriverEvent>)> {
    let Opened { driver, host, events: told, resumed } = opened.await?;
    let device = config.agent.device_dir.join(format!("NMP{}", m.nmp)).display().to_string();
    let names = [config.servers[0].name.clone(), config.servers[1].name.clone()];
    let local = config.side.index();
    let mirror = Arc::new(Managed::new(m, device, (names, local), (driver, host), events).await);
    if resumed {
        mirror.resume().await;
    }
    Ok((mirror, told))
}
