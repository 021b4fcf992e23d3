//! From what was typed to script sets with their tests.
//!
//! A scripts directory has `global.rhai`, `account/` or `domain/`. A folder without these that has scripts is a folder of
//! single scripts, such as the ready-made ones: each is a set of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::TestArgs;
use crate::cli::Shared;
use crate::cli::error::{CommandError, Exit};
use crate::config::{Config, SCRIPTS_DIR_DEFAULT, ScriptLimits};
use crate::names::AccountName;
use crate::route::{KnownTransports, ScriptProblem, ScriptSet};

/// All that is to be run.
pub(super) struct Inputs {
    pub(super) suites: Vec<Suite>,
    pub(super) unusable: Vec<ScriptProblem>,
    pub(super) notes: Vec<String>,
    pub(super) known: Known,
}

/// A script set, and which of its tests are wanted.
pub(super) struct Suite {
    pub(super) set: ScriptSet,
    /// Put before file names: `scripts/`.
    pub(super) shown_under: String,
    /// Files of tests; all when empty.
    pub(super) files: BTreeSet<String>,
}

/// Which transports and accounts exist.
pub(super) enum Known {
    /// Nobody knows: every name is taken for a transport.
    Any,
    /// The configuration says it.
    Config(Box<Config>),
}

impl Known {
    pub(super) fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    pub(super) fn accounts(&self) -> Option<BTreeSet<AccountName>> {
        match self {
            Self::Any => None,
            Self::Config(config) => Some(config.accounts.keys().cloned().collect()),
        }
    }

    fn limits(&self) -> ScriptLimits {
        match self {
            Self::Any => ScriptLimits::default(),
            Self::Config(config) => config.script_limits.clone(),
        }
    }
}

impl KnownTransports for Known {
    fn knows(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Config(config) => config.knows(name),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Any => Vec::new(),
            // Its own method of that name is another.
            Self::Config(config) => KnownTransports::names(config.as_ref()),
        }
    }
}

/// What a path means.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// A scripts directory.
    Directory(PathBuf),
    /// A script that stands alone.
    Alone(PathBuf),
}

/// Reads everything that was asked for.
pub(super) fn read(args: &TestArgs, shared: &Shared) -> Result<Inputs, CommandError> {
    let mut notes = Vec::new();
    let known = known(args, shared, &mut notes)?;
    let sources = sources(args, &known)?;
    let limits = known.limits();
    let mut inputs = Inputs { suites: Vec::new(), unusable: Vec::new(), notes, known };
    for (source, files) in sources {
        let (loaded, dir) = match &source {
            Source::Directory(dir) => (ScriptSet::load(dir, &limits), dir.as_path()),
            Source::Alone(file) => (ScriptSet::load_alone(file, &limits), parent(file)),
        };
        let shown_under = shown_under(dir);
        match loaded {
            Ok(set) => inputs.suites.push(Suite { set, shown_under, files }),
            Err(problems) => inputs.unusable.extend(problems.into_iter().map(|mut problem| {
                if Path::new(&problem.file) != dir {
                    problem.file.insert_str(0, &shown_under);
                }
                problem
            })),
        }
    }
    Ok(inputs)
}

/// The folders that are watched.
pub(super) fn roots(args: &TestArgs, shared: &Shared) -> Result<Vec<PathBuf>, CommandError> {
    let known = known(args, shared, &mut Vec::new())?;
    let mut roots: Vec<PathBuf> = sources(args, &known)?
        .into_keys()
        .map(|source| match source {
            Source::Directory(dir) => dir,
            Source::Alone(file) => parent(&file).to_owned(),
        })
        .collect();
    roots.dedup();
    Ok(roots)
}

/// A configuration that was not asked for by name may be missing; with paths given it may even be unreadable.
fn known(args: &TestArgs, shared: &Shared, notes: &mut Vec<String>) -> Result<Known, CommandError> {
    let file = match shared.config_file() {
        Ok(file) => file,
        Err(error) if shared.config.is_some() => return Err(error),
        Err(_) => return Ok(Known::Any),
    };
    match Config::load(&file) {
        Ok(config) => Ok(Known::Config(Box::new(config))),
        Err(_) if shared.config.is_none() && !args.paths.is_empty() => {
            notes.push(format!("{} cannot be used: `waypost check` says why", file.display()));
            Ok(Known::Any)
        }
        Err(problems) => Err(problems.into()),
    }
}

fn sources(args: &TestArgs, known: &Known) -> Result<BTreeMap<Source, BTreeSet<String>>, CommandError> {
    let mut all: BTreeMap<Source, BTreeSet<String>> = BTreeMap::new();
    if args.paths.is_empty() {
        let usual = Path::new(SCRIPTS_DIR_DEFAULT);
        let dir = match known {
            Known::Config(config) => config.scripts_dir.clone(),
            Known::Any if usual.is_dir() => usual.to_owned(),
            Known::Any => PathBuf::from("."),
        };
        return Ok(directory(&dir)?.into_iter().collect());
    }
    for path in &args.paths {
        let found = if path.is_dir() { directory(path)? } else { file(path)? };
        for (source, files) in found {
            match all.entry(source) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(files)),
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    // No file means all of them.
                    if files.is_empty() || entry.get().is_empty() {
                        entry.get_mut().clear();
                    } else {
                        entry.get_mut().extend(files);
                    }
                }
            }
        }
    }
    Ok(all)
}

