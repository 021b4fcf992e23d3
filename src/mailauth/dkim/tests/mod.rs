//! DKIM against a DNS server with the keys of a small world.

mod interop;

use super::*;
use crate::dns::Resolver;
use crate::dns::testing::DnsServer;
use crate::mailauth::{Message, Verdict};

/// RFC 8463 §A.3, its message and its keys.
const FOOTBALL: &str = include_str!("football.eml");
const FOOTBALL_KEYS: &str = "
    brisbane._domainkey.football.example.com TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
    test._domainkey.football.example.com TXT v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
";

const MESSAGE: &str = "From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: hello\r\n there\r\n\
    Date: Sun, 22 Nov 2026 15:57:18 +0000\r\nMessage-Id: <1@example.org>\r\nX-Other: x\r\n\r\nHello  Bob,\r\n\r\nbye \r\n\r\n";

fn now() -> jiff::Timestamp {
    "2026-11-22T16:00:00Z".parse().unwrap()
}

fn signer(selector: &str, algorithm: Algorithm) -> Signer {
    let (key, _) = PrivateKey::generate(algorithm).unwrap();
    Signer { domain: "example.org".to_owned(), selector: selector.to_owned(), key }
}

/// A line of the DNS server's table.
fn zone_of(signer: &Signer) -> String {
    let record = signer.key.record().unwrap();
    // Strings of TXT are at most 255 octets long.
    let (first, rest) = record.split_at(record.len().min(200));
    format!("{}._domainkey.{} TXT {first}|{rest}\n", signer.selector, signer.domain)
}

fn signed(message: &str, signers: &[&Signer]) -> String {
    let fields = sign(&Message::new(message.as_bytes()), signers.iter().copied(), now()).unwrap();
    String::from_utf8(fields).unwrap() + message
}

async fn check(resolver: &Resolver, message: &str) -> Vec<Checked> {
    verify(resolver, &Message::new(message.as_bytes()), now()).await
}

fn words(all: &[Checked]) -> Vec<&'static str> {
    all.iter().map(|one| one.verdict.as_str()).collect()
}

#[tokio::test]
async fn the_message_of_rfc_8463() {
    let dns = DnsServer::start(FOOTBALL_KEYS).await;
    let resolver = Resolver::new(&dns.config());
    let mail = FOOTBALL.replace('\n', "\r\n");
    let all = check(&resolver, &mail).await;
    assert_eq!(words(&all), ["pass", "pass"], "{all:?}");
    assert_eq!(all[0].domain.as_deref(), Some("football.example.com"));
    assert_eq!(
        (all[0].selector.as_deref(), all[0].signature.as_deref()),
        (Some("brisbane"), Some("/gCrinpc"))
    );
    assert_eq!(all[0].identity.as_deref(), Some("@football.example.com"));

    for (from, to, why) in [
        ("dinner", "lunch", "header fields were changed"),
        ("Are you", "Are we", "the body was changed"),
        ("To: Suzie", "To: another@example.net\r\nTo: Suzie", "pass"),
        ("Subject:", "Subject: a second one\r\nSubject:", "header fields were changed"),
        ("Subject: Is ", "SUBJECT :\tIs\r\n\t", "pass"),
        ("yet?\r\n", "yet? \t\r\n", "pass"),
        ("Joe.\r\n", "Joe.\r\n\r\n\r\n", "pass"),
    ] {
        let all = check(&resolver, &mail.replacen(from, to, 1)).await;
        for one in &all {
            let reason = one.reason.clone().unwrap_or_else(|| one.verdict.to_string());
            assert!(reason.contains(why), "{to}: {all:?}");
        }
    }
}

#[tokio::test]
async fn what_we_sign_is_good_until_it_is_changed() {
    let (ed, rsa) = (signer("ed", Algorithm::Ed25519Sha256), signer("rsa", Algorithm::RsaSha256));
    let dns = DnsServer::start(&[zone_of(&ed), zone_of(&rsa)].concat()).await;
    let resolver = Resolver::new(&dns.config());
    for message in [
        MESSAGE.to_owned(),
        "From: ann@example.org\r\n\r\n".to_owned(),
        "From: ann@example.org\r\n\r\nno line end".to_owned(),
        format!(
            "From: ann@example.org\r\nReferences: {}\r\n\r\n{}",
            "<x@y>\r\n ".repeat(50) + "<z@y>",
            "long\r\n".repeat(30_000)
        ),
    ] {
        let mail = signed(&message, &[&ed, &rsa]);
        assert!(mail.lines().all(|line| line.len() <= 78), "{mail}");
        assert_eq!(words(&check(&resolver, &mail).await), ["pass", "pass"], "{message:.80}");
    }

    let mail = signed(MESSAGE, &[&ed, &rsa]);
    for (from, to, word) in [
        ("From: Ann", "From: Bob", "fail"),
        ("From: Ann", "From: eve@example.net\r\nFrom: Ann", "fail"),
        ("Subject: h", "Cc: eve@example.net\r\nSubject: h", "fail"),
        ("Subject: h", "Reply-To: eve@example.net\r\nSubject: h", "fail"),
        ("X-Other: x", "X-Other: y\r\nContent-Type: text/html", "fail"),
        ("X-Other: x", "X-Other: y\r\nList-Id: a list", "pass"),
        ("bye", "bye!", "fail"),
        ("Hello  Bob, ", "Hello Bob,", "pass"),
        ("d=example.org", "d=example.com", "permerror"),
    ] {
        let all = check(&resolver, &mail.replace(from, to)).await;
        assert_eq!(words(&all), [word, word], "{to}: {all:?}");
    }
}

