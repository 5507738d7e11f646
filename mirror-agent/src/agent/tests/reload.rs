//! A running agent reads its configuration again, on fakes.

use super::fakes::{Fake, ManyPlant};
use crate::agent::{End, Ended, Options, run};
use crate::config::Config;
use crate::ctl::{Client, Refused, Request, Response};
use crate::messages::{EventLog, Sinks};
use mirror_core::status::LinkStatus;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const MD2: &str = "[[mirror]]\nname = \"md2\"\ndata_partition = \"/d2\"\ncluster_partition = \"/c2\"\nfs = \"none\"\n";
const MD3: &str = "[[mirror]]\nname = \"md3\"\ndata_partition = \"/d3\"\ncluster_partition = \"/c3\"\nfs = \"none\"\n";

/// The file's text without md2 and md3.
fn base(dir: &Path) -> String {
    let at = dir.display();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("address").port();
    format!(
        "[[server]]\nname = \"a\"\nmirror_connect = [\"127.0.0.1\"]\n\
         [[server]]\nname = \"b\"\nmirror_connect = [\"127.0.0.2\"]\n\
         [agent]\nport = {port}\nrun_dir = \"{at}/run\"\nlog_dir = \"{at}\"\nsyslog = \"{at}/none\"\n\
         device_dir = \"{at}\"\nsecret_file = \"{at}/secret\"\n\
         [[mirror]]\nname = \"md1\"\ndata_partition = \"/d1\"\ncluster_partition = \"/c1\"\n\
         mount_point = \"/mnt/1\"\n"
    )
}

