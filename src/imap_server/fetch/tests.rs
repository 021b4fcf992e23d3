//! Known answers: messages and what ENVELOPE, BODY, BODYSTRUCTURE and sections say of them.

use super::*;
use crate::imap_server::parse::{Command, request};
use crate::store::{EmailId, SystemFlag};
use imap_types::command::CommandBody;

fn items(asked: &str) -> Items {
    let text = format!("a FETCH 1 {asked}\r\n").into_bytes();
    let raw = crate::imap_server::assemble::RawCommand { text, literals: Vec::new() };
    match request(&raw).unwrap().command {
        Command::Standard(CommandBody::Fetch { macro_or_item_names, uid, .. }) => {
            Items::new(macro_or_item_names, uid)
        }
        other => panic!("{other:?}"),
    }
}

fn row(size: usize) -> MessageRow {
    MessageRow {
        uid: 7,
        modseq: 9,
        flags: Flags::new().with(SystemFlag::Seen),
        internal_date: "2026-02-03T04:05:06Z".parse().unwrap(),
        saved: Timestamp::UNIX_EPOCH,
        size: size as u64,
        email: EmailId::default(),
    }
}

/// The data between the parentheses.
fn fetched(message: &[u8], asked: &str) -> String {
    let mut output = Output::new();
    let text = Text::new(Bytes::copy_from_slice(message));
    let (items, row) = (items(asked), row(message.len()));
    write_start(&mut output, 1);
    let mut at = 0;
    while write_next(&mut output, at, &row, &items, &text) {
        at += 1;
    }
    let line: String = output.drain().iter().map(|b| char::from(*b)).collect();
    line.strip_prefix("* 1 FETCH (").unwrap().strip_suffix(")\r\n").unwrap().to_owned()
}

#[test]
fn what_the_view_knows() {
    assert_eq!(
        fetched(b"", "(UID FLAGS INTERNALDATE RFC822.SIZE MODSEQ)"),
        "UID 7 FLAGS (\\Seen) INTERNALDATE \" 3-Feb-2026 04:05:06 +0000\" RFC822.SIZE 0 MODSEQ (9)"
    );
}

#[test]
fn nul_cannot_be_sent() {
    assert_eq!(fetched(b"A: b\r\n\r\nx\0y", "BODY[]"), "BODY[] {11}\r\nA: b\r\n\r\nx\u{80}y");
}

#[test]
fn how_much_each_item_needs() {
    for (asked, needs, sets_seen) in [
        ("FAST", Needs::Row, false),
        ("ALL", Needs::Header, false),
        ("FULL", Needs::Content, false),
        ("(UID MODSEQ)", Needs::Row, false),
        ("BODY[HEADER.FIELDS (To)]", Needs::Header, true),
        ("BODY.PEEK[HEADER]", Needs::Header, false),
        ("RFC822.HEADER", Needs::Header, false),
        ("RFC822", Needs::Content, true),
        ("RFC822.TEXT", Needs::Content, true),
        ("BODY[1.HEADER]", Needs::Content, true),
        ("BODY.PEEK[]", Needs::Content, false),
        ("BODYSTRUCTURE", Needs::Content, false),
    ] {
        let items = items(asked);
        assert_eq!((items.needs(), items.sets_seen()), (needs, sets_seen), "{asked}");
    }
}

