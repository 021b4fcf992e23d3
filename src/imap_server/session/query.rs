//! SEARCH in the selected mailbox.
//!
//! RFC 9051 §6.4.4, RFC 3501 §7.2.5 (the answer), RFC 7162 §3.1.5 (MODSEQ in it).

use std::sync::Arc;

use imap_types::core::Charset;
use imap_types::search::SearchKey;

use super::messages::read;
use super::{Answer, Done, Failure, Session};
use crate::imap_server::fetch::Needs;
use crate::imap_server::search::{Candidate, Query, asks_modseq};
use crate::imap_server::wire::Wire;
use crate::store::{MailboxId, MessageRow, Store, StoreError};

/// Message from which it is searched off the async threads, bytes.
const LARGE_BYTES_MIN: u64 = 128 * 1024;

impl Session {
    pub(super) async fn search(
        &mut self,
        charset: Option<&Charset<'_>>,
        keys: &[SearchKey<'_>],
        uid: bool,
        wire: &mut Wire,
    ) -> Done {
        let known = |name: &str| ["UTF-8", "US-ASCII"].iter().any(|known| known.eq_ignore_ascii_case(name));
        if charset.is_some_and(|charset| !known(charset.as_ref())) {
            return Ok(Answer::no("BADCHARSET (US-ASCII UTF-8)", "That charset is not known"));
        }
        let store = self.ctx.store.clone();
        let with_modseq = asks_modseq(keys);
        self.condstore |= with_modseq;
        let selected = self.selected()?;
        let query = Arc::new(Query::new(keys, &selected.view, crate::clock::now()));
        let mut found = Vec::new();
        let mut highest = 0;
        for (number, row) in selected.view.rows() {
            if fits(&store, selected.mailbox, &query, number, row).await? {
                found.push(if uid { row.uid } else { number });
                highest = highest.max(row.modseq);
            }
        }
        let output = &mut wire.output;
        output.raw("* SEARCH");
        for number in &found {
            output.raw(" ").show(number);
        }
        if with_modseq && !found.is_empty() {
            output.raw(" (MODSEQ ").show(highest).raw(")");
        }
        output.end();
        Ok(Answer::ok("SEARCH completed"))
    }
}

/// Asks with as little of the message as decides.
async fn fits(
    store: &Store,
    mailbox: MailboxId,
    query: &Arc<Query>,
    number: u32,
    row: &MessageRow,
) -> Result<bool, Failure> {
    if let Some(decided) = query.decide(&Candidate { number, row, text: None, have: Needs::Row }) {
        return Ok(decided);
    }
    for have in [Needs::Header, Needs::Content] {
        if have > query.cost() {
            break;
        }
        let Some(text) = read(store, mailbox, row, have, false).await? else {
            // Expunged by somebody else: nothing of it can be found any more.
            return Ok(false);
        };
        let large = have == Needs::Content && row.size >= LARGE_BYTES_MIN;
        let decided = if large {
            let (query, row) = (Arc::clone(query), row.clone());
            let work = move || query.decide(&Candidate { number, row: &row, text: Some(&text), have });
            let failed = |error| StoreError::Database(format!("a message cannot be searched: {error}"));
            tokio::task::spawn_blocking(work).await.map_err(failed)?
        } else {
            let decided = query.decide(&Candidate { number, row, text: Some(&text), have });
            tokio::task::consume_budget().await;
            decided
        };
        if let Some(decided) = decided {
            return Ok(decided);
        }
    }
    Ok(false)
}
