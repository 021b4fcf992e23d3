//! How a report returns the message that it is about: all of it or its header, in which media type, in which encoding.
//!
//! A message/rfc822 part must not be encoded (RFC 2046 §5.2.1), so the body of a message beyond ASCII goes back only where
//! eight bits can. The types for internationalized messages may be (RFC 6532 §3.7, RFC 6533 §6.3), and a header alone may
//! too (RFC 6522 §4).

use std::borrow::Cow;

use super::header_of;
use crate::envelope::Ret;
use crate::message::transfer_encoding::{base64_lines, quoted_printable};

/// The last part of a report.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Returned<'a> {
    pub media_type: &'static str,
    pub encoding: &'static str,
    pub content: Cow<'a, [u8]>,
    /// Only the header is there, though all was asked for.
    pub body_left_out: bool,
}

/// Decides. `eight_bit`: the report goes where eight bits can.
pub(super) fn returned(original: &[u8], ret: Ret, eight_bit: bool) -> Returned<'_> {
    let header = header_of(original);
    let part = |media_type, encoding, content: Cow<'static, [u8]>| Returned {
        media_type,
        encoding,
        content,
        body_left_out: false,
    };
    let as_it_is = |media_type, encoding, content| Returned {
        media_type,
        encoding,
        content: Cow::Borrowed(content),
        body_left_out: false,
    };
    let quoted =
        |media_type| part(media_type, "quoted-printable", quoted_printable(header).into_bytes().into());
    let is_utf8 = std::str::from_utf8(header).is_ok();
    match ret {
        Ret::Full if original.is_ascii() => as_it_is("message/rfc822", "7bit", original),
        Ret::Full if header.is_ascii() && eight_bit => as_it_is("message/rfc822", "8bit", original),
        Ret::Full if header.is_ascii() => {
            Returned { body_left_out: true, ..as_it_is("text/rfc822-headers", "7bit", header) }
        }
        Ret::Full if is_utf8 && eight_bit => as_it_is("message/global", "8bit", original),
        Ret::Full if is_utf8 => part("message/global", "base64", base64_lines(original).into_bytes().into()),
        // Octets that are no UTF-8 in a header are against every rule: no type could say how to read the whole.
        Ret::Full => Returned { body_left_out: true, ..quoted("text/rfc822-headers") },
        Ret::Headers if header.is_ascii() => as_it_is("text/rfc822-headers", "7bit", header),
        Ret::Headers if is_utf8 && eight_bit => as_it_is("message/global-headers", "8bit", header),
        Ret::Headers if is_utf8 => quoted("message/global-headers"),
        Ret::Headers => quoted("text/rfc822-headers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_back_and_how() {
        let (ascii, body) = ("Subject: x\r\n\r\nbody\r\n", "Subject: x\r\n\r\nkörper\r\n");
        let (header, latin) =
            ("Subject: ü\r\n\r\nbody\r\n".as_bytes(), &b"Subject: \xfc\r\n\r\nbody\r\n"[..]);
        let (ascii, body) = (ascii.as_bytes(), body.as_bytes());
        let (full, headers) = (Ret::Full, Ret::Headers);
        for (original, ret, eight_bit, media_type, encoding, left_out) in [
            (ascii, full, false, "message/rfc822", "7bit", false),
            (ascii, headers, false, "text/rfc822-headers", "7bit", false),
            (body, full, true, "message/rfc822", "8bit", false),
            (body, full, false, "text/rfc822-headers", "7bit", true),
            (body, headers, true, "text/rfc822-headers", "7bit", false),
            (header, full, true, "message/global", "8bit", false),
            (header, full, false, "message/global", "base64", false),
            (header, headers, true, "message/global-headers", "8bit", false),
            (header, headers, false, "message/global-headers", "quoted-printable", false),
            (latin, full, true, "text/rfc822-headers", "quoted-printable", true),
            (latin, headers, false, "text/rfc822-headers", "quoted-printable", false),
        ] {
            let part = returned(original, ret, eight_bit);
            let seen = (part.media_type, part.encoding, part.body_left_out);
            assert_eq!(seen, (media_type, encoding, left_out), "{original:?} {ret:?} {eight_bit}");
            assert!(eight_bit || part.content.is_ascii(), "{original:?} {ret:?}");
        }
    }
}
