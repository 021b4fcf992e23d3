//! SMTP as a codec: commands, replies, extensions, data. No I/O.

pub mod command;
pub mod data;
pub mod reply;
pub mod xtext;

pub use command::Command;
pub use reply::Reply;
