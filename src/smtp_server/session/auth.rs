//! AUTH in a session (RFC 4954): which mechanisms are offered, the exchange, and who the client then is.
//!
//! What SASL wants to know in between, a password or its keys, is asked of the connection as an [`Action`].

use super::{Action, Session, State};
use crate::config::Config;
use crate::names::AccountName;
use crate::sasl::{self, Exchange, Facts, KeyKind, Keys, Mechanism, Step, Terms};
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
    /// Which.
    pub kind: KeyKind,
}

/// Without the user, who may have typed the password there.
impl std::fmt::Debug for KeysOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeysOf").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Somebody who tries to log in, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// How.
    pub mechanism: Mechanism,
    /// Where the name is an account's. Any other name may be a password in the wrong place, and is not kept.
    pub account: Option<AccountName>,
}

impl Session {
    /// What AUTH offers now.
    pub(super) fn mechanisms(&self, config: &Config) -> Vec<Mechanism> {
        let facts = Facts {
            tls: self.in_tls(),
            plaintext_allowed: self.allow_plaintext_auth,
            bindings: &self.bindings,
        };
        sasl::offered(&config.auth.mechanisms, facts)
    }

    pub(super) fn may_send_password(&self) -> bool {
        self.allow_plaintext_auth || self.in_tls()
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
        let offered = self.mechanisms(config);
        match auth.mechanism.parse::<Mechanism>() {
            Ok(mechanism) if offered.contains(&mechanism) => {
                let (bindings, hostname) = (&self.bindings, self.hostname.as_str());
                let terms = Terms { offered: &offered, bindings, hostname };
                let step = Exchange::start(mechanism, auth.initial.as_deref(), &terms);
                self.attempt = Some(Attempt { mechanism, account: None });
                self.step(config, step)
            }
            Ok(mechanism) if mechanism.sends_password() && config.auth.mechanisms.contains(&mechanism) => {
                Action::Reply(replies::encryption_first())
            }
            _ => Action::Reply(replies::no_such_mechanism()),
        }
    }

    /// The attempt that has just failed; told once.
    pub fn take_failed_login(&mut self) -> Option<Attempt> {
        self.failed_login.take()
    }

    /// The account of a user name; who it is that tries is known from here on.
    fn identify(&mut self, config: &Config, user: &str) -> Option<AccountName> {
        let account = config.account_of(user).cloned();
        if let Some(attempt) = &mut self.attempt {
            attempt.account.clone_from(&account);
        }
        account
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
            Step::Verify(sasl::Credentials { user, act_as, password }) => {
                // Nobody acts as somebody else here.
                let account = self.identify(config, &user).filter(|_| act_as.is_none());
                self.state = State::Verifying(account.clone());
                Action::Verify(Claim { account, password })
            }
            Step::FindKeys(find) => {
                let account = self.identify(config, &find.user);
                let keys = KeysOf { account, user: find.user.clone(), kind: find.kind };
                self.state = State::FindingKeys(find);
                Action::FindKeys(keys)
            }
            Step::Proved { user, act_as } => {
                self.state = State::Verifying(self.identify(config, &user).filter(|_| act_as.is_none()));
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
    pub fn keys_found(&mut self, config: &Config, keys: Option<Keys>) -> Action {
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
                self.failed_login = self.attempt.take();
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
