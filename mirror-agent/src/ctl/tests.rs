//! The control socket, end to end.

use super::{
    Access, Answer, Client, ClientError, CtlServer, LINE_MAX, Query, Reply, Request, Response,
    Service, VERSION,
};
use proptest::prelude::*;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Answers `List` at once; `Deactivate` waits to be released, then counts; `Events` waits for ever.
#[derive(Default)]
struct Fake {
    release: Arc<Notify>,
    finished: Arc<AtomicUsize>,
    followers: Arc<AtomicUsize>,
}

/// Counts one less at its end, however that comes.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for Fake {
    fn call(&self, request: Request) -> Answer<Response> {
        let (release, finished) = (Arc::clone(&self.release), Arc::clone(&self.finished));
        let followers = Arc::clone(&self.followers);
        Box::pin(async move {
            match request {
                Request::List => Response::List(vec!["md1".to_owned()]),
                Request::Deactivate { mirror } => {
                    release.notified().await;
                    finished.fetch_add(1, Ordering::SeqCst);
                    Response::Done(mirror)
                }
                Request::Events { .. } => {
                    followers.fetch_add(1, Ordering::SeqCst);
                    let _place = Place(followers);
                    std::future::pending().await
                }
                Request::Status { .. } => Response::Done("x".repeat(LINE_MAX)),
                Request::Ping => panic!("a bug in the service"),
                other => Response::Done(format!("{other:?}")),
            }
        })
    }
}

struct Running {
    _dir: tempfile::TempDir,
    path: PathBuf,
    fake: Arc<Fake>,
    runtime: tokio::runtime::Runtime,
}

fn running() -> Running {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("ctl.sock");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("runtime");
    let fake = Arc::new(Fake::default());
    let server = runtime.block_on(async { CtlServer::bind(&path, Access::Owner) }).expect("bind");
    runtime.spawn(server.run(fake.clone()));
    Running { _dir: dir, path, fake, runtime }
}

fn raw(r: &Running) -> BufReader<UnixStream> {
    let s = UnixStream::connect(&r.path).expect("connect");
    s.set_read_timeout(Some(Duration::from_secs(10))).expect("limit");
    BufReader::new(s)
}

fn exchange(s: &mut BufReader<UnixStream>, line: &[u8]) -> Response {
    s.get_mut().write_all(line).expect("write");
    let mut answer = String::new();
    s.read_line(&mut answer).expect("answer");
    serde_json::from_str::<Reply>(&answer).expect("a reply").response
}

