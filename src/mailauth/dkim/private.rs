//! Keys to sign with: making them, reading them from files, and what DNS must say about them.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::Algorithm;

/// RFC 1035 §3.3.14: one string of a TXT record has at most 255 octets; one less keeps every tool content.
const STRING_BYTES_MAX: usize = 250;

/// A key to sign with. It is shown nowhere.
pub struct PrivateKey(Kind);

enum Kind {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey({}, ..)", self.algorithm().key_type())
    }
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// The file holds something else.
    #[error("it holds no private key in PEM form (\"-----BEGIN PRIVATE KEY-----\")")]
    NotPem,
    /// A key of another kind, or one that is too short.
    #[error("the key is neither Ed25519 nor RSA of 2048 bits or more")]
    NotUsable,
    /// The random numbers of this machine failed.
    #[error("a key could not be made")]
    NotMade,
}

impl PrivateKey {
    /// Makes a new one (RSA: 2048 bits, which every receiver takes), and its PEM form.
    pub fn generate(algorithm: Algorithm) -> Result<(Self, String), PrivateKeyError> {
        let failed = |_| PrivateKeyError::NotMade;
        let (kind, der) = match algorithm {
            Algorithm::RsaSha256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
                let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(failed)?.as_ref().to_vec();
                (Kind::Rsa(pair), der)
            }
            Algorithm::Ed25519Sha256 => {
                let pair = Ed25519KeyPair::generate().map_err(failed)?;
                // The first version is what OpenSSL and all others read.
                let der = pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec();
                (Kind::Ed25519(pair), der)
            }
        };
        Ok((Self(kind), pem(&der)))
    }

    /// Reads PKCS#8 or, for RSA, PKCS#1.
    pub fn from_pem(text: &[u8]) -> Result<Self, PrivateKeyError> {
        let unusable = |_| PrivateKeyError::NotUsable;
        match PrivateKeyDer::from_pem_slice(text).map_err(|_| PrivateKeyError::NotPem)? {
            PrivateKeyDer::Pkcs1(der) => {
                let pair = RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(unusable)?;
                Ok(Self(Kind::Rsa(pair)))
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
                    return Ok(Self(Kind::Ed25519(pair)));
                }
                Ok(Self(Kind::Rsa(RsaKeyPair::from_pkcs8(der).map_err(unusable)?)))
            }
            _ => Err(PrivateKeyError::NotUsable),
        }
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Kind::Rsa(_) => Algorithm::RsaSha256,
            Kind::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// The TXT record that lets others verify its signatures.
    pub fn record(&self) -> Result<String, PrivateKeyError> {
        let public = match &self.0 {
            Kind::Rsa(pair) => {
                let der = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key());
                der.map_err(|_| PrivateKeyError::NotUsable)?.as_ref().to_vec()
            }
            Kind::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        };
        Ok(format!("v=DKIM1; k={}; p={}", self.algorithm().key_type(), STANDARD.encode(public)))
    }

    /// Signs octets.
    pub(super) fn sign(&self, signed: &[u8]) -> Result<Vec<u8>, PrivateKeyError> {
        match &self.0 {
            Kind::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed, &mut signature)
                    .map_err(|_| PrivateKeyError::NotUsable)?;
                Ok(signature)
            }
            Kind::Ed25519(pair) => {
                let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, signed);
                Ok(pair.try_sign(hash.as_ref()).map_err(|_| PrivateKeyError::NotUsable)?.as_ref().to_vec())
            }
        }
    }
}

/// A TXT record as a line of a zone file, in strings of a length that DNS takes.
pub fn zone_line(name: &str, record: &str) -> String {
    let mut strings: Vec<String> = Vec::new();
    let mut rest = record;
    while !rest.is_empty() {
        let (string, behind) = rest.split_at(STRING_BYTES_MAX.min(rest.len()));
        strings.push(format!("\"{string}\""));
        rest = behind;
    }
    format!("{name} IN TXT ( {} )", strings.join(" "))
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(64.min(rest.len()));
        out.push_str(line);
        out.push('\n');
        rest = behind;
    }
    out.push_str("-----END PRIVATE KEY-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_files() {
        for algorithm in [Algorithm::Ed25519Sha256, Algorithm::RsaSha256] {
            let (key, pem) = PrivateKey::generate(algorithm).unwrap();
            let read = PrivateKey::from_pem(pem.as_bytes()).unwrap();
            assert_eq!(read.algorithm(), algorithm);
            assert_eq!(read.record().unwrap(), key.record().unwrap());
            assert!(!format!("{key:?}").contains("KEY-----"));
        }
    }

    #[test]
    fn files_that_hold_no_key() {
        let other = "-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----\n";
        assert_eq!(PrivateKey::from_pem(b"hello").unwrap_err(), PrivateKeyError::NotPem);
        assert_eq!(PrivateKey::from_pem(other.as_bytes()).unwrap_err(), PrivateKeyError::NotUsable);
    }

    #[test]
    fn a_long_record_stands_in_several_strings() {
        let line = zone_line("s._domainkey.example.org.", &"x".repeat(300));
        assert_eq!(
            line,
            format!("s._domainkey.example.org. IN TXT ( \"{}\" \"{}\" )", "x".repeat(250), "x".repeat(50))
        );
    }
}
