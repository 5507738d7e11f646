//! Start-up and shutdown as a whole, on fakes.

use super::fakes::{Fake, FakePlant};
use crate::agent::{DriverEvent, End, Ended, Options, StartError, run};
use crate::config::Config;
use crate::ctl::{Client, Request, Response};
use crate::lock::{Lock, LockError, Role};
use crate::messages::{Event, EventLog, Sinks, StartReason, driver};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A configuration whose folders are below `dir`, on loopback addresses and free ports.
fn config(dir: &Path, address: &str) -> Config {
    let at = dir.display();
    let port = {
        let l = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        l.local_addr().expect("address").port()
    };
    let text = format!(
        "[[server]]\nname = \"a\"\nmirror_connect = [\"{address}\"]\n\
         [[server]]\nname = \"b\"\nmirror_connect = [\"127.0.0.2\"]\n\
         [agent]\nport = {port}\nrun_dir = \"{at}/run\"\nlog_dir = \"{at}\"\nsyslog = \"{at}/none\"\n\
         device_dir = \"{at}\"\nsecret_file = \"{at}/secret\"\n\
         [[mirror]]\nname = \"md1\"\ndata_partition = \"/d1\"\ncluster_partition = \"/c1\"\n\
         mount_point = \"/mnt/1\"\n\
         [[mirror]]\nname = \"md2\"\ndata_partition = \"/d2\"\ncluster_partition = \"/c2\"\nfs = \"none\"\n\
         [event.liscal]\nalert = true\n"
    );
    let secret = dir.join("secret");
    fs::write(&secret, [7; 32]).expect("secret");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("mode");
    Config::parse(Path::new("x.toml"), &text, Some("a"), "").expect("configuration")
}

fn options(config: &Config) -> (Options, std::thread::JoinHandle<()>) {
    let (events, log) = EventLog::start(Sinks::of(config)).expect("events");
    (Options { events, notify: None, power: Fake::new(0), hangup: None }, log)
}

