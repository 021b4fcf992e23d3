//! What the CA is shown when it comes to see that a name is ours.
//!
//! It comes by itself, to port 80 (HTTP-01, RFC 8555 §8.3) or to port 443 (TLS-ALPN-01, RFC 8737), while an order is under
//! way. Until then, and afterwards, there is nothing to see.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::address::Domain;

/// RFC 8555 §8.3: where the file stands.
const HTTP_FOLDER: &str = "/.well-known/acme-challenge/";
/// RFC 8737 §6.2: the protocol that a validating CA asks for.
const ALPN: &[u8] = b"acme-tls/1";
/// Handshakes at the same time; others wait.
const CLIENTS_MAX: usize = 16;
/// A handshake must be over by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The challenges that are open. Cheap to clone: all share one set.
#[derive(Debug, Clone, Default)]
pub struct Challenges(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    /// What a file holds, by the token that is its name.
    files: HashMap<String, String>,
    /// By the name that the CA asks for.
    certificates: HashMap<String, Arc<CertifiedKey>>,
}

/// Keeps a challenge open until it is dropped.
#[derive(Debug)]
pub(super) struct Shown {
    challenges: Challenges,
    key: String,
}

impl Drop for Shown {
    fn drop(&mut self) {
        let mut open = self.challenges.0.lock();
        open.files.remove(&self.key);
        open.certificates.remove(&self.key);
    }
}

impl Challenges {
    /// What an HTTP server answers to GET for this path; `None` where there is nothing.
    pub fn file(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(HTTP_FOLDER)?;
        self.0.lock().files.get(token).cloned()
    }

    /// Shows a file (RFC 8555 §8.3).
    pub(super) fn show_file(&self, token: &str, key_authorization: &str) -> Shown {
        self.0.lock().files.insert(token.to_owned(), key_authorization.to_owned());
        Shown { challenges: self.clone(), key: token.to_owned() }
    }

    /// Shows a certificate (RFC 8737 §3) that holds the digest of the key authorization.
    pub(super) fn show_certificate(&self, name: &Domain, digest: &[u8]) -> Result<Shown, String> {
        let certified = challenge_certificate(name, digest)?;
        let key = name.as_str().to_ascii_lowercase();
        self.0.lock().certificates.insert(key.clone(), Arc::new(certified));
        Ok(Shown { challenges: self.clone(), key })
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn challenge_certificate(name: &Domain, digest: &[u8]) -> Result<CertifiedKey, String> {
    let wrong = |error: rcgen::Error| error.to_string();
    let mut params = rcgen::CertificateParams::new(vec![name.as_str().to_owned()]).map_err(wrong)?;
    params.custom_extensions.push(rcgen::CustomExtension::new_acme_identifier(digest));
    let key = rcgen::KeyPair::generate().map_err(wrong)?;
    let certificate = params.self_signed(&key).map_err(wrong)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = provider().key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    // Not `from_der`: it would refuse the critical extension that this is all about.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asks = hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ALPN));
        let name = hello.server_name().filter(|_| asks)?;
        self.0.lock().certificates.get(&name.to_ascii_lowercase()).cloned()
    }
}

/// Answers TLS-ALPN-01 on a socket until told to stop. Whoever asks for anything else is refused.
pub async fn serve_tls_alpn(socket: TcpListener, challenges: Challenges, stopping: CancellationToken) {
    let config = match server_config(challenges) {
        Ok(config) => TlsAcceptor::from(Arc::new(config)),
        Err(error) => {
            tracing::error!(%error, "no TLS for the CA");
            return;
        }
    };
    let slots = Arc::new(Semaphore::new(CLIENTS_MAX));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let (tcp, peer) = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = crate::net::accept(&socket) => accepted,
        };
        let config = config.clone();
        tokio::spawn(async move {
            if let Err(error) = handshake(tcp, &config).await {
                tracing::debug!(%peer, %error, "no challenge for this client");
            }
            drop(slot);
        });
    }
}

fn server_config(challenges: Challenges) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(challenges));
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// RFC 8737 §3: once the certificate was seen there is nothing more to say.
async fn handshake(tcp: TcpStream, config: &TlsAcceptor) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let shaking = async { config.accept(tcp).await?.shutdown().await };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_as_long_as_it_is_shown() {
        let challenges = Challenges::default();
        let path = "/.well-known/acme-challenge/abc";
        assert_eq!(challenges.file(path), None);
        let shown = challenges.show_file("abc", "abc.thumb");
        assert_eq!(challenges.file(path).as_deref(), Some("abc.thumb"));
        for other in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/abd", "/abc", "abc", ""] {
            assert_eq!(challenges.file(other), None, "{other}");
        }
        drop(shown);
        assert_eq!(challenges.file(path), None);
    }

    #[test]
    fn a_certificate_is_there_as_long_as_it_is_shown_and_holds_the_digest() {
        let challenges = Challenges::default();
        let name = Domain::parse("mx.example.org").unwrap();
        let shown = challenges.show_certificate(&name, &[7; 32]).unwrap();
        let certificate = challenges.0.lock().certificates["mx.example.org"].cert[0].clone();
        // RFC 8737 §3: an octet string of 32 octets, in an extension that is critical.
        assert!(certificate.windows(34).any(|part| part[..2] == [4, 32] && part[2..] == [7; 32]));
        drop(shown);
        assert!(challenges.0.lock().certificates.is_empty());
    }
}
