//! Opening and closing a mailbox: SELECT, EXAMINE, CLOSE, UNSELECT.
//!
//! RFC 9051 §6.3.2, §6.3.3, §6.4.1, §6.4.2; RFC 3501 §6.3.1 (RECENT, UNSEEN); RFC 7162 §3.1.2 (HIGHESTMODSEQ).

use imap_types::command::SelectParameter;
use imap_types::mailbox::Mailbox;

use super::{Answer, Done, Selected, Session, State};
use crate::imap_server::output::Output;
use crate::imap_server::view::View;
use crate::names::AccountName;
use crate::store::SystemFlag;

impl Session {
    pub(super) async fn select(
        &mut self,
        account: &AccountName,
        mailbox: &Mailbox<'_>,
        parameters: &[SelectParameter],
        read_only: bool,
        output: &mut Output,
    ) -> Done {
        if parameters.iter().any(|parameter| !matches!(parameter, SelectParameter::CondStore)) {
            return Ok(Answer::bad("Only CONDSTORE can be asked for here"));
        }
        // RFC 9051 §6.3.2: the old mailbox is closed, also when the new one cannot be opened.
        if matches!(self.state, State::Selected(..)) {
            self.state = State::Authenticated(account.clone());
            output.untagged("OK [CLOSED] The mailbox before is closed");
        }
        self.condstore |= !parameters.is_empty();
        let name = match super::mailboxes::name_of(mailbox) {
            Ok(name) => name,
            Err(refusal) => return Ok(refusal),
        };
        let store = &self.ctx.store;
        let info = store.mailbox(account, &name).await?;
        // Watched before it is read: nothing is missed in between.
        let mut watch = store.watch(info.id);
        watch.mark_unchanged();
        let opened = store.open_view(info.id).await?;
        let keywords = store.keywords(info.id).await?;
        let (uidvalidity, uidnext, modseq) = (opened.uidvalidity, opened.uidnext, opened.highest_modseq);
        let view = View::new(opened);
        let unseen =
            view.rows().find(|(_, row)| !row.flags.contains(SystemFlag::Seen)).map(|(number, _)| number);
        let selected = Selected { mailbox: info.id, read_only, view, watch, keywords };
        selected.write_flag_names(output);
        output.untagged(format_args!("{} EXISTS", selected.view.len()));
        output.untagged("0 RECENT");
        if let Some(unseen) = unseen {
            output.untagged(format_args!("OK [UNSEEN {unseen}] First unseen"));
        }
        output.untagged(format_args!("OK [UIDVALIDITY {uidvalidity}] UIDs are valid"));
        output.untagged(format_args!("OK [UIDNEXT {uidnext}] Predicted next UID"));
        output.untagged(format_args!("OK [HIGHESTMODSEQ {modseq}] Highest"));
        self.state = State::Selected(account.clone(), Box::new(selected));
        Ok(if read_only {
            Answer::ok("EXAMINE completed").with("READ-ONLY")
        } else {
            Answer::ok("SELECT completed").with("READ-WRITE")
        })
    }

    /// CLOSE expunges without telling; UNSELECT does not expunge.
    pub(super) async fn close(&mut self, expunge: bool) -> Done {
        let store = self.ctx.store.clone();
        let selected = self.selected()?;
        if expunge && !selected.read_only {
            store.expunge(selected.mailbox, None).await?;
        }
        self.unselect();
        Ok(Answer::ok("The mailbox is closed"))
    }

    pub(super) fn unselect(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Logout);
        self.state = match state {
            State::Selected(account, _) => State::Authenticated(account),
            other => other,
        };
    }
}