#[test]
fn envelopes() {
    for (header, expected) in [
        ("", "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"),
        (
            "Message-ID: <m@id>\r\nIn-Reply-To: <r@id>\r\nDate: Thu, 15 Feb 2007 01:02:03 +0200\r\n\
             Subject: subject\r\n header\r\nFrom: From Real <f@d>\r\nTo: \"To, Real\" <t@d>\r\nCc: c@d (Cc Real)\r\n\
             Bcc: <b@d>\r\nSender: s@d\r\nReply-To: r@d\r\n",
            "(\"Thu, 15 Feb 2007 01:02:03 +0200\" \"subject header\" ((\"From Real\" NIL \"f\" \"d\")) \
             ((NIL NIL \"s\" \"d\")) ((NIL NIL \"r\" \"d\")) ((\"To, Real\" NIL \"t\" \"d\")) \
             ((\"Cc Real\" NIL \"c\" \"d\")) ((NIL NIL \"b\" \"d\")) \"<r@id>\" \"<m@id>\")",
        ),
        (
            "From: u@d\r\nSender: \r\nReply-To:\r\nSubject:\r\n",
            "(NIL \"\" ((NIL NIL \"u\" \"d\")) ((NIL NIL \"u\" \"d\")) ((NIL NIL \"u\" \"d\")) NIL NIL NIL NIL NIL)",
        ),
        (
            "To: g: a@b, c@d;, e@f\r\nCc: empty:;\r\nTo: <@route:x@y>, nobody\r\n",
            "(NIL NIL NIL NIL NIL ((NIL NIL \"g\" NIL)(NIL NIL \"a\" \"b\")(NIL NIL \"c\" \"d\")(NIL NIL NIL NIL)\
             (NIL NIL \"e\" \"f\")(NIL \"@route\" \"x\" \"y\")(NIL NIL \"nobody\" \"\")) \
             ((NIL NIL \"empty\" NIL)(NIL NIL NIL NIL)) NIL NIL NIL)",
        ),
        (
            "Subject: =?utf-8?q?=C3=A4?=\r\nFrom: a\"b\\\"c\" <x@y>\r\n",
            "(NIL \"=?utf-8?q?=C3=A4?=\" ((\"ab\\\"c\" NIL \"x\" \"y\")) ((\"ab\\\"c\" NIL \"x\" \"y\")) \
             ((\"ab\\\"c\" NIL \"x\" \"y\")) NIL NIL NIL NIL NIL)",
        ),
    ] {
        assert_eq!(
            fetched(format!("{header}\r\nbody").as_bytes(), "ENVELOPE"),
            format!("ENVELOPE {expected}")
        );
    }
    // 8-bit octets go as a literal.
    let raw = fetched(b"Subject: caf\xe9\r\n\r\n", "ENVELOPE");
    assert_eq!(raw, "ENVELOPE (NIL {4}\r\ncaf\u{e9} NIL NIL NIL NIL NIL NIL NIL NIL)");
}

const MIXED: &[u8] = b"Content-Type: multipart/mixed; boundary=\"foo\r\n bar\"\r\nContent-Language: en, de\r\n\r\n\
prologue\r\n--foo bar\r\nContent-Type: text/x-myown; charset=us-ascii\r\n\r\nhello\r\n\r\n--foo bar\r\n\
Content-Type: image/png; name=\"a b.png\"\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <i@d>\r\n\
Content-Description: A picture\r\nContent-MD5: abc==\r\nContent-Location: http://x/\r\n\
Content-Disposition: attachment; filename*0=\"a\"; filename*1=b\r\nContent-Language: fr\r\n\r\nAAAA\r\n--foo bar\r\n\
Content-Type: message/rfc822\r\n\r\nSubject: sub\r\nContent-Type: multipart/alternative; boundary=s\r\n\r\n\
--s\r\nContent-Type: text/html\r\n\r\n<p>\r\n--s\r\n\r\nplain\r\n--s--\r\nsub epilogue\r\n--foo bar--\r\nepilogue\r\n";

#[test]
fn structures() {
    let alternative = "((\"text\" \"html\" NIL NIL NIL \"7BIT\" 3 0)\
        (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7BIT\" 5 0) \"alternative\")";
    assert_eq!(
        fetched(MIXED, "BODY"),
        format!(
            "BODY ((\"text\" \"x-myown\" (\"charset\" \"us-ascii\") NIL NIL \"7BIT\" 7 1)\
             (\"image\" \"png\" (\"name\" \"a b.png\") \"<i@d>\" \"A picture\" \"base64\" 4)\
             (\"message\" \"rfc822\" NIL NIL NIL \"7BIT\" 135 \
             (NIL \"sub\" NIL NIL NIL NIL NIL NIL NIL NIL) {alternative} 11) \"mixed\")"
        )
    );
    let extended = fetched(MIXED, "BODYSTRUCTURE");
    for part in [
        "\"base64\" 4 \"abc==\" (\"attachment\" (\"filename*0\" \"a\" \"filename*1\" \"b\")) \"fr\" \"http://x/\")",
        "\"7BIT\" 7 1 NIL NIL NIL NIL)",
        "\"alternative\" (\"boundary\" \"s\") NIL NIL NIL) 11 NIL NIL NIL NIL) \
         \"mixed\" (\"boundary\" \"foo bar\") NIL (\"en\" \"de\") NIL)",
    ] {
        assert!(extended.contains(part), "{part}\nis not in\n{extended}");
    }
}

