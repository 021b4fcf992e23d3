//! Finds what is wrong with scripts before they carry mail: what would fail when it runs, and what can never be meant.
//!
//! Every function is gone through as an evaluation would, with kinds of values in place of values: `delivery.attempt`
//! is a number, `delivery.last` an attempt or `()`. What a value is called does not matter, what it is does, so the
//! parameter of `route` may have any name, and aliases, helpers, closures and modules are followed. Where a kind is not
//! known nothing is said: an error of the lint is an error.
//!
//! | file | what stands there |
//! | --- | --- |
//! | `kinds` | kinds of values |
//! | `natives` | the functions that the engine has |
//! | `program` | all functions of a set, and what they are called with |
//! | `walk`, `expressions`, `calls`, `switch` | the way through a function |
//! | `compare` | comparisons: what is never equal |
//! | `stray` | imports that nothing uses, scripts that nobody asks |

mod calls;
mod compare;
mod expressions;
mod kinds;
mod natives;
mod program;
mod stray;
mod switch;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeSet;

use rhai::Engine;

use super::problem::{Rule, ScriptProblem, nearest};
use crate::address::Domain;
use crate::config::Config;
use crate::names::{AccountName, TransportName};
use compare::Finding;
pub(super) use program::Unit;

/// What a configuration has that scripts name. What is `None` is not known, and not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Transports, `direct` not among them.
    pub transports: Option<BTreeSet<String>>,
    /// Accounts.
    pub accounts: Option<BTreeSet<AccountName>>,
    /// Our own domains.
    pub domains: Option<BTreeSet<Domain>>,
}

impl From<&Config> for Surroundings {
    fn from(config: &Config) -> Self {
        Self {
            transports: Some(config.transports.keys().map(ToString::to_string).collect()),
            accounts: Some(config.accounts.keys().cloned().collect()),
            domains: Some(config.domains.keys().cloned().collect()),
        }
    }
}

impl Surroundings {
    /// What is wrong with a name that `route` returns.
    fn unknown_transport(&self, name: &str) -> Option<Finding> {
        if name.is_empty() || name == TransportName::DIRECT {
            return None;
        }
        let error = |message: String| Finding::error(Rule::Transport, message);
        if name == TransportName::LOCAL {
            let finding = error("scripts cannot choose the transport \"local\"".into());
            return Some(finding.hint("mail for our own mailboxes goes there by itself"));
        }
        if TransportName::new(name).is_err() {
            let finding = error(format!("no transport can be called {name:?}"));
            let lower = name.trim().to_lowercase();
            let known = self.transports.as_ref().is_none_or(|known| known.contains(&lower));
            let right = TransportName::new(&lower).is_ok() && (known || lower == TransportName::DIRECT);
            return Some(if right { finding.hint(format!("write {lower:?}")) } else { finding });
        }
        let known = self.transports.as_ref().filter(|known| !known.contains(name))?;
        let finding = error(format!("there is no transport {name:?}"));
        let names = known.iter().map(String::as_str).chain([TransportName::DIRECT]);
        Some(match nearest(name, names) {
            Some(right) => finding.hint(format!("did you mean {right:?}?")),
            None => finding.hint(format!("add [transports.{name}] to the configuration first")),
        })
    }
}

/// Everything that is wrong with files that compiled.
pub(super) fn lint(engine: &Engine, units: &[Unit<'_>], surroundings: &Surroundings) -> Vec<ScriptProblem> {
    let mut problems = program::Program::new(engine, units, surroundings).check();
    for unit in units {
        problems.extend(stray::unused_imports(unit));
    }
    problems.extend(stray::never_asked(units, surroundings));
    problems
}
