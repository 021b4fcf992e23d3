//! What a routing decision costs: a typical script of five branches, with all limits on.
//!
//! `cargo bench --bench route` prints time for an evaluation and evaluations a second, on one and two threads.

#![allow(missing_docs, clippy::expect_used)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use waypost::address::Mailbox;
use waypost::config::ScriptLimits;
use waypost::envelope::ReversePath;
use waypost::route::{Facts, ScriptSet};

const SECONDS: u64 = 1;
const BATCH: u32 = 100;

/// Each name, its script, and whether the transport is known.
const SCRIPTS: [(&str, &str); 6] = [
    ("nothing", "fn route(delivery) { }"),
    ("one branch", "fn route(delivery) { if delivery.attempt >= 4 { return \"smarthost\"; } }"),
    ("five branches, the last decides", FIVE),
    ("five branches, computed name", COMPUTED),
    ("ambiguous computed name (runs twice)", AMBIGUOUS),
    ("imported module and constant", MODULE),
];

const FIVE: &str = r#"fn route(delivery) {
    if delivery.attempt >= 4 { return "sending-service"; }
    if delivery.is_dsn { return "direct"; }
    if in_domain(delivery.recipient_domain, ".big-provider.example") { return "warm"; }
    if delivery.size > 10000000 { return "bulk"; }
    if delivery.sender_domain == "news.example" { return "newsletters"; }
}"#;

const COMPUTED: &str = r#"fn route(delivery) {
    if delivery.attempt >= 4 { return "sending-service"; }
    if delivery.is_dsn { return "direct"; }
    let ways = #{ "a.example": "one", "b.example": "two", "big-provider.example": "warm" };
    let way = ways[delivery.recipient_domain];
    if way != () { return way; }
    if delivery.sender_domain == "news.example" { return "newsletters"; }
}"#;

const AMBIGUOUS: &str = r#"fn route(delivery) {
    let way = "warm";
    if delivery.attempt >= 4 { return way; }
    if delivery.size > 10000000 { return way; }
    way
}"#;

const MODULE: &str = r#"import "lib/names" as names;
const PATIENCE = 4;
fn route(delivery) {
    if delivery.attempt >= global::PATIENCE { return "sending-service"; }
    names::by_domain(delivery)
}"#;

const NAMES: &str = r#"fn by_domain(delivery) {
    if in_domain(delivery.recipient_domain, ".big-provider.example") { return "warm"; }
    if delivery.sender_domain == "news.example" { return "newsletters"; }
}"#;

fn main() {
    println!("{:<40} {:>10} {:>14} {:>14}", "", "µs, best", "a second, 1", "2 threads");
    for (name, script) in SCRIPTS {
        let set = load(script);
        let (best, one) = measure(&set, 1);
        let (_, two) = measure(&set, 2);
        println!("{name:<40} {:>10.2} {one:>14.0} {two:>14.0}", best.as_secs_f64() * 1e6);
    }
    let begun = Instant::now();
    let sets = 20;
    (0..sets).for_each(|_| drop(black_box(load(FIVE))));
    println!("loading a set: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3 / f64::from(sets));
}

fn load(script: &str) -> Arc<ScriptSet> {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |file: &str, text: &str| std::fs::write(Path::join(dir.path(), file), text).expect("a file");
    std::fs::create_dir(dir.path().join("lib")).expect("a directory");
    write("global.rhai", script);
    write("lib/names.rhai", NAMES);
    Arc::new(ScriptSet::load(dir.path(), &ScriptLimits::default()).expect("good scripts"))
}

fn facts() -> Arc<Facts> {
    let mailbox = |text: &str| Mailbox::parse(text).expect("an address");
    let sender = ReversePath::Mailbox(mailbox("editor@news.example"));
    let mut facts = Facts::new(sender, mailbox("someone@some-domain.example"), Timestamp::UNIX_EPOCH);
    facts.attempt = 2;
    facts.local_sender_domain = true;
    Arc::new(facts)
}

/// The best time for a decision, verdict included, over batches of a hundred; and decisions a second, all threads
/// together. On a busy machine the first is the one to compare.
fn measure(set: &Arc<ScriptSet>, threads: usize) -> (Duration, f64) {
    let work = || {
        let facts = facts();
        let end = Instant::now() + Duration::from_secs(SECONDS);
        let (mut count, mut best) = (0u32, Duration::MAX);
        while Instant::now() < end {
            let begun = Instant::now();
            for _ in 0..BATCH {
                let verdict = black_box(set.decide(&facts, &|_: &str| true)).verdict();
                black_box(verdict).expect("a decision");
            }
            best = best.min(begun.elapsed() / BATCH);
            count += BATCH;
        }
        (best, f64::from(count) / SECONDS as f64)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = running.into_iter().map(|thread| thread.join().expect("a count"));
        done.fold((Duration::MAX, 0.0), |all, one| (all.0.min(one.0), all.1 + one.1))
    })
}
