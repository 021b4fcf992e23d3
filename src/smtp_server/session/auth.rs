//! AUTH in a session (RFC 4954): which mechanisms are offered, the exchange, and who the client then is.
//!
//! What SASL wants to know in between, a password or its keys, is asked of the connection as an [`Action`].

use super::{Action, Session, State, Tls};
use crate::address::Mailbox;
use crate::config::{Config, Lookup};
use crate::names::AccountName;
use crate::sasl::{self, Credentials, Exchange, Facts, Hash, Mechanism, Step, StoredKeys};
use crate::smtp::command::Auth;
use crate::smtp_server::replies;

/// A password to check.
#[derive(Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose password; `None` when there is no such account, which must take as long to find out.
    pub account: Option<AccountName>,
    /// The password.
    pub password: String,
}

/// Without the password.
impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Whose keys to find.
#[derive(Clone, PartialEq, Eq)]
pub struct KeysOf {
    /// `None` when there is no such account: the store then has some that stand in.
    pub account: Option<AccountName>,
    /// As the client said it.
    pub user: String,
    /// For which hash function.
    pub hash: Hash,
}

/// Without the user, who may have typed the password there.
impl std::fmt::Debug for KeysOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeysOf").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Session {
    /// What AUTH offers now.
    pub(super) fn mechanisms(&self) -> Vec<Mechanism> {
        sasl::offered(Facts {
            tls: matches!(self.tls, Tls::Active(_)),
            plaintext_allowed: self.allow_plaintext_auth,
            bindings: &self.bindings,
        })
    }

    pub(super) fn may_send_password(&self) -> bool {
        self.allow_plaintext_auth || matches!(self.tls, Tls::Active(_))
    }

    pub(super) fn auth(&mut self, config: &Config, auth: Auth) -> Action {
        if !self.logs_in() {
            return Action::Reply(replies::no_auth());
        }
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        // RFC 4954 §4: not within a transaction, and once.
        if !extended || self.account.is_some() || !matches!(self.state, State::Ready) {
            return Action::Reply(replies::auth_out_of_place());
        }
        match auth.mechanism.parse::<Mechanism>() {
            Ok(mechanism) if mechanism.sends_password() && !self.may_send_password() => {
                Action::Reply(replies::encryption_first())
            }
            Ok(mechanism) if self.mechanisms().contains(&mechanism) => {
                self.step(config, Exchange::start(mechanism, auth.initial.as_deref(), &self.bindings))
            }
            _ => Action::Reply(replies::no_such_mechanism()),
        }
    }

    pub(super) fn response(&mut self, exchange: Exchange, line: &[u8], config: &Config) -> Action {
        if line == b"*" {
            return Action::Reply(replies::auth_cancelled());
        }
        match sasl::decode(line) {
            Ok(response) => self.step(config, exchange.respond(&response)),
            Err(_) => Action::Reply(replies::auth_malformed()),
        }
    }

    fn step(&mut self, config: &Config, step: Step) -> Action {
        match step {
            Step::Challenge { text, exchange } => {
                self.state = State::Authenticating(exchange);
                Action::Reply(replies::challenge(&text))
            }
            Step::Verify(credentials) => {
                let claim = claim(config, credentials);
                self.state = State::Verifying(claim.account.clone());
                Action::Verify(claim)
            }
            Step::FindKeys(find) => {
                let account = account_of(config, &find.user);
                let keys = KeysOf { account, user: find.user.clone(), hash: find.hash };
                self.state = State::FindingKeys(find);
                Action::FindKeys(keys)
            }
            Step::Proved { user, act_as } => {
                self.state = State::Verifying(account_of(config, &user).filter(|_| act_as.is_none()));
                self.verified(config, Some(true))
            }
            Step::Refused => {
                self.state = State::Verifying(None);
                self.verified(config, Some(false))
            }
            Step::Malformed => Action::Reply(replies::auth_malformed()),
        }
    }

    /// The keys that were asked for, or that stand in for them; `None` when the store fails.
    pub fn keys_found(&mut self, config: &Config, keys: Option<StoredKeys>) -> Action {
        match (self.take_state(), keys) {
            (State::FindingKeys(find), Some(keys)) => self.step(config, find.found(keys)),
            (State::FindingKeys(_), None) => Action::Reply(replies::auth_unavailable()),
            _ => Action::Reply(replies::auth_out_of_place()),
        }
    }

    /// The password is right or wrong, or could not be checked.
    pub fn verified(&mut self, config: &Config, right: Option<bool>) -> Action {
        let State::Verifying(account) = self.take_state() else {
            return Action::Reply(replies::auth_out_of_place());
        };
        match (right, account) {
            (None, _) => Action::Reply(replies::auth_unavailable()),
            (Some(true), Some(account)) => {
                self.account = Some(account);
                (self.bad, self.idle, self.auth_failures) = (0, 0, 0);
                Action::Reply(replies::authenticated())
            }
            _ => {
                self.auth_failures += 1;
                // One number bounds all that a client may do wrong, and switches it off.
                if config.limits.bad_commands_max.is_some_and(|max| self.auth_failures > max) {
                    return Action::Close(replies::too_many_errors());
                }
                match config.limits.auth_failure_delay {
                    Some(delay) => Action::ReplyAfter(delay, replies::auth_failed()),
                    None => Action::Reply(replies::auth_failed()),
                }
            }
        }
    }
}

/// A password and whose it is to be. Nobody acts as somebody else here.
fn claim(config: &Config, credentials: Credentials) -> Claim {
    let Credentials { user, act_as, password } = credentials;
    Claim { account: account_of(config, &user).filter(|_| act_as.is_none()), password }
}

/// The account that a user name means: by its name, or by one of its addresses, which is what mail programs suggest.
fn account_of(config: &Config, user: &str) -> Option<AccountName> {
    let by_name =
        AccountName::new(&user.to_ascii_lowercase()).ok().filter(|name| config.accounts.contains_key(name));
    let by_address = || {
        let mailbox = Mailbox::parse(user).ok()?;
        match config.lookup(&mailbox) {
            Lookup::Account(account) if config.accounts.contains_key(account) => Some(account.clone()),
            _ => None,
        }
    };
    by_name.or_else(by_address)
}
