//! Hold rules: which mail the operator keeps back, also mail that is still to come.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::writer::Tx;
use super::{StoreError, micros, timestamp};
use crate::address::{Domain, Mailbox};
use crate::envelope::ReversePath;
use crate::names::AccountName;

/// Rules at the same time: every message is held against each.
pub const HOLD_RULES_MAX: usize = 1_000;
/// Longest reason, and longest name of an operator, bytes.
const TEXT_BYTES_MAX: usize = 1_000;

type Result<T> = std::result::Result<T, StoreError>;

/// What a rule names. All that is named must match; what names nothing matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HoldFields {
    /// Who submitted the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountName>,
    /// The domain of the reverse-path. A null sender has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_domain: Option<Domain>,
    /// The domain of the recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_domain: Option<Domain>,
}

impl HoldFields {
    /// Whether a recipient's mail is meant.
    pub fn match_mail(
        &self,
        account: Option<&AccountName>,
        sender: &ReversePath,
        recipient: &Mailbox,
    ) -> bool {
        self.account.as_ref().is_none_or(|named| account == Some(named))
            && self
                .sender_domain
                .as_ref()
                .is_none_or(|named| sender.mailbox().is_some_and(|sender| sender.domain == *named))
            && self.recipient_domain.as_ref().is_none_or(|named| recipient.domain == *named)
    }

    /// Whether they name nothing at all.
    pub fn name_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A hold rule before it has a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewHoldRule {
    /// Which mail.
    #[serde(flatten)]
    pub fields: HoldFields,
    /// Who made it.
    pub by: String,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// A hold rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRule {
    /// Its number, never given twice.
    pub number: u32,
    /// Since when.
    pub since: Timestamp,
    /// Which mail, who and why.
    #[serde(flatten)]
    pub rule: NewHoldRule,
}

/// Keeps a rule, under a number of its own. One with the same fields must not be there.
pub(super) fn add(tx: &mut Tx<'_>, rule: NewHoldRule) -> Result<HoldRule> {
    if rule.by.len() > TEXT_BYTES_MAX || rule.reason.len() > TEXT_BYTES_MAX {
        return Err(StoreError::invalid(format!("a reason has at most {TEXT_BYTES_MAX} bytes")));
    }
    let known = all(tx.connection)?;
    if let Some(same) = known.iter().find(|known| known.rule.fields == rule.fields) {
        return Err(StoreError::invalid(format!("hold rule {} names the same mail", same.number)));
    }
    if known.len() >= HOLD_RULES_MAX {
        return Err(StoreError::invalid(format!("there are {HOLD_RULES_MAX} hold rules, which is the most")));
    }
    tx.connection
        .prepare_cached(
            "INSERT INTO hold_rule (account, sender_domain, recipient_domain, made_by, reason, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            rule.fields.account.as_ref().map(AccountName::as_str),
            rule.fields.sender_domain.as_ref().map(Domain::as_str),
            rule.fields.recipient_domain.as_ref().map(Domain::as_str),
            rule.by,
            rule.reason,
            micros(tx.now),
        ])?;
    let number = tx.connection.last_insert_rowid();
    let statement = "SELECT number, account, sender_domain, recipient_domain, made_by, reason, since
         FROM hold_rule WHERE number = ?1";
    let row = tx.connection.prepare_cached(statement)?.query_row([number], |row| Ok(read(row))).optional()?;
    row.ok_or_else(|| StoreError::corrupt("a hold rule"))?
}

/// Forgets a rule; false when there is none of that number.
pub(super) fn remove(tx: &mut Tx<'_>, number: u32) -> Result<bool> {
    let removed =
        tx.connection.prepare_cached("DELETE FROM hold_rule WHERE number = ?1")?.execute([number])?;
    Ok(removed > 0)
}

/// All rules in the order of their numbers.
pub(super) fn all(connection: &Connection) -> Result<Vec<HoldRule>> {
    let mut statement = connection.prepare_cached(
        "SELECT number, account, sender_domain, recipient_domain, made_by, reason, since
         FROM hold_rule ORDER BY number",
    )?;
    let mut rows = statement.query([])?;
    let mut rules = Vec::new();
    while let Some(row) = rows.next()? {
        rules.push(read(row)?);
    }
    Ok(rules)
}

fn read(row: &Row<'_>) -> Result<HoldRule> {
    let corrupt = || StoreError::corrupt("a hold rule");
    let domain = |column| -> Result<Option<Domain>> {
        let text: Option<String> = row.get(column)?;
        text.map(|text| text.parse().map_err(|_| corrupt())).transpose()
    };
    let account: Option<String> = row.get(1)?;
    let fields = HoldFields {
        account: account.map(|name| AccountName::new(&name).map_err(|_| corrupt())).transpose()?,
        sender_domain: domain(2)?,
        recipient_domain: domain(3)?,
    };
    let rule = NewHoldRule { fields, by: row.get(4)?, reason: row.get(5)? };
    Ok(HoldRule { number: row.get(0)?, since: timestamp(row.get(6)?)?, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_named_must_match() {
        let account = |name: &str| AccountName::new(name).ok();
        let domain = |name: &str| Some(name.parse().unwrap());
        let (from, null) = ("ann@ours.test".to_owned().try_into().unwrap(), ReversePath::Null);
        let to = Mailbox::parse("bob@there.test").unwrap();
        let ann = account("ann").unwrap();
        let nothing = HoldFields::default();
        for (fields, submitted, sender, expected) in [
            (nothing.clone(), Some(&ann), &from, true),
            (nothing.clone(), None, &null, true),
            (HoldFields { account: account("ann"), ..nothing.clone() }, Some(&ann), &from, true),
            (HoldFields { account: account("ann"), ..nothing.clone() }, None, &from, false),
            (HoldFields { account: account("bob"), ..nothing.clone() }, Some(&ann), &from, false),
            (HoldFields { sender_domain: domain("ours.test"), ..nothing.clone() }, None, &from, true),
            (HoldFields { sender_domain: domain("ours.test"), ..nothing.clone() }, None, &null, false),
            (HoldFields { sender_domain: domain("there.test"), ..nothing.clone() }, None, &from, false),
            (HoldFields { recipient_domain: domain("there.test"), ..nothing.clone() }, None, &null, true),
            (
                HoldFields { recipient_domain: domain("sub.there.test"), ..nothing.clone() },
                None,
                &null,
                false,
            ),
            (
                HoldFields {
                    account: account("ann"),
                    sender_domain: domain("ours.test"),
                    recipient_domain: domain("there.test"),
                },
                Some(&ann),
                &from,
                true,
            ),
            (
                HoldFields {
                    account: account("ann"),
                    sender_domain: domain("ours.test"),
                    recipient_domain: domain("elsewhere.test"),
                },
                Some(&ann),
                &from,
                false,
            ),
        ] {
            assert_eq!(
                fields.match_mail(submitted, sender, &to),
                expected,
                "{fields:?} {submitted:?} {sender:?}"
            );
        }
        assert!(nothing.name_nothing() && !HoldFields { account: Some(ann), ..nothing }.name_nothing());
    }
}
