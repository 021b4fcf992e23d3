//! What both sides of SCRAM share: keys, proofs and the attributes of its messages.
//!
//! RFC 5802, RFC 7677 (SHA-256). Of a password a server keeps [`StoredKeys`], from which neither the password nor a
//! client's proof can be made.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};

/// RFC 5802 §5.1: fewer iterations make guessing cheap.
pub const ITERATIONS_MIN: u32 = 4_096;
/// More than any server asks; a client does not let itself be kept busy.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// Longest salt that a client takes.
const SALT_BYTES_MAX: usize = 1_024;
/// Characters of a nonce of ours: more than 128 bits.
const NONCE_CHARS: usize = 24;

/// The hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-1: no collisions matter here.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Hash {
    /// Length of its digest.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    fn hmac(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), text).as_ref().to_vec()
    }

    fn digest(self, text: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        };
        digest::digest(algorithm, text).as_ref().to_vec()
    }

    /// `Hi()` of RFC 5802 §2.2, which is PBKDF2.
    fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        };
        let mut salted = vec![0; self.bytes()];
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
        salted
    }
}

/// What a server keeps of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKeys {
    /// The hash function.
    pub hash: Hash,
    /// Of this account and this hash alone.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// Checks a client's proof.
    pub stored_key: Vec<u8>,
    /// Proves to the client that we know these keys.
    pub server_key: Vec<u8>,
}

impl std::fmt::Debug for StoredKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredKeys").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl StoredKeys {
    /// Makes the keys of a prepared password; it costs `iterations` rounds.
    pub fn derive(hash: Hash, password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let ClientKeys { client_key, server_key, .. } = ClientKeys::derive(hash, password, &salt, iterations);
        let stored_key = hash.digest(&client_key);
        Self { hash, salt, iterations: iterations.get(), stored_key, server_key }
    }

    /// Whether a proof is of who knows the password.
    pub fn verify(&self, auth_message: &[u8], proof: &[u8]) -> bool {
        let signature = self.hash.hmac(&self.stored_key, auth_message);
        let client_key = xor(proof, &signature);
        proof.len() == signature.len() && equal(&self.hash.digest(&client_key), &self.stored_key)
    }

    /// What proves us to the client.
    pub fn server_signature(&self, auth_message: &[u8]) -> Vec<u8> {
        self.hash.hmac(&self.server_key, auth_message)
    }
}

/// What a client makes of the password.
pub(super) struct ClientKeys {
    hash: Hash,
    client_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl ClientKeys {
    pub(super) fn derive(hash: Hash, password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let salted = hash.salted(password, salt, iterations);
        let client_key = hash.hmac(&salted, b"Client Key");
        Self { hash, client_key, server_key: hash.hmac(&salted, b"Server Key") }
    }

    pub(super) fn proof(&self, auth_message: &[u8]) -> Vec<u8> {
        let stored_key = self.hash.digest(&self.client_key);
        xor(&self.client_key, &self.hash.hmac(&stored_key, auth_message))
    }

    pub(super) fn server_signature(&self, auth_message: &[u8]) -> Vec<u8> {
        self.hash.hmac(&self.server_key, auth_message)
    }
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

/// Compares in a time that says nothing about where the two differ.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// A nonce of ours, of letters and digits.
pub(super) fn nonce() -> String {
    use rand::distr::{Alphanumeric, SampleString};
    Alphanumeric.sample_string(&mut rand::rng(), NONCE_CHARS)
}

/// RFC 5802 §7: printable, without comma.
pub(super) fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, 0x21..=0x2b | 0x2d..=0x7e))
}

/// `saslname` of RFC 5802 §5.1.
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The reverse; any other `=` is an error.
pub(super) fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) =
            part.strip_prefix("2C").map(|rest| (',', rest)).or(part.strip_prefix("3D").map(|r| ('=', r)))?;
        plain.push(sign);
        plain.push_str(rest);
    }
    (!plain.is_empty() && !plain.contains('\0')).then_some(plain)
}

/// The attributes of a message, in their order, which is fixed.
pub(super) struct Attributes<'a>(std::str::Split<'a, char>);

impl<'a> Attributes<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self(text.split(','))
    }

    /// The value of the next attribute, if it has this name.
    pub(super) fn take(&mut self, name: char) -> Option<&'a str> {
        self.0.next()?.strip_prefix(name)?.strip_prefix('=')
    }

    /// What is left are extensions (RFC 5802 §5.1): `m` must be understood and never is, the rest may be passed over.
    pub(super) fn rest_is_optional(mut self) -> bool {
        self.0.all(|attribute| {
            let mut chars = attribute.chars();
            chars.next().is_some_and(|name| name.is_ascii_alphabetic() && name != 'm')
                && chars.next() == Some('=')
        })
    }
}

