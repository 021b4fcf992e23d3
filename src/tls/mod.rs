//! TLS: the certificates that our servers show, and how our clients check those of others.

mod certificate;
mod channel;
mod client;
mod server;
mod watch;

pub use certificate::{Certificate, CertificateFacts, ServerTlsError};
pub use channel::{client_bindings, server_end_point};
pub use client::{ClientTls, ClientTlsError, PeerName, Verify};
pub use server::{CertificateStatus, Origin, Refreshed, ServerTls};
pub use watch::watch;
