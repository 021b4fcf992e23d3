//! docs/transports.md says what the code decides: each row of its tables, stage, verdict and our own status codes. What is
//! tried next is shown by the other tests here, by conversations.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::super::as_seen_over;
use super::super::classify::{
    Cause, Failure, Seen, outcome_of_dns, outcome_of_null_mx, outcome_of_refusal, outcome_of_reply,
    outcome_of_unvouched_mx, outcome_of_wrong_family,
};
use super::super::fit::fit;
use super::world::{common, domain, job, smarthost};
use crate::config::{IpPolicy, Service, parse_reply};
use crate::dns::{DnsError, Nothing, Trouble};
use crate::envelope::{BodyType, Envelope};
use crate::net::DialError;
use crate::outcome::{Outcome, Stage, Verdict};
use crate::sasl::{Allowed, ChannelBindings, ClientError, Facts, Mechanism, choose};
use crate::smtp::Extensions;
use crate::smtp::reply::ReplyError;
use crate::tls::ClientTlsError;

const PAGE: &str = include_str!("../../../docs/transports.md");

/// A row of the page: the title that it stands under, and its cells.
#[derive(Debug)]
struct Row {
    section: &'static str,
    cells: Vec<&'static str>,
}

/// The rows of the page's tables.
fn rows() -> Vec<Row> {
    let mut section = "";
    let mut rows = Vec::new();
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        } else if let Some(row) = line.strip_prefix("| ") {
            let cells: Vec<_> = row.trim_end_matches('|').split('|').map(str::trim).collect();
            if !matches!(cells[0], "---" | "stage" | "needed") {
                rows.push(Row { section, cells });
            }
        }
    }
    rows
}

/// What a cell says of verdict and codes; `None` where it leaves both to another row, or the attempt goes on.
fn told(cell: &str) -> Option<(Verdict, BTreeSet<String>)> {
    let verdict = match cell.split([' ', ',']).next() {
        Some("temporary") => Verdict::Temporary,
        Some("permanent") => Verdict::Permanent,
        _ => return None,
    };
    let numbers = cell.split(|c: char| !c.is_ascii_digit() && c != '.').map(|word| word.trim_matches('.'));
    let codes = numbers.filter(|word| word.split('.').count() == 3).map(str::to_owned);
    Some((verdict, codes.collect()))
}

/// The same of what the code decides; our own codes alone, for others are the peers'.
fn decided(outcomes: &[Outcome]) -> Option<(Verdict, BTreeSet<String>)> {
    let verdict = outcomes.first()?.verdict;
    assert!(outcomes.iter().all(|outcome| outcome.verdict == verdict), "{outcomes:?}");
    let ours = outcomes.iter().filter(|outcome| outcome.code.is_none());
    Some((verdict, ours.filter_map(|outcome| outcome.enhanced).map(|code| code.to_string()).collect()))
}

fn failed(stage: Stage, cause: Cause) -> Outcome {
    Failure::new(stage, cause).outcome(&Seen::default())
}

fn replied(stage: Stage, code: u16) -> Outcome {
    outcome_of_reply(stage, &crate::smtp::Reply::new(code, "x"), &Seen::default())
}

fn closed(stage: Stage) -> Outcome {
    failed(stage, Cause::Closed("x"))
}

fn silent(stage: Stage) -> Outcome {
    failed(stage, Cause::Timeout { after: Duration::from_secs(1), waiting_for: "x" })
}

fn not_smtp(stage: Stage) -> Outcome {
    failed(stage, Cause::NotSmtp(ReplyError::LineTooLong))
}

fn dial(error: DialError) -> Outcome {
    failed(Stage::Connect, Cause::Dial(error))
}

fn refused() -> DialError {
    DialError::Refused(io::Error::from(io::ErrorKind::ConnectionRefused))
}

fn broken_tls() -> Vec<Outcome> {
    let handshake = ClientTlsError::Handshake("x".into());
    let certificate = ClientTlsError::Certificate("x".into());
    let causes = [Cause::Tls(handshake), Cause::Tls(certificate), Cause::TlsInjection];
    let mut outcomes: Vec<_> = causes.map(|cause| failed(Stage::Tls, cause)).into();
    outcomes.extend([replied(Stage::Tls, 454), replied(Stage::Tls, 554), silent(Stage::Tls)]);
    outcomes
}

fn at_smarthost(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let transport = smarthost("127.0.0.1:25".parse().unwrap(), Service::Smtp, None, common());
    outcomes.into_iter().map(|outcome| as_seen_over(Some(&transport), outcome)).collect()
}

/// A message that a peer that offers nothing cannot take.
fn unfit(change: impl Fn(&mut Envelope), content: &str, peer: Extensions) -> Outcome {
    let job = job(&["b@x.test"]);
    let mut envelope = job.message.envelope.clone();
    change(&mut envelope);
    let recipients: Vec<_> = envelope.recipients.iter().collect();
    let unfit = fit(&envelope, &recipients, content.as_bytes(), &peer, false).unwrap_err();
    Outcome::ours(Verdict::Permanent, Stage::Mail, unfit.enhanced, unfit.text)
}

