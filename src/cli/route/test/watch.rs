//! Runs something again whenever scripts or tests are saved.
//!
//! The kernel's events are gathered until the folders have been quiet for a moment, so that an editor that writes a new
//! file and renames it is one save. A folder that is replaced as a whole, by a checkout or a changed symbolic link, is
//! noticed within two seconds. The terminal is left as it is: earlier results stay to be compared with.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode};
use notify_debouncer_full::{
    DebounceEventResult, DebouncedEvent, Debouncer, RecommendedCache, new_debouncer,
};

use crate::cli::error::{CommandError, Exit};

/// How long folders must be quiet.
const QUIET: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(50);
/// How often it is looked whether a folder has been replaced.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A folder and which one it is: device and inode.
struct Watched {
    root: PathBuf,
    is: Option<(u64, u64)>,
    _notifier: Option<Debouncer<notify::RecommendedWatcher, RecommendedCache>>,
}

/// Runs once, and again after every change, until the process ends.
pub(super) fn on_changes(
    roots: &[PathBuf],
    mut run: impl FnMut() -> io::Result<()>,
) -> Result<(), CommandError> {
    let (changes, changed) = channel();
    let mut all = Vec::new();
    for root in roots {
        all.push(Watched::new(root, &changes)?);
    }
    loop {
        run()?;
        say(&format!("\nwaiting for a change in {}", names(roots)));
        loop {
            match changed.recv_timeout(LOOK_EVERY) {
                Ok(file) => {
                    say(&format!("\n{file} was saved"));
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if look_again(&mut all, &changes)? {
                        say("\nthe folder was replaced");
                        break;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(CommandError::new(Exit::Failed, "the folders are no longer watched"));
                }
            }
        }
    }
}

/// What is for people, and no result: beside the results, which may go to a file.
fn say(line: &str) {
    eprintln!("{line}");
}

fn names(roots: &[PathBuf]) -> String {
    let names: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
    names.join(", ")
}

fn look_again(all: &mut [Watched], changes: &Sender<String>) -> Result<bool, CommandError> {
    let mut replaced = false;
    for watched in all {
        if watched.is != identity(&watched.root) {
            *watched = Watched::new(&watched.root, changes)?;
            replaced = true;
        }
    }
    Ok(replaced)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

impl Watched {
    /// A folder that is not there for the moment is looked for again.
    fn new(root: &Path, changes: &Sender<String>) -> Result<Self, CommandError> {
        let failed = |error: notify::Error| {
            CommandError::new(Exit::Failed, format!("{} cannot be watched: {error}", root.display()))
        };
        let (is, root) = (identity(root), root.to_owned());
        let Ok(real) = fs::canonicalize(&root) else { return Ok(Self { root, is, _notifier: None }) };
        let changes = changes.clone();
        let mut notifier = new_debouncer(QUIET, Some(TICK), move |seen: DebounceEventResult| {
            // Lost events are a reason to look, too.
            let file = seen.map_or(Some("something".to_owned()), |events| events.iter().find_map(saved));
            if let Some(file) = file {
                // Nobody receives when the process ends.
                let _ = changes.send(file);
            }
        })
        .map_err(failed)?;
        notifier.watch(&real, RecursiveMode::Recursive).map_err(failed)?;
        Ok(Self { root, is, _notifier: Some(notifier) })
    }
}

/// The name of the script or test that an event is about.
fn saved(event: &DebouncedEvent) -> Option<String> {
    let reading = matches!(event.kind, EventKind::Access(a) if a != AccessKind::Close(AccessMode::Write));
    let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let ours = |name: &String| super::inputs::kind(name).is_some();
    if reading { None } else { event.paths.iter().filter_map(name).find(ours) }
}
