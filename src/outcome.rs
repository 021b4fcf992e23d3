//! What came of a delivery attempt: delivered, failed for now, failed for good, and whose words say so.
//!
//! RFC 3463 enhanced status codes; RFC 5321 §4.2 reply codes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An enhanced status code such as `4.7.1` (RFC 3463).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// What the matter concerns: 1 address, 2 mailbox, 3 system, 4 network, 5 protocol, 6 content, 7 policy.
    pub subject: u16,
    /// The matter itself.
    pub detail: u16,
}

impl EnhancedCode {
    /// A code known when the program was written.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }
}

/// The text is no enhanced status code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code (RFC 3463): class 2, 4 or 5, then two numbers of at most three digits")]
pub struct NotAnEnhancedCode;

impl FromStr for EnhancedCode {
    type Err = NotAnEnhancedCode;

    fn from_str(text: &str) -> Result<Self, NotAnEnhancedCode> {
        let mut parts = text.split('.');
        let mut next = |digits_max: usize| {
            let part = parts.next().filter(|p| (1..=digits_max).contains(&p.len()));
            let part = part.filter(|p| p.bytes().all(|b| b.is_ascii_digit()));
            part.and_then(|p| p.parse::<u16>().ok()).ok_or(NotAnEnhancedCode)
        };
        let (class, subject, detail) = (next(1)?, next(3)?, next(3)?);
        if parts.next().is_some() || !matches!(class, 2 | 4 | 5) {
            return Err(NotAnEnhancedCode);
        }
        Ok(Self { class: class as u8, subject, detail })
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl fmt::Debug for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for EnhancedCode {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnhancedCode {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How far an attempt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Looking up MX or address records.
    Dns,
    /// Connecting.
    Connect,
    /// STARTTLS or the TLS handshake.
    Tls,
    /// The peer's 220, and EHLO.
    Greeting,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA or BDAT, up to the final reply.
    Data,
}

impl Stage {
    /// As scripts see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Greeting => "greeting",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the attempt means for the recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The peer (or our mailbox) has it.
    Delivered,
    /// Try again later.
    Temporary,
    /// Never try again: bounce.
    Permanent,
}

/// The end of one attempt for one recipient: the verdict, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Delivered, temporary or permanent.
    pub verdict: Verdict,
    /// How far it came.
    pub stage: Stage,
    /// The peer's name as we looked it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The peer's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Protocol and cipher, such as `TLSv1.3 TLS13_AES_256_GCM_SHA384`; `None` in clear text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// The peer's reply code; `None` when it never answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The peer's enhanced status code, or ours where it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<EnhancedCode>,
    /// The peer's words, or ours where it never answered. Several lines are joined by `\n`.
    pub text: String,
    /// The peer took the message with the sender's wish for reports (RFC 3461), so that reports of success are its
    /// matter from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dsn_passed_on: bool,
}

impl Outcome {
    /// An outcome without a peer: our own words.
    pub fn ours(verdict: Verdict, stage: Stage, enhanced: EnhancedCode, text: impl Into<String>) -> Self {
        Self {
            verdict,
            stage,
            host: None,
            ip: None,
            tls: None,
            code: None,
            enhanced: Some(enhanced),
            text: text.into(),
            dsn_passed_on: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_read_back_as_written() {
        for text in ["2.0.0", "4.7.1", "5.1.10", "5.999.999"] {
            assert_eq!(text.parse::<EnhancedCode>().unwrap().to_string(), text);
        }
        for bad in ["", "5", "5.1", "3.1.1", "5.1.1.1", "5.1000.1", "5..1", "5.1.x", "+5.1.1", "5.+1.1"] {
            assert!(bad.parse::<EnhancedCode>().is_err(), "{bad:?}");
        }
    }
}
