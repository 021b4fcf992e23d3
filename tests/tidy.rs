//! Keeps the house in order: what reviewers would otherwise have to look for by hand.
//!
//! Imports point downward through the floors of `src/lib.rs` (its table is read, so that there is one truth), every
//! file under `tests/` belongs to a test, every shipped script and example is run by one, no file grows without end,
//! and nothing unfinished stays behind. Each rule is a function from text to findings and is itself tested on bad
//! samples at the end.

// A test may panic, and the names of our own files are in lower case.
#![allow(clippy::unwrap_used, clippy::case_sensitive_file_extension_comparisons)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lines of a source file, its unit tests included: beyond it, it has more than one job.
const SOURCE_LINES_MAX: usize = 700;
/// Lines of a file that is all tests.
const TEST_LINES_MAX: usize = 1_200;

/// A file of this package: path relative to its root, with `/`, and text.
struct File {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All text files below a folder of this package.
fn files(folder: &str) -> Vec<File> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                found.push(File { path: relative(&path), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

fn is_rust(file: &File) -> bool {
    file.path.ends_with(".rs")
}

/// The code without line comments: what is only talked about is not used.
fn code(text: &str) -> String {
    let strip = |line: &str| match line.find("//") {
        // `http://` in a string is no comment.
        Some(at) if !line[..at].ends_with(':') => line[..at].to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(strip).collect::<Vec<_>>().join("\n")
}

/// Module to floor, from the table in the documentation of `src/lib.rs`.
fn floors(lib: &str) -> BTreeMap<String, u32> {
    let mut floors = BTreeMap::new();
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some(floor) = row.split(' ').next().and_then(|number| number.parse().ok()) else { continue };
        for name in row.split("[`").skip(1).filter_map(|rest| rest.split('`').next()) {
            floors.insert(name.to_owned(), floor);
        }
    }
    floors
}

/// The top modules of this crate that code names: `crate::x`, `crate::{x::..., y}`.
fn uses(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => used.extend(identifier(rest)),
            Some(group) => used.extend(heads(group)),
        }
    }
    used
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// The first segment of each path of an import group whose `{` was read.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut at_head) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => at_head = true,
            c if c.is_whitespace() => {}
            _ if at_head => {
                at_head = false;
                heads.extend(identifier(&group[at..]));
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

/// Whether code of one module may use another.
fn may_use(floors: &BTreeMap<String, u32>, from: &str, to: &str) -> bool {
    let (Some(here), Some(there)) = (floors.get(from), floors.get(to)) else { return true };
    match here.cmp(there) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Less => false,
        // Values build on each other, and so do the seams to the outside world.
        std::cmp::Ordering::Equal if *here <= 1 => true,
        std::cmp::Ordering::Equal => {
            from == to
                || (from == "queue" && ["route", "transport", "local"].contains(&to))
                || (from, to) == ("cli", "server")
                || (to == "route_test" && ["cli", "server"].contains(&from))
        }
    }
}

/// The top module that a file of `src/` belongs to.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let name = inside.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (!matches!(name, "lib" | "main")).then_some(name)
}

fn upward_imports(floors: &BTreeMap<String, u32>, files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let Some(module) = module_of(&file.path) else { continue };
        if !floors.contains_key(module) {
            findings.push(format!("{}: module `{module}` has no floor in src/lib.rs", file.path));
        }
        for used in uses(&code(&file.text)).iter().filter(|used| !may_use(floors, module, used)) {
            findings.push(format!("{}: `{module}` must not use `{used}`", file.path));
        }
    }
    findings
}

/// Files under `tests/` that belong to no test: Rust files that no binary includes, and others that nothing mentions.
fn orphans(files: &[File]) -> Vec<String> {
    let by_path: BTreeMap<&str, &File> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    // Cargo makes a test of each `tests/x.rs` and `tests/x/main.rs`.
    let top = |path: &str| {
        let inside = path.strip_prefix("tests/").map(|rest| rest.split('/').collect::<Vec<_>>());
        matches!(inside.as_deref(), Some([name]) if name.ends_with(".rs"))
            || matches!(inside.as_deref(), Some([_, "main.rs"]))
    };
    let mut reached: BTreeSet<String> =
        files.iter().map(|f| f.path.clone()).filter(|path| top(path)).collect();
    let mut waiting: Vec<String> = reached.iter().cloned().collect();
    while let Some(path) = waiting.pop() {
        let Some(file) = by_path.get(path.as_str()) else { continue };
        for candidate in included(&path, &code(&file.text)) {
            if by_path.contains_key(candidate.as_str()) && reached.insert(candidate.clone()) {
                waiting.push(candidate);
            }
        }
    }
    let mut findings = Vec::new();
    for file in files {
        if is_rust(file) && !reached.contains(&file.path) {
            findings.push(format!("{}: no test includes it (mod ...;)", file.path));
        }
        if !is_rust(file) && !mentioned(files.iter().filter(|other| other.path != file.path), &file.path) {
            findings.push(format!("{}: no test mentions it or its folder", file.path));
        }
    }
    findings
}

