//! The IMAP server.

mod assemble;
mod output;
mod utf7;
