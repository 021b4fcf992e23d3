//! Putting messages into mailboxes: APPEND, COPY, MOVE.
//!
//! RFC 9051 §6.3.12, §6.4.7, §6.4.8; RFC 4315 (APPENDUID, COPYUID); RFC 6851 (MOVE).

use imap_types::mailbox::Mailbox;
use imap_types::sequence::SequenceSet;

use super::{Answer, Done, Failure, Session};
use crate::imap_server::output::Output;
use crate::imap_server::parse::Append;
use crate::imap_server::utf7;
use crate::imap_server::view::write_set;
use crate::names::AccountName;
use crate::store::{Copied, Flags, MailboxId, NewMail, StoreError};

impl Session {
    pub(super) async fn append(&mut self, account: &AccountName, append: Append) -> Done {
        let Append { mailbox, flags, date, content, binary } = append;
        if binary {
            return Ok(Answer::no("CANNOT", "BINARY is not offered"));
        }
        if content.is_empty() {
            return Ok(Answer::bad("A message is not empty"));
        }
        let mailbox = match self.target(account, utf7::decode(&mailbox)).await? {
            Ok(mailbox) => mailbox,
            Err(refusal) => return Ok(refusal),
        };
        // \Recent cannot be set by clients (RFC 3501 §2.3.2) and is passed over, as clients that copy flags send it.
        let flags = flags.iter().map(String::as_str).filter(|flag| !flag.eq_ignore_ascii_case("\\Recent"));
        let flags = Flags::parse(flags)?;
        let internal_date = date.unwrap_or_else(crate::clock::now);
        let appended =
            self.ctx.store.append(mailbox, vec![NewMail { content, flags, internal_date }]).await?;
        let code = format!("APPENDUID {} {}", appended.uidvalidity, write_set(appended.uids));
        Ok(Answer::ok("APPEND completed").with(code))
    }

    pub(super) async fn copy(
        &mut self,
        account: &AccountName,
        set: &SequenceSet,
        to: &Mailbox<'_>,
        uid: bool,
    ) -> Done {
        let (from, uids) = match self.chosen(set, uid)? {
            Ok(chosen) => chosen,
            Err(refusal) => return Ok(refusal),
        };
        let to = match self.target(account, super::mailboxes::name_of(to).ok()).await? {
            Ok(to) => to,
            Err(refusal) => return Ok(refusal),
        };
        let copied = self.ctx.store.copy_messages(from, uids, to).await?;
        Ok(match copyuid(&copied) {
            Some(code) => Answer::ok("COPY completed").with(code),
            None => Answer::ok("There was nothing to copy"),
        })
    }

    pub(super) async fn move_to(
        &mut self,
        account: &AccountName,
        set: &SequenceSet,
        to: &Mailbox<'_>,
        uid: bool,
        output: &mut Output,
    ) -> Done {
        if self.selected()?.read_only {
            return Ok(Answer::no("READ-ONLY", "The mailbox is open read-only"));
        }
        let (from, uids) = match self.chosen(set, uid)? {
            Ok(chosen) => chosen,
            Err(refusal) => return Ok(refusal),
        };
        let to = match self.target(account, super::mailboxes::name_of(to).ok()).await? {
            Ok(to) => to,
            Err(refusal) => return Ok(refusal),
        };
        let moved = self.ctx.store.move_messages(from, uids, to).await?;
        if let Some(code) = copyuid(&moved) {
            // RFC 6851 §4.3: before the EXPUNGEs, which follow as news.
            output.untagged(format_args!("OK [{code}] Moved"));
        }
        Ok(Answer::ok("MOVE completed"))
    }

    /// The mailbox that messages go to; TRYCREATE when there is none (RFC 9051 §6.3.12).
    async fn target(
        &self,
        account: &AccountName,
        name: Option<String>,
    ) -> Result<Result<MailboxId, Answer>, Failure> {
        let Some(name) = name else {
            return Ok(Err(Answer::no("CANNOT", "Mailbox names are in modified UTF-7 (RFC 3501, 5.1.3)")));
        };
        match self.ctx.store.mailbox(account, &name).await {
            Ok(info) => Ok(Ok(info.id)),
            Err(StoreError::NotFound(_)) => Ok(Err(Answer::no("TRYCREATE", "There is no such mailbox"))),
            Err(error) => Err(error.into()),
        }
    }

    /// The UIDs that a set means in the selected mailbox, or the refusal.
    fn chosen(
        &mut self,
        set: &SequenceSet,
        uid: bool,
    ) -> Result<Result<(MailboxId, Vec<u32>), Answer>, Failure> {
        let selected = self.selected()?;
        let numbers = match selected.view.resolve(set, uid) {
            Ok(numbers) => numbers,
            Err(no_such_number) => return Ok(Err(Answer::bad(no_such_number.to_string()))),
        };
        let uids: Vec<u32> =
            numbers.iter().filter_map(|n| selected.view.row(*n)).map(|row| row.uid).collect();
        if !uid && uids.iter().any(|uid| selected.view.is_gone(*uid)) {
            // RFC 2180 §4.4: not some of them without a word.
            return Ok(Err(Answer::no("EXPUNGEISSUED", "Some of these messages are expunged")));
        }
        Ok(Ok((selected.mailbox, uids)))
    }
}

fn copyuid(copied: &Copied) -> Option<String> {
    if copied.pairs.is_empty() {
        return None;
    }
    let from = write_set(copied.pairs.iter().map(|(from, _)| *from));
    let to = write_set(copied.pairs.iter().map(|(_, to)| *to));
    Some(format!("COPYUID {} {from} {to}", copied.uidvalidity))
}
