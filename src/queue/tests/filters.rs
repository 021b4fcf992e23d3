//! What the index says of a filter and what the messages themselves say is the same, and what is counted is not read.

use super::*;
use crate::names::TransportName;
use crate::store::{HoldFields, NewHoldRule};

const OTHER: &str = "[transports.other]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = 1\n";
const TO_OTHER: &str = r#"fn route(d) { "other" }"#;

type Matches = fn(&ListedMessage, &ListedRecipient) -> bool;

/// Filters, and what they mean, said once more.
fn filters(ids: &[QueueId], long_ago: jiff::Timestamp) -> Vec<(Filter, Matches)> {
    let any = Filter::default;
    let domain = |text: &str| text.parse().ok();
    let path = |text: &str| ReversePath::try_from(text.to_owned()).ok();
    let other = TransportName::new("other").ok();
    vec![
        (any(), |_, _| true),
        (Filter { ids: vec![ids[3], ids[0], ids[3]], ..any() }, |m, _| m.size > 50),
        (Filter { account: Some(ann()), ..any() }, |m, _| m.account.is_some()),
        (Filter { sender: path(""), ..any() }, |m, _| m.sender == ReversePath::Null),
        (Filter { sender: path("x@else.test"), ..any() }, |m, _| m.sender.to_string() == "x@else.test"),
        (Filter { sender_domain: domain("else.test"), ..any() }, |m, _| {
            m.sender.mailbox().is_some_and(|sender| sender.domain.as_str() == "else.test")
        }),
        (Filter { recipient: Mailbox::parse("b@one.test").ok(), ..any() }, |_, r| {
            r.address.to_string() == "b@one.test"
        }),
        (Filter { recipient_domain: domain("one.test"), ..any() }, |_, r| {
            r.address.domain.as_str() == "one.test"
        }),
        (Filter { recipient_domain: domain("nowhere.test"), ..any() }, |_, _| false),
        (Filter { held: Some(true), ..any() }, |_, r| r.held || !r.held_by_rules.is_empty()),
        (Filter { held: Some(false), ..any() }, |_, r| !r.held && r.held_by_rules.is_empty()),
        (Filter { attempts_min: Some(1), ..any() }, |_, r| r.attempts >= 1),
        (Filter { attempts_max: Some(0), ..any() }, |_, r| r.attempts == 0),
        (Filter { received_until: Some(long_ago), ..any() }, |m, _| m.sender == ReversePath::Null),
        (Filter { transport: other.clone(), ..any() }, |_, r| r.attempts > 0),
        (Filter { error: Some("REFUSED".into()), ..any() }, |_, r| r.attempts > 0),
        (Filter { error: Some("refused".into()), recipient_domain: domain("one.test"), ..any() }, |_, r| {
            r.attempts > 0 && r.address.domain.as_str() == "one.test"
        }),
        (Filter { account: Some(ann()), held: Some(true), attempts_min: Some(1), ..any() }, |m, r| {
            m.account.is_some() && r.held && r.attempts > 0
        }),
    ]
}

fn rule(domain: &str) -> NewHoldRule {
    let fields = HoldFields { recipient_domain: domain.parse().ok(), ..HoldFields::default() };
    NewHoldRule { fields, by: "root".into(), reason: String::new() }
}

