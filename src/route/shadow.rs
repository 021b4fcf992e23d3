//! A second script set that is asked beside the one that decides, and decides nothing.
//!
//! What was decided is handed over together with the facts, and a thread of its own asks the shadow the same: no
//! attempt waits for it. Hand-overs that would pile up, because the shadow is slower than the mail or because large
//! messages would be kept in memory for it, are dropped and counted. A shadow that does not compile is reported and
//! compares nothing, or goes on with what compiled last; mail goes its way in any case.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::counts::{Part, ScriptCounts};
use super::difference::{Difference, Differences, Mistake, Tally};
use super::facts::Facts;
use super::problem::ScriptProblem;
use super::router::{FailedReload, Reloaded};
use super::set::{KnownTransports, ScriptSet};
use super::trace::Trace;
use super::watch::{Follow, Watch, WatchError, watch};
use crate::clock;
use crate::config::ScriptLimits;
use crate::dns::Resolver;
use crate::metrics::{Counter, Page};
use crate::names::QueueId;

/// Decisions that wait to be compared.
const WAITING_MAX: usize = 1_024;
/// Bytes of messages that are kept in memory for them.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// What a shadow is asked with besides the facts.
#[derive(Clone)]
pub struct ShadowParts {
    /// The transports of the moment.
    pub known: Arc<dyn KnownTransports + Send + Sync>,
    /// For MX names that it asks for and the set that decided did not.
    pub resolver: Resolver,
}

/// How the shadow does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShadowReport {
    /// Its directory as configured.
    pub dir: PathBuf,
    /// Content hash of the set that is asked; `None` when it never compiled.
    pub hash: Option<Arc<str>>,
    /// Since when it is compared: its last change, or the last reset.
    pub since: Timestamp,
    /// Why its newest files are not asked, if so.
    pub failed: Option<FailedReload>,
    /// How it compares with what decided.
    pub tally: Tally,
    /// Decisions that it was not asked about, for it could not keep up.
    pub skipped: u64,
    /// Where it would have gone elsewhere.
    pub differences: Vec<Difference>,
    /// Differences of further sorts, which are not kept.
    pub differences_not_kept: u64,
    /// Its errors.
    pub errors: Vec<Mistake>,
}

/// The shadow, where there is one. It ends when this is dropped.
pub(super) struct Shadow {
    pub(super) second: Arc<Second>,
    parts: ShadowParts,
    jobs: SyncSender<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    _watch: Watch,
}

/// A decision that was made.
struct Job {
    id: QueueId,
    facts: Arc<Facts>,
    decided: Trace,
    _memory: Memory,
}

/// A part of the memory that waiting decisions may keep; given back when dropped.
struct Memory {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The second set and what is known of it.
pub(super) struct Second {
    dir: PathBuf,
    limits: ScriptLimits,
    set: ArcSwapOption<ScriptSet>,
    skipped: Counter,
    state: Mutex<State>,
}

struct State {
    since: Timestamp,
    failed: Option<FailedReload>,
    differences: Differences,
}

impl Shadow {
    /// Begins to compare with what is in a directory, whatever state that is in.
    pub fn start(
        dir: &Path,
        limits: ScriptLimits,
        parts: ShadowParts,
        counts: Arc<ScriptCounts>,
    ) -> Result<Self, WatchError> {
        let state = State { since: clock::now(), failed: None, differences: Differences::default() };
        let second = Arc::new(Second {
            dir: dir.to_owned(),
            limits,
            set: ArcSwapOption::empty(),
            skipped: Counter::default(),
            state: Mutex::new(state),
        });
        // What is wrong with it is told by the watch, which looks at the directory first of all.
        let _ = second.reload();
        let watch = watch(second.clone())?;
        let (jobs, received) = sync_channel(WAITING_MAX);
        let (of_thread, known) = (second.clone(), parts.known.clone());
        let run = move || compare_all(&of_thread, &*known, &counts, &received);
        std::thread::Builder::new().name("route-shadow".into()).spawn(run)?;
        Ok(Self { second, parts, jobs, waiting_bytes: Arc::default(), _watch: watch })
    }

    /// The directory as configured.
    pub fn dir(&self) -> &Path {
        &self.second.dir
    }

