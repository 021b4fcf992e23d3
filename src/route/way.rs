//! Where an evaluation went, place by place: what the measuring of coverage is made of.

use std::sync::Arc;

use rhai::Position;

/// The way of one evaluation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Way {
    /// Every place that was reached, in order.
    pub(crate) visits: Vec<Visit>,
    /// Whether it came to its end, and not to an error.
    pub(crate) ended: bool,
}

/// One place that was reached.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    /// Its file, relative to the scripts directory.
    pub(crate) file: Arc<str>,
    /// Line and column.
    pub(crate) place: Position,
    /// How deep function calls were nested.
    pub(crate) depth: usize,
}
