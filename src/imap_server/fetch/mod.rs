//! FETCH: from a message and the items asked for to the response data, octet by octet.
//!
//! RFC 9051 §6.4.5 and §7.5.2, RFC 3501 §7.4.2 (RFC822, RFC822.HEADER, RFC822.TEXT). Pure: the caller reads the message
//! from the store, as much of it as [`Items::needs`] says.

mod envelope;
mod section;
mod structure;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;

use bytes::Bytes;
use imap_types::fetch::{MacroOrMessageDataItemNames, MessageDataItemName as Item, Section};
use jiff::Timestamp;

use super::output::Output;
use super::parse::MONTHS;
use crate::message::header_fields::header_len;
use crate::message::structure::Part;
use crate::store::{Flags, MessageRow};

/// How much of a message the answer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// What the view knows already.
    Row,
    /// The header.
    Header,
    /// All of it.
    Content,
}

/// The items that a FETCH asks for.
#[derive(Debug)]
pub struct Items {
    list: Vec<Item<'static>>,
}

impl Items {
    /// Opens macros; a UID FETCH always tells the UID (RFC 9051 §6.4.9).
    pub fn new(asked: MacroOrMessageDataItemNames<'static>, uid: bool) -> Self {
        let mut list = match asked {
            MacroOrMessageDataItemNames::MessageDataItemNames(list) => list,
            MacroOrMessageDataItemNames::Macro(shorthand) => {
                // The macros hold no item with text in it.
                imap_types::IntoStatic::into_static(shorthand.expand())
            }
        };
        if uid && !list.contains(&Item::Uid) {
            list.insert(0, Item::Uid);
        }
        Self { list }
    }

    /// Asks for MODSEQ too (RFC 7162 §3.1.4.1: CHANGEDSINCE does).
    pub fn with_modseq(mut self) -> Self {
        if !self.list.contains(&Item::ModSeq) {
            self.list.push(Item::ModSeq);
        }
        self
    }

    /// Whether MODSEQ is asked for (RFC 7162 §3.1: a command that enables CONDSTORE).
    pub fn has_modseq(&self) -> bool {
        self.list.contains(&Item::ModSeq)
    }

    /// Whether there is an item of an extension that we do not offer (BINARY, RFC 3516).
    pub fn has_unknown(&self) -> bool {
        self.list.iter().any(|item| matches!(item, Item::Binary { .. } | Item::BinarySize { .. }))
    }

    /// Whether fetching sets `\Seen`.
    pub fn sets_seen(&self) -> bool {
        let sets = |item: &Item<'_>| {
            matches!(item, Item::BodyExt { peek: false, .. } | Item::Rfc822 | Item::Rfc822Text)
        };
        self.list.iter().any(sets)
    }

    /// Whether the flags are told.
    pub fn has_flags(&self) -> bool {
        self.list.contains(&Item::Flags)
    }

    /// Tells the flags too: they changed because of this FETCH.
    pub fn with_flags(mut self) -> Self {
        if !self.has_flags() {
            self.list.push(Item::Flags);
        }
        self
    }

    /// Whether the MIME structure is needed.
    pub fn wants_structure(&self) -> bool {
        self.needs() == Needs::Content
    }

    /// How much of each message must be read.
    pub fn needs(&self) -> Needs {
        self.list.iter().map(needs).max().unwrap_or(Needs::Row)
    }
}

fn needs(item: &Item<'_>) -> Needs {
    match item {
        Item::Flags | Item::InternalDate | Item::Rfc822Size | Item::Uid | Item::ModSeq => Needs::Row,
        Item::Envelope | Item::Rfc822Header => Needs::Header,
        Item::BodyExt {
            section:
                Some(
                    Section::Header(None)
                    | Section::HeaderFields(None, _)
                    | Section::HeaderFieldsNot(None, _),
                ),
            ..
        } => Needs::Header,
        _ => Needs::Content,
    }
}

/// A message's octets, and what is computed from them once.
#[derive(Debug, Default)]
pub struct Text {
    whole: Bytes,
    header: Bytes,
    body: Bytes,
    structure: OnceCell<Part>,
}

impl Text {
    /// A whole message, or its header alone.
    pub fn new(whole: Bytes) -> Self {
        let whole = without_nul(whole);
        let end = header_len(&whole);
        let (header, body) = (whole.slice(..end), whole.slice(end..));
        Self { whole, header, body, structure: OnceCell::new() }
    }

