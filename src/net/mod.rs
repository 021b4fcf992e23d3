//! Byte streams: what servers and transports speak through, in clear text or in TLS.

mod dial;
mod listen;
mod stream;

pub use dial::{DialError, Through, dial, dial_through, reason};
pub use listen::{ConnectionGuard, ConnectionLimits, ListenError, TooManyConnections, accept, listen};
pub use stream::Stream;
