//! The files of a scripts directory: which there are, whom each belongs to, and that none lies outside.
//!
//! Tests stand beside scripts and are read in the same moment, so that scripts and their tests belong together.
//!
//! Configuration managers put symbolic links everywhere, so the directory itself and files in it may be links, as
//! long as what they point to lies within the directory that it all resolves to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::problem::{ScriptProblem, nearest};
use super::trace::ScriptId;
use crate::address::Domain;
use crate::names::AccountName;

/// Largest script file.
const SCRIPT_BYTES_MAX: u64 = 1024 * 1024;
/// Folders within folders under `lib/`.
const LIB_DEPTH_MAX: usize = 8;
/// How the names of test files end: cases in a table, and tests in Rhai.
const TEST_TABLE: &str = ".test.toml";
const TEST_SCRIPT: &str = ".test.rhai";
/// How the names of files end from which editors complete scripts; at the top they are no scripts.
const DEFINITIONS: &str = ".d.rhai";
const FOLDERS: [&str; 3] = ["account", "domain", "lib"];

/// A file with tests, beside the scripts: `*.test.toml` or `*.test.rhai`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestSource {
    /// File, relative to the scripts directory: `domain/example.org.test.toml`.
    pub file: Arc<str>,
    /// What stands in it.
    pub text: String,
}

/// A script's text and identity.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) id: ScriptId,
    pub(super) text: String,
}

/// Everything in a scripts directory that is a script.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) accounts: BTreeMap<AccountName, Source>,
    pub(super) domains: BTreeMap<Domain, Source>,
    pub(super) global: Option<Source>,
    /// By import path: `lib/providers`.
    pub(super) modules: BTreeMap<String, Source>,
    /// In the order of their names.
    pub(super) tests: Vec<TestSource>,
}

impl Sources {
    /// All of them, in the order of levels, modules last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Source> {
        let scripts = self.accounts.values().chain(self.domains.values()).chain(&self.global);
        scripts.chain(self.modules.values())
    }

    /// Names and content hashes of all of them.
    pub(super) fn ids(&self) -> impl Iterator<Item = &ScriptId> {
        self.all().map(|source| &source.id)
    }

    /// Content hash of the whole: names and contents of all scripts and modules. Tests change nothing that runs.
    pub(super) fn hash(&self) -> Arc<str> {
        let mut all: Vec<String> = self.ids().map(|id| format!("{}\0{}\n", id.file, id.hash)).collect();
        all.sort();
        content_hash(all.concat().as_bytes())
    }
}

/// SHA-256, first 16 hex digits.
pub(super) fn content_hash(content: &[u8]) -> Arc<str> {
    let digest = Sha256::digest(content);
    let mut hex = String::with_capacity(16);
    for byte in digest.iter().take(8) {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.into()
}

/// Reads a scripts directory. A directory that is not there is a problem: mail must not go direct because a
/// file system was not mounted.
pub(super) fn read(dir: &Path, problems: &mut Vec<ScriptProblem>) -> Sources {
    let mut sources = Sources::default();
    let root = match fs::canonicalize(dir) {
        Ok(root) => root,
        Err(error) => {
            let problem = ScriptProblem::whole(dir.display().to_string(), format!("cannot be read: {error}"));
            problems.push(problem.with_hint("this is the configured scripts directory"));
            return sources;
        }
    };
    let mut reader = Reader { root, problems, tests: Vec::new() };
    for name in reader.list("") {
        if reader.root.join(&name).is_dir() {
            reader.check_folder(&name);
        } else if name == "global.rhai" {
            sources.global = reader.read(&name);
        } else if name.ends_with(TEST_SCRIPT) && !name.starts_with('.') {
            // No script but `global.rhai` stands here, so that nothing else can be meant.
            reader.take_test(&name);
        } else if stem(&name).is_some() && !name.ends_with(DEFINITIONS) {
            let problem = ScriptProblem::whole(&name, "no level asks this script");
            reader.problems.push(problem.with_hint(
                "scripts are global.rhai, account/NAME.rhai and domain/DOMAIN.rhai; modules are lib/*.rhai",
            ));
        }
    }
    sources.accounts = reader.read_named("account", |stem| {
        AccountName::new(&stem.to_ascii_lowercase()).map_err(|error| error.to_string())
    });
    sources.domains = reader.read_named("domain", |stem| {
        Domain::parse(stem).map_err(|error| format!("{stem:?} is not a domain: {error}"))
    });
    reader.read_modules("lib", LIB_DEPTH_MAX, &mut sources.modules);
    sources.tests = reader.into_tests();
    sources
}

/// Reads a script that stands alone, outside the layout of a scripts directory, as the global script of a set: with the
/// tests beside it that have its name, and the modules under `lib/` beside it.
pub(super) fn read_alone(dir: &Path, name: &str, problems: &mut Vec<ScriptProblem>) -> Sources {
    let mut sources = Sources::default();
    let root = match fs::canonicalize(dir) {
        Ok(root) => root,
        Err(error) => {
            problems
                .push(ScriptProblem::whole(dir.display().to_string(), format!("cannot be read: {error}")));
            return sources;
        }
    };
    let mut reader = Reader { root, problems, tests: Vec::new() };
    sources.global = reader.read(name);
    let stem = name.strip_suffix(".rhai").unwrap_or(name);
    let beside = [format!("{stem}{TEST_TABLE}"), format!("{stem}{TEST_SCRIPT}")];
    for test in &beside {
        if reader.root.join(test).exists() {
            reader.take_test(test);
        }
    }
    reader.read_modules("lib", LIB_DEPTH_MAX, &mut sources.modules);
    sources.tests = reader.into_tests();
    sources
}

/// The name of a script without its ending. What begins with a dot belongs to editors and configuration managers.
fn stem(name: &str) -> Option<&str> {
    name.strip_suffix(".rhai").filter(|stem| !stem.starts_with('.'))
}

/// Tests of scripts are called `*.test.rhai`. But `example.test.rhai` may as well be the script of the domain
/// `example.test`: a script has `route`, a test has not.
fn is_test(stem: &str, text: &str) -> bool {
    let ends_so = stem.rsplit_once('.').is_some_and(|(_, kind)| kind == "test");
    ends_so && text.contains("fn test_") && !text.contains("fn route")
}

struct Reader<'a> {
    root: PathBuf,
    problems: &'a mut Vec<ScriptProblem>,
    tests: Vec<TestSource>,
}

