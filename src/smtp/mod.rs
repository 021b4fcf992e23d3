//! SMTP as a codec: commands, replies, extensions, data. No I/O.

pub mod command;
pub mod data;
pub mod dot_stuff;
pub mod extensions;
pub mod reply;
pub mod xtext;

pub use command::Command;
pub use extensions::Extensions;
pub use reply::Reply;
