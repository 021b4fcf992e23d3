//! The tests as the guard of a reload: what failed, as problems of the scripts.

use super::report::{CaseResult, Report, Shown};
use super::run::{Options, run};
use crate::route::{Rule, ScriptProblem, ScriptSet, Severity, Surroundings, Tests};

/// What a router asks before it lets a set go live.
pub fn guard() -> Tests {
    Box::new(|set: &ScriptSet, around: &Surroundings| {
        let options = Options { accounts: around.accounts.clone(), ..Options::default() };
        problems(&run(set, around, &options))
    })
}

fn problems(report: &Report) -> Vec<ScriptProblem> {
    let mut problems: Vec<ScriptProblem> = report.failed().filter_map(failed).collect();
    for broken in &report.broken {
        match &broken.shown {
            Shown::Table(shown) => problems.extend(shown.problems().iter().map(|problem| {
                let (line, column) = shown.line_and_column(problem).unwrap_or_default();
                placed(&broken.file, line, column, problem.message.clone(), problem.help.as_deref())
            })),
            // These say their place themselves.
            Shown::Script(lines) => {
                let lines = lines.iter().map(|line| placed(&broken.file, 0, 0, line.clone(), None));
                problems.extend(lines);
            }
        }
    }
    if report.out_of_time > 0 {
        let message = format!("{} tests were not run: the tests take too long", report.out_of_time);
        problems.push(placed("tests", 0, 0, message, None));
    }
    problems
}

fn failed(case: &CaseResult) -> Option<ScriptProblem> {
    let failure = case.failure.as_ref()?;
    let message = format!("test \"{}\" fails: {}", case.name, failure.in_a_line());
    let (line, column) = (failure.line as usize, failure.column.unwrap_or(0) as usize);
    Some(placed(&failure.file, line, column, message, failure.hint.as_deref()))
}

fn placed(file: &str, line: usize, column: usize, message: String, hint: Option<&str>) -> ScriptProblem {
    let mut problem = ScriptProblem::whole(file, message).of(Rule::Test, Severity::Error);
    problem.line = u32::try_from(line).unwrap_or(u32::MAX);
    problem.column = u32::try_from(column).unwrap_or(u32::MAX);
    match hint {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ScriptLimits;

    #[test]
    fn what_fails_is_a_problem_at_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        write("global.rhai", "fn route(delivery) { if delivery.attempt > 3 { return \"smarthost\"; } }");
        write(
            "global.test.toml",
            "[[case]]\nname = \"first\"\nexpect = \"nothing\"\n\n[[case]]\nname = \"fourth\"\nattempt = 4\nexpect = \"bulk\"\n",
        );
        let set = ScriptSet::load(dir.path(), &ScriptLimits::default()).unwrap();
        let found = guard()(&set, &Surroundings::default());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].is_error() && found[0].rule == Rule::Test);
        let text = found[0].to_string();
        assert!(text.starts_with("global.test.toml:5") && text.contains("\"fourth\" fails"), "{text}");
        write("global.test.toml", "[[case]]\nnam = \"x\"\n");
        let set = ScriptSet::load(dir.path(), &ScriptLimits::default()).unwrap();
        let found = guard()(&set, &Surroundings::default());
        assert!(
            found.iter().any(|problem| problem.to_string().starts_with("global.test.toml:2:1: ")),
            "{found:?}"
        );
    }
}
