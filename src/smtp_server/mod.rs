//! The SMTP server: mail from other servers, and submission by our users.
//!
//! [`serve`] runs a listener; each connection is a task. [`session`] decides without I/O what is answered and done,
//! [`transaction`] who may send what to whom, `connection` reads and writes, [`body`] collects content, [`replies`]
//! holds every sentence that we say. A message that passes goes to the queue, and is answered 250 when the queue has
//! it on disk.
//!
//! RFC 5321, RFC 6409; the extensions PIPELINING, SIZE, 8BITMIME, SMTPUTF8, CHUNKING, DSN, ENHANCEDSTATUSCODES,
//! STARTTLS, REQUIRETLS (RFC 8689) and AUTH.

pub mod body;
mod connection;
pub mod replies;
pub mod session;
#[cfg(test)]
mod tests;
pub mod transaction;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Listener, SystemUser};
use crate::names::QueueId;
use crate::net::{ConnectionGuard, ConnectionLimits, Stream, TooManyConnections};
use crate::queue::Queue;
use crate::store::Store;
use crate::tls::ServerTls;
use connection::{Connection, End};
use session::{Session, Tls};

/// How long sessions may finish the message they are in when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What every connection works with; cheap to clone.
#[derive(Clone)]
pub struct SmtpContext {
    /// The configuration now.
    pub config: Arc<ArcSwap<Config>>,
    /// Checks passwords.
    pub store: Store,
    /// Without it, there is no STARTTLS, and a listener with TLS at once takes nobody.
    pub tls: Option<Arc<ServerTls>>,
    /// Shared by all listeners.
    pub limits: ConnectionLimits,
    /// Takes the mail.
    pub queue: Queue,
}

/// Takes connections until `shutdown`; then lets each session finish the message it is in, says 421 to it, and
/// returns when all have ended or [`STOP_PATIENCE`] is over.
pub async fn serve(
    listener: Arc<Listener>,
    socket: TcpListener,
    ctx: SmtpContext,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let (tcp, peer) = tokio::select! {
            accepted = crate::net::accept(&socket) => accepted,
            () = shutdown.cancelled() => break,
        };
        match ctx.limits.admit(peer.ip()) {
            Ok(guard) => {
                let connection =
                    connection(tcp, peer, guard, listener.clone(), ctx.clone(), shutdown.clone());
                let abort = abort.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = connection => {}
                        () = abort.cancelled_owned() => {}
                    }
                });
            }
            Err(why) => turn_away(&tcp, peer, &listener, why),
        }
    }
    drop(socket);
    tasks.close();
    if tokio::time::timeout(STOP_PATIENCE, tasks.wait()).await.is_err() {
        tracing::warn!(
            listener = listener.kind.as_str(),
            sessions = tasks.len(),
            "stopping in the middle of sessions"
        );
        abort.cancel();
        tasks.wait().await;
    }
}

/// Speaks with a process of this machine, whose user the kernel told us, until one side has enough.
pub async fn serve_local(
    stream: UnixStream,
    user: SystemUser,
    ctx: SmtpContext,
    shutdown: CancellationToken,
) {
    let id = session_id();
    tracing::debug!(session = id, %user, "a process of this machine connected");
    let session = Session::local(id.clone(), user, &ctx.config.load());
    let end = Connection::new(Stream::Unix(stream), session, ctx, &shutdown).run().await;
    tracing::debug!(session = id, %end, "disconnected");
}

async fn connection(
    tcp: TcpStream,
    peer: SocketAddr,
    _guard: ConnectionGuard,
    listener: Arc<Listener>,
    ctx: SmtpContext,
    shutdown: CancellationToken,
) {
    let id = session_id();
    tracing::debug!(session = id, ip = %peer.ip(), listener = listener.kind.as_str(), "connected");
    let tls = if ctx.tls.is_some() { Tls::Offered } else { Tls::Unavailable };
    let session = Session::new(id.clone(), peer.ip(), &listener, &ctx.config.load(), tls);
    let connection = Connection::new(Stream::Plain(tcp), session, ctx, &shutdown);
    let end = if listener.kind.tls_at_once() {
        match connection.start_tls().await {
            Ok(connection) => connection.run().await,
            Err(end) => end,
        }
    } else {
        connection.run().await
    };
    match end {
        End::Closed => tracing::debug!(session = id, "closed"),
        End::Gone | End::Io(_) => tracing::debug!(session = id, %end, "disconnected"),
        End::NotReading | End::Tls(_) => tracing::info!(session = id, ip = %peer.ip(), %end, "disconnected"),
    }
}

/// One write into a fresh socket's empty buffer, without waiting: this client gets no more of our time.
fn turn_away(tcp: &TcpStream, peer: SocketAddr, listener: &Listener, why: TooManyConnections) {
    tracing::info!(ip = %peer.ip(), listener = listener.kind.as_str(), %why, "connection refused");
    if !listener.kind.tls_at_once()
        && let Err(error) = tcp.try_write(replies::too_many_connections(why).to_string().as_bytes())
    {
        tracing::debug!(ip = %peer.ip(), %error, "could not say why");
    }
}

/// Ten letters and digits by chance: told apart in logs, and said nothing by.
fn session_id() -> String {
    const BITS: u32 = 50;
    QueueId(rand::random::<u64>() >> (u64::BITS - BITS) | 1 << (BITS - 1)).to_string()
}
