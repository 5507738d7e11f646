//! The agent on fakes.

mod emergency;
pub(crate) mod fakes;
mod figures;
mod follow;
mod messages;
mod order;
mod reload;
mod routing;
mod start;

use super::managed::Managed;
use super::{Agent, Entry};
use crate::config::Config;
use crate::messages::{AlertLog, Event, EventLog, EventSwitches, Sinks};
use fakes::{Fake, FakePeer};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Two mirrors on server `a`; `more` is added to md1.
fn config(more: &str) -> Config {
    let text = format!(
        "[[server]]\nname = \"a\"\nmirror_connect = [\"127.0.0.1\"]\n\
         [[server]]\nname = \"b\"\nmirror_connect = [\"127.0.0.2\"]\n\
         [[mirror]]\nname = \"md1\"\ndata_partition = \"/d1\"\ncluster_partition = \"/c1\"\n\
         mount_point = \"/mnt/1\"\n{more}\n\
         [[mirror]]\nname = \"md2\"\ndata_partition = \"/d2\"\ncluster_partition = \"/c2\"\nfs = \"none\"\n"
    );
    Config::parse(Path::new("x.toml"), &text, Some("a"), "").expect("configuration")
}

struct Lab {
    fake: Arc<Fake>,
    agent: Arc<Agent>,
    mirror: Arc<Managed>,
    alert: tempfile::TempDir,
    log: Option<std::thread::JoinHandle<()>>,
}

/// An agent with md1 open on a fake, and md2 broken.
async fn lab(more: &str) -> Lab {
    lab_with(more, BTreeMap::new()).await
}

/// The same, with the driver's messages in the alert log, too.
async fn lab_with_driver_log(more: &str) -> Lab {
    let alert = EventSwitches { alert: true, syslog: false, mail: false };
    lab_with(more, [("liscal".to_owned(), alert)].into()).await
}

async fn lab_with(more: &str, switches: BTreeMap<String, EventSwitches>) -> Lab {
    let fake = Fake::new(0);
    let alert = tempfile::tempdir().expect("folder");
    let mut config = config(more);
    config.agent.log_dir = alert.path().join("log");
    let config = Arc::new(config);
    let sinks = Sinks {
        alert: Some(AlertLog { path: alert.path().join("alert.log"), limit: 1 << 20, keep: 1 }),
        switches,
        ..Sinks::default()
    };
    let (events, log) = EventLog::start(sinks).expect("events");
    let mirror = Arc::new(
        Managed::new(
            config.mirrors[0].clone(),
            "/dev/NMP1".to_owned(),
            (["a".to_owned(), "b".to_owned()], 0),
            (fake.clone(), fake.clone()),
            events.clone(),
        )
        .await,
    );
    let error =
        super::StepError { code: crate::messages::MdCode::ReadCluster, message: "torn".to_owned() };
    let agent = Arc::new(Agent {
        config,
        reloads: super::reload::Orders::new().0,
        mirrors: std::sync::RwLock::new(vec![
            Entry::Open(Arc::clone(&mirror)),
            Entry::Broken { name: "md2".to_owned(), error, peer: Arc::default() },
        ]),
        peer: Box::new(FakePeer(fake.clone())),
        events,
        stopping: AtomicBool::new(false),
        died: tokio::sync::Notify::new(),
        emergency: super::emergency::Emergency::new(fake.clone()),
        changes: Arc::default(),
        followers: tokio::sync::Semaphore::new(1),
    });
    Lab { fake, agent, mirror, alert, log: Some(log) }
}

impl Lab {
    /// Ends the agent and gives the events that the alert log holds, without their times.
    fn events(self) -> Vec<String> {
        let Self { agent, mirror, alert, log, .. } = self;
        drop((agent, mirror));
        log.expect("the thread").join().expect("delivered");
        let text = std::fs::read_to_string(alert.path().join("alert.log")).unwrap_or_default();
        text.lines().map(|l| l[20..].to_owned()).collect()
    }
}

fn line(event: &Event) -> String {
    event.to_string()
}

/// Waits until `done`, at most ten seconds.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < limit, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
