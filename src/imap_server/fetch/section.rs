//! Sections: which octets of a message `BODY[...]` means.
//!
//! RFC 9051 §6.4.5.1.

use bytes::Bytes;
use imap_types::core::AString;
use imap_types::fetch::{Part as Number, Section};

use super::Text;
use crate::imap_server::output::Output;
use crate::message::header_fields::fields;
use crate::message::structure::{Kind, Part};

/// The octets of a section, in pieces; `None` (NIL) where the message has no such part.
pub fn octets(text: &Text, section: Option<&Section<'_>>) -> Option<Vec<Bytes>> {
    let slice = |range: std::ops::Range<usize>| vec![text.whole().slice(range)];
    Some(match section {
        None => vec![text.whole().clone()],
        Some(Section::Header(None)) => vec![text.header().clone()],
        Some(Section::Text(None)) => vec![text.body().clone()],
        Some(Section::HeaderFields(None, names)) => vec![some_fields(text.header(), names.as_ref(), true)],
        Some(Section::HeaderFieldsNot(None, names)) => {
            vec![some_fields(text.header(), names.as_ref(), false)]
        }
        Some(Section::Part(number)) => slice(find(text, number)?.body.clone()),
        Some(Section::Mime(number)) => slice(find(text, number)?.header.clone()),
        Some(Section::Header(Some(number))) => slice(message_inside(text, number)?.header.clone()),
        Some(Section::Text(Some(number))) => slice(message_inside(text, number)?.body.clone()),
        Some(Section::HeaderFields(Some(number), names)) => {
            let header = message_inside(text, number)?.header.clone();
            vec![some_fields(&text.whole()[header], names.as_ref(), true)]
        }
        Some(Section::HeaderFieldsNot(Some(number), names)) => {
            let header = message_inside(text, number)?.header.clone();
            vec![some_fields(&text.whole()[header], names.as_ref(), false)]
        }
    })
}

fn find<'a>(text: &'a Text, number: &Number) -> Option<&'a Part> {
    let number: Vec<u32> = number.0.as_ref().iter().map(|n| n.get()).collect();
    text.structure().find_from_top(&number)
}

/// HEADER and TEXT of a part are those of the message in it.
fn message_inside<'a>(text: &'a Text, number: &Number) -> Option<&'a Part> {
    match &find(text, number)?.kind {
        Kind::Message(inner) => Some(inner),
        _ => None,
    }
}

/// HEADER.FIELDS and HEADER.FIELDS.NOT: fields as they came, and the empty line.
fn some_fields(header: &[u8], names: &[AString<'_>], listed: bool) -> Bytes {
    let is_listed = |name: &[u8]| names.iter().any(|listed| listed.as_ref().eq_ignore_ascii_case(name));
    let mut chosen: Vec<u8> = Vec::new();
    for field in fields(header).filter(|field| is_listed(field.name) == listed) {
        chosen.extend_from_slice(field.whole);
    }
    if !chosen.is_empty() && !chosen.ends_with(b"\n") {
        chosen.extend_from_slice(b"\r\n");
    }
    chosen.extend_from_slice(b"\r\n");
    chosen.into()
}

/// Cuts `<start.count>` out of pieces.
pub fn partial(pieces: Vec<Bytes>, start: u32, count: u32) -> Vec<Bytes> {
    let (mut skip, mut left) = (start as usize, count as usize);
    let mut cut = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let from = skip.min(piece.len());
        let to = from.saturating_add(left).min(piece.len());
        skip -= from;
        left -= to - from;
        if from < to {
            cut.push(piece.slice(from..to));
        }
    }
    cut
}

/// Writes the name of a section as the answer carries it: what stands between the brackets.
pub fn write_name(output: &mut Output, section: Option<&Section<'_>>) {
    let Some(section) = section else { return };
    let (number, name, fields) = match section {
        Section::Part(number) => (Some(number), "", None),
        Section::Header(number) => (number.as_ref(), "HEADER", None),
        Section::HeaderFields(number, fields) => (number.as_ref(), "HEADER.FIELDS", Some(fields)),
        Section::HeaderFieldsNot(number, fields) => (number.as_ref(), "HEADER.FIELDS.NOT", Some(fields)),
        Section::Text(number) => (number.as_ref(), "TEXT", None),
        Section::Mime(number) => (Some(number), "MIME", None),
    };
    if let Some(number) = number {
        for (at, n) in number.0.as_ref().iter().enumerate() {
            output.raw(if at == 0 { "" } else { "." }).show(n);
        }
        output.raw(if name.is_empty() { "" } else { "." });
    }
    output.raw(name);
    if let Some(fields) = fields {
        for (at, field) in fields.as_ref().iter().enumerate() {
            output.raw(if at == 0 { " (" } else { " " });
            match std::str::from_utf8(field.as_ref()) {
                Ok(text) => output.astring(text),
                Err(_) => output.string(field.as_ref()),
            };
        }
        output.raw(")");
    }
}
