//! What replies and failures mean, as tables.

use std::io;
use std::time::Duration;

use proptest::prelude::*;

use super::super::classify::{
    Cause, Failure, Seen, TEXT_BYTES_MAX, at_smarthost, outcome_of_reply, says_too_many_recipients, sum_up,
};
use super::super::plan::Hint;
use super::super::transaction::{Answer, Step, Transaction};
use super::world::{attempt, domain, show};
use crate::net::DialError;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::smtp::Reply;
use crate::smtp::command::{ForwardPath, Mail, Rcpt};
use crate::smtp::reply::ReplyError;
use crate::tls::ClientTlsError;

fn reply(text: &str) -> Reply {
    let mut parser = crate::smtp::reply::ReplyParser::default();
    parser.next(&mut bytes::BytesMut::from(format!("{text}\r\n").as_bytes())).unwrap().unwrap()
}

#[test]
fn what_replies_mean() {
    use Stage::{Auth, Data, Greeting, Mail, Rcpt, Tls};
    for (stage, wire, expected) in [
        (Data, "250 2.0.0 Ok", "delivered data 250 2.0.0 Ok"),
        (Data, "250 Ok", "delivered data 250 2.0.0 Ok"),
        (Data, "251 2.1.5 Ok", "delivered data 251 2.1.5 Ok"),
        (Data, "354 x", "temporary data 354 4.0.0 x"),
        (Data, "451 4.3.0 x", "temporary data 451 4.3.0 x"),
        (Data, "554 5.6.0 x", "permanent data 554 5.6.0 x"),
        (Data, "421 4.3.2 x", "temporary data 421 4.3.2 x"),
        (Rcpt, "450 x", "temporary rcpt 450 4.0.0 x"),
        (Rcpt, "550 x", "permanent rcpt 550 5.0.0 x"),
        (Rcpt, "550 4.7.1 x", "permanent rcpt 550 5.0.0 4.7.1 x"),
        (Rcpt, "354 x", "temporary rcpt 354 4.0.0 x"),
        (Mail, "250 2.1.0 x", "temporary mail 250 4.0.0 x"),
        (Mail, "530 5.7.0 x", "permanent mail 530 5.7.0 x"),
        (Greeting, "554 5.7.1 x", "permanent greeting 554 5.7.1 x"),
        (Greeting, "421 x", "temporary greeting 421 4.0.0 x"),
        (Tls, "554 5.7.3 x", "temporary tls 554 4.0.0 x"),
        (Auth, "535 5.7.8 x", "permanent auth 535 5.7.8 x"),
    ] {
        assert_eq!(show(&outcome_of_reply(stage, &reply(wire), &Seen::default())), expected);
    }
}

#[test]
fn what_failures_mean() {
    let second = Duration::from_secs(1);
    let lost = || io::Error::from(io::ErrorKind::ConnectionReset);
    for (stage, cause, expected) in [
        (Stage::Connect, Cause::Dial(DialError::Timeout(second)), "4.4.1 connection timed out after 1 s"),
        (Stage::Connect, Cause::Dial(DialError::Refused(lost())), "4.4.1 connection reset"),
        (
            Stage::Mail,
            Cause::Timeout { after: second, waiting_for: "the reply to MAIL" },
            "4.4.2 timed out after 1 s while waiting for the reply to MAIL",
        ),
        (
            Stage::Greeting,
            Cause::Closed("the greeting"),
            "4.4.2 the peer closed the connection while we waited for the greeting",
        ),
        (Stage::Data, Cause::Lost(lost()), "4.4.2 the connection was lost: connection reset"),
        (
            Stage::Rcpt,
            Cause::NotSmtp(ReplyError::LineTooLong),
            "4.5.0 a reply line is longer than 4096 bytes",
        ),
        (
            Stage::Tls,
            Cause::Tls(ClientTlsError::Certificate("x".into())),
            "4.7.5 the peer's certificate is not valid: x",
        ),
        (Stage::Tls, Cause::TlsNotOffered, "4.7.4 TLS is required, but the peer does not offer it"),
        (Stage::Tls, Cause::TlsInjection, "4.7.5 the peer sent clear text after STARTTLS"),
    ] {
        let shown = show(&Failure::new(stage, cause).outcome(&Seen::default()));
        assert_eq!(shown, format!("temporary {stage} - {expected}"));
    }
}

#[test]
fn outcomes_name_the_peer() {
    let seen = Seen {
        host: Some(domain("mx.test")),
        ip: "192.0.2.1".parse().ok(),
        tls: Some("TLSv1.3 TLS13_AES_128_GCM_SHA256".into()),
    };
    for outcome in [
        outcome_of_reply(Stage::Rcpt, &reply("550 x"), &seen),
        Failure::new(Stage::Mail, Cause::Closed("x")).outcome(&seen),
    ] {
        assert_eq!(outcome.host.as_deref(), Some("mx.test"));
        assert_eq!((outcome.ip, outcome.tls), (seen.ip, seen.tls.clone()));
    }
}

#[test]
fn long_texts_are_cut() {
    let long = Reply::new(550, "ü".repeat(TEXT_BYTES_MAX));
    let text = outcome_of_reply(Stage::Rcpt, &long, &Seen::default()).text;
    assert!(text.len() <= TEXT_BYTES_MAX + '…'.len_utf8() && text.ends_with('…'));
}

#[test]
fn which_replies_ask_for_another_transaction() {
    for (wire, expected) in [
        ("452 too many", true),
        ("452 4.5.3 too many", true),
        ("452 4.3.1 disk full", true),
        ("452 4.2.2 mailbox full", false),
        ("552 too many", true),
        ("552 5.5.3 too many", true),
        ("552 5.2.2 mailbox full", false),
        ("450 4.5.3 x", false),
        ("550 5.5.3 x", false),
    ] {
        assert_eq!(says_too_many_recipients(&reply(wire)), expected, "{wire}");
    }
}

