//! Text in messages as it is read: encoded words, transfer encodings and charsets decoded, case taken away.
//!
//! RFC 2047, RFC 2045 §6, RFC 9051 §6.4.4 (strings match as substrings, without regard to case).

use std::borrow::Cow;

use jiff::civil::Date;
use mail_parser::HeaderValue;
use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::parsers::MessageStream;

use crate::imap_server::fetch::Text;
use crate::message::header_fields::{fields, first, unfold};
use crate::message::parameters::token;
use crate::message::structure::{Kind, Part};

/// Text without regard to case; octets that are no UTF-8 are taken for Latin-1, as most that come so are.
pub fn fold(octets: &[u8]) -> String {
    fold_text(&text_of(octets))
}

fn fold_text(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.to_lowercase() }
}

fn text_of(octets: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(octets) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(octets.iter().map(|b| char::from(*b)).collect()),
    }
}

/// A field's value with its encoded words decoded (RFC 2047 §6.1).
fn decoded_field(value: &[u8]) -> String {
    let value = unfold(value);
    let text = text_of(&value);
    if !text.contains("=?") {
        return text.into_owned();
    }
    let line = format!("{text}\n");
    match MessageStream::new(line.as_bytes()).parse_unstructured() {
        HeaderValue::Text(decoded) => decoded.into_owned(),
        _ => text.into_owned(),
    }
}

/// Whether a field of this name holds the text; with an empty text, whether there is such a field.
pub fn field_has(header: &[u8], name: &str, needle: &str) -> bool {
    let mut named = fields(header).filter(|field| field.is(name));
    named.any(|field| needle.is_empty() || fold_text(&decoded_field(field.value)).contains(needle))
}

/// Whether the header holds the text, in a name or a value.
pub fn header_text_has(header: &[u8], needle: &str) -> bool {
    fields(header).any(|field| {
        let line = format!("{}: {}", String::from_utf8_lossy(field.name), decoded_field(field.value));
        fold_text(&line).contains(needle)
    })
}

/// Whether the body holds the text: what is text in it, and the headers of messages in it.
pub fn body_has(text: &Text, needle: &str) -> bool {
    needle.is_empty() || part_has(text.whole(), text.structure(), needle)
}

fn part_has(message: &[u8], part: &Part, needle: &str) -> bool {
    match &part.kind {
        Kind::Multipart(parts) => parts.iter().any(|inner| part_has(message, inner, needle)),
        Kind::Message(inner) => {
            header_text_has(&message[inner.header.clone()], needle) || part_has(message, inner, needle)
        }
        Kind::Leaf if part.content_type.is("text") => {
            fold_text(&decoded_body(message, part)).contains(needle)
        }
        Kind::Leaf => false,
    }
}

fn decoded_body<'a>(message: &'a [u8], part: &Part) -> Cow<'a, str> {
    let body = &message[part.body.clone()];
    let encoding = first(&message[part.header.clone()], "Content-Transfer-Encoding")
        .and_then(|field| token(&unfold(field.value)))
        .unwrap_or_default();
    let octets = match encoding.to_ascii_lowercase().as_slice() {
        b"base64" => base64_decode(body).map_or(Cow::Borrowed(body), Cow::Owned),
        b"quoted-printable" => quoted_printable_decode(body).map_or(Cow::Borrowed(body), Cow::Owned),
        _ => Cow::Borrowed(body),
    };
    let charset = part.content_type.parameter("charset").unwrap_or_default();
    let plain = octets.is_ascii() && !charset.to_ascii_lowercase().starts_with(b"iso-2022");
    match charset_decoder(&charset).filter(|_| !plain && !charset.eq_ignore_ascii_case(b"utf-8")) {
        Some(decode) => Cow::Owned(decode(&octets)),
        None => match octets {
            Cow::Borrowed(octets) => text_of(octets),
            Cow::Owned(octets) => Cow::Owned(text_of(&octets).into_owned()),
        },
    }
}

/// The day that the Date field names, in its own time zone (RFC 9051 §6.4.4: SENTON disregards time and zone).
pub fn sent_date(header: &[u8]) -> Option<Date> {
    let value = unfold(first(header, "Date")?.value).into_owned();
    let parsed = mail_parser::DateTime::parse_rfc822(&format!("{}\n", text_of(&value)))?;
    let (month, day) = (i8::try_from(parsed.month).ok()?, i8::try_from(parsed.day).ok()?);
    Date::new(i16::try_from(parsed.year).ok()?, month, day).ok()
}
