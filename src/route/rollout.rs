//! Asking for real: which set decides about a message, and who learns what it decided.
//!
//! There is the live set, from the configured directory; while a promotion runs, a candidate decides about a share of
//! the messages instead (`promotion`); and a shadow may be asked beside whoever decides (`shadow`).

use std::path::Path;
use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::counts::{Part, ScriptCounts};
use super::facts::Facts;
use super::problem::ScriptProblem;
use super::promotion::{
    CopyError, Ended, Promoted, PromotionDir, PromotionIoError, PromotionState, Terms, WhyEnded,
};
use super::router::Router;
use super::set::{KnownTransports, ScriptSet};
use super::shadow::{Shadow, ShadowParts, ShadowReport, write_metrics};
use super::trace::RouteError;
use super::watch::WatchError;
use crate::attempt::Decision;
use crate::clock;
use crate::metrics::{Counter, Page};
use crate::names::QueueId;

/// The set that decides about a message.
pub struct Chosen {
    /// It.
    pub set: Arc<ScriptSet>,
    /// Which of the sets that is.
    pub part: Part,
}

/// What runs besides the live set.
#[derive(Default)]
pub(super) struct Rollout {
    candidate: ArcSwapOption<Promoted>,
    shadow: ArcSwapOption<Shadow>,
    /// Where promotions are kept, and what was written there last. Held while one changes.
    kept: Mutex<Option<(PromotionDir, PromotionState)>>,
    counts: Arc<ScriptCounts>,
}

/// What is to be promoted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promote {
    /// The directory of the candidate; `None` for the one that runs.
    #[serde(default)]
    pub dir: Option<std::path::PathBuf>,
    /// The share of messages it decides about, above 0, at most 100.
    pub percent: f64,
    /// Script errors after which it is rolled back by itself.
    #[serde(default)]
    pub rollback_on_errors: Option<u64>,
}

/// How a promotion stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromotionReport {
    /// Content hash of the live set.
    pub live: Arc<str>,
    /// The scripts directory that the live set is from.
    pub dir: std::path::PathBuf,
    /// The promotion that runs.
    pub running: Option<Terms>,
    /// Its script errors since it was promoted, or since the server started.
    pub errors: u64,
    /// The last one that ended.
    pub last: Option<Ended>,
}

/// Why a set was not promoted; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// A share that is none.
    #[error("the percentage must be above 0 and at most 100, not {0}")]
    Percent(f64),
    /// No directory was named, and nothing runs whose share could be changed.
    #[error("no promotion runs: name the directory with the new scripts")]
    NoDirectory,
    /// There is nothing to roll back.
    #[error("no promotion runs: all mail is decided by the scripts directory")]
    NothingRuns,
    /// One at a time.
    #[error("a promotion of other scripts runs: {hash} from {}; roll it back first", from.display())]
    OtherRuns {
        /// Its hash.
        hash: Arc<str>,
        /// Where it is from.
        from: std::path::PathBuf,
    },
    /// There is nothing to promote.
    #[error("these are the scripts that run already ({0})")]
    IsLive(Arc<str>),
    /// The candidate is no good.
    #[error("the candidate is refused:\n{}", listed(.0))]
    Refused(Vec<ScriptProblem>),
    /// The data directory could not be written.
    #[error("the promotion could not be written down: {0}")]
    Io(#[from] PromotionIoError),
    /// This router keeps no promotions.
    #[error("promotions are not kept here")]
    NotKept,
}

fn listed(problems: &[ScriptProblem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

impl From<CopyError> for PromoteError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Problems(problems) => Self::Refused(problems),
            CopyError::Io(error) => Self::Io(error),
        }
    }
}

/// Asking.
impl Router {
    /// The set that decides about this message: about all of its recipients, on all of their attempts.
    pub fn for_message(&self, id: QueueId) -> Chosen {
        match &*self.candidate() {
            Some(candidate) if candidate.takes(id) => {
                Chosen { set: candidate.set.clone(), part: Part::Promoted }
            }
            _ => Chosen { set: self.current(), part: Part::Live },
        }
    }

    /// All sets that decide about some new mail: the live one, while it decides about any, first.
    pub fn deciding(&self) -> Vec<Chosen> {
        let live = || Chosen { set: self.current(), part: Part::Live };
        match &*self.candidate() {
            None => vec![live()],
            Some(candidate) => {
                let promoted = Chosen { set: candidate.set.clone(), part: Part::Promoted };
                if candidate.takes_all() { vec![promoted] } else { vec![live(), promoted] }
            }
        }
    }

    /// A real decision: it is counted, and compared with what the shadow says. An error of the candidate never falls to
    /// the live set; it may end the promotion, and then the next decision is the live set's.
    pub fn decide(
        &self,
        chosen: &Chosen,
        id: QueueId,
        facts: &Arc<Facts>,
        known: &dyn KnownTransports,
    ) -> Result<Decision, RouteError> {
        let trace = chosen.set.decide(facts, known);
        self.counts().count(chosen.part, &trace);
        let verdict = trace.verdict();
        if let (Part::Promoted, Err(error)) = (chosen.part, &verdict) {
            self.candidate_failed(&chosen.set, error);
        }
        if let Some(shadow) = &*self.rollout.shadow.load() {
            shadow.compare(id, facts, trace);
        }
        verdict
    }

