//! What a case expects, and whether an answer is that.
//!
//! `expect = "smarthost"` is a transport, `expect = "nothing"` says that no script that is asked decides. A table says
//! more: the level, an error, what was logged.

use std::fmt::Write as _;

use crate::attempt::Level;
use crate::config::Problem;
use crate::config::{Section, Wrong, read_value};
use crate::names::TransportName;
use crate::route::{Answer, Step};

/// The word for "no script decides".
pub(super) const NOTHING: &str = "nothing";
const LEVELS: [Level; 3] = [Level::Account, Level::Domain, Level::Global];
const FORM: &str =
    "a transport, \"nothing\", or a table such as { transport = \"smarthost\", level = \"domain\" }";

/// What is expected. What is `None` or empty is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// Which way.
    transport: Option<TransportName>,
    /// Who decides; `default` when no script does.
    level: Option<Level>,
    /// No script decides.
    nothing: bool,
    /// Levels whose scripts decide nothing.
    nothing_at: Vec<Level>,
    /// A part of the error.
    error: Option<String>,
    /// A part of a line that was logged.
    log: Option<String>,
}

/// Expected beside got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) expected: String,
    pub(super) got: String,
    pub(super) hint: Option<String>,
    /// Line by line, where there are several.
    pub(super) diff: Option<String>,
}

/// Reads `expect`; `None` only where a problem was reported.
pub(super) fn read(section: &mut Section<'_>, chain: bool) -> Option<Expected> {
    let reader = section.reader;
    let Some(value) = section.get("expect") else {
        section.missing("expect", "expect = \"smarthost\", the transport; or expect = \"nothing\"");
        return None;
    };
    if value.get_ref().is_table() {
        let table = reader.table("expect", value.span(), value)?;
        return read_table(table, chain);
    }
    read_value(reader, "expect", FORM, value, |value| {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        if text == NOTHING {
            return Ok(Expected { nothing: true, ..Expected::default() });
        }
        let transport = transport(text).map_err(|error| Wrong::Value(Some(error)))?;
        Ok(Expected { transport: Some(transport), ..Expected::default() })
    })
}

/// As scripts return it: the empty string is direct too.
fn transport(text: &str) -> Result<TransportName, String> {
    if text.is_empty() {
        Ok(TransportName::direct())
    } else {
        TransportName::new(text).map_err(|e| e.to_string())
    }
}

fn read_table(mut table: Section<'_>, chain: bool) -> Option<Expected> {
    let (reader, place) = (table.reader, table.place.clone());
    let nothing = table.has("nothing");
    let all_of_it = table.get("nothing").is_some_and(|value| value.get_ref().as_bool() == Some(true));
    let nothing_at = if all_of_it { Vec::new() } else { levels_of_nothing(&mut table) };
    let expected = Expected {
        transport: table.parsed("transport", "the name of a transport", transport),
        level: table.parsed(
            "level",
            "\"account\", \"domain\", \"global\", or \"default\" when no script decides",
            |text| super::given::named(text, &[LEVELS.as_slice(), &[Level::Default]].concat(), Level::as_str),
        ),
        nothing: all_of_it,
        nothing_at,
        error: table.parsed("error", "a part of the error's text", |text| Ok::<_, String>(text.to_owned())),
        log: table.parsed("log", "a part of a line that is logged", |text| Ok::<_, String>(text.to_owned())),
    };
    let says = ["transport", "level", "error"].iter().any(|key| table.has(key)) || nothing;
    let nothing_place = table.key_place("nothing");
    table.finish();
    let wrong = |at, message: &str, label: &str| {
        reader.report(Problem::new(at, message, label));
        None
    };
    if !says {
        return wrong(
            place,
            "`expect` does not say which answer",
            "expected transport, level, nothing or error",
        );
    }
    let decides = expected.transport.is_some() || expected.level.is_some();
    if expected.error.is_some() && (decides || expected.nothing) {
        return wrong(place, "a script that fails gives no answer", "expected an error alone");
    }
    if expected.nothing && decides {
        return wrong(
            nothing_place,
            "`nothing = true` says that no script decides",
            "but another key says it does",
        );
    }
    if !chain && !expected.nothing_at.is_empty() {
        let problem = Problem::new(nothing_place, "one script alone is asked", "write nothing = true");
        reader.report(problem.help("with `ask = \"chain\"` a case asks all levels"));
        return None;
    }
    Some(expected)
}

