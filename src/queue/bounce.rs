//! Telling the sender: a report goes into the queue from the null sender, so that it never causes another.
//!
//! Who is told what is decided by [`wanted`]: RFC 3461 §4.1 (NOTIFY), RFC 5321 §6.1 (null sender). A local sender's
//! report is delivered like any other mail to a mailbox here. RFC 8689 §5: reports about mail with REQUIRETLS.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use jiff::Timestamp;

use super::schedule::add;
use super::{AcceptError, Inner, Queue, shown};
use crate::address::Mailbox;
use crate::attempt::Attempt;
use crate::config::{Config, Lookup};
use crate::envelope::{BodyType, Envelope, Recipient, Ret, ReversePath};
use crate::message::dsn::{Fate, Kind, RETURNED_BYTES_MAX, Report, Reported};
use crate::names::QueueId;
use crate::outcome::Outcome;
use crate::spool::{NewMessage, Origin};

/// How reports of ours came to us: by this a message is known to be one.
pub(super) const PROTOCOL: &str = "DSN";

/// A recipient of which there is something to tell.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub recipient: u32,
    pub fate: Fate,
    pub outcome: Outcome,
    pub transport: Option<String>,
    /// The attempts before the last.
    pub earlier: Vec<Attempt>,
}

/// Whether the sender wants to know about this (RFC 3461 §4.1). Who did not say anything is told of failures and of
/// delays.
pub(super) fn wanted(sender: &ReversePath, recipient: &Recipient, fate: Fate) -> bool {
    *sender != ReversePath::Null
        && match fate {
            Fate::Refused | Fate::Expired | Fate::Undecided | Fate::GivenUp | Fate::Damaged => {
                recipient.notify.is_none_or(|n| n.failure)
            }
            Fate::Delayed | Fate::Unrouted => recipient.notify.is_none_or(|n| n.delay),
            Fate::Delivered | Fate::Relayed => recipient.notify.is_some_and(|n| n.success),
        }
}

/// Queues a report about those recipients of which the sender wants to know, and of failures a copy for the
/// administrator where there is one.
pub(super) async fn report(
    inner: &Arc<Inner>,
    config: &Config,
    message: &NewMessage,
    kind: ReportKind,
    told: &[Told],
    now: Timestamp,
) -> Result<(), AcceptError> {
    let envelope = &message.envelope;
    let of = |t: &Told| &envelope.recipients[t.recipient as usize];
    let kind = match kind {
        ReportKind::Failed => Kind::Failed,
        ReportKind::Delayed => {
            Kind::Delayed { until: add(message.received, config.queue.retry.give_up_after) }
        }
        ReportKind::Succeeded => Kind::Succeeded,
    };
    if let ReversePath::Mailbox(to) = &envelope.sender {
        let told = told.iter().filter(|t| wanted(&envelope.sender, of(t), t.fate));
        let recipients: Vec<Reported> = told.map(|t| reported(of(t), t, now)).collect();
        send(inner, config, message, Letter { kind, to, copy: false, recipients }, now).await?;
    }
    if let (Kind::Failed, Some(to)) = (kind, &config.queue.failure_copies_to) {
        // What cannot be delivered to the administrator is not told to the administrator.
        let told = told.iter().filter(|t| of(t).address != *to);
        let recipients: Vec<Reported> = told.map(|t| reported(of(t), t, now)).collect();
        send(inner, config, message, Letter { kind, to, copy: true, recipients }, now).await?;
    }
    Ok(())
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReportKind {
    Failed,
    Delayed,
    Succeeded,
}

fn reported(recipient: &Recipient, told: &Told, now: Timestamp) -> Reported {
    Reported {
        address: recipient.address.clone(),
        orcpt: recipient.orcpt.clone(),
        fate: told.fate,
        outcome: told.outcome.clone(),
        transport: told.transport.clone(),
        earlier: told.earlier.clone(),
        last_attempt: last_attempt(told, now),
    }
}

/// When the last attempt ended: just now, where that is what is told of.
fn last_attempt(told: &Told, now: Timestamp) -> Option<Timestamp> {
    match told.fate {
        Fate::Refused | Fate::Expired | Fate::Delayed | Fate::Delivered | Fate::Relayed => Some(now),
        Fate::Undecided | Fate::Unrouted | Fate::GivenUp | Fate::Damaged => {
            told.earlier.last().map(|attempt| attempt.ended.unwrap_or(attempt.at))
        }
    }
}

/// A report before it is written.
struct Letter<'a> {
    kind: Kind,
    to: &'a Mailbox,
    /// For the administrator, not for the sender.
    copy: bool,
    recipients: Vec<Reported>,
}

