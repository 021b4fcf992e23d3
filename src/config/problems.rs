//! What is wrong with a configuration: every problem with its place, what was expected, and a hint.
//!
//! Problems are collected, not thrown: an operator sees all of them in one run. Each is shown the way compilers do
//! it: file, line and column, the source line with a mark under the place, and help below.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

/// Width of the text that problems are printed in.
const COLUMNS: usize = 100;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where, in bytes of the text; `None` when the file could not be read at all.
    pub place: Option<Range<usize>>,
    /// What stands there, or what was expected there.
    pub label: String,
    /// A second place that has to do with it.
    pub also: Option<(Range<usize>, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub fn new(place: Range<usize>, message: impl Into<String>, label: impl Into<String>) -> Self {
        Self { message: message.into(), place: Some(place), label: label.into(), also: None, help: None }
    }

    /// Adds what to do about it.
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Adds a second place.
    pub fn also(self, place: Range<usize>, label: impl Into<String>) -> Self {
        Self { also: Some((place, label.into())), ..self }
    }

    /// What is quoted from the file moves no cursor.
    fn make_visible(&mut self) {
        let also = self.also.as_mut().map(|(_, label)| label);
        for text in [&mut self.message, &mut self.label].into_iter().chain(&mut self.help).chain(also) {
            *text = visible(text);
        }
    }
}

/// All that is wrong with one configuration file; never empty.
#[derive(Clone)]
pub struct ConfigProblems {
    file: String,
    text: Arc<str>,
    problems: Vec<Problem>,
}

impl ConfigProblems {
    /// Takes what was found, in any order.
    pub(crate) fn new(file: String, text: &str, mut problems: Vec<Problem>) -> Self {
        for problem in &mut problems {
            problem.make_visible();
            problem.place = problem.place.take().map(|place| within(text, place));
            problem.also = problem.also.take().map(|(place, label)| (within(text, place), label));
        }
        problems
            .sort_by_key(|problem| problem.place.as_ref().map_or((0, 0), |place| (place.start, place.end)));
        Self { file, text: visible(text).into(), problems }
    }

    /// A file that could not be read.
    pub(super) fn unreadable(file: String, message: String, help: Option<String>) -> Self {
        let problem = Problem { message, place: None, label: String::new(), also: None, help };
        Self { file, text: "".into(), problems: vec![problem] }
    }

    /// The problems, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The file as it was named.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Line and column of a problem, both from 1; the column counts characters.
    pub fn line_and_column(&self, problem: &Problem) -> Option<(usize, usize)> {
        let before = self.text.get(..problem.place.as_ref()?.start)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Some((before.matches('\n').count() + 1, before[line_start..].chars().count() + 1))
    }

    /// All problems as text for people, with colours for a terminal or without.
    pub fn render(&self, colours: bool) -> String {
        let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(COLUMNS)
            .with_links(false)
            .with_context_lines(1);
        let mut text = String::new();
        let summary =
            |count: usize| format!("{}: {count} problem{}\n", self.file, if count == 1 { "" } else { "s" });
        for problem in &self.problems {
            let shown = Shown { problem, source: NamedSource::new(&self.file, Arc::clone(&self.text)) };
            // Writing into a String cannot fail; a report that cannot be drawn still says what is wrong.
            if handler.render_report(&mut text, &shown).is_err() {
                text.push_str(&problem.message);
            }
            text.push('\n');
        }
        text + summary(self.problems.len()).as_str()
    }
}

/// The text without control characters, which a terminal would obey. Everything stays at its place: each gets another
/// character of as many bytes.
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

/// A range that lies inside the text and on character boundaries, one character long where there is one.
fn within(text: &str, place: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(place.start);
    let one = text[start..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    // A mark over several lines helps nobody: the first line is enough.
    let end = floor(place.end).min(line_end).max(start + one);
    start..end
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigProblems {}

/// A problem together with its text, as miette wants it.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a Problem,
    source: NamedSource<Arc<str>>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.problem.place.as_ref().map(|_| &self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.problem.place.clone()?;
        let first = LabeledSpan::new_primary_with_span(Some(self.problem.label.clone()), place);
        let also = self.problem.also.clone();
        let second = also.map(|(place, label)| LabeledSpan::new_with_span(Some(label), place));
        Some(Box::new(std::iter::once(first).chain(second)))
    }
}
