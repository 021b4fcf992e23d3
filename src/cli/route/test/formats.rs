//! Results for programs: JSON, JUnit XML, the Test Anything Protocol.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::Outcome;
use crate::cli::error::CommandError;
use crate::route_test::{CaseResult, Failure};

/// Everything, as one object.
pub(super) fn json(outcome: &Outcome, coverage: bool, out: &mut dyn Write) -> Result<(), CommandError> {
    let suites: Vec<Value> = outcome
        .suites
        .iter()
        .map(|(suite, report)| {
            let mut value = serde_json::to_value(report)?;
            value["scripts"] = suite.shown_under.trim_end_matches('/').into();
            value["set"] = suite.set.hash().to_string().into();
            Ok(value)
        })
        .collect::<Result<_, serde_json::Error>>()?;
    let good = outcome.is_usable() && outcome.reports().all(crate::route_test::Report::is_good);
    let mut all = json!({
        "good": good,
        "passed": outcome.reports().map(crate::route_test::Report::passed).sum::<usize>(),
        "failed": outcome.reports().map(|report| report.failed().count()).sum::<usize>(),
        "problems": outcome.unusable,
        "notes": outcome.notes,
        "suites": suites,
    });
    if coverage {
        all["percent"] = outcome.percent().into();
    }
    serde_json::to_writer_pretty(&mut *out, &all)?;
    writeln!(out)?;
    Ok(())
}

/// What goes wrong before any test runs, each as file and words.
fn unusable(outcome: &Outcome) -> Vec<(String, String)> {
    let scripts = outcome.unusable.iter().map(|problem| (problem.file.clone(), problem.to_string()));
    let tests = outcome.suites.iter().flat_map(|(suite, report)| {
        let broken = report.broken.iter();
        broken.map(|broken| (format!("{}{}", suite.shown_under, broken.file), broken.problems.join("\n")))
    });
    scripts.chain(tests).collect()
}

/// One `testsuite` for each file of tests, as Jenkins, GitLab and others read it.
pub(super) fn junit(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"waypost route test\">\n",
    );
    for (suite, report) in &outcome.suites {
        for group in report.cases.chunk_by(|a, b| a.file == b.file) {
            let Some(first) = group.first() else { continue };
            let file = xml(&format!("{}{}", suite.shown_under, first.file));
            let failures = group.iter().filter(|case| case.failure.is_some()).count();
            let micros: u64 = group.iter().map(|case| case.micros).sum();
            let _ = writeln!(
                text,
                "  <testsuite name=\"{file}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" time=\"{}\">",
                group.len(),
                seconds(micros)
            );
            for case in group {
                junit_case(&mut text, &file, case);
            }
            text.push_str("  </testsuite>\n");
        }
    }
    for (file, words) in unusable(outcome) {
        let (file, words) = (xml(&file), xml(&words));
        let _ = writeln!(
            text,
            "  <testsuite name=\"{file}\" tests=\"1\" failures=\"0\" errors=\"1\">\n    <testcase classname=\"{file}\" \
             name=\"the file can be used\">\n      <error message=\"it cannot be used\">{words}</error>\n    \
             </testcase>\n  </testsuite>"
        );
    }
    text.push_str("</testsuites>\n");
    out.write_all(text.as_bytes())
}

fn junit_case(text: &mut String, file: &str, case: &CaseResult) {
    let (name, time) = (xml(&case.name), seconds(case.micros));
    let _ = write!(
        text,
        "    <testcase classname=\"{file}\" name=\"{name}\" file=\"{file}\" line=\"{}\" time=\"{time}\"",
        case.line
    );
    match &case.failure {
        None => text.push_str("/>\n"),
        Some(failure) => {
            let _ = writeln!(
                text,
                ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                xml(&failure.in_a_line()),
                xml(&details(failure))
            );
        }
    }
}

fn details(failure: &Failure) -> String {
    let place = format!("{}:{}\n", failure.file, failure.line);
    let trace = failure.trace.iter().map(|step| format!("{step:#}\n")).collect::<Vec<_>>().concat();
    let diff = failure.diff.as_ref().map_or_else(String::new, |diff| format!("{diff}\n"));
    format!("{place}{}\n{diff}{trace}", failure.in_a_line())
}

fn seconds(micros: u64) -> String {
    format!("{:.6}", micros as f64 / 1e6)
}

/// XML 1.0 has no place for control characters, escaped or not.
fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            '\t' => safe.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// TAP version 14; what a failure has to say stands in its YAML block.
pub(super) fn tap(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let broken = unusable(outcome);
    let count: usize = outcome.reports().map(|report| report.cases.len()).sum::<usize>() + broken.len();
    let mut text = format!("TAP version 14\n1..{count}\n");
    let mut number = 0;
    for (suite, report) in &outcome.suites {
        for case in &report.cases {
            number += 1;
            let not = if case.failure.is_some() { "not " } else { "" };
            let name = tap_name(&format!("{}{}: {}", suite.shown_under, case.file, case.name));
            let _ = writeln!(text, "{not}ok {number} - {name}");
            if let Some(failure) = &case.failure {
                let at = format!("{}{}:{}", suite.shown_under, failure.file, failure.line);
                let _ =
                    writeln!(text, "  ---\n  at: {}\n  message: {}", yaml(&at), yaml(&failure.in_a_line()));
                if !failure.trace.is_empty() {
                    text.push_str("  trace:\n");
                }
                for step in &failure.trace {
                    let _ = writeln!(text, "    - {}", yaml(&format!("{step:#}")));
                }
                text.push_str("  ...\n");
            }
        }
    }
    for (file, words) in broken {
        number += 1;
        let _ = writeln!(
            text,
            "not ok {number} - {}\n  ---\n  message: {}\n  ...",
            tap_name(&format!("{file}: the file can be used")),
            yaml(&words)
        );
    }
    out.write_all(text.as_bytes())
}

/// `#` would begin a directive.
fn tap_name(name: &str) -> String {
    name.replace('\\', "\\\\").replace('#', "\\#")
}

/// A JSON string is a YAML string.
fn yaml(text: &str) -> String {
    Value::from(text).to_string()
}
