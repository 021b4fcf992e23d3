//! What a server needs to know of a message's header before it takes the message: one pass over its fields.
//!
//! RFC 5322 §3.6 (fields), RFC 5321 §6.3 (loops are seen by counting Received), RFC 6409 §8 (what a submission
//! server adds).

use super::header_fields::{fields, header_len};

/// What stands in the header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderSummary {
    /// Bytes, the empty line included.
    pub bytes: usize,
    /// Fields of any name.
    pub fields: usize,
    /// Received fields: servers that it went through.
    pub received: usize,
    /// A Date field is there.
    pub has_date: bool,
    /// A Message-Id field is there.
    pub has_message_id: bool,
    /// A From field is there.
    pub has_from: bool,
}

impl HeaderSummary {
    /// Reads the header of a whole message.
    pub fn of(message: &[u8]) -> Self {
        let bytes = header_len(message);
        let mut summary = Self { bytes, ..Self::default() };
        for field in fields(&message[..bytes]) {
            summary.fields += 1;
            // Most fields are told apart by their length alone.
            match field.name.len() {
                8 if field.is("Received") => summary.received += 1,
                4 if field.is("Date") => summary.has_date = true,
                4 if field.is("From") => summary.has_from = true,
                10 if field.is("Message-Id") => summary.has_message_id = true,
                _ => {}
            }
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_finds_it_all() {
        let message = b"Received: a\r\n b\r\nRECEIVED : c\r\nReceived-SPF: d\r\nDate: e\r\nfrom: f\r\n\r\nMessage-ID: g\r\n";
        let summary = HeaderSummary::of(message);
        assert_eq!(
            summary,
            HeaderSummary {
                bytes: message.len() - b"Message-ID: g\r\n".len(),
                fields: 5,
                received: 2,
                has_date: true,
                has_message_id: false,
                has_from: true
            }
        );
        assert!(HeaderSummary::of(b"message-id: <a@b>\r\n").has_message_id);
        assert_eq!(HeaderSummary::of(b""), HeaderSummary::default());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(message: Vec<u8>) {
            assert!(HeaderSummary::of(&message).bytes <= message.len());
        }
    }
}
