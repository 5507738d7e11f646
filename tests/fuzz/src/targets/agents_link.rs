//! The link between the agents, both ends: strangers, and one that has the secret and lies.

use crate::input::Input;
use mirror_agent::ctl::Answer;
use mirror_agent::peer::{
    Identity, PeerAnswer, PeerRequest, PeerService, ask_stream, serve_stream,
};
use mirror_agent::secret::Secret;
use mirror_core::units::Side;
use mirror_core::wire::Security;
use mirror_core::wire::cipher::{Cipher, Ephemeral};
use std::cell::RefCell;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};

const SECRET: &[u8] = b"0123456789abcdef";
const HELLO_LEN: usize = 48;
/// As the protocol has it.
const PURPOSE: &str = "clpmdagent link between agents, version 2";

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        Builder::new_current_thread().enable_time().build().expect("a runtime")
    );
}

struct Fake;

impl PeerService for Fake {
    fn call(&self, request: PeerRequest) -> Answer<PeerAnswer> {
        let text = serde_json::to_vec(&request).expect("it can be said");
        assert_eq!(serde_json::from_slice::<PeerRequest>(&text).expect("and read"), request);
        Box::pin(async { PeerAnswer::Pong("server2".to_owned()) })
    }
}

pub(crate) fn run(bytes: &[u8]) {
    RUNTIME.with_borrow(|runtime| runtime.block_on(both(bytes)));
}

async fn both(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.u8();
    let (ours, theirs) = duplex(256 * 1024);
    let security = security(how);
    let honest = Identity { side: Side::Second, secret: Secret::from_bytes(SECRET), security };
    let liar = liar(theirs, how, input);
    if how & 1 == 0 {
        let service: Arc<dyn PeerService> = Arc::new(Fake);
        let (result, heard) = tokio::join!(serve_stream(ours, &honest, &service), liar);
        // Nothing but its hello for whoever does not have the secret.
        assert!(result.is_ok() || heard <= HELLO_LEN, "{heard} bytes for a stranger");
    } else {
        let (answer, _) = tokio::join!(ask_stream(ours, &honest, &PeerRequest::Ping), liar);
        if let Ok(answer) = answer {
            let text = serde_json::to_vec(&answer).expect("it can be said");
            assert_eq!(serde_json::from_slice::<PeerAnswer>(&text).expect("and read"), answer);
        }
    }
}

const fn security(how: u8) -> Security {
    match how & 32 {
        0 => Security::Authenticated,
        _ => Security::Encrypted,
    }
}

/// The other end; how many bytes it heard.
async fn liar(mut stream: DuplexStream, how: u8, mut input: Input<'_>) -> usize {
    let mut hello = [0x33; HELLO_LEN];
    hello[..8].copy_from_slice(b"CLPMDAG1");
    let encrypted = security(how) == Security::Encrypted;
    hello[8..16].copy_from_slice(&[2, 0, 1, 1 + u8::from(encrypted), 0, 0, 0, 0]);
    let ephemeral = Ephemeral::new([0x33; 32]);
    if encrypted {
        hello[16..].copy_from_slice(&ephemeral.public());
    }
    if how & 2 != 0 {
        let at = input.below(HELLO_LEN);
        hello[at] ^= input.u8();
    }
    if how & 4 != 0 {
        let _ = stream.write_all(input.rest()).await;
        return finish(stream).await;
    }
    let _ = stream.write_all(&hello).await;
    let mut theirs = [0; HELLO_LEN];
    if stream.read_exact(&mut theirs).await.is_err() {
        return 0;
    }
    let serves = how & 1 == 0;
    let (dialler, acceptor) = if serves { (&hello, &theirs) } else { (&theirs, &hello) };
    let direction: &[u8] = if serves { b"dialler -> acceptor" } else { b"acceptor -> dialler" };
    let master = Secret::from_bytes(SECRET).key(PURPOSE);
    let mut hasher = blake3::Hasher::new_keyed(&master);
    hasher.update(direction).update(dialler).update(acceptor);
    let public = theirs[16..].try_into().expect("32 bytes");
    let common = if encrypted { ephemeral.agree(&public) } else { None };
    hasher.update(common.as_ref().map_or(&[], |common| &common[..]));
    let key = *hasher.finalize().as_bytes();
    let _ = stream.write_all(&frame(&key, how, input.rest())).await;
    HELLO_LEN + finish(stream).await
}

async fn finish(mut stream: DuplexStream) -> usize {
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    rest.len()
}

fn frame(key: &[u8; 32], how: u8, payload: &[u8]) -> Vec<u8> {
    let announced =
        if how & 8 == 0 { payload.len() } else { payload.len() ^ usize::from(how) << 8 };
    let len = u32::try_from(announced).expect("short").to_le_bytes();
    if security(how) == Security::Encrypted {
        let mut sealed = Cipher::new(*key).seal_payload(payload).to_vec();
        sealed[0] ^= how >> 4 & 1;
        return [&len[..], &sealed].concat();
    }
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&0_u64.to_le_bytes()).update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    let mut tag = *hasher.finalize().as_bytes();
    tag[0] ^= how >> 4 & 1;
    [&len[..], payload, &tag].concat()
}