async fn send(
    inner: &Arc<Inner>,
    config: &Config,
    message: &NewMessage,
    letter: Letter<'_>,
    now: Timestamp,
) -> Result<(), AcceptError> {
    let Letter { kind, to, copy, recipients } = letter;
    if recipients.is_empty() {
        return Ok(());
    }
    let envelope = &message.envelope;
    let unique = format!("{}.{}.dsn", now.as_microsecond(), inner.reports.fetch_add(1, Ordering::Relaxed));
    // A mailbox here takes eight bits, and so does every server on the way to an address beyond ASCII (RFC 6531 §3.1).
    let eight_bit = to.needs_smtputf8() || !matches!(config.lookup(to), Lookup::Foreign);
    // Of a message that does not read back there is only the header.
    let damaged = recipients.iter().any(|recipient| recipient.fate == Fate::Damaged);
    let whole = if message.content.len() <= RETURNED_BYTES_MAX { Ret::Full } else { Ret::Headers };
    let content = Report {
        kind,
        reporting_mta: &config.hostname,
        unique: &unique,
        date: now,
        to,
        copy_about: copy.then_some(&envelope.sender),
        envid: envelope.envid.as_deref(),
        arrival: message.received,
        recipients: &recipients,
        original: &message.content,
        eight_bit,
        // What people write to each other is not for administrators, and what needed TLS not for the way back, which may
        // have less (RFC 8689 §5).
        ret: if copy || damaged || envelope.require_tls {
            Ret::Headers
        } else {
            envelope.ret.unwrap_or(whole)
        },
    }
    .to_message();
    let mut report = Envelope::new(ReversePath::Null, [to.clone()]);
    report.smtputf8 = to.needs_smtputf8();
    // RFC 8689 §5: the header in it is protected as it was in the message.
    report.require_tls = envelope.require_tls;
    if !content.is_ascii() {
        report.body = BodyType::EightBitMime;
    }
    let message = NewMessage {
        envelope: report,
        account: None,
        received: now,
        origin: Origin { session: String::new(), protocol: PROTOCOL.into(), ip: None, helo: None },
        content: Bytes::from(content),
    };
    let id = take(inner.clone(), message).await?;
    tracing::info!(id = shown(id), %to, recipients = recipients.len(), ?kind, copy, "report queued");
    Ok(())
}

/// Boxed and named: a report is dispatched, and dispatching may report.
fn take(inner: Arc<Inner>, message: NewMessage) -> BoxedAccept {
    Box::pin(async move { Queue { inner }.take(message).await })
}

type BoxedAccept = Pin<Box<dyn Future<Output = Result<QueueId, AcceptError>> + Send>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Notify;

    #[test]
    fn who_is_told_what() {
        let sender = ReversePath::try_from("ann@ours.test".to_owned()).unwrap();
        let fates =
            [Fate::Refused, Fate::Expired, Fate::Damaged, Fate::Unrouted, Fate::Delivered, Fate::Relayed];
        let notify = |success, failure, delay| Some(Notify { success, failure, delay });
        for (from, notify, expected) in [
            (&sender, None, [true, true, true, true, false, false]),
            (&sender, notify(false, false, false), [false; 6]),
            (&sender, notify(false, true, false), [true, true, true, false, false, false]),
            (&sender, notify(false, false, true), [false, false, false, true, false, false]),
            (&sender, notify(true, false, false), [false, false, false, false, true, true]),
            (&sender, notify(true, true, true), [true; 6]),
            (&ReversePath::Null, None, [false; 6]),
            (&ReversePath::Null, notify(true, true, true), [false; 6]),
        ] {
            let mut recipient = Recipient::from(Mailbox::parse("user@outside.test").unwrap());
            recipient.notify = notify;
            assert_eq!(fates.map(|fate| wanted(from, &recipient, fate)), expected, "{from:?} {notify:?}");
        }
    }
}
