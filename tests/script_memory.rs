//! A routing script that takes all that it can get, a thousand times: the process is as large afterwards as before.
//!
//! A process of its own, so that nothing else moves the figure.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use jiff::Timestamp;
use waypost::address::Mailbox;
use waypost::config::ScriptLimits;
use waypost::envelope::ReversePath;
use waypost::route::{Facts, ScriptSet};

/// What a process may grow by: far below what the scripts take altogether.
const GROWTH_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Resident memory of this process (proc(5): the second number, in pages).
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn memory_stays_flat_under_scripts_that_grow_whatever_they_can() {
    let bodies = [
        "let s = \"x\"; loop { s += s }",
        "let s = \"\"; s.pad(1000000000, \"x\");",
        "let a = [1]; loop { a.push([1, 2, 3]) }",
        "let m = #{}; let n = 0; loop { n += 1; m[`key number ${n}`] = `value number ${n}`; }",
        "f([1])\n}\nfn f(a) { f([a, a, a])",
        "for i in 0..40 { log(`${i} ${delivery.recipient}`) } throw \"x\"",
        "let f = |x| x; loop { f = f.curry(1) }",
    ];
    // Fewer operations than usual, so that a thousand evaluations take seconds; all sizes are the usual ones.
    let limits = ScriptLimits { operations_max: 20_000, ..ScriptLimits::default() };
    let sets: Vec<ScriptSet> = bodies
        .iter()
        .map(|body| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("global.rhai"), format!("fn route(delivery) {{ {body} }}"))
                .unwrap();
            ScriptSet::load(dir.path(), &limits).unwrap()
        })
        .collect();
    let recipient = Mailbox::parse("bob@far.example").unwrap();
    let facts = Arc::new(Facts::new(ReversePath::Null, recipient, Timestamp::UNIX_EPOCH));
    let round = |times: usize| {
        for set in &sets {
            for _ in 0..times {
                assert!(set.decide(&facts, &|_: &str| true).verdict().is_err());
            }
        }
    };
    round(20);
    let before = resident();
    round(150);
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{} MiB before, {} MiB more after", before >> 20, grown >> 20);
}
