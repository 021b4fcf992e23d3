//! BODY and BODYSTRUCTURE: the MIME structure of a message in parsed form.
//!
//! RFC 9051 §7.5.2 (body and body extension data), RFC 2183, RFC 3282, RFC 2557 for the extension fields.

use super::envelope;
use crate::imap_server::output::Output;
use crate::message::header_fields::{first, unfold};
use crate::message::parameters::{ContentType, parameterised, token};
use crate::message::structure::{Kind, Part};

/// Writes the structure of a part; `extended` is BODYSTRUCTURE.
pub fn write(output: &mut Output, message: &[u8], part: &Part, extended: bool) {
    output.raw("(");
    match &part.kind {
        Kind::Multipart(parts) => {
            for inner in parts {
                write(output, message, inner, extended);
            }
            output.raw(" ").string(&part.content_type.subtype);
            if extended {
                output.raw(" ");
                parameters(output, &part.content_type.parameters);
                extension(output, message, part);
            }
        }
        Kind::Message(inner) => {
            single(output, message, part);
            output.raw(" ");
            envelope::write(output, &message[inner.header.clone()]);
            output.raw(" ");
            write(output, message, inner, extended);
            output.raw(" ").show(part.lines(message));
            single_extension(output, message, part, extended);
        }
        Kind::Leaf => {
            single(output, message, part);
            if part.content_type.is("text") {
                output.raw(" ").show(part.lines(message));
            }
            single_extension(output, message, part, extended);
        }
    }
    output.raw(")");
}

/// What every part that is no multipart has.
fn single(output: &mut Output, message: &[u8], part: &Part) {
    let header = &message[part.header.clone()];
    let ContentType { media, subtype, parameters: list } = &part.content_type;
    output.string(media).raw(" ").string(subtype).raw(" ");
    parameters(output, list);
    for name in ["Content-ID", "Content-Description"] {
        let value = first(header, name).map(|field| unfold(field.value));
        output.raw(" ").nstring(value.as_deref());
    }
    let encoding = first(header, "Content-Transfer-Encoding").and_then(|field| token(&unfold(field.value)));
    output.raw(" ").string(encoding.as_deref().unwrap_or(b"7BIT"));
    output.raw(" ").show(part.body.len());
}

fn single_extension(output: &mut Output, message: &[u8], part: &Part, extended: bool) {
    if extended {
        let md5 = first(&message[part.header.clone()], "Content-MD5").map(|field| unfold(field.value));
        output.raw(" ").nstring(md5.as_deref());
        extension(output, message, part);
    }
}

/// Disposition, language, location.
fn extension(output: &mut Output, message: &[u8], part: &Part) {
    let header = &message[part.header.clone()];
    let value = |name| first(header, name).map(|field| unfold(field.value));
    output.raw(" ");
    match value("Content-Disposition").as_deref().and_then(parameterised) {
        Some((disposition, list)) => {
            output.raw("(").string(&disposition).raw(" ");
            parameters(output, &list);
            output.raw(")");
        }
        None => drop(output.raw("NIL")),
    }
    output.raw(" ");
    let languages = value("Content-Language").unwrap_or_default();
    let languages: Vec<Vec<u8>> = languages.split(|b| *b == b',').filter_map(token).collect();
    match languages.as_slice() {
        [] => drop(output.raw("NIL")),
        [one] => drop(output.string(one)),
        several => {
            for (at, language) in several.iter().enumerate() {
                output.raw(if at == 0 { "(" } else { " " }).string(language);
            }
            output.raw(")");
        }
    }
    output.raw(" ").nstring(value("Content-Location").as_deref());
}

fn parameters(output: &mut Output, list: &[(Vec<u8>, Vec<u8>)]) {
    if list.is_empty() {
        output.raw("NIL");
        return;
    }
    for (at, (name, value)) in list.iter().enumerate() {
        output.raw(if at == 0 { "(" } else { " " }).string(name).raw(" ").string(value);
    }
    output.raw(")");
}