#[test]
fn structures_of_broken_messages() {
    let text = "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7BIT\"";
    for (message, expected) in [
        (&b""[..], format!("{text} 0 0)")),
        (b"no header at all", format!("{text} 0 0)")),
        (b"\r\nbody\r\n", format!("{text} 6 1)")),
        (b"Content-Type: nonsense\r\n\r\nx\n", format!("{text} 2 1)")),
        (b"Content-Type: multipart/mixed\r\n\r\n--a\r\n", format!("{text} 5 1)")),
        (b"Content-Type: multipart/mixed; boundary=a\r\n\r\nnever", format!("({text} 0 0) \"mixed\")")),
        (
            b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\none\n--a\n\ntwo",
            format!("({text} 3 0){text} 3 0) \"mixed\")"),
        ),
        (
            b"Content-Type: multipart/digest; boundary=a\r\n\r\n--a\r\n\r\nSubject: d\r\n\r\n--a--",
            format!(
                "((\"message\" \"rfc822\" NIL NIL NIL \"7BIT\" 12 \
                 (NIL \"d\" NIL NIL NIL NIL NIL NIL NIL NIL) {text} 0 0) 1) \"digest\")"
            ),
        ),
    ] {
        let expected = format!("BODY {expected}");
        assert_eq!(fetched(message, "BODY"), expected, "{}", String::from_utf8_lossy(message));
    }
}

#[test]
fn sections() {
    for (section, expected) in [
        ("1", Some("hello\r\n")),
        ("1.MIME", Some("Content-Type: text/x-myown; charset=us-ascii\r\n\r\n")),
        ("2", Some("AAAA")),
        ("3.HEADER", Some("Subject: sub\r\nContent-Type: multipart/alternative; boundary=s\r\n\r\n")),
        ("3.HEADER.FIELDS (subject X-None)", Some("Subject: sub\r\n\r\n")),
        ("3.HEADER.FIELDS.NOT (subject)", Some("Content-Type: multipart/alternative; boundary=s\r\n\r\n")),
        ("3.MIME", Some("Content-Type: message/rfc822\r\n\r\n")),
        ("3.1", Some("<p>")),
        ("3.2", Some("plain")),
        ("3.2.MIME", Some("\r\n")),
        ("3.3", None),
        ("1.HEADER", None),
        ("1.1", None),
        ("4", None),
        ("HEADER.FIELDS (X-None)", Some("\r\n")),
        ("HEADER.FIELDS.NOT (Content-Type)", Some("Content-Language: en, de\r\n\r\n")),
    ] {
        let answer = match expected {
            Some(expected) => format!("BODY[{section}] {{{}}}\r\n{expected}", expected.len()),
            None => format!("BODY[{section}] NIL"),
        };
        assert_eq!(fetched(MIXED, &format!("BODY.PEEK[{section}]")), answer);
    }
    // Header and text of the whole, and of a message in it, are all there is, to the octet.
    let whole = |section: &str| {
        let answer = fetched(MIXED, &format!("BODY[{section}]"));
        answer.split_once("}\r\n").unwrap().1.to_owned()
    };
    assert_eq!(whole("").as_bytes(), MIXED);
    assert_eq!([whole("HEADER"), whole("TEXT")].concat().as_bytes(), MIXED);
    assert_eq!([whole("3.HEADER"), whole("3.TEXT")].concat(), whole("3"));
}

#[test]
fn partials() {
    for (partial, expected) in [
        ("<0.5>", "BODY[TEXT]<0> {5}\r\nprolo"),
        ("<3.2>", "BODY[TEXT]<3> {2}\r\nlo"),
        ("<4000000000.10>", "BODY[TEXT]<4000000000> {0}\r\n"),
    ] {
        assert_eq!(fetched(MIXED, &format!("BODY[TEXT]{partial}")), expected);
    }
    assert!(fetched(MIXED, "BODY[]<0.4294967295>").ends_with("epilogue\r\n"));
}

#[test]
fn a_single_part_and_a_forwarded_message() {
    let single = b"Subject: s\r\n\r\ntext";
    assert_eq!(fetched(single, "BODY[1]"), "BODY[1] {4}\r\ntext");
    assert_eq!(fetched(single, "BODY[1.MIME]"), "BODY[1.MIME] {14}\r\nSubject: s\r\n\r\n");
    let forwarded = b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ninner";
    assert_eq!(fetched(forwarded, "BODY[1]"), "BODY[1] {20}\r\nSubject: in\r\n\r\ninner");
    assert_eq!(fetched(forwarded, "BODY[1.HEADER]"), "BODY[1.HEADER] {15}\r\nSubject: in\r\n\r\n");
    assert_eq!(fetched(forwarded, "BODY[1.TEXT]"), "BODY[1.TEXT] {5}\r\ninner");
    assert_eq!(fetched(forwarded, "BODY[1.1]"), "BODY[1.1] {5}\r\ninner");
}
