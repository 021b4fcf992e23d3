//! The record of one delivery attempt of one recipient: why it went where it went, and what came of it.
//!
//! Written by the queue, kept by spool and store, read by routing scripts and by the operator.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::TransportName;
use crate::outcome::Outcome;

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The sending account's script.
    Account,
    /// The sender domain's script.
    Domain,
    /// The global script.
    Global,
    /// No script: all returned nothing, so delivery is direct.
    Default,
    /// The operator, for this message.
    Override,
    /// Nobody was asked: the recipient is ours.
    Local,
}

impl Level {
    /// As scripts and listings show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Domain => "domain",
            Self::Global => "global",
            Self::Default => "default",
            Self::Override => "override",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The place in a script that returned the transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptPlace {
    /// File, relative to the scripts directory: `domain/example.org.rhai`.
    pub file: String,
    /// SHA-256 of the script's text (first 16 hex digits).
    pub hash: String,
    /// Line of the `return`, from 1; `None` when it could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// Which way, and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Who decided.
    pub level: Level,
    /// The way.
    pub transport: TransportName,
    /// Where in the scripts, when a script decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptPlace>,
    /// Content hash of the script set that was asked; `None` where none was, and in old records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Arc<str>>,
    /// What the scripts wrote with `log(text)`, all levels, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// MX hosts of the recipient's domain, where a script might have asked for them and DNS answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx: Option<Vec<String>>,
    /// Time all levels took together, microseconds.
    #[serde(default)]
    pub micros: u32,
}

impl Decision {
    /// A decision that no script took part in.
    pub fn without_script(level: Level, transport: TransportName) -> Self {
        Self { level, transport, script: None, set: None, log: Vec::new(), mx: None, micros: 0 }
    }
}

/// One attempt of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// Which way, and who said so; `None` when the server died before it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// What came of it; `None` while it runs, or when the server died during it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
}
