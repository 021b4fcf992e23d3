//! What tests in Rhai can say besides what scripts can: `delivery(#{...})`, `ask(...)`, `assert`, `assert_eq`.
//!
//! A map given to `delivery` has the keys that a case in a table has, and an answer is compared with whatever `expect`
//! may be there: both go through the code that reads tables.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;
use rhai::{Array, Dynamic, Engine, EvalAltResult, INT, ImmutableString, Map, Position};
use toml::de::DeTable;

use super::diff::diff;
use super::expect::{self, Mismatch};
use super::facts::{Subject, attempts, facts};
use super::given::Given;
use super::script::{Call, Question};
use super::table::{Ask, Owner, parse_ask};
use crate::config::{Problem, Reader, ScriptLimits, Section};
use crate::names::TransportName;
use crate::route::{Answer, ScriptSet, Step, TestScript, delivery_value, facts_of};

/// The constant that names the transports of a file, as `transports` does in a table.
const TRANSPORTS: &str = "TRANSPORTS";
/// Longest value that is shown on one line.
const LINE_CHARS_MAX: usize = 70;

type Failed = Box<EvalAltResult>;

/// What the functions need.
#[derive(Clone)]
pub(super) struct Context {
    owner: Owner,
    limits: Arc<ScriptLimits>,
    calls: Sender<Call>,
    answered: Arc<Mutex<Vec<Step>>>,
}

/// What `assert` and `assert_eq` throw.
#[derive(Debug, Clone)]
pub(super) struct Thrown {
    pub(super) message: Option<String>,
    pub(super) mismatch: Option<Mismatch>,
}

/// What `ask` gives.
#[derive(Debug, Clone)]
struct Answered(Arc<Vec<Step>>);

impl Context {
    /// The functions send what a test asks to `calls`, and keep the last answer in `answered`.
    pub(super) fn new(
        set: &ScriptSet,
        owner: Owner,
        calls: Sender<Call>,
        answered: Arc<Mutex<Vec<Step>>>,
    ) -> Self {
        Self { owner, limits: Arc::new(set.limits().clone()), calls, answered }
    }

    fn delivery(&self, map: &Map) -> Result<Dynamic, Failed> {
        let given = read_map(map, "delivery", Given::read)?;
        let [attempt] = attempts(&given)[..] else {
            return Err("delivery: one attempt at a time; ask about the others in a loop".into());
        };
        let subject = Subject { alone: false, ..self.owner.subject.clone() };
        let facts = facts(&given, &subject, attempt)
            .map_err(|problem| Failed::from(format!("delivery: {}", words(&problem))))?;
        Ok(delivery_value(Arc::new(facts), &self.limits))
    }

    fn ask(&self, about: Dynamic, ask: Ask) -> Result<Dynamic, Failed> {
        let about = match about.read_lock::<Map>().map(|map| self.delivery(&map)) {
            Some(delivery) => delivery?,
            None => about,
        };
        let facts = facts_of(&about);
        let facts = facts.ok_or_else(|| {
            format!("ask wants a delivery, not {}: ask(delivery(#{{ attempt: 4 }}))", kind(&about))
        })?;
        let (answer, answered) = channel();
        let question = Call::Question(Question { facts, ask, answer });
        let gone = |_| Failed::from("the time for all tests together is over");
        self.calls.send(question).map_err(|_| "nobody is there to be asked")?;
        let steps = answered.recv().map_err(gone)?;
        self.answered.lock().clone_from(&steps);
        Ok(Dynamic::from(Answered(Arc::new(steps))))
    }
}

