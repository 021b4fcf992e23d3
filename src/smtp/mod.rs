//! SMTP as a codec: commands, replies, extensions, data. No I/O.

pub mod reply;

pub use reply::Reply;
