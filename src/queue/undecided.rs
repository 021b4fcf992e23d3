//! What becomes of a recipient for which no way could be chosen: it is asked about again in a short while, no attempt
//! is used up, and it never goes direct for that. When the message has grown too old, it is given up like any other: the
//! sender must learn of it.

use std::sync::Arc;

use jiff::Timestamp;

use super::bounce::{self, ReportKind, Told};
use super::dispatch::Subject;
use super::schedule::{self, add};
use super::{Inner, finished, shown};
use crate::attempt::Attempt;
use crate::config::Config;
use crate::message::dsn::Fate;
use crate::names::QueueId;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::spool::{NewMessage, Next, Settlement};

/// Defers the recipient, or gives it up. The operator learns what the problem is; the sender only that there was one.
pub(super) async fn put_off(
    inner: &Arc<Inner>,
    config: &Config,
    id: QueueId,
    message: &NewMessage,
    subject: &Subject,
    problem: String,
) {
    let now = crate::clock::now();
    // From here on nobody else ends it or tries it.
    if !inner.due.lock().begin(subject.turn(id)) {
        return;
    }
    if schedule::is_over(&config.queue.retry, message.received, now) {
        tracing::error!(
            id = shown(id),
            recipient = subject.recipient,
            problem,
            "no route until the end: given up"
        );
        match give_up(inner, config, id, message, subject, now).await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(id = shown(id), %error, "cannot queue a failure report: the recipient stays");
            }
        }
    }
    defer(inner, config, id, subject, problem, now).await;
}

/// A problem is written down once, not each time it is found again: a script that stays broken for days must not fill
/// the disk with the news. After a restart the recipient is then due at once, and asked about again.
async fn defer(
    inner: &Inner,
    config: &Config,
    id: QueueId,
    subject: &Subject,
    problem: String,
    now: Timestamp,
) {
    inner.counts.undecided.inc();
    let recipient = subject.recipient;
    let until = add(now, config.queue.script_error_retry);
    tracing::error!(id = shown(id), recipient, problem, %until, "no route: deferred without an attempt");
    if subject.deferral.as_ref() != Some(&problem) {
        let next = Next::Deferred { until, error: problem };
        let settlement = Settlement { recipient, attempt: None, next, delay_reported: false };
        if let Err(error) = inner.parts.spool.settle(id, vec![settlement]).await {
            tracing::error!(id = shown(id), %error, "cannot write down that a message was deferred");
        }
    }
    inner.due.lock().put_back(subject.turn(id), until, subject.attempts);
    inner.wake.notify_one();
}

/// The report is in the queue before the recipient is done. The history has it as an attempt without a decision.
async fn give_up(
    inner: &Arc<Inner>,
    config: &Config,
    id: QueueId,
    message: &NewMessage,
    subject: &Subject,
    now: Timestamp,
) -> Result<(), super::AcceptError> {
    // RFC 3463: 4.3.5, system incorrectly configured.
    let text = "no way to send the message on could be chosen in time";
    let outcome = Outcome::ours(Verdict::Temporary, Stage::Dns, EnhancedCode::new(4, 3, 5), text);
    let recipient = subject.recipient;
    let earlier = subject.history.clone();
    let told = Told { recipient, fate: Fate::Undecided, outcome: outcome.clone(), transport: None, earlier };
    bounce::report(inner, config, message, ReportKind::Failed, &[told], now).await?;
    let number = subject.attempts + 1;
    let attempt = Attempt { number, at: now, decision: None, outcome: Some(outcome), ended: Some(now) };
    let done = Settlement { recipient, attempt: Some(attempt), next: Next::Done, delay_reported: false };
    inner.finished.record(finished::finished(id, message, &done, &subject.history, now));
    inner.parts.spool.settle_later(id, vec![done]);
    inner.due.lock().remove(subject.turn(id));
    Ok(())
}
