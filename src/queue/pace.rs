//! How fast a transport may go: pure bookkeeping of what began when.
//!
//! A window slides over the past: in no second, and in no minute, whenever it begins, do more messages begin than the
//! rate says. What the rate leaves may go at once. (A token bucket would let twice as many through in its first window,
//! or space all messages evenly.)

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// When a transport's last messages began.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Oldest first; as many as the rate looks back at.
    begun: VecDeque<Instant>,
}

impl Pace {
    /// Since when, or from when on, the next message may begin; `None` when nothing stands in its way.
    pub(super) fn free_at(&self, rate: Rate) -> Option<Instant> {
        let after = |max: Option<u32>, window| {
            let first = self.begun.len().checked_sub(max?.max(1) as usize)?;
            Some(*self.begun.get(first)? + window)
        };
        after(rate.per_second, SECOND).max(after(rate.per_minute, MINUTE))
    }

    /// Whether the next message may begin now.
    pub(super) fn is_free(&self, rate: Rate, now: Instant) -> bool {
        self.free_at(rate).is_none_or(|at| at <= now)
    }

    /// A message begins.
    pub(super) fn begin(&mut self, rate: Rate, now: Instant) {
        let looked_back_at = rate.per_second.max(rate.per_minute).map_or(0, |max| max.max(1) as usize);
        self.begun.push_back(now);
        let too_old = self.begun.len().saturating_sub(looked_back_at);
        self.begun.drain(..too_old);
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_forgotten(&self) -> bool {
        self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32, per_minute: u32) -> Rate {
        Rate {
            per_second: Some(per_second).filter(|max| *max > 0),
            per_minute: Some(per_minute).filter(|max| *max > 0),
        }
    }

    /// When the messages begin that arrive at these milliseconds, one after the other.
    fn begins(rate: Rate, arrivals: &[u64]) -> Vec<u64> {
        let start = Instant::now();
        let (mut pace, mut last) = (Pace::default(), start);
        let mut begun = Vec::new();
        for &arrival in arrivals {
            let at = (start + Duration::from_millis(arrival)).max(last);
            last = pace.free_at(rate).map_or(at, |free| free.max(at));
            assert!(pace.is_free(rate, last));
            pace.begin(rate, last);
            begun.push((last - start).as_millis() as u64);
        }
        begun
    }

    #[test]
    fn what_the_rate_leaves_goes_at_once_and_the_rest_waits() {
        for (rate, arrivals, expected) in [
            (rate(0, 0), vec![0, 0, 0], vec![0, 0, 0]),
            (rate(1, 0), vec![0, 0, 0], vec![0, 1000, 2000]),
            (rate(2, 0), vec![0, 0, 0, 0, 0], vec![0, 0, 1000, 1000, 2000]),
            // Not two in 500 to 1500, though one of them is of the next second by the clock.
            (rate(2, 0), vec![900, 900, 1000, 1100], vec![900, 900, 1900, 1900]),
            (rate(2, 0), vec![0, 700, 800, 2500], vec![0, 700, 1000, 2500]),
            (rate(0, 3), vec![0, 10, 20, 30, 40], vec![0, 10, 20, 60_000, 60_010]),
            // Both: a burst of one second, and no more than so many in a minute.
            (rate(2, 3), vec![0, 0, 0, 0, 0], vec![0, 0, 1000, 60_000, 60_000]),
            // The narrower one holds, whichever it is.
            (rate(5, 2), vec![0, 0, 0], vec![0, 0, 60_000]),
            (rate(1, 100), vec![0, 0, 0], vec![0, 1000, 2000]),
        ] {
            assert_eq!(begins(rate, &arrivals), expected, "{rate:?} {arrivals:?}");
        }
    }

    #[test]
    fn another_rate_holds_at_once_and_none_forgets() {
        let now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..3 {
            pace.begin(rate(3, 0), now);
        }
        assert!(!pace.is_free(rate(3, 0), now) && !pace.is_free(rate(1, 0), now));
        assert!(pace.is_free(rate(4, 0), now), "a wider rate needs nobody to wait");
        assert!(pace.is_free(rate(0, 0), now));
        pace.begin(rate(0, 0), now);
        assert!(pace.is_forgotten());
    }

    proptest! {
        /// However messages come, no window holds more than the rate says.
        #[test]
        fn no_window_holds_too_many(
            gaps in proptest::collection::vec(0u64..5_000, 1..200), per_second in 0u32..4, per_minute in 0u32..20,
        ) {
            let arrivals: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let begun = begins(rate(per_second, per_minute), &arrivals);
            for (max, window) in [(per_second, 1_000), (per_minute, 60_000)] {
                for (first, start) in begun.iter().enumerate().filter(|_| max > 0) {
                    let inside = begun[first..].iter().filter(|at| **at < start + window).count();
                    prop_assert!(inside <= max as usize, "{inside} from {start} on: {begun:?}");
                }
            }
        }
    }
}
