//! The history: recipients that are done, what became of them, by which attempts.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::writer::Tx;
use super::{StoreError, micros, timestamp};
use crate::address::Mailbox;
use crate::attempt::Attempt;
use crate::envelope::ReversePath;
use crate::names::{AccountName, QueueId};

/// Most rows of one page.
pub const HISTORY_PAGE_MAX: usize = 1_000;

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
    let sql = format!(
        "SELECT id, queue_id, recipient, received, finished, account, sender, address, size, state, attempts,
             facts
         FROM history {conditions} ORDER BY finished DESC, id DESC LIMIT ?"
    );
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
        page.recipients.push(read(row)?);
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

fn read(row: &Row<'_>) -> Result<FinishedRecipient> {
    let corrupt = || StoreError::corrupt("a finished recipient");
    let account: Option<String> = row.get(5)?;
    let state: String = row.get(9)?;
    let facts: Option<String> = row.get(11)?;
    Ok(FinishedRecipient {
        id: QueueId(row.get::<_, i64>(1)? as u64),
        index: row.get(2)?,
        received: timestamp(row.get(3)?)?,
        finished: timestamp(row.get(4)?)?,
        account: account.map(|name| AccountName::new(&name)).transpose().map_err(|_| corrupt())?,
        sender: ReversePath::try_from(row.get::<_, String>(6)?).map_err(|_| corrupt())?,
        recipient: Mailbox::parse(&row.get::<_, String>(7)?).map_err(|_| corrupt())?,
        size: row.get::<_, i64>(8)? as u64,
        state: FinalState::ALL.into_iter().find(|known| known.as_str() == state).ok_or_else(corrupt)?,
        attempts: serde_json::from_str(&row.get::<_, String>(10)?).map_err(|_| corrupt())?,
        kept: facts.map(|facts| serde_json::from_str(&facts)).transpose().map_err(|_| corrupt())?,
    })
}

/// Removes up to `limit` recipients that were done before; the number removed.
pub(super) fn prune(tx: &mut Tx<'_>, before: Timestamp, limit: usize) -> Result<usize> {
    let mut statement = tx.connection.prepare_cached(
        "DELETE FROM history WHERE id IN (SELECT id FROM history WHERE finished < ?1 ORDER BY finished LIMIT ?2)",
    )?;
    Ok(statement.execute(params![micros(before), limit as i64])?)
}
