//! The store: accounts, mailboxes, messages and the history of finished recipients, in SQLite.
//!
//! One thread writes ([`writer`]): it takes all that waits, runs it in one transaction and commits once; a call that
//! writes returns after that commit, so what it did survives a crash. Reads run beside it on connections of their own
//! ([`readers`]), each in a snapshot. Bodies stand in the database up to a size, else in files ([`bodies`]). After a
//! commit, who watches a mailbox or an account is told ([`Store::watch`]), and reads what changed since.
//!
//! No SQL leaves this folder. RFC 9051 (IMAP4rev2), RFC 7162 (CONDSTORE, QRESYNC), RFC 8474 (OBJECTID).

mod bodies;
mod content;
mod delivery;
mod error;
mod flags;
mod history;
mod hold_rules;
mod keys;
mod mailboxes;
mod messages;
mod name;
mod passwords;
mod readers;
mod schema;
mod suppressions;
#[cfg(test)]
mod tests;
mod types;
mod watch;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch::Receiver;

use crate::address::Mailbox;
use crate::names::{AccountName, QueueId};
use crate::sasl::{KeyKind, Keys};
use bodies::Bodies;
use content::Prepared;
use delivery::DeliveryKey;
use messages::Entry;
use name::Name;
use passwords::Passwords;
use readers::Readers;
use watch::Watchers;
use writer::{Tx, Writer};

pub use error::StoreError;
pub use flags::{FlagOp, Flags, KEYWORD_BYTES_MAX, KEYWORDS_PER_MESSAGE_MAX, Keyword, SystemFlag};
pub use history::{
    FinalState, FinishedRecipient, HISTORY_PAGE_MAX, HistoryCursor, HistoryFilter, HistoryPage,
    HistoryReader, KeptFacts, KeptHeader, StoredFinished,
};
pub use hold_rules::{HOLD_RULES_MAX, HoldFields, HoldRule, NewHoldRule};
pub use mailboxes::{MAILBOXES_PER_ACCOUNT_MAX, SUBSCRIPTIONS_PER_ACCOUNT_MAX};
pub use messages::KEYWORDS_PER_MAILBOX_MAX;
pub use name::{INBOX, NAME_BYTES_MAX, NAME_LEVELS_MAX, SEPARATOR};
pub use passwords::PASSWORD_BYTES_MAX;
pub use suppressions::{SUPPRESSED_PER_ACCOUNT_MAX, Suppression};
pub use types::{
    Appended, Changes, Content, Copied, Delivered, EmailId, MailboxId, MailboxInfo, MailboxStatus,
    MessageRow, NewMail, NotASpecialUse, SpecialUse, StoreResult, View,
};

type Result<T> = std::result::Result<T, StoreError>;

/// The database in the store's folder.
const DATABASE_FILE: &str = "mail.sqlite";
/// The folder of large bodies.
const BODIES_DIR: &str = "bodies";
/// Rows removed from the history in one transaction, so that others need not wait long.
const PRUNED_PER_COMMIT: usize = 1_000;

/// How the store works.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Largest body that stands in the database; larger ones stand in files.
    pub body_bytes_max_in_row: usize,
    /// Largest message taken.
    pub message_bytes_max: usize,
    /// Reads at the same time.
    pub readers: usize,
    /// Passwords hashed or verified at the same time, each 19 MiB and one core.
    pub password_workers: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            // Measured: up to here a row is faster; beyond, with many producers, a file is, by 3 times and more.
            body_bytes_max_in_row: 64 << 10,
            message_bytes_max: 256 << 20,
            readers: cores.clamp(2, 8),
            password_workers: (cores / 2).clamp(1, 8),
        }
    }
}

/// The store. Clones share it; the last one that goes ends it, after what waits is written. Times are kept to the
/// microsecond.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    writer: Writer,
    readers: Readers,
    bodies: Arc<Bodies>,
    watchers: Arc<Watchers>,
    passwords: Passwords,
    /// What CRAM-MD5 needs of a password is kept, too.
    keeps_cram_md5: Arc<AtomicBool>,
    options: StoreOptions,
}