/// Where the modules that a file declares may stand.
fn included(path: &str, code: &str) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let stem = path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs")).unwrap_or_default();
    // A binary and a `mod.rs` look beside themselves, another file looks into the folder of its name.
    let beside = matches!(stem, "mod" | "main") || folder == "tests";
    let base = if beside { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut all = Vec::new();
    let mut words = code.split_whitespace().peekable();
    while let Some(word) = words.next() {
        if let Some(name) = words.peek().filter(|_| word == "mod").and_then(|next| next.strip_suffix(';')) {
            all.extend([format!("{base}/{name}.rs"), format!("{base}/{name}/mod.rs")]);
        }
    }
    let paths = code.split("path = \"").skip(1).filter_map(|rest| rest.split('"').next());
    all.extend(paths.map(|path| format!("{folder}/{path}")));
    all
}

/// Whether some file names this one: by its name, its path, or one of its folders below the top.
fn mentioned<'a>(files: impl Iterator<Item = &'a File>, path: &str) -> bool {
    let inside = path.split_once('/').map_or(path, |(_, rest)| rest);
    let segments: Vec<&str> = inside.split('/').collect();
    let text: Vec<&str> = files.map(|file| file.text.as_str()).collect();
    let says = |word: &str| text.iter().any(|text| text.contains(word));
    segments.iter().rev().any(|segment| says(segment))
}

/// Shipped scripts and examples that no test names, as `scripts/x.rhai` or `examples/x`.
fn unrun(shipped: &[File], tests: &[File]) -> Vec<String> {
    let mut things = BTreeSet::new();
    for file in shipped {
        let parts: Vec<&str> = file.path.split('/').collect();
        match parts.as_slice() {
            ["examples", name, _, ..] => things.insert(format!("examples/{name}")),
            ["scripts", ..] if file.path.ends_with(".rhai") => things.insert(file.path.clone()),
            _ => false,
        };
    }
    let named = |thing: &String| {
        tests.iter().filter(|file| is_rust(file)).any(|file| code(&file.text).contains(thing.as_str()))
    };
    things
        .into_iter()
        .filter(|thing| !named(thing))
        .map(|thing| format!("{thing}: no test runs it"))
        .collect()
}

fn too_long(files: &[File]) -> Vec<String> {
    let all_tests =
        |path: &str| path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_rust(file)) {
        let (lines, max) = (
            file.text.lines().count(),
            if all_tests(&file.path) { TEST_LINES_MAX } else { SOURCE_LINES_MAX },
        );
        if lines > max {
            findings.push(format!("{}: {lines} lines, more than {max}: it has more than one job", file.path));
        }
    }
    findings
}

fn unfinished(files: &[File]) -> Vec<String> {
    // Spelt in two halves, so that this file does not find itself.
    let marks = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
        concat!("(being ", "built)"),
    ];
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_rust(file)) {
        for (number, line) in file.text.lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(*mark)) {
                findings.push(format!("{}:{}: {mark}", file.path, number + 1));
            }
        }
    }
    findings
}

/// Files that do not say what they are for. Unit tests in a file of their own are for what stands beside them.
fn nameless(files: &[File]) -> Vec<String> {
    let unit_tests =
        |path: &str| path.ends_with("/tests.rs") || (path.starts_with("src/") && path.contains("/tests/"));
    let silent = |file: &&File| is_rust(file) && !unit_tests(&file.path) && !file.text.starts_with("//!");
    let say = |file: &File| format!("{}: does not open with `//!`: what is it for?", file.path);
    files.iter().filter(silent).map(say).collect()
}

fn assert_clean(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn imports_point_downward() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let floors = floors(&lib);
    assert!(floors.len() > 20, "the table of floors in src/lib.rs was not understood: {floors:?}");
    assert_clean(upward_imports(&floors, &files("src")));
}

#[test]
fn every_file_under_tests_belongs_to_a_test() {
    let mut all = files("tests");
    // `tests/run` is what .ci/run calls.
    all.extend(files(".ci"));
    // Unit tests run fixtures, too.
    all.extend(files("src").into_iter().filter(|file| file.path.contains("/tests")));
    let findings = orphans(&all).into_iter().filter(|finding| finding.starts_with("tests/")).collect();
    assert_clean(findings);
}

#[test]
fn every_shipped_script_and_example_is_run() {
    let shipped: Vec<File> = files("scripts").into_iter().chain(files("examples")).collect();
    let tests: Vec<File> =
        files("tests").into_iter().chain(files("src")).filter(|f| f.path != "tests/tidy.rs").collect();
    assert_clean(unrun(&shipped, &tests));
}

