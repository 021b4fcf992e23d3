//! Reads `[tls.acme]`: the certificate that a CA issues to us (RFC 8555).

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::login::{SecretKeys, secret};
use super::problems::Problem;
use super::read::{Look, address_and_port, everywhere, host_name};
use super::section::Section;
use super::ways::{private_ca, word};
use super::{PrivateCa, Secret};
use crate::address::Domain;

/// Let's Encrypt.
const DIRECTORY_DEFAULT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Names in one certificate; Let's Encrypt takes no more.
const NAMES_MAX: usize = 100;

/// How a certificate is got from a CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The CA: where its directory is (RFC 8555 §7.1.1).
    pub directory: String,
    /// Where the CA may write to, as URLs: `mailto:...`.
    pub contact: Vec<String>,
    /// The names of the certificate.
    pub names: Vec<Domain>,
    /// What the CA's own certificate leads to, instead of one of the system's roots.
    pub ca: Option<Arc<PrivateCa>>,
    /// How the CA is shown that the names are ours.
    pub challenge: AcmeChallenge,
    /// Where the CA comes to see it.
    pub listen: Vec<AcmeListener>,
    /// The kind of the certificate's key.
    pub key_type: AcmeKeyType,
    /// Whether a new certificate is for the key of the old one.
    pub keep_key: bool,
    /// An account with the CA that exists outside of ACME (RFC 8555 §7.3.4).
    pub external_account: Option<ExternalAccount>,
}

/// How the CA is shown that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// RFC 8737: by a certificate, on port 443.
    TlsAlpn01,
    /// RFC 8555 §8.3: by a file, on port 80.
    Http01,
}

impl AcmeChallenge {
    /// As in the configuration, which is as in the RFCs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }

    /// Where the CA looks.
    const fn port(self) -> u16 {
        match self {
            Self::TlsAlpn01 => 443,
            Self::Http01 => 80,
        }
    }
}

/// A socket for the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcmeListener {
    /// Where.
    pub address: SocketAddr,
    /// Whether the server refuses to start without it: not for IPv6 where the configuration names no address.
    pub required: bool,
}

/// The kind of a certificate's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeKeyType {
    /// ECDSA with P-256.
    Ecdsa,
    /// RSA with 2048 bits, for clients that know nothing else.
    Rsa,
}

/// An account with a CA that exists outside of ACME.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The name that the CA gave it.
    pub key_id: String,
    /// The key that the CA gave it, for HMAC-SHA256.
    pub hmac_key: Vec<u8>,
}

impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// `[tls.acme]`.
pub(super) fn acme(mut table: Section<'_>, hostname: Option<&Domain>, look: Look) -> Acme {
    let directory = table.parsed("directory", "the CA's https:// URL", parse_directory);
    let contact = table.list("contact", "an address such as \"postmaster@example.org\"", parse_contact);
    let contact = contact.into_iter().map(|placed| placed.value).collect();
    let names = names(&mut table, hostname);
    let ca = private_ca(&mut table, look);
    let challenges = [AcmeChallenge::TlsAlpn01, AcmeChallenge::Http01].map(|one| (one.as_str(), one));
    let challenge = word(&mut table, "challenge", &challenges).unwrap_or(AcmeChallenge::TlsAlpn01);
    let listen = listen(&mut table, challenge);
    let key_types = [("ecdsa", AcmeKeyType::Ecdsa), ("rsa", AcmeKeyType::Rsa)];
    let key_type = word(&mut table, "key_type", &key_types).unwrap_or(AcmeKeyType::Ecdsa);
    let keep_key = table.flag("keep_key", false);
    let external_account = external_account(&mut table, look);
    table.finish();
    Acme {
        directory: directory.unwrap_or_else(|| DIRECTORY_DEFAULT.to_owned()),
        contact,
        names,
        ca,
        challenge,
        listen,
        key_type,
        keep_key,
        external_account,
    }
}

