//! Telling the sender: a failure report goes into the queue from the null sender, so that it never causes another.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use jiff::Timestamp;

use super::{AcceptError, Inner, Queue, shown};
use crate::config::Config;
use crate::envelope::{BodyType, Envelope, Ret, ReversePath};
use crate::message::dsn::{FailedRecipient, FailureReport, RETURNED_BYTES_MAX};
use crate::names::QueueId;
use crate::outcome::Outcome;
use crate::spool::{NewMessage, Origin};

/// A recipient that failed for good.
pub(super) struct Bounced {
    pub recipient: u32,
    pub outcome: Outcome,
    pub transport: Option<String>,
    pub attempts: u32,
    pub expired: bool,
}

/// Queues a report about these recipients, unless nobody wants one (RFC 3461 §4.1: NOTIFY; RFC 5321 §6.1: null sender).
pub(super) async fn report(
    inner: &Arc<Inner>,
    config: &Config,
    message: &NewMessage,
    failed: &[Bounced],
    now: Timestamp,
) -> Result<(), AcceptError> {
    let envelope = &message.envelope;
    let ReversePath::Mailbox(to) = &envelope.sender else { return Ok(()) };
    let recipients: Vec<FailedRecipient> = failed
        .iter()
        .filter(|f| envelope.recipients[f.recipient as usize].notify.is_none_or(|n| n.failure))
        .map(|f| FailedRecipient {
            address: envelope.recipients[f.recipient as usize].address.clone(),
            orcpt: envelope.recipients[f.recipient as usize].orcpt.clone(),
            outcome: f.outcome.clone(),
            transport: f.transport.clone(),
            attempts: f.attempts,
            last_attempt: now,
            expired: f.expired,
        })
        .collect();
    if recipients.is_empty() {
        return Ok(());
    }
    let unique = format!("{}.{}.dsn", now.as_microsecond(), inner.reports.fetch_add(1, Ordering::Relaxed));
    let whole = if message.content.len() <= RETURNED_BYTES_MAX { Ret::Full } else { Ret::Headers };
    let content = FailureReport {
        reporting_mta: &config.hostname,
        unique: &unique,
        date: now,
        to,
        envid: envelope.envid.as_deref(),
        arrival: message.received,
        recipients: &recipients,
        original: &message.content,
        ret: envelope.ret.unwrap_or(whole),
    }
    .to_message();
    let mut report = Envelope::new(ReversePath::Null, [to.clone()]);
    report.smtputf8 = envelope.smtputf8;
    if !content.is_ascii() {
        report.body = BodyType::EightBitMime;
    }
    let message = NewMessage {
        envelope: report,
        account: None,
        received: now,
        origin: Origin { session: String::new(), protocol: "DSN".into(), ip: None, helo: None },
        content: Bytes::from(content),
    };
    let id = take(inner.clone(), message).await?;
    tracing::info!(id = shown(id), %to, recipients = recipients.len(), "failure reported to the sender");
    Ok(())
}

/// Boxed and named: a report is dispatched, and dispatching may report.
fn take(inner: Arc<Inner>, message: NewMessage) -> BoxedAccept {
    Box::pin(async move { Queue { inner }.take(message).await })
}

type BoxedAccept = Pin<Box<dyn Future<Output = Result<QueueId, AcceptError>> + Send>>;
