//! The IMAP server.

mod assemble;
mod list;
mod output;
mod fetch;
mod parse;
mod search;
mod utf7;
mod view;
