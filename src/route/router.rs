//! The running script set, and its replacement by a better one.
//!
//! A reload compiles everything first. Only a set without problems replaces the running one, in one step; evaluations
//! under way finish on the set they began with. A bad one is reported and changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::problem::ScriptProblem;
use super::rollout::Rollout;
use super::set::ScriptSet;
use super::trace::ScriptId;
use super::watch::Follow;
use crate::clock;
use crate::config::ScriptLimits;

/// Holds the running script set.
pub struct Router {
    dir: PathBuf,
    limits: ScriptLimits,
    current: ArcSwap<ScriptSet>,
    changes: watch::Sender<Arc<str>>,
    pub(super) rollout: Rollout,
    state: Mutex<State>,
}

struct State {
    since: Timestamp,
    failed: Option<FailedReload>,
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
    /// Why the newest files are not running, if so.
    pub failed: Option<FailedReload>,
}

impl Router {
    /// Loads the first set. A bad one is an error: there is nothing older to fall back to.
    pub fn new(dir: &Path, limits: ScriptLimits) -> Result<Self, Vec<ScriptProblem>> {
        let set = ScriptSet::load(dir, &limits)?;
        Ok(Self {
            dir: dir.to_owned(),
            limits,
            changes: watch::Sender::new(set.hash().clone()),
            current: ArcSwap::from_pointee(set),
            rollout: Rollout::default(),
            state: Mutex::new(State { since: clock::now(), failed: None }),
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
        ScriptSet::load(dir, &self.limits)
    }

    /// Another set decides about mail, or about another share of it.
    pub(super) fn tell_change(&self, hash: Arc<str>) {
        self.changes.send_replace(hash);
    }

    /// Reads the directory again; a good set runs from now on, a bad one changes nothing.
    pub fn reload(&self) -> Result<Reloaded, Vec<ScriptProblem>> {
        // Held throughout, so that of two reloads at once the later reading wins.
        let mut state = self.state.lock();
        match ScriptSet::load(&self.dir, &self.limits) {
            Ok(set) => {
                let old = self.current.load_full();
                let reloaded = Reloaded::between(Some(&old), &set);
                state.failed = None;
                if !reloaded.is_same() {
                    let hash = set.hash().clone();
                    self.current.store(Arc::new(set));
                    self.changes.send_replace(hash);
                    state.since = clock::now();
                    reloaded.log("routing scripts reloaded");
                }
                drop(state);
                self.end_if_live();
                Ok(reloaded)
            }
            Err(problems) => {
                state.failed = Some(FailedReload { at: clock::now(), problems: problems.clone() });
                Err(problems)
            }
        }
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
