//! Tests of routing scripts: what operators write beside their scripts, and what runs it.
//!
//! A file of tests stands beside the script that it tests: `global.test.toml` beside `global.rhai`,
//! `domain/example.org.test.toml` beside `domain/example.org.rhai`. A file at the top that no script has the name of
//! (`chain.test.toml`) tests all three levels together, as the queue asks them. The tests were read in the same moment
//! as the scripts ([`ScriptSet::tests`]), so that a half-written file is seen together with what it belongs to.
//!
//! [`run()`] puts every case to the scripts and gives a [`Report`]. It is pure, and bounded in time: a guarded reload calls
//! it before a set goes live, `waypost route test` whenever somebody wants to know.
//!
//! | file | what stands there |
//! | --- | --- |
//! | `given` | the facts that a case gives, as they are written |
//! | `facts` | from these to all facts of a delivery: defaults, and what cannot be |
//! | `expect` | what a case expects, and whether an answer is that |
//! | `table` | a file of cases |
//! | `script`, `language` | a file of tests in Rhai, and what can be said there |
//! | `diff` | the difference between two texts |
//! | `coverage` | which lines and branches were reached |
//! | `run` | which script a file asks; running everything |
//! | `report` | what came of it |
//! | `simulate` | a message's life in virtual time |
//! | `replay` | other scripts, tried on mail that was |
//! | `guard` | the same, for reloads |
//!
//! [`ScriptSet::tests`]: crate::route::ScriptSet::tests

mod coverage;
mod diff;
mod expect;
mod facts;
mod given;
mod guard;
mod language;
pub mod replay;
mod report;
mod run;
mod script;
pub mod simulate;
mod table;

#[cfg(test)]
mod tests;

pub use coverage::{Branch, BranchCoverage, Coverage, FileCoverage, Share};
pub use guard::guard;
pub use report::{Broken, CaseResult, Failure, Report};
pub use run::{Options, run};
