//! DKIM: signatures of domains over messages (RFC 6376), with the algorithms of RFC 8301 and RFC 8463.
//!
//! [`verify()`] checks the signatures of a message and says of each what came of it; [`Signer`] makes them. RSA with SHA-1
//! and keys under 1024 bits prove nothing (RFC 8301 §3), nor do signatures over a part of the body.
//!
//! | file | what it does |
//! | --- | --- |
//! | `signature` | reads a DKIM-Signature field |
//! | `key` | reads a key record, and proves octets by it |
//! | `verify` | one message, all its signatures |
//! | `private` | keys to sign with: making them, reading them, their records |
//! | `sign` | makes signatures |

mod key;
mod private;
mod sign;
mod signature;
#[cfg(test)]
mod tests;
mod verify;

pub use key::{KeyLookup, lookup};
pub use private::{PrivateKey, PrivateKeyError, zone_line};
pub use sign::{Signer, sign};
pub use verify::{Checked, best, verify};

/// Signatures of one message that are looked at: each costs a look-up and a proof (RFC 6376 §6.1).
pub const SIGNATURES_MAX: usize = 10;

/// What a signature is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RFC 6376 §3.3.2.
    RsaSha256,
    /// RFC 8463.
    Ed25519Sha256,
}

impl Algorithm {
    /// As in `a=`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    /// As in `k=` of the key.
    pub const fn key_type(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa",
            Self::Ed25519Sha256 => "ed25519",
        }
    }
}
