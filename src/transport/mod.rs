//! Ways out: what a routing decision's transport does with a message.
//!
//! `direct` goes to the MX hosts of the recipients' domain, `smtp` to a smarthost. Both speak the same outbound SMTP
//! session and share connections per destination.

use std::fmt;
use std::sync::Arc;

use crate::address::Domain;
use crate::attempt::Attempt;
use crate::config::{Transport, TransportKind};
use crate::dns::Resolver;
use crate::envelope::Recipient;
use crate::names::QueueId;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::spool::NewMessage;

/// Delivers through every kind of transport. Cheap to clone.
#[derive(Clone)]
pub struct Engine(#[expect(dead_code)] Arc<Inner>);

#[expect(dead_code)]
struct Inner {
    resolver: Resolver,
    hostname: Domain,
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

impl Engine {
    /// An engine that gives `hostname` in EHLO where a transport says nothing else.
    pub fn new(resolver: Resolver, hostname: Domain) -> Self {
        Self(Arc::new(Inner { resolver, hostname }))
    }

    /// Where a transport goes with mail for a domain.
    pub fn destination(&self, transport: &Transport, domain: &Domain) -> DestinationKey {
        let name = &transport.name;
        DestinationKey(match &transport.kind {
            TransportKind::Direct { .. } => format!("{name}/{domain}"),
            TransportKind::Smtp { host, port } => format!("{name}/{host}:{port}"),
        })
    }

    /// Delivers a message; one outcome for each of the job's recipients, in their order.
    pub async fn deliver(&self, transport: &Arc<Transport>, job: &Job) -> Vec<Outcome> {
        let text = format!("transport {} cannot deliver yet", transport.name);
        let outcome = Outcome::ours(Verdict::Temporary, Stage::Connect, EnhancedCode::new(4, 3, 5), text);
        job.recipients.iter().map(|_| outcome.clone()).collect()
    }

    /// Says QUIT on every idle connection and closes it.
    pub async fn close_idle(&self) {}
}
