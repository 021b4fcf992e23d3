//! What waits for a slot, or is under way, when something happens: memory is short, routes change, the disk fails, the
//! server stops.
//!
//! There is one slot, and a message to `outside.test` holds it: a peer took the connection and says nothing yet.

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::spool::testing::{Op, TestDisk};

struct Held {
    world: World,
    /// The message that holds the slot.
    holder: QueueId,
    /// The peer's end of its connection.
    peer: TcpStream,
}

fn config(port: u16, more: &str) -> String {
    let transport = format!("[transports.slow]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {port}\n");
    format!("{transport}[queue]\nconcurrency = 1\n{more}")
}

async fn held(more: &str) -> Held {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let more = config(listener.local_addr().unwrap().port(), more);
    let world = world(&more, Some("fn route(d) { \"slow\" }")).await;
    hold(world, &listener).await
}

async fn hold(world: World, listener: &TcpListener) -> Held {
    let holder = world.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    let (peer, _) = listener.accept().await.unwrap();
    Held { world, holder, peer }
}

impl Held {
    async fn put_in_line(&self, to: &[&str]) -> QueueId {
        let id = self.world.queue.accept(message("x@elsewhere.test", to)).await.unwrap();
        until(async || self.world.queue.stats().in_line == 1).await;
        id
    }
}

