//! The messages of the selected mailbox: FETCH, STORE, EXPUNGE.
//!
//! RFC 9051 §6.4.3, §6.4.5, §6.4.6, §6.4.9; RFC 4315 (UID EXPUNGE); RFC 7162 §3.1.3, §3.1.4 (UNCHANGEDSINCE,
//! CHANGEDSINCE); RFC 2180 (messages that another session expunged).

use imap_types::command::{FetchModifier, StoreModifier};
use imap_types::fetch::MacroOrMessageDataItemNames;
use imap_types::flag::{Flag, StoreResponse, StoreType};
use imap_types::sequence::SequenceSet;

use super::{Answer, Done, Failure, Session};
use crate::imap_server::fetch::{self, Items, Needs, Text};
use crate::imap_server::view::write_set;
use crate::imap_server::wire::Wire;
use crate::store::{FlagOp, Flags, MailboxId, MessageRow, Store, StoreError, SystemFlag};

/// Message from which the structure is worked out off the async threads, bytes.
const LARGE_BYTES_MIN: usize = 512 * 1024;

/// What STORE changes.
pub(super) struct Change {
    pub(super) kind: StoreType,
    pub(super) response: StoreResponse,
    pub(super) flags: Vec<Flag<'static>>,
    pub(super) modifiers: Vec<StoreModifier>,
}

impl Session {
    pub(super) async fn fetch(
        &mut self,
        set: &SequenceSet,
        asked: MacroOrMessageDataItemNames<'static>,
        uid: bool,
        modifiers: &[FetchModifier],
        wire: &mut Wire,
    ) -> Done {
        let mut items = Items::new(asked, uid);
        if items.has_unknown() || modifiers.contains(&FetchModifier::Vanished) {
            return Ok(Answer::bad("BINARY and VANISHED are not offered"));
        }
        let since = modifiers.iter().find_map(|modifier| match modifier {
            FetchModifier::ChangedSince(modseq) => Some(modseq.get()),
            FetchModifier::Vanished => None,
        });
        if since.is_some() {
            items = items.with_modseq();
        }
        self.condstore |= items.has_modseq();
        let selected = self.selected()?;
        let mut numbers = match selected.view.resolve(set, uid) {
            Ok(numbers) => numbers,
            Err(no_such_number) => return Ok(Answer::bad(no_such_number.to_string())),
        };
        if let Some(since) = since {
            numbers.retain(|number| selected.view.row(*number).is_some_and(|row| row.modseq > since));
        }
        if items.sets_seen() && !selected.read_only {
            let seen_now = self.set_seen(&numbers).await?;
            if !seen_now.is_empty() {
                // RFC 9051 §6.4.5: flags that change because of the FETCH are told with it.
                items = items.with_flags();
            }
        }
        let all_there = self.write_fetched(&numbers, &items, wire).await?;
        // RFC 9051 §6.4.9: a UID that is not there is no error.
        Ok(if all_there || uid {
            Answer::ok("FETCH completed")
        } else {
            // RFC 2180 §4.1.2
            Answer::no("EXPUNGEISSUED", "Some of these messages are expunged")
        })
    }

    /// Sets `\Seen` where it is missing; the UIDs.
    async fn set_seen(&mut self, numbers: &[u32]) -> Result<Vec<u32>, Failure> {
        let store = self.ctx.store.clone();
        let selected = self.selected()?;
        let rows = numbers.iter().filter_map(|number| selected.view.row(*number));
        let unseen: Vec<u32> =
            rows.filter(|row| !row.flags.contains(SystemFlag::Seen)).map(|row| row.uid).collect();
        if !unseen.is_empty() {
            let seen = Flags::new().with(SystemFlag::Seen);
            store.store_flags(selected.mailbox, unseen.clone(), FlagOp::Add, seen, None).await?;
            self.catch_up().await?;
        }
        Ok(unseen)
    }

    /// Writes the data; false when a message was not there any more.
    async fn write_fetched(
        &mut self,
        numbers: &[u32],
        items: &Items,
        wire: &mut Wire,
    ) -> Result<bool, Failure> {
        let store = self.ctx.store.clone();
        let needs = items.needs();
        let selected = self.selected()?;
        let mailbox = selected.mailbox;
        let mut all_there = true;
        for number in numbers {
            let Some(row) = selected.view.row(*number).cloned() else { continue };
            let Some(text) = read(&store, mailbox, &row, needs, items.wants_structure()).await? else {
                all_there = false;
                continue;
            };
            fetch::write_start(&mut wire.output, *number);
            let mut at = 0;
            while fetch::write_next(&mut wire.output, at, &row, items, &text) {
                at += 1;
                wire.flush_if_full().await?;
            }
            if items.has_flags() {
                selected.view.knows_flags(row.uid);
            }
            wire.flush_if_full().await?;
        }
        Ok(all_there)
    }