    /// Hands a decision over; never waits.
    pub fn compare(&self, id: QueueId, facts: &Arc<Facts>, decided: Trace) {
        let set = self.second.set.load();
        let Some(set) = &*set else { return };
        // The facts keep the whole message.
        let bytes = facts.header.len();
        let memory = Memory { of: self.waiting_bytes.clone(), bytes };
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > WAITING_BYTES_MAX {
            self.second.skipped.inc();
            return;
        }
        let job = Job { id, facts: facts.clone(), decided, _memory: memory };
        if facts.mx.is_none() && set.wants_mx(facts) {
            self.look_up(job);
        } else {
            hand_over(&self.second, &self.jobs, job);
        }
    }

    fn look_up(&self, mut job: Job) {
        let (second, jobs, resolver) = (self.second.clone(), self.jobs.clone(), self.parts.resolver.clone());
        tokio::spawn(async move {
            let mx = resolver.mx_names(&job.facts.recipient.domain).await;
            job.facts = Arc::new(Facts { mx, ..Facts::clone(&job.facts) });
            hand_over(&second, &jobs, job);
        });
    }
}

fn hand_over(second: &Second, jobs: &SyncSender<Job>, job: Job) {
    match jobs.try_send(job) {
        Ok(()) => {}
        // Disconnected: it is being taken away.
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => second.skipped.inc(),
    }
}

/// Until the shadow is taken away.
fn compare_all(
    second: &Second,
    known: &dyn KnownTransports,
    counts: &ScriptCounts,
    received: &Receiver<Job>,
) {
    while let Ok(job) = received.recv() {
        let Some(set) = second.set.load_full() else { continue };
        let would = set.decide(&job.facts, known);
        counts.count(Part::Shadow, &would);
        let mut state = second.state.lock();
        // Of a set that has been replaced meanwhile nothing is written down.
        if second.set.load().as_ref().is_some_and(|now| now.hash() == set.hash()) {
            state.differences.compare(job.id, &job.facts, &job.decided, &would);
        }
    }
}

impl Second {
    /// How the shadow does.
    pub fn report(&self) -> ShadowReport {
        let state = self.state.lock();
        ShadowReport {
            dir: self.dir.clone(),
            hash: self.hash(),
            since: state.since,
            failed: state.failed.clone(),
            tally: state.differences.tally(),
            skipped: self.skipped.get(),
            differences: state.differences.list(),
            differences_not_kept: state.differences.not_kept(),
            errors: state.differences.mistakes(),
        }
    }

    /// Content hash of the set that is asked.
    pub fn hash(&self) -> Option<Arc<str>> {
        self.set.load().as_ref().map(|set| set.hash().clone())
    }

    /// Begins to count anew.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.since = clock::now();
        state.differences = Differences::default();
    }
}

/// How the shadow does, for Prometheus; zeros where there is none.
pub(super) fn write_metrics(shadow: Option<&Shadow>, page: &mut Page) {
    let second = shadow.map(|shadow| &shadow.second);
    let Tally { decisions, different, errors } =
        second.map(|second| second.state.lock().differences.tally()).unwrap_or_default();
    let help = "Decisions that the shadow was asked about since it last changed or was reset.";
    page.gauge("waypost_shadow_decisions", help).add(&[], decisions);
    let help = "Of these, decisions where the shadow would have gone elsewhere, or failed.";
    page.gauge("waypost_shadow_different", help).add(&[], different);
    let help = "Of these, decisions where the shadow failed.";
    page.gauge("waypost_shadow_errors", help).add(&[], errors);
    let help = "Decisions that the shadow was not asked about, for it could not keep up.";
    page.counter("waypost_shadow_skipped_total", help)
        .add(&[], second.map_or(0, |second| second.skipped.get()));
}

impl Follow for Second {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn called(&self) -> &'static str {
        "shadow scripts"
    }

    fn reload(&self) -> Result<Reloaded, Vec<ScriptProblem>> {
        let loaded = ScriptSet::load(&self.dir, &self.limits);
        let mut state = self.state.lock();
        match loaded {
            Ok(set) => {
                let old = self.set.load_full();
                let reloaded = Reloaded::between(old.as_deref(), &set);
                state.failed = None;
                if !reloaded.is_same() {
                    state.since = clock::now();
                    state.differences = Differences::default();
                    self.set.store(Some(Arc::new(set)));
                    reloaded.log("shadow scripts reloaded: they are compared from now on");
                }
                Ok(reloaded)
            }
            Err(problems) => {
                state.failed = Some(FailedReload { at: clock::now(), problems: problems.clone() });
                Err(problems)
            }
        }
    }
}
