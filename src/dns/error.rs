//! What a lookup may fail with: there is nothing (for good), or nobody could tell (for now).

use std::time::Duration;

use crate::address::Domain;

/// A lookup without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// DNS answered, and the answer is that there is nothing. Asking again will not help.
    #[error(transparent)]
    Permanent(#[from] Nothing),
    /// No usable answer came. Asking later may help.
    #[error(transparent)]
    Temporary(#[from] Trouble),
}

/// DNS's own word that there is nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nothing {
    /// NXDOMAIN.
    #[error("the domain {0} does not exist")]
    NoSuchDomain(Domain),
    /// The name exists, but has neither A nor AAAA.
    #[error("{0} has no address")]
    NoAddress(Domain),
    /// MX records exist, but none names a host (RFC 2181 §10.3): addresses and invalid names.
    #[error("the MX records of {0} name no valid host")]
    NoUsableMx(Domain),
}

/// Nobody could tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No answer in time.
    #[error("looking up {name} timed out after {} s", .after.as_secs_f32())]
    Timeout {
        /// What was asked for.
        name: String,
        /// How long we waited.
        after: Duration,
    },
    /// SERVFAIL, REFUSED, a broken answer, or the network.
    #[error("looking up {name} failed: {why}")]
    Failed {
        /// What was asked for.
        name: String,
        /// The resolver's words.
        why: String,
    },
    /// The name is an alias of itself, or of too many others. Whoever runs the zone can mend it, and a resolver
    /// that follows aliases itself reports this as SERVFAIL: so it is temporary here too.
    #[error("{0} is an alias that leads nowhere: a CNAME loop, or a chain that is too long")]
    AliasLoop(Domain),
    /// This machine's resolver configuration cannot be used.
    #[error("no DNS resolver: {0}")]
    NoResolver(String),
}