    /// What the scripts did since the server started.
    pub fn counts(&self) -> &ScriptCounts {
        &self.rollout.counts
    }

    fn candidate(&self) -> Guard<Option<Arc<Promoted>>> {
        self.rollout.candidate.load()
    }
}

/// The shadow.
impl Router {
    /// Runs the scripts of a directory beside those that decide, or no more. The same directory changes nothing.
    pub fn set_shadow(&self, dir: Option<&Path>, parts: &ShadowParts) -> Result<(), WatchError> {
        if self.rollout.shadow.load().as_ref().map(|shadow| shadow.dir()) == dir {
            return Ok(());
        }
        self.rollout.shadow.store(None);
        if let Some(dir) = dir {
            let counts = self.rollout.counts.clone();
            let shadow = Shadow::start(dir, self.limits().clone(), parts.clone(), counts)?;
            self.rollout.shadow.store(Some(Arc::new(shadow)));
        }
        Ok(())
    }

    /// How the shadow does, where there is one; counts anew from here on if told to.
    pub fn shadow(&self, reset: bool) -> Option<ShadowReport> {
        let shadow = self.rollout.shadow.load();
        let shadow = shadow.as_ref()?;
        let report = shadow.second.report();
        if reset {
            shadow.second.reset();
        }
        Some(report)
    }
}

/// Promotions.
impl Router {
    /// Keeps promotions in a data directory, and goes on with the one that ran there.
    pub fn resume_promotion(&self, data_dir: &Path) -> Result<(), ResumeError> {
        let dir = PromotionDir::new(data_dir);
        let state = dir.state()?;
        let resumed = state.running.clone();
        if let Some(terms) = &resumed {
            let place = dir.set_dir(&terms.hash);
            let set = ScriptSet::load(&place, self.limits())
                .map_err(|problems| ResumeError::Scripts { hash: terms.hash.clone(), problems })?;
            if *set.hash() != terms.hash {
                return Err(ResumeError::Changed(place));
            }
            tracing::info!(hash = %terms.hash, percent = terms.percent, "promoted scripts decide about a share of the mail");
            self.run_candidate(terms.clone(), Arc::new(set), Arc::default());
        }
        *self.rollout.kept.lock() = Some((dir, state));
        self.end_if_live();
        Ok(())
    }

    /// Gives a candidate a share of the messages, or another share.
    pub fn promote(&self, promote: &Promote) -> Result<PromotionReport, PromoteError> {
        if !(promote.percent > 0.0 && promote.percent <= 100.0) {
            return Err(PromoteError::Percent(promote.percent));
        }
        let mut kept = self.rollout.kept.lock();
        let (dir, state) = kept.as_mut().ok_or(PromoteError::NotKept)?;
        let running = self.candidate().clone();
        let (set, errors) = match (&promote.dir, &running) {
            (None, None) => return Err(PromoteError::NoDirectory),
            (None, Some(candidate)) => (candidate.set.clone(), candidate.errors.clone()),
            (Some(from), running) => self.examine(dir, from, running.as_deref())?,
        };
        let (now, before) = (clock::now(), running.as_ref().map(|candidate| &candidate.terms));
        let terms = Terms {
            hash: set.hash().clone(),
            from: promote.dir.clone().or(before.map(|terms| terms.from.clone())).unwrap_or_default(),
            percent: promote.percent,
            since: before.map_or(now, |terms| terms.since),
            changed: now,
            rollback_on_errors: promote
                .rollback_on_errors
                .or(before.and_then(|terms| terms.rollback_on_errors)),
        };
        let new = PromotionState { running: Some(terms.clone()), last: state.last.clone() };
        dir.write(&new)?;
        *state = new;
        tracing::info!(
            hash = %terms.hash, live = %self.current().hash(), percent = terms.percent,
            before = before.map(|terms| terms.percent), from = %terms.from.display(), "scripts promoted"
        );
        self.run_candidate(terms, set, errors);
        drop(kept);
        Ok(self.promotion())
    }

    /// Copies and checks a candidate, unless it is the one that runs.
    fn examine(
        &self,
        dir: &PromotionDir,
        from: &Path,
        running: Option<&Promoted>,
    ) -> Result<(Arc<ScriptSet>, Arc<Counter>), PromoteError> {
        // Before anything is written: what runs must keep its copy.
        let found = self.check(from).map_err(PromoteError::Refused)?;
        if let Some(running) = running {
            if found.hash() == running.set.hash() {
                return Ok((running.set.clone(), running.errors.clone()));
            }
            let (hash, from) = (running.terms.hash.clone(), running.terms.from.clone());
            return Err(PromoteError::OtherRuns { hash, from });
        }
        if found.hash() == self.current().hash() {
            return Err(PromoteError::IsLive(found.hash().clone()));
        }
        Ok((Arc::new(dir.copy(from, self.limits())?), Arc::default()))
    }

