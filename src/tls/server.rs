//! The server's side of TLS: which certificate we show, and how it changes while we run.
//!
//! All listeners share one [`ServerTls`]. Its `rustls` configuration is made once; the certificate is asked for
//! at every handshake, so that [`ServerTls::reload`] takes effect for the next connection and disturbs none
//! that is there. Files are PEM (RFC 7468): a certificate chain, leaf first (RFC 8446 §4.4.2), and a private key
//! in PKCS#8, PKCS#1 or SEC1. TLS 1.3 and 1.2 are spoken (RFC 8996 forbids what is older).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::address::Domain;
use crate::config::TlsFiles;

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file does not hold what it should.
    #[error("{}: {reason}", file.display())]
    Content {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key are fine, each for itself, but the key is not the certificate's.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// No certificate could be made.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(String),
    /// The TLS library refuses to work.
    #[error("cannot set up TLS: {0}")]
    Library(rustls::Error),
}

/// What a server needs for TLS; cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
}

impl ServerTls {
    /// Takes certificate and key from files. It blocks; the files are small.
    pub fn load(files: &TlsFiles) -> Result<Self, ServerTlsError> {
        Self::new(read_files(files)?)
    }

    /// Makes a certificate for these names that nobody else vouches for; it lives as long as the process.
    pub fn self_signed(names: &[Domain]) -> Result<Self, ServerTlsError> {
        let wrong = |error: rcgen::Error| ServerTlsError::SelfSigned(error.to_string());
        let plain = |name: &Domain| name.ip().map_or_else(|| name.to_string(), |ip| ip.to_string());
        let mut params =
            rcgen::CertificateParams::new(names.iter().map(plain).collect::<Vec<_>>()).map_err(wrong)?;
        let title = names.first().map_or_else(|| "waypost".to_owned(), plain);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, title);
        let key = rcgen::KeyPair::generate().map_err(wrong)?;
        let certificate = params.self_signed(&key).map_err(wrong)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certified = CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider());
        Self::new(certified.map_err(|error| ServerTlsError::SelfSigned(error.to_string()))?)
    }

    fn new(certified: CertifiedKey) -> Result<Self, ServerTlsError> {
        let certificate = Arc::new(Certificate(ArcSwap::from_pointee(certified)));
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(ServerTlsError::Library)?
            .with_no_client_auth()
            .with_cert_resolver(certificate.clone());
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// Reads the files again; new connections get what they hold. On an error the old certificate stays.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), ServerTlsError> {
        self.certificate.0.store(Arc::new(read_files(files)?));
        Ok(())
    }

    /// What `tokio_rustls::TlsAcceptor` takes.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The chain that the next connection is shown, leaf first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.certificate.0.load().cert.clone()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// The certificate of the moment.
#[derive(Debug)]
struct Certificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Certificate {
    /// There is one certificate, whatever name is asked for (RFC 6066 §3 lets us answer with it).
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Named here and not installed for the process: there are no statics for state.
fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn read_files(files: &TlsFiles) -> Result<CertifiedKey, ServerTlsError> {
    let chain = read_chain(&files.certificate)?;
    let key = read_key(&files.key)?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            ServerTlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
        }
        rustls::Error::InvalidCertificate(_) => ServerTlsError::Content {
            file: files.certificate.clone(),
            reason: format!("unusable certificate: {error}"),
        },
        other => ServerTlsError::Content {
            file: files.key.clone(),
            reason: format!("unusable private key: {other}"),
        },
    })
}

fn read(file: &Path) -> Result<Vec<u8>, ServerTlsError> {
    std::fs::read(file).map_err(|source| ServerTlsError::Read { file: file.to_owned(), source })
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, ServerTlsError> {
    let content = |reason: String| ServerTlsError::Content { file: file.to_owned(), reason };
    let chain = CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(describe(&error)))?;
    if chain.is_empty() {
        return Err(content(
            "no certificate in it: expected PEM with -----BEGIN CERTIFICATE-----".to_owned(),
        ));
    }
    Ok(chain)
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, ServerTlsError> {
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|error| {
        let reason = match error {
            pem::Error::NoItemsFound => {
                "no private key in it: expected PEM with -----BEGIN PRIVATE KEY-----, without a passphrase"
                    .to_owned()
            }
            other => describe(&other),
        };
        ServerTlsError::Content { file: file.to_owned(), reason }
    })
}