/// Opening, closing, accounts.
impl Store {
    /// Opens the store in a folder, or makes it. Blocks.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, StoreOptions::default())
    }

    /// Opens the store in a folder, or makes it. Blocks.
    pub fn open_with(dir: &Path, options: StoreOptions) -> Result<Self> {
        bodies::make_dir(dir).map_err(|error| StoreError::io(dir, error))?;
        let path = dir.join(DATABASE_FILE);
        let connection = schema::open_writer(&path)?;
        let bodies = Arc::new(Bodies::open(dir.join(BODIES_DIR))?);
        let swept = bodies.sweep(|file| {
            let known = connection.prepare_cached("SELECT 1 FROM content WHERE file = ?1")?.exists([file])?;
            Ok(known)
        })?;
        if swept > 0 {
            tracing::info!(files = swept, "removed bodies that a crash had left without a message");
        }
        let watchers = Arc::new(Watchers::default());
        Ok(Self(Arc::new(Inner {
            writer: Writer::start(connection, Arc::clone(&bodies), Arc::clone(&watchers))?,
            readers: Readers::new(&path, options.readers),
            bodies,
            watchers,
            passwords: Passwords::new(options.password_workers),
            keeps_cram_md5: Arc::default(),
            options,
        })))
    }

    /// Finishes what waits and closes the database. Calls after it answer [`StoreError::Closed`].
    pub async fn close(&self) {
        self.0.readers.close(self.0.options.readers).await;
        let inner = Arc::clone(&self.0);
        if let Err(error) = tokio::task::spawn_blocking(move || inner.writer.close()).await {
            tracing::error!(%error, "closing the store failed");
        }
    }

    /// All accounts that were ever seen, and whether each has a password.
    pub async fn accounts(&self) -> Result<Vec<(AccountName, bool)>> {
        self.read(|tx| mailboxes::accounts(tx)).await
    }

    /// Makes an account's INBOX and its first mailboxes (Archive, Drafts, Junk, Sent, Trash with their special use,
    /// all subscribed), unless the account was seen before.
    pub async fn ensure_account(&self, account: &AccountName) -> Result<()> {
        let name = account.clone();
        let known = self.read(move |tx| mailboxes::find_account(tx, &name)).await?.is_some();
        if known {
            return Ok(());
        }
        let account = account.clone();
        self.write(move |tx| mailboxes::ensure_account(tx, &account).map(|_| ())).await
    }

    /// Removes an account with its mailboxes, messages and password. False when there was none.
    pub async fn remove_account(&self, account: &AccountName) -> Result<bool> {
        let account = account.clone();
        let removed = self.write(move |tx| mailboxes::remove_account(tx, &account)).await;
        self.0.passwords.forget();
        removed
    }

    /// Whether what CRAM-MD5 needs is kept of passwords that are set from now on, and of those that are checked and
    /// found right. It is not, unless it is said here.
    pub fn keep_cram_md5(&self, keep: bool) {
        self.0.keeps_cram_md5.store(keep, Ordering::SeqCst);
    }

    /// Removes what was kept for CRAM-MD5, of all accounts; of how many.
    pub async fn forget_cram_md5(&self) -> Result<usize> {
        self.write(|tx| keys::forget(tx, KeyKind::CramMd5)).await
    }

    /// Sets an account's password; the account is made on first sight.
    pub async fn set_password(&self, account: &AccountName, password: &str) -> Result<()> {
        let phc = self.0.passwords.hash(password).await?;
        let keys = self.0.passwords.keys(password, self.wanted_keys()).await?;
        let account = account.clone();
        let kept = self.write(move |tx| passwords::keep(tx, &account, &phc, &keys)).await;
        self.0.passwords.forget();
        kept
    }

    /// Whether this is the account's password. Takes as long when there is no such account or no password.
    pub async fn check_password(&self, account: &AccountName, password: &str) -> Result<bool> {
        let name = account.clone();
        let kept = self.read(move |tx| Ok((passwords::find(tx, &name)?, keys::kinds(tx, &name)?)));
        let (phc, kinds) = kept.await?;
        let right = self.0.passwords.verify(account, phc.clone(), password).await?;
        let missing: Vec<KeyKind> =
            self.wanted_keys().into_iter().filter(|kind| !kinds.contains(kind)).collect();
        if let Some(phc) = phc.filter(|_| right && !missing.is_empty()) {
            self.add_keys(account, phc, password, missing).await;
        }
        Ok(right)
    }

    fn wanted_keys(&self) -> Vec<KeyKind> {
        keys::wanted(self.0.keeps_cram_md5.load(Ordering::SeqCst))
    }

    /// Makes the keys that an older version did not make, or that were not wanted when the password was set. That they
    /// are missing must not keep anybody out.
    async fn add_keys(&self, account: &AccountName, phc: String, password: &str, missing: Vec<KeyKind>) {
        let added = async {
            let mut keys = self.0.passwords.keys(password, missing).await?;
            if keys.is_empty() {
                return Ok(());
            }
            let (name, keeps_cram_md5) = (account.clone(), Arc::clone(&self.0.keeps_cram_md5));
            let add = move |tx: &mut Tx<'_>| {
                // The operator may have changed his mind meanwhile, and what was kept may have been removed.
                keys.retain(|(kind, _)| *kind != KeyKind::CramMd5 || keeps_cram_md5.load(Ordering::SeqCst));
                passwords::add_keys(tx, &name, &phc, &keys)
            };
            self.write(add).await
        };
        if let Err(error) = added.await {
            tracing::warn!(%account, %error, "cannot keep the keys of a password");
        }
    }

    /// What an exchange checks the user against: the keys of the account that the user name stands for. For one that
    /// stands for none, and for an account without keys, there are some that no password fits, the same each time.
    pub async fn keys(&self, account: Option<&AccountName>, user: &str, kind: KeyKind) -> Result<Keys> {
        let (account, user) = (account.cloned(), user.to_owned());
        self.read(move |tx| keys::find(tx, account.as_ref(), &user, kind)).await
    }

    /// The kinds of keys that there are of the account's password.
    pub async fn key_kinds(&self, account: &AccountName) -> Result<Vec<KeyKind>> {
        let account = account.clone();
        self.read(move |tx| keys::kinds(tx, &account)).await
    }

    /// Whether the account has a password.
    pub async fn has_password(&self, account: &AccountName) -> Result<bool> {
        let account = account.clone();
        self.read(move |tx| Ok(passwords::find(tx, &account)?.is_some())).await
    }

    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.0.writer.run(work).await
    }

    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Transaction<'_>) -> Result<T> + Send + 'static,
    {
        self.0.readers.run(work).await
    }
}

