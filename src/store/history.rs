//! The history: recipients that are done, what became of them, by which attempts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::writer::Tx;
use super::{StoreError, micros, schema, timestamp};
use crate::address::Mailbox;
use crate::attempt::Attempt;
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId};

/// Most rows of one page.
pub const HISTORY_PAGE_MAX: usize = 1_000;

/// As [`StoredFinished`] reads them; the row's number first.
const COLUMNS: &str =
    "id, queue_id, recipient, received, finished, account, sender, address, size, state, attempts, facts";

type Result<T> = std::result::Result<T, StoreError>;

/// How a recipient ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinalState {
    /// The peer, or our mailbox, has it.
    Delivered,
    /// Refused for good.
    Failed,
    /// Too old to try again.
    Expired,
    /// Taken out of the queue by the operator.
    Removed,
}

impl FinalState {
    const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Expired, Self::Removed];

    /// As listings show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Removed => "removed",
        }
    }
}

impl std::fmt::Display for FinalState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A recipient that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedRecipient {
    /// The message in the queue.
    pub id: QueueId,
    /// Which of its recipients.
    pub index: u32,
    /// Who submitted it.
    pub account: Option<AccountName>,
    /// The reverse-path.
    pub sender: ReversePath,
    /// The recipient's address.
    pub recipient: Mailbox,
    /// Of the message, bytes.
    pub size: u64,
    /// When the message came.
    pub received: Timestamp,
    /// When the recipient was done.
    pub finished: Timestamp,
    /// How it ended.
    pub state: FinalState,
    /// All attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// What else scripts may have known; `None` in the history of an older program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptFacts>,
}

/// Header fields by their names in lower case; `None` where the message had no such field.
pub type KeptHeader = BTreeMap<String, Option<String>>;

/// What routing scripts may have known of a message that is gone, beside its envelope: so that other scripts can be
/// asked what they would have done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptFacts {
    /// It was a report of ours.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_dsn: bool,
    /// SMTPUTF8 was given.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub smtputf8: bool,
    /// REQUIRETLS was given.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub require_tls: bool,
    /// A few header fields; the header as a whole is nobody's business any more.
    pub header: Arc<KeptHeader>,
}

/// Which recipients to show; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryFilter {
    /// Of this message.
    pub id: Option<QueueId>,
    /// Submitted by this account.
    pub account: Option<AccountName>,
    /// From this reverse-path.
    pub sender: Option<ReversePath>,
    /// To this address.
    pub recipient: Option<Mailbox>,
    /// That ended so.
    pub state: Option<FinalState>,
    /// Done at this time or later.
    pub since: Option<Timestamp>,
    /// Done before this time.
    pub until: Option<Timestamp>,
}

/// Where the next page begins; opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryCursor {
    finished: i64,
    row: i64,
}

/// Some recipients, the last done first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// The recipients.
    pub recipients: Vec<FinishedRecipient>,
    /// Give this to get those that follow; `None` at the end.
    pub next: Option<HistoryCursor>,
}

/// Reads the history beside whoever has the store open, and when nobody has; nothing is written.
pub struct HistoryReader {
    connection: Connection,
}

/// A row as it stands in the database: reading it costs something, and can be done on another thread.
pub struct StoredFinished {
    id: i64,
    index: u32,
    received: i64,
    finished: i64,
    account: Option<String>,
    sender: String,
    recipient: String,
    size: i64,
    state: String,
    attempts: String,
    facts: Option<String>,
}

impl HistoryReader {
    /// Opens the history of the store in a folder; `None` when there is none. Blocks.
    pub fn open(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(super::DATABASE_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let connection = schema::open_reader(&path)?;
        schema::check_current(&connection)?;
        Ok(Some(Self { connection }))
    }

    /// The recipients of a message that are done. Blocks.
    pub fn of_message(&self, id: QueueId) -> Result<Vec<FinishedRecipient>> {
        let filter = HistoryFilter { id: Some(id), ..HistoryFilter::default() };
        Ok(page(&self.connection, &filter, None, HISTORY_PAGE_MAX)?.recipients)
    }

    /// How many recipients were done at this time or later. Blocks.
    pub fn count(&self, since: Timestamp) -> Result<u64> {
        let sql = "SELECT count(*) FROM history WHERE finished >= ?1";
        let count: i64 = self.connection.query_row(sql, [micros(since)], |row| row.get(0))?;
        Ok(count as u64)
    }

    /// Hands out what was done at this time or later, about the last first, so many at a time, until `take` has enough.
    /// Every batch is read in a snapshot of its own, so that a long read is in nobody's way. Blocks.
    pub fn read(
        &self,
        since: Timestamp,
        batch: usize,
        mut take: impl FnMut(Vec<StoredFinished>) -> bool,
    ) -> Result<()> {
        // In the order of the rows, which is about that of time: the fastest to read.
        let first: Option<i64> = self.connection.query_row(
            "SELECT min(id) FROM history WHERE finished >= ?1",
            [micros(since)],
            |row| row.get(0),
        )?;
        let Some(first) = first else { return Ok(()) };
        let mut statement = self.connection.prepare(&format!(
            "SELECT {COLUMNS} FROM history WHERE id < ?1 AND id >= ?2 AND finished >= ?3
             ORDER BY id DESC LIMIT ?4"
        ))?;
        let mut before = i64::MAX;
        loop {
            let mut rows = statement.query(params![before, first, micros(since), batch as i64])?;
            let mut read = Vec::with_capacity(batch);
            while let Some(row) = rows.next()? {
                before = row.get(0)?;
                read.push(StoredFinished::of(row)?);
            }
            if read.is_empty() || !take(read) {
                return Ok(());
            }
        }
    }
}

impl StoredFinished {
    fn of(row: &Row<'_>) -> Result<Self> {
        Ok(Self {
            id: row.get(1)?,
            index: row.get(2)?,
            received: row.get(3)?,
            finished: row.get(4)?,
            account: row.get(5)?,
            sender: row.get(6)?,
            recipient: row.get(7)?,
            size: row.get(8)?,
            state: row.get(9)?,
            attempts: row.get(10)?,
            facts: row.get(11)?,
        })
    }

