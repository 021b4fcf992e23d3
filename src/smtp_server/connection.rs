//! The I/O of one SMTP connection: reads lines and content, does what the session says, writes replies.
//!
//! Replies collect in a buffer that is written when there is nothing left to read: all replies to a batch of pipelined
//! commands go out in one write (RFC 2920 §3.2). Whatever waits here waits with a limit.

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::SmtpContext;
use super::body::Body;
use super::session::{Action, Attempt, Claim, KeysOf, Session};
use crate::config::Config;
use crate::names::AccountName;
use crate::net::Stream;
use crate::smtp::Reply;
use crate::smtp::command::{Bdat, Verb};
use crate::smtp::data::{Line, Progress, find_line};
use crate::spool::NewMessage;

/// Room for a batch of commands.
const COMMANDS_READ_BYTES: usize = 4 * 1024;
/// Room for content.
const CONTENT_READ_BYTES: usize = 32 * 1024;
/// The longest line that is read only to be refused; behind it the connection is closed.
const SKIPPED_LINE_BYTES_MAX: usize = 256 * 1024;
/// Replies that may wait for the batch to end.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// A TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_mins(1);
/// After our last word, what the client still sends is read and thrown away for so long and so much: closing with
/// data unread would make the kernel reset the connection, and the client might never see why.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: usize = 4 << 20;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// We said our last word.
    #[error("closed")]
    Closed,
    /// The client went.
    #[error("the client closed the connection")]
    Gone,
    /// The client did not take our replies in time.
    #[error("the client does not read")]
    NotReading,
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The TLS handshake failed.
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
}

/// What ended a wait for input.
enum Waited {
    Input,
    TimedOut,
    SessionOver,
    Stopping,
}

/// A connection.
pub struct Connection {
    stream: Stream,
    session: Session,
    ctx: SmtpContext,
    input: BytesMut,
    output: BytesMut,
    /// When the session is over its time.
    ends: Option<Instant>,
    /// Registered once, not at every wait.
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    shutdown: CancellationToken,
}

impl Connection {
    /// A connection whose greeting has not been sent.
    pub fn new(stream: Stream, session: Session, ctx: SmtpContext, shutdown: &CancellationToken) -> Self {
        // A node of its own, so that connections do not wait for each other to ask whether it is time to stop.
        let shutdown = shutdown.child_token();
        let ends =
            ctx.config.load().limits.session_timeout.and_then(|longest| Instant::now().checked_add(longest));
        Self {
            stream,
            session,
            ctx,
            input: BytesMut::with_capacity(COMMANDS_READ_BYTES),
            output: BytesMut::with_capacity(512),
            ends,
            stopping: Box::pin(shutdown.clone().cancelled_owned()),
            shutdown,
        }
    }

