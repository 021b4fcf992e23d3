//! The SMTP session as a state machine without I/O: what the client says goes in, what is to be done comes out.
//!
//! The connection feeds each line to [`Session::line`] and does the [`Action`] that comes back; an action whose
//! result the session must know (a password checked, content read, a message queued) has its own way back in.
//! A session lives as long as the connection; a [`Transaction`] within it ends with each message.
//!
//! RFC 5321 (SMTP), RFC 6409 (submission), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 3030 (BDAT), RFC 2920
//! (PIPELINING: replies keep the order of commands, which this shape gives by itself).

mod auth;
mod head;
mod local;
mod patience;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::body::{Body, BodyProblem};
use super::replies::{self, Offer};
use super::transaction::{Refusal, Sender, Transaction};
use crate::address::{Domain, Mailbox};
use crate::config::{Config, Listener, ListenerKind, SystemUser};
use crate::message::header::HeaderSummary;
use crate::names::{AccountName, QueueId};
use crate::queue::AcceptError;
use crate::sasl::{ChannelBindings, Exchange, FindKeys};
use crate::smtp::command::{Bdat, HelloName, Mail, Rcpt, Verb};
use crate::smtp::data::Fault;
use crate::smtp::{Command, Reply};
use crate::spool::{NewMessage, Origin};
use crate::store::Suppression;

pub use auth::{Attempt, Claim, KeysOf};

/// RFC 5321 §4.5.3.1.4 gives 512 octets; the extensions that we offer add up to less than this (RFC 3461 §5: 500 for
/// ORCPT, 100 for ENVID; RFC 4954 §5: 500 for AUTH=; RFC 1870, 6152, 6531).
pub const COMMAND_BYTES_MAX: usize = 2048;
/// RFC 4954 §4: lines of an authentication exchange.
pub const AUTH_LINE_BYTES_MAX: usize = 12_288;
/// The largest chunk that is read only to be thrown away; for larger ones the connection is closed.
const SKIPPED_CHUNK_BYTES_MAX: u64 = 16 << 20;

/// What the connection is to do.
#[derive(Debug)]
pub enum Action {
    /// Write it, and go on with the next line.
    Reply(Reply),
    /// Write it after a while.
    ReplyAfter(Duration, Reply),
    /// Write it and close.
    Close(Reply),
    /// Write it, throw away what was read beyond the command, and begin TLS; then [`Session::tls_established`].
    StartTls(Reply),
    /// Write the reply, and fill the body up to the end of data; then [`Session::data_read`].
    ReadData(Reply, Body),
    /// Add the next octets to the body; then [`Session::chunk_read`].
    ReadChunk(Bdat, Body),
    /// Throw away the next octets, then write the reply.
    SkipChunk(u64, Reply),
    /// Check a password; then [`Session::verified`].
    Verify(Claim),
    /// Find the keys of a password; then [`Session::keys_found`].
    FindKeys(KeysOf),
    /// Look whether mail of the account to this recipient is refused; then [`Session::suppression_checked`].
    CheckSuppression(AccountName, Mailbox),
    /// Queue a message; then [`Session::queued`].
    Accept(Box<NewMessage>),
}

/// What the session knows of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// There is no certificate.
    Unavailable,
    /// STARTTLS is offered.
    Offered,
    /// In use: version and cipher suite.
    Active(String),
}

/// A session.
#[derive(Debug)]
pub struct Session {
    id: String,
    ip: IpAddr,
    kind: ListenerKind,
    hostname: Domain,
    /// The client is a process of this user, on this machine: it needs no password.
    user: Option<SystemUser>,
    /// The client's network may send anywhere.
    trusted: bool,
    allow_plaintext_auth: bool,
    tls: Tls,
    /// Of the TLS channel.
    bindings: ChannelBindings,
    hello: Option<Hello>,
    account: Option<AccountName>,
    state: State,
    /// Transactions begun.
    transactions: u32,
    /// Commands in a row that were wrong.
    bad: usize,
    /// Commands in a row that brought no transaction further.
    idle: usize,
    auth_failures: usize,
    /// Who tries to log in.
    attempt: Option<Attempt>,
    /// Who tried in vain, until that is told.
    failed_login: Option<Attempt>,
}

