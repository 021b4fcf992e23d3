//! What the queue did, counted for metrics.

use crate::metrics::{Counter, Family, Page};
use crate::names::TransportName;
use crate::outcome::Verdict;
use crate::store::FinalState;

use super::Queue;

/// Counts since the server started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Messages taken, our own reports among them.
    pub messages: Counter,
    /// Their recipients.
    pub recipients: Counter,
    /// Attempts after which another follows.
    pub deferred: Counter,
    /// Times that no way could be chosen.
    pub undecided: Counter,
    attempts: Family<TransportName, [Counter; RESULTS.len()]>,
    finished: [Counter; STATES.len()],
}

const RESULTS: [(Verdict, &str); 3] =
    [(Verdict::Delivered, "delivered"), (Verdict::Temporary, "temporary"), (Verdict::Permanent, "permanent")];
const STATES: [FinalState; 4] =
    [FinalState::Delivered, FinalState::Failed, FinalState::Expired, FinalState::Removed];

impl Counts {
    /// An attempt of one recipient ended.
    pub fn attempt(&self, transport: &TransportName, verdict: Verdict) {
        let counts = self.attempts.of(transport);
        if let Some((_, count)) = RESULTS.iter().zip(&*counts).find(|((of, _), _)| *of == verdict) {
            count.inc();
        }
    }

    /// A recipient left the queue.
    pub fn finished(&self, state: FinalState) {
        if let Some((_, count)) = STATES.iter().zip(&self.finished).find(|(of, _)| **of == state) {
            count.inc();
        }
    }
}

impl Queue {
    /// Counts and the state of the moment, for Prometheus.
    pub fn write_metrics(&self, page: &mut Page) {
        let counts = &self.inner.counts;
        let help = "Messages taken into the queue, delivery reports of this server among them.";
        page.counter("waypost_queue_messages_accepted_total", help).add(&[], counts.messages.get());
        let help = "Recipients of the messages taken into the queue.";
        page.counter("waypost_queue_recipients_accepted_total", help).add(&[], counts.recipients.get());
        let help = "Recipients that left the queue: delivered, failed (refused for good), expired (given up after \
                    too long) or removed (by the operator).";
        let mut finished = page.counter("waypost_queue_recipients_finished_total", help);
        for (state, count) in STATES.iter().zip(&counts.finished) {
            finished.add(&[("state", state.as_str())], count.get());
        }
        let help = "Delivery attempts by transport and result, each recipient counted.";
        let mut attempts = page.counter("waypost_delivery_attempts_total", help);
        for (transport, by_result) in counts.attempts.all() {
            for ((_, result), count) in RESULTS.iter().zip(&*by_result) {
                attempts.add(&[("transport", transport.as_str()), ("result", result)], count.get());
            }
        }
        let help = "Recipients put off after an attempt that failed for now.";
        page.counter("waypost_queue_deferred_total", help).add(&[], counts.deferred.get());
        let help = "Recipients put off without an attempt, because a script failed or named no transport.";
        page.counter("waypost_queue_undecided_total", help).add(&[], counts.undecided.get());
        self.write_state(page);
    }

    fn write_state(&self, page: &mut Page) {
        let stats = self.stats();
        let help = "Recipients in the queue.";
        page.gauge("waypost_queue_recipients", help).add(&[], stats.recipients);
        let help = "Deliveries that run.";
        page.gauge("waypost_queue_running", help).add(&[], stats.running);
        let help = "Groups of recipients that are due and wait for a slot.";
        page.gauge("waypost_queue_in_line", help).add(&[], stats.in_line);
        let help = "When the next recipient is due that is neither held nor under way; it is in the past when the \
                    queue cannot keep up. 0 when there is none.";
        let next = self.inner.due.lock().next_due().map_or(0, jiff::Timestamp::as_second);
        page.gauge("waypost_queue_oldest_due_timestamp_seconds", help).add(&[], next);
        let spool = self.inner.parts.spool.stats();
        let help = "Bytes of the queue's log on disk that are still needed.";
        page.gauge("waypost_spool_live_bytes", help).add(&[], spool.live_bytes);
        let help = "Bytes that the queue's log takes on disk.";
        page.gauge("waypost_spool_disk_bytes", help).add(&[], spool.disk_bytes);
        let help = "Writes and syncs of the queue's log that failed.";
        page.counter("waypost_spool_failures_total", help).add(&[], spool.failures);
        let help = "Damaged records found in the queue's log.";
        page.counter("waypost_spool_damaged_total", help).add(&[], spool.damaged);
    }
}
