//! TLS: the certificate that our servers show, and how our clients check those of others.

mod channel;
mod client;
mod server;

pub use channel::{client_bindings, server_bindings, server_end_point};
pub use client::{ClientTls, ClientTlsError, PeerName, Verify};
pub use server::{ServerTls, ServerTlsError};
