//! Tests that are written in Rhai: the language of the scripts, with the same limits, and with whatever functions those
//! who run the tests add to it.
//!
//! A test is a function `test_...` without parameters. It may import the set's modules, and it sees the same native
//! types as scripts do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, Scope};

use super::delivery::{Call, Delivery};
use super::engine::{self, Deadline};
use super::facts::Facts;
use super::failure::{innermost, script_error};
use super::modules;
use super::problem::{ScriptProblem, line_and_column};
use super::set::ScriptSet;
use super::source::{Source, TestSource, content_hash};
use super::trace::{ScriptError, ScriptId};
use crate::config::ScriptLimits;

/// What the name of a test begins with.
const PREFIX: &str = "test_";
/// Processor time of one test function, without the scripts that it asks, which have their own limit.
const TIME_MAX: Duration = Duration::from_secs(5);

/// A file of tests in Rhai, compiled.
pub(crate) struct TestScript {
    engine: Engine,
    ast: AST,
    file: Arc<str>,
    limits: ScriptLimits,
    deadline: Arc<Deadline>,
}

/// How a test failed.
pub(crate) struct TestError {
    /// Where, and in which words.
    pub(crate) error: ScriptError,
    /// What was thrown, when something was.
    pub(crate) thrown: Option<Dynamic>,
}

impl TestScript {
    /// Compiles a file of tests against the modules of a set; `extend` adds functions.
    pub(crate) fn compile(
        set: &ScriptSet,
        test: &TestSource,
        extend: impl FnOnce(&mut Engine),
    ) -> Result<Self, Vec<ScriptProblem>> {
        let deadline = Arc::new(Deadline::default());
        let limits = ScriptLimits { time_max: TIME_MAX, ..set.limits().clone() };
        let mut engine = engine::build(&limits, &deadline);
        engine.set_module_resolver(set.modules().resolver.clone());
        extend(&mut engine);
        let id = ScriptId { file: test.file.clone(), hash: content_hash(test.text.as_bytes()) };
        let source = Source { id, text: test.text.clone() };
        let mut problems = Vec::new();
        let parsed = modules::parse(&engine, &source, &mut problems);
        if let Some((ast, outline)) = parsed {
            set.modules().check_imports(&test.file, &outline, &mut problems);
            check_tests(&test.file, &ast, &mut problems);
            if problems.is_empty() {
                return Ok(Self { engine, ast, file: test.file.clone(), limits, deadline });
            }
        }
        Err(problems)
    }

    /// The tests with their lines, in the order of the file.
    pub(crate) fn tests(&self) -> Vec<(String, u32)> {
        let tests = self.ast.iter_fn_def().filter(|function| function.name.starts_with(PREFIX));
        let line = |position| line_and_column(position).0.unwrap_or(0);
        let mut tests: Vec<_> =
            tests.map(|test| (test.name.to_string(), line(test.body.start_position()))).collect();
        tests.sort_by_key(|(_, line)| *line);
        tests
    }

    /// The value of a constant at the top of the file, where it is a literal.
    pub(crate) fn constant(&self, name: &str) -> Option<Dynamic> {
        self.ast
            .iter_literal_variables(true, false)
            .find(|(other, ..)| *other == name)
            .map(|(.., value)| value)
    }

    /// Runs one test.
    pub(crate) fn call(&self, name: &str) -> Result<(), Box<TestError>> {
        let _armed = self.deadline.arm(self.limits.time_max);
        let options = CallFnOptions::new().eval_ast(!self.ast.statements().is_empty());
        let mut scope = Scope::new();
        // A bug in the interpreter must fail this test and no other.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            self.engine.call_fn_with_options::<Dynamic>(options, &mut scope, &self.ast, name, ())
        }));
        let ran = ran.unwrap_or_else(|_| Err("the script interpreter failed".into()));
        ran.map(drop).map_err(|error| {
            let (_, inner) = innermost(&error);
            let thrown = match inner {
                EvalAltResult::ErrorRuntime(value, _) => Some(value.clone()),
                _ => None,
            };
            Box::new(TestError { error: script_error(&error, &self.file, &self.limits), thrown })
        })
    }
}

fn check_tests(file: &str, ast: &AST, problems: &mut Vec<ScriptProblem>) {
    let mut found = false;
    for test in ast.iter_fn_def().filter(|function| function.name.starts_with(PREFIX)) {
        found = true;
        if !test.params.is_empty() {
            let message = format!("{} takes parameters: nobody would give them", test.name);
            let problem = ScriptProblem::at(file, test.body.start_position(), message);
            problems.push(problem.with_hint(format!("write: fn {}() {{ ... }}", test.name)));
        }
    }
    if !found {
        let hint = "fn test_name() { assert_eq(ask(delivery(#{ attempt: 4 })), \"smarthost\"); }";
        problems.push(ScriptProblem::whole(file, "there is no test in this file").with_hint(hint));
    }
}

/// A `delivery` as scripts see it.
pub(crate) fn delivery(facts: Arc<Facts>, limits: &ScriptLimits) -> Dynamic {
    Dynamic::from(Delivery(Call::new(facts, limits.log_lines_max, limits.string_bytes_max)))
}

/// The facts behind a `delivery`.
pub(crate) fn facts_of(delivery: &Dynamic) -> Option<Arc<Facts>> {
    delivery.clone().try_cast::<Delivery>().map(|delivery| delivery.0.facts.clone())
}
