//! What an outcome means for a recipient: done, again later, or bounce; and what the sender is told of it. Pure.

use jiff::Timestamp;

use super::bounce;
use super::schedule::{self, add};
use crate::attempt::Level;
use crate::config::{self, RetrySchedule};
use crate::envelope::{Recipient, ReversePath};
use crate::message::dsn::Fate;
use crate::names::QueueId;
use crate::outcome::{Outcome, Verdict};
use crate::spool;

/// The recipient whose attempt ended.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// Its message.
    pub id: QueueId,
    /// Attempts made, the one that ended included.
    pub attempts: u32,
    /// When the message was accepted.
    pub received: Timestamp,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Delivered.
    Done,
    /// Another attempt.
    Retry(Timestamp),
    /// No further attempt: report the failure to the sender.
    Bounce(Why),
}

/// Why there is no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The peer (or we) said so.
    Permanent,
    /// The message has grown too old.
    Expired,
}

/// Says what follows from an outcome.
pub fn settle(item: Item, outcome: &Outcome, retry: &RetrySchedule, now: Timestamp) -> Next {
    match outcome.verdict {
        Verdict::Delivered => Next::Done,
        Verdict::Permanent => Next::Bounce(Why::Permanent),
        Verdict::Temporary => match schedule::next_attempt(retry, item.id, item.attempts, item.received, now)
        {
            Some(at) => Next::Retry(at),
            None => Next::Bounce(Why::Expired),
        },
    }
}

/// Whom an outcome concerns.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    /// The reverse-path.
    pub sender: &'a ReversePath,
    /// The recipient, with the reports that are wanted.
    pub recipient: &'a Recipient,
    /// When the message was accepted.
    pub received: Timestamp,
    /// The sender knows already that it takes long.
    pub delay_reported: bool,
    /// Who chose the way.
    pub level: Level,
}

/// What is written down about what follows an outcome, and what of it the sender is to be told.
pub fn follows(
    party: Party<'_>,
    outcome: &Outcome,
    next: Next,
    queue: &config::Queue,
    now: Timestamp,
) -> (spool::Next, Option<Fate>) {
    let wanted = |fate: Fate| bounce::wanted(party.sender, party.recipient, fate).then_some(fate);
    match next {
        Next::Done if party.level == Level::Local => (spool::Next::Done, wanted(Fate::Delivered)),
        // RFC 3461 §5.2.2: a peer that knows DSN reports success itself.
        Next::Done if outcome.dsn_passed_on => (spool::Next::Done, None),
        Next::Done => (spool::Next::Done, wanted(Fate::Relayed)),
        // Told even if the sender is not: the administrator may want to know.
        Next::Bounce(Why::Permanent) => (spool::Next::Done, Some(Fate::Refused)),
        Next::Bounce(Why::Expired) => (spool::Next::Done, Some(Fate::Expired)),
        Next::Retry(at) => {
            let delayed_at = queue.delay_report_after.map(|after| add(party.received, after));
            match delayed_at.filter(|_| !party.delay_reported && wanted(Fate::Delayed).is_some()) {
                Some(delayed_at) if now >= delayed_at => (spool::Next::Retry(at), Some(Fate::Delayed)),
                // What the report tells is to be fresh.
                Some(delayed_at) => (spool::Next::Retry(at.min(delayed_at)), None),
                None => (spool::Next::Retry(at), None),
            }
        }
    }
}

/// Whether the sender is told now that the message waits, because no way could be chosen.
pub fn tells_of_delay(party: Party<'_>, queue: &config::Queue, now: Timestamp) -> bool {
    !party.delay_reported
        && queue.delay_report_after.is_some_and(|after| now >= add(party.received, after))
        && bounce::wanted(party.sender, party.recipient, Fate::Unrouted)
}

/// When a recipient for which no way could be chosen is asked about again; `None` when it is given up.
pub fn ask_again(queue: &config::Queue, received: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (!schedule::is_over(&queue.retry, received, now)).then(|| add(now, queue.script_error_retry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{EnhancedCode, Stage};
    use std::time::Duration;

    #[test]
    fn each_outcome_has_its_consequence() {
        let retry = RetrySchedule {
            first: Duration::from_mins(1),
            factor: 2.0,
            max: Duration::from_hours(1),
            jitter: 0.0,
            give_up_after: Duration::from_hours(2),
        };
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let item = |attempts| Item { id: QueueId(7), attempts, received: at(0) };
        let outcome = |verdict| Outcome::ours(verdict, Stage::Data, EnhancedCode::new(4, 0, 0), "");
        for (verdict, attempts, now, next) in [
            (Verdict::Delivered, 1, 10, Next::Done),
            (Verdict::Delivered, 9, 99_999, Next::Done),
            (Verdict::Permanent, 1, 10, Next::Bounce(Why::Permanent)),
            (Verdict::Temporary, 1, 10, Next::Retry(at(70))),
            (Verdict::Temporary, 3, 10, Next::Retry(at(250))),
            (Verdict::Temporary, 12, 7_199, Next::Retry(at(7_200))),
            (Verdict::Temporary, 13, 7_200, Next::Bounce(Why::Expired)),
        ] {
            assert_eq!(
                settle(item(attempts), &outcome(verdict), &retry, at(now)),
                next,
                "{verdict:?} {attempts} {now}"
            );
        }
    }
}
