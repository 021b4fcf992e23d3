use super::*;

#[tokio::test]
async fn creating_makes_the_names_above() {
    let world = World::new().await;
    let made = world.store.create_mailbox(&ann(), "Lists/rust/users/").await.unwrap();
    assert_eq!((made.name.as_str(), made.has_children, made.subscribed), ("Lists/rust/users", false, false));
    assert!(world.store.mailbox(&ann(), "Lists").await.unwrap().has_children);
    assert!(world.store.mailbox(&ann(), "Lists/rust").await.unwrap().has_children);
    for there in ["Lists/rust/users", "Lists", "inbox"] {
        let again = world.store.create_mailbox(&ann(), there).await;
        assert!(matches!(again, Err(StoreError::AlreadyExists)), "{there}");
    }
    let archive = world.store.create_mailbox_for(&ann(), "Old", Some(SpecialUse::All)).await.unwrap();
    assert_eq!(archive.special_use, Some(SpecialUse::All));
}

#[tokio::test]
async fn a_deleted_mailbox_leaves_those_below_it() {
    let world = World::new().await;
    let (above, below) = (world.create("a").await, world.create("a/b").await);
    world.append(above, "A: 1\r\n\r\n").await;
    world.append(below, "A: 2\r\n\r\n").await;
    let mut watched = world.store.watch(above);
    world.store.delete_mailbox(&ann(), "a").await.unwrap();
    assert!(watched.changed().await.is_err(), "who watches it learns that it is gone");
    assert!(matches!(world.store.open_view(above).await, Err(StoreError::NotFound("mailbox"))));
    assert!(matches!(world.store.mailbox(&ann(), "a").await, Err(StoreError::NotFound("mailbox"))));
    assert_eq!(world.text(below, 1).await.unwrap(), "A: 2\r\n\r\n");
    world.settle(1).await;
    for (name, error) in [("a", "there is no such mailbox"), ("Inbox", "INBOX cannot be deleted")] {
        assert_eq!(world.store.delete_mailbox(&ann(), name).await.unwrap_err().to_string(), error);
    }
}

#[tokio::test]
async fn a_name_never_sees_a_uidvalidity_again() {
    let world = World::new().await;
    let mut seen = vec![world.store.create_mailbox(&ann(), "x").await.unwrap().uidvalidity];
    for _ in 0..3 {
        world.store.delete_mailbox(&ann(), "x").await.unwrap();
        seen.push(world.store.create_mailbox(&ann(), "x").await.unwrap().uidvalidity);
    }
    world.store.remove_account(&ann()).await.unwrap();
    seen.push(world.store.create_mailbox(&ann(), "x").await.unwrap().uidvalidity);
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
}

#[tokio::test]
async fn renaming_takes_along_what_is_below() {
    let world = World::new().await;
    let (a, b) = (world.create("a").await, world.create("a/b").await);
    world.create("ab").await;
    world.append(b, "A: 1\r\n\r\n").await;
    world.store.subscribe(&ann(), "a/b", true).await.unwrap();
    let before = world.store.mailbox(&ann(), "a/b").await.unwrap();
    world.store.rename_mailbox(&ann(), "a", "new/place").await.unwrap();
    let names: Vec<_> = world.names().await.into_iter().filter(|name| name.starts_with(['a', 'n'])).collect();
    assert_eq!(names, ["ab", "new", "new/place", "new/place/b"]);
    let after = world.store.mailbox(&ann(), "new/place/b").await.unwrap();
    assert_eq!((after.id, after.uidvalidity), (before.id, before.uidvalidity));
    assert_eq!(world.store.mailbox(&ann(), "new/place").await.unwrap().id, a);
    assert_eq!(world.text(b, 1).await.unwrap(), "A: 1\r\n\r\n");
    // Subscriptions belong to names (RFC 9051 §6.3.6 moves none).
    assert!(!after.subscribed);
    assert!(world.store.subscriptions(&ann()).await.unwrap().contains(&"a/b".to_owned()));
}

#[tokio::test]
async fn a_rename_that_cannot_be_done_changes_nothing() {
    let world = World::new().await;
    for name in ["a", "a/b", "a/c", "d/c"] {
        world.create(name).await;
    }
    world.store.delete_mailbox(&ann(), "d").await.unwrap();
    let before = world.names().await;
    for (from, to, error) in [
        ("a", "d", "a mailbox with that name is there already"),
        ("a", "Sent", "a mailbox with that name is there already"),
        ("a", "INBOX", "a mailbox with that name is there already"),
        ("a", "a/b/c", "a mailbox cannot be moved below itself"),
        ("none", "other", "there is no such mailbox"),
    ] {
        let failed = world.store.rename_mailbox(&ann(), from, to).await.unwrap_err();
        assert_eq!(failed.to_string(), error, "{from} -> {to}");
        assert_eq!(world.names().await, before);
    }
}

