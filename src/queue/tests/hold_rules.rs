//! Mail that is held by what it is: what waits, what comes, what is on its way meanwhile.

use super::*;
use crate::store::{HoldFields, NewHoldRule};

fn rule(fields: HoldFields) -> NewHoldRule {
    NewHoldRule { fields, by: "root".into(), reason: "a test".into() }
}

fn to_domain(domain: &str) -> HoldFields {
    HoldFields { recipient_domain: domain.parse().ok(), ..HoldFields::default() }
}

async fn only(queue: &Queue, id: QueueId) -> ListedRecipient {
    let mut recipients = queue.show(id).await.unwrap().unwrap().recipients;
    assert_eq!(recipients.len(), 1);
    recipients.remove(0)
}

async fn attempted(queue: &Queue, id: QueueId, attempts: u32) {
    until(async || {
        let recipient = only(queue, id).await;
        recipient.attempts == attempts && !recipient.running
    })
    .await;
}

async fn restarted(world: World) -> World {
    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts));
    let (parts, queue) = open(dir.path(), "").await;
    World { dir, queue, parts }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_is_held_from_its_first_moment_until_the_rule_goes_also_after_a_restart() {
    let world = world("", None).await;
    let (added, held) = world.queue.add_hold_rule(rule(to_domain("ours.test"))).await.unwrap();
    assert_eq!((added.number, held), (1, Held::default()));
    let id = world.queue.accept(message("x@elsewhere.test", &["ann@ours.test"])).await.unwrap();
    let seen = only(&world.queue, id).await;
    assert_eq!(
        (seen.held_by_rules.as_slice(), seen.held, seen.in_line, seen.running, seen.attempts),
        ([1].as_slice(), false, None, false, 0)
    );
    let held = Filter { held: Some(true), ..Filter::default() };
    assert_eq!(world.queue.list(&held, None, 9).await.unwrap().messages.len(), 1);
    let released = world.queue.control(&held, &Action::Release, false).await.unwrap();
    assert_eq!((released.recipients, released.still_held), (1, 1), "by hand it is not released");

    let world = restarted(world).await;
    assert_eq!(world.queue.hold_rules(), [added]);
    world.queue.control(&Filter::default(), &KICK, false).await.unwrap();
    let seen = only(&world.queue, id).await;
    assert_eq!((seen.held_by_rules.as_slice(), seen.attempts), ([1].as_slice(), 0));
    assert_eq!(world.inbox().await, Vec::<String>::new());

    let (_, let_go) = world.queue.remove_hold_rule(1, false).await.unwrap().unwrap();
    assert_eq!(let_go, Held { recipients: 1, ..Held::default() });
    world.until_empty().await;
    assert_eq!(world.inbox().await.len(), 1);
    until(async || !world.queue.finished(id).await.unwrap().is_empty()).await;
    let attempts = &world.queue.finished(id).await.unwrap()[0].attempts;
    assert_eq!(attempts.iter().map(|a| a.number).collect::<Vec<_>>(), [1]);
    assert_eq!(world.queue.remove_hold_rule(1, false).await.unwrap(), None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_held_and_a_rule_lets_go_only_what_it_alone_holds() {
    let world = world("", None).await;
    let queue = &world.queue;
    let mut ids = Vec::new();
    for to in ["a@outside.test", "b@outside.test", "c@outside.test"] {
        let id = queue.accept(message("ann@ours.test", &[to])).await.unwrap();
        attempted(queue, id, 1).await;
        ids.push(id);
    }
    let by_hand = Filter { ids: vec![ids[1]], ..Filter::default() };
    queue.control(&by_hand, &Action::Hold, false).await.unwrap();
    let fields = to_domain("outside.test");
    let three = Held { recipients: 3, otherwise: 1, running: 0 };
    assert_eq!(queue.would_hold(&fields).await.unwrap(), three);
    assert_eq!(queue.add_hold_rule(rule(fields)).await.unwrap().1, three);
    let from_us = HoldFields { sender_domain: "ours.test".parse().ok(), ..to_domain("outside.test") };
    let (second, _) = queue.add_hold_rule(rule(from_us)).await.unwrap();
    queue.control(&Filter::default(), &KICK, false).await.unwrap();
    assert_eq!(only(queue, ids[0]).await.held_by_rules, [1, 2]);

    queue.remove_hold_rule(1, false).await.unwrap();
    // All would be due: whoever is taken out is held by the other rule.
    until(async || world.queue.inner.due.lock().get((ids[0], 0)).unwrap().rule == Some(2)).await;
    assert_eq!(only(queue, ids[0]).await.attempts, 1);
    let counted = queue.remove_hold_rule(second.number, true).await.unwrap().unwrap().1;
    assert_eq!(counted, Held { recipients: 3, otherwise: 1, running: 0 });
    assert_eq!(queue.hold_rules().len(), 1, "it was only counted");
    queue.remove_hold_rule(second.number, false).await.unwrap();
    attempted(queue, ids[0], 2).await;
    attempted(queue, ids[2], 2).await;
    let by_hand = only(queue, ids[1]).await;
    assert_eq!((by_hand.held, by_hand.attempts), (true, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_message_some_are_held_and_the_others_delivered() {
    let world = world("", None).await;
    world.queue.add_hold_rule(rule(to_domain("outside.test"))).await.unwrap();
    let both = message("x@elsewhere.test", &["user@outside.test", "ann@ours.test"]);
    let id = world.queue.accept(both).await.unwrap();
    until(async || world.inbox().await.len() == 1).await;
    until(async || world.queue.stats().recipients == 1).await;
    let held = only(&world.queue, id).await;
    assert_eq!((held.address.to_string().as_str(), held.attempts), ("user@outside.test", 0));
    world.stop().await;
}

/// The rule is added while mail streams in. When that returns, what was taken before is delivered or held.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_slips_by_while_a_rule_is_added() {
    let world = world("[queue]\nconcurrency = 4\n", None).await;
    let stream = |queue: Queue| async move {
        let mut ids = Vec::new();
        for _ in 0..60 {
            ids.push(queue.accept(message("x@elsewhere.test", &["ann@ours.test"])).await.unwrap());
        }
        ids
    };
    let streams: Vec<_> = (0..4).map(|_| tokio::spawn(stream(world.queue.clone()))).collect();
    until(async || !world.inbox().await.is_empty()).await;
    world.queue.add_hold_rule(rule(to_domain("ours.test"))).await.unwrap();
    // What is under way ends; nothing else begins.
    until(async || {
        let page = world.queue.list(&Filter::default(), None, 1_000).await.unwrap();
        page.messages.iter().all(|message| !message.recipients[0].running)
    })
    .await;
    let delivered = world.inbox().await.len();
    let mut taken = 0;
    for stream in streams {
        taken += stream.await.unwrap().len();
    }
    world.queue.control(&Filter::default(), &KICK, false).await.unwrap();
    let page = world.queue.list(&Filter::default(), None, 1_000).await.unwrap();
    assert!(page.messages.iter().all(|m| m.recipients[0].held_by_rules == [1] && !m.recipients[0].running));
    assert_eq!((world.inbox().await.len(), delivered + page.messages.len()), (delivered, taken));
    world.queue.remove_hold_rule(1, false).await.unwrap();
    world.until_empty().await;
    assert_eq!(world.inbox().await.len(), taken, "each once");
    world.stop().await;
}
