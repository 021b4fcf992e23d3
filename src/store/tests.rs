use super::*;

fn account() -> AccountName {
    AccountName::new("ann").unwrap()
}

fn mail(text: &str) -> NewMail {
    NewMail {
        content: Bytes::from(text.to_owned()),
        flags: Flags::new(),
        internal_date: Timestamp::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn a_message_is_appended_flagged_read_and_expunged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.ensure_account(&account()).await.unwrap();
    let inbox = store.mailbox(&account(), "inbox").await.unwrap();
    let mut changes = store.watch(inbox.id);
    let appended =
        store.append(inbox.id, vec![mail("Subject: a\r\n\r\nbody"), mail("X: y\r\n\r\n")]).await.unwrap();
    assert_eq!(appended, Appended { uidvalidity: inbox.uidvalidity, uids: vec![1, 2] });
    assert_eq!(*changes.borrow_and_update(), 2);
    assert_eq!(store.content(inbox.id, 1).await.unwrap().unwrap(), "Subject: a\r\n\r\nbody");
    assert_eq!(store.header(inbox.id, 1).await.unwrap().unwrap(), "Subject: a\r\n\r\n");
    let deleted: Flags = "\\Deleted".parse().unwrap();
    let stored = store.store_flags(inbox.id, vec![1, 7], FlagOp::Add, deleted, None).await.unwrap();
    assert_eq!(stored.changed.iter().map(|row| (row.uid, row.modseq)).collect::<Vec<_>>(), [(1, 3)]);
    assert_eq!(store.expunge(inbox.id, None).await.unwrap(), [1]);
    assert_eq!(store.content(inbox.id, 1).await.unwrap(), None);
    let since = store.changes_since(inbox.id, 2).await.unwrap();
    assert_eq!((since.changed.len(), since.expunged), (0, vec![1]));
    store.close().await;
    assert!(matches!(store.status(inbox.id).await, Err(StoreError::Closed)));
}
