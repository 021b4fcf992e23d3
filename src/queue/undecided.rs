//! What becomes of recipients for which no way could be chosen: they are asked about again in a short while, no attempt
//! is used up, and they never go direct for that. The sender is told when it takes long, and when the message has grown
//! too old it is given up like any other.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::bounce::{self, ReportKind, Told};
use super::dispatch::Subject;
use super::schedule::add;
use super::{AcceptError, Inner, finished, settle, shown};
use crate::attempt::{Attempt, Level};
use crate::config::Config;
use crate::message::dsn::Fate;
use crate::names::QueueId;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::spool::{NewMessage, Next, Settlement};

/// A recipient, and why nobody can say which way it goes.
type Undecided = (Subject, String);

/// Problems that are remembered so as not to be told all the time.
const PROBLEMS_MAX: usize = 1_000;

/// Defers recipients of a message, or gives them up. The operator learns what the problem is; the sender only that there
/// is one.
pub(super) async fn put_off(
    inner: &Arc<Inner>,
    config: &Config,
    id: QueueId,
    message: &NewMessage,
    mut undecided: Vec<Undecided>,
) {
    let now = crate::clock::now();
    {
        // From here on nobody else ends them or tries them.
        let mut due = inner.due.lock();
        undecided.retain(|(subject, _)| due.begin(subject.turn(id)));
    }
    let Some((_, problem)) = undecided.first() else { return };
    let again = settle::ask_again(&config.queue, message.received, now);
    if again.is_none() {
        tracing::error!(
            id = shown(id),
            recipients = undecided.len(),
            problem,
            "no route until the end: given up"
        );
        match give_up(inner, config, id, message, &undecided, now).await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(id = shown(id), %error, "cannot queue a failure report: the recipients stay");
            }
        }
    }
    let told = tell_of_delay(inner, config, id, message, &undecided, now).await;
    let until = again.unwrap_or_else(|| add(now, config.queue.script_error_retry));
    defer(inner, id, undecided, &told, now, until).await;
}

/// A problem is written down once, not each time it is found again: a script that stays broken for days must not fill
/// the disk with the news. After a restart the recipient is then due at once, and asked about again.
async fn defer(
    inner: &Inner,
    id: QueueId,
    undecided: Vec<Undecided>,
    told: &[u32],
    now: Timestamp,
    until: Timestamp,
) {
    inner.counts.undecided.add(undecided.len() as u64);
    let mut news = Vec::new();
    for (subject, problem) in &undecided {
        tracing::debug!(id = shown(id), recipient = subject.recipient, problem, %until, "no route");
        if let Some(recipients) = inner.problems.news(problem, now, until) {
            tracing::error!(problem, recipients, %until, "no route: deferred without an attempt");
        }
        let delay_reported = told.contains(&subject.recipient);
        if delay_reported || subject.deferral.as_ref() != Some(problem) {
            let next = Next::Deferred { until, error: problem.clone() };
            news.push(Settlement { recipient: subject.recipient, attempt: None, next, delay_reported });
        }
    }
    if !news.is_empty()
        && let Err(error) = inner.parts.spool.settle(id, news).await
    {
        tracing::error!(id = shown(id), %error, "cannot write down that a message was deferred");
    }
    let mut due = inner.due.lock();
    for (subject, _) in &undecided {
        due.put_back(subject.turn(id), until, subject.attempts);
    }
    drop(due);
    inner.wake.notify_one();
}

/// Tells the sender, once, that it takes long; of which recipients that was told.
async fn tell_of_delay(
    inner: &Arc<Inner>,
    config: &Config,
    id: QueueId,
    message: &NewMessage,
    undecided: &[Undecided],
    now: Timestamp,
) -> Vec<u32> {
    let wanted = |subject: &Subject| {
        let party = settle::Party {
            sender: &message.envelope.sender,
            recipient: &message.envelope.recipients[subject.recipient as usize],
            received: message.received,
            delay_reported: subject.delay_reported,
            level: Level::Default,
        };
        settle::tells_of_delay(party, &config.queue, now)
    };
    let late = undecided.iter().map(|(subject, _)| subject).filter(|subject| wanted(subject));
    let told: Vec<Told> = late.map(|subject| told(subject, Fate::Unrouted)).collect();
    if told.is_empty() {
        return Vec::new();
    }
    match bounce::report(inner, config, message, ReportKind::Delayed, &told, now).await {
        Ok(()) => told.iter().map(|told| told.recipient).collect(),
        Err(error) => {
            tracing::error!(id = shown(id), %error, "cannot queue a delay report");
            Vec::new()
        }
    }
}

