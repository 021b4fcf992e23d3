//! How operators speak to a running server: a Unix socket in the data directory, a line of JSON each way.
//!
//! The socket is `control.sock`, readable and writable by the server's user alone: whoever may open it may do
//! everything. A client sends one [`Request`] a line and gets one [`Response`] a line, as often as it likes.
//!
//! | file | what it does |
//! | --- | --- |
//! | `protocol` | what is asked and answered |
//! | `socket` | where the socket is, and how long paths are got around |
//! | `serve` | takes connections, reads lines |
//! | `handle` | does what is asked |
//! | `status` | how the server is, and its metrics |
//! | `explain` | which way a message would go, and why: the queue's own code on made-up facts |
//! | `submit` | the other socket, `submit.sock`, for mail of this machine's users |
//! | `client` | the other side, for commands |

mod client;
mod explain;
mod handle;
mod protocol;
mod serve;
mod socket;
mod status;
mod submit;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

pub use client::{Client, ClientError};
pub use explain::{assumed_outcome, explain};
pub use handle::{accounts, set_password};
pub use protocol::{
    AccountInfo, Answer, Explained, Fault, FaultKind, Listening, PastAttempt, Question, Reloaded, Request,
    Response, RouteStatus, Secret, Status, TlsStatus,
};
pub use serve::serve;
pub use socket::SOCKET_NAME;
pub use status::metrics;
pub use submit::{SUBMIT_SOCKET_NAME, connect_submit, serve_submit};

use crate::acme::Renewals;
use crate::config::{Config, ListenerKind};
use crate::dns::Resolver;
use crate::queue::Queue;
use crate::route::Router;
use crate::store::Store;
use crate::tls::ServerTls;

/// The running server, as far as operators may reach into it.
#[derive(Clone)]
pub struct ControlContext {
    /// The queue.
    pub queue: Queue,
    /// The routing scripts.
    pub router: Arc<Router>,
    /// Accounts' passwords.
    pub store: Store,
    /// For the MX that a script asks about.
    pub resolver: Resolver,
    /// The configuration of the moment.
    pub config: Arc<ArcSwap<Config>>,
    /// Whoever reads these loads configuration and scripts again.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// When the server started.
    pub started: Timestamp,
    /// Where it listens.
    pub listeners: Arc<[(ListenerKind, SocketAddr)]>,
    /// The certificates that it shows.
    pub tls: Option<ServerTls>,
    /// Who gets one of them from a CA.
    pub renewals: Option<Renewals>,
}

/// Asks the server to load its configuration and scripts again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Gets what was loaded, or everything that is wrong, as text for the operator; then nothing was changed.
    pub answer: oneshot::Sender<Result<Reloaded, String>>,
}