#[tokio::test]
async fn renaming_inbox_moves_its_messages_and_leaves_it_there() {
    let world = World::new().await;
    world.create("INBOX/kept").await;
    world.append(world.inbox, "A: 1\r\n\r\n").await;
    world.append(world.inbox, "A: 2\r\n\r\n").await;
    let mut watched = world.store.watch(world.inbox);
    world.store.rename_mailbox(&ann(), "inbox", "old/mail").await.unwrap();
    let old = world.store.mailbox(&ann(), "old/mail").await.unwrap();
    assert_eq!(world.text(old.id, 2).await.unwrap(), "A: 2\r\n\r\n");
    watched.changed().await.unwrap();
    let inbox = world.store.mailbox(&ann(), INBOX).await.unwrap();
    assert_eq!(inbox.id, world.inbox);
    let status = world.store.status(world.inbox).await.unwrap();
    assert_eq!((status.messages, status.uidnext), (0, 3));
    assert!(world.names().await.contains(&"INBOX/kept".to_owned()));
}

#[tokio::test]
async fn a_mailbox_that_takes_over_a_name_has_a_higher_uidvalidity_than_the_name_had() {
    let world = World::new().await;
    let first = world.store.create_mailbox(&ann(), "first").await.unwrap();
    let second = world.store.create_mailbox(&ann(), "second").await.unwrap();
    world.append(first.id, "A: 1\r\n\r\n").await;
    world.store.delete_mailbox(&ann(), "second").await.unwrap();
    world.store.rename_mailbox(&ann(), "first", "second").await.unwrap();
    let renamed = world.store.mailbox(&ann(), "second").await.unwrap();
    assert_eq!(renamed.id, first.id);
    assert!(first.uidvalidity < second.uidvalidity && second.uidvalidity < renamed.uidvalidity);
}

#[tokio::test]
async fn subscriptions_need_no_mailbox() {
    let world = World::new().await;
    world.store.subscribe(&ann(), "not/there", true).await.unwrap();
    world.store.subscribe(&ann(), "not/there", true).await.unwrap();
    world.store.subscribe(&ann(), "inbox", false).await.unwrap();
    let names = world.store.subscriptions(&ann()).await.unwrap();
    assert_eq!(names, ["Archive", "Drafts", "Junk", "Sent", "Trash", "not/there"]);
    assert!(!world.store.mailbox(&ann(), INBOX).await.unwrap().subscribed);
    world.create("not/there").await;
    assert!(world.store.mailbox(&ann(), "not/there").await.unwrap().subscribed);
}

#[tokio::test]
async fn who_watches_an_account_hears_of_its_mailboxes_only() {
    let world = World::new().await;
    let mut hers = world.store.watch_account(&ann());
    let his = world.store.watch_account(&bob());
    world.create("x").await;
    assert_eq!(*hers.borrow_and_update(), 1);
    world.store.rename_mailbox(&ann(), "x", "y").await.unwrap();
    world.store.delete_mailbox(&ann(), "y").await.unwrap();
    world.store.subscribe(&ann(), "y", true).await.unwrap();
    world.append(world.inbox, "A: 1\r\n\r\n").await;
    world.store.delete_mailbox(&ann(), "y").await.unwrap_err();
    assert_eq!(*hers.borrow_and_update(), 4);
    assert_eq!(*his.borrow(), 0);
}

#[tokio::test]
async fn an_account_has_so_many_mailboxes_and_subscriptions_and_no_more() {
    let world = World::new().await;
    let fill = |tx: &mut Tx<'_>| {
        let numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)";
        let id = crate::store::mailboxes::ensure_account(tx, &ann())?;
        for (limit, insert) in [
            (
                MAILBOXES_PER_ACCOUNT_MAX,
                "INSERT INTO mailbox (account, name, uidvalidity, created) SELECT ?2, 'm' || i, i, 0 FROM n",
            ),
            (
                SUBSCRIPTIONS_PER_ACCOUNT_MAX,
                "INSERT INTO subscription (account, name) SELECT ?2, 'm' || i FROM n",
            ),
        ] {
            // Six are there from the first day; one place stays free.
            tx.connection.execute(&format!("{numbers} {insert}"), rusqlite::params![limit - 7, id])?;
        }
        Ok(())
    };
    world.store.write(fill).await.unwrap();
    world.create("last").await;
    world.store.subscribe(&ann(), "last", true).await.unwrap();
    let limit = "an account has at most 10000 mailboxes";
    assert_eq!(world.store.create_mailbox(&ann(), "one-more").await.unwrap_err().to_string(), limit);
    assert_eq!(world.store.rename_mailbox(&ann(), "m1", "new/m1").await.unwrap_err().to_string(), limit);
    world.store.rename_mailbox(&ann(), "m1", "new").await.unwrap();
    let failed = world.store.subscribe(&ann(), "one-more", true).await.unwrap_err();
    assert_eq!(failed.to_string(), "an account subscribes to at most 20000 names");
}

#[tokio::test]
async fn of_a_large_mailbox_nothing_is_left_but_what_was_copied() {
    let world = World::new().await;
    let large = world.create("large").await;
    let mails = (0..300).map(|number| mail(&format!("A: {number}\r\n\r\n"))).collect();
    world.store.append(large, mails).await.unwrap();
    world.store.copy_messages(large, vec![17], world.inbox).await.unwrap();
    world.store.delete_mailbox(&ann(), "large").await.unwrap();
    world.settle(1).await;
    assert_eq!(world.text(world.inbox, 1).await.unwrap(), "A: 16\r\n\r\n");
}
