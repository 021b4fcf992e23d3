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

use super::counts::ScriptCounts;
use super::problem::ScriptProblem;
use super::set::ScriptSet;
use super::trace::ScriptId;
use crate::clock;
use crate::config::ScriptLimits;

/// Holds the running script set.
pub struct Router {
    dir: PathBuf,
    limits: ScriptLimits,
    current: ArcSwap<ScriptSet>,
    changes: watch::Sender<Arc<str>>,
    pub(super) counts: ScriptCounts,
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
            counts: ScriptCounts::default(),
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

    /// Reads the directory again; a good set runs from now on, a bad one changes nothing.
    pub fn reload(&self) -> Result<Reloaded, Vec<ScriptProblem>> {
        // Held throughout, so that of two reloads at once the later reading wins.
        let mut state = self.state.lock();
        match ScriptSet::load(&self.dir, &self.limits) {
            Ok(set) => {
                let old = self.current.load_full();
                let reloaded = compare(&old, &set);
                state.failed = None;
                if !reloaded.is_same() {
                    let hash = set.hash().clone();
                    self.current.store(Arc::new(set));
                    self.changes.send_replace(hash);
                    state.since = clock::now();
                }
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

fn compare(old: &ScriptSet, new: &ScriptSet) -> Reloaded {
    let by_file = |set: &ScriptSet| -> BTreeMap<Arc<str>, Arc<str>> {
        set.scripts().iter().map(|id| (id.file.clone(), id.hash.clone())).collect()
    };
    let (before, after) = (by_file(old), by_file(new));
    let mut reloaded =
        Reloaded { hash: new.hash().clone(), previous: old.hash().clone(), ..Reloaded::default() };
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
