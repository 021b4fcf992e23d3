//! The IMAP server.

mod assemble;
mod output;
mod fetch;
mod parse;
mod utf7;
mod view;
