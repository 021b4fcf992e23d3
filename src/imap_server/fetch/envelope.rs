//! ENVELOPE: the header of a message in parsed form.
//!
//! RFC 9051 §7.5.2. Strings go out as they stand in the header, encoded words and all.

use crate::imap_server::output::Output;
use crate::message::address_list::{Entry, parse};
use crate::message::header_fields::{RawField, fields, unfold};

/// Writes the envelope of a header.
pub fn write(output: &mut Output, header: &[u8]) {
    let all: Vec<RawField<'_>> = fields(header).collect();
    let text = |name: &str| all.iter().find(|field| field.is(name)).map(|field| unfold(field.value));
    let addresses = |name: &str| -> Vec<Entry> {
        all.iter().filter(|field| field.is(name)).flat_map(|field| parse(field.value)).collect()
    };
    let from = addresses("From");
    // RFC 9051 §7.5.2: the server sets absent or empty Sender and Reply-To from From.
    let or_from = |entries: Vec<Entry>| if entries.is_empty() { from.clone() } else { entries };
    output.raw("(");
    output.nstring(text("Date").as_deref()).raw(" ");
    output.nstring(text("Subject").as_deref());
    let lists = [
        from.clone(),
        or_from(addresses("Sender")),
        or_from(addresses("Reply-To")),
        addresses("To"),
        addresses("Cc"),
        addresses("Bcc"),
    ];
    for list in lists {
        output.raw(" ");
        write_addresses(output, &list);
    }
    output.raw(" ").nstring(text("In-Reply-To").as_deref());
    output.raw(" ").nstring(text("Message-ID").as_deref());
    output.raw(")");
}

fn write_addresses(output: &mut Output, list: &[Entry]) {
    if list.is_empty() {
        output.raw("NIL");
        return;
    }
    output.raw("(");
    for entry in list {
        match entry {
            Entry::Address { name, route, local, domain } => {
                output.raw("(").nstring(name.as_deref()).raw(" ").nstring(route.as_deref()).raw(" ");
                // A missing domain is an empty string: NIL would say that a group begins or ends here.
                output.string(local).raw(" ").string(domain).raw(")");
            }
            Entry::GroupStart(name) => {
                output.raw("(NIL NIL ").string(name).raw(" NIL)");
            }
            Entry::GroupEnd => {
                output.raw("(NIL NIL NIL NIL)");
            }
        }
    }
    output.raw(")");
}
