//! The running script set, and its replacement by a better one.
//!
//! A reload examines what stands on disk first: it must compile, the lint must find no error, and the tests beside the
//! scripts must pass. Only then does the new set replace the running one, in one step; evaluations under way finish on
//! the set they began with. A bad one is reported and changes nothing.
//!
//! At the start there is nothing older to go back to. A set that compiles runs then, whatever else is found: a server
//! that takes no mail because a test fails would be worse. What was found is reported, and stays in the status.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::lint::Surroundings;
use super::problem::ScriptProblem;
use super::rollout::Rollout;
use super::set::{KnownTransports, ScriptSet};
use super::trace::ScriptId;
use super::watch::Follow;
use crate::clock;
use crate::config::ScriptLimits;

/// Runs the tests that stand beside the scripts of a set, and gives what failed. Who runs them stands on a floor above.
pub type Tests = Box<dyn Fn(&ScriptSet, &Surroundings) -> Vec<ScriptProblem> + Send + Sync>;

/// Holds the running script set.
pub struct Router {
    dir: PathBuf,
    limits: ScriptLimits,
    tests: Option<Tests>,
    examined: AtomicU64,
    reloading: Mutex<()>,
    current: ArcSwap<ScriptSet>,
    changes: watch::Sender<Arc<str>>,
    pub(super) rollout: Rollout,
    state: Mutex<State>,
}

struct State {
    since: Timestamp,
    failed: Option<FailedReload>,
    /// What is wrong with the running set, which runs all the same.
    problems: Vec<ScriptProblem>,
    surroundings: Surroundings,
    /// Number of the examination that the running set comes from.
    examination: u64,
}

/// A set that may run: it passed everything.
pub struct Passed {
    set: Arc<ScriptSet>,
    problems: Vec<ScriptProblem>,
    surroundings: Surroundings,
    examination: u64,
}

/// Transports by their names alone; where they are not known, every name is good.
impl KnownTransports for Surroundings {
    fn knows(&self, name: &str) -> bool {
        name == "direct" || self.transports.as_ref().is_none_or(|known| known.contains(name))
    }

    fn names(&self) -> Vec<String> {
        self.transports.iter().flatten().cloned().collect()
    }
}

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Content hash of the set that runs now.
    pub hash: Arc<str>,
    /// Content hash of the set that ran before.
    pub previous: Arc<str>,
    /// Files that are new.
    pub added: Vec<String>,
    /// Files whose text is another.
    pub changed: Vec<String>,
    /// Files that are gone.
    pub removed: Vec<String>,
    /// What is odd about the set, but kept it from nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<ScriptProblem>,
}

impl Reloaded {
    /// Whether the files are the same as before.
    pub fn is_same(&self) -> bool {
        self.hash == self.previous
    }

    /// What a new set changes.
    pub(super) fn between(old: Option<&ScriptSet>, new: &ScriptSet) -> Self {
        let by_file = |set: &ScriptSet| -> BTreeMap<Arc<str>, Arc<str>> {
            set.scripts().iter().map(|id| (id.file.clone(), id.hash.clone())).collect()
        };
        let (before, after) = (old.map(by_file).unwrap_or_default(), by_file(new));
        let previous = old.map_or_else(|| "".into(), |old| old.hash().clone());
        let mut reloaded = Self { hash: new.hash().clone(), previous, ..Self::default() };
        for (file, hash) in &after {
            match before.get(file) {
                None => reloaded.added.push(file.to_string()),
                Some(old) if old != hash => reloaded.changed.push(file.to_string()),
                Some(_) => {}
            }
        }
        let gone = before.keys().filter(|file| !after.contains_key(*file));
        reloaded.removed = gone.map(ToString::to_string).collect();
        reloaded
    }

    pub(super) fn log(&self, message: &str) {
        tracing::info!(
            hash = %self.hash, previous = %self.previous, added = ?self.added, changed = ?self.changed,
            removed = ?self.removed, "{message}"
        );
    }
}

/// The newest files on disk do not run, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedReload {
    /// When they were refused.
    pub at: Timestamp,
    /// Everything that is wrong with them.
    pub problems: Vec<ScriptProblem>,
}

/// What runs, and whether that is what stands on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// The scripts directory as configured.
    pub dir: PathBuf,
    /// Content hash of the running set.
    pub hash: Arc<str>,
    /// Since when it runs.
    pub since: Timestamp,
    /// Its scripts and modules.
    pub scripts: Vec<ScriptId>,
    /// What is wrong with them, though they run: warnings, and after a start errors too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ScriptProblem>,
    /// Why the newest files are not running, if so.
    pub failed: Option<FailedReload>,
}

impl Router {
    /// Loads the first set, of which nothing is asked but that it compiles: for those who know of no surroundings.
    pub fn new(dir: &Path, limits: ScriptLimits) -> Result<Self, Vec<ScriptProblem>> {
        Self::guarded(dir, limits, Surroundings::default(), None)
    }

