//! After other scripts began to run: which waiting messages now go elsewhere.
//!
//! Both sets are asked about the next attempt of each recipient that waits, with its real facts. That is done beside the
//! queue's work, message by message, and bounded: a long queue is looked at as far as time and number reach.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::due::Entry;
use super::facts::Known;
use super::walk::{STEP_MESSAGES, Walk};
use super::{Filter, Inner, Queue};
use crate::config::{Config, Lookup};
use crate::names::QueueId;
use crate::route::{Facts, ScriptSet};
use crate::spool::{Status, StoredMessage};

/// Recipients that are looked at.
const RECIPIENTS_MAX: usize = 20_000;
/// For how long.
const TIME_MAX: Duration = Duration::from_secs(20);

/// What a reload means for those who wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerouted {
    /// Content hash of the set that runs now.
    pub hash: Arc<str>,
    /// Content hash of the set that ran before.
    pub previous: Arc<str>,
    /// When they were compared.
    pub at: Timestamp,
    /// Recipients that were looked at.
    pub looked_at: usize,
    /// Whether there were more than could be looked at.
    pub more: bool,
    /// Who goes another way now, by the ways, the largest number first.
    pub moved: Vec<Moved>,
}

/// Recipients that went one way and now go another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The way before; none when the scripts failed.
    pub from: Option<String>,
    /// The way now; none when the scripts fail.
    pub to: Option<String>,
    /// How many recipients.
    pub recipients: usize,
}

/// `12 direct -> smarthost`.
impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown =
            |way: &Option<String>| way.clone().unwrap_or_else(|| "(no way: a script fails)".to_owned());
        write!(f, "{} {} -> {}", self.recipients, shown(&self.from), shown(&self.to))
    }
}

impl Queue {
    /// What the last change of the scripts meant for those who wait; none before the first.
    pub fn rerouted(&self) -> Option<Rerouted> {
        self.inner.rerouted.lock().clone()
    }
}

/// A way by its name, or a failure.
type Way = Option<String>;

/// Compares two sets over the queue, and remembers what came of it.
pub(super) async fn compare(inner: &Arc<Inner>, old: &Arc<ScriptSet>, new: &Arc<ScriptSet>) {
    let end = Instant::now() + TIME_MAX;
    let mut comparison = Comparison { inner, old, new, ways: BTreeMap::new(), looked_at: 0, end };
    let more = comparison.whole_queue().await;
    let mut moved: Vec<Moved> =
        comparison.ways.into_iter().map(|((from, to), recipients)| Moved { from, to, recipients }).collect();
    moved.sort_by_key(|moved| std::cmp::Reverse(moved.recipients));
    let rerouted = Rerouted {
        hash: new.hash().clone(),
        previous: old.hash().clone(),
        at: crate::clock::now(),
        looked_at: comparison.looked_at,
        more,
        moved,
    };
    let moved: Vec<String> = rerouted.moved.iter().map(ToString::to_string).collect();
    tracing::info!(
        hash = %rerouted.hash, previous = %rerouted.previous, looked_at = rerouted.looked_at, more,
        moved = moved.join(", "), "waiting recipients under the new routing scripts"
    );
    *inner.rerouted.lock() = Some(rerouted);
}

struct Comparison<'a> {
    inner: &'a Arc<Inner>,
    old: &'a Arc<ScriptSet>,
    new: &'a Arc<ScriptSet>,
    ways: BTreeMap<(Way, Way), usize>,
    looked_at: usize,
    end: Instant,
}

impl Comparison<'_> {
    /// Tells whether there was more than could be looked at.
    async fn whole_queue(&mut self) -> bool {
        let walk = Walk::new(&Queue { inner: self.inner.clone() }, &Filter::default());
        let mut at = None;
        loop {
            // What cannot be looked at is left out, and the report says that there was more.
            let Ok(step) = walk.step(at, STEP_MESSAGES).await else { return true };
            for message in step.candidates.chunk_by(|a, b| a.key.0 == b.key.0) {
                if self.looked_at >= RECIPIENTS_MAX || Instant::now() >= self.end {
                    return true;
                }
                self.message(message[0].key.0, message.iter().map(|one| (one.key.1, one.entry)).collect())
                    .await;
            }
            at = step.last;
            if step.end || self.inner.stopping() {
                return false;
            }
        }
    }

    async fn message(&mut self, id: QueueId, entries: Vec<(u32, Entry)>) {
        let spool = self.inner.parts.spool.clone();
        // What cannot be read is reported when its turn comes; it goes nowhere now.
        let read = tokio::task::spawn_blocking(move || spool.read(id).ok().flatten()).await;
        let Some(stored) = read.ok().flatten() else { return };
        let config = self.inner.parts.config.load_full();
        let now = crate::clock::now();
        let mut asked = Vec::with_capacity(entries.len());
        for (recipient, entry) in entries {
            let Some(facts) = waiting(&config, &stored, recipient, entry, now) else { continue };
            asked.push(Arc::new(self.with_mx(facts).await));
        }
        self.looked_at += asked.len();
        let (old, new) = (self.old.clone(), self.new.clone());
        let decide = move || -> Vec<(Way, Way)> {
            let way = |set: &ScriptSet, facts: &Arc<Facts>| {
                set.decide(facts, &*config).verdict().ok().map(|decision| decision.transport.to_string())
            };
            asked.iter().map(|facts| (way(&old, facts), way(&new, facts))).collect()
        };
        for ways in tokio::task::spawn_blocking(decide).await.unwrap_or_default() {
            if ways.0 != ways.1 {
                *self.ways.entry(ways).or_default() += 1;
            }
        }
    }

    async fn with_mx(&self, mut facts: Facts) -> Facts {
        if self.old.wants_mx(&facts) || self.new.wants_mx(&facts) {
            let left = self.end.saturating_duration_since(Instant::now());
            let names = self.inner.parts.resolver.mx_names(&facts.recipient.domain);
            facts.mx = tokio::time::timeout(left, names).await.ok().flatten();
        }
        facts
    }
}

/// The facts of a recipient's next attempt, when scripts are asked about it.
fn waiting(
    config: &Config,
    stored: &StoredMessage,
    recipient: u32,
    entry: Entry,
    now: Timestamp,
) -> Option<Facts> {
    let state = stored.recipients.get(recipient as usize)?;
    let address = &stored.message.envelope.recipients.get(recipient as usize)?.address;
    let waits = matches!(state.status, Status::Waiting { .. });
    let local = !matches!(config.lookup(address), Lookup::Foreign);
    if !waits || local || state.transport_override.is_some() {
        return None;
    }
    let message = &stored.message;
    let known = Known::of_message(message, message.content.len() as u64, recipient);
    // Of a message that was accepted in this run the record says that attempt 1 has begun.
    let history = if entry.attempts > 0 { state.history.as_slice() } else { &[] };
    Some(known.facts(config, entry.attempts + 1, history.into(), now))
}