fn alerts(dir: &Path) -> String {
    fs::read_to_string(dir.join("alert.log")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_serves_and_stops() {
    let dir = tempfile::tempdir().expect("folder");
    let config = config(dir.path(), "127.0.0.1");
    let (run_dir, socket) = (config.agent.run_dir.clone(), config.agent.socket.clone());
    let notify = dir.path().join("notify");
    let manager = UnixDatagram::bind(&notify).expect("bind");
    manager.set_read_timeout(Some(Duration::from_secs(10))).expect("limit");
    let heard = move || {
        let mut buffer = [0; 64];
        let n = manager.recv(&mut buffer).expect("a notice");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };

    let fake = Fake::new(0);
    let (mut options, log) = options(&config);
    options.notify = Some(notify.into());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(run(config, Arc::new(FakePlant(fake.clone())), options, async {
        let _ = stopped.await;
        End::Stop
    }));
    let told = tokio::task::spawn_blocking(move || (heard(), heard));
    let (ready, heard) = told.await.expect("told");
    assert_eq!(ready, "READY=1");

    // Ready means: locked, and every request is answered, the broken mirror's, too.
    assert!(matches!(Lock::take(&run_dir, Role::Init), Err(LockError::Held(Role::Agent))));
    let path = socket.clone();
    tokio::task::spawn_blocking(move || {
        let mut c = Client::connect(&path).expect("connect");
        let activate =
            Request::Activate { mirror: "md1".to_owned(), nomount: false, peer_down: false };
        assert!(matches!(c.ask(activate, |_| {}), Ok(Response::Done(_))));
        let broken = Request::Status { mirror: Some("md2".to_owned()) };
        assert!(matches!(c.ask(broken, |_| {}), Ok(Response::Refused(r)) if r.code.number() == 79));
    })
    .await
    .expect("client");

    fake.journal.take();
    stop.send(()).expect("it runs");
    assert_eq!(running.await.expect("no panic").expect("started"), Ended::Cleanly);
    assert_eq!(heard(), "STOPPING=1");
    let steps: Vec<_> =
        fake.journal.take().into_iter().filter(|s| !s.starts_with("peer:")).collect();
    assert_eq!(steps, ["umount", "detach", "close front end", "Deactivate", "Shutdown", "end"]);
    assert!(!socket.exists());
    assert!(Lock::take(&run_dir, Role::Init).is_ok(), "the lock is free again");
    log.join().expect("delivered");
    let text = alerts(dir.path());
    let at = |e: &Event| text.find(&e.to_string());
    assert!(at(&Event::AgentStarted) < at(&Event::AgentStopped), "{text}");
    assert!(at(&Event::AgentStarted).is_some(), "{text}");
    let driver = |message, more: &[&str]| {
        Event::Driver(message, more.iter().map(|s| (*s).to_owned()).collect())
    };
    assert!(at(&driver(driver::REGISTERED, &["0", "1"])) < at(&Event::AgentStarted), "{text}");
    assert!(text.contains("registered device at major 0, nmp count is 1"), "{text}");
    assert!(at(&driver(driver::UNREGISTERED, &[])) < at(&Event::AgentStopped), "{text}");
    assert!(text.contains("unregister blkdev successfully."), "{text}");
    let broken = Event::ResourceFailed("md2".to_owned());
    assert!(at(&broken) < at(&Event::AgentStarted) && at(&broken).is_some(), "{text}");
}

async fn start_fails(config: Config) -> StartError {
    let (options, log) = options(&config);
    let plant = Arc::new(FakePlant(Fake::new(0)));
    let never = std::future::pending();
    let e = run(config, plant, options, never).await.expect_err("must not start");
    log.join().expect("delivered");
    e
}

#[tokio::test]
async fn what_prevents_the_start_has_its_reason() {
    let dir = tempfile::tempdir().expect("folder");
    let run_dir = dir.path().join("run");
    for (role, reason) in [
        (Role::Agent, StartReason::AgentRunning),
        (Role::Init, StartReason::InitRunning),
        (Role::Chng, StartReason::ChngRunning),
    ] {
        let _held = Lock::take(&run_dir, role).expect("free");
        assert_eq!(start_fails(config(dir.path(), "127.0.0.1")).await.reason, reason);
    }
    let foreign = config(dir.path(), "192.0.2.1");
    assert_eq!(start_fails(foreign).await.reason, StartReason::Address);
    let c = config(dir.path(), "127.0.0.1");
    let _taken = std::net::TcpListener::bind(("127.0.0.1", c.agent.port)).expect("port");
    assert_eq!(start_fails(c).await.reason, StartReason::Socket);
    let mut c = config(dir.path(), "127.0.0.1");
    c.mirrors[0].partitions[0].data = dir.path().join("secret");
    c.mirrors[1].partitions[0].cluster = dir.path().join("./secret");
    let twice = start_fails(c).await;
    assert!(twice.what.contains("the same partition"), "{}", twice.what);
    let c = config(dir.path(), "127.0.0.1");
    fs::set_permissions(dir.path().join("secret"), Permissions::from_mode(0o644)).expect("mode");
    let open = start_fails(c).await;
    assert_eq!(open.reason, StartReason::Config);
    assert!(open.what.contains("0644"), "{}", open.what);
    for reason in
        ["Agent is running.", "Command clpmdinit is running.", "IP address in config file"]
    {
        assert!(alerts(dir.path()).contains(&format!("<event: 2> Failed to start agent.{reason}")));
    }
}

#[tokio::test]
async fn an_unclean_stop_is_said() {
    let dir = tempfile::tempdir().expect("folder");
    let config = config(dir.path(), "127.0.0.1");
    let fake = Fake::new(0);
    fake.status.lock().expect("lock").sides[0].active = Some(true);
    fake.fail(&["umount"]);
    let (options, log) = options(&config);
    let ended =
        run(config, Arc::new(FakePlant(fake)), options, std::future::ready(End::Stop)).await;
    assert_eq!(ended.expect("started"), Ended::Uncleanly);
    log.join().expect("delivered");
    assert!(alerts(dir.path()).contains(&Event::AgentStopFailed.to_string()));
    assert!(alerts(dir.path()).contains("ERROR:MOUNT PORT is opened"), "what is still open");
}

/// The clients of a dead driver hang as long as its process lives.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_ends_with_a_driver() {
    let dir = tempfile::tempdir().expect("folder");
    let config = config(dir.path(), "127.0.0.1");
    let fake = Fake::new(0);
    let (options, log) = options(&config);
    let ended = DriverEvent::Ended("the ring is broken".to_owned());
    fake.events.send(ended).await.expect("room");
    let agent = run(config, Arc::new(FakePlant(fake)), options, std::future::pending());
    let ended = tokio::time::timeout(Duration::from_secs(10), agent).await.expect("it ends");
    assert_eq!(ended.expect("started"), Ended::Died);
    log.join().expect("delivered");
    assert!(alerts(dir.path()).contains(&Event::AgentStopFailed.to_string()));
    assert!(alerts(dir.path()).contains("NMP1 driver ended(the ring is broken)."));
}

/// Runs an agent to its end on a fake that is active, and gives what it did.
async fn run_active(end: End, prepare: impl FnOnce(&Fake)) -> (bool, Vec<String>, String) {
    let dir = tempfile::tempdir().expect("folder");
    let config = config(dir.path(), "127.0.0.1");
    let fake = Fake::new(0);
    fake.set_active(true);
    prepare(&fake);
    let (options, log) = options(&config);
    let plant = Arc::new(FakePlant(fake.clone()));
    let clean = run(config, plant, options, std::future::ready(end)).await.expect("started");
    log.join().expect("delivered");
    let steps = fake.journal.take().into_iter().filter(|s| !s.starts_with("peer:")).collect();
    (clean == Ended::Cleanly, steps, alerts(dir.path()))
}

#[tokio::test]
async fn a_device_that_outlives_the_agent_is_left_to_the_next_one() {
    let (clean, steps, _) =
        run_active(End::Suspend, |fake| *fake.stays.lock().expect("lock") = true).await;
    assert!(clean);
    assert_eq!(steps, ["sweep", "open md1", "open md2", "Suspend", "suspended", "leave"]);
}

#[tokio::test]
async fn no_device_waits_for_the_work_on_another_mirror() {
    use super::fakes::{Journal, TwoPlant};
    let dir = tempfile::tempdir().expect("folder");
    let config = config(dir.path(), "127.0.0.1");
    let journal = Journal::default();
    // md1 outlives the agent, md2 does not.
    let fakes = [true, false].map(|stays| {
        let fake = Fake::with_journal(0, journal.clone());
        fake.set_active(true);
        *fake.stays.lock().expect("lock") = stays;
        fake
    });
    let (options, log) = options(&config);
    let plant = Arc::new(TwoPlant(fakes, Arc::new(tokio::sync::Semaphore::new(0))));
    let running = run(config, plant, options, std::future::ready(End::Suspend));
    let ended = tokio::time::timeout(Duration::from_secs(60), running).await;
    ended.expect("md1 is not waited for").expect("started");
    log.join().expect("delivered");
    let steps: Vec<_> = journal.take().into_iter().filter(|s| !s.starts_with("peer:")).collect();
    let last = ["end", "Suspend", "suspended", "leave"];
    assert_eq!(steps[steps.len() - 4..], last, "{steps:?}");
}

/// A device that is left has no server, and its time runs: the other one may need a minute yet.
#[tokio::test]
async fn no_device_is_left_before_all_are_ready_for_it() {
    use super::fakes::{Journal, TwoPlant};
    let dir = tempfile::tempdir().expect("folder");
    let config = config(dir.path(), "127.0.0.1");
    let journal = Journal::default();
    let fakes = [0, 300].map(|slow_ms| {
        let fake = Fake::with_journal(0, journal.clone());
        fake.set_active(true);
        *fake.stays.lock().expect("lock") = true;
        *fake.suspends_for.lock().expect("lock") = Duration::from_millis(slow_ms);
        fake
    });
    let (options, log) = options(&config);
    let plant = Arc::new(TwoPlant(fakes, Arc::new(tokio::sync::Semaphore::new(1))));
    let running = run(config, plant, options, std::future::ready(End::Suspend));
    let ended = tokio::time::timeout(Duration::from_secs(60), running).await;
    assert_eq!(ended.expect("it ends").expect("started"), Ended::Cleanly);
    log.join().expect("delivered");
    let steps: Vec<_> = journal.take().into_iter().filter(|s| !s.starts_with("peer:")).collect();
    let last = ["Suspend", "Suspend", "suspended", "suspended", "leave", "leave"];
    assert_eq!(steps[steps.len() - 6..], last, "{steps:?}");
}

#[tokio::test]
async fn a_device_that_goes_with_the_agent_is_closed_before() {
    let (clean, steps, _) = run_active(End::Suspend, |_| {}).await;
    assert!(clean);
    let closed = ["umount", "detach", "close front end", "Deactivate", "Shutdown", "end"];
    assert_eq!(steps[3..], closed, "{steps:?}");
    // A stop for good closes all the same what could stay.
    let (_, steps, _) =
        run_active(End::Stop, |fake| *fake.stays.lock().expect("lock") = true).await;
    assert_eq!(steps[3..], closed, "{steps:?}");
}

#[tokio::test]
async fn what_an_earlier_agent_has_left_is_served_at_once() {
    let resumed = |fake: &Fake| *fake.resumed.lock().expect("lock") = true;
    let (_, steps, _) = run_active(End::Stop, resumed).await;
    let served = ["sweep", "open md1", "open md2", "open front end", "attach"];
    assert_eq!(steps[..5], served, "{steps:?}");
    assert!(!steps.contains(&"mount".to_owned()), "its mount is there: {steps:?}");
}

#[tokio::test]
async fn what_cannot_be_served_again_is_taken_down() {
    let (_, steps, alerts) = run_active(End::Stop, |fake| {
        *fake.resumed.lock().expect("lock") = true;
        fake.fail(&["open front end"]);
    })
    .await;
    let down = ["open front end", "discard", "close front end", "Deactivate"];
    assert_eq!(steps[3..7], down, "{steps:?}");
    assert!(alerts.contains("Failed to activate mirror disk.Failed to open I/O port."), "{alerts}");
}