#[tokio::test]
async fn keys_decide_too() {
    let (key, pem) = PrivateKey::generate(Algorithm::Ed25519Sha256).unwrap();
    let record = key.record().unwrap();
    let mut zone = String::new();
    for (selector, text) in [
        ("good", record.clone()),
        ("testing", format!("{record}; t=y")),
        ("strict", format!("{record}; t=s")),
        ("revoked", "v=DKIM1; k=ed25519; p=".to_owned()),
        ("sha1", format!("{record}; h=sha1")),
        ("other", format!("{record}; s=tlsrpt")),
        ("another", signer("x", Algorithm::Ed25519Sha256).key.record().unwrap()),
        ("rsa", FOOTBALL_KEYS.lines().nth(2).unwrap().split_once("TXT ").unwrap().1.to_owned()),
    ] {
        zone = zone + selector + "._domainkey.example.org TXT " + text.as_str() + "\n";
    }
    zone += "down._domainkey.example.org SERVFAIL\n";
    zone += "two._domainkey.example.org TXT v=spf1 -all\n";
    zone = zone + "two._domainkey.example.org TXT " + record.as_str() + "\n";
    let dns = DnsServer::start(&zone).await;
    let resolver = Resolver::new(&dns.config());
    for (selector, verdict, why) in [
        ("good", Verdict::Pass, ""),
        ("testing", Verdict::Neutral, "tests"),
        ("strict", Verdict::Pass, ""),
        ("revoked", Verdict::PermError, "revoked"),
        ("sha1", Verdict::PermError, "SHA-256"),
        ("other", Verdict::PermError, "not for mail"),
        ("another", Verdict::Fail, "does not match"),
        ("rsa", Verdict::PermError, "type rsa"),
        ("missing", Verdict::PermError, "no key"),
        ("down", Verdict::TempError, "failed"),
        ("two", Verdict::Pass, ""),
    ] {
        // The selector is signed: each gets its own.
        let key = PrivateKey::from_pem(pem.as_bytes()).unwrap();
        let by = Signer { selector: selector.to_owned(), domain: "example.org".to_owned(), key };
        let all = check(&resolver, &signed(MESSAGE, &[&by])).await;
        assert_eq!(all[0].verdict, verdict, "{selector}: {all:?}");
        assert!(all[0].reason.as_deref().unwrap_or_default().contains(why), "{selector}: {all:?}");
    }
}

#[tokio::test]
async fn a_flood_of_signatures_costs_no_flood_of_look_ups() {
    let ed = signer("ed", Algorithm::Ed25519Sha256);
    let dns = DnsServer::start(&zone_of(&ed)).await;
    let resolver = Resolver::new(&dns.config());
    let body = MESSAGE;
    let mut mail = signed(body, &[&ed]);
    for number in 0..1000 {
        let field = format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d=x{number}.example; s=s; h=From; bh=YWJj; b=YWJj\r\n"
        );
        mail.insert_str(0, &field);
    }
    let all = check(&resolver, &mail).await;
    assert_eq!(all.len(), 2 * SIGNATURES_MAX);
    assert_eq!(all.iter().filter(|one| one.verdict == Verdict::Neutral).count(), SIGNATURES_MAX);
    // Bodies are hashed before keys are looked up, so that a wrong one costs no question.
    assert_eq!(dns.questions(), 0);
    assert_eq!(best(&all), Verdict::Fail);
}

#[tokio::test]
async fn a_signature_over_a_part_of_the_body_is_not_accepted() {
    let mail = interop::python_signed_part().await;
    let dns = DnsServer::start(&mail.zone).await;
    let resolver = Resolver::new(&dns.config());
    assert_eq!(words(&check(&resolver, &mail.text).await), ["pass"], "the whole body is signed");
    let longer = mail.text.clone() + "and buy this\r\n";
    let all = check(&resolver, &longer).await;
    assert_eq!(words(&all), ["policy"], "{all:?}");
    assert!(all[0].reason.as_deref().unwrap().contains("part of the body"));
    let shorter = mail.text.replace("there\r\n", "");
    assert_eq!(words(&check(&resolver, &shorter).await), ["permerror"]);
}

#[tokio::test]
async fn records_for_people() {
    let rsa = signer("rsa", Algorithm::RsaSha256);
    let zone = zone_of(&rsa) + "old._domainkey.example.org TXT v=DKIM1; p=\n";
    let dns = DnsServer::start(&zone).await;
    let resolver = Resolver::new(&dns.config());
    let found = lookup(&resolver, "rsa", "example.org").await.unwrap();
    assert_eq!((found.keys, found.problem), (vec!["rsa, 2048 bits".to_owned()], None));
    assert_eq!(found.records, [rsa.key.record().unwrap()]);
    for (selector, why) in [("old", "revoked"), ("none", "no TXT record"), ("a b", "no name")] {
        let problem = lookup(&resolver, selector, "example.org").await.unwrap().problem.unwrap();
        assert!(problem.contains(why), "{selector}: {problem}");
    }
}
