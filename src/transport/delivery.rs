//! One job from beginning to end: over kept connections and new ones, host after host, transaction after transaction,
//! until every recipient has its outcome.
//!
//! The order of things, and what ends the attempt, is in docs/transports.md.

use std::collections::HashSet;
use std::sync::Arc;

use super::classify::{Seen, failed_of_require_tls, sum_up, with_peer};
use super::fit::{Parameters, fit, mail, rcpt};
use super::open::Opener;
use super::plan::Plan;
use super::pool::transactions_max;
use super::session::Session;
use super::transaction::{Answer, Transaction};
use super::{DestinationKey, Inner, Job};
use crate::config::Transport;
use crate::envelope::{Recipient, ReversePath};
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::smtp::dot_stuff::{Stuffed, stuff};
use crate::spool::NewMessage;

/// A job on its way.
pub(super) struct Delivery<'a> {
    engine: &'a Inner,
    transport: &'a Arc<Transport>,
    job: &'a Job,
    key: DestinationKey,
    content: Stuffed,
    outcomes: Vec<Option<Outcome>>,
}

/// How a connection served us.
enum Served {
    /// Its recipients have their outcomes, or wait for the next transaction.
    Done,
    /// It was kept, and the peer had left before it answered anything: as if it had never been there.
    Stale,
    /// It broke. Recipients without an outcome may be tried elsewhere.
    Broken(Outcome),
}

impl<'a> Delivery<'a> {
    pub(super) fn new(
        engine: &'a Inner,
        transport: &'a Arc<Transport>,
        job: &'a Job,
        key: DestinationKey,
    ) -> Self {
        let content = stuff(&job.message.content);
        Self { engine, transport, job, key, content, outcomes: vec![None; job.recipients.len()] }
    }

