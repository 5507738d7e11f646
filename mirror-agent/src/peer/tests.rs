//! The link, end to end on loopback addresses.

use super::frame::Protection;
use super::frame::{Channel, FRAME_MAX};
use super::hello::exchange;
use super::{Identity, PeerAnswer, PeerError, PeerLink, PeerRequest, PeerServer, PeerService};
use crate::ctl::Answer;
use crate::secret::Secret;
use mirror_core::units::{SessionNo, Side};
use mirror_core::wire::Security;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const A: [u8; 16] = *b"0123456789abcdef";

fn secret() -> Secret {
    Secret::from_bytes(&A)
}

#[derive(Default)]
struct Fake {
    calls: AtomicUsize,
    hang: bool,
}

impl PeerService for Fake {
    fn call(&self, request: PeerRequest) -> Answer<PeerAnswer> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let hang = self.hang;
        Box::pin(async move {
            if hang {
                std::future::pending::<()>().await;
            }
            match request {
                PeerRequest::TellBehind { session, .. } => PeerAnswer::Behind { session },
                PeerRequest::IsActive { .. } => PeerAnswer::Active(true),
                _ => PeerAnswer::Pong("server2".to_owned()),
            }
        })
    }
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().expect("address")
}

const BOTH: [Security; 2] = [Security::Authenticated, Security::Encrypted];

fn identity(side: Side, security: Security) -> Identity {
    Identity { side, secret: secret(), security }
}

/// A server for the second side; returns its address.
fn serve(fake: Arc<Fake>, secret: Secret) -> SocketAddr {
    serve_as(fake, Identity { secret, ..identity(Side::Second, Security::Encrypted) })
}

fn serve_as(fake: Arc<Fake>, identity: Identity) -> SocketAddr {
    let server = PeerServer::bind(&[any()]).expect("bind");
    let address = server.addresses()[0];
    tokio::spawn(server.run(identity, fake));
    address
}

fn link(to: &[SocketAddr]) -> PeerLink {
    link_as(identity(Side::First, Security::Encrypted), to)
}

fn link_as(identity: Identity, to: &[SocketAddr]) -> PeerLink {
    PeerLink::new(identity, to.iter().map(|a| (any(), *a)).collect())
}

fn force() -> PeerRequest {
    PeerRequest::Force { mirror: "md1".to_owned() }
}

