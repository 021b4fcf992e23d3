use std::future::Future;
use std::sync::mpsc;

use super::*;
use crate::store::messages::append;

/// Appends messages inside a job.
fn messages_of(tx: &mut Tx<'_>, mailbox: MailboxId, count: usize) -> Result<Vec<u32>> {
    let bodies = Bodies::open(std::env::temp_dir())?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let content = Prepared::new(Bytes::from_static(b"A: 1\r\n\r\n").into(), 100, &bodies)?;
        entries.push(Entry { content, flags: Flags::new(), internal_date: at(0) });
    }
    Ok(append(tx, mailbox, entries)?.uids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_wait_together_are_committed_together_and_a_failing_one_alone_is_undone() {
    let World { store, inbox, dir } = World::new().await;
    // While the writer is held, jobs pile up behind it.
    let (holding, held) = tokio::sync::oneshot::channel();
    let (release, released) = mpsc::channel::<()>();
    let holder = {
        let store = store.clone();
        tokio::spawn(async move {
            let hold = move |_: &mut Tx<'_>| Ok(holding.send(()).is_ok() && released.recv().is_ok());
            store.write(hold).await
        })
    };
    held.await.unwrap();
    let database = dir.path().join(DATABASE_FILE);
    let mut jobs = Vec::new();
    for number in 0..20u32 {
        let (store, database) = (&store, database.clone());
        let mut job = Box::pin(async move {
            let job = store.write(move |tx| {
                let outside = schema::open_reader(&database)?;
                let committed: u32 =
                    outside.query_row("SELECT count(*) FROM message", [], |row| row.get(0))?;
                assert_eq!(committed, 0, "all are committed at once, after the last has run");
                let uid = messages_of(tx, inbox, 1)?[0];
                match number {
                    7 => Err(StoreError::invalid("on purpose")),
                    8 => panic!("on purpose"),
                    _ => Ok(uid),
                }
            });
            (number, job.await)
        });
        // Asked once, it stands in the writer's line.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(job.as_mut().poll(&mut context).is_pending());
        jobs.push(job);
    }
    release.send(()).unwrap();
    assert!(holder.await.unwrap().unwrap());
    let mut uids = Vec::new();
    for job in jobs {
        match job.await {
            (7, result) => assert!(matches!(result, Err(StoreError::Invalid(_)))),
            (8, result) => assert!(matches!(result, Err(StoreError::Database(_)))),
            (_, result) => uids.push(result.unwrap()),
        }
    }
    uids.sort_unstable();
    assert_eq!(uids, (1..=18).collect::<Vec<_>>(), "those that failed used up no UID");
    assert_eq!(store.status(inbox).await.unwrap().messages, 18);
}

#[tokio::test]
async fn a_commit_that_fails_is_told_and_nothing_of_it_stays() {
    let world = World::new().await;
    let watched = world.store.watch(world.inbox);
    let inbox = world.inbox;
    let broken = world.store.write(move |tx| {
        messages_of(tx, inbox, 1)?;
        // Found only by the commit.
        tx.connection.execute_batch(
            "PRAGMA defer_foreign_keys = ON; INSERT INTO subscription (account, name) VALUES (999, 'x')",
        )?;
        Ok(())
    });
    assert!(matches!(broken.await, Err(StoreError::Database(_))));
    assert_eq!((world.store.status(inbox).await.unwrap().messages, *watched.borrow()), (0, 0));
    assert_eq!(world.append(inbox, "A: 1\r\n\r\n").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_whole_commits_while_others_write() {
    let World { store, inbox, dir: _dir } = World::new().await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..40 {
                store.append(inbox, vec![mail("A: 1\r\n\r\n"), mail("A: 2\r\n\r\n")]).await.unwrap();
            }
        })
    };
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let store = store.clone();
        readers.spawn(async move {
            let mut seen = store.open_view(inbox).await.unwrap();
            while seen.messages.len() < 80 {
                let changes = store.changes_since(inbox, seen.highest_modseq).await.unwrap();
                assert_eq!(changes.changed.len() % 2, 0);
                seen.messages.extend(changes.changed);
                seen.highest_modseq = changes.highest_modseq;
                assert_eq!(seen.messages.len() as u32 + 1, changes.uidnext);
            }
            assert_eq!(seen.messages, store.open_view(inbox).await.unwrap().messages);
        });
    }
    writer.await.unwrap();
    while let Some(done) = readers.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let world = World::with(StoreOptions { body_bytes_max_in_row: 10, ..StoreOptions::default() }).await;
    world.append(world.inbox, "A: 1\r\n\r\nsmall").await;
    world.append(world.inbox, "A: 2\r\n\r\na body in a file").await;
    let image = world.crash_image();
    let before = world.store.open_view(world.inbox).await.unwrap();
    let store = Store::open(image.path()).unwrap();
    assert_eq!(store.open_view(world.inbox).await.unwrap(), before);
    assert_eq!(store.content(world.inbox, 2).await.unwrap().unwrap(), "A: 2\r\n\r\na body in a file");
}