#[test]
fn files_stay_short_finished_and_say_what_they_are_for() {
    // Not `fuzz` as a whole: what fuzzers build and find stands there, too.
    let folders = ["src", "tests", "fuzz/src", "fuzz/fuzz_targets"];
    let all: Vec<File> = folders.into_iter().flat_map(files).collect();
    assert_clean(too_long(&all));
    assert_clean(unfinished(&all));
    assert_clean(nameless(&all));
}

mod on_bad_samples {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn sample_floors() -> BTreeMap<String, u32> {
        let lib = "//! | 0 ground: values | [`names`], [`smtp`] |\n//! | 1 seams | [`config`], [`dns`] |\n\
                   //! | 2 storage | [`spool`], [`store`] |\n//! | 3 engines | [`route`], [`transport`], [`local`], [`queue`] |\n\
                   //! | 5 top | [`server`], [`cli`] |\n";
        floors(lib)
    }

    #[test]
    fn an_import_that_runs_upward_is_found() {
        let floors = sample_floors();
        assert_eq!((floors["names"], floors["queue"], floors["cli"]), (0, 3, 5));
        for (path, text, bad) in [
            ("src/names.rs", "use crate::config::Config;", true),
            ("src/names.rs", "use crate::smtp::Reply;", false),
            ("src/names.rs", "//! see crate::config::Config", false),
            ("src/names.rs", "/// [`Config`](crate::config::Config)\nuse crate::smtp::Reply;", false),
            ("src/dns/mod.rs", "use crate::{\n    names::A,\n    queue::{B, C},\n};", true),
            ("src/dns/mod.rs", "use crate::{names::{self, A}, config};", false),
            ("src/dns/mod.rs", "fn f() { crate::store::open() }", true),
            ("src/store/mod.rs", "use crate::spool::Spool;", true),
            ("src/route/mod.rs", "use crate::queue::Queue;", true),
            ("src/route/mod.rs", "use crate::transport::Engine;", true),
            ("src/queue/pump.rs", "use crate::{route::Router, transport::Engine, local};", false),
            ("src/queue/pump.rs", "use crate::server::Server;", true),
            ("src/server.rs", "use crate::cli::run;", true),
            ("src/cli/mod.rs", "use crate::server::Server;", false),
            ("src/unknown.rs", "", true),
        ] {
            let findings = upward_imports(&floors, &[file(path, text)]);
            assert_eq!(!findings.is_empty(), bad, "{path}: {text}: {findings:?}");
        }
    }

    #[test]
    fn a_test_that_nothing_includes_is_found() {
        let all = [
            file("tests/mail.rs", "mod world;\n// mod forgotten;\ninclude_str!(\"dialogues/hello.txt\");"),
            file("tests/world/mod.rs", "pub mod dns;"),
            file("tests/world/dns.rs", ""),
            file("tests/world/lost.rs", ""),
            file("tests/many/main.rs", "mod one;"),
            file("tests/many/one.rs", ""),
            file("tests/forgotten.rs.rs/x.rs", ""),
            file("tests/dialogues/hello.txt", ""),
            file("tests/stray.txt", ""),
        ];
        let found = orphans(&all);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("tests/world/lost.rs"));
        assert!(found[1].starts_with("tests/forgotten.rs.rs/x.rs"));
        assert!(found[2].starts_with("tests/stray.txt"));
    }

    #[test]
    fn a_script_or_example_that_no_test_runs_is_found() {
        let shipped = [
            file("scripts/a.rhai", ""),
            file("scripts/b.rhai", ""),
            file("scripts/README.md", ""),
            file("examples/one/waypost.toml", ""),
            file("examples/two/scripts/global.rhai", ""),
        ];
        let tests =
            [file("tests/x.rs", "run(\"scripts/a.rhai\"); // scripts/b.rhai\nload(\"examples/two\");")];
        assert_eq!(
            unrun(&shipped, &tests),
            ["examples/one: no test runs it", "scripts/b.rhai: no test runs it"]
        );
    }

    #[test]
    fn long_unfinished_and_nameless_files_are_found() {
        let long = "x\n".repeat(SOURCE_LINES_MAX + 1);
        assert_eq!(too_long(&[file("src/a.rs", &long), file("src/a/tests.rs", &long)]).len(), 1);
        let marks = format!("{}{}\nfine\n", concat!("to", "do!("), ")");
        assert_eq!(
            unfinished(&[file("src/a.rs", &marks)]),
            [format!("src/a.rs:1: {}", concat!("to", "do!("))]
        );
        assert_eq!(nameless(&[file("src/a.rs", "use x;"), file("src/b.rs", "//! b")]).len(), 1);
    }
}