/// The library's own words print byte lists.
fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the line \"-----END {}-----\" is missing", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("this line begins no PEM section: {:?}", String::from_utf8_lossy(line))
        }
        pem::Error::Base64Decode(what) => format!("the base64 in it is damaged: {what}"),
        other => format!("not PEM: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Certificate and key for `mx.example.org` in two files.
    struct World {
        dir: tempfile::TempDir,
        files: TlsFiles,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let files =
                TlsFiles { certificate: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
            let world = Self { dir, files };
            world.write_new_pair();
            world
        }

        fn write_new_pair(&self) -> (String, String) {
            let made = rcgen::generate_simple_self_signed(vec!["mx.example.org".to_owned()]).unwrap();
            let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            std::fs::write(&self.files.certificate, &certificate).unwrap();
            std::fs::write(&self.files.key, &key).unwrap();
            (certificate, key)
        }

        fn error(&self) -> String {
            let text = ServerTls::load(&self.files).unwrap_err().to_string();
            text.replace(&format!("{}/", self.dir.path().display()), "")
        }
    }

    #[test]
    fn what_files_hold_is_shown_and_changes_on_reload() {
        let world = World::new();
        let tls = ServerTls::load(&world.files).unwrap();
        let (config, before) = (tls.config(), tls.chain());
        world.write_new_pair();
        assert_eq!(tls.chain(), before);
        tls.reload(&world.files).unwrap();
        assert_ne!(tls.chain(), before);
        assert!(Arc::ptr_eq(&config, &tls.config()));
    }

    #[test]
    fn a_bad_reload_keeps_the_old_certificate() {
        let world = World::new();
        let tls = ServerTls::load(&world.files).unwrap();
        let before = tls.chain();
        std::fs::write(&world.files.certificate, "").unwrap();
        assert!(tls.reload(&world.files).is_err());
        assert_eq!(tls.chain(), before);
    }

    #[test]
    fn errors_name_the_file_and_what_is_wrong() {
        let world = World::new();
        let (_, old_key) = world.write_new_pair();
        let (certificate, key) = world.write_new_pair();

        std::fs::write(&world.files.key, old_key).unwrap();
        assert_eq!(world.error(), "the key in key.pem does not belong to the certificate in cert.pem");

        std::fs::write(&world.files.key, &certificate).unwrap();
        assert!(world.error().starts_with("key.pem: no private key in it"), "{}", world.error());

        std::fs::write(&world.files.key, key.replace("-----END", "")).unwrap();
        assert_eq!(world.error(), "key.pem: the line \"-----END PRIVATE KEY-----\" is missing");

        std::fs::write(&world.files.key, &key).unwrap();
        std::fs::write(&world.files.certificate, &key).unwrap();
        assert!(world.error().starts_with("cert.pem: no certificate in it"), "{}", world.error());

        std::fs::write(&world.files.certificate, certificate.replace("MII", "!!!")).unwrap();
        assert!(world.error().starts_with("cert.pem: the base64 in it is damaged"), "{}", world.error());

        std::fs::remove_file(&world.files.certificate).unwrap();
        assert!(world.error().starts_with("cannot read cert.pem: No such file"), "{}", world.error());
    }

    #[test]
    fn self_signed_takes_names_and_addresses() {
        let names = ["mx.example.org", "[127.0.0.1]"].map(|name| Domain::parse_or_literal(name).unwrap());
        assert_eq!(ServerTls::self_signed(&names).unwrap().chain().len(), 1);
        assert!(ServerTls::self_signed(&[]).is_ok());
    }
}
