//! (being built)
pub mod due;
pub mod schedule;
pub mod settle;
pub mod slots;