/// Adds the functions to an engine.
pub(super) fn register(engine: &mut Engine, context: &Context) {
    let new = || context.clone();
    let here = new();
    engine.register_fn("delivery", move || here.delivery(&Map::new()));
    let here = new();
    engine.register_fn("delivery", move |map: Map| here.delivery(&map));
    let here = new();
    engine.register_fn("ask", move |about: Dynamic| here.ask(about, here.owner.ask));
    let here = new();
    engine.register_fn("ask", move |about: Dynamic, whom: &str| {
        here.ask(about, parse_ask(whom, here.owner.ask)?)
    });
    engine.register_fn("assert", |holds: bool| assert(holds, None));
    engine.register_fn("assert", |holds: bool, text: &str| assert(holds, Some(text)));
    engine.register_fn("assert", |value: Dynamic| no_condition(&value));
    engine.register_fn("assert", |value: Dynamic, _: &str| no_condition(&value));
    engine.register_fn("assert_eq", |got: Dynamic, expected: Dynamic| assert_eq(&got, &expected, None));
    engine.register_fn("assert_eq", |got: Dynamic, expected: Dynamic, text: &str| {
        assert_eq(&got, &expected, Some(text))
    });
    register_answer(engine);
}

fn register_answer(engine: &mut Engine) {
    engine.register_type_with_name::<Answered>("answer");
    engine.register_get("transport", |answer: &mut Answered| answer.transport());
    engine.register_get("level", |answer: &mut Answered| answer.level());
    engine.register_get("nothing", |answer: &mut Answered| answer.deciding().is_none());
    engine.register_get("error", |answer: &mut Answered| answer.error());
    engine.register_get("line", |answer: &mut Answered| answer.line());
    engine.register_get("log", |answer: &mut Answered| -> Array {
        let lines = answer.0.iter().flat_map(|step| &step.log);
        lines.map(|line| Dynamic::from(ImmutableString::from(line.as_str()))).collect()
    });
    engine.register_indexer_get(|_: &mut Answered, name: &str| -> Result<Dynamic, Failed> {
        Err(format!("an answer has no property '{name}': it has transport, level, nothing, error, line, log")
            .into())
    });
    engine.register_fn("to_string", |answer: &mut Answered| expect::said(&answer.0));
    engine.register_fn("to_debug", |answer: &mut Answered| expect::said(&answer.0));
    let is = |answer: &Answered, expected: Dynamic| -> Result<bool, Failed> {
        Ok(answer.compare(&expected)?.is_ok())
    };
    engine.register_fn("==", move |answer: Answered, text: ImmutableString| is(&answer, text.into()));
    engine.register_fn("!=", move |answer: Answered, text: ImmutableString| {
        Ok::<_, Failed>(!is(&answer, text.into())?)
    });
    engine.register_fn("==", move |answer: Answered, (): ()| is(&answer, Dynamic::UNIT));
    engine.register_fn("!=", move |answer: Answered, (): ()| Ok::<_, Failed>(!is(&answer, Dynamic::UNIT)?));
}

impl Answered {
    fn deciding(&self) -> Option<&Step> {
        self.0.iter().find(|step| matches!(step.answer, Answer::Returned { .. } | Answer::Error(_)))
    }

    /// Nothing at all levels is direct; nothing from one script is nothing.
    fn transport(&self) -> Dynamic {
        match self.deciding().map(|step| &step.answer) {
            Some(Answer::Returned { transport, .. }) => text(transport.as_str()),
            None if self.0.len() > 1 => text(TransportName::DIRECT),
            _ => Dynamic::UNIT,
        }
    }

    fn level(&self) -> Dynamic {
        match self.deciding() {
            Some(step) => text(step.level.as_str()),
            None if self.0.len() > 1 => text(crate::attempt::Level::Default.as_str()),
            None => Dynamic::UNIT,
        }
    }

    fn error(&self) -> Dynamic {
        match self.deciding().map(|step| &step.answer) {
            Some(Answer::Error(error)) => text(&error.to_string()),
            _ => Dynamic::UNIT,
        }
    }

    fn line(&self) -> Dynamic {
        match self.deciding().map(|step| &step.answer) {
            Some(Answer::Returned { line: Some(line), .. }) => INT::from(*line).into(),
            _ => Dynamic::UNIT,
        }
    }