    /// Gives all mail back to the live set.
    pub fn roll_back(&self) -> Result<PromotionReport, PromoteError> {
        if !self.end_promotion(WhyEnded::RolledBack)? {
            return Err(PromoteError::NothingRuns);
        }
        Ok(self.promotion())
    }

    /// How the promotion stands.
    pub fn promotion(&self) -> PromotionReport {
        let candidate = self.candidate();
        let candidate = candidate.as_ref();
        PromotionReport {
            live: self.current().hash().clone(),
            dir: self.dir().to_owned(),
            running: candidate.map(|candidate| candidate.terms.clone()),
            errors: candidate.map_or(0, |candidate| candidate.errors.get()),
            last: self.rollout.kept.lock().as_ref().and_then(|(_, state)| state.last.clone()),
        }
    }

    /// Ends the promotion when the live set is the candidate.
    pub(super) fn end_if_live(&self) {
        let is_live = self.candidate().as_ref().is_some_and(|c| c.set.hash() == self.current().hash());
        if is_live && let Err(error) = self.end_promotion(WhyEnded::Live) {
            tracing::error!(%error, "the end of a promotion");
        }
    }

    fn candidate_failed(&self, set: &Arc<ScriptSet>, error: &RouteError) {
        let candidate = self.candidate().clone();
        let Some(candidate) = candidate.filter(|candidate| Arc::ptr_eq(&candidate.set, set)) else { return };
        candidate.errors.inc();
        let count = candidate.errors.get();
        // Equal: of all that fail at once, one ends it.
        if candidate.terms.rollback_on_errors == Some(count) {
            let why = WhyEnded::Errors { count, last: error.to_string() };
            if let Err(error) = self.end_promotion(why) {
                tracing::error!(%error, "a promotion that should be rolled back");
            }
        }
    }

    /// Ends the promotion, on disk first; false when none ran.
    fn end_promotion(&self, why: WhyEnded) -> Result<bool, PromoteError> {
        let mut kept = self.rollout.kept.lock();
        let (dir, state) = kept.as_mut().ok_or(PromoteError::NotKept)?;
        let Some(terms) = state.running.clone() else { return Ok(false) };
        let live = self.current().hash().clone();
        tracing::warn!(hash = %terms.hash, %live, %why, "a promotion ends");
        let new = PromotionState { running: None, last: Some(Ended { terms, at: clock::now(), why }) };
        dir.write(&new)?;
        *state = new;
        self.rollout.candidate.store(None);
        self.tell_change(live);
        Ok(true)
    }

    fn run_candidate(&self, terms: Terms, set: Arc<ScriptSet>, errors: Arc<Counter>) {
        let hash = terms.hash.clone();
        self.rollout.candidate.store(Some(Arc::new(Promoted { set, terms, errors })));
        self.tell_change(hash);
    }
}

const ROLL_BACK: &str = "`waypost route promote --rollback` gives all mail back to the scripts directory";

/// Why the server cannot go on with a promotion. Another version may take what this one does not.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The state cannot be read.
    #[error("the promotion of scripts cannot be read: {0}")]
    Io(#[from] PromotionIoError),
    /// The copy does not compile any more.
    #[error("the promoted scripts {hash} cannot be loaded; {ROLL_BACK}:\n{}", listed(problems))]
    Scripts {
        /// The set.
        hash: Arc<str>,
        /// What is wrong with it.
        problems: Vec<ScriptProblem>,
    },
    /// The copy is another.
    #[error("the promoted scripts in {} were changed; {ROLL_BACK}", .0.display())]
    Changed(std::path::PathBuf),
}

/// Metrics.
impl Router {
    /// What the scripts did, and what runs besides the live set, for Prometheus.
    pub fn write_metrics(&self, page: &mut Page) {
        self.counts().write(page);
        let candidate = self.candidate();
        let help =
            "The share of messages that promoted scripts decide about, percent; 0 without a promotion.";
        let percent = candidate.as_ref().map_or(0.0, |candidate| candidate.terms.percent);
        page.gauge("waypost_promotion_percent", help).add(&[], percent);
        let help = "1; its labels say which script sets run, and their content hashes.";
        let mut info = page.gauge("waypost_scripts_info", help);
        let shadow = self.rollout.shadow.load();
        let hashes = [
            (Part::Live, Some(self.current().hash().clone())),
            (Part::Promoted, candidate.as_ref().map(|candidate| candidate.terms.hash.clone())),
            (Part::Shadow, shadow.as_ref().and_then(|shadow| shadow.second.hash())),
        ];
        for (part, hash) in hashes {
            if let Some(hash) = hash {
                info.add(&[("set", part.as_str()), ("hash", &hash)], 1);
            }
        }
        write_metrics(shadow.as_deref(), page);
    }
}

#[cfg(test)]
mod tests;
