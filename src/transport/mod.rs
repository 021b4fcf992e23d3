//! Ways out: what a routing decision's transport does with a message.
//!
//! `direct` goes to the MX hosts of the recipients' domain, `socks` too, through a proxy; `smtp`, `submission` and
//! `submissions` go to one host; `fail` goes nowhere. All that connect speak the same outbound SMTP session and keep
//! connections per destination. docs/transports.md says for each stage what is temporary, what is
//! permanent, and what is tried next.
//!
//! Decisions are pure: `classify` (what replies and failures mean), `fit` (what a message needs and a peer offers),
//! `transaction` (commands and replies), `plan` (hosts and addresses, but for the look-ups). Work is done by `open` (how
//! a session begins), `auth` (AUTH), `session` (bytes), `pool` (kept connections) and `delivery`, which leads a job through all of them; `conversation` lets somebody
//! else speak.

mod auth;
mod authorities;
mod classify;
mod conversation;
mod delivery;
mod fit;
mod open;
mod plan;
mod pool;
mod session;
#[cfg(test)]
mod tests;
mod transaction;

use std::fmt;
use std::sync::Arc;

use crate::address::Domain;
use crate::attempt::Attempt;
use crate::config::{Smarthost, Transport, TransportKind};
use crate::dns::Resolver;
use crate::envelope::Recipient;
use crate::names::QueueId;
use crate::outcome::{Outcome, Stage};
use crate::smtp::Reply;
use crate::spool::NewMessage;
use crate::tls::ClientTls;

pub use conversation::Conversation;

use authorities::Authorities;
use delivery::Delivery;
use pool::Pool;

/// Delivers through every kind of transport. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    resolver: Resolver,
    hostname: Domain,
    tls: ClientTls,
    authorities: Authorities,
    pool: Arc<Pool>,
}

/// One message for recipients that share transport and destination.
#[derive(Debug, Clone)]
pub struct Job {
    /// For logs.
    pub id: QueueId,
    /// What to send.
    pub message: Arc<NewMessage>,
    /// To whom; for `direct` all of one domain.
    pub recipients: Vec<Recipient>,
    /// Earlier attempts of the first recipient, oldest first: they bear on the choice of the address.
    pub previous: Vec<Attempt>,
}

/// What shares connections and limits: `direct/example.org`, `smart/mail.example.net:25`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationKey(String);

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a reply at some stage of a session would mean for the message, over this transport (`direct` if none is
/// given), when nothing else were tried.
pub fn meaning(transport: Option<&Transport>, stage: Stage, reply: &Reply) -> Outcome {
    as_seen_over(transport, classify::outcome_of_reply(stage, reply, &classify::Seen::default()))
}

/// How an outcome counts over this transport: not all that a smarthost says is about the message.
pub fn as_seen_over(transport: Option<&Transport>, outcome: Outcome) -> Outcome {
    match transport.map(|transport| &transport.kind) {
        Some(TransportKind::Smarthost(_)) => classify::at_smarthost(outcome),
        Some(TransportKind::Direct { .. } | TransportKind::Socks { .. } | TransportKind::Fail { .. })
        | None => outcome,
    }
}

impl Engine {
    /// An engine that gives `hostname` in EHLO where a transport says nothing else, and trusts the system's roots.
    pub fn new(resolver: Resolver, hostname: Domain) -> Self {
        Self::with_tls(resolver, hostname, ClientTls::new())
    }

    /// An engine that trusts other roots.
    pub fn with_tls(resolver: Resolver, hostname: Domain, tls: ClientTls) -> Self {
        let (authorities, pool) = (Authorities::default(), Arc::default());
        Self(Arc::new(Inner { resolver, hostname, tls, authorities, pool }))
    }

    /// Where a transport goes with mail for a domain.
    pub fn destination(&self, transport: &Transport, domain: &Domain) -> DestinationKey {
        let name = &transport.name;
        DestinationKey(match &transport.kind {
            TransportKind::Direct { .. } | TransportKind::Socks { .. } => format!("{name}/{domain}"),
            TransportKind::Smarthost(Smarthost { host, port, .. }) => format!("{name}/{host}:{port}"),
            TransportKind::Fail { .. } => name.to_string(),
        })
    }

    /// Delivers a message; one outcome for each of the job's recipients, in their order. Takes as long as the
    /// transport's timeouts allow.
    pub async fn deliver(&self, transport: &Arc<Transport>, job: &Job) -> Vec<Outcome> {
        let mut outcomes = self.deliver_as_asked(transport, job).await;
        if let Some((lost, job)) = delivery::without_require_tls(job, &outcomes) {
            tracing::debug!(id = %job.id, "a report goes on without REQUIRETLS");
            for (at, outcome) in lost.into_iter().zip(self.deliver_as_asked(transport, &job).await) {
                outcomes[at] = outcome;
            }
        }
        outcomes
    }

    async fn deliver_as_asked(&self, transport: &Arc<Transport>, job: &Job) -> Vec<Outcome> {
        let Some(first) = job.recipients.first() else { return Vec::new() };
        let key = self.destination(transport, &first.address.domain);
        Delivery::new(&self.0, transport, job, key).run().await
    }

    /// Says QUIT on every idle connection and closes it.
    pub async fn close_idle(&self) {
        self.0.pool.close_all().await;
    }
}