    /// Compares as a case does with what it expects; `()` is "nothing".
    fn compare(&self, expected: &Dynamic) -> Result<Result<(), Mismatch>, Failed> {
        let expected = if expected.is_unit() { text(expect::NOTHING) } else { expected.clone() };
        let mut map = Map::new();
        map.insert("expect".into(), expected);
        let chain = self.0.len() > 1;
        let expected = read_map(&map, "the answer that is expected", |section| expect::read(section, chain))?;
        let expected = expected.ok_or("this is nothing that can be expected")?;
        Ok(expected.check(&self.0))
    }
}

fn text(text: &str) -> Dynamic {
    ImmutableString::from(text).into()
}

fn thrown<T>(message: Option<&str>, mismatch: Option<Mismatch>) -> Result<T, Failed> {
    let thrown = Thrown { message: message.map(str::to_owned), mismatch };
    Err(EvalAltResult::ErrorRuntime(Dynamic::from(thrown), Position::NONE).into())
}

fn assert(holds: bool, message: Option<&str>) -> Result<(), Failed> {
    if holds { Ok(()) } else { thrown(message.or(Some("it does not hold")), None) }
}

fn no_condition(value: &Dynamic) -> Result<(), Failed> {
    Err(format!("assert wants true or false, not {}", kind(value)).into())
}

fn assert_eq(got: &Dynamic, expected: &Dynamic, message: Option<&str>) -> Result<(), Failed> {
    let answer = got.clone().try_cast::<Answered>();
    let mismatch = match answer {
        Some(answer) => answer.compare(expected)?.err(),
        None if equal(got, expected)? => None,
        None => {
            let both = |chars_max| (show(expected, 0, chars_max), show(got, 0, chars_max));
            let (mut expected, mut got) = both(LINE_CHARS_MAX);
            if expected.contains('\n') || got.contains('\n') {
                // Side by side they are compared element by element.
                (expected, got) = both(0);
            }
            let difference = diff(&expected, &got);
            Some(Mismatch { expected, got, hint: None, diff: difference })
        }
    };
    mismatch.map_or(Ok(()), |mismatch| thrown(message, Some(mismatch)))
}

/// As `==` of the language, and element by element.
fn equal(a: &Dynamic, b: &Dynamic) -> Result<bool, Failed> {
    if let (Some(a), Some(b)) = (a.read_lock::<Array>(), b.read_lock::<Array>()) {
        let all = a.iter().zip(b.iter()).map(|(a, b)| equal(a, b)).collect::<Result<Vec<_>, _>>()?;
        return Ok(a.len() == b.len() && all.into_iter().all(|same| same));
    }
    if let (Some(a), Some(b)) = (a.read_lock::<Map>(), b.read_lock::<Map>()) {
        let all = a.iter().map(|(key, a)| b.get(key).map_or(Ok(false), |b| equal(a, b)));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        return Ok(a.len() == b.len() && all.into_iter().all(|same| same));
    }
    if let (Ok(a), Ok(b)) = (number(a), number(b)) {
        return Ok(a.partial_cmp(&b).is_some_and(std::cmp::Ordering::is_eq));
    }
    for value in [a, b] {
        let plain = value.is_string() || value.is_unit() || value.is_bool() || value.is_char();
        if !plain && !value.is_array() && !value.is_map() && number(value).is_err() {
            return Err(format!("assert_eq cannot compare {}: compare its properties", kind(value)).into());
        }
    }
    Ok(a.type_name() == b.type_name() && a.to_string() == b.to_string())
}

/// What a value is, in the words of those who write scripts.
fn kind(value: &Dynamic) -> &'static str {
    match value.type_name().rsplit("::").next().unwrap_or_default() {
        "Delivery" => "a delivery",
        "PastAttempt" => "an attempt",
        "Time" => "a time",
        "Answered" => "an answer",
        "i64" | "f64" => "a number",
        "bool" => "true or false",
        "string" | "char" => "text",
        "array" => "an array",
        "map" => "a map",
        "()" => "()",
        _ => "a function",
    }
}

fn number(value: &Dynamic) -> Result<f64, &'static str> {
    value.as_float().or_else(|_| value.as_int().map(|int| int as f64))
}

