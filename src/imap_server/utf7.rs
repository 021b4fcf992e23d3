//! Mailbox names on the wire: modified UTF-7 (RFC 3501 §5.1.3), for clients that have not enabled UTF-8.

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::RequireNone);
const BASE64: GeneralPurpose = GeneralPurpose::new(&IMAP_MUTF7, CONFIG);

/// Writes a name in modified UTF-7.
pub fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    let mut shifted: Vec<u8> = Vec::new();
    let close = |shifted: &mut Vec<u8>, encoded: &mut String| {
        if !shifted.is_empty() {
            encoded.push('&');
            BASE64.encode_string(&*shifted, encoded);
            encoded.push('-');
            shifted.clear();
        }
    };
    for character in name.chars() {
        if matches!(character, ' '..='~') {
            close(&mut shifted, &mut encoded);
            encoded.push_str(if character == '&' { "&-" } else { "" });
            if character != '&' {
                encoded.push(character);
            }
        } else {
            let mut units = [0; 2];
            character.encode_utf16(&mut units).iter().for_each(|unit| shifted.extend(unit.to_be_bytes()));
        }
    }
    close(&mut shifted, &mut encoded);
    encoded
}

/// Reads a name in modified UTF-7; `None` for what is not: 8-bit octets, broken base 64, printable ASCII encoded,
/// two shifts in a row. Each name has one form only, so that two names on the wire are two mailboxes.
pub fn decode(encoded: &[u8]) -> Option<String> {
    let mut name = String::with_capacity(encoded.len());
    let mut rest = encoded;
    let mut after_shift = false;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'&' {
            if !matches!(byte, b' '..=b'~') {
                return None;
            }
            name.push(char::from(byte));
            after_shift = false;
            continue;
        }
        let end = memchr::memchr(b'-', rest)?;
        let (shifted, tail) = (&rest[..end], &rest[end + 1..]);
        rest = tail;
        if shifted.is_empty() {
            name.push('&');
            after_shift = false;
            continue;
        }
        if after_shift {
            return None;
        }
        name.push_str(&decode_shifted(shifted)?);
        after_shift = true;
    }
    Some(name)
}

fn decode_shifted(shifted: &[u8]) -> Option<String> {
    let bytes = BASE64.decode(shifted).ok()?;
    if bytes.is_empty() || bytes.len() % 2 != 0 {
        return None;
    }
    let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units).collect::<Result<_, _>>().ok()?;
    (!text.contains(|c| matches!(c, ' '..='~'))).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names() {
        for (name, encoded) in [
            ("INBOX", "INBOX"),
            ("Tom & Jerry", "Tom &- Jerry"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("pää", "p&AOQA5A-"),
            ("😀", "&2D3eAA-"),
            ("", ""),
        ] {
            assert_eq!(encode(name), encoded);
            assert_eq!(decode(encoded.as_bytes()).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_no_modified_utf_7_is_refused() {
        for bad in [&b"&"[..], b"&AOQ", b"a\xe4", b"&AGE-", b"&AOQ-&AOQ-", b"&A-", b"&2D0-", b"&!!-", b"\x01"]
        {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn names_read_back(name in "[ -~äß日😀\u{7f}\u{1}]{0,20}") {
            let encoded = encode(&name);
            proptest::prop_assert!(encoded.bytes().all(|b| matches!(b, b' '..=b'~')));
            proptest::prop_assert_eq!(decode(encoded.as_bytes()), Some(name));
        }

        #[test]
        fn what_decodes_has_one_form(encoded in "[&AOQ,a-]{0,12}") {
            if let Some(name) = decode(encoded.as_bytes()) {
                proptest::prop_assert_eq!(encode(&name), encoded);
            }
        }
    }
}