/// The report is in the queue before the recipients are done. The history has it as an attempt without a decision.
async fn give_up(
    inner: &Arc<Inner>,
    config: &Config,
    id: QueueId,
    message: &NewMessage,
    undecided: &[Undecided],
    now: Timestamp,
) -> Result<(), AcceptError> {
    let told: Vec<Told> = undecided.iter().map(|(subject, _)| told(subject, Fate::Undecided)).collect();
    bounce::report(inner, config, message, ReportKind::Failed, &told, now).await?;
    let mut settlements = Vec::with_capacity(told.len());
    for ((subject, _), told) in undecided.iter().zip(told) {
        let (number, outcome) = (subject.attempts + 1, Some(told.outcome));
        let attempt = Attempt { number, at: now, decision: None, outcome, ended: Some(now) };
        let done = Settlement {
            recipient: subject.recipient,
            attempt: Some(attempt),
            next: Next::Done,
            delay_reported: false,
        };
        inner.finished.record(finished::finished(inner, id, message, &done, &subject.history, now));
        settlements.push(done);
    }
    inner.parts.spool.settle_later(id, settlements);
    let mut due = inner.due.lock();
    for (subject, _) in undecided {
        due.remove(subject.turn(id));
    }
    Ok(())
}

/// What the sender is told.
fn told(subject: &Subject, fate: Fate) -> Told {
    let when = if fate == Fate::Unrouted { "so far" } else { "in time" };
    let text = format!(
        "no way to send the message on could be chosen {when}, because of a mistake in the setup of this server"
    );
    // RFC 3463: 4.3.5, system incorrectly configured.
    let outcome = Outcome::ours(Verdict::Temporary, Stage::Dns, EnhancedCode::new(4, 3, 5), text);
    let (recipient, earlier) = (subject.recipient, subject.history.clone());
    Told { recipient, fate, outcome, transport: None, earlier }
}

/// The problems that the operator has been told of. A script that is broken fails for every recipient: the log has it
/// once in a while, with their number.
#[derive(Debug, Default)]
pub(super) struct Problems {
    said: Mutex<HashMap<String, Said>>,
}

#[derive(Debug)]
struct Said {
    /// Not to be said again before.
    until: Timestamp,
    /// Recipients that had it since it was said.
    recipients: usize,
}

impl Problems {
    /// A recipient had a problem. `Some` when it is to be said: with the number of recipients that had it since it was
    /// said last; then it is not said again before `until`.
    fn news(&self, problem: &str, now: Timestamp, until: Timestamp) -> Option<usize> {
        let mut said = self.said.lock();
        if let Some(known) = said.get_mut(problem) {
            known.recipients += 1;
            if now < known.until {
                return None;
            }
            known.until = until;
            return Some(std::mem::take(&mut known.recipients));
        }
        if said.len() >= PROBLEMS_MAX {
            said.clear();
        }
        said.insert(problem.to_owned(), Said { until, recipients: 0 });
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_said_once_in_a_while_with_the_number_of_those_who_have_it() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let problems = Problems::default();
        let news = |problem: &str, now| problems.news(problem, at(now), at(now + 60));
        assert_eq!(news("a", 0), Some(1));
        assert_eq!((news("a", 1), news("a", 59)), (None, None));
        assert_eq!(news("b", 59), Some(1), "another problem");
        assert_eq!(news("a", 60), Some(3));
        assert_eq!(news("a", 61), None);
        for number in 0..2 * PROBLEMS_MAX {
            assert_eq!(news(&number.to_string(), 62), Some(1));
        }
        assert!(problems.said.lock().len() <= PROBLEMS_MAX);
    }
}
