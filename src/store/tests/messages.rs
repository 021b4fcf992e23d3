use super::*;

#[tokio::test]
async fn a_message_is_appended_flagged_read_and_expunged() {
    let World { store, inbox, dir: _dir } = World::new().await;
    let mut changes = store.watch(inbox);
    let mails =
        vec![mail("Subject: a\r\n\r\nbody"), NewMail { flags: flags("\\Seen"), ..mail("X: y\r\n\r\n") }];
    let appended = store.append(inbox, mails).await.unwrap();
    assert_eq!(appended.uids, [1, 2]);
    assert_eq!(*changes.borrow_and_update(), 2);
    assert_eq!(store.content(inbox, 1).await.unwrap().unwrap(), "Subject: a\r\n\r\nbody");
    assert_eq!(store.header(inbox, 1).await.unwrap().unwrap(), "Subject: a\r\n\r\n");
    let status = store.status(inbox).await.unwrap();
    let expected = MailboxStatus {
        messages: 2,
        unseen: 1,
        deleted: 0,
        size: 26,
        uidnext: 3,
        uidvalidity: appended.uidvalidity,
        highest_modseq: 2,
    };
    assert_eq!(status, expected);
    let stored = store.store_flags(inbox, vec![1, 7], FlagOp::Add, flags("\\Deleted"), None).await.unwrap();
    assert_eq!(stored.changed.iter().map(|row| (row.uid, row.modseq)).collect::<Vec<_>>(), [(1, 3)]);
    assert_eq!(store.status(inbox).await.unwrap().deleted, 1);
    assert_eq!(store.expunge(inbox, None).await.unwrap(), [1]);
    assert_eq!((store.content(inbox, 1).await.unwrap(), store.header(inbox, 1).await.unwrap()), (None, None));
    let since = store.changes_since(inbox, 2).await.unwrap();
    assert_eq!((since.highest_modseq, since.changed.len(), since.expunged), (4, 0, vec![1]));
}

#[tokio::test]
async fn an_append_that_cannot_be_done_whole_is_not_done() {
    let world = World::with(StoreOptions { message_bytes_max: 100, ..StoreOptions::default() }).await;
    let many: Vec<_> = (0..=KEYWORDS_PER_MESSAGE_MAX).map(|number| format!("k{number}")).collect();
    let laden =
        NewMail { flags: Flags::parse(many.iter().map(String::as_str)).unwrap(), ..mail("B: 1\r\n\r\n") };
    for bad in [laden, mail(&"x".repeat(101))] {
        let failed = world.store.append(world.inbox, vec![mail("A: 1\r\n\r\n"), bad]).await;
        assert!(matches!(failed, Err(StoreError::Invalid(_))), "{failed:?}");
    }
    let status = world.store.status(world.inbox).await.unwrap();
    assert_eq!((status.messages, status.uidnext, status.highest_modseq), (0, 1, 1));
    assert_eq!((world.rows("content").await, world.rows("keyword").await), (0, 0));
}

