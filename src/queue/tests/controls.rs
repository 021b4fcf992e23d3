//! What operators do to what waits.

use super::*;
use crate::names::TransportName;
use crate::store::{HoldFields, NewHoldRule};

/// Waits long after its first attempt, which fails.
const WAITS: &str = "[transports.other]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = 1\n";

async fn waiting(world: &World, to: &str) -> QueueId {
    let id = world.queue.accept(message("ann@ours.test", &[to])).await.unwrap();
    until(async || {
        let recipient = world.queue.show(id).await.unwrap().unwrap().recipients.remove(0);
        recipient.attempts == 1 && !recipient.running
    })
    .await;
    id
}

async fn recipient(queue: &Queue, id: QueueId) -> ListedRecipient {
    queue.show(id).await.unwrap().unwrap().recipients.remove(0)
}

fn of(id: QueueId) -> Filter {
    Filter { ids: vec![id], ..Filter::default() }
}

async fn restarted(world: World, more: &str) -> World {
    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts));
    let (parts, queue) = open(dir.path(), more).await;
    World { dir, queue, parts }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_changes_nothing() {
    let world = world(WAITS, None).await;
    let id = waiting(&world, "user@outside.test").await;
    let before = world.queue.show(id).await.unwrap();
    let at = crate::clock::now();
    for action in [
        KICK,
        Action::Hold,
        Action::Release,
        Action::Transport { name: None },
        Action::Schedule { at },
        Action::Fail { reason: "no".into() },
        Action::Drop,
    ] {
        let done = world.queue.control(&of(id), &action, true).await.unwrap();
        assert_eq!(done, Done { recipients: 1, ..Done::default() }, "{action:?}");
    }
    assert_eq!(world.queue.show(id).await.unwrap(), before);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_not_tried_until_released_also_after_a_restart() {
    let world = world(WAITS, None).await;
    let id = waiting(&world, "user@outside.test").await;
    world.queue.control(&of(id), &Action::Hold, false).await.unwrap();
    world.queue.control(&of(id), &KICK, false).await.unwrap();
    let world = restarted(world, WAITS).await;
    let held = recipient(&world.queue, id).await;
    assert_eq!((held.held, held.attempts, held.running), (true, 1, false));
    world.queue.control(&of(id), &Action::Release, false).await.unwrap();
    until(async || recipient(&world.queue, id).await.attempts == 2).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_is_set_beats_the_scripts_until_it_is_cleared() {
    let world = world(WAITS, Some("fn route(d) { \"direct\" }")).await;
    let id = waiting(&world, "user@outside.test").await;
    let over = async |attempt: u32| {
        until(async || {
            let recipient = recipient(&world.queue, id).await;
            recipient.attempts == attempt && !recipient.running
        })
        .await;
        recipient(&world.queue, id).await.history.last().unwrap().decision.clone().unwrap()
    };
    let other = TransportName::new("other").unwrap();
    let kick = Action::Kick { transport: Some(other.clone()) };
    world.queue.control(&of(id), &kick, false).await.unwrap();
    let second = over(2).await;
    assert_eq!((second.transport, second.level), (other.clone(), crate::attempt::Level::Override));
    world.queue.control(&of(id), &KICK, false).await.unwrap();
    assert_eq!(over(3).await.transport, other, "still set");
    let by_transport = Filter { transport: Some(other), ..Filter::default() };
    let cleared = world.queue.control(&by_transport, &Action::Transport { name: None }, false).await.unwrap();
    assert_eq!(cleared.recipients, 1);
    world.queue.control(&of(id), &KICK, false).await.unwrap();
    assert_eq!(over(4).await.transport.as_str(), "direct");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_made_when_it_is_scheduled() {
    let world = world(WAITS, None).await;
    let id = waiting(&world, "user@outside.test").await;
    let at = "2031-01-01T00:00:00Z".parse().unwrap();
    world.queue.control(&of(id), &Action::Schedule { at }, false).await.unwrap();
    let world = restarted(world, WAITS).await;
    assert_eq!(recipient(&world.queue, id).await.due, at);
    let now = Action::Schedule { at: crate::clock::now() };
    world.queue.control(&of(id), &now, false).await.unwrap();
    until(async || recipient(&world.queue, id).await.attempts == 2).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_given_up_comes_back_with_the_reason_and_who_is_dropped_does_not() {
    let world = world(WAITS, None).await;
    let (failed, dropped) =
        (waiting(&world, "a@outside.test").await, waiting(&world, "b@outside.test").await);
    assert!(world.queue.dump(failed).await.unwrap().unwrap().ends_with(b"\r\n\r\nbody\r\n"));
    let action = Action::Fail { reason: "the account was closed".into() };
    assert_eq!(world.queue.control(&of(failed), &action, false).await.unwrap().recipients, 1);
    assert_eq!(world.queue.control(&of(dropped), &Action::Drop, false).await.unwrap().recipients, 1);
    world.until_empty().await;
    until(async || !world.inbox().await.is_empty()).await;
    let inbox = world.inbox().await;
    assert_eq!(inbox.len(), 1, "nobody hears of what was dropped");
    for part in
        ["Final-Recipient: rfc822; a@outside.test", "Status: 5.3.0", "the account was closed", "Before that:"]
    {
        assert!(inbox[0].contains(part), "{part} in {}", inbox[0]);
    }
    let state = async |id| {
        until(async || !world.queue.finished(id).await.unwrap().is_empty()).await;
        world.queue.finished(id).await.unwrap()[0].state
    };
    assert_eq!(state(failed).await, crate::store::FinalState::Failed);
    assert_eq!(state(dropped).await, crate::store::FinalState::Removed);
    let world = restarted(world, WAITS).await;
    assert_eq!(world.queue.stats().recipients, 0, "they do not come back");
    assert_eq!(world.queue.dump(failed).await.unwrap(), None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_by_age_error_and_hold() {
    let world = world(WAITS, None).await;
    let id = waiting(&world, "user@outside.test").await;
    waiting(&world, "other@outside.test").await;
    world.queue.control(&of(id), &Action::Hold, false).await.unwrap();
    let ago = |seconds| crate::clock::now().checked_sub(Duration::from_secs(seconds)).ok();
    for (filter, count) in [
        (Filter { held: Some(true), ..Filter::default() }, 1),
        (Filter { received_until: ago(0), ..Filter::default() }, 2),
        (Filter { received_until: ago(3600), ..Filter::default() }, 0),
        (Filter { error: Some("REFUSED".into()), ..Filter::default() }, 2),
        (Filter { error: Some("greylisted".into()), ..Filter::default() }, 0),
        (Filter { transport: TransportName::new("direct").ok(), ..Filter::default() }, 2),
        (Filter { transport: TransportName::new("other").ok(), ..Filter::default() }, 0),
    ] {
        let done = world.queue.control(&filter, &KICK, true).await.unwrap();
        assert_eq!(done.recipients, count, "{filter:?}");
    }
    world.stop().await;
}

/// More than a page: the reports of the first page wait when the next one is looked for.
#[tokio::test(flavor = "multi_thread")]
async fn who_gives_everything_up_does_not_give_up_the_reports_of_it() {
    const MESSAGES: usize = 300;
    let world = world("", None).await;
    let rule = NewHoldRule { fields: HoldFields::default(), by: "root".into(), reason: String::new() };
    world.queue.add_hold_rule(rule).await.unwrap();
    for _ in 0..MESSAGES {
        world.queue.accept(message("ann@ours.test", &["user@outside.test"])).await.unwrap();
    }
    let fail = Action::Fail { reason: "no".into() };
    let done = world.queue.control(&Filter::default(), &fail, false).await.unwrap();
    assert_eq!(done, Done { recipients: MESSAGES, ..Done::default() });
    let reports = Filter { sender: Some(ReversePath::Null), ..Filter::default() };
    assert_eq!(world.queue.control(&reports, &KICK, true).await.unwrap().recipients, MESSAGES);
    world.stop().await;
}
