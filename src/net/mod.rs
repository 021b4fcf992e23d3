//! Byte streams: what servers and transports speak through, in clear text or in TLS.

mod stream;

pub use stream::Stream;
