//! Reloads the scripts whenever a file in their directory changes.
//!
//! The kernel's events are gathered until the directory has been quiet for a moment, so that an editor's dance of
//! writing and renaming, or a deployment of many files, is one reload. A half-written file is a bad set: the old one
//! stays, and the event that completes the file brings the next try.
//!
//! Configuration managers replace the directory itself by pointing a symbolic link elsewhere, which no watch within
//! it sees. So the thread also looks every two seconds whether the configured path still resolves to the directory
//! that is watched.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};

use super::problem::ScriptProblem;
use super::router::Reloaded;

/// How long the directory must be quiet.
const QUIET: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(100);
/// How often the path is resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(2);

/// A set of scripts that is loaded again when its files change.
pub trait Follow: Send + Sync {
    /// Where they are, as configured.
    fn dir(&self) -> &Path;

    /// What the log calls them.
    fn called(&self) -> &'static str;

    /// Reads the directory again; says in the log what is new.
    fn reload(&self) -> Result<Reloaded, Vec<ScriptProblem>>;
}

/// Why the scripts cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel refused.
    #[error("the scripts directory cannot be watched: {0}")]
    Notify(#[from] notify::Error),
    /// No thread could be started.
    #[error("no thread to watch the scripts directory: {0}")]
    Thread(#[from] std::io::Error),
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

enum Event {
    Changed,
    Failed(Vec<notify::Error>),
    Stop,
}

/// Watches a set's directory on a thread of its own, and reloads when something in it changes.
pub fn watch(scripts: Arc<dyn Follow>) -> Result<Watch, WatchError> {
    let (events, received) = channel();
    let mut watcher =
        Watcher { scripts, events: events.clone(), watched: None, complaint: None, reported: Vec::new() };
    watcher.follow()?;
    let thread =
        std::thread::Builder::new().name("route-watch".into()).spawn(move || watcher.run(&received))?;
    Ok(Watch { events, thread: Some(thread) })
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread is gone already when nobody receives.
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watched the routing scripts had failed");
        }
    }
}

type Notifier = Debouncer<notify::RecommendedWatcher, RecommendedCache>;

struct Watcher {
    scripts: Arc<dyn Follow>,
    events: Sender<Event>,
    watched: Option<(PathBuf, Notifier)>,
    /// Why nothing is watched, as the log has it already.
    complaint: Option<String>,
    /// Problems that the log has already, so that one broken file is not told again for each save of another.
    reported: Vec<ScriptProblem>,
}

impl Watcher {
    fn run(mut self, received: &Receiver<Event>) {
        // Something may have changed between the router's first load and the first watch.
        let mut look = true;
        loop {
            let wait = if look { QUIET } else { RESOLVE_EVERY };
            match received.recv_timeout(wait) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Event::Failed(errors)) => {
                    for error in errors {
                        tracing::warn!(%error, "watching the {}", self.scripts.called());
                    }
                    // Events may have been lost: look at everything, and watch anew.
                    self.watched = None;
                    self.resolve();
                    self.reload();
                }
                Ok(Event::Changed) => {
                    self.resolve();
                    self.reload();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.resolve() || std::mem::take(&mut look) {
                        self.reload();
                    }
                }
            }
        }
    }

    /// Watches where the path leads now; tells whether that is another place than before.
    fn resolve(&mut self) -> bool {
        match self.follow() {
            Ok(moved) => {
                self.complaint = None;
                moved
            }
            Err(error) => {
                // It is tried again every two seconds; the log needs it once.
                let complaint = error.to_string();
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!(%error, "{}", self.scripts.called());
                    self.complaint = Some(complaint);
                }
                false
            }
        }
    }

    fn follow(&mut self) -> Result<bool, WatchError> {
        let Ok(real) = fs::canonicalize(self.scripts.dir()) else {
            // It is gone for now; the running set stays, and we look again soon.
            return Ok(self.watched.take().is_some());
        };
        if self.watched.as_ref().is_some_and(|(path, _)| *path == real) {
            return Ok(false);
        }
        self.watched = None;
        let events = self.events.clone();
        let mut notifier = new_debouncer(QUIET, Some(TICK), move |result: DebounceEventResult| {
            let event = match result {
                Ok(seen) if seen.iter().any(|event| is_change(event.kind)) => Event::Changed,
                Ok(_) => return,
                Err(errors) => Event::Failed(errors),
            };
            // Nobody receives when the watch is being dropped.
            let _ = events.send(event);
        })?;
        notifier.watch(&real, RecursiveMode::Recursive)?;
        self.watched = Some((real, notifier));
        Ok(true)
    }

    fn reload(&mut self) {
        match self.scripts.reload() {
            Ok(reloaded) if reloaded.is_same() => {
                if !std::mem::take(&mut self.reported).is_empty() {
                    tracing::info!(hash = %reloaded.hash, "{} are again those that run", self.scripts.called());
                }
            }
            Ok(_) => self.reported.clear(),
            Err(problems) => {
                let errors = problems.iter().filter(|problem| problem.is_error());
                for problem in errors.filter(|problem| !self.reported.contains(problem)) {
                    tracing::error!(%problem, "{} not reloaded, those that ran still run", self.scripts.called());
                }
                self.reported = problems;
            }
        }
    }
}

/// Reading a file is an event too, and reloading reads them all.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests;
