//! A candidate set that decides about a share of the messages, before it decides about all.
//!
//! A promotion is a copy of a scripts directory in the data directory, and its terms: which set, for how large a
//! share, since when. Both are on disk before the candidate decides about anything, so that a restart goes on with it
//! and later changes of the directory that it came from do not matter. Which messages are the candidate's is told by
//! their queue id alone: all recipients and all attempts of a message stay with one set, and a larger share keeps
//! everyone who was in the smaller one.
//!
//! Files, under `promotion/` in the data directory: `sets/HASH/` holds the copy, `state.json` the terms. Each is
//! written beside its place, synced, and renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::functions::in_share;
use super::problem::ScriptProblem;
use super::set::ScriptSet;
use super::source;
use crate::config::ScriptLimits;
use crate::metrics::Counter;
use crate::names::QueueId;

const STATE_FILE: &str = "state.json";
const SETS_DIR: &str = "sets";

/// What a candidate set decides, and since when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Content hash of the set.
    pub hash: Arc<str>,
    /// The directory that it was copied from.
    pub from: PathBuf,
    /// The share of messages that it decides about: above 0, at most 100.
    pub percent: f64,
    /// When it was promoted.
    pub since: Timestamp,
    /// When the share was last changed.
    pub changed: Timestamp,
    /// Script errors after which it is rolled back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_on_errors: Option<u64>,
}

/// A promotion that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Its terms at the end.
    pub terms: Terms,
    /// When it ended.
    pub at: Timestamp,
    /// Why.
    pub why: WhyEnded,
}

/// Why a promotion ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyEnded {
    /// The scripts directory holds the same set: it is the live one.
    Live,
    /// The operator took it back.
    RolledBack,
    /// It failed as often as its terms allow.
    Errors {
        /// How often it failed.
        count: u64,
        /// The last error.
        last: String,
    },
}

impl std::fmt::Display for WhyEnded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Live => f.write_str("it is the live set now"),
            Self::RolledBack => f.write_str("rolled back by the operator"),
            Self::Errors { count, last } => {
                write!(f, "rolled back by itself after {count} script errors; the last: {last}")
            }
        }
    }
}

/// What the data directory says about promotions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PromotionState {
    /// The one that runs.
    #[serde(default)]
    pub running: Option<Terms>,
    /// The last one that ended.
    #[serde(default)]
    pub last: Option<Ended>,
}

/// Why promotions could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct PromotionIoError {
    /// Which file or directory.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PromotionIoError {
    let path = path.to_owned();
    move |source| PromotionIoError { path, source }
}

/// A candidate that decides about a share of the messages.
pub(super) struct Promoted {
    pub(super) set: Arc<ScriptSet>,
    pub(super) terms: Terms,
    pub(super) errors: Arc<Counter>,
}

impl Promoted {
    /// Whether a message is the candidate's to decide about.
    pub fn takes(&self, id: QueueId) -> bool {
        // Never to be changed: messages under way would change sides.
        self.takes_all() || in_share(&format!("promote {id}"), self.terms.percent)
    }

    /// Whether every message is.
    pub fn takes_all(&self) -> bool {
        self.terms.percent >= 100.0
    }
}

/// Where promotions are kept.
#[derive(Debug, Clone)]
pub struct PromotionDir(PathBuf);

impl PromotionDir {
    /// That of a data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("promotion"))
    }

    /// Reads the state; nothing there is no promotion.
    pub fn state(&self) -> Result<PromotionState, PromotionIoError> {
        let path = self.0.join(STATE_FILE);
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(io::Error::from).map_err(at(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PromotionState::default()),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Writes the state; the sets that it does not name are removed.
    pub fn write(&self, state: &PromotionState) -> Result<(), PromotionIoError> {
        fs::create_dir_all(&self.0).map_err(at(&self.0))?;
        let (path, new) = (self.0.join(STATE_FILE), self.0.join("state.json.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(state)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(at(&path))?;
        self.remove_sets(state.running.as_ref().map(|terms| &*terms.hash));
        Ok(())
    }

    /// Gives all mail back to the configured scripts: for when no server runs. Tells what was running.
    pub fn roll_back(&self, now: Timestamp) -> Result<Option<Terms>, PromotionIoError> {
        let mut state = self.state()?;
        let Some(terms) = state.running.take() else { return Ok(None) };
        state.last = Some(Ended { terms: terms.clone(), at: now, why: WhyEnded::RolledBack });
        self.write(&state)?;
        Ok(Some(terms))
    }

    /// Where the copy of a set stands.
    pub(super) fn set_dir(&self, hash: &str) -> PathBuf {
        self.0.join(SETS_DIR).join(hash)
    }

    /// Copies a scripts directory, tests included, and compiles the copy: what is examined is what will run.
    pub(super) fn copy(&self, dir: &Path, limits: &ScriptLimits) -> Result<ScriptSet, CopyError> {
        let mut problems = Vec::new();
        let sources = source::read(dir, &mut problems);
        if !problems.is_empty() {
            return Err(CopyError::Problems(problems));
        }
        let new = self.0.join(SETS_DIR).join("new");
        remove(&new)?;
        fs::create_dir_all(&new).map_err(at(&new))?;
        let scripts = sources.all().map(|source| (&*source.id.file, &source.text));
        for (file, text) in scripts.chain(sources.tests.iter().map(|test| (&*test.file, &test.text))) {
            write_synced(&new.join(file), text)?;
        }
        let set = ScriptSet::load(&new, limits).map_err(CopyError::Problems)?;
        let place = self.set_dir(set.hash());
        remove(&place)?;
        fs::rename(&new, &place).map_err(at(&place))?;
        Ok(set)
    }

    fn remove_sets(&self, but: Option<&str>) {
        let sets = self.0.join(SETS_DIR);
        for entry in fs::read_dir(&sets).into_iter().flatten().flatten() {
            if but.is_none_or(|hash| entry.file_name() != hash)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(%error, path = %entry.path().display(), "cannot remove a set that was promoted");
            }
        }
    }
}

/// Why a set could not be copied.
#[derive(Debug)]
pub(super) enum CopyError {
    Problems(Vec<ScriptProblem>),
    Io(PromotionIoError),
}

impl From<PromotionIoError> for CopyError {
    fn from(error: PromotionIoError) -> Self {
        Self::Io(error)
    }
}

fn remove(dir: &Path) -> Result<(), PromotionIoError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(dir)(error)),
        _ => Ok(()),
    }
}

fn write_synced(path: &Path, text: &str) -> Result<(), PromotionIoError> {
    let write = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(path);
        fs::create_dir_all(folder)?;
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    };
    write().map_err(at(path))
}
