//! How long a session bears with a client: wrong commands, and those that lead nowhere, are counted.

use super::{Action, Session};
use crate::config::{Config, Limits};
use crate::smtp::command::Verb;
use crate::smtp_server::replies;

impl Session {
    /// Counts wrong commands, and those that lead nowhere; lets no client go on so for ever.
    pub(super) fn count(&mut self, config: &Config, verb: Option<Verb>, action: Action) -> Action {
        let Limits { idle_commands_max, bad_commands_max, .. } = config.limits;
        let code = match &action {
            Action::Reply(reply) | Action::ReplyAfter(_, reply) | Action::SkipChunk(_, reply) => reply.code,
            // Asking for salts over and over leads nowhere.
            Action::FindKeys(_) => return action,
            _ => {
                self.bad = 0;
                return action;
            }
        };
        match (verb, code) {
            (Some(Verb::Rcpt), ..300) => (self.bad, self.idle) = (0, 0),
            (Some(Verb::Mail), ..300) => self.bad = 0,
            // Guessing addresses leads nowhere, but is not wrong.
            (Some(Verb::Mail | Verb::Rcpt), 500..) if !is_wrong(code) => self.idle += 1,
            (_, 500..) => self.bad += 1,
            // "Later" is no fault of the client's: a list of recipients may be longer than we take at once.
            (_, 300..) => {}
            _ => {
                self.bad = 0;
                self.idle += 1;
            }
        }
        if bad_commands_max.is_some_and(|max| self.bad > max) {
            return Action::Close(replies::too_many_errors());
        }
        if idle_commands_max.is_some_and(|max| self.idle > max) {
            return Action::Close(replies::no_progress());
        }
        action
    }
}

/// A mistake in the command or its place, not a refusal of what it asks.
fn is_wrong(code: u16) -> bool {
    matches!(code, 500..=504 | 555)
}
