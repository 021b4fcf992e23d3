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
use super::way::Visit;
use crate::config::ScriptLimits;

/// Nesting of expressions and blocks that the parser accepts; it bounds the stack together with the call depth.
const EXPRESSION_DEPTH_MAX: usize = 128;
/// Deepest nesting of calls that the stack of a server's thread (2 MiB) holds for sure, whatever is configured.
const CALL_DEPTH_MAX: usize = 64;
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
///
/// On a busy machine a thread can be made to wait for longer than any script takes, and mail must not be deferred
/// for that. So half of the time may pass unseen, and from then on a half counts only when the thread was computing
/// for most of it. The processor's clock costs a system call, and no usual evaluation comes to it.
#[derive(Default)]
pub(super) struct Deadline(ThreadLocal<Cell<Option<Half>>>);

#[derive(Clone, Copy)]
struct Half {
    span: Duration,
    end: Instant,
    processor_time: Option<Duration>,
}

impl Deadline {
    /// Sets the deadline of this thread's evaluation until the guard is dropped.
    pub(super) fn arm(&self, span: Duration) -> Armed<'_> {
        let cell = self.0.get_or_default();
        let span = span / 2;
        let end = Instant::now().checked_add(span);
        cell.set(end.map(|end| Half { span, end, processor_time: None }));
        Armed(cell)
    }

    fn passed(&self) -> bool {
        let Some((cell, half)) = self.0.get().and_then(|cell| Some((cell, cell.get()?))) else {
            return false;
        };
        let now = Instant::now();
        if now < half.end {
            return false;
        }
        let processor_time = thread_processor_time();
        let used = half.processor_time.map(|before| processor_time.saturating_sub(before));
        if used.is_some_and(|used| used >= half.span / 2) {
            return true;
        }
        let end = now.checked_add(half.span).unwrap_or(half.end);
        cell.set(Some(Half { span: half.span, end, processor_time: Some(processor_time) }));
        false
    }
}

fn thread_processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Takes the deadline away again.
pub(super) struct Armed<'a>(&'a Cell<Option<Half>>);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// The limits as configured, but never so that a script could overflow the stack and end the process.
pub(super) fn on_our_stack(limits: &ScriptLimits) -> ScriptLimits {
    ScriptLimits { call_depth_max: limits.call_depth_max.min(CALL_DEPTH_MAX), ..limits.clone() }
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
                note(&delivery, source, position, context.call_level());
            }
            Ok(DebuggerCommand::StepInto)
        },
    );
    engine
}

fn note(delivery: &Delivery, source: Option<&str>, position: Position, depth: usize) {
    let mut steps = delivery.0.steps.lock();
    let Some(steps) = steps.as_mut().filter(|_| !position.is_none()) else { return };
    let file = match steps.last.take() {
        Some((file, _)) if file.as_deref() == source => file,
        _ => source.map(Arc::from),
    };
    if let (Some(visits), Some(file)) = (&mut steps.visits, &file) {
        visits.push(Visit { file: file.clone(), place: position, depth });
    }
    steps.last = Some((file, position));
    if source == Some(&*steps.file) && steps.exits.contains(&position) {
        steps.exit = Some(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_does_not_use_up_the_time_and_computing_does() {
        let deadline = Deadline::default();
        assert!(!deadline.passed(), "nothing runs");
        let armed = deadline.arm(Duration::from_millis(10));
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(10));
            assert!(!deadline.passed(), "it only slept");
        }
        let begun = Instant::now();
        while !deadline.passed() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it never passed");
        }
        drop(armed);
        assert!(!deadline.passed(), "it is over");
    }
}
