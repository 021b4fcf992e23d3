//! One outbound SMTP connection: reads replies, writes commands and content, and knows what the peer offers.
//!
//! RFC 5321 §4.5.3.2 (timeouts), RFC 2920 (pipelining). Decisions stand elsewhere: `transaction` says what to write and
//! what replies mean, `open` how a session begins.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::classify::{Cause, Failure, Seen};
use super::transaction::{Step, Transaction};
use crate::net::Stream;
use crate::outcome::Stage;
use crate::smtp::dot_stuff::Stuffed;
use crate::smtp::reply::ReplyParser;
use crate::smtp::{Extensions, Reply};

/// Content written under one timeout: a peer must take as much in `block_timeout`.
const CONTENT_BLOCK_BYTES: usize = 256 * 1024;
/// First size of the input buffer; most conversations need no more.
const INPUT_BYTES: usize = 1024;
/// How long we look for the reason when a peer hangs up on our content.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// The peer's first words.
    pub(super) greeting: Duration,
    /// Commands.
    pub(super) command: Duration,
    /// A block of content.
    pub(super) block: Duration,
    /// The reply to the content.
    pub(super) data: Duration,
}

/// A connection that speaks SMTP.
#[derive(Debug)]
pub(super) struct Session {
    stream: Stream,
    input: BytesMut,
    parser: ReplyParser,
    output: String,
    timeouts: Timeouts,
    /// What the peer offers, as of the last EHLO.
    pub(super) extensions: Extensions,
    /// For outcomes: who the peer is.
    pub(super) seen: Seen,
    /// The peer has shown a certificate that is valid for its name.
    pub(super) verified: bool,
    /// Transactions so far.
    pub(super) transactions: usize,
    /// RSET must go first.
    left_open: bool,
    /// Nothing more can be said here.
    ended: bool,
}

impl Session {
    pub(super) fn new(stream: Stream, seen: Seen, timeouts: Timeouts) -> Self {
        Self {
            stream,
            input: BytesMut::with_capacity(INPUT_BYTES),
            parser: ReplyParser::default(),
            output: String::new(),
            timeouts,
            extensions: Extensions::default(),
            seen,
            verified: false,
            transactions: 0,
            left_open: false,
            ended: false,
        }
    }

    /// Reads the peer's first words.
    pub(super) async fn greeting(&mut self) -> Result<Reply, Failure> {
        self.reply_within(self.timeouts.greeting, Stage::Greeting, "the greeting").await
    }

    /// Reads a reply.
    pub(super) async fn reply(&mut self, stage: Stage, waiting_for: &'static str) -> Result<Reply, Failure> {
        self.reply_within(self.timeouts.command, stage, waiting_for).await
    }