/// Mailboxes.
impl Store {
    /// All mailboxes of an account, sorted by name. A name above another may be missing: it is not made up here.
    pub async fn mailboxes(&self, account: &AccountName) -> Result<Vec<MailboxInfo>> {
        let account = account.clone();
        self.read(move |tx| mailboxes::list(tx, &account)).await
    }

    /// One mailbox by its name.
    pub async fn mailbox(&self, account: &AccountName, name: &str) -> Result<MailboxInfo> {
        let (account, name) = (account.clone(), Name::new(name)?);
        self.read(move |tx| mailboxes::find(tx, &account, &name)).await
    }

    /// Makes a mailbox, and those above it that are missing. A `/` at the end of the name is dropped.
    pub async fn create_mailbox(&self, account: &AccountName, name: &str) -> Result<MailboxInfo> {
        self.create_mailbox_for(account, name, None).await
    }

    /// Makes a mailbox with a special use (RFC 6154 §3).
    pub async fn create_mailbox_for(
        &self,
        account: &AccountName,
        name: &str,
        special_use: Option<SpecialUse>,
    ) -> Result<MailboxInfo> {
        let (account, name) = (account.clone(), Name::new(name)?);
        self.write(move |tx| mailboxes::create(tx, &account, &name, special_use)).await
    }

    /// Removes a mailbox and its messages; mailboxes below it stay, and its name is then missing above them.
    /// INBOX cannot be removed.
    pub async fn delete_mailbox(&self, account: &AccountName, name: &str) -> Result<()> {
        let (account, name) = (account.clone(), Name::new(name)?);
        self.write(move |tx| mailboxes::delete(tx, &account, &name)).await
    }

    /// Renames a mailbox and all below it; missing names above the new one are made. From INBOX the messages move to a
    /// new mailbox, and INBOX stays, empty, with what is below it (RFC 9051 §6.3.6).
    pub async fn rename_mailbox(&self, account: &AccountName, from: &str, to: &str) -> Result<()> {
        let (account, from, to) = (account.clone(), Name::new(from)?, Name::new(to)?);
        self.write(move |tx| mailboxes::rename(tx, &account, &from, &to)).await
    }

    /// Subscribes to a name, or ends that, whether there is such a mailbox or not.
    pub async fn subscribe(&self, account: &AccountName, name: &str, subscribed: bool) -> Result<()> {
        let (account, name) = (account.clone(), Name::new(name)?);
        self.write(move |tx| mailboxes::subscribe(tx, &account, &name, subscribed)).await
    }

    /// All names the account subscribes to, sorted, whether there are such mailboxes or not.
    pub async fn subscriptions(&self, account: &AccountName) -> Result<Vec<String>> {
        let account = account.clone();
        self.read(move |tx| mailboxes::subscriptions(tx, &account)).await
    }

    /// Counts and counters.
    pub async fn status(&self, mailbox: MailboxId) -> Result<MailboxStatus> {
        self.read(move |tx| messages::status(tx, mailbox)).await
    }