    /// The header with the empty line that ends it.
    pub fn header(&self) -> &Bytes {
        &self.header
    }

    /// What follows the header.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Header and body.
    pub fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// The MIME structure, ranges of [`Text::whole`].
    pub fn structure(&self) -> &Part {
        self.structure.get_or_init(|| Part::parse(&self.whole))
    }
}

/// A literal holds no NUL (RFC 9051 §9, CHAR8): it is shown as 0x80, which keeps every length, as other servers do.
fn without_nul(octets: Bytes) -> Bytes {
    if memchr::memchr(0, &octets).is_none() {
        return octets;
    }
    octets.iter().map(|b| if *b == 0 { 0x80 } else { *b }).collect::<Vec<u8>>().into()
}

/// Writes `* n FETCH (`.
pub fn write_start(output: &mut Output, number: u32) {
    output.raw("* ").show(number).raw(" FETCH (");
}

/// Writes one of the items; false when there are no more, and the answer is ended. One at a time, so that what waits
/// can be sent in between: a client may ask for a large message many times over. `text` may lack what [`Items::needs`]
/// says is not needed.
pub fn write_next(output: &mut Output, at: usize, row: &MessageRow, items: &Items, text: &Text) -> bool {
    let Some(item) = items.list.get(at) else {
        output.raw(")").end();
        return false;
    };
    output.raw(if at == 0 { "" } else { " " });
    write_item(output, row, item, text);
    true
}

fn write_item(output: &mut Output, row: &MessageRow, item: &Item<'_>, text: &Text) {
    match item {
        Item::Flags => write_flags(output.raw("FLAGS "), &row.flags),
        Item::InternalDate => drop(output.raw("INTERNALDATE ").show(internal_date(row.internal_date))),
        Item::Rfc822Size => drop(output.raw("RFC822.SIZE ").show(row.size)),
        Item::Uid => drop(output.raw("UID ").show(row.uid)),
        Item::ModSeq => drop(output.raw("MODSEQ (").show(row.modseq).raw(")")),
        Item::Envelope => envelope::write(output.raw("ENVELOPE "), text.header()),
        Item::Body => structure::write(output.raw("BODY "), text.whole(), text.structure(), false),
        Item::BodyStructure => {
            structure::write(output.raw("BODYSTRUCTURE "), text.whole(), text.structure(), true);
        }
        Item::Rfc822 => drop(output.raw("RFC822 ").literal_shared(&[text.whole().clone()])),
        Item::Rfc822Header => drop(output.raw("RFC822.HEADER ").literal_shared(&[text.header().clone()])),
        Item::Rfc822Text => drop(output.raw("RFC822.TEXT ").literal_shared(&[text.body().clone()])),
        Item::BodyExt { section, partial, .. } => write_section(output, text, section.as_ref(), *partial),
        // Refused before (Items::has_unknown).
        Item::Binary { .. } | Item::BinarySize { .. } => drop(output.raw("NIL")),
    }
}

fn write_section(
    output: &mut Output,
    text: &Text,
    section: Option<&Section<'_>>,
    partial: Option<(u32, std::num::NonZeroU32)>,
) {
    output.raw("BODY[");
    section::write_name(output, section);
    output.raw("]");
    let octets = section::octets(text, section);
    let octets = match partial {
        Some((start, count)) => {
            output.raw("<").show(start).raw(">");
            octets.map(|octets| section::partial(octets, start, count.get()))
        }
        None => octets,
    };
    output.raw(" ");
    match octets {
        Some(octets) => output.literal_shared(&octets),
        None => output.raw("NIL"),
    };
}

/// Writes a list of flags in parentheses.
pub fn write_flags(output: &mut Output, flags: &Flags) {
    for (at, name) in flags.names().enumerate() {
        output.raw(if at == 0 { "(" } else { " " }).raw(name);
    }
    output.raw(if flags.is_empty() { "()" } else { ")" });
}

/// Writes a date-time in quotes: `"17-Jul-1996 02:44:25 +0000"` (RFC 9051 §9).
pub fn internal_date(at: Timestamp) -> String {
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    let month = MONTHS.get(usize::from(at.month().unsigned_abs()).saturating_sub(1)).unwrap_or(&"Jan");
    format!(
        "\"{:2}-{month}-{:04} {:02}:{:02}:{:02} +0000\"",
        at.day(),
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    )
}