#[test]
fn what_is_shown_of_several_hosts() {
    let failed = |verdict, stage, text: &str| {
        let outcome = Outcome::ours(verdict, stage, EnhancedCode::new(4, 0, 0), text);
        Outcome { host: Some(format!("{text}.test")), ..outcome }
    };
    let temporary = |stage, text| failed(Verdict::Temporary, stage, text);
    let permanent = |stage, text| failed(Verdict::Permanent, stage, text);
    assert_eq!(sum_up(Vec::new()), None);
    for (outcomes, verdict, text) in [
        (vec![temporary(Stage::Connect, "a")], Verdict::Temporary, "a"),
        (
            vec![temporary(Stage::Connect, "a"), temporary(Stage::Connect, "b")],
            Verdict::Temporary,
            "b\nalso tried a.test: a",
        ),
        (
            vec![temporary(Stage::Greeting, "a"), temporary(Stage::Connect, "b")],
            Verdict::Temporary,
            "a\nalso tried b.test: b",
        ),
        (
            vec![permanent(Stage::Greeting, "a"), temporary(Stage::Dns, "b")],
            Verdict::Temporary,
            "b\nalso tried a.test: a",
        ),
        (
            vec![permanent(Stage::Greeting, "a"), permanent(Stage::Dns, "b")],
            Verdict::Permanent,
            "a\nalso tried b.test: b",
        ),
    ] {
        let shown = sum_up(outcomes).unwrap();
        assert_eq!((shown.verdict, shown.text.as_str()), (verdict, text));
    }
}

#[test]
fn a_smarthost_refuses_messages_not_mail() {
    let outcome = |stage, verdict| Outcome::ours(verdict, stage, EnhancedCode::new(5, 7, 1), "x");
    for stage in [Stage::Dns, Stage::Connect, Stage::Greeting, Stage::Tls, Stage::Auth] {
        let softened = at_smarthost(outcome(stage, Verdict::Permanent));
        assert_eq!(
            (softened.verdict, softened.enhanced),
            (Verdict::Temporary, Some(EnhancedCode::new(4, 7, 1)))
        );
    }
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Data] {
        assert_eq!(at_smarthost(outcome(stage, Verdict::Permanent)).verdict, Verdict::Permanent);
    }
}

#[test]
fn what_history_says_about_an_address() {
    let ip = "192.0.2.1".parse().unwrap();
    let (temporary, permanent) = (Verdict::Temporary, Verdict::Permanent);
    for (stage, code, verdict, expected) in [
        (Stage::Connect, None, temporary, Some(Hint::Last(ip))),
        (Stage::Tls, None, temporary, Some(Hint::Last(ip))),
        (Stage::Greeting, Some(421), temporary, Some(Hint::Last(ip))),
        (Stage::Mail, None, temporary, Some(Hint::Last(ip))),
        (Stage::Rcpt, Some(450), temporary, Some(Hint::First(ip))),
        (Stage::Data, Some(451), temporary, Some(Hint::First(ip))),
        (Stage::Rcpt, Some(550), permanent, None),
        (Stage::Dns, None, temporary, None),
    ] {
        let outcome = Outcome::ours(verdict, stage, EnhancedCode::new(4, 0, 0), "x");
        let last = attempt(Outcome { ip: Some(ip), code, ..outcome });
        assert_eq!(Hint::from_history(&[last]), expected, "{stage} {code:?}");
    }
    assert_eq!(Hint::from_history(&[]), None);
}

proptest! {
    /// Whatever a peer answers, a transaction comes to an end, asks only for replies to what it wrote, and leaves no
    /// recipient without an answer; nobody is delivered whose content was not sent.
    #[test]
    fn any_replies_bring_a_transaction_to_its_end(
        recipients in 1usize..8,
        pipelining in any::<bool>(),
        reset in any::<bool>(),
        codes in proptest::collection::vec(
            prop_oneof![4 => Just(250u16), 2 => Just(354), 1 => Just(452), 1 => Just(550), 1 => Just(421), 1 => 200u16..600],
            40,
        ),
    ) {
        let rcpt = |n: usize| Rcpt::new(ForwardPath::Mailbox(format!("r{n}@x.test").parse().unwrap()));
        let mail = Mail::new(crate::envelope::ReversePath::Null);
        let mut transaction = Transaction::new(mail, (0..recipients).map(rcpt).collect(), pipelining, reset);
        let mut codes = codes.into_iter();
        let (mut failure, mut content_sent) = (None, false);
        'transaction: loop {
            let mut out = String::new();
            let replies = match transaction.next(&mut out) {
                Step::Done => break,
                Step::Send { replies } => replies,
                step => {
                    content_sent |= step == Step::SendContent;
                    1
                }
            };
            prop_assert!(out.is_empty() || out.matches("\r\n").count() == replies);
            for _ in 0..replies {
                if let Err(broken) = transaction.take(Reply::new(codes.next().unwrap(), "x")) {
                    failure = Some(broken);
                    break 'transaction;
                }
            }
        }
        let answers = transaction.answers(failure.as_ref(), &Seen::default());
        prop_assert_eq!(answers.len(), recipients);
        for answer in answers {
            match answer {
                Answer::Final(outcome) => prop_assert!(outcome.verdict != Verdict::Delivered || content_sent),
                Answer::None => prop_assert!(failure.is_some()),
                Answer::Again => prop_assert!(content_sent),
            }
        }
    }
}
