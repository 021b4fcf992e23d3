//! One connection: commands in, answers out, and everything that needs the byte stream itself: literals, STARTTLS,
//! AUTHENTICATE, IDLE, timeouts, the end.
//!
//! RFC 9051 §5.4 (autologout), §6.2.1 (STARTTLS), §6.2.2 (AUTHENTICATE), §6.3.13 (IDLE), §7.1.5 (BYE).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ImapContext;
use super::assemble::{Announcement, LINE_BYTES_MAX, Step};
use super::parse::{self, tag_and_name};
use super::session::{Next, Session};
use super::wire::{Wire, WireError, accept_tls};
use crate::config::{Limits, Listener};
use crate::net::{Stream, TooManyConnections};
use crate::sasl::{self, Mechanism};

/// Literals of a command other than APPEND, all together.
const LITERAL_BYTES_MAX: u64 = 64 * 1024;
/// The same before the client has said who it is.
const LITERAL_BYTES_MAX_UNKNOWN: u64 = 8 * 1024;
/// How often an IDLE client hears that we are still there: connections without traffic are forgotten on the way.
const IDLE_SIGN_OF_LIFE: Duration = Duration::from_mins(2);

/// Says why there is no connection to be had, as far as that takes no waiting.
pub fn turn_away(tcp: TcpStream, listener: &Listener, why: TooManyConnections) {
    if !listener.kind.tls_at_once() {
        // A fresh socket takes this much at once; if not, the client learns it from the end of the connection.
        let _ = tcp.try_write(format!("* BYE [UNAVAILABLE] {why}\r\n").as_bytes());
    }
}

/// How a connection goes on after a command.
enum Flow {
    Go,
    End,
}

/// Serves one client to the end.
pub async fn run(
    tcp: TcpStream,
    ip: IpAddr,
    listener: Arc<Listener>,
    ctx: ImapContext,
    shutdown: CancellationToken,
) {
    let patience = ctx.config.load().limits.command_timeout;
    let stream = match (&ctx.tls, listener.kind.tls_at_once()) {
        (Some(tls), true) => match accept_tls(tcp, tls.config(), patience).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "no TLS");
                return;
            }
        },
        (None, true) => {
            tracing::error!("an imaps listener without a certificate");
            return;
        }
        (_, false) => Stream::Plain(tcp),
    };
    let wire = Wire::new(stream, patience);
    let mut session = Session::new(ctx.clone(), listener, ip);
    session.bindings = ctx.tls.as_ref().map(|tls| wire.bindings(tls)).unwrap_or_default();
    let connection = Connection { wire, session, ctx, shutdown, wrong: 0 };
    connection.run().await;
}

struct Connection {
    wire: Wire,
    session: Session,
    ctx: ImapContext,
    shutdown: CancellationToken,
    /// Commands in a row that were wrong.
    wrong: usize,
}

impl Connection {
    async fn run(mut self) {
        tracing::debug!(tls = self.wire.tls_summary(), "connected");
        let greeting = self.session.greeting(self.wire.is_tls());
        self.wire.output.untagged(greeting);
        let opened = Instant::now();
        loop {
            match self.turn(opened).await {
                Ok((connection, Flow::Go)) => self = connection,
                Ok((connection, Flow::End)) => {
                    tracing::debug!("closed");
                    return connection.wire.close().await;
                }
                Err(error) => {
                    tracing::debug!(%error, "connection ended");
                    return;
                }
            }
        }
    }

    /// One step: waits for bytes, decides about a literal, or does a command.
    async fn turn(mut self, opened: Instant) -> Result<(Self, Flow), WireError> {
        match self.wire.step() {
            Step::More => {
                self.wire.flush().await?;
                let flow = self.wait(opened).await?;
                Ok((self, flow))
            }
            Step::Literal(announcement) => {
                let flow = self.literal(announcement).await?;
                Ok((self, flow))
            }
            Step::TooLong => {
                let text = format!("BAD A command line has at most {LINE_BYTES_MAX} bytes");
                self.wire.output.untagged(text);
                let flow = self.count_wrong(true);
                Ok((self, flow))
            }
            Step::Refused => Ok((self, Flow::Go)),
            Step::Command(raw) => match parse::request(&raw) {
                Ok(request) => {
                    drop(raw);
                    self.command(request).await
                }
                Err(bad) => {
                    let tag = bad.tag.as_deref().unwrap_or("*");
                    self.wire.output.tagged(tag, format_args!("BAD {}", bad.problem));
                    let flow = self.count_wrong(true);
                    Ok((self, flow))
                }
            },
        }
    }