    /// Keywords ever used in the mailbox, sorted, for the FLAGS response.
    pub async fn keywords(&self, mailbox: MailboxId) -> Result<Vec<Keyword>> {
        self.read(move |tx| messages::keywords(tx, mailbox)).await
    }

    /// The mailbox at this moment, all messages in UID order.
    pub async fn open_view(&self, mailbox: MailboxId) -> Result<View> {
        self.read(move |tx| messages::view(tx, mailbox)).await
    }

    /// What changed after a moment that [`Store::open_view`] or this gave.
    pub async fn changes_since(&self, mailbox: MailboxId, modseq: u64) -> Result<Changes> {
        self.read(move |tx| messages::changes_since(tx, mailbox, modseq)).await
    }

    /// Tells after each commit that changed the mailbox; the value is the highest MODSEQ then (0 when there was no
    /// change since somebody began to watch). `changed()` fails when the mailbox is gone, or its UIDs are no longer
    /// valid. Watch first, then read: nothing is missed in between.
    pub fn watch(&self, mailbox: MailboxId) -> Receiver<u64> {
        self.0.watchers.mailbox(mailbox)
    }

    /// Counts up after each commit in which mailboxes or subscriptions of the account came, went or were renamed.
    pub fn watch_account(&self, account: &AccountName) -> Receiver<u64> {
        self.0.watchers.account(account)
    }
}

/// Messages.
impl Store {
    /// Appends messages, all or none.
    pub async fn append(&self, mailbox: MailboxId, mails: Vec<NewMail>) -> Result<Appended> {
        let mut entries = Vec::with_capacity(mails.len());
        for mail in mails {
            let content = self.prepare(mail.content.into()).await?;
            entries.push(Entry { content, flags: mail.flags, internal_date: mail.internal_date });
        }
        self.write(move |tx| messages::append(tx, mailbox, entries)).await
    }

    /// Changes flags. UIDs that do not exist are passed over; messages changed after `unchanged_since` are left alone
    /// and named in the result.
    pub async fn store_flags(
        &self,
        mailbox: MailboxId,
        uids: Vec<u32>,
        op: FlagOp,
        flags: Flags,
        unchanged_since: Option<u64>,
    ) -> Result<StoreResult> {
        self.write(move |tx| messages::store_flags(tx, mailbox, &uids, op, &flags, unchanged_since)).await
    }

    /// Copies messages with their flags and dates, all or none; UIDs that do not exist are passed over.
    pub async fn copy_messages(&self, from: MailboxId, uids: Vec<u32>, to: MailboxId) -> Result<Copied> {
        self.write(move |tx| messages::copy_to(tx, from, &uids, to)).await
    }

    /// Moves messages with their flags and dates, all or none (RFC 6851); UIDs that do not exist are passed over.
    pub async fn move_messages(&self, from: MailboxId, uids: Vec<u32>, to: MailboxId) -> Result<Copied> {
        self.write(move |tx| messages::move_to(tx, from, &uids, to)).await
    }

    /// Expunges the messages that have `\Deleted`, or those of them that `only` names; their UIDs, in order.
    pub async fn expunge(&self, mailbox: MailboxId, only: Option<Vec<u32>>) -> Result<Vec<u32>> {
        self.write(move |tx| messages::expunge(tx, mailbox, only.as_deref())).await
    }

    /// A whole message; `None` when it is gone.
    pub async fn content(&self, mailbox: MailboxId, uid: u32) -> Result<Option<Bytes>> {
        let bodies = Arc::clone(&self.0.bodies);
        self.read(move |tx| content::whole(tx, &bodies, mailbox, uid)).await
    }

    /// A message's header with the empty line that ends it; the body is not read.
    pub async fn header(&self, mailbox: MailboxId, uid: u32) -> Result<Option<Bytes>> {
        self.read(move |tx| content::header(tx, mailbox, uid)).await
    }

    /// What [`Store::set_cached`] kept for these messages, for those that have something, in the order asked.
    pub async fn cached(&self, mailbox: MailboxId, uids: Vec<u32>) -> Result<Vec<(u32, Bytes)>> {
        self.read(move |tx| content::cached(tx, mailbox, &uids)).await
    }

    /// Keeps what was worked out of messages' contents (envelope, structure): opaque here, shared by copies, gone with
    /// the content. What it is written in must tell its own version.
    pub async fn set_cached(&self, mailbox: MailboxId, facts: Vec<(u32, Bytes)>) -> Result<()> {
        self.write(move |tx| content::set_cached(tx, mailbox, &facts)).await
    }