#[tokio::test]
async fn flags_change_only_where_nobody_else_changed_the_message() {
    let World { store, inbox, dir: _dir } = World::new().await;
    store
        .append(inbox, vec![mail("A: 1\r\n\r\n"), mail("A: 2\r\n\r\n"), mail("A: 3\r\n\r\n")])
        .await
        .unwrap();
    let seen = store.store_flags(inbox, vec![2], FlagOp::Add, flags("\\Seen"), None).await.unwrap();
    assert_eq!(seen.changed[0].modseq, 3);
    // RFC 7162 §3.1.3: message 2 changed since 2.
    let result =
        store.store_flags(inbox, vec![3, 2, 1, 3], FlagOp::Add, flags("\\Flagged"), Some(2)).await.unwrap();
    assert_eq!(result.changed.iter().map(|row| row.uid).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(result.modified, [2]);
    // What changes nothing is no change.
    let result = store.store_flags(inbox, vec![1, 3], FlagOp::Add, flags("\\Flagged"), None).await.unwrap();
    assert_eq!(result, StoreResult::default());
    assert_eq!(store.status(inbox).await.unwrap().highest_modseq, 4);
}

#[tokio::test]
async fn keywords_are_spelt_as_the_mailbox_first_spelt_them() {
    let World { store, inbox, dir: _dir } = World::new().await;
    store
        .append(
            inbox,
            vec![NewMail { flags: flags("$Forwarded"), ..mail("A: 1\r\n\r\n") }, mail("A: 2\r\n\r\n")],
        )
        .await
        .unwrap();
    let stored =
        store.store_flags(inbox, vec![1, 2], FlagOp::Add, flags("$FORWARDED Work"), None).await.unwrap();
    let shown: Vec<_> = stored.changed.iter().map(|row| row.flags.to_string()).collect();
    assert_eq!(shown, ["$Forwarded Work", "$Forwarded Work"]);
    store.store_flags(inbox, vec![1, 2], FlagOp::Remove, flags("work $forwarded never"), None).await.unwrap();
    assert!(store.open_view(inbox).await.unwrap().messages.iter().all(|row| row.flags.is_empty()));
    let words: Vec<_> = store.keywords(inbox).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(words, ["$Forwarded", "Work"]);
}

#[tokio::test]
async fn a_mailbox_takes_so_many_keywords_and_no_more() {
    let World { store, inbox, dir: _dir } = World::new().await;
    store.append(inbox, vec![mail("A: 1\r\n\r\n")]).await.unwrap();
    let words: Vec<_> = (0..=KEYWORDS_PER_MAILBOX_MAX).map(|number| format!("k{number}")).collect();
    for some in words[..KEYWORDS_PER_MAILBOX_MAX].chunks(50) {
        let some = Flags::parse(some.iter().map(String::as_str)).unwrap();
        store.store_flags(inbox, vec![1], FlagOp::Replace, some, None).await.unwrap();
    }
    let one_more = flags(&words[KEYWORDS_PER_MAILBOX_MAX]);
    let failed = store.store_flags(inbox, vec![1], FlagOp::Replace, one_more, None).await.unwrap_err();
    assert_eq!(failed.to_string(), "a mailbox has at most 500 keywords");
    // One message has fewer, also when they come one by one.
    let full = Flags::parse(words[..KEYWORDS_PER_MESSAGE_MAX].iter().map(String::as_str)).unwrap();
    store.store_flags(inbox, vec![1], FlagOp::Replace, full, None).await.unwrap();
    let failed = store.store_flags(inbox, vec![1], FlagOp::Add, flags("k100"), None).await.unwrap_err();
    assert_eq!(failed.to_string(), "a message has at most 64 keywords");
}

#[tokio::test]
async fn copies_share_their_content_until_the_last_is_gone() {
    let world = World::with(StoreOptions { body_bytes_max_in_row: 10, ..StoreOptions::default() }).await;
    let store = &world.store;
    let other = world.create("other").await;
    let date = at(7);
    let large =
        NewMail { flags: flags("\\Seen x"), internal_date: date, ..mail("A: 1\r\n\r\na body in a file") };
    store.append(world.inbox, vec![large, mail("A: 2\r\n\r\nsmall")]).await.unwrap();
    let copied = store.copy_messages(world.inbox, vec![2, 1, 9, 1], other).await.unwrap();
    assert_eq!(copied.pairs, [(1, 1), (2, 2)]);
    let (from, to) = (store.open_view(world.inbox).await.unwrap(), store.open_view(other).await.unwrap());
    assert_eq!(from.messages[0].email, to.messages[0].email);
    assert_eq!((to.messages[0].flags.to_string().as_str(), to.messages[0].internal_date), ("\\Seen x", date));
    assert_eq!((world.rows("content").await, world.files()), (2, 1));
    store.store_flags(world.inbox, vec![1], FlagOp::Add, flags("\\Deleted"), None).await.unwrap();
    store.expunge(world.inbox, None).await.unwrap();
    world.settle(2).await;
    assert_eq!(world.text(other, 1).await.unwrap(), "A: 1\r\n\r\na body in a file");
    store.store_flags(other, vec![1], FlagOp::Add, flags("\\Deleted"), None).await.unwrap();
    store.expunge(other, None).await.unwrap();
    world.settle(1).await;
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn moved_messages_leave_their_uids_among_the_expunged() {
    let world = World::new().await;
    let other = world.create("other").await;
    let mails = vec![mail("A: 1\r\n\r\n"), mail("A: 2\r\n\r\n"), mail("A: 3\r\n\r\n")];
    world.store.append(world.inbox, mails).await.unwrap();
    let moved = world.store.move_messages(world.inbox, vec![1, 3], other).await.unwrap();
    assert_eq!(moved.pairs, [(1, 1), (3, 2)]);
    let changes = world.store.changes_since(world.inbox, 2).await.unwrap();
    assert_eq!((changes.changed, changes.expunged), (vec![], vec![1, 3]));
    assert_eq!(world.text(other, 2).await.unwrap(), "A: 3\r\n\r\n");
    // Within one mailbox: a new UID.
    let moved = world.store.move_messages(world.inbox, vec![2], world.inbox).await.unwrap();
    assert_eq!(moved.pairs, [(2, 4)]);
    let view = world.store.open_view(world.inbox).await.unwrap();
    assert_eq!(view.messages.iter().map(|row| row.uid).collect::<Vec<_>>(), [4]);
    world.settle(3).await;
}

#[tokio::test]
async fn only_deleted_messages_are_expunged() {
    let World { store, inbox, dir: _dir } = World::new().await;
    store.append(inbox, (1..=4).map(|number| mail(&format!("A: {number}\r\n\r\n"))).collect()).await.unwrap();
    store.store_flags(inbox, vec![1, 2, 3], FlagOp::Add, flags("\\Deleted"), None).await.unwrap();
    assert_eq!(store.expunge(inbox, Some(vec![4, 2, 9])).await.unwrap(), [2]);
    assert_eq!(store.expunge(inbox, None).await.unwrap(), [1, 3]);
    let before = store.status(inbox).await.unwrap();
    assert_eq!(store.expunge(inbox, None).await.unwrap(), [0; 0]);
    assert_eq!(store.status(inbox).await.unwrap(), before);
}

#[tokio::test]
async fn facts_worked_out_of_a_content_stay_with_it() {
    let world = World::new().await;
    let other = world.create("other").await;
    world.append(world.inbox, "A: 1\r\n\r\n").await;
    world.append(world.inbox, "A: 2\r\n\r\n").await;
    let facts = vec![(1, Bytes::from_static(b"one")), (9, Bytes::from_static(b"nobody"))];
    world.store.set_cached(world.inbox, facts).await.unwrap();
    world.store.set_cached(world.inbox, vec![(1, Bytes::from_static(b"uno"))]).await.unwrap();
    world.store.move_messages(world.inbox, vec![1], other).await.unwrap();
    assert_eq!(world.store.cached(world.inbox, vec![1, 2]).await.unwrap(), []);
    assert_eq!(world.store.cached(other, vec![1]).await.unwrap(), [(1, Bytes::from_static(b"uno"))]);
    world.store.delete_mailbox(&ann(), "other").await.unwrap();
    world.settle(1).await;
    assert_eq!(world.rows("content_cache").await, 0);
}

#[tokio::test]
async fn what_waits_in_a_mailbox_that_is_gone_is_not_found() {
    let World { store, inbox, dir: _dir } = World::new().await;
    store.append(inbox, vec![mail("A: 1\r\n\r\n")]).await.unwrap();
    let gone = store.create_mailbox(&ann(), "gone").await.unwrap().id;
    store.delete_mailbox(&ann(), "gone").await.unwrap();
    assert!(matches!(
        store.append(gone, vec![mail("A: 1\r\n\r\n")]).await,
        Err(StoreError::NotFound("mailbox"))
    ));
    assert!(matches!(store.copy_messages(inbox, vec![1], gone).await, Err(StoreError::NotFound("mailbox"))));
    assert!(matches!(store.copy_messages(gone, vec![1], inbox).await, Err(StoreError::NotFound("mailbox"))));
    assert!(matches!(store.expunge(gone, None).await, Err(StoreError::NotFound("mailbox"))));
    assert!(matches!(store.changes_since(gone, 0).await, Err(StoreError::NotFound("mailbox"))));
}