    pub(super) async fn run(mut self) -> Vec<Outcome> {
        loop {
            let before = self.pending().len();
            if before == 0 {
                break;
            }
            let result = self.transact().await;
            // Every round settles somebody; if ever one does not, we must not go round for ever.
            let stuck = self.pending().len() == before;
            if let Some(outcome) = result.err().or_else(|| stuck.then(no_progress)) {
                for slot in self.outcomes.iter_mut().filter(|slot| slot.is_none()) {
                    *slot = Some(outcome.clone());
                }
            }
        }
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(no_progress)).collect()
    }

    /// Recipients without an outcome, as indexes.
    fn pending(&self) -> Vec<usize> {
        (0..self.outcomes.len()).filter(|at| self.outcomes[*at].is_none()).collect()
    }

    fn anybody_left(&self) -> bool {
        self.outcomes.iter().any(Option::is_none)
    }

    /// One transaction, on whatever connection will have it. The error is for all who are left: nobody was there.
    async fn transact(&mut self) -> Result<(), Outcome> {
        let mut failed = Vec::new();
        while let Some(session) = self.kept().await {
            match self.serve(session, true).await {
                Served::Done => return Ok(()),
                Served::Stale => {}
                Served::Broken(outcome) => {
                    failed.push(outcome);
                    break;
                }
            }
        }
        self.on_a_new_connection(failed).await
    }

    async fn kept(&self) -> Option<Session> {
        let require_tls = self.job.message.envelope.require_tls;
        let good = |session: &Session| !require_tls || (session.verified && session.extensions.require_tls);
        self.engine.pool.take(&self.key, self.transport, good).await
    }

    async fn on_a_new_connection(&mut self, mut failed: Vec<Outcome>) -> Result<(), Outcome> {
        let engine = self.engine;
        let resolver = &engine.resolver;
        let Some(first) = self.job.recipients.first().filter(|_| self.anybody_left()) else { return Ok(()) };
        let domain = &first.address.domain;
        let require_tls = self.job.message.envelope.require_tls;
        let plan = Plan::make(resolver, self.transport, domain, &self.job.previous, require_tls).await;
        let mut plan = plan.map_err(|outcome| super::as_seen_over(Some(self.transport), outcome))?;
        while let Some(next) = plan.next(resolver).await {
            let outcome = match next {
                Err(no_address) => no_address,
                Ok(peer) => match self.opener().open(&peer).await {
                    Err(failure) if failure.is_the_proxys() => return Err(failure.outcome(&Seen::default())),
                    Err(failure) => failure.outcome(&peer.seen()),
                    Ok(session) => match self.serve(session, false).await {
                        Served::Done | Served::Stale => return Ok(()),
                        Served::Broken(outcome) => outcome,
                    },
                },
            };
            self.log_failed(&outcome);
            if !self.anybody_left() {
                return Ok(());
            }
            failed.push(super::as_seen_over(Some(self.transport), outcome));
        }
        Err(sum_up(failed).unwrap_or_else(no_progress))
    }

    fn opener(&self) -> Opener<'a> {
        Opener::of(self.engine, self.transport, self.job.message.envelope.require_tls)
    }

    fn log_failed(&self, outcome: &Outcome) {
        let (id, transport) = (self.job.id, self.transport.name.as_str());
        let (host, ip) = (outcome.host.as_deref(), outcome.ip);
        tracing::debug!(%id, transport, host, ?ip, stage = %outcome.stage, text = outcome.text, "host failed");
    }

    /// Runs one transaction on a session, and keeps or closes it.
    async fn serve(&mut self, mut session: Session, kept: bool) -> Served {
        let Some((batch, with)) = self.fitting(&session) else {
            self.engine.pool.put(self.key.clone(), self.transport, session).await;
            return Served::Done;
        };
        let recipients = self.recipients(&batch);
        let mut transaction = self.transaction(&session, &recipients, &with);
        let last = session.transactions + 1 >= transactions_max(self.transport, &session)
            || self.transport.common.keep_idle.is_zero();
        let result = session.run(&mut transaction, &self.content, last).await;
        let failure = result.err();
        if failure.is_some() && kept && !transaction.mail_answered() {
            return Served::Stale;
        }
        let mut answers = transaction.answers(failure.as_ref(), &session.seen);
        for answer in &mut answers {
            if let Answer::Final(outcome) = answer {
                outcome.dsn_passed_on = with.dsn && outcome.verdict == Verdict::Delivered;
            }
        }
        self.settle(&batch, answers);
        match failure {
            Some(failure) => Served::Broken(failure.outcome(&session.seen)),
            None => {
                self.engine.pool.put(self.key.clone(), self.transport, session).await;
                Served::Done
            }
        }
    }

    /// Who goes into the next transaction, and with which parameters. Whom the peer cannot serve has the outcome here;
    /// somebody whose address needs SMTPUTF8 does not keep the others from getting their mail.
    fn fitting(&mut self, session: &Session) -> Option<(Vec<usize>, Parameters)> {
        let message = &self.job.message;
        let mut batch = self.batch(session);
        while !batch.is_empty() {
            let recipients = self.recipients(&batch);
            let (peer, verified) = (&session.extensions, session.verified);
            let unfit = match fit(&message.envelope, &recipients, &message.content, peer, verified) {
                Ok(with) => return Some((batch, with)),
                Err(unfit) => unfit,
            };
            let needs_utf8 = |at: &usize| self.job.recipients[*at].address.needs_smtputf8();
            let (mut refused, mut rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(needs_utf8);
            if refused.is_empty() {
                std::mem::swap(&mut refused, &mut rest);
            }
            let outcome = Outcome::ours(Verdict::Permanent, Stage::Mail, unfit.enhanced, unfit.text);
            let outcome = with_peer(outcome, &session.seen);
            self.settle(&refused, refused.iter().map(|_| Answer::Final(outcome.clone())).collect());
            batch = rest;
        }
        None
    }

    fn recipients(&self, batch: &[usize]) -> Vec<&'a Recipient> {
        batch.iter().map(|at| &self.job.recipients[*at]).collect()
    }

    /// Who goes into the next transaction: as many as operator and peer allow (RFC 9422 §4: of so many domains).
    fn batch(&self, session: &Session) -> Vec<usize> {
        let peer = &session.extensions;
        let ours = self.transport.common.recipients_max.max(1);
        let max = peer.recipients_max.map_or(ours, |theirs| ours.min(theirs));
        let mut batch = self.pending();
        if let Some(domains_max) = peer.recipient_domains_max {
            let mut domains = HashSet::new();
            batch.retain(|at| {
                let domain = &self.job.recipients[*at].address.domain;
                domains.contains(domain) || (domains.len() < domains_max && domains.insert(domain))
            });
        }
        batch.truncate(max);
        batch
    }

    fn transaction(&self, session: &Session, recipients: &[&Recipient], with: &Parameters) -> Transaction {
        let rcpts = recipients.iter().map(|recipient| rcpt(recipient, with)).collect();
        let mail = mail(&self.job.message.envelope, with);
        Transaction::new(mail, rcpts, session.extensions.pipelining, session.left_open())
    }

    fn settle(&mut self, batch: &[usize], answers: Vec<Answer>) {
        for (at, answer) in batch.iter().zip(answers) {
            if let Answer::Final(outcome) = answer {
                self.outcomes[*at] = Some(super::as_seen_over(Some(self.transport), outcome));
            }
        }
    }
}

/// A message from the null sender is a report, and a report that failed of REQUIRETLS is not lost for it (RFC 8689 §5):
/// whom that concerns, and the job that goes to them as any other mail over the transport.
pub(super) fn without_require_tls(job: &Job, outcomes: &[Outcome]) -> Option<(Vec<usize>, Job)> {
    let envelope = &job.message.envelope;
    if !envelope.require_tls || envelope.sender != ReversePath::Null {
        return None;
    }
    let lost: Vec<usize> = (0..outcomes.len()).filter(|at| failed_of_require_tls(&outcomes[*at])).collect();
    let recipients = lost.iter().map(|at| job.recipients[*at].clone()).collect();
    let mut message = NewMessage::clone(&job.message);
    message.envelope.require_tls = false;
    (!lost.is_empty()).then(|| (lost, Job { message: Arc::new(message), recipients, ..job.clone() }))
}

/// Said where no other words are left; it should never be seen.
pub(super) fn no_progress() -> Outcome {
    let text = "no host could be tried";
    Outcome::ours(Verdict::Temporary, Stage::Connect, EnhancedCode::new(4, 4, 0), text)
}
