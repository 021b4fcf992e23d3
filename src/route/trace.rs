//! What the scripts decided, and everything that is needed to explain it later.
//!
//! A [`Trace`] has one [`Step`] for each of the three levels, asked or not. [`Trace::verdict`] reads it: the first
//! level that returned a name decides, nothing at every level is direct, and an error is an error: it is never
//! taken for "nothing" and never for "direct".

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attempt::{Decision, Level, ScriptPlace};
use crate::names::TransportName;

/// One decision: every level, what it answered, what it logged, how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Content hash of the script set that was asked.
    pub set: Arc<str>,
    /// Account, domain, global: always these three, in this order.
    pub steps: Vec<Step>,
    /// Time all levels took together, microseconds.
    pub micros: u32,
}

/// One level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub level: Level,
    /// The script that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptId>,
    /// What it said.
    pub answer: Answer,
    /// What it wrote with `log(text)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// Time it took, microseconds.
    #[serde(default)]
    pub micros: u32,
}

/// A script, as its file and its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScriptId {
    /// File, relative to the scripts directory: `domain/example.org.rhai`.
    pub file: Arc<str>,
    /// SHA-256 of the text, first 16 hex digits.
    pub hash: Arc<str>,
}

/// What a level said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// There is no script at this level: ask the next.
    NoScript,
    /// It was not its turn.
    NotAsked(NotAsked),
    /// The script has no opinion: ask the next.
    Nothing {
        /// Line of the `return`; `None` when it fell off the end, or when nobody asked for the line.
        line: Option<u32>,
    },
    /// The script decided.
    Returned {
        /// Which way.
        transport: TransportName,
        /// Line of the `return`, or of the expression at the end.
        line: Option<u32>,
    },
    /// The script failed; no further level is asked and the attempt is not made.
    Error(Box<ScriptError>),
}

/// Why a level was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotAsked {
    /// No authenticated account sent the message.
    NoAccount,
    /// The sender is null (`<>`).
    NullSender,
    /// The sender's domain is not one of ours.
    ForeignSenderDomain,
    /// An earlier level decided.
    Decided,
    /// An earlier level failed.
    Failed,
}

impl fmt::Display for NotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAccount => "no account sent it",
            Self::NullSender => "the sender is null",
            Self::ForeignSenderDomain => "the sender's domain is not ours",
            Self::Decided => "decided before",
            Self::Failed => "an earlier level failed",
        })
    }
}

/// How an evaluation failed: the closed set that metrics count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The script did something wrong: unknown property or function, wrong types, `throw`.
    Script,
    /// More operations than the limit allows.
    Operations,
    /// Function calls nested deeper than the limit allows.
    CallDepth,
    /// A string, an array or a map grew larger than the limit allows.
    Size,
    /// It took longer than the limit allows.
    Time,
    /// It returned something that is no name.
    ReturnType,
    /// It returned a name that no transport has.
    UnknownTransport,
    /// It asked for what nobody knows: MX hosts without an answer from DNS, or a header field that the history did not
    /// keep.
    NotKnown,
}

impl ErrorKind {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Script,
        Self::Operations,
        Self::CallDepth,
        Self::Size,
        Self::Time,
        Self::ReturnType,
        Self::UnknownTransport,
    ];

    /// As metrics and listings name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Operations => "operations",
            Self::CallDepth => "call-depth",
            Self::Size => "size",
            Self::Time => "time",
            Self::ReturnType => "return-type",
            Self::UnknownTransport => "unknown-transport",
            Self::NotKnown => "not-known",
        }
    }
}

/// A failed evaluation, at its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub struct ScriptError {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// File, relative to the scripts directory: the script, or the module that it imported.
    pub file: Arc<str>,
    /// From 1.
    pub line: Option<u32>,
    /// From 1.
    pub column: Option<u32>,
    /// What went wrong.
    pub message: String,
    /// What would be right, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// `file:line:column: message`, then the hint in brackets.
impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        for number in [self.line, self.column].into_iter().map_while(|n| n) {
            write!(f, ":{number}")?;
        }
        write!(f, ": {}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// Why no decision could be made: the message is deferred for a short while and no attempt number is used up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{level} script: {error}")]
pub struct RouteError {
    /// The level that failed.
    pub level: Level,
    /// The script that was asked; an error may lie in a module that it imports.
    pub script: ScriptId,
    /// What went wrong, and where.
    pub error: Box<ScriptError>,
}

impl RouteError {
    /// What sort of failure.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind
    }
}

impl Trace {
    /// The decision, or why there is none. Never direct because of an error.
    pub fn verdict(&self) -> Result<Decision, RouteError> {
        for step in &self.steps {
            match (&step.answer, &step.script) {
                (Answer::Returned { transport, line }, Some(script)) => {
                    return Ok(self.decision(step.level, transport.clone(), Some(place(script, *line))));
                }
                (Answer::Error(error), Some(script)) => {
                    return Err(RouteError {
                        level: step.level,
                        script: script.clone(),
                        error: error.clone(),
                    });
                }
                _ => {}
            }
        }
        Ok(self.decision(Level::Default, TransportName::direct(), None))
    }

    fn decision(&self, level: Level, transport: TransportName, script: Option<ScriptPlace>) -> Decision {
        let log = self.steps.iter().flat_map(|step| step.log.iter().cloned()).collect();
        let set = Some(self.set.clone());
        Decision { level, transport, script, set, log, mx: None, micros: self.micros }
    }
}

fn place(script: &ScriptId, line: Option<u32>) -> ScriptPlace {
    ScriptPlace { file: script.file.to_string(), hash: script.hash.to_string(), line }
}

/// One line a level, then the verdict, as `route explain` prints it.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        match self.verdict() {
            Ok(decision) if decision.level == Level::Default => {
                write!(f, "=> {} (no script decided)", decision.transport)
            }
            Ok(decision) => write!(f, "=> {} ({} level)", decision.transport, decision.level),
            Err(_) => write!(f, "=> no attempt: deferred until the script is mended"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} ", self.level)?;
        if let (Some(script), false) = (&self.script, matches!(self.answer, Answer::Error(_))) {
            f.write_str(&script.file)?;
            if let Answer::Returned { line: Some(line), .. } | Answer::Nothing { line: Some(line) } =
                &self.answer
            {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        match &self.answer {
            Answer::NoScript => f.write_str("no script")?,
            Answer::NotAsked(why) => write!(f, "not asked: {why}")?,
            Answer::Nothing { .. } => f.write_str("returned nothing")?,
            Answer::Returned { transport, .. } => write!(f, "returned \"{transport}\"")?,
            Answer::Error(error) => write!(f, "{error}")?,
        }
        // `{:#}` leaves out what is another each time.
        if self.script.is_some() && !f.alternate() {
            write!(f, " [{} µs]", self.micros)?;
        }
        self.log.iter().try_for_each(|line| write!(f, "\n{:<8}   log: {line}", ""))
    }
}
