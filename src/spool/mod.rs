//! The queue's log: accepted messages and what became of them, in preallocated, recycled segments.

mod types;

pub use types::{
    Control, NewMessage, Next, Origin, RecipientState, Settlement, SpoolError, SpoolOptions, SpoolStats,
    Status, StoredMessage, Waiting,
};
