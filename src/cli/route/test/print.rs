//! Results for people: each test, then every failure with its place, its trace, and expected beside got.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::Outcome;
use crate::route::Step;
use crate::route_test::{CaseResult, Failure};

/// Colours, or none.
#[derive(Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(super) fn weak(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// Writes everything.
pub(super) fn print(outcome: &Outcome, colours: bool, out: &mut dyn Write) -> io::Result<()> {
    let paint = Paint(colours);
    let count: usize = outcome.reports().map(|report| report.cases.len()).sum();
    writeln!(out, "running {count} {}", if count == 1 { "test" } else { "tests" })?;
    for (suite, report) in &outcome.suites {
        for case in &report.cases {
            let result = if case.failure.is_none() { paint.good("ok") } else { paint.bad("FAILED") };
            writeln!(out, "test {}{}: {} ... {result}", suite.shown_under, case.file, case.name)?;
        }
    }
    let failed: Vec<(&str, &CaseResult, &Failure)> = outcome
        .suites
        .iter()
        .flat_map(|(suite, report)| report.failed().map(move |case| (suite.shown_under.as_str(), case)))
        .filter_map(|(under, case)| Some((under, case, case.failure.as_deref()?)))
        .collect();
    if !failed.is_empty() {
        writeln!(out, "\nfailures:")?;
        for (under, case, failure) in &failed {
            out.write_all(show(under, case, failure, paint).as_bytes())?;
        }
        writeln!(out, "\nfailures:")?;
        for (under, case, _) in &failed {
            writeln!(out, "    {under}{}: {}", case.file, case.name)?;
        }
    }
    for broken in outcome.reports().flat_map(|report| &report.broken) {
        write!(out, "\n{}", broken.shown.render(colours))?;
    }
    if !outcome.unusable.is_empty() {
        writeln!(out, "\nthe scripts have problems:")?;
        for problem in &outcome.unusable {
            writeln!(out, "    {problem}")?;
        }
    }
    for note in outcome.notes.iter().chain(outcome.reports().flat_map(|report| &report.notes)) {
        writeln!(out, "note: {note}")?;
    }
    summary(outcome, paint, out)
}

fn summary(outcome: &Outcome, paint: Paint, out: &mut dyn Write) -> io::Result<()> {
    let good = outcome.is_usable() && outcome.reports().all(crate::route_test::Report::is_good);
    let (mut passed, mut failed, mut left_out, mut late, mut micros) = (0, 0, 0, 0, 0);
    for report in outcome.reports() {
        passed += report.passed();
        failed += report.failed().count();
        left_out += report.left_out;
        late += report.out_of_time;
        micros += report.micros;
    }
    let result = if good { paint.good("ok") } else { paint.bad("FAILED") };
    let mut line = format!("test result: {result}. {passed} passed; {failed} failed");
    if left_out > 0 {
        let _ = write!(line, "; {left_out} filtered out");
    }
    if late > 0 {
        let _ = write!(line, "; {late} not run, the time was over");
    }
    let broken: usize = outcome.reports().map(|report| report.broken.len()).sum();
    if broken > 0 {
        let _ = write!(line, "; {broken} {} unusable", if broken == 1 { "file is" } else { "files are" });
    }
    writeln!(out, "\n{line}; finished in {:.2}s", micros as f64 / 1e6)
}

/// One failure.
fn show(under: &str, case: &CaseResult, failure: &Failure, paint: Paint) -> String {
    let mut text = format!("\n---- {under}{}: {} ----\n", case.file, case.name);
    let column = failure.column.map_or_else(String::new, |column| format!(":{column}"));
    let _ = writeln!(text, "{under}{}:{}{column}", failure.file, failure.line);
    if let Some(message) = &failure.message {
        let _ = writeln!(text, "   message  {message}");
    }
    if let Some(attempt) = failure.attempt {
        let _ = writeln!(text, "   attempt  {attempt}");
    }
    if let Some(diff) = &failure.diff {
        let _ = writeln!(text, "differences  {}  {}", paint.good("- expected"), paint.bad("+ got"));
        for line in diff.lines() {
            let line = match line.get(..1) {
                Some("-") => paint.good(line),
                Some("+") => paint.bad(line),
                _ => line.to_owned(),
            };
            let _ = writeln!(text, "            {line}");
        }
    } else {
        if let Some(expected) = &failure.expected {
            let _ = writeln!(text, "  expected  {}", paint.good(&aligned(expected)));
        }
        if let Some(got) = &failure.got {
            let _ = writeln!(text, "       got  {}", paint.bad(&aligned(got)));
        }
    }
    text.push_str(&trace(case, failure, paint));
    if let Some(hint) = &failure.hint {
        let _ = writeln!(text, "      hint  {hint}");
    }
    text
}

fn aligned(text: &str) -> String {
    text.replace('\n', "\n            ")
}

/// Who was asked, and what each said.
fn trace(case: &CaseResult, failure: &Failure, paint: Paint) -> String {
    let mut text = String::new();
    if failure.trace.is_empty() {
        return text;
    }
    let whom = match failure.trace.as_slice() {
        [_] if case.asked == "chain" => "one level alone".to_owned(),
        [_] => format!("{} alone", case.asked),
        _ => "all three levels".to_owned(),
    };
    let _ = writeln!(text, "     asked  {whom}");
    for step in &failure.trace {
        let _ = writeln!(text, "            {}", paint.weak(&aligned(&step_text(step))));
    }
    text
}

/// A level without the time it took, which is another each time.
fn step_text(step: &Step) -> String {
    format!("{step:#}")
}
