//! What must hold for any input: one function for each fuzz target, which panics when it does not.
//!
//! The functions know nothing of fuzzers. `fuzz_targets/` gives them what libFuzzer finds; `tests/e2e/seeds.rs` gives
//! them the seeds with every run of the tests, on the stable compiler. docs/testing.md says how to run the fuzzers.

mod config;
mod imap;
mod route;
mod smtp;
mod spool;

pub use config::config;
pub use imap::{imap_command, mime_structure};
pub use route::{route_script, route_tests};
pub use smtp::{address, smtp_command, smtp_data, smtp_reply};
pub use spool::spool_recover;

/// All targets: the name of each is that of its folder in `seeds/`.
#[allow(dead_code, clippy::type_complexity)]
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("address", address),
    ("config", config),
    ("imap_command", imap_command),
    ("mime_structure", mime_structure),
    ("route_script", route_script),
    ("route_tests", route_tests),
    ("smtp_command", smtp_command),
    ("smtp_data", smtp_data),
    ("smtp_reply", smtp_reply),
    ("spool_recover", spool_recover),
];
