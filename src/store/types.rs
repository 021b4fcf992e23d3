//! What goes in and out of the store: mailboxes, messages, their changes.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use jiff::Timestamp;

use super::flags::Flags;

/// A mailbox. The number is given once and never again, not even after the mailbox is gone, and outlives a rename:
/// it can be shown as MAILBOXID (RFC 8474 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxId(pub(super) i64);

impl fmt::Display for MailboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The content of a message: the same for all its copies, in whatever mailbox, and never given again. It can be
/// shown as EMAILID (RFC 8474 §5.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EmailId(pub(super) i64);

impl fmt::Display for EmailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a mailbox is for (RFC 6154 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpecialUse {
    /// `\All`
    All,
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Flagged`
    Flagged,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
}

impl SpecialUse {
    const ALL: [Self; 7] =
        [Self::All, Self::Archive, Self::Drafts, Self::Flagged, Self::Junk, Self::Sent, Self::Trash];

    /// The attribute with its backslash, as LIST shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "\\All",
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Flagged => "\\Flagged",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
        }
    }
}

impl fmt::Display for SpecialUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no special-use attribute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a special-use attribute (RFC 6154 §2)")]
pub struct NotASpecialUse;

impl FromStr for SpecialUse {
    type Err = NotASpecialUse;
    /// Any case, with the backslash.
    fn from_str(text: &str) -> Result<Self, NotASpecialUse> {
        Self::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text)).ok_or(NotASpecialUse)
    }
}

/// A mailbox as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxInfo {
    /// Stays the same when the mailbox is renamed.
    pub id: MailboxId,
    /// UTF-8, levels separated by `/`; the Inbox is `INBOX`.
    pub name: String,
    /// RFC 9051 §2.3.1.1: unlike that of any mailbox that ever had this name.
    pub uidvalidity: u32,
    /// Whether the account subscribes to this name.
    pub subscribed: bool,
    /// What it is for.
    pub special_use: Option<SpecialUse>,
    /// Whether mailboxes stand below it.
    pub has_children: bool,
}

/// Counts and counters of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxStatus {
    /// Messages.
    pub messages: u32,
    /// Messages without `\Seen`.
    pub unseen: u32,
    /// Messages with `\Deleted`.
    pub deleted: u32,
    /// Sum of the messages' sizes, bytes.
    pub size: u64,
    /// UID that the next message gets.
    pub uidnext: u32,
    /// UIDVALIDITY.
    pub uidvalidity: u32,
    /// RFC 7162 §3.1.2.1: at least 1.
    pub highest_modseq: u64,
}

/// A message in a mailbox, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// Its number in the mailbox, from 1, rising.
    pub uid: u32,
    /// When it changed last, in the mailbox's count of changes.
    pub modseq: u64,
    /// Its flags.
    pub flags: Flags,
    /// INTERNALDATE.
    pub internal_date: Timestamp,
    /// When it came into this mailbox (SAVEDATE, RFC 8514).
    pub saved: Timestamp,
    /// RFC822.SIZE, bytes.
    pub size: u64,
    /// The content, shared by its copies.
    pub email: EmailId,
}

/// A mailbox at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// UIDVALIDITY.
    pub uidvalidity: u32,
    /// UID that the next message gets.
    pub uidnext: u32,
    /// The moment: ask for what changed since this.
    pub highest_modseq: u64,
    /// All messages in UID order.
    pub messages: Vec<MessageRow>,
}

/// What changed in a mailbox since some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The moment up to which this tells: ask with it next time.
    pub highest_modseq: u64,
    /// UID that the next message gets.
    pub uidnext: u32,
    /// Messages that came or whose flags changed, in UID order.
    pub changed: Vec<MessageRow>,
    /// UIDs that went, in order; among them may be some that came and went in between.
    pub expunged: Vec<u32>,
}

/// A message to append.
#[derive(Debug, Clone)]
pub struct NewMail {
    /// The whole message, CR LF lines.
    pub content: Bytes,
    /// Its flags.
    pub flags: Flags,
    /// INTERNALDATE.
    pub internal_date: Timestamp,
}

/// Messages that were appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// UIDVALIDITY of the mailbox.
    pub uidvalidity: u32,
    /// Their UIDs, in the order given.
    pub uids: Vec<u32>,
}

/// What came of a change of flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreResult {
    /// Messages whose flags are others now, in UID order. Those that had the flags already are not here.
    pub changed: Vec<MessageRow>,
    /// UIDs left alone because they changed since the given MODSEQ (RFC 7162 §3.1.3), in order.
    pub modified: Vec<u32>,
}

/// Messages that were copied or moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// UIDVALIDITY of the target.
    pub uidvalidity: u32,
    /// UID in the source, UID in the target; in the source's order.
    pub pairs: Vec<(u32, u32)>,
}

/// A message that was delivered, now or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Where it is (or was put, should it have been moved since).
    pub mailbox: MailboxId,
    /// Its UID there.
    pub uid: u32,
    /// It had been delivered before; nothing was done.
    pub duplicate: bool,
}

/// The text of a message, its header apart: a delivery adds to the header without copying the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The header with the empty line that ends it.
    pub header: Bytes,
    /// All that follows.
    pub body: Bytes,
}

impl Content {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.header.len() + self.body.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for Content {
    /// Divides a message after its first empty line; without one, all is header (RFC 5322 §2.1).
    fn from(whole: Bytes) -> Self {
        let end = if whole.starts_with(b"\r\n") {
            2
        } else {
            memchr::memmem::find(&whole, b"\r\n\r\n").map_or(whole.len(), |at| at + 4)
        };
        Self { header: whole.slice(..end), body: whole.slice(end..) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_divide_after_the_first_empty_line() {
        for (whole, header, body) in [
            ("A: 1\r\nB: 2\r\n\r\ntext\r\n\r\nmore", "A: 1\r\nB: 2\r\n\r\n", "text\r\n\r\nmore"),
            ("A: 1\r\n\r\n", "A: 1\r\n\r\n", ""),
            ("A: 1\r\n", "A: 1\r\n", ""),
            ("\r\ntext", "\r\n", "text"),
            ("", "", ""),
        ] {
            let content = Content::from(Bytes::from_static(whole.as_bytes()));
            assert_eq!((&content.header[..], &content.body[..]), (header.as_bytes(), body.as_bytes()));
        }
    }

    #[test]
    fn special_uses_read_back_as_written() {
        for special_use in SpecialUse::ALL {
            assert_eq!(special_use.to_string().to_uppercase().parse(), Ok(special_use));
        }
        assert_eq!("\\Inbox".parse::<SpecialUse>(), Err(NotASpecialUse));
    }
}
