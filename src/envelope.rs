//! The envelope: who sent a message, who gets it, and what the sender asked for on the way.
//!
//! RFC 5321 §2.3.1 (envelope), RFC 3461 (DSN parameters), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8),
//! RFC 8689 (REQUIRETLS).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::Mailbox;

/// Where a message's failures are reported: a mailbox, or nobody (the null sender, `<>`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ReversePath {
    /// `<>`: reports and other mail that must not cause mail.
    Null,
    /// A mailbox.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, unless the sender is null.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

/// Without angle brackets; the null sender is the empty string.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

impl From<ReversePath> for String {
    fn from(path: ReversePath) -> String {
        path.to_string()
    }
}

impl TryFrom<String> for ReversePath {
    type Error = crate::address::AddressError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Ok(Self::Null) } else { Mailbox::parse(&text).map(Self::Mailbox) }
    }
}

/// How the content is encoded on the wire (RFC 6152, RFC 3030).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyType {
    /// Lines of ASCII.
    #[default]
    SevenBit,
    /// Lines of any octets.
    EightBitMime,
    /// Any octets; only by BDAT.
    BinaryMime,
}

/// How much of the message a failure report returns (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

/// Which reports the sender wants about a recipient (RFC 3461 §4.1). All false is `NOTIFY=NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// When it was delivered.
    pub success: bool,
    /// When it failed for good.
    pub failure: bool,
    /// When it takes long.
    pub delay: bool,
}

/// A recipient, with what the sender asked for (RFC 3461 §4.1, §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Who gets it.
    pub address: Mailbox,
    /// Reports wanted; `None` when the sender did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// ORCPT, decoded from xtext, with its type: `rfc822;user@example.org`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
}

impl From<Mailbox> for Recipient {
    fn from(address: Mailbox) -> Self {
        Self { address, notify: None, orcpt: None }
    }
}

/// Sender and recipients, with their parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The reverse-path (MAIL FROM).
    pub sender: ReversePath,
    /// The forward-paths (RCPT TO), at least one.
    pub recipients: Vec<Recipient>,
    /// BODY=.
    #[serde(default)]
    pub body: BodyType,
    /// SMTPUTF8 was given: addresses or header may hold UTF-8.
    #[serde(default)]
    pub smtputf8: bool,
    /// REQUIRETLS was given.
    #[serde(default)]
    pub require_tls: bool,
    /// RET=.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Ret>,
    /// ENVID=, decoded from xtext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
}

impl Envelope {
    /// An envelope without parameters.
    pub fn new(sender: ReversePath, recipients: impl IntoIterator<Item = Mailbox>) -> Self {
        Self {
            sender,
            recipients: recipients.into_iter().map(Recipient::from).collect(),
            body: BodyType::SevenBit,
            smtputf8: false,
            require_tls: false,
            ret: None,
            envid: None,
        }
    }
}
