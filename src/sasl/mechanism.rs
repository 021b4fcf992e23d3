//! The mechanisms that we speak, and their order.

use std::fmt;
use std::str::FromStr;

use super::scram::Hash;

/// A mechanism that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 7677, bound to the TLS channel.
    ScramSha256Plus,
    /// RFC 5802, bound to the TLS channel.
    ScramSha1Plus,
    /// RFC 7677.
    ScramSha256,
    /// RFC 5802.
    ScramSha1,
    /// RFC 2195.
    CramMd5,
    /// RFC 4616.
    Plain,
    /// Never standardised (draft-murchison-sasl-login), still the only one that some programs know.
    Login,
}

impl Mechanism {
    /// All, strongest first. A bound exchange stands before a better hash: only it keeps out who sits in between.
    pub const ALL: [Self; 7] = [
        Self::ScramSha256Plus,
        Self::ScramSha1Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::CramMd5,
        Self::Plain,
        Self::Login,
    ];

    /// What our servers offer unless their operator says otherwise. CRAM-MD5 needs a state of the password to be kept
    /// that is as good as the password.
    pub const OFFERED_BY_DEFAULT: [Self; 6] = [
        Self::ScramSha256Plus,
        Self::ScramSha1Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::Plain,
        Self::Login,
    ];

    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::CramMd5 => "CRAM-MD5",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// The password itself travels.
    pub const fn sends_password(self) -> bool {
        matches!(self, Self::Plain | Self::Login)
    }

    /// The exchange proves that both sides are ends of the same TLS channel.
    pub const fn binds_channel(self) -> bool {
        matches!(self, Self::ScramSha256Plus | Self::ScramSha1Plus)
    }

    /// The hash function of the SCRAM family.
    pub const fn scram(self) -> Option<Hash> {
        match self {
            Self::ScramSha256Plus | Self::ScramSha256 => Some(Hash::Sha256),
            Self::ScramSha1Plus | Self::ScramSha1 => Some(Hash::Sha1),
            Self::CramMd5 | Self::Plain | Self::Login => None,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The name is none of our mechanisms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this authentication mechanism is not offered")]
pub struct UnknownMechanism;

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    /// Case does not matter (RFC 4954 §4, RFC 9051 §6.2.2 take the name as an atom).
    fn from_str(text: &str) -> Result<Self, UnknownMechanism> {
        Self::ALL.into_iter().find(|m| m.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownMechanism)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mechanisms_by_name() {
        assert_eq!("plain".parse(), Ok(Mechanism::Plain));
        assert_eq!("LOGIN".parse(), Ok(Mechanism::Login));
        assert_eq!("scram-sha-1-plus".parse(), Ok(Mechanism::ScramSha1Plus));
        assert_eq!("GSSAPI".parse::<Mechanism>(), Err(UnknownMechanism));
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.as_str().parse(), Ok(mechanism));
        }
    }
}