fn parse_directory(text: &str) -> Result<String, String> {
    // RFC 8555 §6.1: only over HTTPS.
    match text.strip_prefix("https://") {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && text.is_ascii() => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is no https:// URL")),
    }
}

/// An address, or a URL as it is sent to the CA.
fn parse_contact(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let mailbox = crate::address::Mailbox::parse(address).map_err(|error| format!("{text:?}: {error}"))?;
    Ok(format!("mailto:{mailbox}"))
}

fn names(table: &mut Section<'_>, hostname: Option<&Domain>) -> Vec<Domain> {
    let given = table.has("names");
    let problems = table.reader.problem_count();
    let mut names: Vec<Domain> = Vec::new();
    for placed in table.list("names", "a host name such as \"mail.example.org\"", host_name) {
        if !names.contains(&placed.value) {
            names.push(placed.value);
        }
    }
    let wrong = if names.len() > NAMES_MAX {
        Some(format!("{} names, and a certificate holds {NAMES_MAX}", names.len()))
    } else if given && names.is_empty() && table.reader.problem_count() == problems {
        Some("`names` holds none".to_owned())
    } else {
        None
    };
    if let Some(message) = wrong {
        let problem = Problem::new(table.key_place("names"), message, "the names of the certificate");
        table.reader.report(problem.help("leave it out for the server's own `hostname`"));
    }
    if names.is_empty() { hostname.cloned().into_iter().collect() } else { names }
}

fn listen(table: &mut Section<'_>, challenge: AcmeChallenge) -> Vec<AcmeListener> {
    let port = challenge.port();
    let expected =
        "an address such as \"192.0.2.1\", or \"127.0.0.1:8443\" behind something that forwards to it";
    let given = table.list("listen", expected, |text| address_and_port(text, port, false));
    if given.is_empty() {
        let everywhere = everywhere(port);
        return everywhere.map(|address| AcmeListener { address, required: address.is_ipv4() }).into();
    }
    given.into_iter().map(|placed| AcmeListener { address: placed.value, required: true }).collect()
}

const HMAC_KEY: SecretKeys =
    SecretKeys { what: "key", keys: ["eab_hmac_key", "eab_hmac_key_file", "eab_hmac_key_env"] };

fn external_account(table: &mut Section<'_>, look: Look) -> Option<ExternalAccount> {
    let key_id = table.parsed("eab_key_id", "the key id that the CA gave you", |text| {
        if text.is_empty() { Err("a key id cannot be empty") } else { Ok(text.to_owned()) }
    });
    let found = secret(table, &HMAC_KEY, look);
    match (table.has("eab_key_id"), found.given) {
        (true, None) => {
            table.missing("eab_hmac_key", "eab_hmac_key_file = \"eab-key\", or `_env`, or the key");
        }
        (false, Some(key)) => {
            let message = format!("`{key}` without an `eab_key_id`");
            table.reader.report(Problem::new(table.key_place(key), message, "whose key is this?"));
        }
        _ => {}
    }
    let place = found.given.map_or(0..0, |key| table.key_place(key));
    let hmac_key = hmac_key(table, &found.value?, place, look)?;
    Some(ExternalAccount { key_id: key_id?, hmac_key })
}

/// RFC 8555 §7.3.4: the key comes in base64url.
fn hmac_key(table: &Section<'_>, text: &Secret, place: Range<usize>, look: Look) -> Option<Vec<u8>> {
    let decoded = URL_SAFE_NO_PAD.decode(text.reveal().trim_end_matches('=')).ok();
    let decoded = decoded.filter(|key| !key.is_empty() || look == Look::Text);
    if decoded.is_none() {
        let message = "the key of the external account is no base64url";
        let problem = Problem::new(place, message, "expected letters, digits, `-` and `_`");
        table.reader.report(problem.help("take it as the CA shows it"));
    }
    decoded
}
