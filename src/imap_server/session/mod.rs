//! A session: which state a client is in, and what each command does in it.
//!
//! RFC 9051 §3 (states), §6 (commands), §7.1 (answers and their codes, RFC 5530). What needs the byte stream itself
//! (IDLE, AUTHENTICATE, STARTTLS) is handed back to the connection as [`Next`].

mod append;
mod login;
mod mailboxes;
mod messages;
mod query;
mod select;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use imap_types::command::CommandBody;
use tokio::sync::watch::Receiver;

use super::ImapContext;
use super::fetch::write_flags;
use super::output::Output;
use super::parse::{Command, Request};
use super::view::View;
use super::wire::{Wire, WireError};
use crate::address::Domain;
use crate::config::{Config, Listener};
use crate::names::AccountName;
use crate::sasl::{ChannelBindings, Mechanism};
use crate::store::{Flags, Keyword, MailboxId, StoreError, SystemFlag};

/// One client's session.
pub struct Session {
    ctx: ImapContext,
    listener: Arc<Listener>,
    state: State,
    /// The client's address.
    ip: IpAddr,
    /// What SASL can bind to.
    pub bindings: ChannelBindings,
    /// Logins that failed.
    pub failed_logins: usize,
    /// The client knows MODSEQ (RFC 7162 §3.1: it used something of CONDSTORE).
    condstore: bool,
}

/// RFC 9051 §3.
enum State {
    NotAuthenticated,
    Authenticated(AccountName),
    Selected(AccountName, Box<Selected>),
    Logout,
}

/// A selected mailbox.
struct Selected {
    mailbox: MailboxId,
    /// EXAMINE.
    read_only: bool,
    view: View,
    watch: Receiver<u64>,
    /// Keywords that the client has heard of.
    keywords: Vec<Keyword>,
}

/// What the connection does after a command.
#[derive(Debug)]
pub enum Next {
    /// Goes on.
    Go {
        /// The command was wrong (BAD, or a login that failed).
        wrong: bool,
    },
    /// Ends.
    End,
    /// IDLE.
    Idle {
        /// The command's tag.
        tag: String,
    },
    /// A SASL exchange.
    Authenticate {
        /// The command's tag.
        tag: String,
        /// How.
        mechanism: Mechanism,
        /// SASL-IR (RFC 4959).
        initial: Option<Vec<u8>>,
    },
    /// TLS.
    StartTls {
        /// The command's tag.
        tag: String,
    },
}

/// How a command ended.
#[derive(Debug)]
struct Answer {
    status: Status,
    /// Without brackets, such as `READ-WRITE`.
    code: Option<Cow<'static, str>>,
    text: Cow<'static, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok,
    No,
    Bad,
}

impl Answer {
    fn new(status: Status, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code: None, text: text.into() }
    }

    fn ok(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::Ok, text)
    }

    fn no(code: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::No, text).with(code)
    }

    fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::Bad, text)
    }

    fn with(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    fn write(&self, tag: &str, output: &mut Output) {
        let status = match self.status {
            Status::Ok => "OK ",
            Status::No => "NO ",
            Status::Bad => "BAD ",
        };
        output.raw(tag).raw(" ").raw(status);
        if let Some(code) = &self.code {
            output.raw("[").raw(code).raw("] ");
        }
        output.raw(&self.text).end();
    }
}

