//! SPF: whether a domain lets an address send mail in its name (RFC 7208).
//!
//! [`check`] is check_host() of the standard: it finds the record, goes through its mechanisms, follows includes and
//! redirects, and keeps the limits of §4.6.4, so that a stranger's record cannot make us ask without end.
//!
//! | file | what it does |
//! | --- | --- |
//! | `record` | reads a record |
//! | `macros` | `%{..}` |
//! | `evaluate` | goes through it |

mod evaluate;
mod macros;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::dns::{Resolver, Trouble};

/// Who says to be whom, and from where.
#[derive(Debug, Clone)]
pub struct Question {
    /// The client.
    pub ip: IpAddr,
    /// The reverse-path without its angle brackets; empty for the null sender, for whom HELO answers (§2.4).
    pub sender: String,
    /// What the client said in HELO or EHLO.
    pub helo: String,
    /// Our name, for explanations.
    pub receiver: String,
    /// The time, for explanations.
    pub now: Timestamp,
}

/// RFC 7208 §2.6; in words as in RFC 8601 §2.7.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpfResult {
    /// There is no domain, or it has no record.
    None,
    /// The domain says nothing about the address.
    Neutral,
    /// It may send.
    Pass,
    /// It may not.
    Fail,
    /// Probably not.
    SoftFail,
    /// DNS did not answer; another try can help.
    TempError,
    /// The record is wrong, or asks for too much.
    PermError,
}

impl SpfResult {
    /// The word of RFC 8601.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl fmt::Display for SpfResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The result.
    pub result: SpfResult,
    /// The domain that was asked about.
    pub domain: String,
    /// The term that decided, as it stands in the record.
    pub mechanism: Option<String>,
    /// For [`SpfResult::Fail`]: the domain's own words about it (§6.2), in printable ASCII.
    pub explanation: Option<String>,
    /// For errors: what is wrong, for people.
    pub problem: Option<String>,
}

/// The SPF records of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As they stand in DNS; octets that are no UTF-8 are shown as U+FFFD.
    pub records: Vec<String>,
    /// What is wrong with them: none, several, a syntax error.
    pub problem: Option<String>,
}

/// Looks up the records of one domain, without those that it includes.
pub async fn lookup(resolver: &Resolver, domain: &str) -> Result<Found, Trouble> {
    let texts: Vec<_> = resolver.texts(domain).await?.into_records();
    let texts: Vec<_> = texts.into_iter().filter(|text| record::is_spf(text)).collect();
    let problem = match texts.as_slice() {
        [] => Some(format!("{domain} has no SPF record")),
        [text] => record::Record::parse(text).err(),
        _ => Some(format!("{domain} has more than one SPF record, which counts as an error")),
    };
    Ok(Found {
        records: texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
        problem,
    })
}

/// Checks the reverse-path, or HELO where that is null (RFC 7208 §2.4).
pub async fn check(resolver: &Resolver, question: &Question) -> Check {
    let helo = question.helo.trim_end_matches('.');
    let (local, domain) = match question.sender.rsplit_once('@') {
        Some((local, domain)) => (local, domain),
        None => ("", if question.sender.is_empty() { helo } else { &question.sender }),
    };
    check_identity(resolver, question, local, domain).await
}

/// Checks the name of HELO or EHLO (RFC 7208 §2.3).
pub async fn check_helo(resolver: &Resolver, question: &Question) -> Check {
    check_identity(resolver, question, "", question.helo.trim_end_matches('.')).await
}

async fn check_identity(resolver: &Resolver, question: &Question, local: &str, domain: &str) -> Check {
    let local = if local.is_empty() { "postmaster" } else { local };
    let sender = format!("{local}@{domain}");
    evaluate::evaluate(resolver, question, &sender, domain).await
}
