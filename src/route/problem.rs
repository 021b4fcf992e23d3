//! What is wrong with a scripts directory, each problem at its place, so that an editor can jump there.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It fails when it runs, or can never be what was meant: scripts with it do not go live.
    #[default]
    Error,
    /// It works, and is probably not what was meant.
    Warning,
}

/// What sort of problem.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The files are no set of scripts: syntax, imports, no `route`.
    #[default]
    Load,
    /// A property that the value does not have.
    Property,
    /// A function that nobody has.
    Function,
    /// Too many or too few arguments, or of the wrong sort.
    Arguments,
    /// A condition that is neither true nor false.
    Condition,
    /// `route` returns what is no text.
    Returns,
    /// A name that no transport has.
    Transport,
    /// A comparison that always has the same result.
    Comparison,
    /// A text in a form that the value never has.
    Form,
    /// Code that no path reaches.
    Unreachable,
    /// A name that nothing uses.
    Unused,
    /// A script that nobody will ever ask.
    Stray,
    /// A test that stands beside the scripts fails.
    Test,
}

/// One problem found while a script set was loaded. Loading collects all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScriptProblem {
    /// File, relative to the scripts directory; the directory itself when no file is meant.
    pub file: String,
    /// From 1; 0 when the problem is with the file as a whole.
    pub line: u32,
    /// From 1, in characters; 0 when the problem is with the line as a whole.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What would be right, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// What sort of problem it is.
    #[serde(default)]
    pub rule: Rule,
}

/// Longest text of a problem or an error; a script may throw any string.
pub(super) const MESSAGE_BYTES_MAX: usize = 1_000;

impl ScriptProblem {
    /// A problem with a file as a whole.
    pub fn whole(file: impl Into<String>, message: impl Into<String>) -> Self {
        let message = one_line(&message.into(), MESSAGE_BYTES_MAX);
        Self {
            file: file.into(),
            line: 0,
            column: 0,
            message,
            hint: None,
            severity: Severity::Error,
            rule: Rule::Load,
        }
    }

    /// A problem at a place in a file.
    pub fn at(file: impl Into<String>, position: rhai::Position, message: impl Into<String>) -> Self {
        let (line, column) = line_and_column(position);
        Self {
            file: file.into(),
            line: line.unwrap_or(0),
            column: column.unwrap_or(0),
            message: one_line(&message.into(), MESSAGE_BYTES_MAX),
            hint: None,
            severity: Severity::Error,
            rule: Rule::Load,
        }
    }

    /// The same problem as one of another sort.
    pub fn of(self, rule: Rule, severity: Severity) -> Self {
        Self { severity, rule, ..self }
    }

    /// Whether scripts with it must not go live.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The same problem with a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(one_line(&hint.into(), MESSAGE_BYTES_MAX));
        self
    }
}

/// `file:line:column: message`, then the hint in brackets.
impl fmt::Display for ScriptProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        for number in [self.line, self.column].into_iter().take_while(|n| *n > 0) {
            write!(f, ":{number}")?;
        }
        write!(f, ": {}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// Text that a script chose, as one line of at most so many bytes. Control characters become spaces: it may come from
/// a stranger's message, and is shown on terminals.
pub(super) fn one_line(text: &str, bytes_max: usize) -> String {
    let kept = &text[..text.floor_char_boundary(bytes_max)];
    let mut line: String = kept.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if kept.len() < text.len() {
        line.push('…');
    }
    line
}

/// Line and column as numbers from 1.
pub(super) fn line_and_column(position: rhai::Position) -> (Option<u32>, Option<u32>) {
    let number = |n: Option<usize>| n.and_then(|n| u32::try_from(n).ok());
    (number(position.line()), number(position.position()))
}

/// The name that was probably meant, when one is near enough.
pub(super) fn nearest<'a>(wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let scored = right.into_iter().map(|name| (strsim::jaro_winkler(&wrong, &name.to_lowercase()), name));
    scored.filter(|(score, _)| *score >= 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_compilers_write_it() {
        let whole = ScriptProblem::whole("account/A.rhai", "no account name");
        assert_eq!(whole.to_string(), "account/A.rhai: no account name");
        let placed = ScriptProblem::at("global.rhai", rhai::Position::new(3, 7), "odd").with_hint("even");
        assert_eq!(placed.to_string(), "global.rhai:3:7: odd (even)");
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["attempt", "account", "sender", "sender_domain"];
        for (wrong, right) in [
            ("atempt", Some("attempt")),
            ("Attempt", Some("attempt")),
            ("senderdomain", Some("sender_domain")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names), right, "{wrong}");
        }
    }
}