    /// The recipient.
    pub fn parse(self) -> Result<FinishedRecipient> {
        let corrupt = || StoreError::corrupt("a finished recipient");
        Ok(FinishedRecipient {
            id: QueueId(self.id as u64),
            index: self.index,
            received: timestamp(self.received)?,
            finished: timestamp(self.finished)?,
            account: self.account.map(|name| AccountName::new(&name)).transpose().map_err(|_| corrupt())?,
            sender: ReversePath::try_from(self.sender).map_err(|_| corrupt())?,
            recipient: Mailbox::parse(&self.recipient).map_err(|_| corrupt())?,
            size: self.size as u64,
            state: FinalState::ALL
                .into_iter()
                .find(|known| known.as_str() == self.state)
                .ok_or_else(corrupt)?,
            attempts: serde_json::from_str(&self.attempts).map_err(|_| corrupt())?,
            kept: self.facts.map(|facts| serde_json::from_str(&facts)).transpose().map_err(|_| corrupt())?,
        })
    }
}

/// Writes finished recipients; one that is there already, because the queue repeats it after a crash, stays as it is.
pub(super) fn record(tx: &mut Tx<'_>, finished: &[FinishedRecipient]) -> Result<()> {
    let mut statement = tx.connection.prepare_cached(
        "INSERT OR IGNORE INTO history
             (queue_id, recipient, received, finished, account, sender, address, size, state, attempts, facts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    let invalid = |error| StoreError::invalid(format!("attempts cannot be written: {error}"));
    for one in finished {
        let attempts = serde_json::to_string(&one.attempts).map_err(invalid)?;
        let facts = one.kept.as_ref().map(serde_json::to_string).transpose().map_err(invalid)?;
        statement.execute(params![
            one.id.0 as i64,
            one.index,
            micros(one.received),
            micros(one.finished),
            one.account.as_ref().map(AccountName::as_str),
            one.sender.to_string(),
            one.recipient.to_string(),
            one.size as i64,
            one.state.as_str(),
            attempts,
            facts
        ])?;
    }
    Ok(())
}

/// A page of finished recipients, the last done first.
pub(super) fn page(
    connection: &Connection,
    filter: &HistoryFilter,
    after: Option<HistoryCursor>,
    limit: usize,
) -> Result<HistoryPage> {
    let limit = limit.clamp(1, HISTORY_PAGE_MAX);
    let (conditions, mut values) = conditions(filter, after);
    values.push(Value::Integer(limit as i64 + 1));
    let sql = format!("SELECT {COLUMNS} FROM history {conditions} ORDER BY finished DESC, id DESC LIMIT ?");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut page = HistoryPage { recipients: Vec::new(), next: None };
    let mut last = None;
    while let Some(row) = rows.next()? {
        if page.recipients.len() == limit {
            page.next = last;
            break;
        }
        last = Some(HistoryCursor { finished: row.get(4)?, row: row.get(0)? });
        page.recipients.push(StoredFinished::of(row)?.parse()?);
    }
    Ok(page)
}

fn conditions(filter: &HistoryFilter, after: Option<HistoryCursor>) -> (String, Vec<Value>) {
    let text = |text: String| Value::Text(text);
    let number = Value::Integer;
    let mut values = Vec::new();
    let mut words = Vec::new();
    let mut add = |condition: &'static str, value: Option<Value>| {
        if let Some(value) = value {
            words.push(condition);
            values.push(value);
        }
    };
    add("queue_id = ?", filter.id.map(|id| number(id.0 as i64)));
    add("account = ?", filter.account.as_ref().map(|account| text(account.to_string())));
    add("sender = ?", filter.sender.as_ref().map(|sender| text(sender.to_string())));
    add("address = ?", filter.recipient.as_ref().map(|recipient| text(recipient.to_string())));
    add("state = ?", filter.state.map(|state| text(state.to_string())));
    add("finished >= ?", filter.since.map(|since| number(micros(since))));
    add("finished < ?", filter.until.map(|until| number(micros(until))));
    if let Some(after) = after {
        words.push("(finished, id) < (?, ?)");
        values.extend([number(after.finished), number(after.row)]);
    }
    let conditions = if words.is_empty() { String::new() } else { format!("WHERE {}", words.join(" AND ")) };
    (conditions, values)
}

/// Removes up to `limit` recipients that were done before; the number removed.
pub(super) fn prune(tx: &mut Tx<'_>, before: Timestamp, limit: usize) -> Result<usize> {
    let mut statement = tx.connection.prepare_cached(
        "DELETE FROM history WHERE id IN (SELECT id FROM history WHERE finished < ?1 ORDER BY finished LIMIT ?2)",
    )?;
    Ok(statement.execute(params![micros(before), limit as i64])?)
}
