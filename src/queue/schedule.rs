//! When the next attempt is due: a pure function of the schedule, the message and the attempt's number.
//!
//! RFC 5321 §4.5.4.1: retry with growing intervals, give up after four to five days.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::RetrySchedule;
use crate::names::QueueId;

/// When the attempt after number `attempts` is due, or `None` when the message has grown too old to be tried again.
///
/// Chance is taken from the queue id and the attempt's number: recipients of one message stay together, and the
/// same message always has the same schedule, in the queue and in a simulation.
pub fn next_attempt(
    schedule: &RetrySchedule,
    id: QueueId,
    attempts: u32,
    received: Timestamp,
    now: Timestamp,
) -> Option<Timestamp> {
    if is_over(schedule, received, now) {
        return None;
    }
    let give_up = add(received, schedule.give_up_after);
    let wait = wait_after(schedule, attempts).mul_f64(1.0 + schedule.jitter * chance(id, attempts));
    // The last attempt is made at the very end, rather than not at all.
    Some(add(now, wait).min(give_up))
}

/// Whether a message has grown too old to be tried again.
pub fn is_over(schedule: &RetrySchedule, received: Timestamp, now: Timestamp) -> bool {
    now >= add(received, schedule.give_up_after)
}

/// The wait after attempt number `attempts`, before chance is added.
pub fn wait_after(schedule: &RetrySchedule, attempts: u32) -> Duration {
    let growth = schedule.factor.powi(attempts.saturating_sub(1).min(1_000) as i32);
    let wait = schedule.first.as_secs_f64() * growth;
    if wait.is_finite() && wait < schedule.max.as_secs_f64() {
        Duration::from_secs_f64(wait)
    } else {
        schedule.max
    }
}

/// Between -1 and 1, the same for the same message and attempt.
fn chance(id: QueueId, attempts: u32) -> f64 {
    // splitmix64: spreads numbers that follow each other all over the range.
    let mut x = id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(attempts));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    (x >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// `at + wait` in whole microseconds, as the spool keeps it; at most the end of time.
pub(super) fn add(at: Timestamp, wait: Duration) -> Timestamp {
    let sum = at.checked_add(wait).unwrap_or(Timestamp::MAX);
    Timestamp::from_microsecond(sum.as_microsecond()).unwrap_or(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> RetrySchedule {
        RetrySchedule {
            first: Duration::from_secs(450),
            factor: 2.0,
            max: Duration::from_hours(8),
            jitter: 0.0,
            give_up_after: Duration::from_hours(96),
        }
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let minutes: Vec<f64> = (1..=10).map(|n| wait_after(&schedule(), n).as_secs_f64() / 60.0).collect();
        assert_eq!(minutes, [7.5, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 480.0, 480.0, 480.0]);
        assert_eq!(wait_after(&schedule(), u32::MAX), Duration::from_hours(8));
    }

    #[test]
    fn a_message_is_given_up_when_it_is_too_old_and_not_before() {
        let (received, id) = (Timestamp::UNIX_EPOCH, QueueId(1));
        let at = |hours: f64| add(received, Duration::from_secs_f64(hours * 3600.0));
        assert_eq!(next_attempt(&schedule(), id, 1, received, at(0.0)), Some(at(0.125)));
        assert_eq!(
            next_attempt(&schedule(), id, 20, received, at(90.0)),
            Some(at(96.0)),
            "last one at the end"
        );
        assert_eq!(next_attempt(&schedule(), id, 21, received, at(96.0)), None);
    }

    #[test]
    fn chance_stays_in_bounds_and_is_the_same_each_time() {
        let schedule = RetrySchedule { jitter: 0.25, ..schedule() };
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..1000 {
            let ask =
                || next_attempt(&schedule, QueueId(number), 1, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
            let wait = ask().unwrap().duration_since(Timestamp::UNIX_EPOCH).as_secs_f64();
            assert!((337.5..=562.5).contains(&wait), "{wait}");
            assert_eq!(ask(), ask());
            seen.insert(ask());
        }
        assert!(seen.len() > 900, "waits of different messages differ: {}", seen.len());
    }
}
