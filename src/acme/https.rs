//! HTTPS to the CA, over our own resolver and our own TLS: what the configuration says about names and trust holds here
//! as well. A connection for each request; a certificate takes a dozen. RFC 9112.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};

use crate::address::Domain;
use crate::dns::Resolver;
use crate::net::{Stream, dial};
use crate::tls::{ClientTls, PeerName, Verify};

/// Largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request with its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum HttpsError {
    #[error("{0} is no https:// URL")]
    Url(Uri),
    #[error("cannot find {0}: {1}")]
    Resolve(String, String),
    #[error("cannot reach {0}: {1}")]
    Connect(String, String),
    #[error("{0}: {1}")]
    Tls(String, String),
    #[error("{0}: no answer in time")]
    TimedOut(String),
    #[error("{0}: {1}")]
    Http(String, String),
}

/// A client of the CA.
#[derive(Clone)]
pub(super) struct Https {
    pub(super) tls: ClientTls,
    pub(super) resolver: Resolver,
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let this = self.clone();
        Box::pin(async move {
            let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            let answer = match tokio::time::timeout(REQUEST_TIMEOUT, this.send(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(HttpsError::TimedOut(host)),
            };
            answer.map(BytesResponse::from).map_err(|error| instant_acme::Error::Other(Box::new(error)))
        })
    }
}

impl Https {
    async fn send(
        &self,
        mut request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Full<Bytes>>, HttpsError> {
        let uri = request.uri().clone();
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(HttpsError::Url(uri));
        };
        let shown = authority.to_string();
        let stream = self.connect(authority.host(), authority.port_u16().unwrap_or(443), &shown).await?;
        let http = |error: &dyn std::error::Error| HttpsError::Http(shown.clone(), whole(error));
        // RFC 9112 §3.2.1: to the server itself goes the path alone.
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| HttpsError::Url(uri.clone()))?;
        let host = HeaderValue::from_str(&shown).map_err(|error| http(&error))?;
        request.headers_mut().insert(HOST, host);
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| http(&error))?;
        let asking = async {
            let response = sender.send_request(request).await.map_err(|error| http(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| http(error.as_ref()))?;
            Ok(Response::from_parts(head, Full::new(body.to_bytes())))
        };
        // The connection does its work while it is polled. It may end before the answer was taken from it.
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => answer,
            ended = connection => match ended {
                Ok(()) => asking.await,
                Err(error) => Err(http(&error)),
            },
        }
    }

    async fn connect(&self, host: &str, port: u16, shown: &str) -> Result<Stream, HttpsError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = |error: &dyn ToString| HttpsError::Resolve(shown.to_owned(), error.to_string());
        let (name, addresses) = match bare.parse::<IpAddr>() {
            Ok(ip) => (None, vec![ip]),
            Err(_) => {
                let name = Domain::parse(bare).map_err(|error| found(&error))?;
                let addresses = self.resolver.addresses(&name).await.map_err(|error| found(&error))?;
                (Some(name), addresses)
            }
        };
        let mut last = HttpsError::Resolve(shown.to_owned(), "it has no address".to_owned());
        for ip in addresses {
            match dial(SocketAddr::new(ip, port), None, CONNECT_TIMEOUT).await {
                Ok(tcp) => {
                    let name = name.as_ref().map_or(PeerName::Ip(ip), PeerName::Host);
                    let connected = self.tls.connect(tcp, name, Verify::Peer).await;
                    return connected.map_err(|error| HttpsError::Tls(shown.to_owned(), error.to_string()));
                }
                Err(error) => last = HttpsError::Connect(shown.to_owned(), error.to_string()),
            }
        }
        Err(last)
    }
}

/// An error with what caused it: the outer one alone often says little.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
