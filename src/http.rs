//! A small HTTP server: metrics for monitoring, and what a CA wants to see (ACME, RFC 8555 §8.3).
//!
//! It answers what it is told to answer and nothing else. Whoever reaches its address may read it, so it listens on
//! none unless the configuration names one. RFC 9110, RFC 9112.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::acme::Challenges;
use crate::metrics;

/// Clients at the same time; others wait.
const CLIENTS_MAX: usize = 16;
/// A request's header must have come by then.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is not kept longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(2);
/// After an error of `accept` itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";

/// What a server has to show.
#[derive(Clone)]
pub struct Site {
    find: Arc<Find>,
    /// What is said about all other paths.
    elsewhere: &'static str,
}

/// What stands at a path.
type Find = dyn Fn(&str) -> Option<Page> + Send + Sync;

struct Page {
    kind: &'static str,
    text: String,
}

impl Site {
    /// `GET /metrics`, for Prometheus.
    pub fn metrics(make: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let find = move |path: &str| {
            (path == "/metrics").then(|| Page { kind: metrics::CONTENT_TYPE, text: make() })
        };
        Self { find: Arc::new(find), elsewhere: "the metrics are at /metrics\n" }
    }

    /// What a CA comes for.
    pub fn challenges(challenges: Challenges) -> Self {
        // RFC 8555 §8.3 leaves the type open.
        let find = move |path: &str| challenges.file(path).map(|text| Page { kind: PLAIN, text });
        Self { find: Arc::new(find), elsewhere: "there is nothing here\n" }
    }
}

/// Answers on a socket until told to stop.
pub async fn serve(socket: TcpListener, site: Site, stopping: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = async { (slots.clone().acquire_owned().await, socket.accept().await) } => accepted,
        };
        match accepted {
            (slot, Ok((stream, _))) => {
                let (site, stopping) = (site.clone(), stopping.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stopping.cancelled() => {}
                        () = connection(stream, site) => {}
                    }
                    drop(slot);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, site: Site) {
    let service = service_fn(move |request: hyper::Request<_>| {
        let response = answer(request.method(), request.uri().path(), &site);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let served = http.serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended early"),
    }
}

fn answer(method: &Method, path: &str, site: &Site) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (method, (site.find)(path)) {
        // Of the answer to HEAD, hyper sends the header alone.
        (&Method::GET | &Method::HEAD, Some(page)) => (StatusCode::OK, page.kind, page.text),
        (&Method::GET | &Method::HEAD, None) => (StatusCode::NOT_FOUND, PLAIN, site.elsewhere.to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        // RFC 9110 §15.5.6.
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(request: &str) -> String {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let stopping = CancellationToken::new();
        let page = Site::metrics(|| "waypost_up 1\n".to_owned());
        let server = tokio::spawn(serve(socket, page, stopping.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        stopping.cancel();
        server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_read_and_nothing_else_is() {
        for (request, status, words) in [
            ("GET /metrics", "200", "\r\n\r\nwaypost_up 1\n"),
            ("GET /metrics?name[]=x", "200", "content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            ("HEAD /metrics", "200", "content-length: 13\r\n"),
            ("GET /", "404", "/metrics"),
            ("GET /../../etc/passwd", "404", "/metrics"),
            ("POST /metrics", "405", "allow: GET, HEAD\r\n"),
        ] {
            let answer = ask(&format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
            assert!(answer.contains(words), "{request}: {answer}");
        }
        assert!(!ask("HEAD /metrics HTTP/1.0\r\n\r\n").await.contains("waypost_up"));
        assert!(ask("\x16\x03\x01 not HTTP\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    }
}