struct Running {
    dir: tempfile::TempDir,
    base: String,
    socket: PathBuf,
    fakes: Vec<(&'static str, Arc<Fake>)>,
    stop: oneshot::Sender<()>,
    agent: JoinHandle<Ended>,
}

/// An agent with md1 and, after a reload, whatever has a fake.
async fn running(names: &[&'static str], more: &str) -> Running {
    running_without(names, &[], more).await
}

/// The same, but these cannot be opened.
async fn running_without(names: &[&'static str], torn: &[&'static str], more: &str) -> Running {
    let dir = tempfile::tempdir().expect("folder");
    let base = base(dir.path());
    let file = dir.path().join("x.toml");
    fs::write(&file, format!("{base}{more}")).expect("file");
    let secret = dir.path().join("secret");
    fs::write(&secret, [7; 32]).expect("secret");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("mode");
    let config = Config::load(&file, Some("a")).expect("configuration");
    let socket = config.agent.socket.clone();
    let fakes: Vec<_> = names.iter().map(|name| (*name, Fake::new(0))).collect();
    fakes.iter().filter(|(name, _)| torn.contains(name)).for_each(|(_, f)| f.fail(&["open"]));
    let plant = Arc::new(ManyPlant(fakes.clone()));
    let (events, _log) = EventLog::start(Sinks::of(&config)).expect("events");
    let options = Options { events, notify: None, power: Fake::new(0), hangup: None };
    let (stop, stopped) = oneshot::channel::<()>();
    let agent = tokio::spawn(async move {
        let stop = async {
            let _ = stopped.await;
            End::Stop
        };
        run(config, plant, options, stop).await.expect("started")
    });
    let path = socket.clone();
    super::until("the agent serves", move || Client::connect(&path).is_ok()).await;
    Running { dir, base, socket, fakes, stop, agent }
}

impl Running {
    async fn ask(&self, request: Request) -> Response {
        let socket = self.socket.clone();
        let ask = move || Client::connect(&socket).expect("connect").ask(request, |_| {});
        tokio::task::spawn_blocking(ask).await.expect("client").expect("answered")
    }

    async fn reload(&self, text: &str) -> Result<String, Refused> {
        fs::write(self.dir.path().join("x.toml"), text).expect("file");
        match self.ask(Request::Reload).await {
            Response::Done(text) => Ok(text),
            Response::Refused(refused) => Err(refused),
            other => panic!("{other:?}"),
        }
    }

    async fn names(&self) -> Vec<String> {
        match self.ask(Request::List).await {
            Response::List(names) => names,
            other => panic!("{other:?}"),
        }
    }

    fn fake(&self, name: &str) -> &Fake {
        &self.fakes.iter().find(|(n, _)| *n == name).expect("a fake").1
    }

    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        assert_eq!(self.agent.await.expect("no panic"), Ended::Cleanly);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_come_and_go() {
    let r = running(&["md1", "md2"], "").await;
    let two = format!("{}{MD2}", r.base);
    let text = r.reload(&two).await.expect("allowed");
    assert!(text.ends_with("\n[[mirror]] md2: added"), "{text}");
    assert_eq!(r.names().await, ["md1", "md2"]);
    let text = r.reload(&two).await.expect("allowed");
    assert!(text.contains("nothing differs"), "{text}");

    // Active: it stays, and so does everything else.
    let activate = Request::Activate { mirror: "md2".to_owned(), nomount: true, peer_down: false };
    assert!(matches!(r.ask(activate).await, Response::Done(_)));
    let e = r.reload(&r.base).await.expect_err("active");
    assert!(e.message.contains("md2: is active on a, so it cannot be removed"), "{}", e.message);
    assert_eq!(r.names().await, ["md1", "md2"]);

    let deactivate = Request::Deactivate { mirror: "md2".to_owned() };
    assert!(matches!(r.ask(deactivate).await, Response::Done(_)));
    r.fake("md2").journal.take();
    let text = r.reload(&r.base).await.expect("inactive");
    assert!(text.ends_with("\n[[mirror]] md2: removed"), "{text}");
    assert_eq!(r.names().await, ["md1"]);
    let steps = r.fake("md2").journal.take();
    let steps: Vec<_> = steps.iter().filter(|s| !s.starts_with("peer")).collect();
    assert_eq!(steps, ["Shutdown", "end"], "closed in order");
    let gone = r.ask(Request::Status { mirror: Some("md2".to_owned()) }).await;
    assert!(matches!(gone, Response::Refused(r) if r.code.number() == 77));
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_taken_over_and_said() {
    let r = running(&["md1"], "").await;
    let new = format!("{}mount_retry = 7\ndisk_error = \"reset\"\n", r.base);
    let text = r.reload(&new).await.expect("allowed");
    assert!(text.contains("[[mirror]] md1: mount_retry: 3 -> 7"), "{text}");
    assert!(text.contains("[[mirror]] md1: disk_error: \"stop-io\" -> \"reset\""), "{text}");
    assert!(r.fake("md1").journal.contains("reconfigure md1"));
    let back = r.reload(&r.base).await.expect("allowed");
    assert!(back.contains("mount_retry: 7 -> 3"), "compared with what holds now: {back}");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_changes_nothing() {
    let r = running(&["md1", "md2"], "").await;
    let changed = format!("{}mount_retry = 7\n", r.base);
    for (text, code, says) in [
        (changed.replace("[agent]", "[agent]\nalone = \"fenced\"") + MD2, 89, "[agent]: alone: "),
        (format!("{changed}{MD2}{MD3}"), 79, "Nothing was changed: md3 could not be opened"),
        (
            changed.replace("/d1", "d1") + "colour = 1\n",
            4,
            "line 20: [[mirror]] md1: colour = 1: unknown",
        ),
    ] {
        r.fake("md2").journal.take();
        let e = r.reload(&text).await.expect_err("refused");
        assert_eq!(e.code.number(), code, "{}", e.message);
        assert!(e.message.contains(says), "{}", e.message);
        assert!(e.next.contains("clpmdctrl --reload"), "{}", e.next);
        assert_eq!(r.names().await, ["md1"]);
        assert_eq!(r.fake("md2").journal.contains("end"), code == 79, "what was opened is closed");
        assert!(!r.fake("md1").journal.contains("reconfigure md1"));
    }
    r.stop().await;
}

/// A mirror that could not be opened is tried again, and what became of it is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_opens_what_could_not_be_opened() {
    let r = running_without(&["md1", "md2", "md3"], &["md2"], MD2).await;
    let status = Request::Status { mirror: Some("md2".to_owned()) };
    assert!(matches!(r.ask(status.clone()).await, Response::Refused(r) if r.code.number() == 79));
    let text = r.reload(&format!("{}{MD2}{MD3}", r.base)).await.expect("allowed");
    assert!(text.contains("md3: added\nmd2 could not be opened: torn"), "{text}");
    assert_eq!(r.names().await, ["md1", "md2", "md3"]);
    let text = r.reload(&format!("{}{MD2}{MD3}", r.base)).await.expect("allowed");
    assert!(text.ends_with("again:\nmd2 could not be opened: torn"), "{text}");
    r.fake("md2").fail(&[]);
    let new = format!("{}{MD2}hot_regions = 99\n{MD3}", r.base);
    let text = r.reload(&new).await.expect("allowed");
    let says =
        "[[mirror]] md2: hot_regions: 65536 -> 99\n[[mirror]] md2: opened, which had failed before";
    assert!(text.ends_with(says), "{text}");
    assert!(matches!(r.ask(status).await, Response::Status(_)));
    let text = r.reload(&format!("{}{MD3}", r.base)).await.expect("allowed");
    assert!(text.ends_with("md2: removed"), "{text}");
    assert_eq!(r.names().await, ["md1", "md3"]);
    r.stop().await;
}

/// The other server may be active, and wait for this one to record that it is behind.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_of_the_other_server_no_mirror_is_removed() {
    let r = running(&["md1", "md2"], MD2).await;
    let seen = |link, active| {
        let mut status = r.fake("md2").status.lock().expect("lock");
        (status.link, status.sides[1].active) = (link, active);
    };
    seen(LinkStatus::Down, None);
    let e = r.reload(&r.base).await.expect_err("not seen");
    assert!(
        e.message.contains("md2: may be active on b, which does not answer, so it cannot"),
        "{}",
        e.message
    );
    assert_eq!(r.names().await, ["md1", "md2"]);
    seen(LinkStatus::Session, Some(false));
    assert!(r.reload(&r.base).await.expect("seen").ends_with("md2: removed"));
    r.stop().await;
}
