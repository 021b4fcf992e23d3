//! What came of a run: each case, how a failed one failed, and the files that could not be used.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::coverage::Coverage;
use crate::config::ConfigProblems;
use crate::route::{ScriptProblem, Step};

/// All that came of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Every case that was run, in the order of files and lines.
    pub cases: Vec<CaseResult>,
    /// Files that could not be used: none of their cases was run.
    pub broken: Vec<Broken>,
    /// What is odd, but no failure.
    pub notes: Vec<String>,
    /// Cases that the filter left out.
    pub left_out: usize,
    /// Cases that were not run because the time was over; never good.
    pub out_of_time: usize,
    /// What was reached, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Time it took, microseconds.
    pub micros: u64,
}

/// A file of tests that cannot be used, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Broken {
    /// File, relative to the scripts directory.
    pub file: Arc<str>,
    /// Every problem as `file:line:column: message (help)`.
    pub problems: Vec<String>,
    /// The same with source lines and marks.
    #[serde(skip)]
    pub shown: Shown,
}

/// What is wrong, for people.
#[derive(Debug, Clone)]
pub enum Shown {
    /// A table.
    Table(ConfigProblems),
    /// Tests in Rhai: each problem in a line.
    Script(Vec<String>),
}

impl Shown {
    /// As text, with colours for a terminal or without.
    pub fn render(&self, colours: bool) -> String {
        match self {
            Self::Table(problems) => problems.render(colours),
            Self::Script(problems) => problems.join("\n") + "\n",
        }
    }
}

/// One case.
#[derive(Debug, Clone, Serialize)]
pub struct CaseResult {
    /// File of tests, relative to the scripts directory.
    pub file: Arc<str>,
    /// Line in it, from 1.
    pub line: u32,
    /// What the case is called.
    pub name: String,
    /// Who was asked: the script's file, or `chain` for all three levels.
    pub asked: String,
    /// How it failed; `None` when it passed.
    pub failure: Option<Box<Failure>>,
    /// Time it took, microseconds.
    pub micros: u64,
}

/// How a case failed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Failure {
    /// Which attempt, in a case that stands for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// File where it failed, relative to the scripts directory.
    pub file: Arc<str>,
    /// Line in it, from 1.
    pub line: u32,
    /// Column, from 1, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What went wrong, where it is not just another answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
    /// The difference line by line, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// What often goes wrong so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What each level that was asked said, with its lines.
    pub trace: Vec<Step>,
}

impl Report {
    /// Whether every case passed, and every file could be used.
    pub fn is_good(&self) -> bool {
        self.broken.is_empty() && self.out_of_time == 0 && self.failed().next().is_none()
    }

    /// The cases that failed.
    pub fn failed(&self) -> impl Iterator<Item = &CaseResult> {
        self.cases.iter().filter(|case| case.failure.is_some())
    }

    /// How many cases passed.
    pub fn passed(&self) -> usize {
        self.cases.len() - self.failed().count()
    }

    /// Time it took.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// Each failure in a line, for a log: `file:line: name: expected ..., got ...`.
    pub fn complaints(&self) -> Vec<String> {
        let failed = self.failed().filter_map(|case| {
            let failure = case.failure.as_ref()?;
            Some(format!("{}:{}: {}: {}", failure.file, failure.line, case.name, failure.in_a_line()))
        });
        let broken = self.broken.iter().flat_map(|broken| broken.problems.iter().cloned());
        let late = (self.out_of_time > 0)
            .then(|| format!("{} cases were not run: the tests take too long", self.out_of_time));
        broken.chain(failed).chain(late).collect()
    }
}

impl Failure {
    /// What went wrong, without the trace.
    pub fn in_a_line(&self) -> String {
        let line = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let attempt = self.attempt.map(|attempt| format!("attempt {attempt}: ")).unwrap_or_default();
        let answer = match (&self.expected, &self.got) {
            (Some(expected), Some(got)) => Some(format!("expected {}, got {}", line(expected), line(got))),
            _ => None,
        };
        let parts: Vec<String> = self.message.clone().into_iter().chain(answer).collect();
        format!("{attempt}{}", parts.join(": "))
    }
}

impl Broken {
    /// Takes what is wrong with a table.
    pub(super) fn table(file: &Arc<str>, shown: ConfigProblems) -> Self {
        let line = |problem: &crate::config::Problem| {
            let place = shown.line_and_column(problem).map_or_else(String::new, |(l, c)| format!(":{l}:{c}"));
            let help = problem.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
            format!("{}{place}: {}{help}", shown.file(), problem.message)
        };
        let problems = shown.problems().iter().map(line).collect();
        Self { file: file.clone(), problems, shown: Shown::Table(shown) }
    }

    /// Takes what is wrong with tests in Rhai.
    pub(super) fn script(file: &Arc<str>, shown_under: &str, problems: &[ScriptProblem]) -> Self {
        let problems: Vec<String> =
            problems.iter().map(|problem| format!("{shown_under}{problem}")).collect();
        Self { file: file.clone(), problems: problems.clone(), shown: Shown::Script(problems) }
    }
}
