//! A script set: everything in a scripts directory, compiled once, immutable, asked by all threads.
//!
//! The line of the `return` that decided is stored with every attempt, and Rhai does not tell it. Where a script
//! returns a string literal, which is nearly always, the literal's address tells; where only one `return` computes
//! its value, it must have been that one. Otherwise the script runs a second time under a debugger: it is pure, so
//! it goes the same way again.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, Scope};

use super::delivery::{Call, Delivery, Steps};
use super::engine::{self, Deadline};
use super::facts::Facts;
use super::failure::script_error;
use super::lint::{Surroundings, Unit, lint};
use super::modules::{self, Modules};
use super::problem::{MESSAGE_BYTES_MAX, ScriptProblem, line_and_column, nearest, one_line};
use super::source::{self, Source, Sources, TestSource};
use super::syntax::{Exits, KnownLine, Outline, check_route};
use super::trace::{Answer, ErrorKind, NotAsked, ScriptError, ScriptId, Step, Trace};
use super::way::{Visit, Way};
use crate::address::Domain;
use crate::attempt::Level;
use crate::config::{Config, ScriptLimits};
use crate::names::{AccountName, TransportName};

/// The levels in the order they are asked.
const LEVELS: [Level; 3] = [Level::Account, Level::Domain, Level::Global];

/// Which names a script may return. `direct` is always known and need not be asked for.
pub trait KnownTransports {
    /// Whether there is a transport of this name.
    fn knows(&self, name: &str) -> bool;

    /// All names, for the hint when one is misspelt.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<F: Fn(&str) -> bool> KnownTransports for F {
    fn knows(&self, name: &str) -> bool {
        self(name)
    }
}

impl KnownTransports for Config {
    fn knows(&self, name: &str) -> bool {
        self.transport(name).is_some()
    }

    fn names(&self) -> Vec<String> {
        self.transports.keys().map(ToString::to_string).collect()
    }
}

/// The transports of the moment, whenever that is.
impl KnownTransports for ArcSwap<Config> {
    fn knows(&self, name: &str) -> bool {
        self.load().knows(name)
    }

    fn names(&self) -> Vec<String> {
        self.load().names()
    }
}

/// Everything in a scripts directory, compiled.
pub struct ScriptSet {
    hash: Arc<str>,
    ids: Vec<ScriptId>,
    accounts: BTreeMap<AccountName, Script>,
    domains: BTreeMap<Domain, Script>,
    global: Option<Script>,
    modules: Modules,
    texts: BTreeMap<Arc<str>, String>,
    tests: Vec<TestSource>,
    header_fields: BTreeSet<String>,
    limits: ScriptLimits,
    deadline: Arc<Deadline>,
    engine: Arc<Engine>,
    watching: OnceLock<Engine>,
}

/// One compiled script.
struct Script {
    id: ScriptId,
    ast: AST,
    exits: Exits,
    exit_positions: Arc<[rhai::Position]>,
    wants_mx: bool,
    outline: Outline,
}

impl std::fmt::Debug for ScriptSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptSet")
            .field("hash", &self.hash)
            .field("scripts", &self.ids)
            .finish_non_exhaustive()
    }
}

impl ScriptSet {
    /// Reads and compiles a scripts directory. All problems are found, not the first alone, in the order of files
    /// and lines.
    pub fn load(dir: &Path, limits: &ScriptLimits) -> Result<Self, Vec<ScriptProblem>> {
        Self::read(dir, limits, None).map(|(set, _)| set)
    }

    /// As [`Self::load`], and looks for what would fail or can never be meant. A set that compiles comes with what was
    /// found, errors and warnings; in place of one that does not come all problems of all files.
    pub fn check(
        dir: &Path,
        limits: &ScriptLimits,
        surroundings: &Surroundings,
    ) -> Result<(Self, Vec<ScriptProblem>), Vec<ScriptProblem>> {
        Self::read(dir, limits, Some(surroundings))
    }