    /// Loads the first set; later ones must pass the lint and the tests. One that does not compile is an error: there is
    /// nothing older to fall back to.
    pub fn guarded(
        dir: &Path,
        limits: ScriptLimits,
        surroundings: Surroundings,
        tests: Option<Tests>,
    ) -> Result<Self, Vec<ScriptProblem>> {
        let (set, mut problems) = ScriptSet::check(dir, &limits, &surroundings)?;
        problems.extend(tests.iter().flat_map(|tests| tests(&set, &surroundings)));
        for problem in &problems {
            if problem.is_error() {
                tracing::error!(%problem, "routing scripts run although something is wrong with them");
            } else {
                tracing::warn!(%problem, "routing scripts");
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            limits,
            tests,
            examined: AtomicU64::new(1),
            reloading: Mutex::new(()),
            changes: watch::Sender::new(set.hash().clone()),
            current: ArcSwap::from_pointee(set),
            rollout: Rollout::default(),
            state: Mutex::new(State {
                since: clock::now(),
                failed: None,
                problems,
                surroundings,
                examination: 0,
            }),
        })
    }

    /// The running set.
    pub fn current(&self) -> Arc<ScriptSet> {
        self.current.load_full()
    }

    /// Tells, by its hash, when another set runs.
    pub fn changes(&self) -> watch::Receiver<Arc<str>> {
        self.changes.subscribe()
    }

    /// The scripts directory as configured.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn limits(&self) -> &ScriptLimits {
        &self.limits
    }

    /// Puts the scripts of a directory to the test that a reload has to pass.
    pub(super) fn check(&self, dir: &Path) -> Result<ScriptSet, Vec<ScriptProblem>> {
        let surroundings = self.state.lock().surroundings.clone();
        let (set, problems) = self.tested(dir, &surroundings)?;
        if problems.iter().any(ScriptProblem::is_error) { Err(problems) } else { Ok(set) }
    }

    /// Compiles, lints, and runs the tests where the lint found no error.
    fn tested(
        &self,
        dir: &Path,
        surroundings: &Surroundings,
    ) -> Result<(ScriptSet, Vec<ScriptProblem>), Vec<ScriptProblem>> {
        let (set, mut problems) = ScriptSet::check(dir, &self.limits, surroundings)?;
        let lint_is_good = !problems.iter().any(ScriptProblem::is_error);
        if let Some(tests) = self.tests.as_ref().filter(|_| lint_is_good) {
            problems.extend(tests(&set, surroundings));
        }
        Ok((set, problems))
    }

    /// Another set decides about mail, or about another share of it.
    pub(super) fn tell_change(&self, hash: Arc<str>) {
        self.changes.send_replace(hash);
    }

    /// Reads the directory again; a good set runs from now on, a bad one changes nothing.
    pub fn reload(&self) -> Result<Reloaded, Vec<ScriptProblem>> {
        let _one_at_a_time = self.reloading.lock();
        self.read_anew(None).map(|passed| self.adopt(passed))
    }

    /// Reads the directory and puts everything to the test; with other surroundings, when the configuration is about to
    /// change. Nothing runs yet. Takes as long as the tests do.
    pub fn read_anew(&self, surroundings: Option<Surroundings>) -> Result<Passed, Vec<ScriptProblem>> {
        let examination = self.examined.fetch_add(1, Ordering::Relaxed);
        let changes = surroundings.is_some();
        let surroundings = surroundings.unwrap_or_else(|| self.state.lock().surroundings.clone());
        let (set, problems) =
            self.tested(&self.dir, &surroundings).map_err(|problems| self.refused(problems))?;
        let runs = set.hash() == self.current.load().hash();
        if problems.iter().any(ScriptProblem::is_error) && (!runs || changes) {
            // That what runs does not fit to other surroundings says nothing about the files.
            return Err(if runs { problems } else { self.refused(problems) });
        }
        Ok(Passed { set: Arc::new(set), problems, surroundings, examination })
    }

    /// Lets a set that passed run from now on, unless a later one runs already.
    pub fn adopt(&self, passed: Passed) -> Reloaded {
        let Passed { set, problems, surroundings, examination } = passed;
        let mut state = self.state.lock();
        state.surroundings = surroundings;
        let old = self.current.load_full();
        if examination < state.examination {
            return Reloaded::between(Some(&old), &old);
        }
        let mut reloaded = Reloaded::between(Some(&old), &set);
        reloaded.warnings =
            problems.iter().filter(|problem| !state.problems.contains(problem)).cloned().collect();
        state.examination = examination;
        state.failed = None;
        state.problems = problems;
        if !reloaded.is_same() {
            let hash = set.hash().clone();
            self.current.store(set);
            self.changes.send_replace(hash);
            state.since = clock::now();
        }
        drop(state);
        for problem in &reloaded.warnings {
            tracing::warn!(%problem, "routing scripts");
        }
        if !reloaded.is_same() {
            reloaded.log("routing scripts reloaded");
        }
        self.end_if_live();
        reloaded
    }

    fn refused(&self, problems: Vec<ScriptProblem>) -> Vec<ScriptProblem> {
        self.state.lock().failed = Some(FailedReload { at: clock::now(), problems: problems.clone() });
        problems
    }

    /// What runs, since when, and what is wrong with the newest files if they do not.
    pub fn status(&self) -> RouterStatus {
        let state = self.state.lock();
        let set = self.current();
        RouterStatus {
            dir: self.dir.clone(),
            hash: set.hash().clone(),
            since: state.since,
            scripts: set.scripts().to_vec(),
            problems: state.problems.clone(),
            failed: state.failed.clone(),
        }
    }
}

impl Follow for Router {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn called(&self) -> &'static str {
        "routing scripts"
    }

    fn reload(&self) -> Result<Reloaded, Vec<ScriptProblem>> {
        Self::reload(self)
    }
}
