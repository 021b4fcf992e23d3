//! What a routing decision costs, with all limits on, and what a queue attempt costs beside it.
//!
//! `cargo bench --bench route` prints for each script the time of a batch of decisions and decisions a second, on one
//! thread and on two together; `five_branches_last_decides` is the typical script. `queue::attempt` is the same for
//! attempts of the queue, each with its decision, its record before and its settlement after it, against a transport
//! that answers 451 without a network.

#![allow(missing_docs, clippy::expect_used)]

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use jiff::Timestamp;
use waypost::address::Mailbox;
use waypost::config::ScriptLimits;
use waypost::envelope::ReversePath;
use waypost::route::{Facts, ScriptSet};

/// Decisions that each thread makes in one run.
const BATCH: usize = 1_000;

fn main() {
    divan::main();
}

/// A script, and what is particular about it.
struct Case(&'static str, &'static str);

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const CASES: [Case; 6] = [
    Case("nothing", "fn route(delivery) { }"),
    Case("one_branch", "fn route(delivery) { if delivery.attempt >= 4 { return \"smarthost\"; } }"),
    Case("five_branches_last_decides", FIVE),
    Case("five_branches_computed_name", COMPUTED),
    // No literal tells the line of the return: it runs a second time, watched.
    Case("ambiguous_computed_name", AMBIGUOUS),
    Case("imported_module_and_constant", MODULE),
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

/// Writes a scripts directory.
fn write_scripts(dir: &Path, global: &str) {
    std::fs::create_dir_all(dir.join("lib")).expect("a directory");
    std::fs::write(dir.join("global.rhai"), global).expect("a file");
    std::fs::write(dir.join("lib/names.rhai"), NAMES).expect("a file");
}

fn load(script: &str) -> ScriptSet {
    let dir = tempfile::tempdir().expect("a directory");
    write_scripts(dir.path(), script);
    ScriptSet::load(dir.path(), &ScriptLimits::default()).expect("good scripts")
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("an address")
}

fn facts() -> Arc<Facts> {
    let sender = ReversePath::Mailbox(mailbox("editor@news.example"));
    let mut facts = Facts::new(sender, mailbox("someone@some-domain.example"), Timestamp::UNIX_EPOCH);
    facts.attempt = 2;
    facts.local_sender_domain = true;
    Arc::new(facts)
}

/// Decisions, verdict included, on one thread or several that share the set.
#[divan::bench(args = CASES, consts = [1, 2])]
fn decide<const THREADS: usize>(bencher: Bencher<'_, '_>, case: &Case) {
    let (set, facts) = (load(case.1), facts());
    let work = || {
        for _ in 0..BATCH {
            black_box(set.decide(&facts, &|_: &str| true)).verdict().expect("a decision");
        }
    };
    bencher.counter(ItemsCount::new(THREADS * BATCH)).bench_local(|| {
        std::thread::scope(|scope| {
            for _ in 1..THREADS {
                scope.spawn(work);
            }
            work();
        });
    });
}

/// Reading and compiling a set.
#[divan::bench]
fn load_a_set() -> ScriptSet {
    load(FIVE)
}

mod queue {
    use std::time::Duration;

    use arc_swap::ArcSwap;
    use bytes::Bytes;
    use waypost::config::Config;
    use waypost::dns::Resolver;
    use waypost::envelope::Envelope;
    use waypost::metrics::Page;
    use waypost::queue::{Action, Filter, Parts, Queue};
    use waypost::route::Router;
    use waypost::spool::{NewMessage, Origin, Spool, SpoolOptions};
    use waypost::store::Store;
    use waypost::transport::Engine;

    use super::{Arc, Bencher, FIVE, ItemsCount, Path, ReversePath, Timestamp, mailbox, write_scripts};

    /// Messages that wait, each with one recipient.
    const MESSAGES: usize = 1_000;
    const CONFIG: &str = r#"
hostname = "mail.example.org"
[dns.fixed."some-domain.example"]
addresses = ["127.0.0.1"]
[transports.newsletters]
kind = "fail"
reply = "451 4.3.0 not now"
[domains."news.example"]
[accounts.editor]
addresses = ["editor@news.example"]
[queue]
retry_first = "8h"
give_up_after = "off"
"#;

    /// Attempts of messages that are read back from the spool, as after a first failure.
    #[divan::bench(sample_count = 20, sample_size = 1)]
    fn attempt(bencher: Bencher<'_, '_>) {
        let dir = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let queue = runtime.block_on(open(dir.path()));
        runtime.block_on(async {
            for _ in 0..MESSAGES {
                queue.accept(message()).await.expect("room in the spool");
            }
        });
        let mut wanted = MESSAGES;
        runtime.block_on(until(&queue, wanted));
        bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
            wanted += MESSAGES;
            runtime.block_on(async {
                let kick = Action::Kick { transport: None };
                queue.control(&Filter::default(), &kick, false).await.expect("a queue that answers");
                until(&queue, wanted).await;
            });
        });
        runtime.block_on(queue.stop(Duration::from_secs(10)));
    }

    async fn open(dir: &Path) -> Queue {
        write_scripts(&dir.join("scripts"), FIVE);
        let config = Config::parse(CONFIG, &dir.join("waypost.toml")).expect("a good configuration");
        let (spool, waiting) = Spool::open(&dir.join("queue"), SpoolOptions::default()).expect("a spool");
        let resolver = Resolver::new(&config.dns);
        let router = Router::new(&dir.join("scripts"), config.script_limits.clone()).expect("good scripts");
        let parts = Parts {
            spool,
            store: Store::open(&dir.join("store")).expect("a store"),
            router: Arc::new(router),
            engine: Engine::new(resolver.clone(), config.hostname.clone()),
            resolver,
            config: Arc::new(ArcSwap::from_pointee(config)),
        };
        Queue::start(parts, waiting).await.expect("a store that answers")
    }

    fn message() -> NewMessage {
        let sender = ReversePath::Mailbox(mailbox("editor@news.example"));
        NewMessage {
            envelope: Envelope::new(sender, [mailbox("someone@some-domain.example")]),
            account: None,
            received: Timestamp::now(),
            origin: Origin { session: "bench".into(), protocol: "ESMTP".into(), ip: None, helo: None },
            content: Bytes::from(format!("Subject: news\r\n\r\n{}\r\n", "word ".repeat(800))),
        }
    }

    /// Until so many attempts have ended in a deferral.
    async fn until(queue: &Queue, attempts: usize) {
        loop {
            let mut page = Page::default();
            queue.write_metrics(&mut page);
            let text = page.into_text();
            let counted = text.lines().find_map(|line| line.strip_prefix("waypost_queue_deferred_total "));
            if counted.and_then(|count| count.parse().ok()) == Some(attempts) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
