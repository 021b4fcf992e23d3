//! Coverage for people, source lines with marks, and as lcov has it.

use std::fmt::Write as _;

use super::Outcome;
use super::inputs::Suite;
use super::print::Paint;
use crate::route_test::FileCoverage;

/// The table of files and, with `lines`, what was not reached in each.
pub(super) fn text(outcome: &Outcome, lines: bool, colours: bool) -> String {
    let paint = Paint(colours);
    let files = files(outcome);
    let width =
        files.iter().map(|(suite, file)| suite.shown_under.len() + file.file.len()).max().unwrap_or(0).max(5);
    let mut text = String::from("\ncoverage:\n");
    for (suite, file) in &files {
        let (of_lines, of_branches) = file.reached();
        let name = format!("{}{}", suite.shown_under, file.file);
        let percent = format!("{:>5.1} %", file.percent());
        let percent = if file.percent() < 100.0 { paint.bad(&percent) } else { paint.good(&percent) };
        let _ = writeln!(
            text,
            "  {name:<width$}  {percent}  {:>3} of {:>3} lines, {:>3} of {:>3} branches",
            of_lines.reached, of_lines.all, of_branches.reached, of_branches.all
        );
    }
    let _ = writeln!(text, "  {:<width$}  {:>5.1} %", "total", outcome.percent());
    if lines {
        for (suite, file) in files.iter().filter(|(_, file)| file.percent() < 100.0) {
            text.push_str(&unreached(suite, file, paint));
        }
    }
    text
}

fn files(outcome: &Outcome) -> Vec<(&Suite, &FileCoverage)> {
    outcome
        .suites
        .iter()
        .flat_map(|(suite, report)| {
            report.coverage.iter().flat_map(|coverage| &coverage.files).map(move |file| (suite, file))
        })
        .collect()
}

/// Lines that no test reached, and branches that none took.
fn unreached(suite: &Suite, file: &FileCoverage, paint: Paint) -> String {
    let mut text = format!("\nnot reached in {}{}:\n", suite.shown_under, file.file);
    let source: Vec<&str> = suite.set.text(&file.file).unwrap_or_default().lines().collect();
    let mut shown_before = 0;
    for (index, source) in source.iter().enumerate() {
        let number = index as u32 + 1;
        let unreached = file.lines.get(&number) == Some(&0);
        let marks: Vec<_> = file
            .branches
            .iter()
            .filter(|branch| branch.line == number && branch.taken == 0 && branch.fork_reached)
            .collect();
        if !unreached && marks.is_empty() {
            continue;
        }
        if shown_before > 0 && number > shown_before + 1 {
            text.push_str("      ...\n");
        }
        shown_before = number;
        let mark = if unreached { paint.bad("!") } else { " ".to_owned() };
        let _ = writeln!(text, "{mark} {number:>4} | {source}");
        for branch in marks {
            let before: String = source
                .chars()
                .take(branch.column.saturating_sub(1) as usize)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let _ = writeln!(text, "       | {before}{}", paint.bad(&format!("^ {}", branch.branch.never())));
        }
    }
    text
}

/// The tracefile format of lcov (geninfo(1)).
pub(super) fn lcov(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (suite, file) in files(outcome) {
        let _ = writeln!(text, "TN:\nSF:{}{}", suite.shown_under, file.file);
        for (line, count) in &file.lines {
            let _ = writeln!(text, "DA:{line},{count}");
        }
        let (lines, branches) = file.reached();
        for (number, branch) in file.branches.iter().enumerate() {
            let taken = if branch.fork_reached { branch.taken.to_string() } else { "-".to_owned() };
            let _ = writeln!(text, "BRDA:{},0,{number},{taken}", branch.fork_line);
        }
        let _ = writeln!(text, "BRF:{}\nBRH:{}", branches.all, branches.reached);
        let _ = writeln!(text, "LF:{}\nLH:{}\nend_of_record", lines.all, lines.reached);
    }
    text
}