#[tokio::test]
async fn files_that_a_crash_left_without_a_row_are_removed_at_the_next_start() {
    let world = World::with(StoreOptions { body_bytes_max_in_row: 10, ..StoreOptions::default() }).await;
    world.append(world.inbox, "A: 1\r\n\r\na body in a file").await;
    // A crash between the file and the commit.
    let orphan = world.store.0.bodies.write(b"nobody's").unwrap();
    let folder = world.dir.path().join(BODIES_DIR).join(&orphan.name()[..2]);
    orphan.keep();
    std::fs::write(folder.join("notes"), "the operator's").unwrap();
    assert_eq!(world.files(), 3);
    world.store.close().await;
    let store = Store::open(world.dir.path()).unwrap();
    assert_eq!(world.files(), 2);
    assert!(folder.join("notes").exists());
    assert_eq!(store.content(world.inbox, 1).await.unwrap().unwrap(), "A: 1\r\n\r\na body in a file");
}

#[tokio::test]
async fn contents_that_a_crash_left_to_be_removed_are_removed_after_the_next_start() {
    let world = World::new().await;
    world.append(world.inbox, "A: 1\r\n\r\n").await;
    world.store.close().await;
    {
        let connection = schema::open_writer(&world.dir.path().join(DATABASE_FILE)).unwrap();
        connection
            .execute_batch("INSERT INTO orphan SELECT content FROM message; DELETE FROM message")
            .unwrap();
    }
    let store = Store::open(world.dir.path()).unwrap();
    World { store, ..world }.settle(0).await;
}

#[tokio::test]
async fn a_file_of_a_job_that_fails_is_removed_at_once() {
    let world = World::with(StoreOptions { body_bytes_max_in_row: 10, ..StoreOptions::default() }).await;
    let gone = world.create("gone").await;
    world.store.delete_mailbox(&ann(), "gone").await.unwrap();
    world.store.append(gone, vec![mail("A: 1\r\n\r\na body in a file")]).await.unwrap_err();
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn a_full_disk_is_told_and_passes() {
    let World { store, inbox, dir: _dir } = World::new().await;
    let limit =
        |pages: u32| store.write(move |tx| Ok(tx.connection.pragma_update(None, "max_page_count", pages)?));
    limit(1).await.unwrap();
    let body = "x".repeat(50_000);
    let failed = loop {
        // Some still fit into pages that are there.
        if let Err(error) = store.append(inbox, vec![mail(&body)]).await {
            break error;
        }
    };
    assert!(matches!(failed, StoreError::Full), "{failed}");
    let before = store.status(inbox).await.unwrap();
    limit(1_000_000).await.unwrap();
    let uid = store.append(inbox, vec![mail(&body)]).await.unwrap().uids[0];
    assert_eq!((uid, before.messages + 1), (before.uidnext, store.status(inbox).await.unwrap().messages));
}

#[tokio::test]
async fn a_closed_store_finishes_what_waits_and_takes_no_more() {
    let world = World::new().await;
    let waiting = {
        let store = world.store.clone();
        tokio::spawn(async move { store.append(world.inbox, vec![mail("A: 1\r\n\r\n")]).await })
    };
    tokio::task::yield_now().await;
    world.store.close().await;
    waiting.await.unwrap().unwrap();
    assert!(matches!(world.store.status(world.inbox).await, Err(StoreError::Closed)));
    assert!(matches!(world.store.ensure_account(&bob()).await, Err(StoreError::Closed)));
    let store = Store::open(world.dir.path()).unwrap();
    assert_eq!(store.status(world.inbox).await.unwrap().messages, 1);
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_left_alone() {
    let world = World::new().await;
    world.store.close().await;
    let path = world.dir.path().join(DATABASE_FILE);
    schema::open_writer(&path).unwrap().pragma_update(None, "user_version", 999).unwrap();
    let error = Store::open(world.dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 999, .. }));
    assert!(error.to_string().contains("999"), "{error}");
}

#[test]
fn nobody_else_can_look_into_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("a/store");
    let _store = Store::open(&place).unwrap();
    for folder in [&place, &place.join(BODIES_DIR)] {
        assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[tokio::test]
async fn a_removal_that_fails_fails_nobody_and_is_tried_again() {
    let world = World::new().await;
    let sql = |text: &'static str| world.store.write(move |tx| Ok(tx.connection.execute_batch(text)?));
    let other = world.create("other").await;
    world.append(world.inbox, "A: 1\r\n\r\n").await;
    world.append(other, "A: 2\r\n\r\n").await;
    sql("CREATE TRIGGER broken BEFORE DELETE ON content BEGIN SELECT RAISE(ABORT, 'on purpose'); END")
        .await
        .unwrap();
    world.store.move_messages(other, vec![1], world.inbox).await.unwrap();
    world.store.delete_mailbox(&ann(), "other").await.unwrap();
    world.store.store_flags(world.inbox, vec![1], FlagOp::Add, flags("\\Deleted"), None).await.unwrap();
    assert_eq!(world.store.expunge(world.inbox, None).await.unwrap(), [1]);
    sql("DROP TRIGGER broken").await.unwrap();
    assert_eq!(world.rows("content").await, 2);
    world.store.store_flags(world.inbox, vec![2], FlagOp::Add, flags("\\Deleted"), None).await.unwrap();
    world.store.expunge(world.inbox, None).await.unwrap();
    world.settle(0).await;
}
