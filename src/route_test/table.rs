//! A file of cases, `*.test.toml`.
//!
//! ```toml
//! [[case]]
//! name = "from the fourth attempt on by the smarthost"
//! attempt = "4..6"
//! expect = "smarthost"
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeTable;

use super::expect::{self, Expected};
use super::facts::{Subject, attempts, facts};
use super::given::{GUESSES, Given};
use crate::attempt::Level;
use crate::config::{ConfigProblems, Problem, Reader, Section, Wrong};
use crate::names::{AccountName, TransportName};
use crate::route::Facts;

/// Cases in one file.
const CASES_MAX: usize = 10_000;
/// What a case is called elsewhere.
const OTHER_NAMES: [&str; 4] = ["test", "tests", "it", "check"];

/// Whom a case asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// One script alone.
    Level(Level),
    /// All three levels, as the queue does it.
    Chain,
}

/// What a file of tests belongs to.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    /// Whom its cases ask unless they say otherwise.
    pub(super) ask: Ask,
    /// Whose script that is.
    pub(super) subject: Subject,
}

/// A file of cases, read and checked.
#[derive(Debug)]
pub(super) struct Table {
    /// Names that scripts may return in this file's cases; `None` for those of the configuration.
    pub(super) transports: Option<Vec<TransportName>>,
    pub(super) cases: Vec<Case>,
    /// Accounts that are named, each with its place, for a note when they do not exist.
    pub(super) accounts: Vec<(AccountName, u32)>,
}

/// One case.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    /// Line of its `[[case]]`, from 1.
    pub(super) line: u32,
    pub(super) ask: Ask,
    /// The attempts that it stands for.
    pub(super) attempts: Vec<u32>,
    given: Given,
    subject: Subject,
    pub(super) expected: Expected,
}

impl Case {
    /// The facts of one of its attempts. They are made when they are needed: a long history for each of many attempts
    /// would take much memory.
    pub(super) fn facts(&self, attempt: u32) -> Result<Facts, Box<Problem>> {
        facts(&self.given, &self.subject, attempt)
    }
}

/// Reads a file; everything that is wrong with it is reported at once.
pub(super) fn read(text: &str, file: String, owner: &Owner) -> Result<Table, ConfigProblems> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let syntax = errors.iter().map(|error| {
        let place = error.span().unwrap_or(0..0);
        Problem::new(place, format!("not TOML: {}", error.message()), "here")
    });
    let syntax: Vec<Problem> = syntax.collect();
    if !syntax.is_empty() {
        return Err(ConfigProblems::new(file, text, syntax));
    }
    let reader = Reader::new(std::path::Path::new(""));
    let table = whole(Section::new(&reader, "a file of tests", 0..0, document.get_ref()), text, owner);
    let problems = reader.into_problems();
    if problems.is_empty() { Ok(table) } else { Err(ConfigProblems::new(file, text, problems)) }
}

fn whole(mut top: Section<'_>, text: &str, owner: &Owner) -> Table {
    let transports = top.has("transports").then(|| {
        let names = top.list("transports", "names of transports", TransportName::new);
        names.into_iter().map(|name| name.value).collect()
    });
    let owner = Owner { ask: ask(&mut top, owner).unwrap_or(owner.ask), subject: owner.subject.clone() };
    let mut section = top.section("defaults", "[defaults]");
    let defaults = Given::read(&mut section);
    section.finish_with(GUESSES);
    let mut table = Table { transports, cases: Vec::new(), accounts: Vec::new() };
    cases(&mut top, text, &owner, &defaults, &mut table);
    top.finish_with(&OTHER_NAMES.map(|name| (name, "did you mean `case`?")));
    table
}

