//! Who the client is and what the server can do: CAPABILITY, ID, ENABLE, STARTTLS, LOGIN, AUTHENTICATE.
//!
//! RFC 9051 §6.2, RFC 2971 (ID), RFC 5161 (ENABLE), RFC 4959 (SASL-IR), RFC 4422 (SASL).

use imap_types::auth::AuthMechanism;
use imap_types::core::{AString, IString, NString};
use imap_types::extensions::enable::CapabilityEnable;

use super::{Answer, Next, Session, State};
use crate::config::Config;
use crate::imap_server::output::Output;
use crate::imap_server::wire::{Wire, WireError};
use crate::names::AccountName;
use crate::sasl::{self, Credentials, Exchange, Facts, FindKeys, Keys, Mechanism, Terms};
use crate::store::StoreError;

/// What holds in every state.
const BASE: &str = "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE CHILDREN UIDPLUS UNSELECT MOVE CONDSTORE \
                    WITHIN STATUS=SIZE";

impl Session {
    /// The list of what the server can do, as far as it can be used now.
    pub(super) fn capabilities(&self, tls: bool) -> String {
        let mut all = BASE.to_owned();
        if !matches!(self.state, State::NotAuthenticated) {
            return all;
        }
        if !tls && self.ctx.tls.is_some() {
            all.push_str(" STARTTLS");
        }
        for mechanism in self.mechanisms(tls) {
            all.push_str(" AUTH=");
            all.push_str(mechanism.as_str());
        }
        if !self.may_send_password(tls) || !self.ctx.config.load().auth.takes_passwords() {
            // RFC 9051 §6.2.3
            all.push_str(" LOGINDISABLED");
        }
        all
    }

    fn mechanisms(&self, tls: bool) -> Vec<Mechanism> {
        let plaintext_allowed = self.listener.allow_plaintext_auth;
        let facts = Facts { tls, plaintext_allowed, bindings: &self.bindings };
        sasl::offered(&self.ctx.config.load().auth.mechanisms, facts)
    }

    /// Begins a SASL exchange.
    pub fn begin(&self, mechanism: Mechanism, initial: Option<&[u8]>, tls: bool) -> sasl::Step {
        let (config, offered) = (self.ctx.config.load(), self.mechanisms(tls));
        let hostname = self.hostname(&config).as_str();
        Exchange::start(mechanism, initial, &Terms { offered: &offered, bindings: &self.bindings, hostname })
    }

    fn may_send_password(&self, tls: bool) -> bool {
        tls || self.listener.allow_plaintext_auth
    }

    pub(super) fn id(
        &self,
        parameters: Option<&[(IString<'static>, NString<'static>)]>,
        output: &mut Output,
    ) -> Answer {
        let client = parameters.unwrap_or_default().iter().find_map(|(name, value)| {
            let is_name = name.as_ref().eq_ignore_ascii_case(b"name");
            is_name
                .then(|| value.0.as_ref().map(|text| String::from_utf8_lossy(text.as_ref()).into_owned()))?
        });
        tracing::debug!(client, "identified itself");
        // The version is nobody's business who has not logged in.
        if self.is_authenticated() {
            output.untagged(concat!(
                "ID (\"name\" \"Waypost\" \"version\" \"",
                env!("CARGO_PKG_VERSION"),
                "\")"
            ));
        } else {
            output.untagged("ID (\"name\" \"Waypost\")");
        }
        Answer::ok("ID completed")
    }