#[test]
fn a_request_is_answered_and_the_socket_is_private() {
    let r = running();
    let mode = std::fs::metadata(&r.path).expect("socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut c = Client::connect(&r.path).expect("connect");
    for _ in 0..3 {
        let answer = c.ask(Request::List, |_| {}).expect("answer");
        assert_eq!(answer, Response::List(vec!["md1".to_owned()]));
    }
}

#[test]
fn malformed_lines_get_an_error_and_the_connection_goes_on() {
    let r = running();
    let mut s = raw(&r);
    let bad: [&[u8]; 6] = [
        b"\n",
        b"hello\n",
        b"{\"version\":1}\n",
        b"{\"version\":1,\"request\":{\"explode\":{}}}\n",
        b"{\"version\":1,\"request\":{\"deactivate\":{\"mirror\":\"md1\",\"now\":true}}}\n",
        b"\xff\xfe\n",
    ];
    for line in bad {
        assert!(matches!(exchange(&mut s, line), Response::Error(_)), "{line:?}");
    }
    let newer = b"{\"version\":2,\"request\":{\"explode\":{}}}\n";
    assert_eq!(
        exchange(&mut s, newer),
        Response::Error("version 2 is not spoken here, 1 is".to_owned())
    );
    let good = b"{\"version\":1,\"request\":\"list\"}\n";
    assert!(matches!(exchange(&mut s, good), Response::List(_)), "and then goes on");
}

#[test]
fn an_endless_line_is_cut_off() {
    let r = running();
    let mut s = raw(&r);
    assert!(matches!(exchange(&mut s, &[b'x'; LINE_MAX]), Response::Error(_)));
    let mut rest = Vec::new();
    // The end may come as a reset when unread bytes are left.
    let _ = s.read_to_end(&mut rest);
    assert!(rest.is_empty());
    let answer = Client::connect(&r.path).expect("connect").ask(Request::List, |_| {});
    assert!(matches!(answer, Ok(Response::List(_))), "others are still served");
}

#[test]
fn a_slow_request_does_not_hold_up_others_and_survives_its_client() {
    let r = running();
    let mut leaves = raw(&r);
    let query =
        Query { version: VERSION, request: Request::Deactivate { mirror: "md1".to_owned() } };
    let mut line = serde_json::to_vec(&query).expect("json");
    line.push(b'\n');
    leaves.get_mut().write_all(&line).expect("write");
    drop(leaves);
    let mut c = Client::connect(&r.path).expect("connect");
    assert!(matches!(c.ask(Request::List, |_| {}), Ok(Response::List(_))));
    let limit = Instant::now() + Duration::from_secs(10);
    while r.fake.finished.load(Ordering::SeqCst) == 0 {
        r.fake.release.notify_waiters();
        assert!(Instant::now() < limit, "the request ended with its client");
        std::thread::yield_now();
    }
}

/// Whoever only waits holds a place, which is for others once it is gone.
#[test]
fn a_follower_that_goes_away_gives_its_place_back_at_once() {
    let r = running();
    let query =
        Query { version: VERSION, request: Request::Events { mirror: None, from: Some(0) } };
    let mut line = serde_json::to_vec(&query).expect("json");
    line.push(b'\n');
    let mut leaves = raw(&r);
    leaves.get_mut().write_all(&line).expect("write");
    let places = |wanted| {
        let limit = Instant::now() + Duration::from_secs(4);
        while r.fake.followers.load(Ordering::SeqCst) != wanted {
            assert!(Instant::now() < limit, "never {wanted} places in use");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    places(1);
    drop(leaves);
    places(0);
    // One that says more meanwhile is still there.
    let mut stays = raw(&r);
    stays.get_mut().write_all(&[line.as_slice(), b"next\n"].concat()).expect("write");
    places(1);
    std::thread::sleep(Duration::from_millis(100));
    places(1);
}

#[test]
fn a_failing_service_and_a_long_answer_are_errors() {
    let r = running();
    let mut c = Client::connect(&r.path).expect("connect");
    assert!(matches!(c.ask(Request::Ping, |_| {}), Ok(Response::Error(_))));
    let all = Request::Status { mirror: None };
    assert!(matches!(c.ask(all, |_| {}), Ok(Response::Error(_))));
    assert!(matches!(c.ask(Request::List, |_| {}), Ok(Response::List(_))));
}

#[test]
fn no_agent_is_told_from_a_broken_one() {
    let r = running();
    let missing = r.path.with_extension("none");
    assert!(matches!(Client::connect(&missing), Err(ClientError::NoAgent(_))));
    let mut c = Client::connect(&r.path).expect("connect");
    assert!(matches!(c.ask(Request::List, |_| {}), Ok(Response::List(_))));
    let path = r.path.clone();
    r.runtime.shutdown_timeout(Duration::from_secs(10));
    assert!(matches!(c.ask(Request::List, |_| {}), Err(ClientError::Broken(_))));
    assert!(matches!(Client::connect(&path), Err(ClientError::NoAgent(_))));
}

#[test]
fn a_stale_socket_is_replaced_and_removed_at_the_end() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("ctl.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(async {
        drop(std::os::unix::net::UnixListener::bind(&path).expect("stale"));
        let server = CtlServer::bind(&path, Access::Owner).expect("replaced");
        assert!(UnixStream::connect(&path).is_ok());
        drop(server);
        assert!(!path.exists());
    });
}

/// The forms on the wire are part of the protocol: tools of an older build depend on them.
#[test]
fn the_wire_forms_are_fixed() {
    let json =
        |r: Request| serde_json::to_string(&Query { version: VERSION, request: r }).expect("json");
    assert_eq!(json(Request::Ping), r#"{"version":1,"request":"ping"}"#);
    let activate = Request::Activate { mirror: "md1".to_owned(), nomount: true, peer_down: false };
    assert_eq!(
        json(activate),
        r#"{"version":1,"request":{"activate":{"mirror":"md1","nomount":true,"peer_down":false}}}"#
    );
    let refused = super::Refused::plain(crate::messages::MdCode::NotLatest, "m");
    assert_eq!(
        serde_json::to_string(&Response::Refused(refused)).expect("json"),
        r#"{"refused":{"code":81,"message":"m","next":""}}"#
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever lines come, each gets one reply, and the next query is answered.
    #[test]
    fn garbage_loses_nothing(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let r = running();
        let mut s = raw(&r);
        for line in lines {
            let mut line: Vec<u8> = line.into_iter().filter(|b| *b != b'\n').collect();
            line.push(b'\n');
            prop_assert!(matches!(exchange(&mut s, &line), Response::Error(_)));
        }
        let good = b"{\"version\":1,\"request\":\"list\"}\n";
        prop_assert!(matches!(exchange(&mut s, good), Response::List(_)));
    }
}