impl Reader<'_> {
    fn problem(&mut self, file: &str, message: impl Into<String>) {
        self.problems.push(ScriptProblem::whole(file, message));
    }

    /// The names in a folder, sorted, without the tables of tests, which are taken. A folder that is not there is empty.
    fn list(&mut self, folder: &str) -> Vec<String> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_empty() => return Vec::new(),
            Err(error) => {
                self.problem(
                    if folder.is_empty() { "." } else { folder },
                    format!("cannot be read: {error}"),
                );
                return Vec::new();
            }
        };
        let (mut names, mut tables) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry.map(|entry| entry.file_name().into_string()) {
                Ok(Ok(name)) if name.ends_with(TEST_TABLE) && !name.starts_with('.') => tables.push(name),
                Ok(Ok(name)) => names.push(name),
                Ok(Err(name)) if stem(&name.to_string_lossy()).is_some() => {
                    self.problem(&format!("{folder}/{}", name.display()), "the file's name is not UTF-8");
                }
                Ok(Err(_)) => {}
                Err(error) => self.problem(folder, format!("cannot be read: {error}")),
            }
        }
        for name in tables {
            self.take_test(&if folder.is_empty() { name } else { format!("{folder}/{name}") });
        }
        names.sort();
        names
    }

    /// A misspelt folder would silence every script in it.
    fn check_folder(&mut self, name: &str) {
        if FOLDERS.contains(&name) || name.starts_with('.') {
            return;
        }
        if let Some(right) = nearest(name, FOLDERS) {
            let problem = ScriptProblem::whole(format!("{name}/"), "no script in this folder is asked");
            self.problems.push(problem.with_hint(format!("did you mean '{right}/'?")));
        }
    }

    fn read_named<K: Ord>(
        &mut self,
        folder: &str,
        key: impl Fn(&str) -> Result<K, String>,
    ) -> BTreeMap<K, Source> {
        let mut found: BTreeMap<K, Source> = BTreeMap::new();
        for name in self.list(folder) {
            let file = format!("{folder}/{name}");
            let Some(stem) = stem(&name) else { continue };
            let key = match key(stem) {
                Ok(key) => key,
                Err(message) => {
                    self.problem(&file, message);
                    continue;
                }
            };
            if let Some(other) = found.get(&key) {
                let message = format!("{} is for the same {folder}", other.id.file);
                self.problem(&file, message);
                continue;
            }
            if let Some(source) = self.read_script(&file, stem) {
                found.insert(key, source);
            }
        }
        found
    }

    fn read_modules(&mut self, folder: &str, depth_max: usize, found: &mut BTreeMap<String, Source>) {
        for name in self.list(folder) {
            let file = format!("{folder}/{name}");
            if self.root.join(&file).is_dir() && !name.starts_with('.') {
                match depth_max.checked_sub(1) {
                    Some(depth_max) => self.read_modules(&file, depth_max, found),
                    None => self.problem(&file, "folders of modules are nested too deep"),
                }
            } else if let Some(stem) = stem(&name)
                && let Some(source) = self.read_script(&file, stem)
            {
                found.insert(format!("{folder}/{stem}"), source);
            }
        }
    }

    /// Reads a file that is a script, unless it holds tests, which are kept apart.
    fn read_script(&mut self, file: &str, stem: &str) -> Option<Source> {
        let source = self.read(file)?;
        if is_test(stem, &source.text) {
            self.tests.push(TestSource { file: source.id.file, text: source.text });
            return None;
        }
        Some(source)
    }

    fn take_test(&mut self, file: &str) {
        if let Some(source) = self.read(file) {
            self.tests.push(TestSource { file: source.id.file, text: source.text });
        }
    }

    fn into_tests(self) -> Vec<TestSource> {
        let mut tests = self.tests;
        tests.sort_by(|a, b| a.file.cmp(&b.file));
        tests
    }

    fn read(&mut self, file: &str) -> Option<Source> {
        match self.read_confined(file) {
            Ok(text) => {
                let hash = content_hash(text.as_bytes());
                Some(Source { id: ScriptId { file: file.into(), hash }, text })
            }
            Err(message) => {
                self.problem(file, message);
                None
            }
        }
    }

    fn read_confined(&self, file: &str) -> Result<String, String> {
        let unreadable = |error: io::Error| format!("cannot be read: {error}");
        let real = fs::canonicalize(self.root.join(file)).map_err(unreadable)?;
        if !real.starts_with(&self.root) {
            return Err(format!("is a link to {}, outside the scripts directory", real.display()));
        }
        let meta = fs::metadata(&real).map_err(unreadable)?;
        if !meta.is_file() {
            return Err("is not a file".into());
        }
        if meta.len() > SCRIPT_BYTES_MAX {
            return Err(format!("is larger than {SCRIPT_BYTES_MAX} bytes"));
        }
        let text = String::from_utf8(fs::read(&real).map_err(unreadable)?).map_err(|_| "is not UTF-8")?;
        // Some editors begin a file with a byte order mark.
        Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
    }
}