/// The numbers of the attempts that the history has of a message.
async fn attempts(queue: &Queue, id: QueueId) -> Vec<u32> {
    until(async || !queue.finished(id).await.unwrap().is_empty()).await;
    queue.finished(id).await.unwrap()[0].attempts.iter().map(|attempt| attempt.number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_read_back_for_lack_of_memory_has_its_first_attempt_before_it() {
    let held = held("memory_bytes_max = 1\n").await;
    let id = held.put_in_line(&["ann@ours.test"]).await;
    drop(held.peer);
    assert_eq!(attempts(&held.world.queue, id).await, [1]);
    held.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_routes_do_not_use_up_an_attempt_of_what_waits_in_line() {
    let held = held("").await;
    let id = held.put_in_line(&["ann@ours.test"]).await;
    held.world.queue.routes_changed();
    until(async || held.world.queue.stats().in_line == 1).await;
    drop(held.peer);
    assert_eq!(attempts(&held.world.queue, id).await, [1]);
    held.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_use_up_an_attempt_of_what_waits_in_line() {
    let held = held("").await;
    let id = held.put_in_line(&["ann@ours.test"]).await;
    held.world.queue.stop(Duration::from_millis(50)).await;
    held.world.stop().await;
    let World { dir, queue, parts } = held.world;
    drop((queue, parts, held.peer));
    let (parts, queue) = open(dir.path(), "").await;
    assert_eq!(attempts(&queue, id).await, [1]);
    World { dir, queue, parts }.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_during_the_stop_is_reported_after_it() {
    let Held { world, holder, mut peer } = held("").await;
    let queue = world.queue.clone();
    let stop = tokio::spawn(async move { queue.stop(Duration::from_secs(20)).await });
    until(async || world.queue.inner.stopping()).await;
    peer.write_all(b"220 x\r\n250 x\r\n550 5.7.1 not from you\r\n").await.unwrap();
    stop.await.unwrap();
    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts, peer));
    let (parts, queue) = open(dir.path(), "").await;
    assert!(queue.show(holder).await.unwrap().is_none(), "it has failed for good and is not tried again");
    let world = World { dir, queue, parts };
    until(async || !world.inbox().await.is_empty()).await;
    assert!(world.inbox().await[0].contains("550 5.7.1 not from you"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failing_disk_could_not_take_is_written_down_when_it_works_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("scripts")).unwrap();
    std::fs::write(dir.path().join("scripts/global.rhai"), "fn route(d) { \"slow\" }").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let more = config(listener.local_addr().unwrap().port(), "")
        + "[domains.\"other.test\".replies]\nlater = { reply = \"451 4.3.0 later\" }\n";
    let disk = Arc::new(TestDisk::default());
    let spool = crate::spool::testing::open(&dir.path().join("queue"), disk.clone());
    let (parts, queue) = open_with(dir.path(), &more, spool).await;
    let held = hold(World { dir, queue, parts }, &listener).await;
    held.put_in_line(&["ann@ours.test", "later@other.test"]).await;
    disk.fail(Op::Sync, u32::MAX, std::io::ErrorKind::Other);
    drop(held.peer);
    until(async || held.world.queue.stats().recipients == 2).await;
    until(async || held.world.queue.stats().running == 0).await;
    disk.work_again();
    // Else ann would get it a second time after a restart, and the spool would keep the message for ever.
    until(async || held.world.parts.spool.stats().recipients == 2).await;
    held.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_line_can_be_given_up_and_dropped_and_what_is_under_way_cannot() {
    for memory in ["", "memory_bytes_max = 1\n"] {
        let held = held(memory).await;
        let (queue, id) = (&held.world.queue, held.put_in_line(&["ann@ours.test"]).await);
        let seen = queue.show(id).await.unwrap().unwrap().recipients.remove(0);
        assert_eq!((seen.in_line.is_some(), seen.running, seen.attempts), (true, false, 0));
        let dry = queue.control(&Filter::default(), &Action::Drop, true).await.unwrap();
        assert_eq!((dry.recipients, dry.busy), (1, 1));
        let reason = "the account was closed".to_owned();
        let done = queue.control(&Filter::default(), &Action::Fail { reason }, false).await.unwrap();
        assert_eq!((done.recipients, done.busy), (1, 1), "the holder of the slot is left alone");
        assert_eq!(attempts(queue, id).await, [1], "given up before an attempt was made");
        assert!(queue.show(id).await.unwrap().is_none());
        assert!(queue.show(held.holder).await.unwrap().unwrap().recipients[0].running);
        drop(held.peer);
        until(async || held.world.queue.stats().running == 0).await;
        assert_eq!(held.world.inbox().await, Vec::<String>::new(), "it was not delivered all the same");
        held.world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_line_is_held_by_a_rule_and_scheduled_like_any_other() {
    use crate::store::{HoldFields, NewHoldRule};
    let held = held("").await;
    let (queue, id) = (&held.world.queue, held.put_in_line(&["ann@ours.test"]).await);
    let fields = HoldFields { recipient_domain: "ours.test".parse().ok(), ..HoldFields::default() };
    let rule = NewHoldRule { fields, by: "root".into(), reason: String::new() };
    let (rule, counts) = queue.add_hold_rule(rule).await.unwrap();
    assert_eq!((counts.recipients, counts.running), (1, 0));
    drop(held.peer);
    until(async || queue.stats().running == 0 && queue.stats().in_line == 0).await;
    let seen = async || queue.show(id).await.unwrap().unwrap().recipients.remove(0);
    assert_eq!((seen().await.attempts, seen().await.in_line), (0, None));
    let at = "2031-01-01T00:00:00Z".parse().unwrap();
    let of = Filter { ids: vec![id], ..Filter::default() };
    queue.control(&of, &Action::Schedule { at }, false).await.unwrap();
    queue.remove_hold_rule(rule.number, false).await.unwrap();
    assert_eq!((seen().await.due, seen().await.attempts), (at, 0));
    queue.control(&of, &KICK, false).await.unwrap();
    assert_eq!(attempts(queue, id).await, [1]);
    held.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_scheduled_for_later_while_in_line_leaves_the_line() {
    let held = held("").await;
    let (queue, id) = (&held.world.queue, held.put_in_line(&["ann@ours.test"]).await);
    let at = "2031-01-01T00:00:00Z".parse().unwrap();
    let of = Filter { ids: vec![id], ..Filter::default() };
    queue.control(&of, &Action::Schedule { at }, false).await.unwrap();
    drop(held.peer);
    until(async || queue.stats().running == 0 && queue.stats().in_line == 0).await;
    let seen = queue.show(id).await.unwrap().unwrap().recipients.remove(0);
    assert_eq!((seen.due, seen.attempts), (at, 0));
    held.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_time_is_cut_off_and_tried_again_at_the_next_start() {
    let Held { world, holder, mut peer } = held("").await;
    world.queue.stop(Duration::from_millis(50)).await;
    // Nobody is there any more who would send the message, or not write down that it was taken.
    let mut seen = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut seen).await.unwrap();
    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts));
    let (parts, queue) = open(dir.path(), &config(1, "")).await;
    let shown = async || queue.show(holder).await.unwrap().unwrap().recipients.remove(0);
    until(async || shown().await.attempts == 2 && !shown().await.running).await;
    assert_eq!(shown().await.history[0].outcome, None, "the first came to no end that we know");
    World { dir, queue, parts }.stop().await;
}
