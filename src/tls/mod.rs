//! TLS: the certificate that our servers show, and how our clients check those of others.

mod server;

pub use server::{ServerTls, ServerTlsError};
