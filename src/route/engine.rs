//! The script engine: which parts of the language scripts may use, and the limits they run under.
//!
//! One engine serves all scripts of a set and all threads. A second one, made when it is first needed, runs the same
//! scripts under a debugger that notes where they go: it is slower, and only asked for lines that cannot be told
//! otherwise.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhai::debugger::{DebuggerCommand, DebuggerEvent};
use rhai::module_resolvers::{DummyModuleResolver, StaticModuleResolver};
use rhai::{Dynamic, Engine, OptimizationLevel, Position};
use thread_local::ThreadLocal;

use super::delivery::{self, Delivery};
use super::functions;
use crate::config::ScriptLimits;

/// Nesting of expressions and blocks that the parser accepts; it bounds the stack together with the call depth.
const EXPRESSION_DEPTH_MAX: usize = 128;
const VARIABLES_MAX: usize = 200;
const FUNCTIONS_MAX: usize = 500;
/// `import` statements executed in one evaluation.
const MODULES_MAX: usize = 50;
/// Operations between two looks at the clock: a look costs as much as a few operations.
const OPERATIONS_PER_CLOCK: u64 = 256;

/// When the evaluation that runs on a thread must end.
///
/// The engine is shared, and its progress callback is told nothing but a count. A thread runs one evaluation at a
/// time, so the thread is what tells evaluations apart.
#[derive(Default)]
pub(super) struct Deadline(ThreadLocal<Cell<Option<Instant>>>);

impl Deadline {
    /// Sets the deadline of this thread's evaluation until the guard is dropped.
    pub(super) fn arm(&self, span: Duration) -> Armed<'_> {
        let cell = self.0.get_or_default();
        cell.set(Instant::now().checked_add(span));
        Armed(cell)
    }

    fn passed(&self) -> bool {
        self.0.get().and_then(Cell::get).is_some_and(|end| Instant::now() >= end)
    }
}

/// Takes the deadline away again.
pub(super) struct Armed<'a>(&'a Cell<Option<Instant>>);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// An engine with the contract's types and functions, every limit set, and nothing to import yet.
pub(super) fn build(limits: &ScriptLimits, deadline: &Arc<Deadline>) -> Engine {
    let mut engine = Engine::new();
    engine.set_module_resolver(DummyModuleResolver::new());
    // Equal literals stay apart, so that a returned one tells its line; and threads share no lock.
    engine.set_max_strings_interned(0);
    // What stands in the file is what runs, line by line.
    engine.set_optimization_level(OptimizationLevel::None);
    engine.set_strict_variables(true);
    for symbol in ["eval", "print", "debug"] {
        engine.disable_symbol(symbol);
    }
    engine.set_max_operations(limits.operations_max.max(1));
    engine.set_max_call_levels(limits.call_depth_max);
    engine.set_max_expr_depths(EXPRESSION_DEPTH_MAX, EXPRESSION_DEPTH_MAX);
    // For Rhai 0 means "no limit"; for us no setting means that.
    engine.set_max_string_size(limits.string_bytes_max.max(1));
    engine.set_max_array_size(limits.array_elements_max.max(1));
    engine.set_max_map_size(limits.map_entries_max.max(1));
    engine.set_max_variables(VARIABLES_MAX);
    engine.set_max_functions(FUNCTIONS_MAX);
    engine.set_max_modules(MODULES_MAX);
    let deadline = deadline.clone();
    engine.on_progress(move |operations| {
        let look = operations % OPERATIONS_PER_CLOCK == 0;
        (look && deadline.passed()).then_some(Dynamic::UNIT)
    });
    check_variables(&mut engine);
    delivery::register(&mut engine);
    functions::register(&mut engine);
    engine
}

/// Rhai measures arrays and maps when a function changes them, but not when `map[key] = value` does. So they are
/// measured whenever their variable is used; a loop that fills one must use it.
fn check_variables(engine: &mut Engine) {
    #[allow(deprecated, reason = "Rhai marks it as volatile, not as deprecated")]
    engine.on_var(|name, _, context| {
        if let Some(value) = context.scope().get(name)
            && (value.is_map() || value.is_array())
        {
            context.engine().ensure_data_size_within_limits(value)?;
        }
        Ok(None)
    });
}

/// The engine that notes where a script goes, in the [`super::delivery::Steps`] of the call.
pub(super) fn build_watching(
    limits: &ScriptLimits,
    deadline: &Arc<Deadline>,
    modules: &StaticModuleResolver,
) -> Engine {
    let mut engine = build(limits, deadline);
    engine.set_module_resolver(modules.clone());
    #[allow(deprecated, reason = "Rhai marks it as volatile, not as deprecated")]
    engine.register_debugger(
        |_, debugger| debugger,
        |mut context, event, _, source, position| {
            // The end of a function is no place that the script has gone to.
            let step = matches!(event, DebuggerEvent::Start | DebuggerEvent::Step);
            if step && let Some(delivery) = context.tag_mut().clone().try_cast::<Delivery>() {
                note(&delivery, source, position);
            }
            Ok(DebuggerCommand::StepInto)
        },
    );
    engine
}

fn note(delivery: &Delivery, source: Option<&str>, position: Position) {
    let mut steps = delivery.0.steps.lock();
    let Some(steps) = steps.as_mut().filter(|_| !position.is_none()) else { return };
    steps.last = Some((source.map(str::to_owned), position));
    if source == Some(&*steps.file) && steps.exits.contains(&position) {
        steps.exit = Some(position);
    }
}
