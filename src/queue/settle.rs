//! What an outcome means for a recipient: done, again later, or bounce. Pure.

use jiff::Timestamp;

use super::schedule;
use crate::config::RetrySchedule;
use crate::names::QueueId;
use crate::outcome::{Outcome, Verdict};

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
