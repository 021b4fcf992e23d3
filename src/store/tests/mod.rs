//! Stories of the store, against a real database in a temporary folder.

mod accounts;
mod controls;
mod delivery;
mod durability;
mod mailboxes;
mod messages;
mod model;

use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// A store with an account.
struct World {
    dir: TempDir,
    store: Store,
    inbox: MailboxId,
}

impl World {
    async fn new() -> Self {
        Self::with(StoreOptions::default()).await
    }

    async fn with(options: StoreOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), options).unwrap();
        store.ensure_account(&ann()).await.unwrap();
        let inbox = store.mailbox(&ann(), INBOX).await.unwrap().id;
        Self { dir, store, inbox }
    }

    async fn create(&self, name: &str) -> MailboxId {
        self.store.create_mailbox(&ann(), name).await.unwrap().id
    }

    async fn append(&self, mailbox: MailboxId, text: &str) -> u32 {
        self.store.append(mailbox, vec![mail(text)]).await.unwrap().uids[0]
    }

    async fn names(&self) -> Vec<String> {
        self.store.mailboxes(&ann()).await.unwrap().into_iter().map(|mailbox| mailbox.name).collect()
    }

    async fn text(&self, mailbox: MailboxId, uid: u32) -> Option<String> {
        let content = self.store.content(mailbox, uid).await.unwrap();
        content.map(|content| String::from_utf8(content.to_vec()).unwrap())
    }

    /// Rows of a table.
    async fn rows(&self, table: &'static str) -> u32 {
        let count = move |tx: &rusqlite::Transaction<'_>| {
            Ok(tx.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
        };
        self.store.read(count).await.unwrap()
    }

    /// Files of large bodies.
    fn files(&self) -> usize {
        let folders = std::fs::read_dir(self.dir.path().join(BODIES_DIR)).unwrap();
        folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
    }

    /// Waits until contents that nobody uses are removed in the background, down to `contents`.
    async fn settle(&self, contents: u32) {
        for _ in 0..500 {
            if self.rows("content").await == contents && self.rows("orphan").await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("contents were not removed: {} left", self.rows("content").await);
    }

    /// What a power failure would leave on the disk now.
    fn crash_image(&self) -> TempDir {
        let image = tempfile::tempdir().unwrap();
        copy_tree(self.dir.path(), image.path());
        image
    }
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn ann() -> AccountName {
    AccountName::new("ann").unwrap()
}

fn bob() -> AccountName {
    AccountName::new("bob").unwrap()
}

fn flags(text: &str) -> Flags {
    text.parse().unwrap()
}

fn mail(text: &str) -> NewMail {
    NewMail {
        content: Bytes::from(text.to_owned()),
        flags: Flags::new(),
        internal_date: Timestamp::UNIX_EPOCH,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}