#[derive(Debug)]
struct Hello {
    name: HelloName,
    extended: bool,
}

/// What the session is in the middle of.
#[derive(Debug)]
enum State {
    /// Between transactions.
    Ready,
    /// Behind MAIL.
    Mail(Transaction),
    /// The client's response to a challenge comes next.
    Authenticating(Exchange),
    /// The keys for an exchange are being looked for.
    FindingKeys(FindKeys),
    /// A password is being checked; `None` when the answer is no whatever comes of it.
    Verifying(Option<AccountName>),
    /// Content is being read.
    Content(Transaction),
    /// Between two chunks.
    Chunks(Transaction, Body),
    /// A message is being queued.
    Accepting,
}

impl Session {
    /// A session with a client at `ip`; `id` ties log, Received field and queue together.
    pub fn new(id: String, ip: IpAddr, listener: &Arc<Listener>, config: &Config, tls: Tls) -> Self {
        Self {
            id,
            ip,
            kind: listener.kind,
            user: None,
            hostname: listener.hostname.clone().unwrap_or_else(|| config.hostname.clone()),
            trusted: listener.relay_from.iter().any(|network| network.contains(&ip.to_canonical())),
            allow_plaintext_auth: listener.allow_plaintext_auth,
            tls,
            bindings: ChannelBindings::default(),
            hello: None,
            account: None,
            state: State::Ready,
            transactions: 0,
            bad: 0,
            idle: 0,
            auth_failures: 0,
            attempt: None,
            failed_login: None,
        }
    }

    /// The first line.
    pub fn greeting(&self) -> Reply {
        replies::greeting(&self.hostname)
    }

    /// As in the log.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The client's address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Who has logged in.
    pub fn account(&self) -> Option<&AccountName> {
        self.account.as_ref()
    }

    /// Whether the next line may be part of a password.
    pub fn next_line_is_secret(&self) -> bool {
        matches!(self.state, State::Authenticating(_))
    }

    /// How long the next line may be, given how it begins.
    pub fn line_bytes_max(&self, line: &[u8]) -> usize {
        let auth = self.next_line_is_secret() || Verb::of_line(line) == Some(Verb::Auth);
        if auth { AUTH_LINE_BYTES_MAX } else { COMMAND_BYTES_MAX }
    }

    /// Takes a line without its CR LF.
    pub fn line(&mut self, config: &Config, line: &[u8]) -> Action {
        if self.next_line_is_secret()
            && let State::Authenticating(exchange) = self.take_state()
        {
            let action = self.response(exchange, line, config);
            return self.count(config, Some(Verb::Auth), action);
        }
        let action = match Command::parse(line) {
            Ok(command) => self.command(config, command),
            Err(_) if is_http(line) => Action::Close(replies::not_http()),
            Err(error) => Action::Reply(error.reply()),
        };
        self.count(config, Verb::of_line(line), action)
    }

    /// A line was longer than [`Session::line_bytes_max`]; the connection has thrown it away.
    pub fn line_too_long(&mut self, config: &Config) -> Action {
        if self.next_line_is_secret() {
            self.state = State::Ready;
        }
        self.count(config, None, Action::Reply(replies::line_too_long()))
    }

