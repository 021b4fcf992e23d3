//! Rhai's errors in the terms of the contract: what sort of failure, in which file and line, in which words.

use std::sync::Arc;

use rhai::{EvalAltResult, ParseError, ParseErrorType, Position};

use super::functions::FUNCTIONS;
use super::problem::{MESSAGE_BYTES_MAX, ScriptProblem, line_and_column, nearest, one_line};
use super::trace::{ErrorKind, ScriptError};
use crate::config::ScriptLimits;

/// A failed evaluation. Rhai wraps an error once for every function that it passes through; the true place is the
/// innermost, in the file of the innermost function.
pub(super) fn script_error(error: &EvalAltResult, script: &Arc<str>, limits: &ScriptLimits) -> ScriptError {
    let (file, inner) = innermost(error);
    let (line, column) = line_and_column(inner.position());
    let (kind, message) = describe(inner, limits);
    ScriptError {
        kind,
        file: file.map_or_else(|| script.clone(), Arc::from),
        line,
        column,
        message: one_line(&message, MESSAGE_BYTES_MAX),
        hint: hint(inner),
    }
}

/// The same for code that runs while a set is loaded: the constants of a module.
pub(super) fn load_problem(error: &EvalAltResult, file: &str, limits: &ScriptLimits) -> ScriptProblem {
    let (inner_file, inner) = innermost(error);
    let (_, message) = describe(inner, limits);
    let problem = ScriptProblem::at(inner_file.unwrap_or(file), inner.position(), message);
    match hint(inner) {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    }
}

/// A script that does not compile.
pub(super) fn parse_problem(file: &str, error: &ParseError) -> ScriptProblem {
    let message = error.err_type().to_string();
    let problem = ScriptProblem::at(file, error.position(), message.clone());
    let removed =
        |word: &str| message.contains(&format!("'{word}'")) || message.contains(&format!("`{word}`"));
    if removed("eval") {
        problem.with_hint("eval is not available in routing scripts")
    } else if removed("print") || removed("debug") {
        problem.with_hint("use log(text)")
    } else if matches!(error.err_type(), ParseErrorType::ExprTooDeep) {
        problem.with_hint("use switch, or 'in' with a list")
    } else {
        problem
    }
}

/// Where an error really is: the innermost file and error.
pub(super) fn innermost(error: &EvalAltResult) -> (Option<&str>, &EvalAltResult) {
    let (mut file, mut inner) = (None, error);
    loop {
        inner = match inner {
            EvalAltResult::ErrorInFunctionCall(_, source, cause, _) => {
                file = Some(source.as_str()).filter(|source| !source.is_empty()).or(file);
                cause
            }
            EvalAltResult::ErrorInModule(source, cause, _) => {
                file = Some(source.as_str()).filter(|source| !source.is_empty()).or(file);
                cause
            }
            _ => return (file, inner),
        };
    }
}

fn describe(error: &EvalAltResult, limits: &ScriptLimits) -> (ErrorKind, String) {
    match error {
        EvalAltResult::ErrorTooManyOperations(_) => {
            (ErrorKind::Operations, format!("more than {} operations", limits.operations_max))
        }
        EvalAltResult::ErrorStackOverflow(_) => {
            (ErrorKind::CallDepth, format!("function calls nested deeper than {}", limits.call_depth_max))
        }
        EvalAltResult::ErrorTerminated(..) => {
            (ErrorKind::Time, format!("took longer than {} ms", limits.time_max.as_millis()))
        }
        EvalAltResult::ErrorDataTooLarge(what, _) => (ErrorKind::Size, too_large(what, limits)),
        EvalAltResult::ErrorTooManyVariables(_) => (ErrorKind::Size, "too many variables".into()),
        EvalAltResult::ErrorTooManyModules(_) => (ErrorKind::Size, "too many imports".into()),
        EvalAltResult::ErrorRuntime(value, _) if value.is_unit() => (ErrorKind::Script, "throw".into()),
        EvalAltResult::ErrorRuntime(value, _) => (ErrorKind::Script, value.to_string()),
        other => (ErrorKind::Script, without_place(other)),
    }
}

fn too_large(what: &str, limits: &ScriptLimits) -> String {
    if what.contains("string") {
        format!("a string longer than {} bytes", limits.string_bytes_max)
    } else if what.contains("map") {
        format!("a map with more than {} entries", limits.map_entries_max)
    } else {
        format!("an array with more than {} elements", limits.array_elements_max)
    }
}

/// Rhai writes the place behind the message; ours stands before it.
fn without_place(error: &EvalAltResult) -> String {
    let text = error.to_string();
    let position = error.position();
    if position == Position::NONE {
        return text;
    }
    text.strip_suffix(&format!(" ({position})")).map_or_else(|| text.clone(), str::to_owned)
}

fn hint(error: &EvalAltResult) -> Option<String> {
    let signature = match error {
        EvalAltResult::ErrorFunctionNotFound(signature, _) => signature,
        EvalAltResult::ErrorDotExpr(message, _) if message.ends_with("for type '()'") => {
            return Some("the value is (): test for that first, as in: if x != () { ... }".into());
        }
        _ => return None,
    };
    let name = signature.split([' ', '(']).next().unwrap_or_default();
    let ours = || FUNCTIONS.iter().map(|f| f.signature.rsplit('.').next().unwrap_or_default());
    let right = nearest(name, ours().map(|s| s.split('(').next().unwrap_or_default()))?;
    let whole = ours().find(|s| s.split('(').next() == Some(right))?;
    Some(if right == name { format!("write: {whole}") } else { format!("did you mean {whole}?") })
}