    pub(super) fn enable(&mut self, capabilities: &[CapabilityEnable<'_>], output: &mut Output) -> Answer {
        // RFC 5161 §3.1: what is unknown or cannot be enabled is passed over.
        let condstore =
            capabilities.iter().any(|capability| matches!(capability, CapabilityEnable::CondStore));
        self.condstore |= condstore;
        output.untagged(if condstore { "ENABLED CONDSTORE" } else { "ENABLED" });
        Answer::ok("ENABLE completed")
    }

    pub(super) fn may_start_tls(&self, tls: bool) -> Result<(), Answer> {
        if tls {
            Err(Answer::bad("TLS is already there"))
        } else if !matches!(self.state, State::NotAuthenticated) {
            Err(Answer::bad("STARTTLS comes before the login"))
        } else if self.ctx.tls.is_none() {
            Err(Answer::bad("STARTTLS is not available"))
        } else {
            Ok(())
        }
    }

    pub(super) fn may_authenticate(
        &self,
        mechanism: &AuthMechanism<'_>,
        tls: bool,
    ) -> Result<Mechanism, Answer> {
        let wanted = mechanism.as_ref().parse::<Mechanism>().ok();
        let wanted = wanted.filter(|wanted| self.ctx.config.load().auth.mechanisms.contains(wanted));
        self.may_log_in(tls || wanted.is_none_or(|mechanism| !mechanism.sends_password()))?;
        wanted
            .filter(|mechanism| self.mechanisms(tls).contains(mechanism))
            .ok_or_else(|| Answer::no("CANNOT", "That mechanism is not offered"))
    }

    /// Whether somebody may log in here; without `safe`, a password would travel in clear text.
    fn may_log_in(&self, safe: bool) -> Result<(), Answer> {
        if !matches!(self.state, State::NotAuthenticated) {
            return Err(Answer::bad("You are logged in already"));
        }
        if !self.may_send_password(safe) {
            return Err(Answer::no(
                "PRIVACYREQUIRED",
                "Begin TLS first: passwords do not travel in clear text",
            ));
        }
        Ok(())
    }

    /// Whether LOGIN is there: it sends the password, as PLAIN does.
    fn may_use_login(&self, tls: bool) -> Result<(), Answer> {
        let disabled = !self.ctx.config.load().auth.takes_passwords();
        self.may_log_in(tls || disabled)?;
        if disabled { Err(Answer::no("CANNOT", "LOGIN is disabled here: use AUTHENTICATE")) } else { Ok(()) }
    }

    pub(super) async fn login(
        &mut self,
        tag: &str,
        user: AString<'static>,
        password: &AString<'static>,
        wire: &mut Wire,
    ) -> Result<Next, WireError> {
        if let Err(refusal) = self.may_use_login(wire.is_tls()) {
            refusal.write(tag, &mut wire.output);
            return Ok(Next::Go { wrong: true });
        }
        let text = |string: &AString<'_>| String::from_utf8(string.as_ref().to_vec()).ok();
        let (Some(user), Some(password)) = (text(&user), text(password)) else {
            Answer::bad("User and password are UTF-8").write(tag, &mut wire.output);
            return Ok(Next::Go { wrong: true });
        };
        let credentials = Credentials { user, act_as: None, password };
        let known = self.log_in(tag, Mechanism::Login, credentials, wire).await?;
        Ok(Next::Go { wrong: !known })
    }

    /// Checks who the client says it is, writes the answer; whether it is true.
    pub async fn log_in(
        &mut self,
        tag: &str,
        mechanism: Mechanism,
        credentials: Credentials,
        wire: &mut Wire,
    ) -> Result<bool, WireError> {
        let config = self.ctx.config.load_full();
        let account = config.account_of(&credentials.user);
        let checked = self.check(&config, account, &credentials).await;
        self.conclude(tag, Attempt { mechanism, account }, checked, wire).await
    }

    /// The keys that an exchange goes on with; without, the answer is written.
    pub async fn find_keys(&self, tag: &str, find: &FindKeys, wire: &mut Wire) -> Option<Keys> {
        let account = self.ctx.config.load().account_of(&find.user).cloned();
        match self.ctx.store.keys(account.as_ref(), &find.user, find.kind).await {
            Ok(keys) => Some(keys),
            Err(error) => {
                super::store_answer(&error).write(tag, &mut wire.output);
                None
            }
        }
    }

    /// The client has proved by SASL who it is; whether that lets it in.
    pub async fn proved(
        &mut self,
        tag: &str,
        mechanism: Mechanism,
        user: &str,
        act_as: Option<&str>,
        wire: &mut Wire,
    ) -> Result<bool, WireError> {
        let config = self.ctx.config.load_full();
        let account = config.account_of(user);
        let checked = self.let_in(&config, account, act_as).await;
        self.conclude(tag, Attempt { mechanism, account }, checked, wire).await
    }

    /// The client's proof is wrong.
    pub async fn refused(
        &mut self,
        tag: &str,
        mechanism: Mechanism,
        user: Option<&str>,
        wire: &mut Wire,
    ) -> Result<bool, WireError> {
        let config = self.ctx.config.load_full();
        let account = user.and_then(|user| config.account_of(user));
        self.conclude(tag, Attempt { mechanism, account }, Err(Denied::Wrong), wire).await
    }

    async fn conclude(
        &mut self,
        tag: &str,
        attempt: Attempt<'_>,
        checked: Result<AccountName, Denied>,
        wire: &mut Wire,
    ) -> Result<bool, WireError> {
        let answer = match checked {
            Ok(account) => {
                tracing::info!(%account, tls = wire.tls_summary(), "logged in");
                self.state = State::Authenticated(account);
                Answer::ok("You are logged in")
                    .with(format!("CAPABILITY {}", self.capabilities(wire.is_tls())))
            }
            Err(Denied::Store(error)) => super::store_answer(&error),
            Err(denied) => {
                let Attempt { mechanism, account } = attempt;
                let (ip, account) = (self.ip, account.map(tracing::field::display));
                tracing::info!(%ip, %mechanism, account, "login failed");
                self.failed_logins += 1;
                let delay = self.ctx.config.load().limits.auth_failure_delay;
                if let Some(delay) = delay {
                    tokio::time::sleep(delay).await;
                }
                match denied {
                    Denied::ActAs => Answer::no("AUTHORIZATIONFAILED", "You may not act as somebody else"),
                    _ => Answer::no("AUTHENTICATIONFAILED", "User or password is wrong"),
                }
            }
        };
        answer.write(tag, &mut wire.output);
        Ok(self.is_authenticated())
    }

    async fn check(
        &self,
        config: &Config,
        account: Option<&AccountName>,
        credentials: &Credentials,
    ) -> Result<AccountName, Denied> {
        // Nobody learns from the time it takes whether there is such an account.
        let nobody = AccountName::new("0").map_err(|_| Denied::Wrong)?;
        let asked = account.unwrap_or(&nobody);
        let right = self.ctx.store.check_password(asked, &credentials.password).await?;
        self.let_in(config, account.filter(|_| right), credentials.act_as.as_deref()).await
    }

    /// What holds for an account whose password the client knows.
    async fn let_in(
        &self,
        config: &Config,
        account: Option<&AccountName>,
        act_as: Option<&str>,
    ) -> Result<AccountName, Denied> {
        let account = account.ok_or(Denied::Wrong)?;
        if act_as.is_some_and(|other| config.account_of(other) != Some(account)) {
            return Err(Denied::ActAs);
        }
        self.ctx.store.ensure_account(account).await?;
        Ok(account.clone())
    }
}

/// Somebody who tries to log in, for the log.
struct Attempt<'a> {
    mechanism: Mechanism,
    /// Where the name is an account's. Any other name may be a password in the wrong place, and is not kept.
    account: Option<&'a AccountName>,
}

/// Why somebody is not let in.
enum Denied {
    Wrong,
    ActAs,
    Store(StoreError),
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
