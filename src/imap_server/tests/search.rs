use super::*;
use crate::store::{self, EmailId, Flags};
use bytes::Bytes;
use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;
use imap_types::command::CommandBody;

const MESSAGES: [&[u8]; 4] = [
    b"From: Alice Example <alice@example.org>\r\nTo: bob@example.org\r\nSubject: Lunch\r\n\
      Date: Sat, 24 Mar 2007 23:30:00 -0500\r\n\r\nShall we eat?\r\n",
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nSubject: =?iso-8859-1?B?R3L832U=?=\r\n =?utf-8?q?_an_alle?=\r\n\
      Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
      Sch=F6ne Gr=FC=\r\n=DFe\r\n",
    b"Cc: group: carol@example.org;\r\nX-Empty:\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
      Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nTWlsbMO8bg==\r\n--b\r\n\
      Content-Type: message/rfc822\r\n\r\nSubject: Inner\r\n\r\ndeep\r\n--b\r\n\
      Content-Type: application/octet-stream\r\n\r\nattached\r\n--b--\r\n",
    b"Subject: caf\xe9\r\nDate: nonsense\r\n\r\n",
];

fn world() -> (View, Vec<Text>) {
    let flags = [
        Flags::parse(["\\Seen", "$Work"]).unwrap(),
        Flags::parse(["\\Flagged", "\\Deleted"]).unwrap(),
        Flags::parse(["\\Answered", "\\Draft"]).unwrap(),
        Flags::new(),
    ];
    let row = |(at, flags)| MessageRow {
        uid: 10 * (at as u32 + 1),
        modseq: at as u64 + 1,
        flags,
        internal_date: format!("2024-03-0{}T12:00:00Z", at + 1).parse().unwrap(),
        saved: jiff::Timestamp::UNIX_EPOCH,
        size: 100 * (at as u64 + 1),
        email: EmailId::default(),
    };
    let messages = flags.into_iter().enumerate().map(row).collect();
    let view = View::new(store::View { uidvalidity: 1, uidnext: 50, highest_modseq: 4, messages });
    (view, MESSAGES.iter().map(|message| Text::new(Bytes::from_static(message))).collect())
}

/// Searches step by step, as the session does.
fn found(criteria: &str) -> Vec<u32> {
    let line = format!("a SEARCH {criteria}\r\n");
    let (_, command) = CommandCodec::default().decode(line.as_bytes()).unwrap();
    let CommandBody::Search { criteria: keys, .. } = command.body else { panic!("no SEARCH") };
    let (view, texts) = world();
    let query = Query::new(keys.as_ref(), &view, "2024-03-04T12:00:00Z".parse().unwrap());
    let fits = |(number, row): &(u32, &MessageRow)| {
        let text = Some(&texts[*number as usize - 1]);
        let ask = |have| query.decide(&Candidate { number: *number, row, text, have });
        ask(Needs::Row)
            .or_else(|| ask(Needs::Header))
            .or_else(|| ask(Needs::Content))
            .expect("content decides")
    };
    view.rows().filter(fits).map(|(number, _)| number).collect()
}

#[test]
fn what_each_key_finds() {
    for (criteria, expected) in [
        ("ALL", vec![1, 2, 3, 4]),
        ("SEEN", vec![1]),
        ("UNSEEN", vec![2, 3, 4]),
        ("FLAGGED DELETED", vec![2]),
        ("OR ANSWERED SEEN", vec![1, 3]),
        ("NOT DRAFT UNANSWERED", vec![1, 2, 4]),
        ("KEYWORD $work", vec![1]),
        ("UNKEYWORD $Work UNDELETED", vec![3, 4]),
        ("NEW", vec![]),
        ("RECENT", vec![]),
        ("OLD", vec![1, 2, 3, 4]),
        ("2:3", vec![2, 3]),
        ("*", vec![4]),
        ("9", vec![]),
        ("UID 15:30,99", vec![2, 3]),
        ("UID 99:*", vec![4]),
        ("NOT (1 UID 10)", vec![2, 3, 4]),
        ("LARGER 200", vec![3, 4]),
        ("SMALLER 200", vec![1]),
        ("BEFORE 2-Mar-2024", vec![1]),
        ("ON 2-Mar-2024", vec![2]),
        ("SINCE 3-Mar-2024", vec![3, 4]),
        ("SENTON 24-Mar-2007", vec![1]),
        ("SENTON 25-Mar-2007", vec![]),
        ("SENTBEFORE 25-Mar-2007", vec![1]),
        ("SENTSINCE 25-Mar-2007", vec![]),
        ("OLDER 86400", vec![1, 2, 3]),
        ("YOUNGER 86400", vec![4]),
        ("MODSEQ 3", vec![3, 4]),
    ] {
        assert_eq!(found(criteria), expected, "{criteria}");
    }
}

#[test]
fn text_is_found_as_it_is_read() {
    for (criteria, expected) in [
        ("FROM ALICE@", vec![1]),
        ("FROM \"alice ex\"", vec![1]),
        ("TO bob", vec![1]),
        ("CC carol", vec![3]),
        ("CC group", vec![3]),
        ("SUBJECT lunch", vec![1]),
        ("HEADER X-Empty \"\"", vec![3]),
        ("HEADER Subject \"\"", vec![1, 2, 4]),
        ("NOT HEADER Subject \"\"", vec![3]),
        ("FROM {7+}\r\njürgen", vec![2]),
        ("SUBJECT {16+}\r\nGRÜßE AN ALLE", vec![2]),
        ("SUBJECT {5+}\r\ncafé", vec![4]),
        ("BODY EAT", vec![1]),
        ("BODY lunch", vec![]),
        ("TEXT lunch", vec![1]),
        ("BODY {16+}\r\nschöne grüße", vec![2]),
        ("BODY {7+}\r\nmillün", vec![3]),
        ("BODY deep", vec![3]),
        ("BODY inner", vec![3]),
        ("BODY attached", vec![]),
        ("TEXT \"x-empty:\"", vec![3]),
        ("BODY \"\"", vec![1, 2, 3, 4]),
    ] {
        // Literal lengths are counted here, not by hand.
        let criteria = match criteria.split_once("\r\n") {
            Some((head, text)) => {
                let key = head.split_once('{').unwrap().0;
                format!("{key}{{{}+}}\r\n{text}", text.len())
            }
            None => criteria.to_owned(),
        };
        assert_eq!(found(&criteria), expected, "{criteria}");
    }
}

#[test]
fn a_row_decides_where_it_can() {
    let (view, _) = world();
    let (number, row) = view.rows().next().unwrap();
    let ask = |keys: &[SearchKey<'_>]| {
        let query = Query::new(keys, &view, jiff::Timestamp::UNIX_EPOCH);
        query.decide(&Candidate { number, row, text: None, have: Needs::Row })
    };
    let body = SearchKey::Body("x".try_into().unwrap());
    assert_eq!(ask(std::slice::from_ref(&body)), None);
    assert_eq!(ask(&[body.clone(), SearchKey::Unseen]), Some(false));
    assert_eq!(ask(&[SearchKey::Or(Box::new(body), Box::new(SearchKey::Seen))]), Some(true));
}
