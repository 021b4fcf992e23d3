//! One certificate with its key: from files, issued by a CA, or signed by itself.
//!
//! Files are PEM (RFC 7468): a certificate chain, leaf first (RFC 8446 §4.4.2), and a private key in PKCS#8, PKCS#1 or
//! SEC1. What operators want to know of a certificate is read from it once (RFC 5280).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

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

/// A certificate chain and its key, ready to be shown.
#[derive(Debug)]
pub struct Certificate {
    pub(super) certified: Arc<CertifiedKey>,
    facts: CertificateFacts,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// Whether nobody but itself vouches for it.
    pub self_signed: bool,
    /// The TLSA record (RFC 6698) that pins its key, without the name: `3 1 1 0123...`.
    pub tlsa: String,
}

impl Certificate {
    /// Reads chain and key. It blocks; the files are small.
    pub fn from_files(files: &TlsFiles) -> Result<Self, ServerTlsError> {
        let chain = read_chain(&files.certificate)?;
        let key = read_key(&files.key)?;
        let unusable = |file: &Path, what: &str, error: String| ServerTlsError::Content {
            file: file.to_owned(),
            reason: format!("unusable {what}: {error}"),
        };
        let facts = chain.first().map_or(Err("there is none".to_owned()), facts);
        let facts = facts.map_err(|error| unusable(&files.certificate, "certificate", error))?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                ServerTlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
            }
            rustls::Error::InvalidCertificate(_) => {
                unusable(&files.certificate, "certificate", error.to_string())
            }
            other => unusable(&files.key, "private key", other.to_string()),
        })?;
        Ok(Self { certified: Arc::new(certified), facts })
    }

    /// Reads key and chain from one text, PEM.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| describe(&error))?;
        let facts = facts(chain.first().ok_or("there is no certificate")?)?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| describe(&error))?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| error.to_string())?;
        Ok(Self { certified: Arc::new(certified), facts })
    }

    /// Makes one for these names that nobody else vouches for.
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
        let certified = certified.map_err(|error| ServerTlsError::SelfSigned(error.to_string()))?;
        let facts = facts(certificate.der()).map_err(ServerTlsError::SelfSigned)?;
        Ok(Self { certified: Arc::new(certified), facts })
    }

    /// What it says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Whether it is for this host (RFC 9525 §6.3: a `*` stands for the whole of the first label).
    pub(super) fn is_for(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.facts.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => parent.is_some_and(|parent| parent.eq_ignore_ascii_case(suffix)),
            None => name.eq_ignore_ascii_case(host),
        })
    }
}

/// Named here and not installed for the process: there are no statics for state.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// Reads what a certificate says.
fn facts(der: &CertificateDer<'static>) -> Result<CertificateFacts, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let time = |at: i64| Timestamp::from_second(at).map_err(|error| error.to_string());
    let validity = certificate.validity();
    let key = digest::digest(&digest::SHA256, certificate.public_key().raw);
    Ok(CertificateFacts {
        names: names(&certificate),
        issuer: issuer(&certificate),
        serial: hex(certificate.raw_serial()),
        not_before: time(validity.not_before.timestamp())?,
        not_after: time(validity.not_after.timestamp())?,
        self_signed: certificate.issuer() == certificate.subject(),
        // RFC 7672 §3.1.1: DANE-EE, the public key, SHA-256.
        tlsa: format!("3 1 1 {}", hex(key.as_ref())),
    })
}

/// RFC 9525 §2: of names, only subjectAltName counts.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.into_iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(octets) => ip(octets),
            _ => None,
        })
        .collect()
}

fn ip(octets: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(octets).map(std::net::IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(std::net::IpAddr::from)).ok().map(|ip| ip.to_string())
}

/// By its common name and organisation: `R11, Let's Encrypt`.
fn issuer(certificate: &X509Certificate<'_>) -> String {
    let issuer = certificate.issuer();
    let common = issuer.iter_common_name().next().and_then(|name| name.as_str().ok());
    let organisation = issuer.iter_organization().next().and_then(|name| name.as_str().ok());
    match (common, organisation) {
        (None, None) => issuer.to_string(),
        (common, organisation) => [common, organisation].into_iter().flatten().collect::<Vec<_>>().join(", "),
    }
}

fn hex(octets: &[u8]) -> String {
    let digits = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
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
            Self { dir, files }
        }

        fn write_new_pair(&self) -> (String, String) {
            let made = rcgen::generate_simple_self_signed(vec!["mx.example.org".to_owned()]).unwrap();
            let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            std::fs::write(&self.files.certificate, &certificate).unwrap();
            std::fs::write(&self.files.key, &key).unwrap();
            (certificate, key)
        }

        fn error(&self) -> String {
            let text = Certificate::from_files(&self.files).unwrap_err().to_string();
            text.replace(&format!("{}/", self.dir.path().display()), "")
        }
    }

    #[test]
    fn errors_name_the_file_and_what_is_wrong() {
        let world = World::new();
        let (_, old_key) = world.write_new_pair();
        let (certificate, key) = world.write_new_pair();
        assert!(Certificate::from_files(&world.files).is_ok());

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

        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&world.files.certificate, no_certificate).unwrap();
        assert!(world.error().starts_with("cert.pem: unusable certificate: "), "{}", world.error());

        std::fs::remove_file(&world.files.certificate).unwrap();
        assert!(world.error().starts_with("cannot read cert.pem: No such file"), "{}", world.error());
    }

    #[test]
    fn self_signed_takes_names_and_addresses() {
        let names = ["mx.example.org", "[127.0.0.1]"].map(|name| Domain::parse_or_literal(name).unwrap());
        let certificate = Certificate::self_signed(&names).unwrap();
        let facts = certificate.facts();
        assert_eq!(facts.names, ["mx.example.org", "127.0.0.1"]);
        assert_eq!((facts.issuer.as_str(), facts.self_signed), ("mx.example.org", true));
        assert!(facts.not_before < facts.not_after);
        assert!(facts.tlsa.starts_with("3 1 1 ") && facts.tlsa.len() == 6 + 64, "{}", facts.tlsa);
        assert!(Certificate::self_signed(&[]).is_ok());
    }

    #[test]
    fn key_and_chain_come_from_one_text() {
        let one = rcgen::generate_simple_self_signed(vec!["mx.example.org".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["mx.example.org".to_owned()]).unwrap();
        let (key, chain) = (one.signing_key.serialize_pem(), one.cert.pem());
        let read = Certificate::from_pem(&format!("{key}{chain}")).unwrap();
        assert_eq!(read.facts().names, ["mx.example.org"]);
        for text in [String::new(), key.clone(), chain.clone(), format!("{key}{}", other.cert.pem())] {
            assert!(Certificate::from_pem(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = ["mx.example.org".to_owned(), "*.example.net".to_owned()];
        let mut certificate = Certificate::self_signed(&[]).unwrap();
        certificate.facts.names = names.into();
        for (host, is_for) in [
            ("mx.example.org", true),
            ("MX.Example.ORG.", true),
            ("example.org", false),
            ("a.example.net", true),
            ("A.EXAMPLE.NET", true),
            ("a.b.example.net", false),
            ("example.net", false),
            ("net", false),
            ("", false),
        ] {
            assert_eq!(certificate.is_for(host), is_for, "{host}");
        }
    }
}