    async fn reply_within(
        &mut self,
        limit: Duration,
        stage: Stage,
        waiting_for: &'static str,
    ) -> Result<Reply, Failure> {
        let reading = async {
            loop {
                match self.parser.next(&mut self.input) {
                    Ok(Some(reply)) => return Ok(reply),
                    Ok(None) => {}
                    Err(error) => return Err(Cause::NotSmtp(error)),
                }
                self.input.reserve(INPUT_BYTES);
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) => return Err(Cause::Closed(waiting_for)),
                    Ok(_) => {}
                    // How TLS calls a peer that hangs up without a word.
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(Cause::Closed(waiting_for));
                    }
                    Err(e) => return Err(Cause::Lost(e)),
                }
            }
        };
        let read = tokio::time::timeout(limit, reading).await;
        let result = read.unwrap_or(Err(Cause::Timeout { after: limit, waiting_for }));
        // RFC 5321 §3.8: after 421 the peer closes.
        self.ended |= !matches!(&result, Ok(reply) if reply.code != 421);
        if let Ok(reply) = &result {
            tracing::trace!(code = reply.code, stage = %stage, "reply");
        }
        result.map_err(|cause| Failure::new(stage, cause))
    }

    /// Writes a command and reads its reply.
    pub(super) async fn command(
        &mut self,
        line: &str,
        stage: Stage,
        waiting_for: &'static str,
    ) -> Result<Reply, Failure> {
        self.output.clear();
        self.output.push_str(line);
        self.output.push_str("\r\n");
        self.flush_output(stage).await?;
        self.reply(stage, waiting_for).await
    }

    async fn flush_output(&mut self, stage: Stage) -> Result<(), Failure> {
        let writing = write(&mut self.stream, self.output.as_bytes(), self.timeouts.command);
        let written = writing.await;
        self.output.clear();
        written.map_err(|cause| {
            self.ended = true;
            Failure::new(stage, cause)
        })
    }

    /// Runs a transaction to its end, or until the session breaks. `last` says that nothing follows on this
    /// connection: QUIT is then written along with the content.
    pub(super) async fn run(
        &mut self,
        transaction: &mut Transaction,
        content: &Stuffed,
        last: bool,
    ) -> Result<(), Failure> {
        self.transactions += 1;
        let result = self.steps(transaction, content, last).await;
        self.left_open = transaction.left_open();
        self.ended |= result.is_err();
        result
    }

    async fn steps(
        &mut self,
        transaction: &mut Transaction,
        content: &Stuffed,
        last: bool,
    ) -> Result<(), Failure> {
        loop {
            self.output.clear();
            match transaction.next(&mut self.output) {
                Step::Done => return Ok(()),
                Step::Send { replies } => {
                    self.flush_output(transaction.stage()).await?;
                    for _ in 0..replies {
                        let stage = transaction.stage();
                        let reply = self.reply(stage, waiting_for(stage)).await?;
                        transaction.take(reply)?;
                    }
                }
                Step::SendLoneDot => {
                    self.output.push_str(".\r\n");
                    self.flush_output(Stage::Data).await?;
                    let limit = self.timeouts.data;
                    let reply =
                        self.reply_within(limit, Stage::Data, "the reply to an empty message").await?;
                    transaction.take(reply)?;
                }
                Step::SendContent => transaction.take(self.content(content, last).await?)?,
            }
        }
    }

    /// Writes the content and reads the final reply.
    pub(super) async fn content(&mut self, content: &Stuffed, last: bool) -> Result<Reply, Failure> {
        // RFC 2920 §3.1: QUIT may follow the end of data in the same group. Nobody waits for its reply.
        let quit: &[u8] = if last && self.extensions.pipelining { b"QUIT\r\n" } else { b"" };
        match write_content(&mut self.stream, content, quit, self.timeouts.block).await {
            Ok(()) => {
                self.ended |= !quit.is_empty();
                self.reply_within(self.timeouts.data, Stage::Data, "the reply to the message").await
            }
            Err(cause) => {
                self.ended = true;
                // A peer that hangs up on our content has often said why.
                let last_words = self.reply_within(LAST_WORDS_TIMEOUT, Stage::Data, "").await;
                match last_words {
                    Ok(reply) if reply.is_permanent() || reply.is_temporary() => Ok(reply),
                    _ => Err(Failure::new(Stage::Data, cause)),
                }
            }
        }
    }

    /// Whether the last transaction was left open, so that RSET must go before the next.
    pub(super) fn left_open(&self) -> bool {
        self.left_open
    }

    /// Whether nothing more can be said here.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether bytes stand in the buffer that nobody has asked for.
    pub(super) fn has_unread(&self) -> bool {
        !self.input.is_empty()
    }

    /// The connection itself.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Takes the connection out, for the TLS handshake.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Whether a kept connection still looks alive: the peer has neither closed it nor said anything (421). Does not
    /// wait.
    pub(super) async fn looks_alive(&mut self) -> bool {
        if self.ended || self.has_unread() {
            return false;
        }
        let mut space = [0; 1];
        let mut space = ReadBuf::new(&mut space);
        let stream = &mut self.stream;
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut space).is_pending())).await
    }

    /// Says QUIT and closes, without waiting for anything. (RFC 5321 §4.1.1.10 wants a client to wait for the reply; the
    /// reply to the last message is in our hands, and nothing depends on another.)
    pub(super) async fn quit(mut self) {
        if self.ended {
            return;
        }
        let stream = &mut self.stream;
        poll_fn(|cx| {
            // As much as the socket takes at once; six bytes always fit, or the peer reads nothing anyway.
            if let Poll::Ready(Ok(_)) = Pin::new(&mut *stream).poll_write(cx, b"QUIT\r\n") {
                let _ = Pin::new(&mut *stream).poll_flush(cx);
                let _ = Pin::new(&mut *stream).poll_shutdown(cx);
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// What a timeout at a stage was waiting for.
const fn waiting_for(stage: Stage) -> &'static str {
    match stage {
        Stage::Mail => "the reply to MAIL",
        Stage::Rcpt => "the reply to RCPT",
        _ => "the reply to DATA",
    }
}

async fn write(stream: &mut Stream, bytes: &[u8], limit: Duration) -> Result<(), Cause> {
    let writing = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    within(limit, "the peer to read our commands", writing).await
}

async fn write_content(
    stream: &mut Stream,
    content: &Stuffed,
    quit: &[u8],
    limit: Duration,
) -> Result<(), Cause> {
    let waiting_for = "the peer to read the message";
    let mut body = content.body.clone();
    while body.len() > CONTENT_BLOCK_BYTES {
        let mut block = body.split_to(CONTENT_BLOCK_BYTES);
        within(limit, waiting_for, stream.write_all_buf(&mut block)).await?;
    }
    // One vectored write for body, end mark and QUIT.
    let mut rest = body.chain(content.end).chain(quit);
    let writing = async {
        stream.write_all_buf(&mut rest).await?;
        stream.flush().await
    };
    within(limit, waiting_for, writing).await
}

async fn within(
    limit: Duration,
    waiting_for: &'static str,
    writing: impl Future<Output = io::Result<()>>,
) -> Result<(), Cause> {
    match tokio::time::timeout(limit, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Cause::Lost(error)),
        Err(_) => Err(Cause::Timeout { after: limit, waiting_for }),
    }
}
