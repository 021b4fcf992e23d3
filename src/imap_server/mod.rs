//! The IMAP server: mailboxes read, searched, flagged, filed and watched.
//!
//! RFC 3501 with ID, LITERAL+, SASL-IR, ENABLE, IDLE, NAMESPACE, CHILDREN, UIDPLUS, UNSELECT, MOVE, CONDSTORE, WITHIN and
//! STATUS=SIZE; written with RFC 9051 at hand, so that it can follow.
//!
//! How it works: bytes become whole commands ([`assemble`]), commands become requests ([`parse`]), the [`session`] does
//! them and writes to an [`output`] that the [`connection`] sends. What a client knows of its mailbox is its [`view`]:
//! the store tells what changed since a MODSEQ, the view says what the client must hear and when. [`fetch`], [`search`],
//! [`list`] and [`view`] are pure.

pub mod assemble;
mod connection;
pub mod fetch;
mod list;
pub mod output;
pub mod parse;
mod search;
mod session;
mod utf7;
mod view;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::config::{Config, Listener};
use crate::net::{ConnectionLimits, accept};
use crate::store::Store;
use crate::tls::ServerTls;

/// What all IMAP connections share; cheap to clone.
#[derive(Clone)]
pub struct ImapContext {
    /// The configuration as it is now.
    pub config: Arc<ArcSwap<Config>>,
    /// Mailboxes and passwords.
    pub store: Store,
    /// The certificate; `None` makes STARTTLS unavailable.
    pub tls: Option<ServerTls>,
    /// Connections at the same time; shared with the other servers.
    pub connections: ConnectionLimits,
}

/// How long a session may take to end once the server stops; what it is doing then is cut off, which loses nothing
/// that was answered.
pub const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Serves a listening socket until `shutdown`; then says BYE to the clients, and returns when all are gone or
/// [`STOP_PATIENCE`] is over.
pub async fn serve(
    listener: Arc<Listener>,
    socket: TcpListener,
    ctx: ImapContext,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let (tcp, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&socket) => accepted,
        };
        let guard = match ctx.connections.admit(peer.ip()) {
            Ok(guard) => guard,
            Err(too_many) => {
                tracing::warn!(%peer, kind = listener.kind.as_str(), reason = %too_many, "connection refused");
                connection::turn_away(tcp, &listener, too_many);
                continue;
            }
        };
        let (listener, ctx, shutdown) = (Arc::clone(&listener), ctx.clone(), shutdown.clone());
        let session = format!("{:08x}", rand::random::<u32>());
        let span = tracing::info_span!("imap", session = %session, peer = %peer);
        let abort = abort.clone();
        let task = async move {
            tokio::select! {
                () = connection::run(tcp, peer.ip(), listener, ctx, shutdown) => {}
                () = abort.cancelled_owned() => tracing::debug!("cut off"),
            }
            drop(guard);
        };
        tasks.spawn(task.instrument(span));
    }
    drop(socket);
    tasks.close();
    if tokio::time::timeout(STOP_PATIENCE, tasks.wait()).await.is_err() {
        abort.cancel();
        tasks.wait().await;
    }
}
