//! The daemon: starts and stops the mirrors' drivers, and maps requests to their commands.
//!
//! Start-up: locks, secret, drivers, control socket, link to the other agent, ready. Stop: no new
//! requests, every mirror unmounted, closed and cleanly stopped, then gone. A mirror that cannot
//! be opened does not keep the others from running; it answers every request with its reason.

mod changes;
mod emergency;
mod folder;
mod follow;
mod history;
mod managed;
mod measure;
mod notify;
mod parts;
mod peer_view;
mod reload;
mod report;
mod service;
mod start;

pub use parts::{DriverEvent, HostOps, MirrorHandle, Opened, Peer, Plant, Step, StepError};
pub use start::{End, Ended, Options, StartError, config_failure, run};

use crate::config::Config;
use crate::ctl::Refused;
use crate::messages::EventLog;
use managed::How;
use managed::Managed;
use peer_view::PeerView;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Notify, Semaphore};

/// The agent of one server.
struct Agent {
    /// As at the start: what a reload cannot change is read here.
    config: Arc<Config>,
    /// In the order of the configuration; those that a reload adds come last.
    mirrors: RwLock<Vec<Entry>>,
    reloads: reload::Orders,
    peer: Box<dyn Peer>,
    events: EventLog,
    /// Set at shutdown: nothing is activated any more.
    stopping: AtomicBool,
    /// Told when a driver ended that should not have: its clients hang until the process ends.
    died: Notify,
    emergency: emergency::Emergency,
    /// What happens to the mirrors, for those who follow it.
    changes: Arc<changes::Changes>,
    /// How many may wait for a change: the control socket is for others, too.
    followers: Semaphore,
}

/// Programs that may follow what happens at a time.
const FOLLOWERS: usize = 16;

/// A mirror of the configuration.
#[derive(Clone)]
enum Entry {
    Open(Arc<Managed>),
    /// It could not be opened.
    Broken {
        name: String,
        error: StepError,
        /// What the other agent says of it.
        peer: Arc<PeerView>,
    },
}

impl Entry {
    fn name(&self) -> &str {
        match self {
            Self::Open(mirror) => &mirror.config.name,
            Self::Broken { name, .. } => name,
        }
    }
}

impl Agent {
    /// Activates a mirror for a tool.
    async fn activate(&self, mirror: &Managed, how: How) -> Result<String, Refused> {
        let mut stage = mirror.enter().await?;
        let how = self.informed(mirror, how).await?;
        mirror.activate_from(&mut stage, how).await
    }

    /// Activates a mirror by itself.
    async fn activate_unasked(&self, mirror: &Managed, how: How) -> Result<String, Refused> {
        let mut stage = mirror.enter_when_free().await?;
        let how = self.informed(mirror, how).await?;
        mirror.activate_from(&mut stage, how).await
    }

    /// What the other agent says is asked for by whoever has the mirror already: while waiting for
    /// that, it could become old enough for both servers to be activated.
    async fn informed(&self, mirror: &Managed, how: How) -> Result<How, Refused> {
        let peer_seen_active = self.peer_seen_active(mirror, mirror.peer.patience()).await;
        if self.stopping.load(Ordering::SeqCst) {
            return Err(mirror.stopping());
        }
        Ok(How { peer_seen_active, ..how })
    }

    /// Makes the file system of a mirror that was just constructed.
    async fn make_first_fs(&self, mirror: &Managed, how: How) -> Result<String, Refused> {
        let mut stage = mirror.enter_when_free().await?;
        let how = self.informed(mirror, how).await?;
        mirror.activate_and_close(&mut stage, how).await
    }

    /// The mirrors as they are now.
    fn entries(&self) -> Vec<Entry> {
        // A panic while it was held leaves a whole list behind.
        self.mirrors.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn entry(&self, name: &str) -> Option<Entry> {
        self.entries().into_iter().find(|e| e.name() == name)
    }

    fn set_entries(&self, entries: Vec<Entry>) {
        *self.mirrors.write().unwrap_or_else(PoisonError::into_inner) = entries;
    }

    fn open_mirrors(&self) -> impl Iterator<Item = Arc<Managed>> {
        self.entries().into_iter().filter_map(|e| match e {
            Entry::Open(mirror) => Some(mirror),
            Entry::Broken { .. } => None,
        })
    }
}

/// A mirror in good order, for tests of what is made of a report.
#[cfg(test)]
pub(crate) fn fake_report() -> crate::ctl::MirrorReport {
    crate::ctl::MirrorReport {
        name: "md1".to_owned(),
        device: "/dev/NMP1".to_owned(),
        mount_point: None,
        mounted: None,
        servers: ["a".to_owned(), "b".to_owned()],
        status: tests::fakes::status(0),
        peer_by_agent: false,
    }
}

#[cfg(test)]
mod tests;
