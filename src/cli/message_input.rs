//! The message on standard input, for commands that look at one.

use std::io::{self, Read};

use super::error::{CommandError, Exit};
use crate::mailauth::message::with_crlf;

/// More is no message.
const MESSAGE_BYTES_MAX: u64 = 512 << 20;

/// Reads it whole, with CR LF at the ends of lines.
pub(super) fn read_message() -> Result<Vec<u8>, CommandError> {
    let mut message = Vec::new();
    io::stdin().lock().take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut message)?;
    if message.len() as u64 > MESSAGE_BYTES_MAX {
        return Err(CommandError::new(Exit::Bad, "the message on standard input has more than 512 MiB"));
    }
    if message.is_empty() {
        return Err(CommandError::new(Exit::Usage, "there is no message on standard input")
            .hint("give it one: < message.eml"));
    }
    Ok(with_crlf(&message).into_owned())
}