/// The server's first message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: NonZeroU32,
}

/// What is wrong with the server's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramFault {
    /// It does not follow the grammar.
    #[error("its SCRAM message is malformed")]
    Malformed,
    /// The nonce is not ours, continued by the server's own.
    #[error("its nonce is not our own, continued")]
    Nonce,
    /// No count of iterations that anybody who means well would ask for.
    #[error("it asks for {0} iterations")]
    Iterations(u64),
}

impl<'a> ServerFirst<'a> {
    /// Reads and checks it against the nonce that we sent.
    pub(super) fn parse(text: &'a str, ours: &str) -> Result<Self, ScramFault> {
        let mut attributes = Attributes::of(text);
        let nonce = attributes.take('r').ok_or(ScramFault::Malformed)?;
        let salt = attributes.take('s').and_then(|salt| super::decode(salt.as_bytes()).ok());
        let salt = salt.filter(|salt| (1..=SALT_BYTES_MAX).contains(&salt.len()));
        let digits = attributes.take('i').filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let iterations = digits.and_then(|text| text.parse::<u64>().ok());
        let (Some(salt), Some(iterations), true) = (salt, iterations, attributes.rest_is_optional()) else {
            return Err(ScramFault::Malformed);
        };
        // RFC 5802 §5.1: the client verifies that its own nonce stands in front; a server that adds none of its own
        // would let an exchange be played again.
        if !is_nonce(nonce) || nonce.len() <= ours.len() || !nonce.starts_with(ours) {
            return Err(ScramFault::Nonce);
        }
        let iterations = u32::try_from(iterations)
            .ok()
            .filter(|n| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(n))
            .and_then(NonZeroU32::new)
            .ok_or(ScramFault::Iterations(iterations))?;
        Ok(Self { nonce, salt, iterations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_survive_their_escapes(name in "[^\0]{1,20}") {
            let escaped = escape(&name);
            prop_assert!(!escaped.contains(','));
            prop_assert_eq!(unescape(&escaped), Some(name));
        }
    }

    #[test]
    fn a_bare_equals_sign_is_no_name() {
        for bad in ["=", "a=", "a=2c", "a=3", "a==3D", ""] {
            assert_eq!(unescape(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn first_messages_of_servers() {
        let parse = |text| ServerFirst::parse(text, "abc").map(|first| first.iterations.get());
        for (text, expected) in [
            ("r=abcdef,s=QSXCR+Q6sek8bf92,i=4096", Ok(4096)),
            ("r=abcdef,s=QSXCR+Q6sek8bf92,i=4096,x=1", Ok(4096)),
            ("r=abcdef,s=QSXCR+Q6sek8bf92,i=4096,m=1", Err(ScramFault::Malformed)),
            ("m=1,r=abcdef,s=QSXCR+Q6sek8bf92,i=4096", Err(ScramFault::Malformed)),
            ("r=abcdef,s=,i=4096", Err(ScramFault::Malformed)),
            ("r=abcdef,s=*,i=4096", Err(ScramFault::Malformed)),
            ("r=abcdef,i=4096,s=QSXCR+Q6sek8bf92", Err(ScramFault::Malformed)),
            ("r=abcdef,s=QSXCR+Q6sek8bf92", Err(ScramFault::Malformed)),
            ("r=abcdef,s=QSXCR+Q6sek8bf92,i=-1", Err(ScramFault::Malformed)),
            ("", Err(ScramFault::Malformed)),
            // Not ours, ours again with nothing added, cut, or with letters that are none.
            ("r=xbcdef,s=QSXCR+Q6sek8bf92,i=4096", Err(ScramFault::Nonce)),
            ("r=abc,s=QSXCR+Q6sek8bf92,i=4096", Err(ScramFault::Nonce)),
            ("r=ab,s=QSXCR+Q6sek8bf92,i=4096", Err(ScramFault::Nonce)),
            ("r=abcd f,s=QSXCR+Q6sek8bf92,i=4096", Err(ScramFault::Nonce)),
            ("r=abcdef,s=QSXCR+Q6sek8bf92,i=0", Err(ScramFault::Iterations(0))),
            ("r=abcdef,s=QSXCR+Q6sek8bf92,i=1", Err(ScramFault::Iterations(1))),
            ("r=abcdef,s=QSXCR+Q6sek8bf92,i=4095", Err(ScramFault::Iterations(4095))),
            ("r=abcdef,s=QSXCR+Q6sek8bf92,i=4294967296", Err(ScramFault::Iterations(1 << 32))),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
