//! (being built)
pub mod schedule;
pub mod settle;
pub mod slots;
