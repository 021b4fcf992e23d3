//! The queue with its real parts: spool, store, scripts and transports, in a folder of their own.
//!
//! `outside.test` has an MX where nobody listens; `ours.test` is ours, with `ann` in it.

mod controls;
mod filters;
mod history;
mod hold_rules;
mod in_line;
mod million;
mod rates;
mod reports;
mod suppressions;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::*;
use crate::address::Mailbox;
use crate::envelope::{Envelope, Notify, ReversePath};
use crate::names::AccountName;
use crate::spool::{NewMessage, Origin, SpoolOptions};
use crate::store::{INBOX, Suppression};

struct World {
    dir: tempfile::TempDir,
    queue: Queue,
    parts: Parts,
}

const CONFIG: &str = r#"
hostname = "mx.ours.test"
[dns.fixed."outside.test"]
addresses = ["127.0.0.1"]
[transports.direct]
kind = "direct"
port = 1
connect_timeout = "2s"
[domains."ours.test"]
[accounts.ann]
addresses = ["ann@ours.test"]
"#;

const KICK: Action = Action::Kick { transport: None };

/// Attempts that follow each other at once.
const SHORT: &str = "[queue]\nretry_first = \"30ms\"\nretry_factor = 1.0\nretry_jitter = 0.0\n";

async fn world(more: &str, script: Option<&str>) -> World {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("scripts")).unwrap();
    if let Some(script) = script {
        std::fs::write(dir.path().join("scripts/global.rhai"), script).unwrap();
    }
    let (parts, queue) = open(dir.path(), more).await;
    World { dir, queue, parts }
}

async fn open(dir: &Path, more: &str) -> (Parts, Queue) {
    let options = SpoolOptions { segment_bytes: 1 << 20, free_bytes_min: 0, ..SpoolOptions::default() };
    open_with(dir, more, Spool::open(&dir.join("queue"), options).unwrap()).await
}

async fn open_with(dir: &Path, more: &str, (spool, waiting): (Spool, Vec<Waiting>)) -> (Parts, Queue) {
    let config = Config::parse(&format!("{CONFIG}{more}"), &dir.join("waypost.toml")).unwrap();
    let store = Store::open(&dir.join("store")).unwrap();
    store.ensure_account(&ann()).await.unwrap();
    let resolver = Resolver::new(&config.dns);
    let parts = Parts {
        spool,
        store,
        router: Arc::new(Router::new(&dir.join("scripts"), config.script_limits.clone()).unwrap()),
        engine: Engine::new(resolver.clone(), config.hostname.clone()),
        resolver,
        config: Arc::new(ArcSwap::from_pointee(config)),
    };
    (parts.clone(), Queue::start(parts, waiting).await.unwrap())
}

fn ann() -> AccountName {
    AccountName::new("ann").unwrap()
}

fn message(sender: &str, recipients: &[&str]) -> NewMessage {
    let sender = ReversePath::try_from(sender.to_owned()).unwrap();
    NewMessage {
        envelope: Envelope::new(sender, recipients.iter().map(|r| Mailbox::parse(r).unwrap())),
        account: None,
        received: crate::clock::now(),
        origin: Origin { session: "test".into(), protocol: "ESMTP".into(), ip: None, helo: None },
        content: Bytes::from_static(b"Subject: hello\r\nMessage-Id: <1@ours.test>\r\n\r\nbody\r\n"),
    }
}

impl World {
    /// All mails of ann's Inbox, as text.
    async fn inbox(&self) -> Vec<String> {
        let inbox = self.parts.store.mailbox(&ann(), INBOX).await.unwrap().id;
        let mut texts = Vec::new();
        for row in self.parts.store.open_view(inbox).await.unwrap().messages {
            let content = self.parts.store.content(inbox, row.uid).await.unwrap().unwrap();
            texts.push(String::from_utf8(content.to_vec()).unwrap());
        }
        texts
    }

    async fn until_empty(&self) {
        until(async || self.queue.stats().recipients == 0).await;
    }

