//! TLS: the certificate that our servers show, and how our clients check those of others.

mod client;
mod server;

pub use client::{ClientTls, ClientTlsError, PeerName, Verify};
pub use server::{ServerTls, ServerTlsError};