    /// A line holds a bare CR or LF. What a proxy or another server took for commands here is not known: nothing
    /// behind it is read.
    pub fn bare_line_end(&mut self, fault: Fault) -> Action {
        Action::Close(replies::bare_line_end(fault))
    }

    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Ready)
    }

    fn command(&mut self, config: &Config, command: Command) -> Action {
        // RFC 5321 §4.1.4: a session begins with EHLO or HELO; some commands need none.
        let needs_hello = !matches!(
            command,
            Command::Ehlo(_)
                | Command::Helo(_)
                | Command::Noop
                | Command::Rset
                | Command::Quit
                | Command::Help
        ) && !matches!(command, Command::Vrfy | Command::Expn);
        if needs_hello && self.hello.is_none() {
            return match command {
                Command::Bdat(bdat) => skip(bdat, replies::hello_first()),
                _ => Action::Reply(replies::hello_first()),
            };
        }
        match command {
            Command::Ehlo(name) => self.hello(config, Hello { name, extended: true }),
            Command::Helo(name) => self.hello(config, Hello { name, extended: false }),
            Command::Mail(mail) => self.mail(config, mail),
            Command::Rcpt(rcpt) => self.rcpt(config, rcpt),
            Command::Data => self.data(config),
            Command::Bdat(bdat) => self.bdat(config, bdat),
            Command::Rset => {
                self.state = State::Ready;
                Action::Reply(replies::done())
            }
            Command::Noop => Action::Reply(replies::done()),
            Command::Vrfy => Action::Reply(replies::cannot_verify()),
            Command::Expn => Action::Reply(replies::no_lists()),
            Command::Help => Action::Reply(replies::help()),
            Command::Quit => Action::Close(replies::bye()),
            Command::StartTls => self.start_tls(),
            Command::Auth(auth) => self.auth(config, auth),
        }
    }

    /// EHLO and HELO also end a transaction (RFC 5321 §4.1.4).
    fn hello(&mut self, config: &Config, hello: Hello) -> Action {
        self.state = State::Ready;
        let extended = hello.extended;
        self.hello = Some(hello);
        if !extended {
            return Action::Reply(replies::helo(&self.hostname));
        }
        let bytes_max = config.limits.message_bytes_max;
        let logs_in = self.logs_in() && self.account.is_none();
        let auth = if logs_in { self.mechanisms(config) } else { Vec::new() };
        Action::Reply(replies::ehlo(Offer {
            hostname: &self.hostname,
            ip: self.ip,
            message_bytes_max: (bytes_max != u64::MAX).then_some(bytes_max),
            starttls: self.tls == Tls::Offered,
            require_tls: self.in_tls(),
            auth: &auth,
            local_sender: self.user.as_ref().and_then(|user| config.sender_of(user)),
        }))
    }

    fn in_tls(&self) -> bool {
        matches!(self.tls, Tls::Active(_))
    }

    /// Whether this is a place where people log in.
    fn logs_in(&self) -> bool {
        self.user.is_none() && self.is_submission()
    }

    fn is_submission(&self) -> bool {
        matches!(self.kind, ListenerKind::Submission | ListenerKind::Submissions)
    }

    fn sender(&self) -> Sender<'_> {
        match &self.account {
            Some(account) => Sender::Account(account),
            None if self.trusted => Sender::TrustedNetwork,
            None => Sender::Anybody,
        }
    }

    fn mail(&mut self, config: &Config, mut mail: Mail) -> Action {
        match &self.state {
            State::Chunks(..) => return Action::Reply(replies::chunks_under_way()),
            State::Mail(_) => return Action::Reply(replies::nested_mail()),
            _ => {}
        }
        if self.logs_in() && self.sender() == Sender::Anybody {
            return Action::Reply(replies::authenticate_first(!self.may_send_password()));
        }
        // RFC 8689 §2: who came in clear text has given the message away already.
        if mail.require_tls && !self.in_tls() {
            return Action::Reply(replies::require_tls_within_tls());
        }
        if let Some(user) = &self.user {
            match local::sender(user, &mut mail, config) {
                Ok(account) => self.account = Some(account),
                Err(reply) => return Action::Reply(reply),
            }
        }
        match Transaction::begin(mail, self.sender(), config) {
            Ok(transaction) => {
                self.transactions = self.transactions.saturating_add(1);
                self.state = State::Mail(transaction);
                Action::Reply(replies::sender_ok())
            }
            Err(refusal) => refuse(refusal),
        }
    }

    fn rcpt(&mut self, config: &Config, mut rcpt: Rcpt) -> Action {
        let mut transaction = match self.take_state() {
            State::Mail(transaction) => transaction,
            State::Chunks(transaction, body) => {
                self.state = State::Chunks(transaction, body);
                return Action::Reply(replies::chunks_under_way());
            }
            _ => return Action::Reply(replies::mail_first()),
        };
        if self.user.is_some() {
            local::recipient(&mut rcpt, config);
        }
        let added = transaction.add(rcpt, self.sender(), &self.hostname, config);
        let recipient = transaction.recipients().last().map(|recipient| recipient.address.clone());
        self.state = State::Mail(transaction);
        match (added, &self.account, recipient) {
            (Err(refusal), _, _) => refuse(refusal),
            // Mail from other servers is not asked about.
            (Ok(()), Some(account), Some(recipient)) => Action::CheckSuppression(account.clone(), recipient),
            (Ok(()), _, _) => Action::Reply(replies::recipient_ok()),
        }
    }

    /// Whether the recipient that came last is on the account's suppression list.
    pub fn suppression_checked(&mut self, found: Option<&Suppression>) -> Action {
        let State::Mail(transaction) = &mut self.state else { return Action::Reply(replies::mail_first()) };
        match found {
            Some(entry) => {
                transaction.remove_last();
                Action::Reply(replies::suppressed(entry))
            }
            None => Action::Reply(replies::recipient_ok()),
        }
    }

    fn data(&mut self, config: &Config) -> Action {
        match self.take_state() {
            State::Mail(transaction) if transaction.recipients().is_empty() => {
                self.state = State::Mail(transaction);
                Action::Reply(replies::no_recipients())
            }
            State::Mail(transaction) => {
                let body = Body::new(transaction.declared_size(), config.limits.message_bytes_max);
                self.state = State::Content(transaction);
                Action::ReadData(replies::send_data(), body)
            }
            // RFC 3030 §2: DATA and BDAT do not mix.
            State::Chunks(transaction, body) => {
                self.state = State::Chunks(transaction, body);
                Action::Reply(replies::chunks_under_way())
            }
            _ => Action::Reply(replies::mail_first()),
        }
    }

    /// RFC 3030 §2: whatever we think of the command, its octets follow.
    fn bdat(&mut self, config: &Config, bdat: Bdat) -> Action {
        let bytes_max = config.limits.message_bytes_max;
        let (transaction, body) = match self.take_state() {
            State::Mail(transaction) if transaction.recipients().is_empty() => {
                self.state = State::Mail(transaction);
                return skip(bdat, replies::no_recipients());
            }
            State::Mail(transaction) => {
                let body = Body::new(transaction.declared_size().or(Some(bdat.size)), bytes_max);
                (transaction, body)
            }
            State::Chunks(transaction, body) => (transaction, body),
            _ => return skip(bdat, replies::mail_first()),
        };
        if !body.has_room_for(bdat.size) {
            return skip(bdat, replies::too_big(bytes_max));
        }
        self.state = State::Content(transaction);
        Action::ReadChunk(bdat, body)
    }

    /// The octets of a chunk are in the body.
    pub fn chunk_read(&mut self, config: &Config, now: Timestamp, bdat: Bdat, body: Body) -> Action {
        if bdat.last {
            return self.data_read(config, now, body);
        }
        let State::Content(transaction) = self.take_state() else {
            return Action::Reply(replies::mail_first());
        };
        if let Some(problem) = body.problem(false) {
            // The transaction ends here; the chunks that follow are out of sequence.
            return Action::Reply(body_refused(problem, config));
        }
        self.state = State::Chunks(transaction, body);
        Action::Reply(replies::chunk_ok(bdat.size))
    }

    /// The content is complete.
    pub fn data_read(&mut self, config: &Config, now: Timestamp, body: Body) -> Action {
        let State::Content(transaction) = self.take_state() else {
            return Action::Reply(replies::mail_first());
        };
        if let Some(problem) = body.problem(true) {
            return Action::Reply(body_refused(problem, config));
        }
        let summary = HeaderSummary::of(body.content());
        if let Some(bytes_max) = config.limits.header_bytes_max.filter(|max| summary.bytes as u64 > *max) {
            return Action::Reply(replies::header_too_big(bytes_max));
        }
        if summary.received > config.limits.received_max {
            return Action::Reply(replies::loops());
        }
        let head = self.head(&transaction, &summary, body.content(), now);
        let origin = Origin {
            session: self.id.clone(),
            protocol: match self.user {
                Some(_) => "local".to_owned(),
                None => self.protocol(&transaction).name().to_owned(),
            },
            ip: self.user.is_none().then_some(self.ip),
            helo: self.hello.as_ref().map(|hello| hello.name.to_string()),
        };
        self.state = State::Accepting;
        Action::Accept(Box::new(NewMessage {
            envelope: transaction.into_envelope(),
            account: self.account.clone(),
            received: now,
            origin,
            content: body.finish(&head),
        }))
    }

    /// The body is so far over the limit that its end is not waited for.
    pub fn overrun(&mut self, config: &Config) -> Action {
        Action::Close(replies::too_big(config.limits.message_bytes_max))
    }

    /// The client may believe that its data ended where it did not.
    pub fn framing_uncertain(&mut self, body: &Body) -> Action {
        let fault = match body.problem(false) {
            Some(BodyProblem::Fault(fault)) => fault,
            _ => Fault::BareLf,
        };
        Action::Close(replies::bad_content(fault))
    }

    /// The queue has the message, or has not.
    pub fn queued(&mut self, result: &Result<QueueId, AcceptError>, config: &Config) -> Action {
        self.state = State::Ready;
        Action::Reply(match result {
            Ok(id) => {
                self.idle = 0;
                replies::queued(*id)
            }
            Err(AcceptError::Full) => replies::no_space(),
            Err(AcceptError::Temporary(_)) => replies::cannot_take_now(),
            Err(AcceptError::Refused(reply)) => reply.clone(),
            Err(AcceptError::TooLarge) => replies::too_big(config.limits.message_bytes_max),
        })
    }

    fn start_tls(&mut self) -> Action {
        match self.tls {
            Tls::Unavailable => Action::Reply(replies::no_tls()),
            Tls::Active(_) => Action::Reply(replies::tls_already()),
            Tls::Offered => {
                self.state = State::Ready;
                Action::StartTls(replies::begin_tls())
            }
        }
    }

    /// TLS is in use from here on; `summary` is version and cipher suite.
    pub fn tls_established(&mut self, summary: String, bindings: ChannelBindings) {
        self.tls = Tls::Active(summary);
        self.bindings = bindings;
        // RFC 3207 §4.2: what the client said before may have come from anybody.
        self.hello = None;
        self.account = None;
        self.state = State::Ready;
    }

    /// The command did not come in time.
    pub fn timed_out(&mut self) -> Action {
        Action::Close(replies::timed_out())
    }

    /// The session is over its time.
    pub fn lasted_too_long(&mut self) -> Action {
        Action::Close(replies::session_too_long())
    }

    /// The server stops.
    pub fn stopping(&mut self) -> Action {
        Action::Close(replies::stopping())
    }
}

fn refuse(refusal: Refusal) -> Action {
    if refusal.after.is_zero() {
        Action::Reply(refusal.reply)
    } else {
        Action::ReplyAfter(refusal.after, refusal.reply)
    }
}

fn skip(bdat: Bdat, reply: Reply) -> Action {
    if bdat.size > SKIPPED_CHUNK_BYTES_MAX {
        Action::Close(reply)
    } else {
        Action::SkipChunk(bdat.size, reply)
    }
}

fn body_refused(problem: BodyProblem, config: &Config) -> Reply {
    match problem {
        BodyProblem::TooBig => replies::too_big(config.limits.message_bytes_max),
        BodyProblem::Fault(fault) => replies::bad_content(fault),
    }
}

/// A request line of HTTP: a web page makes a browser send it here, with commands in its body.
fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 6] = [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"CONNECT "];
    METHODS.iter().any(|method| line.starts_with(method))
}