    async fn stop(&self) {
        self.queue.stop(Duration::from_secs(20)).await;
        self.parts.spool.close().await;
        self.parts.store.close().await;
    }
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_recipient_is_delivered_and_remembered() {
    let world = world("", None).await;
    let id = world.queue.accept(message("x@elsewhere.test", &["ann@ours.test"])).await.unwrap();
    world.until_empty().await;
    let inbox = world.inbox().await;
    assert_eq!(inbox.len(), 1);
    assert!(inbox[0].starts_with("Return-Path: <x@elsewhere.test>\r\n"), "{inbox:?}");
    until(async || !world.queue.finished(id).await.unwrap().is_empty()).await;
    let finished = world.queue.finished(id).await.unwrap();
    assert_eq!(finished[0].attempts.len(), 1);
    assert_eq!(finished[0].attempts[0].decision.as_ref().unwrap().transport.as_str(), "local");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_delivered_in_time_comes_back_with_its_story() {
    let world = world(&format!("{SHORT}give_up_after = \"150ms\"\n"), None).await;
    let id = world.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    until(async || !world.inbox().await.is_empty()).await;
    let report = world.inbox().await.remove(0);
    for part in
        ["Return-Path: <>", "Final-Recipient: rfc822; user@outside.test", "Status: 5.4.7", "Subject: hello"]
    {
        assert!(report.contains(part), "{part} in {report}");
    }
    world.until_empty().await;
    until(async || !world.queue.finished(id).await.unwrap().is_empty()).await;
    let attempts = &world.queue.finished(id).await.unwrap()[0].attempts;
    assert!(attempts.len() >= 3, "{attempts:?}");
    assert!(attempts.iter().enumerate().all(|(n, a)| a.number as usize == n + 1 && a.outcome.is_some()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_sender_and_one_who_does_not_want_to_know_get_no_report() {
    let world = world(&format!("{SHORT}give_up_after = \"1ms\"\n"), None).await;
    world.queue.accept(message("", &["user@outside.test"])).await.unwrap();
    let mut quiet = message("ann@ours.test", &["user@outside.test"]);
    quiet.envelope.recipients[0].notify = Some(Notify { success: false, failure: false, delay: false });
    world.queue.accept(quiet).await.unwrap();
    world.until_empty().await;
    assert_eq!(world.inbox().await, Vec::<String>::new());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_error_uses_up_no_attempt_and_never_becomes_direct() {
    let more = format!("{SHORT}script_error_retry = \"50ms\"\n");
    let world = world(&more, Some("fn route(d) { d.nonsense }")).await;
    let id = world.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    let shown = async || world.queue.show(id).await.unwrap().unwrap().recipients.remove(0);
    until(async || shown().await.problem.is_some()).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let recipient = shown().await;
        assert_eq!((recipient.attempts, recipient.history.len()), (0, 0), "{recipient:?}");
        assert!(recipient.problem.unwrap().contains("global.rhai:1:"));
    }
    std::fs::write(world.dir.path().join("scripts/global.rhai"), "fn route(d) { }").unwrap();
    world.parts.router.reload().unwrap();
    until(async || shown().await.attempts > 0).await;
    assert_eq!(shown().await.problem, None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_stays_broken_does_not_fill_the_disk() {
    let world = world("[queue]\nscript_error_retry = \"20ms\"\n", Some("fn route(d) { d.nonsense }")).await;
    let id = world.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    let shown = async || world.queue.show(id).await.unwrap().unwrap().recipients.remove(0);
    until(async || shown().await.problem.is_some()).await;
    let (before, live) = (shown().await.due, world.parts.spool.stats().live_bytes);
    until(async || shown().await.due > before + Duration::from_millis(200)).await;
    assert_eq!(world.parts.spool.stats().live_bytes, live, "the same problem again is no news");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_which_no_way_is_ever_chosen_comes_back_to_its_sender() {
    let more = "[queue]\nscript_error_retry = \"20ms\"\ngive_up_after = \"100ms\"\n";
    let world = world(more, Some("fn route(d) { d.nonsense }")).await;
    let id = world.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    until(async || !world.inbox().await.is_empty()).await;
    let report = world.inbox().await.remove(0);
    assert!(report.contains("Status: 5.4.7") && report.contains("given up without an attempt"), "{report}");
    assert!(!report.contains("nonsense"), "how we are set up is not for senders: {report}");
    world.until_empty().await;
    until(async || !world.queue.finished(id).await.unwrap().is_empty()).await;
    assert_eq!(world.queue.finished(id).await.unwrap()[0].state, crate::store::FinalState::Expired);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_message_does_not_hide_the_others() {
    let world = world("", None).await;
    let damaged = world.queue.accept(message("ann@ours.test", &["gone@outside.test"])).await.unwrap();
    let good = world.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    until(async || world.queue.show(good).await.unwrap().unwrap().recipients[0].history.len() == 1).await;
    until(async || world.queue.stats().running == 0).await;
    damage(&world, b"gone@outside.test");
    assert!(world.queue.show(damaged).await.is_err(), "asked for by its number, it says what is wrong");
    let page = world.queue.list(&Filter::default(), None, 100).await.unwrap();
    assert_eq!(page.messages.iter().map(|m| m.id).collect::<Vec<_>>(), [good]);
    assert_eq!(world.queue.control(&Filter::default(), &KICK, false).await.unwrap().recipients, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_envelope_is_damaged_too_is_put_aside_and_not_tried_for_ever() {
    let world = world("", None).await;
    let sent = message("ann@ours.test", &["gone@outside.test", "user@outside.test"]);
    let id = world.queue.accept(sent).await.unwrap();
    until(async || {
        let seen = world.queue.show(id).await.unwrap().unwrap();
        seen.recipients.iter().all(|r| r.attempts == 1 && !r.running)
    })
    .await;
    damage(&world, b"gone@outside.test");
    let now = crate::clock::now();
    world.queue.inner.due.lock().change((id, 0), Some(now), None, now);
    world.queue.inner.wake.notify_one();
    world.until_empty().await;
    let left = std::fs::read(world.dir.path().join(format!("queue/damaged/{id}.records"))).unwrap();
    assert!(memchr::memmem::find(&left, b"?one@outside.test").is_some(), "as it stood on disk");
    assert!(memchr::memmem::find(&left, b"connection refused").is_some(), "what came of it too");
    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts));
    let (parts, queue) = open(dir.path(), "").await;
    assert_eq!(queue.stats().recipients, 0, "it does not come back");
    World { dir, queue, parts }.stop().await;
}

/// The header is there, the body is not: trying again would not help.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_body_is_damaged_comes_back_with_what_is_known() {
    let world = world("", None).await;
    let mut sent = message("ann@ours.test", &["user@outside.test"]);
    sent.content = Bytes::from_static(b"Subject: hello\r\n\r\nto be damaged\r\n");
    let id = world.queue.accept(sent).await.unwrap();
    until(async || world.queue.show(id).await.unwrap().unwrap().recipients[0].attempts == 1).await;
    until(async || world.queue.stats().running == 0).await;
    damage(&world, b"to be damaged");
    world.queue.control(&Filter::default(), &KICK, false).await.unwrap();
    world.until_empty().await;
    until(async || !world.inbox().await.is_empty()).await;
    let report = world.inbox().await.remove(0);
    for part in
        ["Action: failed", "Status: 5.3.0", "damaged in the storage", "Before that:", "Subject: hello"]
    {
        assert!(report.contains(part), "{part} in {report}");
    }
    assert!(!report.contains("amaged\r\n\r\n--"), "not the body: {report}");
    world.stop().await;
}

/// Changes an octet on disk.
fn damage(world: &World, text: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    for file in std::fs::read_dir(world.dir.path().join("queue")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        if let Some(at) = memchr::memmem::find(&bytes, text) {
            std::fs::File::options().write(true).open(&path).unwrap().write_all_at(b"?", at as u64).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memory_and_with_one_slot_all_is_delivered_all_the_same() {
    let world = world("[queue]\nconcurrency = 1\nmemory_bytes_max = 1\n", None).await;
    let queue = &world.queue;
    for _ in 0..40 {
        queue.accept(message("x@elsewhere.test", &["ann@ours.test", "Ann@ours.test"])).await.unwrap();
    }
    world.until_empty().await;
    assert_eq!(world.inbox().await.len(), 80);
    assert_eq!((queue.stats().running, queue.stats().in_line), (0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_knows_what_was_tried_and_when_it_is_due() {
    let world = world("", None).await;
    let id = world.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    let recipient = async |queue: &Queue| queue.show(id).await.unwrap().unwrap().recipients.remove(0);
    until(async || {
        let recipient = recipient(&world.queue).await;
        recipient.attempts == 1 && !recipient.running
    })
    .await;
    let before = world.queue.show(id).await.unwrap();
    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts));
    let (parts, queue) = open(dir.path(), "").await;
    assert_eq!(queue.show(id).await.unwrap(), before);
    assert_eq!(queue.control(&Filter::default(), &KICK, false).await.unwrap().recipients, 1);
    until(async || recipient(&queue).await.attempts == 2).await;
    World { dir, queue, parts }.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_goes_page_by_page_and_shows_what_is_asked_for() {
    let world = world("", None).await;
    let mut ids = Vec::new();
    for number in 0..7 {
        let to = format!("user{number}@outside.test");
        ids.push(world.queue.accept(message("ann@ours.test", &[&to])).await.unwrap());
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = world.queue.list(&Filter::default(), after, 3).await.unwrap();
        assert!(page.messages.len() <= 3);
        seen.extend(page.messages.iter().map(|m| m.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ids);
    for (filter, count) in [
        (Filter { recipient: Mailbox::parse("user3@outside.test").ok(), ..Filter::default() }, 1),
        (Filter { sender_domain: "ours.test".parse().ok(), ..Filter::default() }, 7),
        (Filter { recipient_domain: "elsewhere.test".parse().ok(), ..Filter::default() }, 0),
        (Filter { held: Some(true), ..Filter::default() }, 0),
        (Filter { account: Some(ann()), ..Filter::default() }, 0),
        (Filter { ids: ids[2..4].to_vec(), ..Filter::default() }, 2),
    ] {
        assert_eq!(world.queue.list(&filter, None, 100).await.unwrap().messages.len(), count, "{filter:?}");
    }
    world.stop().await;
}

/// Two transports that go nowhere: one says so to who submits, the other in a report.
const NOWHERE: &str = r#"
[transports.closed]
kind = "fail"
reply = "550 5.7.1 nobody writes to them"
at_submission = true
[transports.dead]
kind = "fail"
reply = "550 5.1.2 nobody is there"
"#;

#[tokio::test]
async fn what_would_only_fail_is_refused_at_once_where_the_operator_says_so() {
    let script = r#"fn route(d) { if d.recipient_local == "closed" { return "closed"; } "dead" }"#;
    let world = world(NOWHERE, Some(script)).await;
    let refused = world.queue.accept(message("ann@ours.test", &["closed@outside.test"])).await.unwrap_err();
    let AcceptError::Refused(reply) = refused else { panic!("{refused:?}") };
    assert_eq!(reply.to_string(), "550 5.7.1 nobody writes to them\r\n");
    assert_eq!(world.queue.stats().recipients, 0, "nothing of it is kept");

    // One reply speaks for all recipients: where it would be wrong for some, the others are reported.
    world.queue.accept(message("ann@ours.test", &["closed@outside.test", "b@outside.test"])).await.unwrap();
    world.until_empty().await;
    until(async || !world.inbox().await.is_empty()).await;
    let reports = world.inbox().await.join("\n");
    for words in ["nobody writes to them", "nobody is there"] {
        assert!(reports.contains(words), "{reports}");
    }
    world.stop().await;
}
