//! The suppression list: an account's mail to a recipient that does not exist is refused when it is submitted, instead of
//! bouncing time and again.
//!
//! Filled by [`no_such_recipient`] from what peers answer, and by operators; an entry expires, and can be removed. The
//! store keeps it, a copy in memory is what RCPT is held against. Mail from other servers is never asked about.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::listing::QueueError;
use super::schedule::add;
use super::{Inner, Queue};
use crate::address::{Domain, Mailbox};
use crate::config::Config;
use crate::names::AccountName;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::spool::NewMessage;
use crate::store::{Store, StoreError, Suppression};

/// Entries on one page of a listing.
const PAGE_MAX: usize = 1_000;
/// What servers without enhanced status codes say of a recipient that they do not have; in lower case.
const NO_SUCH_RECIPIENT: &[&str] = &[
    "user unknown",
    "unknown user",
    "no such user",
    "no such mailbox",
    "no such recipient",
    "no mailbox here",
    "recipient unknown",
    "unknown recipient",
    "mailbox not found",
    "unrouteable address",
    "user not found",
];

/// Whether a failure says that the recipient does not exist: the peer's answer to RCPT, for good, about the address.
/// Refusals for policy (5.7.x), full or disabled mailboxes (5.2.x) and bad senders (5.1.7, 5.1.8) are not, and 5.1.0 may
/// mean either. What we found out ourselves is not either: a domain that has no hosts today may have some tomorrow.
pub fn no_such_recipient(outcome: &Outcome) -> bool {
    let by_peer = outcome.host.is_some() || outcome.ip.is_some();
    if outcome.verdict != Verdict::Permanent || outcome.stage != Stage::Rcpt || !by_peer {
        return false;
    }
    match outcome.enhanced {
        // RFC 3463 §3.2: bad mailbox, bad system, bad syntax, moved; RFC 7505: a null MX.
        Some(EnhancedCode { class: 5, subject: 1, detail }) => matches!(detail, 1 | 2 | 3 | 6 | 10),
        // 5.0.0 stands for none.
        Some(EnhancedCode { class: 5, subject: 0, detail: 0 }) | None => {
            let text = outcome.text.to_lowercase();
            matches!(outcome.code, Some(550 | 551 | 553))
                && NO_SUCH_RECIPIENT.iter().any(|w| text.contains(w))
        }
        Some(_) => false,
    }
}

/// The entry that a failure makes, if it makes one.
pub(super) fn of_failure(
    config: &Config,
    message: &NewMessage,
    recipient: u32,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<Suppression> {
    let kept = config.queue.suppress_bounced_for?;
    let account = message.account.clone()?;
    let address = message.envelope.recipients.get(recipient as usize)?.address.clone();
    no_such_recipient(outcome).then(|| {
        let host = outcome.host.as_ref().map_or_else(String::new, |host| format!("{host}: "));
        let code = outcome.code.map_or_else(String::new, |code| format!("{code} "));
        let enhanced = outcome.enhanced.map_or_else(String::new, |enhanced| format!("{enhanced} "));
        let reason = format!("{host}{code}{enhanced}{}", outcome.text);
        Suppression { account, address, reason, by: None, since: now, expires: Some(add(now, kept)) }
    })
}

type Entries = BTreeMap<AccountName, BTreeMap<String, Suppression>>;

/// The list of the moment.
pub(super) struct Suppressions {
    entries: RwLock<Entries>,
    /// From failures that happened since the last was written: the next writer takes them all.
    pending: Mutex<Vec<Suppression>>,
    /// Held while store and memory change together.
    changing: tokio::sync::Mutex<()>,
}

/// Which entries; what is not set matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuppressionFilter {
    /// Of this account.
    pub account: Option<AccountName>,
    /// These recipients.
    pub addresses: Vec<Mailbox>,
    /// Recipients in this domain.
    pub domain: Option<Domain>,
}

impl SuppressionFilter {
    fn matches(&self, entry: &Suppression) -> bool {
        self.account.as_ref().is_none_or(|account| entry.account == *account)
            && (self.addresses.is_empty() || self.addresses.contains(&entry.address))
            && self.domain.as_ref().is_none_or(|domain| entry.address.domain == *domain)
    }
}

/// A page of the list, by account and address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionPage {
    /// Entries.
    pub entries: Vec<Suppression>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<(AccountName, String)>,
}

