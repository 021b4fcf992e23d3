//! The queue: takes mail, decides its way on every attempt, delivers it, and settles what came of it.
//!
//! A message's life (one file each step):
//! [`accept`](Queue::accept) makes it durable -> `dispatch` gathers the facts, asks the scripts and groups recipients
//! that share transport and destination -> `slots` says when a group may run, `pace` how fast -> `attempt` writes the attempt down,
//! hands the group to the transport and settles each outcome -> `due` keeps what comes back, `pump` takes it out again
//! when its time has come. `bounce` tells the sender of what failed for good.
//!
//! [`facts`], [`schedule`] and [`settle`] are pure; [`life`] goes through them in virtual time with made-up
//! [`answer`]s, for explanations and simulations.
//!
//! RFC 5321 §4.5.4.1 (retries), §6.1 (responsibility after 250).

mod accept;
pub mod answer;
mod attempt;
mod bounce;
mod controls;
mod damaged;
mod dispatch;
mod due;
mod explain;
pub mod facts;
mod finished;
mod hold_rules;
pub mod life;
mod listing;
mod metrics;
mod pace;
mod pump;
mod rerouted;
pub mod schedule;
pub mod settle;
mod sieve;
mod slots;
mod suppressions;
#[cfg(test)]
mod tests;
mod undecided;
mod waiting;
mod walk;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use accept::AcceptError;
pub use controls::{Action, Done};
pub use explain::{
    ExplainedAttempt, ExplainedMessage, ExplainedRecipient, MadeAttempt, MessageQuestion, NextAttempt,
    Oracle, Records, ScriptNow,
};
pub use hold_rules::Held;
pub use listing::{Filter, InLine, ListedMessage, ListedRecipient, Page, QueueError, Stats};
pub use rerouted::{Moved, Rerouted};

pub use suppressions::{SuppressionFilter, SuppressionPage, no_such_recipient};
pub use waiting::{WaitingPage, WaitingRecipient, WayNow};

use crate::config::Config;
use crate::dns::Resolver;
use crate::names::QueueId;
use crate::route::{Router, ScriptSet};
use crate::spool::{Next, Settlement, Spool, Waiting};
use crate::store::{Store, StoreError};
use crate::transport::Engine;
use due::{Due, Entry, Turn};
use hold_rules::HoldRules;
use slots::Slots;
use suppressions::Suppressions;

/// Deliveries that are cut off end at once, save those that are writing down what came of them.
const CUT_OFF_PATIENCE: Duration = Duration::from_secs(10);

/// What the queue works with.
#[derive(Clone)]
pub struct Parts {
    /// The configuration now.
    pub config: Arc<ArcSwap<Config>>,
    /// Where messages are kept.
    pub spool: Spool,
    /// Mailboxes and history.
    pub store: Store,
    /// The routing scripts.
    pub router: Arc<Router>,
    /// The transports.
    pub engine: Engine,
    /// For the MX names that a script asks for.
    pub resolver: Resolver,
}

/// The queue; cheap to clone.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    due: Mutex<Due>,
    slots: Mutex<Slots<dispatch::Group>>,
    rules: HoldRules,
    suppressions: Suppressions,
    /// Something is due earlier than the pump knows.
    wake: Notify,
    /// What the last change of the scripts meant for those who wait.
    rerouted: Mutex<Option<Rerouted>>,
    /// Bytes of messages that wait in line with their bodies in memory.
    memory_bytes: Arc<AtomicUsize>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    /// The end: deliveries that still run are cut off.
    cut_off: CancellationToken,
    problems: undecided::Problems,
    finished: finished::Recorder,
    counts: Arc<metrics::Counts>,
    reports: AtomicUsize,
}