    fn read(
        dir: &Path,
        limits: &ScriptLimits,
        surroundings: Option<&Surroundings>,
    ) -> Result<(Self, Vec<ScriptProblem>), Vec<ScriptProblem>> {
        let mut problems = Vec::new();
        let sources = source::read(dir, &mut problems);
        Self::compile(sources, limits, problems, surroundings)
    }

    /// Reads and compiles a script that stands alone, whatever its name, as the global script of a set, with the tests
    /// beside it that have its name and the modules under `lib/` beside it.
    pub fn load_alone(file: &Path, limits: &ScriptLimits) -> Result<Self, Vec<ScriptProblem>> {
        let mut problems = Vec::new();
        let name = file.file_name().and_then(|name| name.to_str());
        let Some(name) = name else {
            return Err(vec![ScriptProblem::whole(file.display().to_string(), "is no name of a script")]);
        };
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let sources = source::read_alone(dir, name, &mut problems);
        Self::compile(sources, limits, problems, None).map(|(set, _)| set)
    }

    fn compile(
        sources: Sources,
        limits: &ScriptLimits,
        mut problems: Vec<ScriptProblem>,
        surroundings: Option<&Surroundings>,
    ) -> Result<(Self, Vec<ScriptProblem>), Vec<ScriptProblem>> {
        let limits = &engine::on_our_stack(limits);
        let deadline = Arc::new(Deadline::default());
        let mut engine = engine::build(limits, &deadline);
        let armed = deadline.arm(limits.time_max);
        let mut modules = Modules::build(&mut engine, &sources.modules, limits, &mut problems);
        drop(armed);
        let mut compile = |source: &Source| Script::compile(&engine, source, &modules, &mut problems);
        let accounts: BTreeMap<_, _> =
            sources.accounts.iter().filter_map(|(k, s)| Some((k.clone(), compile(s)?))).collect();
        let domains: BTreeMap<_, _> =
            sources.domains.iter().filter_map(|(k, s)| Some((k.clone(), compile(s)?))).collect();
        let global = sources.global.as_ref().and_then(&mut compile);
        let found = surroundings.map(|around| {
            let scripts = accounts.values().chain(domains.values()).chain(&global);
            lint(&engine, &units(&sources, scripts, &modules), around)
        });
        let of_scripts =
            accounts.values().chain(domains.values()).chain(&global).map(|s: &Script| &s.outline);
        let outlines = of_scripts.chain(modules.parsed.values().map(|(_, outline)| outline));
        let header_fields = outlines.flat_map(|outline| outline.header_fields.iter().cloned()).collect();
        // From here on only what was built of them is needed.
        modules.parsed.clear();
        let bad = !problems.is_empty();
        problems.extend(found.into_iter().flatten());
        problems.sort();
        problems.dedup();
        if bad {
            return Err(problems);
        }
        let set = Self {
            hash: sources.hash(),
            ids: sources.ids().cloned().collect(),
            texts: sources.all().map(|source| (source.id.file.clone(), source.text.clone())).collect(),
            tests: sources.tests,
            header_fields,
            accounts,
            domains,
            global,
            modules,
            limits: limits.clone(),
            deadline,
            engine: Arc::new(engine),
            watching: OnceLock::new(),
        };
        Ok((set, problems))
    }

    /// Content hash of all files, names included.
    pub fn hash(&self) -> &Arc<str> {
        &self.hash
    }

    /// All scripts and modules: accounts, domains, global, modules.
    pub fn scripts(&self) -> &[ScriptId] {
        &self.ids
    }

    /// The text of a script or module, for those who show lines of it.
    pub fn text(&self, file: &str) -> Option<&str> {
        self.texts.get(file).map(String::as_str)
    }

    /// The tests that stood beside the scripts in the moment when these were read. They are no part of the hash.
    pub fn tests(&self) -> &[TestSource] {
        &self.tests
    }