    pub(super) async fn store(
        &mut self,
        set: &SequenceSet,
        change: Change,
        uid: bool,
        wire: &mut Wire,
    ) -> Done {
        let store = self.ctx.store.clone();
        let unchanged_since =
            change.modifiers.iter().map(|StoreModifier::UnchangedSince(modseq)| *modseq).next();
        self.condstore |= unchanged_since.is_some();
        let condstore = self.condstore;
        let selected = self.selected()?;
        if selected.read_only {
            return Ok(Answer::no("READ-ONLY", "The mailbox is open read-only"));
        }
        let numbers = match selected.view.resolve(set, uid) {
            Ok(numbers) => numbers,
            Err(no_such_number) => return Ok(Answer::bad(no_such_number.to_string())),
        };
        let names: Vec<String> = change.flags.iter().map(ToString::to_string).collect();
        let flags = match Flags::parse(names.iter().map(String::as_str)) {
            Ok(flags) => flags,
            Err(StoreError::Invalid(why)) => return Ok(Answer::bad(why)),
            Err(error) => return Err(error.into()),
        };
        let op = match change.kind {
            StoreType::Add => FlagOp::Add,
            StoreType::Remove => FlagOp::Remove,
            StoreType::Replace => FlagOp::Replace,
        };
        let targets: Vec<MessageRow> =
            numbers.iter().filter_map(|number| selected.view.row(*number)).cloned().collect();
        let some_gone = targets.iter().any(|row| selected.view.is_gone(row.uid));
        let uids = targets.iter().map(|row| row.uid).collect();
        let stored = store.store_flags(selected.mailbox, uids, op, flags.clone(), unchanged_since).await?;
        self.catch_up().await?;
        let selected = self.selected()?;
        let silent = change.response == StoreResponse::Silent;
        for row in targets.iter().filter(|row| stored.modified.binary_search(&row.uid).is_err()) {
            let Some(number) = selected.view.number(row.uid) else { continue };
            let Some(now) = selected.view.row(number) else { continue };
            // Without an answer the client goes by what it asked for, unless something else happened too.
            let as_asked = now.flags == row.flags.apply(op, &flags);
            let (modseq, changed) = (now.modseq, now.modseq != row.modseq);
            if !silent {
                selected.view.knows_flags(row.uid);
                selected.write_flags_of(&mut wire.output, number, uid, condstore);
            } else if as_asked {
                selected.view.knows_flags(row.uid);
                if condstore && changed {
                    // RFC 7162 §3.1.3: the new MODSEQ is told even so.
                    let output = &mut wire.output;
                    output.raw("* ").show(number).raw(" FETCH (UID ").show(row.uid);
                    output.raw(" MODSEQ (").show(modseq).raw("))").end();
                }
            }
            wire.flush_if_full().await?;
        }
        if !stored.modified.is_empty() {
            let failed: Vec<u32> = if uid {
                stored.modified
            } else {
                stored.modified.iter().filter_map(|uid| selected.view.number(*uid)).collect()
            };
            return Ok(
                Answer::ok("Some have changed in between").with(format!("MODIFIED {}", write_set(failed)))
            );
        }
        Ok(if some_gone && !uid {
            Answer::no("EXPUNGEISSUED", "Some of these messages are expunged") // RFC 2180 §4.2
        } else {
            Answer::ok("STORE completed")
        })
    }

    /// The EXPUNGEs follow as news.
    pub(super) async fn expunge(&mut self, only: Option<&SequenceSet>) -> Done {
        let store = self.ctx.store.clone();
        let selected = self.selected()?;
        if selected.read_only {
            return Ok(Answer::no("READ-ONLY", "The mailbox is open read-only"));
        }
        let only = only.map(|set| {
            let numbers = selected.view.resolve_lenient(set, true);
            numbers.iter().filter_map(|number| selected.view.row(*number)).map(|row| row.uid).collect()
        });
        store.expunge(selected.mailbox, only).await?;
        Ok(Answer::ok("EXPUNGE completed"))
    }
}

/// Reads as much of a message as is needed; `None` when it is gone. What takes long to work out on a large message is
/// worked out here, off the async threads.
pub(super) async fn read(
    store: &Store,
    mailbox: MailboxId,
    row: &MessageRow,
    needs: Needs,
    structure: bool,
) -> Result<Option<Text>, Failure> {
    let octets = match needs {
        Needs::Row => return Ok(Some(Text::default())),
        Needs::Header => store.header(mailbox, row.uid).await?,
        Needs::Content => store.content(mailbox, row.uid).await?,
    };
    let Some(octets) = octets else { return Ok(None) };
    let text = Text::new(octets);
    if !structure || text.whole().len() < LARGE_BYTES_MIN {
        return Ok(Some(text));
    }
    let worked_out = tokio::task::spawn_blocking(move || {
        text.structure();
        text
    });
    match worked_out.await {
        Ok(text) => Ok(Some(text)),
        Err(error) => Err(StoreError::Database(format!("a message cannot be read: {error}")).into()),
    }
}