impl Queue {
    /// Starts the queue with what the spool found on disk, and the store about it.
    pub async fn start(parts: Parts, waiting: Vec<Waiting>) -> Result<Self, StoreError> {
        let rules = HoldRules::load(&parts.store).await?;
        let suppressions = Suppressions::load(&parts.store).await?;
        let mut due = Due::default();
        for item in waiting {
            let entry = Entry { held: item.held, labels: item.labels, ..Entry::new(item.due, item.attempts) };
            due.put((item.id, item.recipient), entry);
        }
        let tasks = TaskTracker::new();
        let concurrency = parts.config.load().queue.concurrency;
        let counts = Arc::<metrics::Counts>::default();
        let finished = finished::Recorder::start(parts.store.clone(), counts.clone());
        let inner = Arc::new(Inner {
            parts,
            due: Mutex::new(due),
            slots: Mutex::new(Slots::new(concurrency)),
            rules,
            suppressions,
            wake: Notify::new(),
            rerouted: Mutex::new(None),
            memory_bytes: Arc::default(),
            tasks,
            stopping: CancellationToken::new(),
            cut_off: CancellationToken::new(),
            problems: undecided::Problems::default(),
            finished,
            counts,
            reports: AtomicUsize::new(0),
        });
        inner.tasks.spawn(pump::run(inner.clone()));
        let running = inner.parts.router.current();
        inner.tasks.spawn(follow_routes(inner.clone(), running));
        inner.tasks.spawn(finished::forget_old(inner.clone()));
        Ok(Self { inner })
    }

    /// After the routes or the transports changed: what waits in line for a slot is asked about again, so that a message
    /// does not wait for a way that the scripts no longer choose.
    pub fn routes_changed(&self) {
        let config = self.inner.parts.config.load();
        let taken = {
            let mut slots = self.inner.slots.lock();
            slots.set_total_max(config.queue.concurrency);
            slots.take_waiting()
        };
        let now = crate::clock::now();
        for group in &taken {
            self.inner.put_back(group.turns(), now);
        }
    }

    /// Begins no further attempt, waits for those that run (at most `patience`), and writes down what came of them.
    /// What is still running then is cut off, so that no peer takes a message whose outcome nobody would write down; it is
    /// tried again at the next start.
    pub async fn stop(&self, patience: Duration) {
        self.inner.stopping.cancel();
        self.inner.wake.notify_one();
        self.inner.tasks.close();
        if tokio::time::timeout(patience, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(
                running = self.inner.slots.lock().running(),
                "stopping while deliveries still run: they are cut off, and tried again at the next start"
            );
            self.inner.cut_off.cancel();
            if tokio::time::timeout(CUT_OFF_PATIENCE, self.inner.tasks.wait()).await.is_err() {
                tracing::error!("deliveries that were cut off do not end");
            }
        }
        self.inner.withdraw_unbegun();
        self.inner.finished.close().await;
    }
}

impl Inner {
    /// Before the end: of what was accepted in this run and never got a slot, the record says that attempt 1 has begun.
    /// That is taken back, so that the attempt is not missing after the restart.
    fn withdraw_unbegun(&self) {
        let in_line = self.slots.lock().take_waiting();
        let now = crate::clock::now();
        for group in &in_line {
            self.put_back(group.turns(), now);
        }
        let due = self.due.lock();
        let unbegun = due.after(None).filter(|(_, entry)| entry.is_unbegun());
        for (&(id, recipient), entry) in unbegun {
            let error = "the server was stopped before the first attempt".to_owned();
            let next = Next::Deferred { until: entry.due, error };
            let settlement = Settlement { recipient, attempt: None, next, delay_reported: false };
            self.parts.spool.settle_later(id, vec![settlement]);
        }
    }

    /// Recipients become due (again) without an attempt having been made.
    fn put_back(&self, turns: impl Iterator<Item = Turn>, at: jiff::Timestamp) {
        {
            let mut due = self.due.lock();
            for turn in turns {
                if let Some(attempts) = due.get(turn.key).map(|e| e.attempts) {
                    due.put_back(turn, at, attempts);
                }
            }
        }
        self.wake.notify_one();
    }

    fn stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }
}

/// Whenever other scripts run, what waits in line is asked about again, and then it is looked at who goes elsewhere now.
async fn follow_routes(inner: Arc<Inner>, mut running: Arc<ScriptSet>) {
    let mut changes = inner.parts.router.changes();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = inner.stopping.cancelled() => return,
        }
        Queue { inner: inner.clone() }.routes_changed();
        let new = inner.parts.router.current();
        let old = std::mem::replace(&mut running, new.clone());
        if old.hash() == new.hash() {
            continue;
        }
        tokio::select! {
            () = rerouted::compare(&inner, &old, &new) => {}
            // Another set runs already: that one is compared with this.
            changed = changes.changed() => if changed.is_err() { return } else { changes.mark_changed() },
            () = inner.stopping.cancelled() => return,
        }
    }
}

/// A log field that names a message.
fn shown(id: QueueId) -> tracing::field::DisplayValue<QueueId> {
    tracing::field::display(id)
}
