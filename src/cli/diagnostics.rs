//! Problems of scripts as compilers show them: the line, a mark under the place, and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use crate::route::{ScriptProblem, Severity};

const COLUMNS: usize = 100;
/// A hint longer than this stands below the source, not in it.
const LABEL_CHARS_MAX: usize = 60;

/// All problems as text for people. The lines are read from the directory; `under` is how the user named it.
pub(super) fn render(problems: &[ScriptProblem], dir: &Path, colours: bool) -> String {
    let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler =
        GraphicalReportHandler::new_themed(theme).with_width(COLUMNS).with_links(false).with_context_lines(1);
    let mut text = String::new();
    for problem in problems {
        let shown = Shown::new(problem, dir);
        // Writing into a String cannot fail; a report that cannot be drawn still says what is wrong.
        if handler.render_report(&mut text, &shown).is_err() {
            text.push_str(&problem.to_string());
        }
        text.push('\n');
    }
    text
}

/// `2 errors and 1 warning`; nothing when there is none.
pub(super) fn count(problems: &[ScriptProblem]) -> Option<String> {
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let some = |count: usize, word: &str| {
        (count > 0).then(|| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
    };
    let parts: Vec<String> =
        [some(errors, "error"), some(problems.len() - errors, "warning")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

/// A problem with its text, as miette wants it.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a ScriptProblem,
    source: Option<(NamedSource<String>, Range<usize>)>,
}

impl<'a> Shown<'a> {
    fn new(problem: &'a ScriptProblem, dir: &Path) -> Self {
        let path = dir.join(&problem.file);
        let text = std::fs::read_to_string(&path).ok().filter(|_| problem.line > 0);
        let source = text.and_then(|text| {
            let text = visible(text.strip_prefix('\u{feff}').unwrap_or(&text));
            let place = place(&text, problem.line as usize, problem.column as usize)?;
            Some((NamedSource::new(path.display().to_string(), text), place))
        });
        Self { problem, source }
    }

    fn hint_fits(&self) -> bool {
        let short = |hint: &String| hint.chars().count() <= LABEL_CHARS_MAX;
        self.source.is_some() && self.problem.hint.as_ref().is_some_and(short)
    }
}

/// The text without control characters, which a terminal would obey; each becomes one of as many bytes.
fn visible(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' | '\t' => c,
        '\r' => ' ',
        c if c.is_ascii_control() => '?',
        c if c.is_control() => '\u{b7}',
        c => c,
    };
    text.chars().map(replace).collect()
}

/// What is marked: from the place to the end of the word, number or string that stands there.
fn place(text: &str, line: usize, column: usize) -> Option<Range<usize>> {
    let mut start = 0;
    let whole = text.split_inclusive('\n').nth(line.checked_sub(1)?)?;
    start += text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
    let bare = whole.trim_end_matches('\n');
    let at = bare.char_indices().nth(column.saturating_sub(1)).map_or(bare.len(), |(at, _)| at);
    let rest = &bare[at..];
    let length = if column == 0 { bare.len() } else { token(rest) };
    Some(start + at..start + at + length)
}

fn token(rest: &str) -> usize {
    let mut chars = rest.char_indices();
    match chars.next() {
        None => 0,
        Some((_, quote @ ('"' | '`' | '\''))) => {
            let mut escaped = false;
            for (at, c) in chars {
                if c == quote && !escaped {
                    return at + c.len_utf8();
                }
                escaped = c == '\\' && !escaped;
            }
            rest.len()
        }
        Some((_, first)) if first.is_alphanumeric() || first == '_' => {
            rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
        }
        Some((_, first)) => {
            let operator = |c: char| "=<>!&|+-*/".contains(c);
            let end = rest.find(|c: char| !operator(c)).unwrap_or(rest.len());
            end.max(first.len_utf8())
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.is_none() {
            f.write_str(&self.problem.file)?;
            for number in [self.problem.line, self.problem.column].into_iter().take_while(|n| *n > 0) {
                write!(f, ":{number}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        let hint = self.problem.hint.as_ref().filter(|_| !self.hint_fits());
        hint.map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|(source, _)| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (_, place) = self.source.as_ref()?;
        let hint = self.problem.hint.clone().filter(|_| self.hint_fits());
        // Without a label miette draws no mark.
        let label = hint.unwrap_or_else(|| "here".to_owned());
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(Some(label), place.clone()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_with_its_line_and_a_mark() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("global.rhai"),
            "fn route(d) {\n  if d.atempt > 1 { return \"ä\"; }\n}\n",
        )
        .unwrap();
        let problem = |line, column, hint: &str| {
            let mut problem = ScriptProblem::whole("global.rhai", "delivery has no property 'atempt'");
            (problem.line, problem.column) = (line, column);
            problem.with_hint(hint)
        };
        let text = render(&[problem(2, 8, "did you mean 'attempt'?")], dir.path(), false);
        for part in [
            "× delivery has no property 'atempt'",
            "global.rhai:2:8]",
            "if d.atempt > 1",
            "╰── did you mean 'attempt'?",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(text.contains("───┬──"), "{text}");
        let long = render(&[problem(2, 29, &"x".repeat(80))], dir.path(), false);
        assert!(long.contains("help: xxx"), "{long}");
        let lost = render(&[problem(99, 1, "y")], dir.path(), false);
        assert!(lost.contains("global.rhai:99:1: delivery has no"), "{lost}");
    }

    #[test]
    fn what_is_marked_is_a_word_or_a_string() {
        for (text, line, column, marked) in [
            ("abc.def + 1", 1, 5, "def"),
            ("x\nreturn \"a \\\" b\";", 2, 8, "\"a \\\" b\""),
            ("a >= 4", 1, 3, ">="),
            ("äöü.x", 1, 5, "x"),
            ("abc", 1, 9, ""),
            ("abc", 1, 0, "abc"),
            ("\"open", 1, 1, "\"open"),
        ] {
            assert_eq!(&text[place(text, line, column).unwrap()], marked, "{text}");
        }
        assert_eq!(place("abc", 5, 1), None);
    }
}
