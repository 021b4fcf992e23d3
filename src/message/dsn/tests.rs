use super::*;
use crate::attempt::{Decision, Level};
use crate::names::TransportName;
use crate::outcome::Stage;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn outcome(verdict: Verdict, code: Option<u16>, enhanced: Option<&str>, text: &str) -> Outcome {
    Outcome {
        host: Some("mx.outside.test".into()),
        ip: "192.0.2.1".parse().ok(),
        code,
        enhanced: enhanced.map(|e| e.parse().unwrap()),
        ..Outcome::ours(verdict, Stage::Rcpt, EnhancedCode::new(5, 0, 0), text)
    }
}

fn reported(fate: Fate, outcome: Outcome) -> Reported {
    Reported {
        address: "user@outside.test".parse().unwrap(),
        orcpt: Some("rfc822;alias@example.org".into()),
        fate,
        outcome,
        transport: Some("direct".into()),
        earlier: Vec::new(),
        last_attempt: at(60),
    }
}

fn refused(code: Option<u16>, enhanced: Option<&str>, text: &str) -> Reported {
    reported(Fate::Refused, outcome(Verdict::Permanent, code, enhanced, text))
}

/// Attempts that the peer put off, a minute apart.
fn put_off(count: u32) -> Vec<Attempt> {
    let attempt = |number: u32| Attempt {
        number,
        at: at(60 * i64::from(number)),
        decision: Some(Decision::without_script(Level::Default, TransportName::new("direct").unwrap())),
        outcome: Some(outcome(Verdict::Temporary, Some(450), Some("4.2.1"), "busy")),
        ended: None,
    };
    (1..=count).map(attempt).collect()
}

fn report_of(kind: Kind, recipients: &[Reported], original: &[u8], ret: Ret) -> String {
    let message = Report {
        kind,
        reporting_mta: &"mail.example.org".parse().unwrap(),
        unique: "000001.dsn",
        date: at(100),
        to: &"sender@example.org".parse().unwrap(),
        copy_about: None,
        envid: Some("QQ314159"),
        arrival: at(0),
        recipients,
        original,
        ret,
    }
    .to_message();
    String::from_utf8(message).unwrap()
}

fn report(recipients: &[Reported], original: &[u8], ret: Ret) -> String {
    report_of(Kind::Failed, recipients, original, ret)
}

const ORIGINAL: &[u8] = b"Subject: hello\r\nMessage-ID: <x@example.org>\r\n\r\nbody\r\n";

/// A text with the line ends of mail.
fn golden(text: &str) -> String {
    text.replace('\n', "\r\n")
}

#[test]
fn each_kind_of_report_as_a_golden_text() {
    let said_no = refused(Some(550), Some("5.1.1"), "no such user\nsorry");
    assert_eq!(report(&[said_no], ORIGINAL, Ret::Full), golden(include_str!("../golden/failed.eml")));

    let late = outcome(Verdict::Temporary, None, Some("4.4.1"), "connection timed out");
    let expired = Reported { earlier: put_off(12), ..reported(Fate::Expired, late.clone()) };
    assert_eq!(report(&[expired], ORIGINAL, Ret::Headers), golden(include_str!("../golden/expired.eml")));

    let delayed = Reported { earlier: put_off(2), ..reported(Fate::Delayed, late) };
    let kind = Kind::Delayed { until: at(345_600) };
    let delayed = report_of(kind, &[delayed], ORIGINAL, Ret::Full);
    assert_eq!(delayed, golden(include_str!("../golden/delayed.eml")));

    let here = Outcome::ours(Verdict::Delivered, Stage::Data, EnhancedCode::new(2, 0, 0), "delivered");
    let delivered = Reported { transport: Some("local".into()), ..reported(Fate::Delivered, here) };
    let delivered = report_of(Kind::Succeeded, &[delivered], ORIGINAL, Ret::Full);
    assert_eq!(delivered, golden(include_str!("../golden/delivered.eml")));

    let taken = outcome(Verdict::Delivered, Some(250), Some("2.0.0"), "queued as 4711");
    let relayed = report_of(Kind::Succeeded, &[reported(Fate::Relayed, taken)], ORIGINAL, Ret::Full);
    assert_eq!(relayed, golden(include_str!("../golden/relayed.eml")));
}

#[test]
fn other_mail_software_reads_it() {
    let failures = [
        refused(Some(550), None, "no\r\nX-Injected: yes\u{1b}[0m"),
        reported(
            Fate::Expired,
            outcome(Verdict::Temporary, None, Some("4.4.1"), &"connection timed out ".repeat(20)),
        ),
    ];
    let text = report(&failures, "Subject: grüße\r\n\r\nkörper\r\n".as_bytes(), Ret::Headers);
    let parsed = mail_parser::MessageParser::default().parse(text.as_bytes()).unwrap();
    assert_eq!(parsed.parts.len(), 4);
    assert!(!text.contains("\nX-Injected"), "a peer's words cannot add fields:\n{text}");
    assert!(text.contains("Status: 5.0.0\r\n") && text.contains("Status: 5.4.7\r\n"), "{text}");
    assert!(text.contains("Subject: grüße") && !text.contains("körper"), "header only:\n{text}");
    assert!(text.contains("Content-Type: message/global-headers\r\n"), "RFC 6533 §4.3: {text}");
    assert!(text.lines().all(|l| l.len() <= 998), "{text}");
}

#[test]
fn no_line_grows_too_long_whatever_a_peer_says() {
    for said in ["x".repeat(2_000), "ü".repeat(1_000), "two words ".repeat(200)] {
        let mut failure = refused(Some(550), None, &said);
        failure.earlier = put_off(1);
        failure.earlier[0].outcome.as_mut().unwrap().text.clone_from(&said);
        let text = report(&[failure], ORIGINAL, Ret::Full);
        assert!(text.lines().all(|l| l.len() <= 998), "RFC 5322 §2.1.1: {text}");
    }
}

#[test]
fn an_address_beyond_ascii_is_told_as_rfc_6533_wants_it() {
    let mut failure = refused(Some(550), None, "no");
    failure.address = "büro+x@outside.test".parse().unwrap();
    failure.orcpt = Some("utf-8;bü@example.org".into());
    let text = report(&[failure], ORIGINAL, Ret::Full);
    assert!(text.contains("Final-Recipient: utf-8; b\\x{FC}ro\\x{2B}x@outside.test\r\n"), "{text}");
    assert!(text.contains("Original-Recipient: utf-8; b\\x{FC}@example.org\r\n"), "{text}");
}
