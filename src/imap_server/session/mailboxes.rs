//! The account's mailboxes: LIST, LSUB, STATUS, CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE.
//!
//! RFC 9051 §6.3, RFC 3501 §6.3.9 (LSUB), RFC 8438 (STATUS=SIZE), RFC 7162 §3.1.7 (HIGHESTMODSEQ).

use imap_types::mailbox::{ListMailbox, Mailbox};
use imap_types::status::StatusDataItemName as Item;

use super::{Answer, Done, Session, State};
use crate::imap_server::list::{self, Listed};
use crate::imap_server::output::Output;
use crate::imap_server::utf7;
use crate::names::AccountName;
use crate::store::INBOX;

/// A mailbox name from the wire, or the refusal.
pub(super) fn name_of(mailbox: &Mailbox<'_>) -> Result<String, Answer> {
    let name = match mailbox {
        Mailbox::Inbox => Some(INBOX.to_owned()),
        Mailbox::Other(other) => utf7::decode(other.as_ref()),
    };
    name.ok_or_else(|| Answer::no("CANNOT", "Mailbox names are in modified UTF-7 (RFC 3501, 5.1.3)"))
}

impl Session {
    pub(super) async fn create(&mut self, account: &AccountName, mailbox: &Mailbox<'_>) -> Done {
        match name_of(mailbox) {
            Ok(name) => self.ctx.store.create_mailbox(account, &name).await?,
            Err(refusal) => return Ok(refusal),
        };
        Ok(Answer::ok("CREATE completed"))
    }

    pub(super) async fn delete(
        &mut self,
        account: &AccountName,
        mailbox: &Mailbox<'_>,
        output: &mut Output,
    ) -> Done {
        let name = match name_of(mailbox) {
            Ok(name) => name,
            Err(refusal) => return Ok(refusal),
        };
        let info = self.ctx.store.mailbox(account, &name).await?;
        self.ctx.store.delete_mailbox(account, &name).await?;
        if matches!(&self.state, State::Selected(_, selected) if selected.mailbox == info.id) {
            self.unselect();
            output.untagged("OK [CLOSED] The selected mailbox is deleted");
        }
        Ok(Answer::ok("DELETE completed"))
    }

    pub(super) async fn rename(
        &mut self,
        account: &AccountName,
        from: &Mailbox<'_>,
        to: &Mailbox<'_>,
    ) -> Done {
        match (name_of(from), name_of(to)) {
            (Ok(from), Ok(to)) => self.ctx.store.rename_mailbox(account, &from, &to).await?,
            (Err(refusal), _) | (_, Err(refusal)) => return Ok(refusal),
        }
        Ok(Answer::ok("RENAME completed"))
    }

    pub(super) async fn subscribe(&mut self, account: &AccountName, mailbox: &Mailbox<'_>, on: bool) -> Done {
        match name_of(mailbox) {
            Ok(name) => self.ctx.store.subscribe(account, &name, on).await?,
            Err(refusal) => return Ok(refusal),
        }
        Ok(Answer::ok(if on { "SUBSCRIBE completed" } else { "UNSUBSCRIBE completed" }))
    }

    pub(super) async fn list(
        &mut self,
        account: &AccountName,
        reference: &Mailbox<'_>,
        pattern: &ListMailbox<'_>,
        output: &mut Output,
    ) -> Done {
        match full_pattern(reference, pattern) {
            // RFC 9051 §6.3.9: an empty pattern asks for the separator.
            None => drop(output.untagged("LIST (\\Noselect) \"/\" \"\"")),
            Some(pattern) => {
                let mailboxes = self.ctx.store.mailboxes(account).await?;
                write_listed(output, "LIST", &list::list(&pattern, &mailboxes));
            }
        }
        Ok(Answer::ok("LIST completed"))
    }

    pub(super) async fn lsub(
        &mut self,
        account: &AccountName,
        reference: &Mailbox<'_>,
        pattern: &ListMailbox<'_>,
        output: &mut Output,
    ) -> Done {
        match full_pattern(reference, pattern) {
            None => drop(output.untagged("LSUB (\\Noselect) \"/\" \"\"")),
            Some(pattern) => {
                let names = self.ctx.store.subscriptions(account).await?;
                write_listed(output, "LSUB", &list::lsub(&pattern, &names));
            }
        }
        Ok(Answer::ok("LSUB completed"))
    }

    pub(super) async fn status(
        &mut self,
        account: &AccountName,
        mailbox: &Mailbox<'_>,
        items: &[Item],
        output: &mut Output,
    ) -> Done {
        if items.is_empty() || items.contains(&Item::DeletedStorage) {
            return Ok(Answer::bad("That cannot be asked for"));
        }
        let name = match name_of(mailbox) {
            Ok(name) => name,
            Err(refusal) => return Ok(refusal),
        };
        let info = self.ctx.store.mailbox(account, &name).await?;
        let status = self.ctx.store.status(info.id).await?;
        self.condstore |= items.contains(&Item::HighestModSeq);
        output.raw("* STATUS ").astring(&utf7::encode(&info.name)).raw(" (");
        for (at, item) in items.iter().enumerate() {
            output.raw(if at == 0 { "" } else { " " });
            match item {
                Item::Messages => output.raw("MESSAGES ").show(status.messages),
                Item::Recent | Item::DeletedStorage => output.raw("RECENT 0"),
                Item::UidNext => output.raw("UIDNEXT ").show(status.uidnext),
                Item::UidValidity => output.raw("UIDVALIDITY ").show(status.uidvalidity),
                Item::Unseen => output.raw("UNSEEN ").show(status.unseen),
                Item::Deleted => output.raw("DELETED ").show(status.deleted),
                Item::Size => output.raw("SIZE ").show(status.size),
                Item::HighestModSeq => output.raw("HIGHESTMODSEQ ").show(status.highest_modseq),
            };
        }
        output.raw(")").end();
        Ok(Answer::ok("STATUS completed"))
    }
}

/// Reference and pattern put together; `None` for an empty pattern.
fn full_pattern(reference: &Mailbox<'_>, pattern: &ListMailbox<'_>) -> Option<String> {
    let pattern: &[u8] = match pattern {
        ListMailbox::Token(token) => token.as_ref(),
        ListMailbox::String(string) => string.as_ref(),
    };
    if pattern.is_empty() {
        return None;
    }
    let reference: &[u8] = match reference {
        Mailbox::Inbox => INBOX.as_bytes(),
        Mailbox::Other(other) => other.as_ref(),
    };
    let whole = [reference, pattern].concat();
    // A pattern that is no modified UTF-7 fits no name, except where it is plain text after all.
    Some(utf7::decode(&whole).unwrap_or_else(|| String::from_utf8_lossy(&whole).into_owned()))
}

fn write_listed(output: &mut Output, response: &str, listed: &[Listed]) {
    for Listed { name, attributes } in listed {
        output.raw("* ").raw(response).raw(" (").raw(&attributes.join(" ")).raw(") \"/\" ");
        output.astring(&utf7::encode(name)).end();
    }
}
