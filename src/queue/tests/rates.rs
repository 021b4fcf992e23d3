//! What a transport's rate holds back: it waits in line, as what it is, and other transports go on.
//!
//! Nobody listens where the transports go: an attempt that was refused has begun all the same.

use super::*;

/// Mail goes by the transport that its recipient's local part names.
const BY_LOCAL_PART: &str = "fn route(d) { d.recipient_local }";

fn transports(rate: &str) -> String {
    let to_nowhere = "kind = \"smtp\"\nhost = \"127.0.0.1\"\nport = 1";
    format!("[transports.slow]\n{to_nowhere}\n{rate}\n[transports.fast]\n{to_nowhere}\n")
}

async fn recipient(queue: &Queue, id: QueueId) -> ListedRecipient {
    queue.show(id).await.unwrap().unwrap().recipients.remove(0)
}

async fn until_tried(queue: &Queue, id: QueueId, attempts: usize) {
    until(async || {
        let recipient = recipient(queue, id).await;
        !recipient.running && recipient.history.len() == attempts
    })
    .await;
}

fn reload(world: &World, rate: &str) {
    let text = format!("{CONFIG}{}", transports(rate));
    world.parts.config.store(Arc::new(Config::parse(&text, Path::new("waypost.toml")).unwrap()));
    world.queue.routes_changed();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rate_holds_back_waits_without_an_attempt_and_holds_up_nobody() {
    let world = world(&transports("messages_per_minute = 2"), Some(BY_LOCAL_PART)).await;
    let queue = &world.queue;
    let send = async |to: &str| queue.accept(message("ann@ours.test", &[to])).await.unwrap();
    for _ in 0..2 {
        until_tried(queue, send("slow@outside.test").await, 1).await;
    }
    let waiting = [send("slow@outside.test").await, send("slow@elsewhere.test").await];
    for id in waiting {
        until(async || recipient(queue, id).await.in_line.is_some()).await;
        let shown = recipient(queue, id).await;
        assert_eq!(shown.in_line, Some(InLine { transport: "slow".into(), rate: true }));
        assert_eq!((shown.attempts, shown.history.len(), shown.problem), (0, 0, None));
    }
    until_tried(queue, send("fast@outside.test").await, 1).await;

    reload(&world, "messages_per_minute = 2\nkeep_idle = \"7s\"");
    until(async || queue.stats().in_line == 2).await;
    assert_eq!(
        recipient(queue, waiting[0]).await.history.len(),
        0,
        "the same rate still knows what was sent"
    );
    reload(&world, "messages_per_minute = 100");
    for id in waiting {
        until_tried(queue, id, 1).await;
        assert_eq!(recipient(queue, id).await.attempts, 1);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_goes_when_the_rate_allows_it() {
    let world = world(&transports("messages_per_second = 2"), Some(BY_LOCAL_PART)).await;
    let start = std::time::Instant::now();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.queue.accept(message("ann@ours.test", &["slow@outside.test"])).await.unwrap());
    }
    for id in ids {
        until_tried(&world.queue, id, 1).await;
    }
    assert!(start.elapsed() >= Duration::from_secs(2), "faster than the rate: {:?}", start.elapsed());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_several_recipients_counts_once_and_a_stop_does_not_wait_for_the_rate() {
    let world = world(&transports("messages_per_minute = 1"), Some("fn route(d) { \"slow\" }")).await;
    let to = ["a@outside.test", "b@outside.test", "c@elsewhere.test"];
    let first = world.queue.accept(message("ann@ours.test", &to)).await.unwrap();
    until(async || {
        let shown = world.queue.show(first).await.unwrap().unwrap();
        shown.recipients.iter().all(|recipient| recipient.history.len() == 1 && !recipient.running)
    })
    .await;
    let second = world.queue.accept(message("ann@ours.test", &to)).await.unwrap();
    until(async || world.queue.stats().in_line == 1).await;
    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts));
    let (parts, queue) = open(dir.path(), &transports("")).await;
    until_tried(&queue, second, 1).await;
    assert_eq!(recipient(&queue, second).await.attempts, 1, "it was the first");
    World { dir, queue, parts }.stop().await;
}
