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
        last_attempt: Some(at(60)),
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

fn about<'a>(
    kind: Kind,
    recipients: &'a [Reported],
    original: &'a [u8],
    ret: Ret,
    at_host: &'a Parties,
) -> Report<'a> {
    Report {
        kind,
        reporting_mta: &at_host.us,
        unique: "000001.dsn",
        date: at(100),
        to: &at_host.sender,
        copy_about: None,
        envid: Some("QQ314159"),
        arrival: at(0),
        recipients,
        original,
        eight_bit: false,
        ret,
    }
}

struct Parties {
    us: Domain,
    sender: Mailbox,
}

fn parties() -> Parties {
    Parties { us: "mail.example.org".parse().unwrap(), sender: "sender@example.org".parse().unwrap() }
}

fn report_of(kind: Kind, recipients: &[Reported], original: &[u8], ret: Ret) -> String {
    String::from_utf8(about(kind, recipients, original, ret, &parties()).to_message()).unwrap()
}

fn report(recipients: &[Reported], original: &[u8], ret: Ret) -> String {
    report_of(Kind::Failed, recipients, original, ret)
}

const ORIGINAL: &[u8] = b"Subject: hello\r\nMessage-ID: <x@example.org>\r\n\r\nbody\r\n";

/// A body beyond ASCII, as most mail in the world has it.
const EIGHT_BIT: &[u8] = "Subject: hello\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Transfer-Encoding: 8bit\r\n\r\nViele Gr\u{fc}\u{df}e\r\n"
    .as_bytes();
/// A header beyond ASCII (RFC 6532).
const INTERNATIONAL: &[u8] =
    "Subject: Gr\u{fc}\u{df}e\r\nTo: b\u{fc}ro@outside.test\r\n\r\nViele Gr\u{fc}\u{df}e\r\n".as_bytes();

const UNROUTED: &str =
    "no way to send the message on could be chosen so far, because of a mistake in the setup of this server";

/// Each kind of report: the name of its golden file, and the report.
fn each_kind() -> Vec<(&'static str, String)> {
    let parties = parties();
    let late = outcome(Verdict::Temporary, None, Some("4.4.1"), "connection timed out");
    let ours =
        |verdict, code: &str, text: &str| Outcome::ours(verdict, Stage::Dns, code.parse().unwrap(), text);
    let until = Kind::Delayed { until: at(345_600) };
    let no_transport =
        |fate, outcome| Reported { transport: None, last_attempt: None, ..reported(fate, outcome) };
    let said_no = refused(Some(550), Some("5.1.1"), "no such user\nsorry");
    let expired = Reported { earlier: put_off(12), ..reported(Fate::Expired, late.clone()) };
    let delayed = Reported { earlier: put_off(2), ..reported(Fate::Delayed, late) };
    let unrouted = no_transport(Fate::Unrouted, ours(Verdict::Temporary, "4.3.5", UNROUTED));
    let tried_before = Reported { earlier: put_off(1), last_attempt: Some(at(60)), ..unrouted.clone() };
    let in_time = UNROUTED.replace("so far", "in time");
    let undecided = no_transport(Fate::Undecided, ours(Verdict::Temporary, "4.3.5", &in_time));
    let operator = ours(Verdict::Permanent, "5.3.0", "the account was closed");
    let given_up =
        Reported { earlier: put_off(1), last_attempt: Some(at(60)), ..no_transport(Fate::GivenUp, operator) };
    let damaged = ours(Verdict::Permanent, "5.3.0", "the message was damaged in the storage of this server");
    let here = Outcome::ours(Verdict::Delivered, Stage::Data, EnhancedCode::new(2, 0, 0), "delivered");
    let delivered = Reported { transport: Some("local".into()), ..reported(Fate::Delivered, here) };
    let taken = outcome(Verdict::Delivered, Some(250), Some("2.0.0"), "queued as 4711");
    let utf8 = Reported {
        address: "b\u{fc}ro+x@outside.test".parse().unwrap(),
        orcpt: Some("utf-8;b\u{fc}@example.org".into()),
        ..refused(Some(550), Some("5.1.1"), "kein B\u{fc}ro")
    };
    let plain = Reported { orcpt: None, ..said_no.clone() };
    let text = |report: Report<'_>| String::from_utf8(report.to_message()).unwrap();
    let from_null = ReversePath::Null;
    vec![
        ("failed", report(std::slice::from_ref(&said_no), ORIGINAL, Ret::Full)),
        ("failed_headers", report(std::slice::from_ref(&said_no), ORIGINAL, Ret::Headers)),
        (
            "failed_plain",
            text(Report { envid: None, ..about(Kind::Failed, &[plain], ORIGINAL, Ret::Full, &parties) }),
        ),
        ("expired", report(&[expired], ORIGINAL, Ret::Headers)),
        ("given_up", report(&[given_up], ORIGINAL, Ret::Full)),
        ("undecided", report(&[undecided], ORIGINAL, Ret::Full)),
        ("damaged", report(&[no_transport(Fate::Damaged, damaged)], ORIGINAL, Ret::Headers)),
        ("delayed", report_of(until, &[delayed], ORIGINAL, Ret::Full)),
        ("delayed_unrouted", report_of(until, &[unrouted], ORIGINAL, Ret::Full)),
        ("delayed_unrouted_later", report_of(until, &[tried_before], ORIGINAL, Ret::Full)),
        ("delivered", report_of(Kind::Succeeded, &[delivered], ORIGINAL, Ret::Full)),
        ("relayed", report_of(Kind::Succeeded, &[reported(Fate::Relayed, taken)], ORIGINAL, Ret::Full)),
        ("eight_bit", report(std::slice::from_ref(&said_no), EIGHT_BIT, Ret::Full)),
        (
            "eight_bit_here",
            text(Report {
                eight_bit: true,
                ..about(Kind::Failed, std::slice::from_ref(&said_no), EIGHT_BIT, Ret::Full, &parties)
            }),
        ),
        ("utf8", report(std::slice::from_ref(&utf8), INTERNATIONAL, Ret::Full)),
        ("utf8_headers", report(std::slice::from_ref(&utf8), INTERNATIONAL, Ret::Headers)),
        (
            "utf8_sender",
            text(Report {
                to: &"s\u{e4}nder@example.org".parse().unwrap(),
                eight_bit: true,
                ..about(Kind::Failed, &[utf8], INTERNATIONAL, Ret::Full, &parties)
            }),
        ),
        (
            "copy",
            text(Report {
                copy_about: Some(&from_null),
                ..about(Kind::Failed, &[said_no], ORIGINAL, Ret::Headers, &parties)
            }),
        ),
    ]
}

