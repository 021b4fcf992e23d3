//! Who wants to hear of changes: told after the commit, with numbers only; what changed is read from the database.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::types::MailboxId;
use super::writer::Effects;
use crate::names::AccountName;

/// Those who watch mailboxes and accounts.
#[derive(Default)]
pub(super) struct Watchers {
    mailboxes: Mutex<HashMap<MailboxId, watch::Sender<u64>>>,
    accounts: Mutex<HashMap<AccountName, watch::Sender<u64>>>,
}

impl Watchers {
    pub(super) fn mailbox(&self, mailbox: MailboxId) -> watch::Receiver<u64> {
        self.mailboxes.lock().entry(mailbox).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    pub(super) fn account(&self, account: &AccountName) -> watch::Receiver<u64> {
        let mut accounts = self.accounts.lock();
        match accounts.get(account) {
            Some(sender) => sender.subscribe(),
            None => accounts.entry(account.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe(),
        }
    }

    /// Tells of everything one commit changed, and forgets whom nobody watches any more.
    pub(super) fn publish(&self, effects: Vec<Effects>) {
        let (mut mailboxes, mut accounts) = (self.mailboxes.lock(), self.accounts.lock());
        for effect in effects {
            for (id, modseq) in effect.mailboxes {
                tell(&mut mailboxes, &id, |value| *value = modseq.max(*value));
            }
            for id in effect.gone {
                // Receivers see that the sender is gone.
                mailboxes.remove(&id);
            }
            for account in effect.accounts {
                tell(&mut accounts, &account, |value| *value += 1);
            }
        }
    }
}

fn tell<K: std::hash::Hash + Eq>(
    senders: &mut HashMap<K, watch::Sender<u64>>,
    key: &K,
    change: impl FnOnce(&mut u64),
) {
    let Some(sender) = senders.get(key) else { return };
    if sender.receiver_count() == 0 {
        senders.remove(key);
    } else {
        sender.send_modify(change);
    }
}