/// A value as the language writes it, over several lines where it is longer than `chars_max`.
fn show(value: &Dynamic, indent: usize, chars_max: usize) -> String {
    if let Some(answer) = value.read_lock::<Answered>() {
        return expect::said(&answer.0);
    }
    let items: Vec<String> = if let Some(array) = value.read_lock::<Array>() {
        array.iter().map(|item| show(item, indent + 2, LINE_CHARS_MAX)).collect()
    } else if let Some(map) = value.read_lock::<Map>() {
        map.iter().map(|(key, item)| format!("{key}: {}", show(item, indent + 2, LINE_CHARS_MAX))).collect()
    } else if let Ok(text) = value.as_immutable_string_ref() {
        return format!("{:?}", text.as_str());
    } else if value.is_unit() {
        return "()".to_owned();
    } else {
        return value.to_string();
    };
    let (open, close) = if value.is_map() { ("#{", "}") } else { ("[", "]") };
    let short = items.join(", ");
    if short.chars().count() <= chars_max && !short.contains('\n') {
        return format!("{open}{short}{close}");
    }
    let lines: Vec<String> = items.iter().map(|item| format!("{:indent$}  {item},\n", "")).collect();
    format!("{open}\n{}{:indent$}{close}", lines.concat(), "")
}

/// Reads a map with the code that reads tables.
fn read_map<T>(map: &Map, title: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> Result<T, Failed> {
    let wrong = |error: &dyn std::fmt::Display| Failed::from(format!("{title}: {error}"));
    let table = toml_table(map).map_err(|error| wrong(&error))?;
    let text = toml::to_string(&table).map_err(|error| wrong(&error))?;
    let document = DeTable::parse(&text).map_err(|error| wrong(&error.message()))?;
    let reader = Reader::new(std::path::Path::new(""));
    let mut section = Section::new(&reader, title, 0..0, document.get_ref());
    let read = read(&mut section);
    section.finish();
    match reader.into_problems().as_slice() {
        [] => Ok(read),
        problems => {
            let all: Vec<String> = problems.iter().map(words).collect();
            Err(wrong(&all.join("; ")))
        }
    }
}

fn words(problem: &Problem) -> String {
    let help = problem.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
    let label = if problem.help.is_none() { format!(": {}", problem.label) } else { String::new() };
    format!("{}{label}{help}", problem.message)
}

fn toml_table(map: &Map) -> Result<toml::Table, String> {
    map.iter().map(|(key, value)| Ok((key.to_string(), toml_value(value)?))).collect()
}

/// `()`, "there is none", is `false` in a table.
fn toml_value(value: &Dynamic) -> Result<toml::Value, String> {
    if let Some(map) = value.read_lock::<Map>() {
        return toml_table(&map).map(toml::Value::Table);
    }
    if let Some(array) = value.read_lock::<Array>() {
        return array.iter().map(toml_value).collect::<Result<_, _>>().map(toml::Value::Array);
    }
    if value.is_unit() {
        return Ok(toml::Value::Boolean(false));
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok(toml::Value::String(text.to_string()));
    }
    value
        .as_bool()
        .map(toml::Value::Boolean)
        .or_else(|_| value.as_int().map(toml::Value::Integer))
        .or_else(|_| value.as_float().map(toml::Value::Float))
        .map_err(|_| format!("{} cannot stand here", kind(value)))
}

/// The transports that a file names for its tests.
pub(super) fn transports(script: &TestScript) -> Result<Option<Vec<TransportName>>, String> {
    let Some(value) = script.constant(TRANSPORTS) else { return Ok(None) };
    let form = || format!("{TRANSPORTS} must be an array of names, such as [\"smarthost\"]");
    let array = value.read_lock::<Array>().ok_or_else(form)?;
    let name = |value: &Dynamic| {
        let name = value.as_immutable_string_ref().map_err(|_| form())?;
        TransportName::new(&name).map_err(|error| format!("{TRANSPORTS}: {error}"))
    };
    array.iter().map(name).collect::<Result<_, _>>().map(Some)
}
