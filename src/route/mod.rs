//! Routing scripts: which way each delivery attempt goes.
//!
//! A [`ScriptSet`] is everything in a scripts directory, compiled once and never changed. The queue gives it the
//! [`Facts`] of an attempt and gets a [`Trace`], whose [`verdict`](Trace::verdict) is a decision or an error. All of
//! that is pure: the same set and facts give the same answer, so tests, simulations and replays use the same code as
//! the queue. A [`Router`] holds the running set and replaces it as a whole when a new one is good; [`watch`](watch()) makes
//! it look again whenever a file changes.
//!
//! | file | what stands there |
//! | --- | --- |
//! | `facts` | what a script may know |
//! | `delivery`, `functions` | how scripts see it |
//! | `engine` | the language, its limits |
//! | `definitions` | the same for editors |
//! | `source`, `syntax`, `modules` | reading and checking files |
//! | `lint` | what would fail, or can never be meant |
//! | `set` | loading and asking |
//! | `failure`, `trace` | what came out of it |
//! | `router`, `watch` | the running set |
//! | `rollout` | which set decides about a message, and who learns of it |
//! | `promotion` | the set that decides about a share of the mail |
//! | `shadow`, `difference` | the set that is asked beside, and where it differs |
//! | `counts` | what the scripts did, for metrics |
//! | `test_script`, `way` | what tests of scripts need: tests in the same language, and where an evaluation went |
//!
//! The contract with operators is docs/routing.md.

mod counts;
mod definitions;
mod delivery;
mod difference;
mod engine;
mod facts;
mod failure;
mod functions;
mod lint;
mod modules;
mod problem;
mod promotion;
mod rollout;
mod router;
mod set;
mod shadow;
mod source;
mod syntax;
mod test_script;
mod trace;
mod value_type;
mod watch;
mod way;

#[cfg(test)]
mod docs_test;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod tests;

pub use counts::{Part, ScriptCounts, ScriptStats};
pub use definitions::definitions;
pub use delivery::{PropertyDoc, properties};
pub use difference::{Difference, Differences, Direction, DomainPair, Example, Mistake, Tally};
pub use facts::Facts;
pub use functions::{FUNCTIONS, Function};
pub use lint::Surroundings;
pub use problem::{Rule, ScriptProblem, Severity};
pub use promotion::{Ended, PromotionDir, PromotionIoError, PromotionState, Terms, WhyEnded};
pub use rollout::{Chosen, Promote, PromoteError, PromotionReport, ResumeError};
pub use router::{FailedReload, Passed, Reloaded, Router, RouterStatus, Tests};
pub use set::{KnownTransports, ScriptSet};
pub use shadow::{ShadowParts, ShadowReport};
pub use source::TestSource;
pub(crate) use test_script::{TestError, TestScript, delivery as delivery_value, facts_of};
pub use trace::{Answer, ErrorKind, NotAsked, RouteError, ScriptError, ScriptId, Step, Trace};
pub use value_type::{TextOf, ValueType};
pub use watch::{Follow, Watch, WatchError, watch};
pub(crate) use way::{Visit, Way};