    fn limits(&self) -> Limits {
        self.ctx.config.load().limits.clone()
    }

    /// Wrong commands in a row end the connection at some point, and so do failed logins, in a row or not.
    fn count_wrong(&mut self, wrong: bool) -> Flow {
        self.wrong = if wrong { self.wrong + 1 } else { 0 };
        let worst = self.wrong.max(self.session.failed_logins);
        if self.limits().bad_commands_max.is_some_and(|max| worst > max) {
            tracing::info!("too many wrong commands");
            self.wire.output.untagged("BYE Too many wrong commands");
            return Flow::End;
        }
        Flow::Go
    }

    /// Waits for bytes: long between commands, less in the middle of one or before the client is known.
    async fn wait(&mut self, opened: Instant) -> Result<Flow, WireError> {
        let limits = self.limits();
        let between = self.wire.assembler.at_start() && !self.wire.has_input();
        let wait = if between && self.session.is_authenticated() {
            limits.imap_idle_timeout
        } else {
            limits.command_timeout
        };
        let mut until = Instant::now() + wait;
        if let (false, Some(longest)) = (self.session.is_authenticated(), limits.session_timeout) {
            until = until.min(opened + longest);
        }
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                self.wire.output.untagged("BYE The server is shutting down");
                Ok(Flow::End)
            }
            read = self.wire.read() => read.map(|()| Flow::Go),
            () = tokio::time::sleep_until(until) => {
                self.wire.output.untagged("BYE Autologout; idle for too long");
                Ok(Flow::End)
            }
        }
    }

    /// Takes or refuses a literal before a byte of it is kept.
    async fn literal(&mut self, announcement: Announcement) -> Result<Flow, WireError> {
        let so_far = self.wire.assembler.so_far();
        let (tag, name) = tag_and_name(&so_far.text);
        let total = so_far.literal_bytes().saturating_add(announcement.len);
        let message_bytes_max = self.limits().message_bytes_max;
        let max = match (self.session.is_authenticated(), name.as_str()) {
            (false, _) => LITERAL_BYTES_MAX_UNKNOWN,
            (true, "APPEND") => message_bytes_max.saturating_add(LITERAL_BYTES_MAX),
            (true, _) => LITERAL_BYTES_MAX,
        };
        let too_large = name == "APPEND" && announcement.len > message_bytes_max;
        if tag.is_some() && total <= max && !too_large {
            self.wire.assembler.accept();
            if announcement.waits {
                self.wire.output.raw("+ OK\r\n");
                self.wire.flush().await?;
            }
            return Ok(Flow::Go);
        }
        self.wire.assembler.refuse();
        // RFC 7888 §4: what a client sends without asking must be read to the end, or the connection closed.
        if !announcement.waits && announcement.len > max.saturating_mul(2).max(1024 * 1024) {
            self.wire.output.untagged("BYE [TOOBIG] That literal is far too large");
            return Ok(Flow::End);
        }
        let tag = tag.as_deref().unwrap_or("*");
        if self.session.is_authenticated() && name == "APPEND" {
            let text = format!("NO [TOOBIG] A message has at most {message_bytes_max} bytes");
            self.wire.output.tagged(tag, text);
            return Ok(Flow::Go);
        }
        self.wire.output.tagged(tag, format_args!("BAD [TOOBIG] A literal here has at most {max} bytes"));
        Ok(self.count_wrong(true))
    }

    async fn command(mut self, request: parse::Request) -> Result<(Self, Flow), WireError> {
        let name = request.command.name();
        let next = self.session.execute(request, &mut self.wire).await?;
        tracing::debug!(command = name, "done");
        let flow = match next {
            Next::Go { wrong } => self.count_wrong(wrong),
            Next::End => Flow::End,
            Next::Idle { tag } => self.idle(&tag).await?,
            Next::Authenticate { tag, mechanism, initial } => {
                self.authenticate(&tag, mechanism, initial).await?
            }
            Next::StartTls { tag } => return self.start_tls(&tag).await,
        };
        Ok((self, flow))
    }

    async fn start_tls(mut self, tag: &str) -> Result<(Self, Flow), WireError> {
        let Some(tls) = self.ctx.tls.clone() else {
            self.wire.output.tagged(tag, "BAD STARTTLS is not available");
            return Ok((self, Flow::Go));
        };
        if self.wire.has_input() {
            // Nobody has a reason to send anything before our answer, except to smuggle it past TLS.
            tracing::warn!("commands sent in clear text behind STARTTLS");
            self.wire.output.tagged(tag, "BAD Nothing may follow STARTTLS before TLS");
            self.wire.output.untagged("BYE Commands behind STARTTLS");
            return Ok((self, Flow::End));
        }
        self.wire.output.tagged(tag, "OK Begin TLS negotiation now");
        self.wire.flush().await?;
        self.wire = self.wire.start_tls(tls.config()).await?;
        self.session.bindings = self.wire.bindings(&tls);
        tracing::debug!(tls = self.wire.tls_summary(), "TLS");
        Ok((self, Flow::Go))
    }

    async fn authenticate(
        &mut self,
        tag: &str,
        mechanism: Mechanism,
        initial: Option<Vec<u8>>,
    ) -> Result<Flow, WireError> {
        let mut step = self.session.begin(mechanism, initial.as_deref(), self.wire.is_tls());
        // Whose keys were asked for.
        let mut user = None;
        loop {
            match step {
                sasl::Step::Challenge { text, exchange } => {
                    self.wire.output.raw("+ ").raw(&sasl::encode(&text)).end();
                    self.wire.flush().await?;
                    let line = tokio::time::timeout(self.wire.patience, self.wire.line()).await;
                    let line = line.map_err(|_| WireError::Stalled)??;
                    // RFC 9051 §6.2.2: "*" cancels.
                    let response = if line == b"*" { None } else { sasl::decode(&line).ok() };
                    match response {
                        Some(response) => step = exchange.respond(&response),
                        None => step = sasl::Step::Malformed,
                    }
                }
                sasl::Step::Verify(credentials) => {
                    let known = self.session.log_in(tag, mechanism, credentials, &mut self.wire).await?;
                    return Ok(self.count_wrong(!known));
                }
                sasl::Step::FindKeys(find) => {
                    match self.session.find_keys(tag, &find, &mut self.wire).await {
                        Some(keys) => {
                            user = Some(find.user.clone());
                            step = find.found(keys);
                        }
                        None => return Ok(self.count_wrong(true)),
                    }
                }
                sasl::Step::Proved { user, act_as } => {
                    let (act_as, wire) = (act_as.as_deref(), &mut self.wire);
                    let known = self.session.proved(tag, mechanism, &user, act_as, wire).await?;
                    return Ok(self.count_wrong(!known));
                }
                sasl::Step::Refused => {
                    self.session.refused(tag, mechanism, user.as_deref(), &mut self.wire).await?;
                    return Ok(self.count_wrong(true));
                }
                sasl::Step::Malformed => {
                    self.wire.output.tagged(tag, "BAD Authentication cancelled");
                    return Ok(self.count_wrong(true));
                }
            }
        }
    }

    /// Tells what happens in the mailbox as it happens, until DONE.
    async fn idle(&mut self, tag: &str) -> Result<Flow, WireError> {
        let limits = self.limits();
        let until = Instant::now() + limits.imap_idle_timeout;
        let mut sign_of_life =
            tokio::time::interval_at(Instant::now() + IDLE_SIGN_OF_LIFE, IDLE_SIGN_OF_LIFE);
        self.wire.output.raw("+ idling\r\n");
        loop {
            // First what is there already: changes before IDLE began wake nobody.
            if !self.session.tell_news(&mut self.wire.output, true).await {
                return Ok(Flow::End);
            }
            self.wire.flush().await?;
            let mut watch = self.session.watch();
            tokio::select! {
                line = self.wire.line() => {
                    let done = line?.eq_ignore_ascii_case(b"DONE");
                    let text = if done { "OK IDLE completed" } else { "BAD DONE ends IDLE" };
                    if !self.session.tell_news(&mut self.wire.output, true).await {
                        return Ok(Flow::End);
                    }
                    self.wire.output.tagged(tag, text);
                    return Ok(self.count_wrong(!done));
                }
                () = watch.changed() => {}
                _ = sign_of_life.tick() => drop(self.wire.output.untagged("OK Still here")),
                () = self.shutdown.cancelled() => {
                    self.wire.output.untagged("BYE The server is shutting down");
                    return Ok(Flow::End);
                }
                () = tokio::time::sleep_until(until) => {
                    self.wire.output.untagged("BYE Autologout; idle for too long");
                    return Ok(Flow::End);
                }
            }
        }
    }
}