#[tokio::test]
async fn questions_are_answered() {
    let fake = Arc::new(Fake::default());
    let link = link(&[serve(fake.clone(), secret())]);
    assert_eq!(
        link.ask(&PeerRequest::Ping).await.expect("answer"),
        PeerAnswer::Pong("server2".to_owned())
    );
    let behind = PeerRequest::TellBehind { mirror: "md1".to_owned(), session: SessionNo(7) };
    assert_eq!(
        link.ask(&behind).await.expect("answer"),
        PeerAnswer::Behind { session: SessionNo(7) }
    );
    assert_eq!(fake.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn another_secret_is_refused_on_both_sides_and_reaches_no_service() {
    let fake = Arc::new(Fake::default());
    let address = serve(fake.clone(), Secret::from_bytes(b"another secret.."));
    let answer = link(&[address]).ask(&PeerRequest::Ping).await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(fake.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_server_does_not_talk_to_itself() {
    let address = serve(Arc::new(Fake::default()), secret());
    let own = link_as(identity(Side::Second, Security::Encrypted), &[address]);
    assert!(matches!(own.ask(&PeerRequest::Ping).await, Err(PeerError::Unreachable(_))));
}

#[tokio::test]
async fn the_next_address_is_tried_and_remembered() {
    let fake = Arc::new(Fake::default());
    let dead = {
        let l = TcpListener::bind(any()).await.expect("bind");
        l.local_addr().expect("address")
    };
    let silent = TcpListener::bind(any()).await.expect("bind");
    let addresses = [dead, silent.local_addr().expect("address"), serve(fake, secret())];
    let link = link(&addresses).with_limit(Duration::from_secs(4));
    assert!(link.ask(&PeerRequest::Ping).await.is_ok());
    let again = Instant::now();
    assert!(link.ask(&PeerRequest::Ping).await.is_ok());
    assert!(again.elapsed() < Duration::from_millis(1500), "the good pair comes first");
}

#[tokio::test]
async fn time_is_limited_and_effects_are_told_apart() {
    let hang = Arc::new(Fake { hang: true, ..Fake::default() });
    let addresses = [serve(hang.clone(), secret()), serve(hang.clone(), secret())];
    let limit = Duration::from_millis(400);
    let link = link(&addresses).with_limit(limit);
    let began = Instant::now();
    assert!(matches!(link.ask(&force()).await, Err(PeerError::NoAnswer(_))));
    assert_eq!(hang.calls.load(Ordering::SeqCst), 1, "a command is never sent twice");
    assert!(matches!(link.ask(&PeerRequest::Ping).await, Err(PeerError::NoAnswer(_))));
    assert_eq!(hang.calls.load(Ordering::SeqCst), 3, "a question may be");
    assert!(began.elapsed() < limit * 20);

    let silent = TcpListener::bind(any()).await.expect("bind");
    let mute = self::link(&[silent.local_addr().expect("address")]).with_limit(limit);
    assert!(matches!(mute.ask(&force()).await, Err(PeerError::Unreachable(_))));
}

#[tokio::test]
async fn another_setting_is_refused_and_named() {
    for (here, there) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let fake = Arc::new(Fake::default());
        let address = serve_as(fake.clone(), identity(Side::Second, there));
        let asked = link_as(identity(Side::First, here), &[address]).ask(&PeerRequest::Ping).await;
        let Err(PeerError::Unreachable(why)) = asked else { panic!("{asked:?}") };
        assert!(why.contains(&format!("security = \"{}\" here", here.word())), "{why}");
        assert_eq!(fake.calls.load(Ordering::SeqCst), 0);
    }
}

/// What passes between two agents that talk, in both directions.
async fn tapped(security: Security) -> Vec<u8> {
    let address = serve_as(Arc::new(Fake::default()), identity(Side::Second, security));
    let tap = TcpListener::bind(any()).await.expect("bind");
    let link = link_as(identity(Side::First, security), &[tap.local_addr().expect("address")]);
    let recorder = tokio::spawn(record(tap, address));
    assert!(link.ask(&PeerRequest::Report { mirror: "md1".to_owned() }).await.is_ok());
    let (there, back) = recorder.await.expect("recorded");
    [there, back].concat()
}

#[tokio::test]
async fn nobody_reads_along_unless_that_is_the_setting() {
    for security in BOTH {
        let passed = tapped(security).await;
        for word in ["report", "md1", "server2"] {
            let found = passed.windows(word.len()).any(|w| w == word.as_bytes());
            assert_eq!(found, security == Security::Authenticated, "{word} {security:?}");
        }
    }
}

/// Passes one connection on and keeps what each side sent.
async fn record(tap: TcpListener, address: SocketAddr) -> (Vec<u8>, Vec<u8>) {
    let (mut from, _) = tap.accept().await.expect("accept");
    let mut to = TcpStream::connect(address).await.expect("connect");
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let (mut a, mut b) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            n = from.read(&mut a) => match n {
                Ok(n) if n > 0 => { there.extend(&a[..n]); to.write_all(&a[..n]).await.expect("pass"); }
                _ => return (there, back),
            },
            n = to.read(&mut b) => match n {
                Ok(n) if n > 0 => { back.extend(&b[..n]); from.write_all(&b[..n]).await.expect("pass"); }
                _ => return (there, back),
            },
        }
    }
}

/// A recorded conversation, sent again byte for byte, is refused: the acceptor's nonce is fresh.
#[tokio::test]
async fn a_replay_reaches_no_service() {
    for security in BOTH {
        replay(security).await;
    }
}

async fn replay(security: Security) {
    let fake = Arc::new(Fake::default());
    let address = serve_as(fake.clone(), identity(Side::Second, security));
    let tap = TcpListener::bind(any()).await.expect("bind");
    let tapped = tap.local_addr().expect("address");
    let recorder = tokio::spawn(record(tap, address));
    let asked = link_as(identity(Side::First, security), &[tapped]).ask(&PeerRequest::Ping).await;
    assert!(asked.is_ok());
    let (recorded, _) = recorder.await.expect("recorded");
    assert!(recorded.len() > 48 + 16, "hello and a frame");
    let mut s = TcpStream::connect(address).await.expect("connect");
    s.write_all(&recorded).await.expect("replay");
    let mut rest = Vec::new();
    let _ = s.read_to_end(&mut rest).await;
    assert_eq!(rest.len(), 48, "its hello and nothing more");
    assert_eq!(fake.calls.load(Ordering::SeqCst), 1, "only the first time");
}

/// Two ends over a pipe, past the hellos: a channel, and the raw other end with its protection.
async fn pair(
    security: Security,
) -> (Channel<tokio::io::DuplexStream>, tokio::io::DuplexStream, Protection) {
    let (mut a, mut b) = tokio::io::duplex(256 * 1024);
    let (first, second) = (identity(Side::First, security), identity(Side::Second, security));
    let (ka, kb) = tokio::join!(exchange(&mut a, &first, true), exchange(&mut b, &second, false));
    (Channel::new(a, ka.expect("keys")), b, kb.expect("keys").send)
}

/// The next frame of a direction, as the protocol has it.
fn good(protection: &mut Protection, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short");
    [&len.to_le_bytes()[..], &protection.seal(payload).expect("sealed")].concat()
}

#[tokio::test]
async fn changed_repeated_reflected_and_long_frames_are_refused() {
    for (security, tag_len) in [(Security::Authenticated, 32), (Security::Encrypted, 16)] {
        bad_frames(security, tag_len).await;
    }
}

async fn bad_frames(security: Security, tag_len: usize) {
    let (mut a, mut raw, _) = pair(security).await;
    a.send(&"question").await.expect("send");
    let mut frame = vec![0; 4 + 10 + tag_len];
    raw.read_exact(&mut frame).await.expect("frame");
    raw.write_all(&frame).await.expect("reflect");
    assert!(a.receive::<String>().await.is_err(), "sent back to its author");

    for flip in 4..4 + 3 + tag_len {
        let (mut a, mut raw, mut key) = pair(security).await;
        let mut bytes = good(&mut key, b"\"x\"");
        bytes[flip] ^= 1;
        raw.write_all(&bytes).await.expect("write");
        assert!(a.receive::<String>().await.is_err(), "byte {flip}");
    }
    let (mut a, mut raw, mut key) = pair(security).await;
    let first = good(&mut key, b"\"x\"");
    raw.write_all(&first).await.expect("write");
    assert_eq!(a.receive::<String>().await.expect("good"), "x");
    raw.write_all(&good(&mut key, b"\"y\"")).await.expect("write");
    assert_eq!(a.receive::<String>().await.expect("good"), "y");
    raw.write_all(&first).await.expect("write");
    assert!(a.receive::<String>().await.is_err(), "a frame again");

    let (mut a, mut raw, mut key) = pair(security).await;
    let bytes = good(&mut key, b"\"x\"");
    raw.write_all(&bytes[..bytes.len() - 1]).await.expect("write");
    drop(raw);
    assert!(a.receive::<String>().await.is_err(), "cut off");

    let (mut a, mut raw, _) = pair(security).await;
    raw.write_all(&u32::MAX.to_le_bytes()).await.expect("write");
    let long = a.receive::<String>().await.expect_err("refused without waiting for the bytes");
    assert!(long.to_string().contains("too long"));
    assert!(a.send(&"x".repeat(FRAME_MAX)).await.is_err());
}

#[tokio::test]
async fn strangers_do_not_stop_the_service() {
    let fake = Arc::new(Fake::default());
    let address = serve(fake, secret());
    let mut strangers = Vec::new();
    for _ in 0..8 {
        let mut s = TcpStream::connect(address).await.expect("connect");
        s.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("write");
        strangers.push(s);
    }
    assert!(link(&[address]).ask(&PeerRequest::Ping).await.is_ok());
}

#[tokio::test]
async fn an_address_of_another_host_is_told_unless_one_works() {
    let foreign: SocketAddr = "192.0.2.1:0".parse().expect("address");
    assert!(PeerServer::bind(&[foreign]).is_err());
    assert_eq!(PeerServer::bind(&[foreign, any()]).expect("one works").addresses().len(), 1);
}