fn parent(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn shown_under(dir: &Path) -> String {
    let dir = dir.display().to_string();
    match dir.trim_end_matches('/') {
        "." => String::new(),
        dir => format!("{dir}/"),
    }
}

fn is_scripts_directory(dir: &Path) -> bool {
    dir.join("global.rhai").is_file() || dir.join("account").is_dir() || dir.join("domain").is_dir()
}

/// What a directory means.
fn directory(dir: &Path) -> Result<Vec<(Source, BTreeSet<String>)>, CommandError> {
    if is_scripts_directory(dir) {
        return Ok(vec![(Source::Directory(dir.to_owned()), BTreeSet::new())]);
    }
    let (root, folder) = root_of(&dir.join("x"));
    if !folder.is_empty() && is_scripts_directory(&root) {
        return folder_of(dir, root, &folder);
    }
    let read = |error: std::io::Error| {
        let error = CommandError::new(Exit::Usage, format!("{}: {error}", dir.display()));
        error.hint("`waypost route new global` writes a first script with its first test")
    };
    let mut alone = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if matches!(kind(name), Some((_, false))) && path.is_file() {
            alone.push((Source::Alone(path), BTreeSet::new()));
        }
    }
    alone.sort();
    if !alone.is_empty() {
        return Ok(alone);
    }
    let below = dir.join(SCRIPTS_DIR_DEFAULT);
    if is_scripts_directory(&below) {
        return Ok(vec![(Source::Directory(below), BTreeSet::new())]);
    }
    let message = format!("there are no routing scripts in {}", dir.display());
    Err(CommandError::new(Exit::Usage, message)
        .hint("`waypost route new global` writes a first script with its first test"))
}

/// The tests in one folder of a scripts directory.
fn folder_of(
    dir: &Path,
    root: PathBuf,
    folder: &str,
) -> Result<Vec<(Source, BTreeSet<String>)>, CommandError> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_str().unwrap_or_default();
        if matches!(kind(name), Some((_, true))) {
            files.insert(format!("{folder}/{name}"));
        }
    }
    if files.is_empty() {
        return Err(CommandError::new(Exit::Usage, format!("there are no tests in {}", dir.display())));
    }
    Ok(vec![(Source::Directory(root), files)])
}

/// A file's name without its ending, and whether it is a file of tests; what begins with a dot belongs to editors.
pub(super) fn kind(name: &str) -> Option<(&str, bool)> {
    let endings = [(".test.toml", true), (".test.rhai", true), (".rhai", false)];
    let found = endings.into_iter().find_map(|(ending, is_test)| Some((name.strip_suffix(ending)?, is_test)));
    found.filter(|_| !name.starts_with('.'))
}

/// What a script or a file of tests means.
fn file(path: &Path) -> Result<Vec<(Source, BTreeSet<String>)>, CommandError> {
    let wrong = |message: String| Err(CommandError::new(Exit::Usage, message));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !path.is_file() {
        return wrong(format!("there is no {}", path.display()));
    }
    let Some((stem, is_test)) = kind(name) else {
        return wrong(format!(
            "{} is no script (*.rhai) and no file of tests (*.test.toml, *.test.rhai)",
            path.display()
        ));
    };
    let (root, folder) = root_of(path);
    let in_folder = |name: String| if folder.is_empty() { name } else { format!("{folder}/{name}") };
    let files = if is_test {
        [in_folder(name.to_owned())].into()
    } else {
        [".test.toml", ".test.rhai"].map(|ending| in_folder(format!("{stem}{ending}"))).into()
    };
    if !folder.is_empty() || is_scripts_directory(&root) {
        return Ok(vec![(Source::Directory(root), files)]);
    }
    let script = root.join(format!("{stem}.rhai"));
    if !script.is_file() {
        return wrong(format!("there is no {} that {} could test", script.display(), path.display()));
    }
    Ok(vec![(Source::Alone(script), files)])
}

/// The scripts directory of a file, and the folder in it that the file is in.
fn root_of(path: &Path) -> (PathBuf, String) {
    let dir = parent(path);
    let mut folder = String::new();
    for above in dir.ancestors() {
        let Some(name) = above.file_name().and_then(|name| name.to_str()) else { break };
        folder = if folder.is_empty() { name.to_owned() } else { format!("{name}/{folder}") };
        if matches!(name, "account" | "domain" | "lib") {
            return (
                above.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned(),
                folder,
            );
        }
    }
    (dir.to_owned(), String::new())
}