    /// The level that a script belongs to, by its file; none for modules and for what is not there.
    pub fn level_of(&self, file: &str) -> Option<Level> {
        let is = |script: &Script| &*script.id.file == file;
        if self.global.as_ref().is_some_and(is) {
            Some(Level::Global)
        } else if self.domains.values().any(is) {
            Some(Level::Domain)
        } else {
            self.accounts.values().any(is).then_some(Level::Account)
        }
    }

    /// Accounts that have a script, for the check against the configuration.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountName> {
        self.accounts.keys()
    }

    /// Domains that have a script, for the check against the configuration.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.keys()
    }

    /// Whether a script that would be asked about this delivery may read `delivery.mx`.
    pub fn wants_mx(&self, facts: &Facts) -> bool {
        LEVELS.iter().any(|level| self.script(*level, facts).is_ok_and(|s| s.is_some_and(|s| s.wants_mx)))
    }

    /// Names in lower case of the header fields that its scripts ask for, as far as they stand there as literals.
    pub fn header_fields(&self) -> &BTreeSet<String> {
        &self.header_fields
    }

    /// Asks the levels in order, as the queue does it. Never fails: a failure is in the trace.
    pub fn decide(&self, facts: &Arc<Facts>, known: &dyn KnownTransports) -> Trace {
        self.ask(facts, known, false)
    }

    /// As [`Self::decide`], with the line of every answer, of `return;` too. It takes several times as long.
    pub fn explain(&self, facts: &Arc<Facts>, known: &dyn KnownTransports) -> Trace {
        self.ask(facts, known, true)
    }

    fn ask(&self, facts: &Arc<Facts>, known: &dyn KnownTransports, every_line: bool) -> Trace {
        let begun = Instant::now();
        let call = self.call(facts);
        let mut over = None;
        let steps = LEVELS.into_iter().map(|level| {
            let script = over.map_or_else(|| self.script(level, facts), Err);
            let step = self.step(level, script, &call, known, every_line);
            over = match step.answer {
                Answer::Returned { .. } => Some(NotAsked::Decided),
                Answer::Error(_) => Some(NotAsked::Failed),
                _ => over,
            };
            step
        });
        let steps = steps.collect();
        Trace { set: self.hash.clone(), steps, micros: micros(begun) }
    }

    /// Asks one level alone, whatever the others would say, with the line of its answer: for tests of one script.
    pub fn explain_level(&self, level: Level, facts: &Arc<Facts>, known: &dyn KnownTransports) -> Step {
        self.step(level, self.script(level, facts), &self.call(facts), known, true)
    }

    fn step(
        &self,
        level: Level,
        script: Result<Option<&Script>, NotAsked>,
        call: &Arc<Call>,
        known: &dyn KnownTransports,
        every_line: bool,
    ) -> Step {
        let Ok(Some(script)) = script else {
            let answer = script.map_or_else(Answer::NotAsked, |_| Answer::NoScript);
            return Step { level, script: None, answer, log: Vec::new(), micros: 0 };
        };
        let begun = Instant::now();
        let answer = self.evaluate(script, call, known, every_line);
        let (script, log) = (Some(script.id.clone()), call.take_log());
        Step { level, script, answer, log, micros: micros(begun) }
    }

    fn script(&self, level: Level, facts: &Facts) -> Result<Option<&Script>, NotAsked> {
        match level {
            Level::Account => {
                let account = facts.account.as_ref().ok_or(NotAsked::NoAccount)?;
                Ok(self.accounts.get(account))
            }
            Level::Domain => {
                let sender = facts.sender.mailbox().ok_or(NotAsked::NullSender)?;
                if !facts.local_sender_domain {
                    return Err(NotAsked::ForeignSenderDomain);
                }
                Ok(self.domains.get(&sender.domain))
            }
            _ => Ok(self.global.as_ref()),
        }
    }

    fn evaluate(
        &self,
        script: &Script,
        call: &Arc<Call>,
        known: &dyn KnownTransports,
        every_line: bool,
    ) -> Answer {
        let returned = match self.run(&self.engine, script, call) {
            Ok(returned) => returned,
            Err(error) => return Answer::Error(Box::new(self.failed(script, call, &error))),
        };
        if returned.is_unit() {
            let line = if every_line { self.exit_line(script, call) } else { None };
            return Answer::Nothing { line };
        }
        let name = match returned.into_immutable_string() {
            Ok(name) => name,
            Err(type_name) => {
                let message = format!(
                    "route returned {}, which is no name",
                    article(self.engine.map_type_name(type_name))
                );
                let hint = "return the name of a transport, or nothing";
                return self.wrong_return(script, call, ErrorKind::ReturnType, message, Some(hint.into()));
            }
        };
        let line = |name: &str| match script.exits.line_of(name) {
            KnownLine::Line(line) => Some(line),
            KnownLine::Unknown => self.exit_line(script, call),
        };
        if name.is_empty() || name == TransportName::DIRECT {
            return Answer::Returned { transport: TransportName::direct(), line: line(&name) };
        }
        match TransportName::new(&name) {
            Ok(transport) if name != TransportName::LOCAL && known.knows(&name) => {
                Answer::Returned { transport, line: line(&name) }
            }
            _ => {
                let message = format!("there is no transport {name:?}");
                self.wrong_return(
                    script,
                    call,
                    ErrorKind::UnknownTransport,
                    message,
                    unknown_hint(&name, known),
                )
            }
        }
    }

    fn call(&self, facts: &Arc<Facts>) -> Arc<Call> {
        Call::new(facts.clone(), self.limits.log_lines_max, self.limits.string_bytes_max)
    }

    fn run(&self, engine: &Engine, script: &Script, call: &Arc<Call>) -> Result<Dynamic, Box<EvalAltResult>> {
        let _armed = self.deadline.arm(self.limits.time_max);
        let delivery = Delivery(call.clone());
        let options = CallFnOptions::new().eval_ast(script.outline.has_top_level).with_tag(delivery.clone());
        let mut scope = Scope::new();
        // A bug in the interpreter must cost this message some time and nothing else.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            engine.call_fn_with_options::<Dynamic>(options, &mut scope, &script.ast, "route", (delivery,))
        }));
        ran.unwrap_or_else(|_| Err("the script interpreter failed".into())).map(Dynamic::flatten)
    }

    /// Runs a script again and notes where it goes. What it logs then is not kept.
    fn watched(&self, script: &Script, call: &Arc<Call>) -> Option<Steps> {
        // Its result is the one we have; only the way it took is new.
        self.watch(script, &call.facts, None).0
    }

    fn watch(
        &self,
        script: &Script,
        facts: &Arc<Facts>,
        visits: Option<Vec<Visit>>,
    ) -> (Option<Steps>, bool) {
        let call = Call::new(facts.clone(), 0, self.limits.string_bytes_max);
        let (file, exits) = (script.id.file.clone(), script.exit_positions.clone());
        *call.steps.lock() = Some(Steps { file, exits, exit: None, last: None, visits });
        let engine = self
            .watching
            .get_or_init(|| engine::build_watching(&self.limits, &self.deadline, &self.modules.resolver));
        let ended = self.run(engine, script, &call).is_ok();
        (call.steps.lock().take(), ended)
    }

    /// Where the script of a level goes for a delivery, place by place.
    pub(crate) fn way(&self, level: Level, facts: &Arc<Facts>) -> Way {
        let Ok(Some(script)) = self.script(level, facts) else { return Way::default() };
        let (steps, ended) = self.watch(script, facts, Some(Vec::new()));
        Way { visits: steps.and_then(|steps| steps.visits).unwrap_or_default(), ended }
    }

    /// The syntax tree of a script or module.
    pub(crate) fn syntax(&self, file: &str) -> Option<AST> {
        self.engine.compile(self.text(file)?).ok()
    }

    /// The limits that scripts run under.
    pub(crate) fn limits(&self) -> &ScriptLimits {
        &self.limits
    }

    /// What scripts can import.
    pub(super) fn modules(&self) -> &Modules {
        &self.modules
    }

    fn exit_line(&self, script: &Script, call: &Arc<Call>) -> Option<u32> {
        self.watched(script, call)?.exit.and_then(|position| script.exits.line_at(position))
    }

    /// Rhai forgets the place of a broken limit; the last place of the same run under the debugger is that place.
    fn failed(&self, script: &Script, call: &Arc<Call>, error: &EvalAltResult) -> ScriptError {
        let mut error = script_error(error, &script.id.file, &self.limits);
        if call.was_not_known(&error.message) {
            error.kind = ErrorKind::NotKnown;
        }
        let forgotten =
            error.line.is_none() || !matches!(error.kind, ErrorKind::Script | ErrorKind::NotKnown);
        if forgotten && let Some((file, position)) = self.watched(script, call).and_then(|steps| steps.last) {
            (error.line, error.column) = line_and_column(position);
            error.file = file.unwrap_or_else(|| script.id.file.clone());
        }
        error
    }

    fn wrong_return(
        &self,
        script: &Script,
        call: &Arc<Call>,
        kind: ErrorKind,
        message: String,
        hint: Option<String>,
    ) -> Answer {
        let exit = self.watched(script, call).and_then(|steps| steps.exit);
        let (line, column) = exit.map_or((None, None), line_and_column);
        Answer::Error(Box::new(ScriptError {
            kind,
            file: script.id.file.clone(),
            line,
            column,
            message: one_line(&message, MESSAGE_BYTES_MAX),
            hint: hint.map(|hint| one_line(&hint, MESSAGE_BYTES_MAX)),
        }))
    }
}

