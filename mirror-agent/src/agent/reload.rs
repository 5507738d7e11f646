//! Reload: a running agent reads its configuration again.
//!
//! What differs and whether it may be taken over is decided by [`decide`]; nothing is touched before.
//! Then new mirrors are opened; if one cannot be, they are closed again and nothing has changed. Only
//! after that are the removed ones closed and the settings taken over, which cannot fail any more.

use super::Entry;
use super::managed::Managed;
use super::parts::{Step, StepError};
use super::start::{Running, Tried, open_all};
use crate::config::{Config, ConfigError, MirrorConfig, Plan, Situation, decide};
use crate::ctl::Refused;
use crate::messages::{MdCode, Sinks};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

type Outcome = Result<String, Refused>;
/// Whoever ordered a reload.
pub(super) type Ordered = oneshot::Sender<Outcome>;

const AGAIN: &str = "clpmdctrl --reload";

/// Where a reload is ordered.
pub(super) struct Orders(mpsc::Sender<Ordered>);

impl Orders {
    pub(super) fn new() -> (Self, mpsc::Receiver<Ordered>) {
        let (orders, receiver) = mpsc::channel(1);
        (Self(orders), receiver)
    }

    /// Orders a reload and waits for its end.
    pub(super) async fn ask(&self) -> Outcome {
        let (order, done) = oneshot::channel();
        let gone = || Refused::plain(MdCode::Failed, "The agent is about to end.");
        self.0.send(order).await.map_err(|_| gone())?;
        done.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Ready when a reload is wanted: by a command, or, with `None`, by the signal.
pub(super) async fn next(
    hangup: &mut Option<Signal>,
    orders: &mut mpsc::Receiver<Ordered>,
) -> Option<Ordered> {
    let signal = async {
        match hangup {
            Some(signal) => signal.recv().await.is_some(),
            None => false,
        }
    };
    tokio::select! {
        Some(order) = orders.recv() => Some(order),
        true = signal => None,
        else => std::future::pending().await,
    }
}

/// Says the outcome in the log, and to whoever ordered it.
pub(super) fn answer(order: Option<Ordered>, outcome: Outcome) {
    match &outcome {
        Ok(text) => tracing::info!("{text}"),
        Err(r) => tracing::error!("{}\nNext: {}", r.message, r.next),
    }
    if let Some(order) = order {
        let _ = order.send(outcome); // whoever asked may be gone
    }
}

fn unusable(e: &ConfigError) -> Refused {
    let message = format!("{} Nothing was changed.\n{e}", MdCode::NoConfig.text());
    Refused { code: MdCode::NoConfig, message, next: format!("correct it, then: {AGAIN}") }
}

fn against(reasons: &[String]) -> Refused {
    let message = format!("Nothing was changed, because of:\n{}", reasons.join("\n"));
    let next = format!("take it back, then: {AGAIN}; or: systemctl restart clusterpro_md");
    Refused { code: MdCode::Failed, message, next }
}

fn could_not_open(name: &str, error: &StepError) -> String {
    format!("{name} could not be opened: {error}")
}

fn not_opened(name: &str, error: &StepError) -> Refused {
    let message = format!("Nothing was changed: {}", could_not_open(name, error));
    Refused { code: error.code, message, next: format!("correct the cause, then: {AGAIN}") }
}

impl Running {
    /// Reads the file again and takes over what differs.
    pub(super) async fn reload(&mut self) -> Outcome {
        let new = self.load().await?;
        let situations = self.situations().await;
        let plan = decide(&self.config, &new, &situations).map_err(|all| against(&all))?;
        let held = self.hold(&plan).await?;
        let outcome = self.apply(&plan, Arc::new(new)).await;
        for mirror in held {
            if outcome.is_err() || !plan.removed.contains(&mirror.config.name) {
                mirror.release();
            }
        }
        outcome
    }

    async fn load(&self) -> Result<Config, Refused> {
        let (file, server) = (self.config.file.clone(), self.config.local().name.clone());
        let load = move || {
            let new = Config::load(&file, Some(&server))?;
            new.check_partitions()?;
            Ok(new)
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let loaded = loaded.map_err(|e| Refused::plain(MdCode::Internal, e.to_string()))?;
        loaded.map_err(|e: ConfigError| unusable(&e))
    }

    async fn situations(&self) -> BTreeMap<String, Situation> {
        let mut all = BTreeMap::new();
        for entry in self.agent.entries() {
            let situation = match &entry {
                Entry::Broken { .. } => Situation::Broken,
                Entry::Open(mirror) => self.situation(mirror).await,
            };
            all.insert(entry.name().to_owned(), situation);
        }
        all
    }

    /// While the mirror connect does not tell of the other server, its agent is asked.
    async fn situation(&self, mirror: &Managed) -> Situation {
        let Some(status) = mirror.status().await else { return Situation::Unknown };
        let [here, there] = [mirror.local, 1 - mirror.local].map(|n| status.sides[n].active);
        let Some(here) = here else { return Situation::Unknown };
        let there = match there {
            None => self.agent.peer_seen_active(mirror, mirror.peer.patience()).await,
            told => told,
        };
        Situation::Active { here, there }
    }

    /// Nobody may activate, meanwhile, what must be inactive.
    async fn hold(&self, plan: &Plan) -> Result<Vec<Arc<Managed>>, Refused> {
        let mut held: Vec<Arc<Managed>> = Vec::new();
        for mirror in self.agent.open_mirrors().filter(|m| plan.idle.contains(&m.config.name)) {
            if let Err(r) = mirror.hold().await {
                held.iter().for_each(|m| m.release());
                return Err(Refused {
                    message: format!("Nothing was changed: {}", r.message),
                    ..r
                });
            }
            held.push(mirror);
        }
        Ok(held)
    }

    async fn apply(&mut self, plan: &Plan, new: Arc<Config>) -> Outcome {
        let named = |names: &[String]| -> Vec<MirrorConfig> {
            names.iter().filter_map(|name| new.mirror(name).cloned()).collect()
        };
        let added = self.open(&new, &named(&plan.added)).await;
        if let Some(refused) = added.iter().find_map(|t| broken(&t.entry)) {
            for tried in &added {
                if let Entry::Open(mirror) = &tried.entry {
                    log_end(&mirror.config.name, mirror.stop().await);
                }
            }
            return Err(refused);
        }
        let again = self.open(&new, &named(&plan.again)).await;
        let outcomes: Vec<_> = again.iter().map(|t| tried_again(&t.entry)).collect();
        for name in &plan.removed {
            self.remove(name).await;
        }
        for mirror in self.agent.open_mirrors() {
            if let Some(settings) = new.mirror(&mirror.config.name) {
                mirror.reconfigure(&new, settings);
            }
        }
        for tried in again.into_iter().chain(added) {
            self.enter(tried).await;
        }
        self.agent.events.reconfigure(Sinks::of(&new));
        self.config = new;
        Ok(told(plan, &outcomes))
    }

    async fn open(&self, config: &Arc<Config>, which: &[MirrorConfig]) -> Vec<Tried> {
        open_all(config, which, &*self.plant, &self.secret, &self.agent.events).await
    }

    /// Takes a mirror that was just opened, or could not be, among the others.
    async fn enter(&mut self, tried: Tried) {
        let name = tried.entry.name().to_owned();
        let mut entries = self.agent.entries();
        match entries.iter_mut().find(|e| e.name() == name) {
            Some(entry) => *entry = tried.entry.clone(),
            None => entries.push(tried.entry.clone()),
        }
        self.agent.set_entries(entries);
        let tasks = tried.follow(&self.agent).await;
        self.tasks.insert(name, tasks); // what watched the broken one ends
    }

    /// From now on the mirror is not there.
    async fn remove(&mut self, name: &str) {
        let (gone, stay): (Vec<_>, Vec<_>) =
            self.agent.entries().into_iter().partition(|e| e.name() == name);
        self.agent.set_entries(stay);
        for entry in gone {
            if let Entry::Open(mirror) = entry {
                log_end(name, mirror.stop().await);
            }
        }
        if let Some(mut tasks) = self.tasks.remove(name) {
            tasks.shutdown().await;
        }
    }
}

fn broken(entry: &Entry) -> Option<Refused> {
    match entry {
        Entry::Broken { name, error, .. } => Some(not_opened(name, error)),
        Entry::Open(_) => None,
    }
}

/// A driver that does not stop in order leaves the record of a crash: the next start finds it.
fn log_end(name: &str, stopped: Step<()>) {
    if let Err(e) = stopped {
        tracing::error!("{name} did not stop cleanly: {e}");
    }
}

fn tried_again(entry: &Entry) -> String {
    match entry {
        Entry::Broken { name, error, .. } => could_not_open(name, error),
        Entry::Open(mirror) => {
            format!("[[mirror]] {}: opened, which had failed before", mirror.config.name)
        }
    }
}

fn told(plan: &Plan, again: &[String]) -> String {
    let mut lines = plan.sentences();
    lines.extend(again.iter().cloned());
    if lines.is_empty() {
        return "The configuration was read again; nothing differs.".to_owned();
    }
    format!("The configuration was read again:\n{}", lines.join("\n"))
}
