//! The client's side of TLS: to whom we speak, and whether we can be sure.
//!
//! Mail between servers is mostly encrypted without knowing the peer (RFC 3207, RFC 7435): any certificate will do,
//! for the choice is between that and clear text. Where the operator requires TLS, the certificate must be valid for
//! the peer's name and lead to one of the system's roots (RFC 5280, RFC 9525).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use crate::address::Domain;
use crate::net::Stream;

/// Whether the peer must show who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Its certificate must be valid for its name and lead to a trusted root.
    Peer,
    /// Any certificate will do.
    Nothing,
}

/// The name that the peer's certificate must hold.
#[derive(Debug, Clone, Copy)]
pub enum PeerName<'a> {
    /// A host name, also sent as SNI (RFC 6066 §3).
    Host(&'a Domain),
    /// An address.
    Ip(IpAddr),
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// The peer's certificate is not trusted, has expired, or is another host's.
    #[error("the peer's certificate is not valid: {0}")]
    Certificate(String),
    /// The peer does not speak TLS, or not as we do.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// No root certificates on this machine.
    #[error("cannot verify anybody: {0}")]
    NoRoots(String),
    /// The TLS library refuses to work.
    #[error("cannot set up TLS: {0}")]
    Library(rustls::Error),
}

/// Turns connections into TLS. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls(Arc<Inner>);

struct Inner {
    /// `None`: those of the system, read when first needed.
    roots: Option<Vec<CertificateDer<'static>>>,
    verified: OnceCell<Arc<ClientConfig>>,
    unverified: OnceCell<Arc<ClientConfig>>,
}

impl ClientTls {
    /// Trusts the system's roots.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// Trusts these roots and no others.
    pub fn with_roots(roots: Vec<CertificateDer<'static>>) -> Self {
        Self::with(Some(roots))
    }

    fn with(roots: Option<Vec<CertificateDer<'static>>>) -> Self {
        Self(Arc::new(Inner { roots, verified: OnceCell::new(), unverified: OnceCell::new() }))
    }

    /// Makes the handshake. It takes as long as the peer pleases: the caller limits it.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        name: PeerName<'_>,
        verify: Verify,
    ) -> Result<Stream, ClientTlsError> {
        let config = match verify {
            Verify::Peer => self.0.verified.get_or_try_init(|| self.make_verified()).await?,
            Verify::Nothing => self.0.unverified.get_or_try_init(async || make_unverified()).await?,
        };
        let name = match name {
            PeerName::Host(host) => match host.ip() {
                Some(ip) => ServerName::from(ip),
                None => ServerName::try_from(host.as_str().to_owned())
                    .map_err(|e| ClientTlsError::Certificate(e.to_string()))?,
            },
            PeerName::Ip(ip) => ServerName::from(ip),
        };
        let stream = TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(by_whose_fault)?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    async fn make_verified(&self) -> Result<Arc<ClientConfig>, ClientTlsError> {
        let roots = match &self.0.roots {
            Some(given) => root_store(given.clone(), "none were given")?,
            None => tokio::task::spawn_blocking(system_roots)
                .await
                .map_err(|e| ClientTlsError::NoRoots(e.to_string()))??,
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(ClientTlsError::Library)?;
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

impl Default for ClientTls {
    fn default() -> Self {
        Self::new()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn system_roots() -> Result<RootCertStore, ClientTlsError> {
    let found = rustls_native_certs::load_native_certs();
    let why = found.errors.first().map_or_else(|| "the system has none".to_owned(), ToString::to_string);
    root_store(found.certs, &why)
}

fn root_store(
    certificates: Vec<CertificateDer<'static>>,
    why_none: &str,
) -> Result<RootCertStore, ClientTlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(ClientTlsError::NoRoots(format!("no root certificates: {why_none}")));
    }
    Ok(roots)
}

fn make_unverified() -> Result<Arc<ClientConfig>, ClientTlsError> {
    let provider = provider();
    let anyone = Arc::new(Anyone { schemes: provider.signature_verification_algorithms.supported_schemes() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ClientTlsError::Library)?;
    Ok(Arc::new(config.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth()))
}

fn by_whose_fault(error: io::Error) -> ClientTlsError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => ClientTlsError::Certificate(why.to_string()),
        Some(other) => ClientTlsError::Handshake(other.to_string()),
        None => ClientTlsError::Handshake(error.to_string()),
    }
}

/// Takes any certificate. The signature over the handshake is not looked at either: whoever could put himself in
/// between would show a certificate of his own, and a peer whose key we cannot check gets better than clear text.
#[derive(Debug)]
struct Anyone {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