fn levels_of_nothing(table: &mut Section<'_>) -> Vec<Level> {
    let form = "true, or levels such as \"account\" or [\"account\", \"domain\"]";
    let levels = table.list("nothing", form, |text| super::given::named(text, &LEVELS, Level::as_str));
    levels.into_iter().map(|level| level.value).collect()
}

impl Expected {
    /// Compares with what the levels that were asked said.
    pub(super) fn check(&self, steps: &[Step]) -> Result<(), Mismatch> {
        let (got, hint) = (said(steps), self.hint(steps));
        let mismatch = || Mismatch { expected: self.to_string(), got, hint, diff: None };
        if self.fits(steps) { Ok(()) } else { Err(mismatch()) }
    }

    fn fits(&self, steps: &[Step]) -> bool {
        let deciding =
            steps.iter().find(|step| matches!(step.answer, Answer::Returned { .. } | Answer::Error(_)));
        let logged = |part: &str| steps.iter().flat_map(|step| &step.log).any(|line| line.contains(part));
        if self.log.as_deref().is_some_and(|part| !logged(part)) {
            return false;
        }
        let silent = |level: &Level| {
            steps.iter().any(|step| step.level == *level && matches!(step.answer, Answer::Nothing { .. }))
        };
        if !self.nothing_at.iter().all(silent) {
            return false;
        }
        match deciding.map(|step| (step.level, &step.answer)) {
            Some((_, Answer::Error(error))) => {
                self.error.as_deref().is_some_and(|part| error.to_string().contains(part))
            }
            Some((level, Answer::Returned { transport, .. })) => {
                !self.nothing
                    && self.error.is_none()
                    && self.transport.as_ref().is_none_or(|wanted| wanted == transport)
                    && self.level.is_none_or(|wanted| wanted == level)
            }
            _ => self.error.is_none() && self.fits_nothing(steps),
        }
    }

    /// Nobody decided. All three levels together then mean direct; a script alone means nothing.
    fn fits_nothing(&self, steps: &[Step]) -> bool {
        let asked = steps.len() > 1 || steps.iter().all(|step| matches!(step.answer, Answer::Nothing { .. }));
        let direct = steps.len() > 1;
        let transport = self.transport.as_ref();
        asked
            && transport.is_none_or(|wanted| direct && *wanted == TransportName::direct())
            && self.level.is_none_or(|wanted| direct && wanted == Level::Default)
    }

    /// What often goes wrong, where it can be told.
    fn hint(&self, steps: &[Step]) -> Option<String> {
        let [step] = steps else { return None };
        let direct = self.transport.as_ref().is_some_and(|wanted| *wanted == TransportName::direct());
        match &step.answer {
            Answer::Nothing { .. } if direct => Some(
                "nothing is decided here, and the next level is asked: expect \"nothing\"; with `ask = \"chain\"` all levels \
                 are asked, and when none decides, that is direct"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// As it stands beside what was got.
impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        let mut say = |words: String| {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(&words);
        };
        if self.nothing {
            say(NOTHING.to_owned());
        }
        if let Some(transport) = &self.transport {
            say(format!("\"{transport}\""));
        }
        if let Some(level) = self.level {
            say(format!("decided by the {level} level").replace("the default level", "no script"));
        }
        for level in &self.nothing_at {
            say(format!("nothing at the {level} level"));
        }
        if let Some(error) = &self.error {
            say(format!("an error with {error:?}"));
        }
        if let Some(log) = &self.log {
            say(format!("a logged line with {log:?}"));
        }
        f.write_str(&text)
    }
}

/// What the levels said, in a line.
pub(super) fn said(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match &step.answer {
            Answer::Returned { transport, line } => {
                let file = step.script.as_ref().map_or("", |script| &script.file);
                let _ = write!(text, "\"{transport}\" ({file}");
                let _ = line.map_or(Ok(()), |line| write!(text, ":{line}"));
                text.push(')');
                return text;
            }
            Answer::Error(error) => return format!("an error: {error}"),
            _ => {}
        }
    }
    match steps {
        [step] => match &step.answer {
            Answer::NotAsked(why) => format!("the script was not asked: {why}"),
            Answer::NoScript => "there is no script".to_owned(),
            _ => NOTHING.to_owned(),
        },
        _ => "\"direct\" (no script decided)".to_owned(),
    }
}