impl Suppressions {
    /// Those that the store keeps.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let mut entries = Entries::new();
        for entry in store.suppressions().await? {
            insert(&mut entries, entry);
        }
        Ok(Self {
            entries: RwLock::new(entries),
            pending: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// Keeps what failures told. When the store fails it is not kept: the next failure tells it again.
    pub async fn learn(&self, store: &Store, learnt: Vec<Suppression>) {
        self.pending.lock().extend(learnt);
        let _changing = self.changing.lock().await;
        let learnt = std::mem::take(&mut *self.pending.lock());
        if learnt.is_empty() {
            // Whoever was before us wrote ours too.
            return;
        }
        if let Err(error) = self.keep(store, learnt).await {
            tracing::error!(%error, "cannot add to the suppression list");
        }
    }

    async fn keep(&self, store: &Store, new: Vec<Suppression>) -> Result<usize, StoreError> {
        let wanted = new.len();
        let kept = store.add_suppressions(new).await?;
        if kept.len() < wanted {
            tracing::warn!(left_out = wanted - kept.len(), "an account's suppression list is full");
        }
        let mut entries = self.entries.write();
        let count = kept.len();
        for entry in kept {
            insert(&mut entries, entry);
        }
        Ok(count)
    }

    fn matching(&self, filter: &SuppressionFilter) -> Vec<(AccountName, Mailbox)> {
        let entries = self.entries.read();
        let all = entries.values().flat_map(BTreeMap::values);
        all.filter(|entry| filter.matches(entry)).map(|e| (e.account.clone(), e.address.clone())).collect()
    }
}

fn insert(entries: &mut Entries, entry: Suppression) {
    entries.entry(entry.account.clone()).or_default().insert(entry.address.to_string(), entry);
}

impl Queue {
    /// Why an account's mail to a recipient is refused at that time, if it is.
    pub fn suppression(
        &self,
        account: &AccountName,
        recipient: &Mailbox,
        now: Timestamp,
    ) -> Option<Suppression> {
        let entries = self.inner.suppressions.entries.read();
        let entry = entries.get(account)?.get(&recipient.to_string())?;
        entry.holds(now).then(|| entry.clone())
    }

    /// A page of the suppression list after an account and address.
    pub fn suppressions(
        &self,
        filter: &SuppressionFilter,
        after: Option<&(AccountName, String)>,
        limit: usize,
        now: Timestamp,
    ) -> SuppressionPage {
        let limit = limit.clamp(1, PAGE_MAX);
        let entries = self.inner.suppressions.entries.read();
        let key = |entry: &Suppression| (entry.account.clone(), entry.address.to_string());
        let is_after = |entry: &&Suppression| after.is_none_or(|after| key(entry) > *after);
        let all = entries.values().flat_map(BTreeMap::values);
        let mut matching = all.filter(|entry| filter.matches(entry) && entry.holds(now)).filter(is_after);
        let page: Vec<Suppression> = matching.by_ref().take(limit).cloned().collect();
        let next = page.last().filter(|_| matching.next().is_some()).map(key);
        SuppressionPage { entries: page, next }
    }

    /// Adds entries, which take the place of those for the same account and address; the number kept.
    pub async fn suppress(&self, new: Vec<Suppression>) -> Result<usize, QueueError> {
        let list = &self.inner.suppressions;
        let _changing = list.changing.lock().await;
        Ok(list.keep(&self.inner.parts.store, new).await?)
    }

    /// Removes entries; `dry_run` only counts them.
    pub async fn unsuppress(&self, filter: &SuppressionFilter, dry_run: bool) -> Result<usize, QueueError> {
        let list = &self.inner.suppressions;
        let _changing = list.changing.lock().await;
        let gone = list.matching(filter);
        if !dry_run {
            self.inner.parts.store.remove_suppressions(gone.clone()).await?;
            let mut entries = list.entries.write();
            for (account, address) in &gone {
                if let Some(of_account) = entries.get_mut(account) {
                    of_account.remove(&address.to_string());
                }
            }
            entries.retain(|_, of_account| !of_account.is_empty());
        }
        Ok(gone.len())
    }
}

impl Inner {
    /// Forgets what has expired.
    pub(super) async fn forget_expired_suppressions(&self, now: Timestamp) -> Result<usize, StoreError> {
        let _changing = self.suppressions.changing.lock().await;
        let gone = self.parts.store.prune_suppressions(now).await?;
        let mut entries = self.suppressions.entries.write();
        entries.values_mut().for_each(|of_account| of_account.retain(|_, entry| entry.holds(now)));
        entries.retain(|_, of_account| !of_account.is_empty());
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_failures_say_that_the_recipient_does_not_exist() {
        use Stage::{Data, Dns, Mail, Rcpt};
        use Verdict::{Delivered, Permanent, Temporary};
        for (verdict, stage, code, enhanced, text, expected) in [
            (Permanent, Rcpt, 550, "5.1.1", "user unknown", true),
            (Permanent, Rcpt, 550, "5.1.2", "no such host here", true),
            (Permanent, Rcpt, 553, "5.1.3", "bad syntax", true),
            (Permanent, Rcpt, 551, "5.1.6", "has moved", true),
            (Permanent, Rcpt, 556, "5.1.10", "takes no mail", true),
            (Permanent, Rcpt, 550, "5.0.0", "Unknown user", true),
            (Permanent, Rcpt, 550, "5.0.0", "Unrouteable address", true),
            // A policy, a full or a disabled mailbox, a sender that is not liked, something else.
            (Permanent, Rcpt, 550, "5.7.1", "blocked: user unknown to us", false),
            (Permanent, Rcpt, 554, "5.7.1", "blocked", false),
            (Permanent, Rcpt, 552, "5.2.2", "mailbox full", false),
            (Permanent, Rcpt, 550, "5.2.1", "disabled", false),
            (Permanent, Rcpt, 550, "5.1.0", "address rejected", false),
            (Permanent, Rcpt, 553, "5.1.7", "bad sender", false),
            (Permanent, Rcpt, 553, "5.1.8", "sender's domain does not exist", false),
            (Permanent, Rcpt, 550, "5.0.0", "you are listed at rbl.example", false),
            (Permanent, Rcpt, 554, "5.0.0", "no such user", false),
            // Not for good, or not about one recipient.
            (Temporary, Rcpt, 450, "4.1.1", "user unknown", false),
            (Delivered, Data, 250, "2.1.5", "ok", false),
            (Permanent, Mail, 550, "5.1.1", "user unknown", false),
            (Permanent, Data, 550, "5.1.1", "user unknown", false),
            (Permanent, Dns, 550, "5.1.2", "no such domain", false),
        ] {
            let outcome = Outcome {
                host: Some("mx.outside.test".into()),
                code: Some(code),
                ..Outcome::ours(verdict, stage, enhanced.parse().unwrap(), text)
            };
            assert_eq!(no_such_recipient(&outcome), expected, "{outcome:?}");
        }
        let ours = Outcome::ours(Permanent, Rcpt, EnhancedCode::new(5, 1, 1), "no such user");
        assert!(!no_such_recipient(&ours), "a `fail` transport is a policy");
    }
}
