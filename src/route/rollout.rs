//! Asking for real: which set decides about a message, and who learns what it decided.

use std::sync::Arc;

use super::counts::{Part, ScriptCounts};
use super::facts::Facts;
use super::router::Router;
use super::set::{KnownTransports, ScriptSet};
use super::trace::Trace;
use crate::names::QueueId;

/// The set that decides about a message.
pub struct Chosen {
    /// It.
    pub set: Arc<ScriptSet>,
    part: Part,
}

impl Router {
    /// The set that decides about this message: about all of its recipients, on all of their attempts.
    pub fn for_message(&self, _id: QueueId) -> Chosen {
        Chosen { set: self.current(), part: Part::Live }
    }

    /// A real decision: it is counted.
    pub fn decide(&self, chosen: &Chosen, facts: &Arc<Facts>, known: &dyn KnownTransports) -> Trace {
        let trace = chosen.set.decide(facts, known);
        self.counts().count(chosen.part, &trace);
        trace
    }

    /// What the scripts did since the server started.
    pub fn counts(&self) -> &ScriptCounts {
        &self.counts
    }
}
