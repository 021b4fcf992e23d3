//! Runs the tests of a script set: finds out what each file belongs to, puts its cases to the scripts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::facts::Subject;
use super::report::{Broken, CaseResult, Failure, Report};
use super::table::{self, Ask, Case, Owner, Table};
use crate::address::Domain;
use crate::attempt::Level;
use crate::config::{ConfigProblems, Problem, nearest};
use crate::names::{AccountName, TransportName};
use crate::route::{Facts, KnownTransports, ScriptSet, Step, TestSource};

/// What is run, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only cases whose name, or file, contains this.
    pub filter: Option<String>,
    /// Only these files of tests, relative to the scripts directory; all when empty.
    pub files: BTreeSet<String>,
    /// Accounts that exist, where that is known; another one in a case gets a note.
    pub accounts: Option<BTreeSet<AccountName>>,
    /// Put before the names of files where these are shown with marks: the scripts directory as the user knows it.
    pub shown_under: String,
    /// What is not run by then is not run, and the report is not good.
    pub time_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            filter: None,
            files: BTreeSet::new(),
            accounts: None,
            shown_under: String::new(),
            time_max: Duration::from_secs(30),
        }
    }
}

/// Runs the tests that stand beside the scripts of a set.
pub fn run(set: &ScriptSet, known: &dyn KnownTransports, options: &Options) -> Report {
    let begun = Instant::now();
    let mut run = Run { set, known, options, end: begun + options.time_max, report: Report::default() };
    for test in set.tests() {
        if options.files.is_empty() || options.files.contains(&*test.file) {
            run.file(test);
        }
    }
    run.report.micros = micros(begun);
    run.report
}

struct Run<'a> {
    set: &'a ScriptSet,
    known: &'a dyn KnownTransports,
    options: &'a Options,
    end: Instant,
    report: Report,
}

impl Run<'_> {
    fn file(&mut self, test: &TestSource) {
        let read = owner(self.set, &test.file)
            .map_err(|problem| ConfigProblems::new(self.shown(test), &test.text, vec![*problem]));
        let read = read.and_then(|owner| table::read(&test.text, self.shown(test), &owner));
        match read {
            Ok(table) => self.table(test, &table),
            Err(problems) => self.report.broken.push(Broken::new(&test.file, problems)),
        }
    }

    fn shown(&self, test: &TestSource) -> String {
        format!("{}{}", self.options.shown_under, test.file)
    }

    fn table(&mut self, test: &TestSource, table: &Table) {
        self.note_accounts(test, table);
        let known = Known { own: table.transports.as_deref(), others: self.known };
        for case in &table.cases {
            if !self.is_wanted(test, &case.name) {
                self.report.left_out += 1;
            } else if Instant::now() >= self.end {
                self.report.out_of_time += 1;
            } else {
                let result = run_case(self.set, &known, test, case);
                self.report.cases.push(result);
            }
        }
    }

    fn is_wanted(&self, test: &TestSource, name: &str) -> bool {
        let Some(filter) = &self.options.filter else { return true };
        name.contains(filter.as_str()) || test.file.contains(filter.as_str())
    }

    fn note_accounts(&mut self, test: &TestSource, table: &Table) {
        let Some(accounts) = &self.options.accounts else { return };
        for (account, line) in table.accounts.iter().filter(|(account, _)| !accounts.contains(account)) {
            let near = nearest(account.as_str(), accounts.iter().map(AccountName::as_str));
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            let shown = self.shown(test);
            self.report.notes.push(format!("{shown}:{line}: there is no account {account}{near}"));
        }
    }
}

fn run_case(set: &ScriptSet, known: &Known<'_>, test: &TestSource, case: &Case) -> CaseResult {
    let begun = Instant::now();
    let mut failure = None;
    let mut asked = String::new();
    for facts in &case.facts {
        let facts = Arc::new(facts.clone());
        let steps = ask(set, case.ask, &facts, known);
        asked = asked_name(case.ask, &steps);
        if let Err(mismatch) = case.expected.check(&steps) {
            failure = Some(Box::new(Failure {
                attempt: (case.facts.len() > 1).then_some(facts.attempt),
                file: test.file.clone(),
                line: case.line,
                expected: Some(mismatch.expected),
                got: Some(mismatch.got),
                hint: mismatch.hint,
                trace: steps,
                ..Failure::default()
            }));
            break;
        }
    }
    CaseResult {
        file: test.file.clone(),
        line: case.line,
        name: case.name.clone(),
        asked,
        failure,
        micros: micros(begun),
    }
}

/// Puts a delivery to one script, or to all three levels.
pub(super) fn ask(set: &ScriptSet, ask: Ask, facts: &Arc<Facts>, known: &dyn KnownTransports) -> Vec<Step> {
    match ask {
        Ask::Level(level) => vec![set.explain_level(level, facts, known)],
        Ask::Chain => set.explain(facts, known).steps,
    }
}

fn asked_name(ask: Ask, steps: &[Step]) -> String {
    match (ask, steps) {
        (Ask::Level(level), [step]) => {
            step.script.as_ref().map_or_else(|| level.to_string(), |script| script.file.to_string())
        }
        (Ask::Level(level), _) => level.to_string(),
        (Ask::Chain, _) => "chain".to_owned(),
    }
}

/// The transports of a file of tests, else those that the configuration has.
pub(super) struct Known<'a> {
    pub(super) own: Option<&'a [TransportName]>,
    pub(super) others: &'a dyn KnownTransports,
}

impl KnownTransports for Known<'_> {
    fn knows(&self, name: &str) -> bool {
        match self.own {
            Some(own) => own.iter().any(|own| own.as_str() == name),
            None => self.others.knows(name),
        }
    }

    fn names(&self) -> Vec<String> {
        match self.own {
            Some(own) => own.iter().map(ToString::to_string).collect(),
            None => self.others.names(),
        }
    }
}

/// What a file of tests belongs to: the script of its name, or at the top, where none has its name, all levels.
pub(super) fn owner(set: &ScriptSet, file: &str) -> Result<Owner, Box<Problem>> {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let stem = name.rsplit_once(".test.").map_or(name, |(stem, _)| stem);
    let script = if folder.is_empty() { format!("{stem}.rhai") } else { format!("{folder}/{stem}.rhai") };
    let level = set.level_of(&script);
    let alone = true;
    match (level, folder) {
        (Some(Level::Account), _) => {
            let account = AccountName::new(&stem.to_ascii_lowercase()).ok();
            Ok(Owner { ask: Ask::Level(Level::Account), subject: Subject { account, domain: None, alone } })
        }
        (Some(Level::Domain), _) => {
            let domain = Domain::parse(stem).ok();
            Ok(Owner { ask: Ask::Level(Level::Domain), subject: Subject { account: None, domain, alone } })
        }
        (Some(level), _) => Ok(Owner { ask: Ask::Level(level), subject: Subject::default() }),
        (None, "") if stem != "global" => Ok(Owner { ask: Ask::Chain, subject: Subject::default() }),
        (None, _) => {
            let problem =
                Problem::new(0..0, format!("there is no {script} that these tests could be for"), "");
            let files = set.scripts().iter().map(|script| &*script.file);
            let problem = match nearest(&script, files) {
                Some(near) => {
                    let right = near.strip_suffix(".rhai").unwrap_or(near);
                    let ending = file.rsplit_once('.').map_or("toml", |(_, ending)| ending);
                    problem.help(format!("should this be {right}.test.{ending}?"))
                }
                None => problem.help("tests stand beside the script that has their name; at the top, tests of any other name ask all levels"),
            };
            Err(problem.into())
        }
    }
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}
