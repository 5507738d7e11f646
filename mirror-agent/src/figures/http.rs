//! A page over HTTP for those who collect figures: `GET /metrics`, and nothing else.
//!
//! Whoever connects is a stranger: a request has at most [`HEAD_MAX`] bytes and [`TIME_LIMIT`],
//! [`CONNECTIONS`] are served at a time, each answers one request, and nothing can be changed.

use super::openmetrics::CONTENT_TYPE;
use crate::ctl::Answer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Bytes of a request.
pub const HEAD_MAX: usize = 4096;
/// For a request to come, for its page to be made, and for the answer to be taken.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Connections served at a time; more wait.
pub const CONNECTIONS: usize = 8;

/// Makes the page anew for each request.
pub type Source = Arc<dyn Fn() -> Answer<String> + Send + Sync>;

/// A listening server.
#[derive(Debug)]
pub struct Http(TcpListener);

impl Http {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(TcpListener::bind(address).await?))
    }

    /// Serves until it is dropped.
    pub async fn run(self, source: Source) {
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
            match self.0.accept().await {
                Ok((stream, _)) => {
                    let source = Arc::clone(&source);
                    tokio::spawn(async move {
                        // Whoever asked may go away at any time.
                        let _ = serve(stream, source).await;
                        drop(permit);
                    });
                }
                Err(e) => {
                    tracing::warn!("figures over HTTP: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn serve(mut stream: TcpStream, source: Source) -> io::Result<()> {
    let head = match timeout(TIME_LIMIT, head(&mut stream)).await {
        Ok(head) => head?,
        Err(_) => Err("408 Request Timeout"),
    };
    let made = match head.and_then(|h| asked(&h)) {
        Ok(method) => match timeout(TIME_LIMIT, source()).await {
            Ok(body) => Ok((method, body)),
            Err(_) => Err("503 Service Unavailable"),
        },
        Err(status) => Err(status),
    };
    let answer = match made {
        Ok((method, body)) => {
            let sent = if method == Method::Get { body.as_str() } else { "" };
            response("200 OK", CONTENT_TYPE, body.len()) + sent
        }
        Err(status) => {
            let body = match status {
                "503 Service Unavailable" => format!("{status}: the page was not made in time\n"),
                _ => format!("{status}: GET /metrics\n"),
            };
            response(status, "text/plain; charset=utf-8", body.len()) + &body
        }
    };
    timeout(TIME_LIMIT, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would take the answer away from who sent them.
        let mut rest = [0; 1024];
        for _ in 0..64 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        Ok(())
    })
    .await?
}

/// Reads up to the empty line; what is wrong is the status to answer with.
async fn head(stream: &mut TcpStream) -> io::Result<Result<Vec<u8>, &'static str>> {
    let mut head = Vec::with_capacity(512);
    let mut part = [0; 512];
    loop {
        let room = part.len().min(HEAD_MAX - head.len());
        if room == 0 {
            return Ok(Err("431 Request Header Fields Too Large"));
        }
        let count = stream.read(&mut part[..room]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&part[..count]);
        if head.windows(4).any(|w| w == b"\r\n\r\n") || head.windows(2).any(|w| w == b"\n\n") {
            return Ok(Ok(head));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    Get,
    Head,
}

/// What the first line asks for; what is wrong is the status to answer with.
fn asked(head: &[u8]) -> Result<Method, &'static str> {
    let bad = "400 Bad Request";
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| bad)?.trim_end_matches('\r');
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad);
    };
    if !version.starts_with("HTTP/1.") {
        return Err(bad);
    }
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        ("GET", "/metrics") => Ok(Method::Get),
        ("HEAD", "/metrics") => Ok(Method::Head),
        ("GET" | "HEAD", _) => Err("404 Not Found"),
        _ => Err("405 Method Not Allowed"),
    }
}

fn response(status: &str, content_type: &str, length: usize) -> String {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\n{allow}Connection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{CONNECTIONS, HEAD_MAX, Http, Method, Source, asked};
    use std::net::SocketAddr;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::AbortHandle;

    async fn server() -> (SocketAddr, AbortHandle) {
        server_of(Arc::new(|| Box::pin(async { "# EOF\n".to_owned() }))).await
    }

    async fn server_of(page: Source) -> (SocketAddr, AbortHandle) {
        let http = Http::bind(([127, 0, 0, 1], 0).into()).await.expect("listens");
        let address = http.0.local_addr().expect("an address");
        (address, tokio::spawn(http.run(page)).abort_handle())
    }

    async fn said(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn only_the_page_is_served() {
        let (at, server) = server().await;
        let page = said(at, b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains("application/openmetrics-text; version=1.0.0"), "{page}");
        assert!(
            page.ends_with(
                "Content-Length: 6\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n# EOF\n"
            ),
            "{page}"
        );
        let head = said(at, b"HEAD /metrics HTTP/1.0\r\n\r\n").await;
        assert!(head.contains("Content-Length: 6") && head.ends_with("\r\n\r\n"), "{head}");
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"GET /metrics\r\n\r\n", "400"),
            (b"\xff\xfe\r\n\r\n", "400"),
        ] {
            let answer = said(at, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
        server.abort();
    }

    /// Too much is refused, and whoever says nothing keeps nobody else from asking.
    #[tokio::test]
    async fn strangers_are_bounded() {
        let (at, server) = server().await;
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(HEAD_MAX * 2));
        assert!(said(at, long.as_bytes()).await.starts_with("HTTP/1.1 431 "));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS + 3 {
            silent.push(TcpStream::connect(at).await.expect("connects"));
        }
        let page = said(at, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(page.ends_with("# EOF\n"), "{page}");
        let mut answer = String::new();
        silent[0].read_to_string(&mut answer).await.expect("answered");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        server.abort();
    }

    /// Who asks again and again must not fill all places for ever.
    #[tokio::test]
    async fn a_page_that_is_not_made_in_time_is_given_up() {
        let (at, server) = server_of(Arc::new(|| Box::pin(std::future::pending()))).await;
        let page = said(at, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 503 "), "{page}");
        assert!(page.ends_with("not made in time\n"), "{page}");
        server.abort();
    }

    #[test]
    fn the_first_line_decides() {
        assert_eq!(asked(b"GET /metrics HTTP/1.1\nHost: x\n\n"), Ok(Method::Get));
        assert!(asked(b"GET  /metrics HTTP/1.1\n\n").is_err());
        assert!(asked(b"GET /metrics HTTP/2\n\n").is_err());
        assert!(asked(b"").is_err());
    }
}
