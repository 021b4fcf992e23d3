//! Tables of lines and what they mean, then lines that nobody thought of.

use proptest::prelude::*;

use super::*;
use crate::address::Mailbox;

fn parse(line: &str) -> Command {
    Command::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn refused(line: &str) -> String {
    match Command::parse(line.as_bytes()) {
        Ok(command) => panic!("{line}: taken as {command:?}"),
        Err(error) => error.reply().to_string().trim_end().to_owned(),
    }
}

fn mail(sender: &str) -> Mail {
    Mail::new(sender.to_owned().try_into().unwrap())
}

fn rcpt(recipient: &str) -> Rcpt {
    Rcpt::new(ForwardPath::Mailbox(Mailbox::parse(recipient).unwrap()))
}

#[test]
fn commands_without_addresses() {
    for (line, command) in [
        ("DATA", Command::Data),
        ("data  ", Command::Data),
        ("RSET", Command::Rset),
        ("QUIT", Command::Quit),
        ("StartTLS", Command::StartTls),
        ("NOOP", Command::Noop),
        ("NOOP with words", Command::Noop),
        ("VRFY someone", Command::Vrfy),
        ("EXPN list", Command::Expn),
        ("HELP", Command::Help),
        ("HELP MAIL", Command::Help),
        ("BDAT 0 LAST", Command::Bdat(Bdat { size: 0, last: true })),
        ("bdat 86 last", Command::Bdat(Bdat { size: 86, last: true })),
        ("BDAT 100000", Command::Bdat(Bdat { size: 100_000, last: false })),
        ("AUTH PLAIN", Command::Auth(Auth { mechanism: "PLAIN".to_owned(), initial: None })),
        ("AUTH plain =", Command::Auth(Auth { mechanism: "PLAIN".to_owned(), initial: Some(Vec::new()) })),
        (
            "AUTH PLAIN AGEAYg==",
            Command::Auth(Auth { mechanism: "PLAIN".to_owned(), initial: Some(b"\0a\0b".to_vec()) }),
        ),
    ] {
        assert_eq!(parse(line), command, "{line}");
    }
}

#[test]
fn names_of_clients() {
    for (line, name) in [
        ("EHLO mx.example.org", "mx.example.org"),
        ("ehlo [192.0.2.1]", "[192.0.2.1]"),
        ("EHLO [IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("EHLO My_PC", "My_PC"),
        ("EHLO localhost", "localhost"),
        ("EHLO bücher.example", "xn--bcher-kva.example"),
        ("EHLO mx.example.org and more", "mx.example.org"),
    ] {
        let Command::Ehlo(read) = parse(line) else { panic!("{line}") };
        assert_eq!(read.as_str(), name, "{line}");
    }
    let long = format!("EHLO {}", "a".repeat(256));
    for line in ["EHLO", "EHLO ", "EHLO a(b)", "EHLO <a>", "EHLO a;b", "EHLO ü_(ü)", "EHLO \"a\"", &long] {
        assert_eq!(refused(line), "501 5.5.4 Syntax: EHLO your.host.name", "{line}");
    }
}

#[test]
fn senders() {
    for (line, command) in [
        ("MAIL FROM:<>", mail("")),
        ("mail from:<a@example.org>", mail("a@example.org")),
        ("MAIL FROM: <a@example.org>", mail("a@example.org")),
        ("MAIL FROM:<\"a b>\\\"\"@example.org>", mail("\"a b>\\\"\"@example.org")),
        ("MAIL FROM:<a@[192.0.2.1]>", mail("a@[192.0.2.1]")),
        ("MAIL FROM:<@one.example,@[IPv6:2001:db8::1]:a@example.org>", mail("a@example.org")),
        ("MAIL FROM:<a@example.org> SIZE=1000", Mail { size: Some(1000), ..mail("a@example.org") }),
        ("MAIL FROM:<> SIZE=99999999999999999999", Mail { size: Some(u64::MAX), ..mail("") }),
        ("MAIL FROM:<> BODY=8bitmime", Mail { body: Some(BodyType::EightBitMime), ..mail("") }),
        (
            "MAIL FROM:<> body=7BIT  RET=HDRS",
            Mail { body: Some(BodyType::SevenBit), ret: Some(Ret::Headers), ..mail("") },
        ),
        ("MAIL FROM:<> ENVID=a+2Bb", Mail { envid: Some("a+b".to_owned()), ..mail("") }),
        ("MAIL FROM:<> AUTH=<>", Mail { auth: Some("<>".to_owned()), ..mail("") }),
        (
            "MAIL FROM:<> AUTH=e+3Dmc2@example.com",
            Mail { auth: Some("e=mc2@example.com".to_owned()), ..mail("") },
        ),
        ("MAIL FROM:<> REQUIRETLS", Mail { require_tls: true, ..mail("") }),
        ("MAIL FROM:<ü@example.org> SMTPUTF8", Mail { smtputf8: true, ..mail("ü@example.org") }),
        ("MAIL FROM:<a@bücher.example>", Mail { path_is_utf8: true, ..mail("a@xn--bcher-kva.example") }),
    ] {
        assert_eq!(parse(line), Command::Mail(command), "{line}");
    }
}

#[test]
fn recipients() {
    let notify = |success, failure, delay| Some(Notify { success, failure, delay });
    for (line, command) in [
        ("RCPT TO:<a@example.org>", rcpt("a@example.org")),
        ("rcpt to: <A@Example.ORG>", rcpt("A@example.org")),
        ("RCPT TO:<Postmaster>", Rcpt::new(ForwardPath::Postmaster)),
        ("RCPT TO:<@one.example:a@example.org>", rcpt("a@example.org")),
        ("RCPT TO:<a@b.c> NOTIFY=NEVER", Rcpt { notify: notify(false, false, false), ..rcpt("a@b.c") }),
        ("RCPT TO:<a@b.c> NOTIFY=success,DELAY", Rcpt { notify: notify(true, false, true), ..rcpt("a@b.c") }),
        (
            "RCPT TO:<a@b.c> ORCPT=rfc822;x+2By@b.c",
            Rcpt { orcpt: Some("rfc822;x+y@b.c".to_owned()), ..rcpt("a@b.c") },
        ),
    ] {
        assert_eq!(parse(line), Command::Rcpt(command), "{line}");
    }
}

#[test]
fn what_is_refused_and_how() {
    for (line, reply) in [
        ("", "500 5.5.1 I do not know this command"),
        ("XYZZY", "500 5.5.1 I do not know this command"),
        ("GET / HTTP/1.1", "500 5.5.1 I do not know this command"),
        ("MAILFROM:<>", "500 5.5.1 I do not know this command"),
        ("NOOP\0", "500 5.5.2 A command is a line of text, without control characters"),
        ("NOOP \r", "500 5.5.2 A command is a line of text, without control characters"),
        ("MAIL\tFROM:<>", "500 5.5.2 A command is a line of text, without control characters"),
        ("DATA now", "501 5.5.4 Syntax: DATA"),
        ("QUIT now", "501 5.5.4 Syntax: QUIT"),
        ("STARTTLS now", "501 5.5.4 Syntax: STARTTLS"),
        ("VRFY", "501 5.5.4 Syntax: VRFY address"),
        ("BDAT", "501 5.5.4 Syntax: BDAT size [LAST]"),
        ("BDAT -1", "501 5.5.4 Syntax: BDAT size [LAST]"),
        ("BDAT 10 FIRST", "501 5.5.4 Syntax: BDAT size [LAST]"),
        ("BDAT 1000000000000000000000", "501 5.5.4 Syntax: BDAT size [LAST]"),
        ("AUTH", "501 5.5.4 Syntax: AUTH mechanism [initial-response]"),
        ("AUTH PLÄIN", "501 5.5.4 Syntax: AUTH mechanism [initial-response]"),
        ("AUTH PLAIN !", "501 5.5.2 The response is not valid base64"),
        ("AUTH PLAIN AGEAYg== x", "501 5.5.2 The response is not valid base64"),
        ("MAIL", "501 5.5.4 Syntax: MAIL FROM:<sender@domain>"),
        ("MAIL TO:<a@b.c>", "501 5.5.4 Syntax: MAIL FROM:<sender@domain>"),
        ("MAIL FROM:a@b.c", "501 5.5.4 Syntax: MAIL FROM:<sender@domain>"),
        ("MAIL FROM:<a@b.c", "501 5.5.4 Syntax: MAIL FROM:<sender@domain>"),
        ("MAIL FROM:<a@b.c>SIZE=1", "501 5.5.4 Syntax: MAIL FROM:<sender@domain>"),
        ("MAIL FROM:<\"a@b.c>", "501 5.5.4 Syntax: MAIL FROM:<sender@domain>"),
        ("MAIL FROM:<ü", "501 5.5.4 Syntax: MAIL FROM:<sender@domain>"),
        ("MAIL FROü:<>", "501 5.5.4 Syntax: MAIL FROM:<sender@domain>"),
        ("MAIL FROM:<a>", "501 5.1.7 Bad sender: the address has no @domain"),
        ("MAIL FROM:<a@b c>", "501 5.1.7 Bad sender: the domain is not valid"),
        ("MAIL FROM:<@one.example>", "501 5.1.7 Bad sender: the domain is not valid"),
        ("MAIL FROM:<@one,two:a@b.c>", "501 5.1.7 Bad sender: the domain is not valid"),
        ("MAIL FROM:<a@192.0.2.1>", "501 5.1.7 Bad sender: the domain is not valid"),
        ("RCPT TO:<>", "501 5.1.3 Bad recipient: the address is empty"),
        ("RCPT TO:<a..b@c.d>", "501 5.1.3 Bad recipient: the part before the @ is not valid"),
        ("RCPT TO:<a@[192.0.2]>", "501 5.1.3 Bad recipient: the address literal is not valid"),
        ("MAIL FROM:<> =1", "501 5.5.4 After the address come parameters, each as KEYWORD or KEYWORD=value"),
        (
            "MAIL FROM:<> SIZE=",
            "501 5.5.4 After the address come parameters, each as KEYWORD or KEYWORD=value",
        ),
        (
            "MAIL FROM:<> SIZE=1=2",
            "501 5.5.4 After the address come parameters, each as KEYWORD or KEYWORD=value",
        ),
        ("MAIL FROM:<> SIZE", "501 5.5.4 The value of SIZE is not valid"),
        ("MAIL FROM:<> SIZE=-1", "501 5.5.4 The value of SIZE is not valid"),
        ("MAIL FROM:<> SIZE=1 size=2", "501 5.5.4 SIZE is given twice"),
        ("MAIL FROM:<> SMTPUTF8=1", "501 5.5.4 The value of SMTPUTF8 is not valid"),
        ("MAIL FROM:<> BODY=9BIT", "501 5.5.4 The value of BODY is not valid"),
        ("MAIL FROM:<> RET=NONE", "501 5.5.4 The value of RET is not valid"),
        ("MAIL FROM:<> ENVID=+0A", "501 5.5.4 The value of ENVID is not valid"),
        ("MAIL FROM:<> ENVID=a+b", "501 5.5.4 The value of ENVID is not valid"),
        ("MAIL FROM:<> AUTH=me", "501 5.5.4 The value of AUTH is not valid"),
        ("MAIL FROM:<> NOTIFY=NEVER", "555 5.5.4 NOTIFY is a parameter that is not offered here"),
        ("MAIL FROM:<> XFOO", "555 5.5.4 XFOO is a parameter that is not offered here"),
        ("RCPT TO:<a@b.c> NOTIFY=NEVER,DELAY", "501 5.5.4 The value of NOTIFY is not valid"),
        (
            "RCPT TO:<a@b.c> NOTIFY=",
            "501 5.5.4 After the address come parameters, each as KEYWORD or KEYWORD=value",
        ),
        ("RCPT TO:<a@b.c> ORCPT=x", "501 5.5.4 The value of ORCPT is not valid"),
        ("RCPT TO:<a@b.c> ORCPT=rfc822;", "501 5.5.4 The value of ORCPT is not valid"),
        ("RCPT TO:<a@b.c> ORCPT=rfc822;+0D+0AX:", "501 5.5.4 The value of ORCPT is not valid"),
        ("RCPT TO:<a@b.c> SIZE=1", "555 5.5.4 SIZE is a parameter that is not offered here"),
    ] {
        assert_eq!(refused(line), reply, "{line:?}");
    }
    assert!(Command::parse(b"MAIL FROM:<\xff@b.c>").is_err());
}

#[test]
fn passwords_are_not_printed() {
    assert!(!format!("{:?}", parse("AUTH PLAIN AGEAYg==")).contains("initial"));
}

#[test]
fn lines_tell_their_verb_even_when_wrong() {
    for (line, verb) in
        [("rcpt nonsense", Some(Verb::Rcpt)), ("DATA", Some(Verb::Data)), ("DATA\0", None), ("", None)]
    {
        assert_eq!(Verb::of_line(line.as_bytes()), verb);
    }
}

prop_compose! {
    fn any_mailbox()(local in "[^\\p{C}]{1,16}", domain in "[a-z]{1,10}\\.example|\\[192\\.0\\.2\\.[0-9]\\]") -> Mailbox {
        Mailbox {
            local: crate::address::LocalPart::from_unquoted(&local).unwrap(),
            domain: domain.parse().unwrap(),
        }
    }
}

prop_compose! {
    fn any_mail()(
        sender in proptest::option::of(any_mailbox()),
        size in proptest::option::of(any::<u64>()),
        body in proptest::option::of(prop_oneof![Just(BodyType::SevenBit), Just(BodyType::EightBitMime), Just(BodyType::BinaryMime)]),
        smtputf8: bool, require_tls: bool,
        ret in proptest::option::of(prop_oneof![Just(Ret::Full), Just(Ret::Headers)]),
        envid in proptest::option::of("[ -~]{1,100}"),
    ) -> Mail {
        Mail { size, body, smtputf8, require_tls, ret, envid, ..Mail::new(sender.map_or(ReversePath::Null, ReversePath::Mailbox)) }
    }
}

prop_compose! {
    fn any_rcpt()(
        recipient in any_mailbox(),
        notify in proptest::option::of((any::<bool>(), any::<bool>(), any::<bool>())),
        orcpt in proptest::option::of("[a-z0-9-]{1,8};[ -~]{1,100}"),
    ) -> Rcpt {
        let notify = notify.map(|(success, failure, delay)| Notify { success, failure, delay });
        Rcpt { notify, orcpt, ..Rcpt::new(ForwardPath::Mailbox(recipient)) }
    }
}

proptest! {
    #[test]
    fn mail_reads_back_as_written(mail in any_mail()) {
        let command = Command::Mail(mail);
        prop_assert_eq!(Command::parse(command.to_string().as_bytes()).unwrap(), command);
    }

    #[test]
    fn rcpt_reads_back_as_written(rcpt in any_rcpt()) {
        let command = Command::Rcpt(rcpt);
        prop_assert_eq!(Command::parse(command.to_string().as_bytes()).unwrap(), command);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(line: Vec<u8>) {
        let _ = Command::parse(&line);
    }

    #[test]
    fn nothing_after_a_verb_makes_the_parser_panic(
        verb in "(MAIL FROM:<|RCPT TO:<|BDAT |AUTH |EHLO )", rest in "[<>@\",:\\\\ =+;a1üA-Z\\[\\]]{0,40}",
    ) {
        let _ = Command::parse(format!("{verb}{rest}").as_bytes());
    }
}