impl Script {
    fn compile(
        engine: &Engine,
        source: &Source,
        modules: &Modules,
        problems: &mut Vec<ScriptProblem>,
    ) -> Option<Self> {
        let file = &source.id.file;
        let (ast, outline) = modules::parse(engine, source, problems)?;
        modules.check_imports(file, &outline, problems);
        check_route(file, &source.text, &ast, problems);
        let exits = Exits::of(&ast);
        Some(Self {
            id: source.id.clone(),
            exit_positions: exits.positions().into(),
            exits,
            wants_mx: modules.read_mx_through(&outline),
            outline,
            ast,
        })
    }
}

/// The files that compiled, with their texts.
fn units<'a>(
    sources: &'a Sources,
    scripts: impl Iterator<Item = &'a Script>,
    modules: &'a Modules,
) -> Vec<Unit<'a>> {
    let texts = sources.accounts.values().chain(sources.domains.values()).chain(&sources.global);
    let by_file: BTreeMap<&str, &Source> = texts.map(|source| (&*source.id.file, source)).collect();
    let scripts = scripts.filter_map(|script| {
        let source = by_file.get(&*script.id.file)?;
        Some(Unit { source, ast: &script.ast, outline: &script.outline, module: None })
    });
    let modules = modules.parsed.iter().filter_map(|(path, (ast, outline))| {
        Some(Unit { source: sources.modules.get(path)?, ast, outline, module: Some(path) })
    });
    scripts.chain(modules).collect()
}

/// To the nearest: of a few microseconds, half of one is a good part.
fn micros(begun: Instant) -> u32 {
    u32::try_from((begun.elapsed().as_nanos() + 500) / 1_000).unwrap_or(u32::MAX)
}

fn article(type_name: &str) -> String {
    match type_name {
        "i64" | "f64" => "a number".into(),
        "bool" => "true or false".into(),
        "array" | "attempt" => format!("an {type_name}"),
        other => format!("a {other}"),
    }
}

fn unknown_hint(name: &str, known: &dyn KnownTransports) -> Option<String> {
    if name == TransportName::LOCAL {
        return Some("mail for our own mailboxes goes there by itself; scripts cannot choose it".into());
    }
    let names = known.names();
    let right = nearest(name, names.iter().map(String::as_str).chain([TransportName::DIRECT]))?;
    Some(format!("did you mean {right:?}?"))
}