/// Five messages: of some recipients an attempt has failed, some are held by hand, some by a rule.
async fn filled(world: &World, long_ago: jiff::Timestamp) -> Vec<QueueId> {
    world.queue.add_hold_rule(rule("held.test")).await.unwrap();
    let mut ids = Vec::new();
    for (number, (sender, to)) in [
        ("ann@ours.test", &["a@one.test", "b@one.test", "c@two.test"][..]),
        ("x@else.test", &["a@one.test"]),
        ("", &["d@two.test", "e@held.test"]),
        ("y@else.test", &["b@one.test", "e@held.test"]),
        ("ann@ours.test", &["f@held.test"]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut new = message(sender, to);
        new.account = sender.starts_with("ann").then(ann);
        if sender.is_empty() {
            new.received = long_ago;
        }
        if [0, 3].contains(&number) {
            new.content =
                Bytes::from_static(b"Subject: longer than the others\r\n\r\nthis text is longer\r\n");
        } else {
            new.content = Bytes::from_static(b"Subject: x\r\n\r\nx\r\n");
        }
        ids.push(world.queue.accept(new).await.unwrap());
    }
    until(async || {
        let page = world.queue.list(&Filter::default(), None, 100).await.unwrap();
        let mut all = page.messages.iter().flat_map(|message| &message.recipients);
        all.all(|r| !r.running && (r.attempts == 1 || !r.held_by_rules.is_empty()))
    })
    .await;
    // What shares a message with held mail is tried all the same.
    world.queue.control(&of(ids[0]), &Action::Hold, false).await.unwrap();
    ids
}

fn of(id: QueueId) -> Filter {
    Filter { ids: vec![id], ..Filter::default() }
}

/// Holds every filter against what it means; the listing of everything is taken for the truth.
async fn check(queue: &Queue, filters: &[(Filter, Matches)], when: &str) {
    let all = queue.list(&Filter::default(), None, 100).await.unwrap().messages;
    assert_eq!(all.iter().map(|message| message.recipients.len()).sum::<usize>(), 9, "{when}");
    for (filter, matches) in filters {
        let mut expected = all.clone();
        for message in &mut expected {
            let whole = message.clone();
            message.recipients.retain(|recipient| matches(&whole, recipient));
        }
        expected.retain(|message| !message.recipients.is_empty());
        let listed = queue.list(filter, None, 100).await.unwrap();
        assert_eq!((listed.messages, listed.next), (expected.clone(), None), "{when}: {filter:?}");

        let (mut one_by_one, mut after) = (Vec::new(), None);
        loop {
            let page = queue.list(filter, after, 1).await.unwrap();
            assert!(page.messages.len() <= 1, "{when}: {filter:?}");
            one_by_one.extend(page.messages);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(one_by_one, expected, "{when}, page by page: {filter:?}");

        let recipients: Vec<_> = expected.iter().flat_map(|message| &message.recipients).collect();
        let by_rule = recipients.iter().filter(|r| !r.held_by_rules.is_empty()).count();
        let held = recipients.iter().filter(|r| r.held || !r.held_by_rules.is_empty()).count();
        let nothing_left_alone = Done { recipients: recipients.len(), ..Done::default() };
        for (action, still_held) in
            [(KICK, held), (Action::Release, by_rule), (Action::Hold, 0), (Action::Drop, 0)]
        {
            let counted = queue.control(filter, &action, true).await.unwrap();
            assert_eq!(counted, Done { still_held, ..nothing_left_alone }, "{when}: {action:?} {filter:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_and_the_messages_say_the_same_also_after_a_restart_and_of_old_records() {
    let mut world = world(OTHER, Some(TO_OTHER)).await;
    let long_ago = crate::clock::now() - Duration::from_hours(1);
    let ids = filled(&world, long_ago).await;
    let filters = filters(&ids, long_ago);
    check(&world.queue, &filters, "in the run that took them").await;

    world.stop().await;
    let World { dir, queue, parts } = world;
    drop((queue, parts));
    let (parts, queue) = open(dir.path(), OTHER).await;
    world = World { dir, queue, parts };
    check(&world.queue, &filters, "after a restart").await;

    {
        let mut due = world.queue.inner.due.lock();
        let known: Vec<_> = due.after(None).map(|(key, entry)| (*key, *entry)).collect();
        for (key, entry) in known {
            assert!(entry.labels.is_some(), "{key:?}");
            due.put(key, due::Entry { labels: None, ..entry });
        }
    }
    check(&world.queue, &filters, "without hashes, as of an early version").await;
    let fields = rule("two.test").fields;
    assert_eq!(world.queue.would_hold(&fields).await.unwrap().recipients, 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_is_not_read() {
    let world = world(OTHER, Some(TO_OTHER)).await;
    filled(&world, crate::clock::now()).await;
    // Each time one message more.
    for text in ["a@one.test", "a@one.test", "d@two.test", "y@else.test", "f@held.test"] {
        damage(&world, text.as_bytes());
    }
    let everything = Filter::default();
    assert_eq!(world.queue.list(&everything, None, 100).await.unwrap().messages, [], "none can be read");
    let counted = world.queue.control(&everything, &KICK, true).await.unwrap();
    assert_eq!((counted.recipients, counted.still_held), (9, 6));
    let two = rule("two.test");
    assert_eq!(world.queue.would_hold(&two.fields).await.unwrap().recipients, 2);
    let (added, held) = world.queue.add_hold_rule(two).await.unwrap();
    assert_eq!(held, Held { recipients: 2, otherwise: 1, running: 0 });
    let removed = world.queue.remove_hold_rule(added.number, false).await.unwrap().unwrap().1;
    assert_eq!(removed, held);
    world.stop().await;
}