    /// Delivers a message from the queue into a mailbox, once for each key (the message and which of its recipients)
    /// and time of receipt, also when asked again after a crash. The account is made on first sight; another mailbox
    /// than INBOX must be there. `received` becomes the INTERNALDATE.
    pub async fn deliver(
        &self,
        account: &AccountName,
        mailbox_name: &str,
        key: (QueueId, u32),
        content: impl Into<Content>,
        received: Timestamp,
    ) -> Result<Delivered> {
        let (account, name) = (account.clone(), Name::new(mailbox_name)?);
        let key = DeliveryKey { id: key.0, recipient: key.1, received };
        let content = self.prepare(content.into()).await?;
        let entry = Entry { content, flags: Flags::new(), internal_date: received };
        self.write(move |tx| delivery::deliver(tx, &account, &name, &key, entry)).await
    }

    /// Forgets the keys of deliveries made before a time; the number forgotten. A key must outlive its message in the
    /// queue.
    pub async fn prune_delivered(&self, before: Timestamp) -> Result<usize> {
        self.write(move |tx| delivery::prune(tx, before)).await
    }

    /// Makes a content ready for the writer: a large body goes to its file here, not on the writer's thread.
    async fn prepare(&self, content: Content) -> Result<Prepared> {
        let options = &self.0.options;
        if content.len() > options.message_bytes_max {
            return Err(StoreError::invalid(format!(
                "a message has at most {} bytes",
                options.message_bytes_max
            )));
        }
        let (bodies, row_bytes_max) = (Arc::clone(&self.0.bodies), options.body_bytes_max_in_row);
        if content.body.len() <= row_bytes_max {
            return Prepared::new(content, row_bytes_max, &bodies);
        }
        let write = tokio::task::spawn_blocking(move || Prepared::new(content, row_bytes_max, &bodies));
        write.await.map_err(|_| StoreError::Closed)?
    }
}

/// History.
impl Store {
    /// Keeps finished recipients; best many at a time. One that is known already stays as it is.
    pub async fn record_history(&self, finished: Vec<FinishedRecipient>) -> Result<()> {
        self.write(move |tx| history::record(tx, &finished)).await
    }

    /// A page of finished recipients, the last done first; at most [`HISTORY_PAGE_MAX`].
    pub async fn history(
        &self,
        filter: HistoryFilter,
        after: Option<HistoryCursor>,
        limit: usize,
    ) -> Result<HistoryPage> {
        self.read(move |tx| history::page(tx, &filter, after, limit)).await
    }

    /// Removes recipients that were done before a time; the number removed.
    pub async fn prune_history(&self, before: Timestamp) -> Result<usize> {
        let mut removed = 0;
        loop {
            let now = self.write(move |tx| history::prune(tx, before, PRUNED_PER_COMMIT)).await?;
            removed += now;
            if now < PRUNED_PER_COMMIT {
                return Ok(removed);
            }
        }
    }
}

/// What the queue's operators decided.
impl Store {
    /// Keeps a hold rule under a number of its own; one with the same fields must not be there.
    pub async fn add_hold_rule(&self, rule: NewHoldRule) -> Result<HoldRule> {
        self.write(move |tx| hold_rules::add(tx, rule)).await
    }

    /// Forgets a hold rule; false when there is none of that number.
    pub async fn remove_hold_rule(&self, number: u32) -> Result<bool> {
        self.write(move |tx| hold_rules::remove(tx, number)).await
    }

    /// All hold rules in the order of their numbers.
    pub async fn hold_rules(&self) -> Result<Vec<HoldRule>> {
        self.read(|tx| hold_rules::all(tx)).await
    }

    /// Suppresses recipients; returns those that were kept: beyond [`SUPPRESSED_PER_ACCOUNT_MAX`] of an account nothing
    /// new is.
    pub async fn add_suppressions(&self, entries: Vec<Suppression>) -> Result<Vec<Suppression>> {
        self.write(move |tx| suppressions::add(tx, entries)).await
    }

    /// Takes recipients off the suppression list; the number that were on it.
    pub async fn remove_suppressions(&self, entries: Vec<(AccountName, Mailbox)>) -> Result<usize> {
        self.write(move |tx| suppressions::remove(tx, &entries)).await
    }

    /// The whole suppression list, also what has expired and was not removed yet, by account and address.
    pub async fn suppressions(&self) -> Result<Vec<Suppression>> {
        self.read(|tx| suppressions::all(tx)).await
    }

    /// Removes what has expired from the suppression list; the number removed.
    pub async fn prune_suppressions(&self, now: Timestamp) -> Result<usize> {
        self.write(move |tx| suppressions::prune(tx, now)).await
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// Times as the database keeps them: microseconds since 1970.
fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn timestamp(micros: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::corrupt("a time"))
}
