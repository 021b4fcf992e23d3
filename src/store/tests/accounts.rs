use super::*;
use crate::sasl::{CramState, Hash, KeyKind, Keys, StoredKeys};

/// The keys of SCRAM of an account or of who is none.
async fn scram(store: &Store, account: Option<AccountName>, user: &str, kind: KeyKind) -> StoredKeys {
    match store.keys(account.as_ref(), user, kind).await.unwrap() {
        Keys::Scram(keys) => keys,
        other @ Keys::CramMd5(_) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_account_has_mailboxes_from_its_first_day() {
    let world = World::new().await;
    let mailboxes = world.store.mailboxes(&ann()).await.unwrap();
    let shown: Vec<_> = mailboxes.iter().map(|m| (m.name.as_str(), m.special_use, m.subscribed)).collect();
    assert_eq!(
        shown,
        [
            ("Archive", Some(SpecialUse::Archive), true),
            ("Drafts", Some(SpecialUse::Drafts), true),
            ("INBOX", None, true),
            ("Junk", Some(SpecialUse::Junk), true),
            ("Sent", Some(SpecialUse::Sent), true),
            ("Trash", Some(SpecialUse::Trash), true),
        ]
    );
    // What the user removed does not come back.
    world.store.delete_mailbox(&ann(), "Junk").await.unwrap();
    world.store.ensure_account(&ann()).await.unwrap();
    assert_eq!(world.names().await.len(), 5);
}

#[tokio::test]
async fn a_password_opens_one_account_until_it_is_changed() {
    let World { store, dir: _dir, .. } = World::new().await;
    assert!(!store.has_password(&ann()).await.unwrap());
    assert!(!store.check_password(&ann(), "").await.unwrap());
    store.set_password(&ann(), "first").await.unwrap();
    store.set_password(&bob(), "other").await.unwrap();
    assert!(store.has_password(&ann()).await.unwrap());
    // The second time is remembered.
    assert!(store.check_password(&ann(), "first").await.unwrap());
    assert!(store.check_password(&ann(), "first").await.unwrap());
    for wrong in ["other", "First", "first ", ""] {
        assert!(!store.check_password(&ann(), wrong).await.unwrap(), "{wrong:?}");
    }
    store.set_password(&ann(), "second").await.unwrap();
    assert!(!store.check_password(&ann(), "first").await.unwrap());
    assert!(store.check_password(&ann(), "second").await.unwrap());
    assert_eq!(store.accounts().await.unwrap(), [(ann(), true), (bob(), true)]);
}

#[tokio::test]
async fn a_removed_account_leaves_nothing() {
    let world = World::with(StoreOptions { body_bytes_max_in_row: 10, ..StoreOptions::default() }).await;
    let store = &world.store;
    store.set_password(&ann(), "secret").await.unwrap();
    store.ensure_account(&bob()).await.unwrap();
    let hers = store.mailbox(&bob(), INBOX).await.unwrap();
    world.append(hers.id, "A: 1\r\n\r\nstays").await;
    world.append(world.inbox, "A: 1\r\n\r\nshort").await;
    world.append(world.inbox, "A: 1\r\n\r\na body in a file").await;
    assert!(store.check_password(&ann(), "secret").await.unwrap());
    assert!(store.remove_account(&ann()).await.unwrap());
    assert!(!store.remove_account(&ann()).await.unwrap());
    assert!(!store.check_password(&ann(), "secret").await.unwrap());
    assert!(matches!(store.status(world.inbox).await, Err(StoreError::NotFound("mailbox"))));
    assert_eq!(store.accounts().await.unwrap(), [(bob(), false)]);
    world.settle(1).await;
    assert_eq!((world.files(), world.rows("message").await, world.rows("credential").await), (0, 1, 0));
    assert_eq!(world.text(hers.id, 1).await.unwrap(), "A: 1\r\n\r\nstays");
}

#[tokio::test]
async fn an_account_that_nobody_knows_has_nothing() {
    let World { store, dir: _dir, .. } = World::new().await;
    assert_eq!(store.mailboxes(&bob()).await.unwrap(), []);
    assert_eq!(store.subscriptions(&bob()).await.unwrap(), [""; 0]);
    assert!(!store.check_password(&bob(), "secret").await.unwrap());
    assert!(matches!(store.mailbox(&bob(), INBOX).await, Err(StoreError::NotFound("account"))));
    assert!(matches!(store.delete_mailbox(&bob(), "Sent").await, Err(StoreError::NotFound("account"))));
}

#[tokio::test]
async fn scram_keys_follow_the_password_and_names_without_account_look_the_same() {
    let World { store, dir: _dir, .. } = World::new().await;
    let keys = async |account: Option<AccountName>, user: &'static str| {
        scram(&store, account, user, KeyKind::ScramSha256).await
    };
    let fits = |keys: &StoredKeys, password: &str| {
        let iterations = std::num::NonZeroU32::new(keys.iterations).unwrap();
        StoredKeys::derive(keys.hash, password, keys.salt.clone(), iterations) == *keys
    };
    store.set_password(&ann(), "first").await.unwrap();
    let first = keys(Some(ann()), "ann").await;
    assert!(fits(&first, "first"));
    store.set_password(&ann(), "second").await.unwrap();
    let second = keys(Some(ann()), "ann").await;
    assert!(fits(&second, "second") && first.salt != second.salt);

    let nobody = keys(None, "nobody").await;
    assert_eq!(nobody, keys(None, "Nobody").await);
    assert_ne!(nobody.salt, keys(None, "somebody").await.salt);
    assert_eq!((nobody.salt.len(), nobody.iterations), (second.salt.len(), second.iterations));
    // An account without keys, too; by whatever name it is asked for.
    let bare = keys(Some(bob()), "bob").await;
    assert_eq!(bare, keys(Some(bob()), "bob@example.org").await);
}

#[tokio::test]
async fn an_account_of_an_older_version_gets_its_keys_at_the_next_login() {
    let World { store, dir: _dir, .. } = World::new().await;
    store.set_password(&ann(), "secret").await.unwrap();
    let made = scram(&store, Some(ann()), "ann", KeyKind::ScramSha1).await;
    let old = store.write(|tx| {
        tx.connection.execute("DELETE FROM credential WHERE kind LIKE 'scram-%'", [])?;
        Ok(())
    });
    old.await.unwrap();
    let stand_in = scram(&store, Some(ann()), "ann", KeyKind::ScramSha1).await;
    assert!(!store.check_password(&ann(), "wrong").await.unwrap());
    assert_eq!(scram(&store, Some(ann()), "ann", KeyKind::ScramSha1).await, stand_in);
    assert!(store.check_password(&ann(), "secret").await.unwrap());
    let again = scram(&store, Some(ann()), "ann", KeyKind::ScramSha1).await;
    assert!(again != made && again != stand_in);
    let iterations = std::num::NonZeroU32::new(again.iterations).unwrap();
    assert_eq!(again, StoredKeys::derive(Hash::Sha1, "secret", again.salt.clone(), iterations));
}

#[tokio::test]
async fn a_password_is_the_same_on_every_keyboard() {
    let World { store, dir: _dir, .. } = World::new().await;
    // Composed and decomposed; a no-break space.
    store.set_password(&ann(), "caf\u{e9} noir").await.unwrap();
    assert!(store.check_password(&ann(), "cafe\u{301}\u{a0}noir").await.unwrap());
    assert!(!store.check_password(&ann(), "cafe noir").await.unwrap());
}

/// What CRAM-MD5 would check `ann` against.
async fn cram(store: &Store, account: Option<AccountName>) -> Vec<u8> {
    match store.keys(account.as_ref(), "ann", KeyKind::CramMd5).await.unwrap() {
        Keys::CramMd5(state) => state.to_bytes(),
        other @ Keys::Scram(_) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_state_of_cram_md5_is_kept_only_while_the_operator_wants_it() {
    let World { store, dir: _dir, .. } = World::new().await;
    let scram_only = [KeyKind::ScramSha256, KeyKind::ScramSha1];
    let right = CramState::derive("secret").to_bytes();
    store.set_password(&ann(), "secret").await.unwrap();
    assert!(store.check_password(&ann(), "secret").await.unwrap());
    assert_eq!(store.key_kinds(&ann()).await.unwrap(), scram_only);
    // Without a state there is one that no password fits, always the same, for an account and for nobody.
    let stand_in = cram(&store, Some(ann())).await;
    assert_ne!(stand_in, right);
    assert_eq!(
        (cram(&store, Some(ann())).await, cram(&store, None).await),
        (stand_in.clone(), stand_in.clone())
    );

    // Once it is wanted, the next right password brings it; a wrong one does not. The other keys stay as they are.
    let before = scram(&store, Some(ann()), "ann", KeyKind::ScramSha256).await;
    store.keep_cram_md5(true);
    assert!(!store.check_password(&ann(), "wrong").await.unwrap());
    assert_eq!(cram(&store, Some(ann())).await, stand_in);
    assert!(store.check_password(&ann(), "secret").await.unwrap());
    assert_eq!(cram(&store, Some(ann())).await, right);
    assert_eq!(scram(&store, Some(ann()), "ann", KeyKind::ScramSha256).await, before);

    // Set while it is wanted, it is there at once; the older one is gone.
    store.set_password(&ann(), "cafe\u{301}").await.unwrap();
    assert_eq!(cram(&store, Some(ann())).await, CramState::derive("caf\u{e9}").to_bytes());

    // No longer wanted: it goes when the password is set, and at once when the server says so.
    store.set_password(&bob(), "secret").await.unwrap();
    store.keep_cram_md5(false);
    store.set_password(&ann(), "secret").await.unwrap();
    assert_eq!(cram(&store, Some(ann())).await, stand_in);
    assert_eq!(store.key_kinds(&bob()).await.unwrap().len(), 3);
    assert_eq!(store.forget_cram_md5().await.unwrap(), 1);
    assert_eq!(store.key_kinds(&bob()).await.unwrap(), scram_only);
    assert!(store.check_password(&bob(), "secret").await.unwrap());
    assert_eq!(store.key_kinds(&bob()).await.unwrap(), scram_only);
}
