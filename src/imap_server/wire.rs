//! The byte stream of one connection: reading commands and lines, writing what waits, within time limits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::assemble::{Assembler, Step};
use super::output::Output;
use crate::net::Stream;
use crate::sasl::ChannelBindings;
use crate::tls::ServerTls;

/// Output over which the client must take some before more is made.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// What is read at once.
const READ_BYTES: usize = 16 * 1024;
/// Longest line outside of commands: DONE, SASL responses (RFC 4422 leaves the limit to us).
const PLAIN_LINE_BYTES_MAX: usize = 16 * 1024;

/// A connection's byte stream.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    input: BytesMut,
    /// Puts commands together.
    pub assembler: Assembler,
    /// What waits to be written.
    pub output: Output,
    /// Longest wait for the client to take something, or to send the rest of what it began.
    pub patience: Duration,
}

/// How a connection ends that did not say LOGOUT.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The client went away.
    #[error("the client closed the connection")]
    Closed,
    /// The client did not take or send anything in time.
    #[error("the client stalled")]
    Stalled,
    /// A line that never ends.
    #[error("the client sent a line that is too long")]
    LineTooLong,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

impl Wire {
    /// A fresh connection.
    pub fn new(stream: Stream, patience: Duration) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            assembler: Assembler::default(),
            output: Output::new(),
            patience,
        }
    }

    /// Whether TLS protects it.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Protocol and cipher suite.
    pub fn tls_summary(&self) -> Option<String> {
        self.stream.tls_summary()
    }

    /// What SASL can bind to.
    pub fn bindings(&self, tls: &ServerTls) -> ChannelBindings {
        tls.bindings(&self.stream)
    }

    /// Whether bytes wait that were received but not yet looked at.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// What to do next about the command that is coming in.
    pub fn step(&mut self) -> Step {
        self.assembler.step(&mut self.input)
    }

    /// Reads what there is. Can be cancelled without loss.
    pub async fn read(&mut self) -> Result<(), WireError> {
        let read = match self.assembler.literal_room() {
            // Octets of a literal go where they belong at once.
            Some((data, missing)) if self.input.is_empty() => {
                data.reserve(missing.min(READ_BYTES * 4));
                self.stream.read_buf(&mut data.limit(missing)).await?
            }
            _ => {
                self.input.reserve(READ_BYTES);
                self.stream.read_buf(&mut self.input).await?
            }
        };
        if read == 0 { Err(WireError::Closed) } else { Ok(()) }
    }

    /// A line that is no command, without its line end. Can be cancelled without loss.
    pub async fn line(&mut self) -> Result<Vec<u8>, WireError> {
        loop {
            if let Some(lf) = memchr::memchr(b'\n', &self.input) {
                let line = self.input.split_to(lf + 1);
                let line = &line[..lf];
                return Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
            }
            if self.input.len() > PLAIN_LINE_BYTES_MAX {
                return Err(WireError::LineTooLong);
            }
            self.read().await?;
        }
    }

    /// Writes all that waits.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        let writing = async {
            while let Some(piece) = self.output.pop() {
                for part in piece.chunks(OUTPUT_BYTES_MAX) {
                    // Each part has its own time: a slow client is no stalled one.
                    match tokio::time::timeout(self.patience, self.stream.write_all(part)).await {
                        Ok(written) => written?,
                        Err(_) => return Err(WireError::Stalled),
                    }
                }
            }
            match tokio::time::timeout(self.patience, self.stream.flush()).await {
                Ok(flushed) => Ok(flushed?),
                Err(_) => Err(WireError::Stalled),
            }
        };
        writing.await
    }

    /// Writes when much waits.
    pub async fn flush_if_full(&mut self) -> Result<(), WireError> {
        if self.output.len() < OUTPUT_BYTES_MAX { Ok(()) } else { self.flush().await }
    }

    /// Ends the connection in order.
    pub async fn close(mut self) {
        if self.flush().await.is_ok() {
            // The client may be gone already; there is nobody to tell.
            let _ = tokio::time::timeout(Duration::from_secs(5), self.stream.shutdown()).await;
        }
    }

    /// Begins TLS. What was received in clear text before is forgotten (RFC 9051 §6.2.1, CVE-2011-0411).
    pub async fn start_tls(self, config: Arc<rustls::ServerConfig>) -> Result<Self, WireError> {
        let Stream::Plain(tcp) = self.stream else {
            return Err(WireError::Io(io::Error::other("TLS is already there")));
        };
        Ok(Self::new(accept_tls(tcp, config, self.patience).await?, self.patience))
    }
}

/// The server's side of a TLS handshake.
pub async fn accept_tls(
    tcp: TcpStream,
    config: Arc<rustls::ServerConfig>,
    patience: Duration,
) -> Result<Stream, WireError> {
    match tokio::time::timeout(patience, TlsAcceptor::from(config).accept(tcp)).await {
        Ok(accepted) => Ok(Stream::Tls(Box::new(tokio_rustls::TlsStream::Server(accepted?)))),
        Err(_) => Err(WireError::Stalled),
    }
}