/// After a wanted change, `UPDATE_GOLDEN=1` writes the files anew, to be read before they are kept.
#[test]
fn each_kind_of_report_as_a_golden_text() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/message/golden");
    for (name, report) in each_kind() {
        let file = folder.join(format!("{name}.eml"));
        let text = report.replace("\r\n", "\n");
        assert!(
            !text.contains('\r') && !report.replace("\r\n", "").contains('\n'),
            "a bare line end in {name}"
        );
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(text, golden, "{}", file.display());
    }
}

#[test]
fn a_report_that_may_go_anywhere_is_ascii_and_others_can_read_it() {
    for (name, report) in each_kind() {
        let may_be_eight_bit = ["eight_bit_here", "utf8_sender"].contains(&name);
        assert_eq!(report.is_ascii(), !may_be_eight_bit, "{name}");
        let parsed = mail_parser::MessageParser::default().parse(report.as_bytes()).unwrap();
        assert!(parsed.body_text(0).unwrap().contains("This is the mail server mail.example.org."), "{name}");
        assert!(report.contains("report-type=delivery-status"), "{name}");
    }
}

/// Whoever gets the report may look at the header that was sent, whatever it went through.
#[test]
fn what_was_encoded_is_the_original() {
    let read = |name: &str| {
        let report = each_kind().into_iter().find(|(of, _)| *of == name).unwrap().1;
        let parsed = mail_parser::MessageParser::default().parse(report.as_bytes()).unwrap();
        let part = parsed.parts.last().unwrap();
        match &part.body {
            mail_parser::PartType::Message(message) => message.raw_message.to_vec(),
            _ => part.contents().to_vec(),
        }
    };
    assert_eq!(
        String::from_utf8(read("utf8")).unwrap().trim_end(),
        std::str::from_utf8(INTERNATIONAL).unwrap().trim_end()
    );
    assert!(INTERNATIONAL.starts_with(read("utf8_headers").trim_ascii_end()));
    assert!(EIGHT_BIT.starts_with(read("eight_bit").trim_ascii_end()), "its header");
    let whole = each_kind().into_iter().find(|(name, _)| *name == "eight_bit_here").unwrap().1;
    assert!(whole.contains(std::str::from_utf8(EIGHT_BIT).unwrap()), "{whole}");
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
    assert!(text.contains("Subject: gr=C3=BC=C3=9Fe") && !text.contains("per\r\n"), "header only:\n{text}");
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