fn cases(top: &mut Section<'_>, text: &str, owner: &Owner, defaults: &Given, table: &mut Table) {
    let reader = top.reader;
    let Some(value) = top.get("case") else {
        // One slip, one problem.
        if !top.is_misspelt("case") && !OTHER_NAMES.iter().any(|name| top.has(name)) {
            let problem = Problem::new(0..0, "there is no case in this file", "expected [[case]]");
            reader.report(
                problem.help(
                    "a case looks like this: [[case]] name = \"...\" attempt = 4 expect = \"smarthost\"",
                ),
            );
        }
        return;
    };
    let place = top.key_place("case");
    let Some(array) = value.get_ref().as_array() else {
        reader.report(Problem::new(
            place,
            "a case begins with [[case]], in double brackets",
            "expected [[case]]",
        ));
        return;
    };
    if array.len() > CASES_MAX {
        reader.report(Problem::new(place, format!("more than {CASES_MAX} cases in one file"), "too many"));
        return;
    }
    let mut names: BTreeMap<String, Range<usize>> = BTreeMap::new();
    for item in array {
        let Some(section) = reader.table("a case", item.span(), item) else { continue };
        let Some(case) = case(section, text, owner, defaults, table) else { continue };
        if let Some(first) = names.insert(case.name.clone(), item.span()) {
            let problem =
                Problem::new(item.span(), format!("two cases are called {:?}", case.name), "this one");
            reader.report(problem.also(first, "and this one"));
        }
        table.cases.push(case);
    }
}

/// `None` only where a problem was reported.
fn case(
    mut section: Section<'_>,
    text: &str,
    owner: &Owner,
    defaults: &Given,
    table: &mut Table,
) -> Option<Case> {
    let (reader, place) = (section.reader, section.place.clone());
    let name = section.read("name", "what the case is about", |value| {
        let name = value.as_str().ok_or(Wrong::Kind)?.trim();
        let good = !name.is_empty() && !name.contains(char::is_control);
        if good {
            Ok(name.to_owned())
        } else {
            Err(Wrong::Value(Some("a name is one line of text".to_owned())))
        }
    });
    if !section.has("name") {
        section.missing("name", "name = \"the fourth attempt goes by the smarthost\"");
    }
    let ask = ask(&mut section, owner);
    let given = Given::read(&mut section).or(defaults);
    let asked = ask.unwrap_or(owner.ask);
    let expected = expect::read(&mut section, asked == Ask::Chain);
    section.finish_with(GUESSES);
    let line = line_of(text, place.start);
    if let Some(account) = given.account.as_ref().and_then(|account| account.value.clone()) {
        table.accounts.push((account, line));
    }
    let subject = Subject { alone: asked == owner.ask, ..owner.subject.clone() };
    let case = Case {
        name: name?,
        line,
        ask: asked,
        attempts: attempts(&given),
        given,
        subject,
        expected: expected?,
    };
    // What cannot be is so for the first of several attempts or for the last.
    for attempt in [case.attempts.iter().min()?, case.attempts.iter().max()?] {
        if let Err(problem) = case.facts(*attempt) {
            let mut problem = *problem;
            // What has no place of its own is about the case as a whole.
            problem.place = problem.place.filter(|place| !place.is_empty()).or(Some(place));
            problem.also = problem.also.filter(|(place, _)| !place.is_empty());
            reader.report(problem);
            return None;
        }
    }
    Some(case)
}

/// `ask = "chain"`, or a level, or `"script"` for the one beside the file.
fn ask(section: &mut Section<'_>, owner: &Owner) -> Option<Ask> {
    let form = "\"chain\" for all levels, \"script\" for the one beside this file, \"account\", \"domain\" or \"global\"";
    section.parsed("ask", form, |text| parse_ask(text, owner.ask))
}

/// What the words for whom to ask mean in a file that belongs to `own`.
pub(super) fn parse_ask(text: &str, own: Ask) -> Result<Ask, String> {
    match text {
        "chain" => Ok(Ask::Chain),
        "account" => Ok(Ask::Level(Level::Account)),
        "domain" => Ok(Ask::Level(Level::Domain)),
        "global" => Ok(Ask::Level(Level::Global)),
        "script" if own == Ask::Chain => Err("no script stands beside this file".to_owned()),
        "script" => Ok(own),
        _ => {
            let names = ["chain", "script", "account", "domain", "global"];
            Err(match crate::config::nearest(text, names.into_iter()) {
                Some(near) => format!("{text:?} cannot be asked; did you mean {near:?}?"),
                None => format!("{text:?} cannot be asked"),
            })
        }
    }
}

fn line_of(text: &str, at: usize) -> u32 {
    let before = text.get(..at).unwrap_or_default().matches('\n').count();
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}
