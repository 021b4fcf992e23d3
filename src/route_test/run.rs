//! Runs the tests of a script set: finds out what each file belongs to, puts its cases to the scripts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::coverage::Recorder;
use super::facts::Subject;
use super::report::{Broken, CaseResult, Failure, Report};
use super::script::Script;
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
    /// No configuration says which transports there are: a file that does not say it gets a note.
    pub any_transport: bool,
    /// Whether it is found out what was reached; it takes several times as long.
    pub coverage: bool,
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
            any_transport: false,
            coverage: false,
            time_max: Duration::from_secs(30),
        }
    }
}

/// Runs the tests that stand beside the scripts of a set.
pub fn run(set: &ScriptSet, known: &dyn KnownTransports, options: &Options) -> Report {
    let begun = Instant::now();
    let recorder = options.coverage.then(|| Recorder::new(set));
    let end = begun + options.time_max;
    let mut run = Run { set, known, options, end, recorder, report: Report::default() };
    for test in set.tests() {
        if options.files.is_empty() || options.files.contains(&*test.file) {
            run.file(test);
        }
    }
    run.report.coverage = run.recorder.map(|recorder| recorder.coverage());
    run.report.micros = micros(begun);
    run.report
}

struct Run<'a> {
    set: &'a ScriptSet,
    known: &'a dyn KnownTransports,
    options: &'a Options,
    end: Instant,
    recorder: Option<Recorder>,
    report: Report,
}

impl Run<'_> {
    fn file(&mut self, test: &TestSource) {
        let owner = match owner(self.set, &test.file) {
            Ok(owner) => owner,
            Err(problem) => {
                let problems = ConfigProblems::new(self.shown(test), &test.text, vec![*problem]);
                return self.report.broken.push(Broken::table(&test.file, problems));
            }
        };
        if test.file.ends_with(".toml") {
            match table::read(&test.text, self.shown(test), &owner) {
                Ok(table) => self.table(test, &table),
                Err(problems) => self.report.broken.push(Broken::table(&test.file, problems)),
            }
        } else {
            match Script::compile(self.set, test, &owner) {
                Ok(script) => self.script(test, &owner, &script),
                Err(problems) => {
                    let broken = Broken::script(&test.file, &self.options.shown_under, &problems);
                    self.report.broken.push(broken);
                }
            }
        }
    }

    fn shown(&self, test: &TestSource) -> String {
        format!("{}{}", self.options.shown_under, test.file)
    }

    fn table(&mut self, test: &TestSource, table: &Table) {
        self.note_accounts(test, table);
        self.note_transports(test, table.transports.is_none());
        let known = Known { own: table.transports.as_deref(), others: self.known };
        for case in &table.cases {
            if self.is_due(test, &case.name) {
                self.case(&known, test, case);
            }
        }
    }

    fn script(&mut self, test: &TestSource, owner: &Owner, script: &Script) {
        self.note_transports(test, script.transports.is_none());
        let known = Known { own: script.transports.as_deref(), others: self.known };
        for (name, line) in script.tests() {
            if !self.is_due(test, &name) {
                continue;
            }
            let begun = Instant::now();
            let end = self.end;
            let ran = script.run(&name, line, |question| {
                (Instant::now() < end).then(|| self.ask(question.ask, &question.facts, &known))
            });
            let failure = ran.err();
            let asked = asked_name(owner.ask, self.set, &test.file);
            let micros = micros(begun);
            self.report.cases.push(CaseResult {
                file: test.file.clone(),
                line,
                name,
                asked,
                failure,
                micros,
            });
        }
    }

    /// Whether a test is wanted, and there is time for it.
    fn is_due(&mut self, test: &TestSource, name: &str) -> bool {
        let filter = self.options.filter.as_deref();
        if filter.is_some_and(|filter| !name.contains(filter) && !test.file.contains(filter)) {
            self.report.left_out += 1;
            return false;
        }
        let late = Instant::now() >= self.end;
        self.report.out_of_time += usize::from(late);
        !late
    }

    /// Puts a delivery to one script, or to all three levels.
    fn ask(&mut self, ask: Ask, facts: &Arc<Facts>, known: &dyn KnownTransports) -> Vec<Step> {
        let steps = match ask {
            Ask::Level(level) => vec![self.set.explain_level(level, facts, known)],
            Ask::Chain => self.set.explain(facts, known).steps,
        };
        if let Some(recorder) = &mut self.recorder {
            for step in steps.iter().filter(|step| step.script.is_some()) {
                recorder.take(&self.set.way(step.level, facts));
            }
        }
        steps
    }

    fn case(&mut self, known: &Known<'_>, test: &TestSource, case: &Case) {
        let begun = Instant::now();
        let mut failure = None;
        for attempt in &case.attempts {
            if Instant::now() >= self.end {
                self.report.out_of_time += 1;
                return;
            }
            failure = self.attempt(known, test, case, *attempt).err();
            if failure.is_some() {
                break;
            }
        }
        let asked = asked_name(case.ask, self.set, &test.file);
        let (file, line, name) = (test.file.clone(), case.line, case.name.clone());
        self.report.cases.push(CaseResult { file, line, name, asked, failure, micros: micros(begun) });
    }

    fn attempt(
        &mut self,
        known: &Known<'_>,
        test: &TestSource,
        case: &Case,
        attempt: u32,
    ) -> Result<(), Box<Failure>> {
        let failure = Failure {
            attempt: (case.attempts.len() > 1).then_some(attempt),
            file: test.file.clone(),
            line: case.line,
            ..Failure::default()
        };
        let facts = match case.facts(attempt) {
            Ok(facts) => Arc::new(facts),
            Err(problem) => return Err(Box::new(Failure { message: Some(problem.message), ..failure })),
        };
        let trace = self.ask(case.ask, &facts, known);
        case.expected.check(&trace).map_err(|mismatch| {
            let (expected, got) = (Some(mismatch.expected), Some(mismatch.got));
            Box::new(Failure { expected, got, hint: mismatch.hint, trace, ..failure })
        })
    }

    fn note_transports(&mut self, test: &TestSource, unsaid: bool) {
        if self.options.any_transport && unsaid {
            let shown = self.shown(test);
            self.report.notes.push(format!(
                "{shown}: no configuration, and no `transports` in this file: every name counts as a transport"
            ));
        }
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

/// Whom a test asks, as it is shown: a file of the set, or a level, or all of them.
fn asked_name(ask: Ask, set: &ScriptSet, file: &str) -> String {
    match ask {
        Ask::Chain => "chain".to_owned(),
        Ask::Level(level) => {
            let script = script_of(file);
            if set.level_of(&script) == Some(level) { script } else { level.to_string() }
        }
    }
}

/// The script that has the name of a file of tests.
fn script_of(file: &str) -> String {
    file.rsplit_once(".test.").map_or_else(|| file.to_owned(), |(stem, _)| format!("{stem}.rhai"))
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
    let script = script_of(file);
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
        // A module has tests in Rhai that call it.
        (None, "lib") => Ok(Owner { ask: Ask::Chain, subject: Subject::default() }),
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