/// Why a command has no answer of its own.
#[derive(Debug)]
enum Failure {
    /// The client is gone.
    Wire(WireError),
    /// The store refused or failed.
    Store(StoreError),
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

type Done = Result<Answer, Failure>;

/// What the store says, in the words of RFC 5530.
fn store_answer(error: &StoreError) -> Answer {
    match error {
        StoreError::NotFound(_) => Answer::no("NONEXISTENT", "There is no such mailbox"),
        StoreError::AlreadyExists => Answer::no("ALREADYEXISTS", "That mailbox is there already"),
        StoreError::Invalid(why) => Answer::no("CANNOT", why.clone()),
        StoreError::Full => {
            tracing::error!(%error, "the store is full");
            Answer::no("LIMIT", "There is no room for that now")
        }
        _ => {
            tracing::error!(%error, "the store failed");
            Answer::no("UNAVAILABLE", "That is not possible now; try again later")
        }
    }
}

/// When the client may hear of expunges (RFC 9051 §7.5.1).
fn expunges_allowed(command: &Command) -> bool {
    !matches!(
        command,
        Command::Standard(
            CommandBody::Fetch { uid: false, .. }
                | CommandBody::Store { uid: false, .. }
                | CommandBody::Search { uid: false, .. }
        )
    )
}

/// Waits for news of the selected mailbox; without one, for ever.
pub struct Watch(Option<Receiver<u64>>);

impl Watch {
    /// Returns when something changed, or the mailbox is gone.
    pub async fn changed(&mut self) {
        match &mut self.0 {
            // An error says that the mailbox is gone; the session finds that out when it looks.
            Some(receiver) => drop(receiver.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Session {
    /// A client that has just connected.
    pub fn new(ctx: ImapContext, listener: Arc<Listener>, ip: IpAddr) -> Self {
        Self {
            ctx,
            listener,
            state: State::NotAuthenticated,
            ip,
            bindings: ChannelBindings::default(),
            failed_logins: 0,
            condstore: false,
        }
    }

    /// The text of the greeting.
    pub fn greeting(&self, tls: bool) -> String {
        let config = self.ctx.config.load();
        let (capabilities, hostname) = (self.capabilities(tls), self.hostname(&config));
        format!("OK [CAPABILITY {capabilities}] {hostname} Waypost is ready")
    }

    /// Our name on this connection.
    fn hostname<'a>(&'a self, config: &'a Config) -> &'a Domain {
        self.listener.hostname.as_ref().unwrap_or(&config.hostname)
    }

    /// Whether the client has logged in.
    pub fn is_authenticated(&self) -> bool {
        matches!(self.state, State::Authenticated(_) | State::Selected(..))
    }

    /// Something to wait on for news of the selected mailbox.
    pub fn watch(&self) -> Watch {
        Watch(match &self.state {
            State::Selected(_, selected) => Some(selected.watch.clone()),
            _ => None,
        })
    }

    /// Does a command and writes its answer.
    pub async fn execute(&mut self, request: Request, wire: &mut Wire) -> Result<Next, WireError> {
        let Request { tag, command } = request;
        if let Command::Standard(body) = &command
            && let Some(next) = self.handed_back(&tag, body, wire)
        {
            return Ok(next);
        }
        let expunges = expunges_allowed(&command);
        let done = match command {
            Command::Standard(CommandBody::Login { username, password }) => {
                return self.login(&tag, username, password.declassify(), wire).await;
            }
            Command::Standard(body) => self.standard(&tag, body, wire).await,
            Command::Append(append) => match self.account() {
                Ok(account) => self.append(&account, append).await,
                Err(refusal) => Ok(refusal),
            },
        };
        let answer = match done {
            Ok(answer) => answer,
            Err(Failure::Store(error)) => store_answer(&error),
            Err(Failure::Wire(error)) => return Err(error),
        };
        if !self.tell_news(&mut wire.output, expunges).await {
            return Ok(Next::End);
        }
        answer.write(&tag, &mut wire.output);
        wire.flush_if_full().await?;
        if matches!(self.state, State::Logout) {
            return Ok(Next::End);
        }
        Ok(Next::Go { wrong: answer.status == Status::Bad })
    }

    /// What the connection itself must do, if the state allows it.
    fn handed_back(&mut self, tag: &str, body: &CommandBody<'_>, wire: &mut Wire) -> Option<Next> {
        let tag = tag.to_owned();
        let refusal = match body {
            CommandBody::Idle => match self.account() {
                Ok(_) => return Some(Next::Idle { tag }),
                Err(refusal) => refusal,
            },
            CommandBody::StartTLS => match self.may_start_tls(wire.is_tls()) {
                Ok(()) => return Some(Next::StartTls { tag }),
                Err(refusal) => refusal,
            },
            CommandBody::Authenticate { mechanism, initial_response } => {
                match self.may_authenticate(mechanism, wire.is_tls()) {
                    Ok(mechanism) => {
                        let initial = initial_response.as_ref().map(|initial| initial.declassify().to_vec());
                        return Some(Next::Authenticate { tag, mechanism, initial });
                    }
                    Err(refusal) => refusal,
                }
            }
            _ => return None,
        };
        refusal.write(&tag, &mut wire.output);
        Some(Next::Go { wrong: refusal.status == Status::Bad })
    }

    /// Commands that imap-codec reads.
    async fn standard(&mut self, tag: &str, body: CommandBody<'static>, wire: &mut Wire) -> Done {
        match body {
            CommandBody::Capability => {
                let capabilities = self.capabilities(wire.is_tls());
                wire.output.untagged(format_args!("CAPABILITY {capabilities}"));
                Ok(Answer::ok("CAPABILITY completed"))
            }
            CommandBody::Noop => Ok(Answer::ok("NOOP completed")),
            CommandBody::Logout => {
                self.state = State::Logout;
                wire.output.untagged("BYE Until next time");
                Ok(Answer::ok("LOGOUT completed"))
            }
            CommandBody::Id { parameters } => Ok(self.id(parameters.as_deref(), &mut wire.output)),
            body => match self.account() {
                Ok(account) => self.authenticated(&account, tag, body, wire).await,
                Err(refusal) => Ok(refusal),
            },
        }
    }

    /// Commands of clients that have logged in.
    async fn authenticated(
        &mut self,
        account: &AccountName,
        tag: &str,
        body: CommandBody<'static>,
        wire: &mut Wire,
    ) -> Done {
        let output = &mut wire.output;
        match body {
            CommandBody::Enable { capabilities } => Ok(self.enable(capabilities.as_ref(), output)),
            CommandBody::Namespace => {
                output.untagged("NAMESPACE ((\"\" \"/\")) NIL NIL"); // RFC 2342
                Ok(Answer::ok("NAMESPACE completed"))
            }
            CommandBody::Select { mailbox, parameters } => {
                self.select(account, &mailbox, &parameters, false, output).await
            }
            CommandBody::Examine { mailbox, parameters } => {
                self.select(account, &mailbox, &parameters, true, output).await
            }
            CommandBody::Create { mailbox } => self.create(account, &mailbox).await,
            CommandBody::Delete { mailbox } => self.delete(account, &mailbox, output).await,
            CommandBody::Rename { from, to } => self.rename(account, &from, &to).await,
            CommandBody::Subscribe { mailbox } => self.subscribe(account, &mailbox, true).await,
            CommandBody::Unsubscribe { mailbox } => self.subscribe(account, &mailbox, false).await,
            CommandBody::List { reference, mailbox_wildcard } => {
                self.list(account, &reference, &mailbox_wildcard, output).await
            }
            CommandBody::Lsub { reference, mailbox_wildcard } => {
                self.lsub(account, &reference, &mailbox_wildcard, output).await
            }
            CommandBody::Status { mailbox, item_names } => {
                self.status(account, &mailbox, &item_names, output).await
            }
            body => {
                if matches!(self.state, State::Selected(..)) {
                    self.selected_command(account, tag, body, wire).await
                } else if is_for_a_mailbox(&body) {
                    Ok(Answer::bad("Select a mailbox first"))
                } else {
                    Ok(Answer::bad("Not supported, or not possible now"))
                }
            }
        }
    }

    /// Commands about the selected mailbox.
    async fn selected_command(
        &mut self,
        account: &AccountName,
        _tag: &str,
        body: CommandBody<'static>,
        wire: &mut Wire,
    ) -> Done {
        match body {
            CommandBody::Check => Ok(Answer::ok("CHECK completed")),
            CommandBody::Close => self.close(true).await,
            CommandBody::Unselect => self.close(false).await,
            CommandBody::Expunge => self.expunge(None).await,
            CommandBody::ExpungeUid { sequence_set } => self.expunge(Some(&sequence_set)).await,
            CommandBody::Fetch { sequence_set, macro_or_item_names, uid, modifiers } => {
                self.fetch(&sequence_set, macro_or_item_names, uid, &modifiers, wire).await
            }
            CommandBody::Store { sequence_set, kind, response, flags, uid, modifiers } => {
                let change = messages::Change { kind, response, flags, modifiers };
                self.store(&sequence_set, change, uid, wire).await
            }
            CommandBody::Search { charset, criteria, uid } => {
                self.search(charset.as_ref(), criteria.as_ref(), uid, wire).await
            }
            CommandBody::Copy { sequence_set, mailbox, uid } => {
                self.copy(account, &sequence_set, &mailbox, uid).await
            }
            CommandBody::Move { sequence_set, mailbox, uid } => {
                self.move_to(account, &sequence_set, &mailbox, uid, &mut wire.output).await
            }
            _ => Ok(Answer::bad("Not supported, or not possible now")),
        }
    }

    /// Who the client is, or the refusal.
    fn account(&self) -> Result<AccountName, Answer> {
        match &self.state {
            State::Authenticated(account) | State::Selected(account, _) => Ok(account.clone()),
            State::NotAuthenticated | State::Logout => Err(Answer::bad("Log in first")),
        }
    }

    fn selected(&mut self) -> Result<&mut Selected, Failure> {
        match &mut self.state {
            State::Selected(_, selected) => Ok(selected),
            _ => Err(Failure::Store(StoreError::NotFound("mailbox"))),
        }
    }

    /// Reads what changed in the selected mailbox since the view was last brought up to date.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let store = self.ctx.store.clone();
        let State::Selected(_, selected) = &mut self.state else { return Ok(()) };
        let newest = *selected.watch.borrow_and_update();
        if newest > selected.view.highest_modseq() {
            let changes = store.changes_since(selected.mailbox, selected.view.highest_modseq()).await?;
            selected.view.apply(changes);
        }
        Ok(())
    }

    /// Writes what happened in the selected mailbox. False when the session is over: the mailbox is gone.
    pub async fn tell_news(&mut self, output: &mut Output, expunges: bool) -> bool {
        let condstore = self.condstore;
        if let Err(error) = self.catch_up().await {
            let is_gone = matches!(error, StoreError::NotFound(_));
            if !is_gone {
                // It is told later; the client has its answer.
                tracing::error!(%error, "cannot read what changed");
                return true;
            }
            output.untagged("BYE The selected mailbox is gone");
            return false;
        }
        let State::Selected(_, selected) = &mut self.state else { return true };
        if selected.watch.has_changed().is_err() {
            output.untagged("BYE The selected mailbox is gone");
            return false;
        }
        selected.write_news(output, expunges, condstore);
        true
    }
}

impl Selected {
    fn write_news(&mut self, output: &mut Output, expunges: bool, condstore: bool) {
        if !self.view.has_news() {
            return;
        }
        let news = self.view.take_news(expunges);
        for (number, _) in &news.expunged {
            output.untagged(format_args!("{number} EXPUNGE"));
        }
        if let Some(exists) = news.exists {
            output.untagged(format_args!("{exists} EXISTS"));
            output.untagged("0 RECENT");
        }
        for number in news.flags {
            self.write_flags_of(output, number, false, condstore);
        }
    }

    /// `* n FETCH (FLAGS (...))`, with UID and MODSEQ as wanted; before it FLAGS, if there is a keyword that the client
    /// has not heard of (RFC 9051 §7.3.5).
    fn write_flags_of(&mut self, output: &mut Output, number: u32, uid: bool, modseq: bool) {
        let Some(row) = self.view.row(number) else { return };
        let new: Vec<Keyword> =
            row.flags.keywords().iter().filter(|word| !self.keywords.contains(word)).cloned().collect();
        let (uid, modseq) = (uid.then_some(row.uid), modseq.then_some(row.modseq));
        let flags = row.flags.clone();
        if !new.is_empty() {
            self.keywords.extend(new);
            self.write_flag_names(output);
        }
        output.raw("* ").show(number).raw(" FETCH (");
        if let Some(uid) = uid {
            output.raw("UID ").show(uid).raw(" ");
        }
        write_flags(output.raw("FLAGS "), &flags);
        if let Some(modseq) = modseq {
            output.raw(" MODSEQ (").show(modseq).raw(")");
        }
        output.raw(")").end();
    }

    /// FLAGS and PERMANENTFLAGS.
    fn write_flag_names(&self, output: &mut Output) {
        let mut flags = SystemFlag::ALL.into_iter().fold(Flags::new(), Flags::with);
        self.keywords.iter().for_each(|keyword| flags.insert_keyword(keyword.clone()));
        write_flags(output.raw("* FLAGS "), &flags);
        output.end();
        if self.read_only {
            output.untagged("OK [PERMANENTFLAGS ()] Read-only");
        } else {
            let names: Vec<&str> = flags.names().collect();
            output.untagged(format_args!("OK [PERMANENTFLAGS ({} \\*)] And new ones", names.join(" ")));
        }
    }
}

fn is_for_a_mailbox(body: &CommandBody<'_>) -> bool {
    use CommandBody::{Check, Close, Copy, Expunge, ExpungeUid, Fetch, Move, Search, Store, Unselect};
    matches!(
        body,
        Check
            | Close
            | Copy { .. }
            | Expunge
            | ExpungeUid { .. }
            | Fetch { .. }
            | Move { .. }
            | Search { .. }
            | Store { .. }
            | Unselect
    )
}
