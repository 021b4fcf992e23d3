use super::*;
use crate::address::Mailbox;
use crate::attempt::{Attempt, Decision, Level};
use crate::envelope::ReversePath;
use crate::names::TransportName;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};

const MESSAGE: &str = "Subject: hello\r\n\r\nbody";

async fn deliver(store: &Store, id: u64, recipient: u32, received: Timestamp) -> Delivered {
    store
        .deliver(&bob(), INBOX, (QueueId(id), recipient), Bytes::from_static(MESSAGE.as_bytes()), received)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_recipient_is_delivered_once_also_after_a_crash() {
    let world = World::new().await;
    // The account was never seen before: it is made.
    let first = deliver(&world.store, 1, 0, at(0)).await;
    assert!(!first.duplicate);
    assert_eq!(deliver(&world.store, 1, 0, at(0)).await, Delivered { duplicate: true, ..first });
    assert!(!deliver(&world.store, 1, 1, at(0)).await.duplicate);
    let image = world.crash_image();
    let store = Store::open(image.path()).unwrap();
    assert_eq!(deliver(&store, 1, 0, at(0)).await, Delivered { duplicate: true, ..first });
    assert!(deliver(&store, 1, 1, at(0)).await.duplicate);
    let view = store.open_view(first.mailbox).await.unwrap();
    assert_eq!(
        view.messages.iter().map(|row| (row.uid, row.internal_date)).collect::<Vec<_>>(),
        [(1, at(0)), (2, at(0))]
    );
    assert_eq!(store.content(first.mailbox, 1).await.unwrap().unwrap(), MESSAGE);
}

#[tokio::test]
async fn a_queue_begun_anew_gives_its_numbers_again_and_loses_no_mail() {
    let world = World::new().await;
    deliver(&world.store, 1, 0, at(0)).await;
    assert_eq!(deliver(&world.store, 1, 0, at(60)).await.uid, 2);
}

#[tokio::test]
async fn keys_are_forgotten_when_told() {
    let world = World::new().await;
    deliver(&world.store, 1, 0, at(0)).await;
    let now = crate::clock::now();
    assert_eq!(world.store.prune_delivered(now - Duration::from_mins(1)).await.unwrap(), 0);
    assert!(deliver(&world.store, 1, 0, at(0)).await.duplicate);
    assert_eq!(world.store.prune_delivered(now + Duration::from_mins(1)).await.unwrap(), 1);
    assert!(!deliver(&world.store, 1, 0, at(0)).await.duplicate);
}

#[tokio::test]
async fn delivery_wakes_who_watches() {
    let world = World::new().await;
    let first = deliver(&world.store, 1, 0, at(0)).await;
    let mut watched = world.store.watch(first.mailbox);
    let waiting = tokio::spawn(async move {
        watched.changed().await.unwrap();
        *watched.borrow()
    });
    deliver(&world.store, 2, 0, at(0)).await;
    assert_eq!(waiting.await.unwrap(), 3);
}

#[tokio::test]
async fn delivery_into_a_mailbox_that_is_not_there_fails() {
    let world = World::new().await;
    let content = Bytes::from_static(MESSAGE.as_bytes());
    let failed = world.store.deliver(&ann(), "none", (QueueId(1), 0), content.clone(), at(0)).await;
    assert!(matches!(failed, Err(StoreError::NotFound("mailbox"))));
    assert!(!world.store.deliver(&ann(), "Junk", (QueueId(1), 0), content, at(0)).await.unwrap().duplicate);
}

fn finished(id: u64, recipient: &str, seconds: i64) -> FinishedRecipient {
    let decision = Decision::without_script(Level::Default, TransportName::direct());
    let outcome = Outcome::ours(Verdict::Permanent, Stage::Dns, EnhancedCode::new(5, 1, 2), "no such domain");
    let attempt = Attempt {
        number: 1,
        at: at(seconds),
        decision: Some(decision),
        outcome: Some(outcome),
        ended: Some(at(seconds)),
    };
    FinishedRecipient {
        id: QueueId(id),
        index: 0,
        account: Some(ann()),
        sender: ReversePath::Null,
        recipient: Mailbox::parse(recipient).unwrap(),
        size: 4_096,
        received: at(0),
        finished: at(seconds),
        state: FinalState::Failed,
        attempts: vec![attempt],
        kept: None,
    }
}

async fn found(store: &Store, filter: HistoryFilter) -> Vec<u64> {
    store.history(filter, None, 100).await.unwrap().recipients.iter().map(|one| one.id.0).collect()
}

#[tokio::test]
async fn finished_recipients_are_kept_with_their_attempts() {
    let World { store, dir: _dir, .. } = World::new().await;
    let one = finished(1, "x@example.net", 10);
    store.record_history(vec![one.clone()]).await.unwrap();
    // A queue that repeats itself after a crash changes nothing.
    store.record_history(vec![FinishedRecipient { finished: at(99), ..one.clone() }]).await.unwrap();
    let page = store.history(HistoryFilter::default(), None, 10).await.unwrap();
    assert_eq!(page, HistoryPage { recipients: vec![one], next: None });
}

#[tokio::test]
async fn history_is_filtered() {
    let World { store, dir: _dir, .. } = World::new().await;
    let sender = ReversePath::Mailbox(Mailbox::parse("s@example.org").unwrap());
    let all = vec![
        finished(1, "x@example.net", 10),
        FinishedRecipient { account: None, ..finished(2, "y@example.net", 20) },
        FinishedRecipient { state: FinalState::Delivered, ..finished(3, "x@example.net", 30) },
        FinishedRecipient { sender: sender.clone(), ..finished(4, "y@example.net", 40) },
    ];
    store.record_history(all).await.unwrap();
    let none = HistoryFilter::default();
    let x = Mailbox::parse("x@example.net").ok();
    for (filter, ids) in [
        (none.clone(), vec![4, 3, 2, 1]),
        (HistoryFilter { id: Some(QueueId(2)), ..none.clone() }, vec![2]),
        (HistoryFilter { account: Some(ann()), ..none.clone() }, vec![4, 3, 1]),
        (HistoryFilter { sender: Some(sender), ..none.clone() }, vec![4]),
        (HistoryFilter { sender: Some(ReversePath::Null), ..none.clone() }, vec![3, 2, 1]),
        (HistoryFilter { recipient: x.clone(), ..none.clone() }, vec![3, 1]),
        (HistoryFilter { recipient: x, state: Some(FinalState::Failed), ..none.clone() }, vec![1]),
        (HistoryFilter { since: Some(at(20)), until: Some(at(40)), ..none.clone() }, vec![3, 2]),
        (HistoryFilter { account: Some(bob()), ..none }, vec![]),
    ] {
        assert_eq!(found(&store, filter.clone()).await, ids, "{filter:?}");
    }
}

#[tokio::test]
async fn history_comes_in_pages_that_neither_repeat_nor_leave_out() {
    let World { store, dir: _dir, .. } = World::new().await;
    // Several were done at the same time.
    store
        .record_history((1..=10).map(|id| finished(id, "x@example.net", id as i64 / 4)).collect())
        .await
        .unwrap();
    let (mut ids, mut next, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.history(HistoryFilter::default(), next, 3).await.unwrap();
        ids.extend(page.recipients.iter().map(|one| one.id.0));
        next = page.next;
        pages += 1;
        if next.is_none() {
            break;
        }
    }
    assert_eq!((ids, pages), ((1..=10).rev().collect::<Vec<_>>(), 4));
}

#[tokio::test]
async fn old_history_is_removed() {
    let World { store, dir: _dir, .. } = World::new().await;
    store
        .record_history((1..=2_500).map(|id| finished(id, "x@example.net", id as i64)).collect())
        .await
        .unwrap();
    assert_eq!(store.prune_history(at(2_499)).await.unwrap(), 2_498);
    assert_eq!(found(&store, HistoryFilter::default()).await, [2_500, 2_499]);
}