    /// Begins TLS; in the middle of a session or before its first line.
    pub async fn start_tls(mut self) -> Result<Self, End> {
        let Some(tls) = self.ctx.tls.clone() else { return Err(End::Closed) };
        let Stream::Plain(tcp) = self.stream else { return Err(End::Closed) };
        let handshake = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls.config()).accept(tcp)).await;
        let stream = handshake.map_err(|_| End::Tls(io::ErrorKind::TimedOut.into()))?.map_err(End::Tls)?;
        let stream = Stream::Tls(Box::new(stream.into()));
        let bindings = tls.bindings(&stream);
        self.session.tls_established(stream.tls_summary().unwrap_or_default(), bindings);
        Ok(Self { stream, ..self })
    }

    /// Speaks until one side has enough.
    pub async fn run(mut self) -> End {
        self.put(&self.session.greeting());
        loop {
            match self.lines().await {
                Ok(()) => match self.start_tls().await {
                    Ok(with_tls) => self = with_tls,
                    Err(end) => return end,
                },
                Err(end) => return end,
            }
        }
    }

    /// Takes lines until TLS is to begin.
    async fn lines(&mut self) -> Result<(), End> {
        loop {
            let config = self.ctx.config.load_full();
            let action = match find_line(&self.input) {
                Line::Complete(length) => self.line(&config, length),
                Line::Bare(fault) => self.session.bare_line_end(fault),
                Line::Incomplete if self.line_is_too_long() => self.skip_line(&config).await?,
                Line::Incomplete => match self.wait_for_line(&config).await? {
                    Some(action) => action,
                    None => continue,
                },
            };
            if self.perform(&config, action).await? {
                return Ok(());
            }
            if self.output.len() > OUTPUT_BYTES_MAX {
                self.flush(&config).await?;
            }
        }
    }

    fn line(&mut self, config: &Config, length: usize) -> Action {
        let line = &self.input[..length];
        let secret = self.session.next_line_is_secret();
        let action = if length > self.session.line_bytes_max(line) {
            self.session.line_too_long(config)
        } else {
            self.session.line(config, line)
        };
        log_refusal(&mut self.session, if secret { b"AUTH" } else { line }, &action);
        self.input.advance(length + 2);
        action
    }

    /// Reads until there is a line, or what came instead of it. The time runs for the line, not for each byte of it.
    async fn wait_for_line(&mut self, config: &Config) -> Result<Option<Action>, End> {
        self.flush(config).await?;
        let deadline = Instant::now().checked_add(config.limits.command_timeout);
        loop {
            let length = self.input.len();
            match self.fill(deadline, COMMANDS_READ_BYTES, true).await? {
                Waited::Input => {
                    // Only what is new can hold the end of the line, and a CR before it.
                    let from = length.saturating_sub(1);
                    if self.line_is_too_long() || find_line(&self.input[from..]) != Line::Incomplete {
                        return Ok(None);
                    }
                }
                other => return Ok(Some(self.gave_up(other))),
            }
        }
    }

    /// Whether the line is too long already, before its end has come; the last byte may be the CR of its end.
    fn line_is_too_long(&self) -> bool {
        self.input.len() > self.session.line_bytes_max(&self.input) + 1
    }

    /// Throws away a line that is too long, up to its end.
    async fn skip_line(&mut self, config: &Config) -> Result<Action, End> {
        let deadline = Instant::now().checked_add(config.limits.command_timeout);
        let mut skipped = 0;
        loop {
            match find_line(&self.input) {
                Line::Complete(length) => {
                    self.input.advance(length + 2);
                    return Ok(self.session.line_too_long(config));
                }
                Line::Bare(fault) => return Ok(self.session.bare_line_end(fault)),
                Line::Incomplete => {}
            }
            // The last byte may be the CR of the line's end.
            let length = self.input.len().saturating_sub(1);
            self.input.advance(length);
            skipped += length;
            if skipped > SKIPPED_LINE_BYTES_MAX {
                let reply = super::replies::line_too_long();
                return Ok(Action::Close(reply));
            }
            match self.fill(deadline, CONTENT_READ_BYTES, true).await? {
                Waited::Input => {}
                other => return Ok(self.gave_up(other)),
            }
        }
    }

    fn gave_up(&mut self, waited: Waited) -> Action {
        match waited {
            Waited::SessionOver => self.session.lasted_too_long(),
            Waited::Stopping => self.session.stopping(),
            Waited::TimedOut | Waited::Input => self.session.timed_out(),
        }
    }

    /// Does what the session says, and what follows from that. True when TLS is to begin.
    async fn perform(&mut self, config: &Arc<Config>, first: Action) -> Result<bool, End> {
        let mut action = first;
        loop {
            action = match action {
                Action::Reply(reply) => {
                    self.put(&reply);
                    return Ok(false);
                }
                Action::ReplyAfter(delay, reply) => {
                    self.flush(config).await?;
                    self.pause(delay).await;
                    self.put(&reply);
                    return Ok(false);
                }
                Action::Close(reply) => {
                    self.put(&reply);
                    return Err(self.close(config).await);
                }
                Action::StartTls(reply) => {
                    self.put(&reply);
                    self.flush(config).await?;
                    // RFC 3207 §5, and what was found since: commands injected in clear text behind STARTTLS must
                    // not be taken for commands within TLS.
                    self.input.clear();
                    return Ok(true);
                }
                Action::ReadData(reply, body) => {
                    self.put(&reply);
                    self.read_data(config, body).await?
                }
                Action::ReadChunk(bdat, body) => self.read_chunk(config, bdat, body).await?,
                Action::SkipChunk(size, reply) => match self.skip_chunk(config, size).await? {
                    Some(given_up) => given_up,
                    None => {
                        self.put(&reply);
                        return Ok(false);
                    }
                },
                Action::Verify(claim) => self.verify(config, claim).await,
                Action::FindKeys(keys) => self.find_keys(config, keys).await,
                Action::CheckSuppression(account, recipient) => {
                    let found = self.ctx.queue.suppression(&account, &recipient, crate::clock::now());
                    self.session.suppression_checked(found.as_ref())
                }
                Action::Accept(message) => self.accept(config, *message).await,
            };
            log_refusal(&mut self.session, b"", &action);
        }
    }

    async fn read_data(&mut self, config: &Config, mut body: Body) -> Result<Action, End> {
        loop {
            if let Some(given_up) = self.want_input(config).await? {
                return Ok(given_up);
            }
            match body.push_data(&self.input) {
                Progress::More => self.input.clear(),
                Progress::End { consumed } => {
                    self.input.advance(consumed);
                    return Ok(self.session.data_read(config, crate::clock::now(), body));
                }
                Progress::Uncertain => {
                    self.input.clear();
                    return Ok(self.session.framing_uncertain(&body));
                }
            }
            if body.is_overrun() {
                return Ok(self.session.overrun(config));
            }
        }
    }

    async fn read_chunk(&mut self, config: &Config, bdat: Bdat, mut body: Body) -> Result<Action, End> {
        let mut left = bdat.size;
        while left > 0 {
            if let Some(given_up) = self.want_input(config).await? {
                return Ok(given_up);
            }
            let length = (self.input.len() as u64).min(left) as usize;
            body.push_chunk(&self.input[..length]);
            self.input.advance(length);
            left -= length as u64;
        }
        Ok(self.session.chunk_read(config, crate::clock::now(), bdat, body))
    }

    /// Throws octets away; what came instead of them, if anything did.
    async fn skip_chunk(&mut self, config: &Config, size: u64) -> Result<Option<Action>, End> {
        let mut left = size;
        while left > 0 {
            if let Some(given_up) = self.want_input(config).await? {
                return Ok(Some(given_up));
            }
            let length = (self.input.len() as u64).min(left) as usize;
            self.input.advance(length);
            left -= length as u64;
        }
        Ok(None)
    }

    /// Waits until some content is there.
    async fn want_input(&mut self, config: &Config) -> Result<Option<Action>, End> {
        if !self.input.is_empty() {
            return Ok(None);
        }
        self.flush(config).await?;
        let deadline = Instant::now().checked_add(config.limits.command_timeout);
        match self.fill(deadline, CONTENT_READ_BYTES, false).await? {
            Waited::Input => Ok(None),
            other => Ok(Some(self.gave_up(other))),
        }
    }

    async fn verify(&mut self, config: &Config, claim: Claim) -> Action {
        // An account that does not exist takes as long to refuse as one that does.
        let asked = claim.account.clone().map_or_else(|| AccountName::new("0"), Ok);
        let right = match asked {
            Ok(name) => self.ctx.store.check_password(&name, &claim.password).await,
            Err(_) => Ok(false),
        };
        let right = match right {
            Ok(right) => Some(right && claim.account.is_some()),
            Err(error) => {
                tracing::error!(session = self.session.id(), %error, "cannot check a password");
                None
            }
        };
        let action = self.session.verified(config, right);
        if let Some(account) = self.session.account() {
            tracing::debug!(session = self.session.id(), %account, "authenticated");
        }
        action
    }

    async fn find_keys(&mut self, config: &Config, keys: KeysOf) -> Action {
        let found = self.ctx.store.keys(keys.account.as_ref(), &keys.user, keys.kind).await;
        if let Err(error) = &found {
            tracing::error!(session = self.session.id(), %error, "cannot read the keys of a password");
        }
        self.session.keys_found(config, found.ok())
    }

    /// Hands the message to the queue; when that returns, it is on disk (RFC 5321 §6.1), and only then is it answered.
    async fn accept(&mut self, config: &Config, message: NewMessage) -> Action {
        let sender = message.envelope.sender.clone();
        let recipients = message.envelope.recipients.len();
        let size = message.content.len();
        let result = self.ctx.queue.accept(message).await;
        let (session, ip) = (self.session.id(), self.session.ip());
        match &result {
            Ok(id) => {
                let account = self.session.account().map(tracing::field::display);
                tracing::info!(session, %id, %ip, account, from = %sender, recipients, size, "accepted");
            }
            Err(error) => {
                tracing::warn!(session, %ip, from = %sender, recipients, size, %error, "not accepted");
            }
        }
        self.session.queued(&result, config)
    }

    /// Reads what there is. `interruptible` is a place where a stopping server may say goodbye.
    async fn fill(
        &mut self,
        deadline: Option<Instant>,
        room: usize,
        interruptible: bool,
    ) -> Result<Waited, End> {
        self.input.reserve(room);
        let until = [deadline, self.ends].into_iter().flatten().min();
        let read = self.stream.read_buf(&mut self.input);
        let read = async {
            match until {
                Some(until) => timeout_at(until, read).await.ok(),
                None => Some(read.await),
            }
        };
        let stopped = interruptible && self.shutdown.is_cancelled();
        let result = if !interruptible {
            read.await
        } else if stopped {
            return Ok(Waited::Stopping);
        } else {
            tokio::select! {
                biased;
                result = read => result,
                () = &mut self.stopping => return Ok(Waited::Stopping),
            }
        };
        match result {
            Some(Ok(0)) => Err(End::Gone),
            Some(Ok(_)) => Ok(Waited::Input),
            Some(Err(error)) => Err(End::Io(error)),
            None if self.ends.is_some_and(|ends| Instant::now() >= ends) => Ok(Waited::SessionOver),
            None => Ok(Waited::TimedOut),
        }
    }

    /// Waits before an answer, but not for longer than the session may last or the server runs.
    async fn pause(&mut self, delay: Duration) {
        let until = [Instant::now().checked_add(delay), self.ends].into_iter().flatten().min();
        let Some(until) = until else { return };
        if !self.shutdown.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = &mut self.stopping => {}
            }
        }
    }

    fn put(&mut self, reply: &Reply) {
        // Nothing written into a BytesMut fails.
        let _ = write!(self.output, "{reply}");
    }

    async fn flush(&mut self, config: &Config) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let write = async {
            self.stream.write_all(&self.output).await?;
            // TLS holds records back until it is told to send them.
            self.stream.flush().await
        };
        match timeout(config.limits.command_timeout, write).await {
            Ok(written) => written?,
            Err(_) => return Err(End::NotReading),
        }
        self.output.clear();
        Ok(())
    }

    /// Writes what is left, closes our side, and lets the client finish.
    async fn close(&mut self, config: &Config) -> End {
        if let Err(end) = self.flush(config).await {
            return end;
        }
        let goodbye = async {
            self.stream.shutdown().await?;
            let mut seen = self.input.len();
            while seen < LINGER_BYTES_MAX {
                self.input.clear();
                match self.stream.read_buf(&mut self.input).await? {
                    0 => break,
                    length => seen += length,
                }
            }
            Ok::<(), io::Error>(())
        };
        match timeout(LINGER, goodbye).await {
            Ok(Err(error)) => End::Io(error),
            Ok(Ok(())) | Err(_) => End::Closed,
        }
    }
}

/// What was refused and why, for operators; what a client typed in an authentication is never shown.
fn log_refusal(session: &mut Session, line: &[u8], action: &Action) {
    if let Some(Attempt { mechanism, account }) = session.take_failed_login() {
        let (session, ip, account) = (session.id(), session.ip(), account.map(tracing::field::display));
        tracing::info!(session, %ip, %mechanism, account, "login failed");
        return;
    }
    let (Action::Reply(reply)
    | Action::ReplyAfter(_, reply)
    | Action::Close(reply)
    | Action::SkipChunk(_, reply)) = action
    else {
        return;
    };
    if reply.code < 400 {
        return;
    }
    let (session, ip) = (session.id(), session.ip());
    let (code, text) = (reply.code, reply.lines.first().map_or("", String::as_str));
    match Verb::of_line(line) {
        Some(Verb::Mail | Verb::Rcpt) => {
            let command = String::from_utf8_lossy(line);
            tracing::info!(session, %ip, ?command, code, text, "refused");
        }
        Some(verb) => tracing::info!(session, %ip, command = verb.as_str(), code, text, "refused"),
        None if line.is_empty() => tracing::info!(session, %ip, code, text, "refused"),
        None => tracing::debug!(session, %ip, code, text, "not a command"),
    }
}