/// What a message needs, in the order of the page.
fn needs() -> [(&'static str, Outcome); 4] {
    let small = Extensions { size: Some(1), ..Extensions::default() };
    let bare = Extensions::default;
    [
        ("SMTPUTF8", unfit(|envelope| envelope.smtputf8 = true, "Subject: ü\r\n\r\n", bare())),
        ("8BITMIME", unfit(|envelope| envelope.body = BodyType::EightBitMime, "\r\n\r\nü", bare())),
        ("BINARYMIME", unfit(|envelope| envelope.body = BodyType::BinaryMime, "\r\n\r\n", bare())),
        ("SIZE", unfit(|_| {}, "\r\n\r\n", small)),
    ]
}

/// What a login without any mechanism comes to, where this is offered in clear text.
fn no_mechanism(offered: &[&str]) -> Outcome {
    let bindings = ChannelBindings::default();
    let facts = Facts { tls: false, plaintext_allowed: false, bindings: &bindings };
    let offered: Vec<String> = offered.iter().map(|&name| name.to_owned()).collect();
    failed(Stage::Auth, Cause::NoMechanism(choose(&offered, &Allowed::Any, facts).unwrap_err()))
}

/// A section of the page, how the row begins (stage and what happens), and what the code decides then.
type Decision = (&'static str, &'static str, &'static str, Vec<Outcome>);

fn direct() -> Vec<Decision> {
    use Stage::{Data, Greeting, Mail, Rcpt, Tls};
    let (x, mx) = (|| domain("x.test"), domain("mx.test"));
    let nothing = |nothing: Nothing, host| outcome_of_dns(&DnsError::Permanent(nothing), host);
    let trouble = |trouble: Trouble| outcome_of_dns(&DnsError::Temporary(trouble), None);
    let no_answer = Trouble::Timeout { name: "x".into(), after: Duration::from_secs(1) };
    let servfail = Trouble::Failed { name: "x".into(), why: "SERVFAIL".into() };
    let source = DialError::Source { ip: "192.0.2.1".parse().unwrap(), error: io::Error::other("x") };
    let timeout = DialError::Timeout(Duration::from_secs(1));
    let no_host = vec![
        nothing(Nothing::NoAddress(mx.clone()), Some(&mx)),
        nothing(Nothing::NoSuchDomain(mx.clone()), Some(&mx)),
        nothing(Nothing::NoUsableMx(x()), None),
    ];
    let mut needs: Vec<Outcome> = needs().map(|(_, outcome)| outcome).into();
    needs.push(failed(Mail, Cause::NoRequireTls));
    [
        ("dns", "the domain does not exist", vec![nothing(Nothing::NoSuchDomain(x()), None)]),
        ("dns", "null MX", vec![outcome_of_null_mx(&x())]),
        ("dns", "REQUIRETLS was given, and DNSSEC", vec![outcome_of_unvouched_mx(&x())]),
        ("dns", "no MX", vec![]),
        ("dns", "no host has an address", no_host),
        ("dns", "SERVFAIL", vec![trouble(servfail), trouble(no_answer)]),
        ("dns", "CNAME loop", vec![trouble(Trouble::AliasLoop(x()))]),
        ("dns", "a host has only addresses", vec![outcome_of_wrong_family(Some(&mx), &[], IpPolicy::Only4)]),
        ("connect", "refused, unreachable", vec![dial(refused()), dial(timeout), dial(source)]),
        ("greeting", "4xx to the connection or EHLO", vec![replied(Greeting, 421), replied(Greeting, 450)]),
        ("greeting", "5xx to the connection", vec![replied(Greeting, 554)]),
        ("greeting", "5xx to EHLO", vec![]),
        ("greeting", "5xx to HELO too", vec![replied(Greeting, 550)]),
        ("greeting", "closed, silent", vec![closed(Greeting), silent(Greeting), not_smtp(Greeting)]),
        ("tls", "policy `opportunistic`: STARTTLS refused", vec![]),
        ("tls", "policy `opportunistic`: the handshake", vec![]),
        ("tls", "policy `required`: not offered", vec![failed(Tls, Cause::TlsNotOffered)]),
        ("tls", "policy `required`: refused, broken", broken_tls()),
        ("mail", "4xx", vec![replied(Mail, 450)]),
        ("mail", "5xx", vec![replied(Mail, 550)]),
        ("mail", "the message needs", needs),
        ("rcpt", "4xx", vec![replied(Rcpt, 450)]),
        ("rcpt", "5xx", vec![replied(Rcpt, 550)]),
        ("rcpt", "452 (or 552)", vec![]),
        (
            "mail`, `rcpt`, `data` before the content",
            "421, closed",
            vec![replied(Mail, 421), replied(Rcpt, 421), closed(Data), silent(Rcpt), not_smtp(Mail)],
        ),
        ("data", "4xx", vec![replied(Data, 451)]),
        ("data", "5xx", vec![replied(Data, 554)]),
        ("data", "closed or silent", vec![closed(Data), silent(Data)]),
    ]
    .map(|(stage, what, outcomes)| ("`direct`", stage, what, outcomes))
    .into()
}

fn through_others() -> Vec<Decision> {
    use Stage::{Auth, Greeting, Tls};
    let (smart, host) = ("`smtp`", domain("smart.test"));
    let nothing = |nothing: Nothing| outcome_of_dns(&DnsError::Permanent(nothing), Some(&host));
    let no_host =
        vec![nothing(Nothing::NoSuchDomain(host.clone())), nothing(Nothing::NoAddress(host.clone()))];
    let mut tls = broken_tls();
    tls.push(failed(Tls, Cause::TlsNotOffered));
    let mut greeting = vec![closed(Greeting), silent(Greeting), not_smtp(Greeting)];
    greeting.extend([421, 450, 550, 554].map(|code| replied(Greeting, code)));
    let logins = [454, 501, 504, 530, 534, 535, 538].map(|code| replied(Auth, code));
    let unproved = [
        ClientError::Unproved,
        ClientError::WrongSignature,
        ClientError::UnexpectedChallenge(Mechanism::Plain),
    ];
    let mut rules: Vec<_> = unproved.map(|why| failed(Auth, Cause::Sasl(why))).into();
    rules.extend([failed(Auth, Cause::NotBase64), not_smtp(Auth)]);
    let sending = "`submission` and `submissions`";
    let proxy = DialError::Proxy { proxy: "x".into(), why: "x".into() };
    vec![
        (smart, "dns", "the smarthost's name", at_smarthost(no_host)),
        (smart, "connect", "refused, unreachable", at_smarthost(vec![dial(refused())])),
        (smart, "greeting", "4xx or 5xx, closed", at_smarthost(greeting)),
        (smart, "tls", "as for `direct`", at_smarthost(tls.clone())),
        (smart, "mail`, `rcpt`, `data", "as for `direct`", vec![]),
        (sending, "tls", "not offered, refused", at_smarthost(tls)),
        (
            sending,
            "auth",
            "no mechanism that is offered",
            at_smarthost(vec![no_mechanism(&[]), no_mechanism(&["X"])]),
        ),
        (sending, "auth", "what is offered would send", at_smarthost(vec![no_mechanism(&["PLAIN"])])),
        (sending, "auth", "the login is refused", at_smarthost(logins.into())),
        (sending, "auth", "the peer breaks", at_smarthost(rules)),
        (sending, "auth", "closed, silent", at_smarthost(vec![closed(Auth), silent(Auth)])),
        ("`socks`", "connect", "the proxy has no address", vec![dial(proxy)]),
        (
            "`socks`",
            "connect",
            "the proxy cannot reach",
            vec![dial(DialError::BehindProxy("x".into())), dial(DialError::Timeout(Duration::from_secs(1)))],
        ),
    ]
}

fn of_the_message() -> Vec<Decision> {
    let section = "What a message needs and a peer does not offer";
    let under = |cause| Failure::new(Stage::Tls, cause).under_require_tls().outcome(&Seen::default());
    let certificate = Cause::Tls(ClientTlsError::Certificate("x".into()));
    let never = Cause::Reply(crate::smtp::Reply::new(554, "x"));
    let not_verified = vec![under(Cause::TlsNotOffered), under(certificate), under(never)];
    let mut rows: Vec<Decision> =
        needs().map(|(needed, outcome)| (section, "", needed, vec![outcome])).into();
    rows.push((section, "", "REQUIRETLS was given: TLS", not_verified));
    rows.push((
        section,
        "",
        "REQUIRETLS was given: the peer",
        vec![failed(Stage::Mail, Cause::NoRequireTls)],
    ));
    rows
}

#[test]
fn each_row_of_the_page_is_what_the_code_decides() {
    let mut decisions = [direct(), through_others(), of_the_message()].concat().into_iter();
    for row in rows() {
        let (section, stage, what, outcomes) =
            decisions.next().unwrap_or_else(|| panic!("not tested: {row:?}"));
        let (stages, happens, verdict) = match row.cells[..] {
            [stages, happens, verdict, _next] => (stages.trim_matches('`'), happens, verdict),
            [needed, verdict] => ("", needed, verdict),
            _ => panic!("a row of another kind: {row:?}"),
        };
        assert_eq!((row.section, stages), (section, stage), "{row:?}");
        assert!(happens.starts_with(what), "{what:?} is expected: {row:?}");
        assert_eq!(told(verdict), decided(&outcomes), "{row:?}");
    }
    assert_eq!(decisions.next(), None, "not on the page");
}

#[test]
fn what_fails_by_configuration_is_as_the_page_has_it() {
    for (reply, verdict) in [("451 4.3.2 x", Verdict::Temporary), ("550 5.7.1 x", Verdict::Permanent)] {
        let outcome = outcome_of_refusal(&parse_reply(reply).unwrap());
        assert_eq!((outcome.stage, outcome.verdict), (Stage::Mail, verdict));
    }
}
