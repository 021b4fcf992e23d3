//! Transports against servers that others wrote: Postfix as the smarthost; Dovecot, Postfix, Exim and GNU SASL as sending
//! services; microsocks and Dante as proxies.

use std::fs;

use crate::first_mail::account;
use crate::peers::{
    Dante, MailServer, SOCKS, SUBMISSIONS, dovecot_submission, exim, gnu_sasl, microsocks, postfix,
};
use crate::tools::{inbox, python, submit};
use crate::world::{SMTP, SUBMISSION, Sink, Waypost, World, wait_for};

/// Mail for NAME@outside.test goes by the transport of that name.
const BY_LOCAL_PART: &str = "fn route(d) { d.recipient_local }";

/// A server with ann's account and these transports, each for the recipient of its name.
fn started(world: &World, transports: &str) -> Waypost {
    let mut server = world.waypost("a", 10, &format!("{}{transports}", account("ann", "a.test")));
    server.password("ann", "secret");
    server.script("global.rhai", BY_LOCAL_PART);
    server.start();
    server
}

/// A transport to a mail server.
fn transport(name: &str, kind: &str, port: u16, to: &MailServer, rest: &str) -> String {
    format!("[transports.{name}]\nkind = \"{kind}\"\nhost = \"{}\"\nport = {port}\n{rest}\n", to.ip)
}

/// One message from ann to NAME@outside.test for each name.
fn send_by(server: &Waypost, names: &[String]) {
    let to: Vec<String> = names.iter().map(|name| format!("{name}@outside.test")).collect();
    submit(server, "ann", "ann@a.test", &to.iter().map(String::as_str).collect::<Vec<_>>(), "hello");
}

/// Until the sink has what was sent by each transport.
fn until_delivered(sink: &Sink, names: &[String]) {
    for name in names {
        let recipient = format!("X-Rcpt-Args: <{name}@outside.test>");
        wait_for(&format!("the mail by {name}"), || sink.count(&recipient) == 1);
    }
}

/// What came of the first attempt of the mail by a transport: verdict, stage, code and text.
fn first_outcome(server: &Waypost, name: &str) -> String {
    let mut shown = None;
    wait_for(&format!("an attempt by {name}"), || {
        let queue = server.queue();
        let recipients =
            queue["messages"].as_array().unwrap().iter().flat_map(|m| m["recipients"].as_array().unwrap());
        let recipient = recipients.clone().find(|r| r["address"] == format!("{name}@outside.test"));
        let outcome =
            &recipient.unwrap_or_else(|| panic!("{name} does not wait: {queue}"))["history"][0]["outcome"];
        let code = outcome["code"].as_u64().unwrap_or_default();
        let words = ["verdict", "stage", "text"].map(|key| outcome[key].as_str().unwrap_or_default());
        shown = outcome.is_object().then(|| format!("{} {} {code} {}", words[0], words[1], words[2]));
        shown.is_some()
    });
    shown.unwrap()
}

/// A sending service takes mail by each mechanism with TLS before or after the first word, the strongest where none is
/// named, and nothing with a wrong password: that is put off, as what it is. `used` is what its log says of a login.
/// Gives the names of the transports whose mail was taken.
fn takes_each_mechanism(world: &World, service: &MailServer, used: impl Fn(&str) -> String) -> Vec<String> {
    let mechanisms = ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"];
    let ports = [("submission", SUBMISSION), ("submissions", SUBMISSIONS)];
    let login = format!("username = \"ann\"\nca_file = \"{}\"", service.ca_file().display());
    let (mut transports, mut right, mut wrong) = (String::new(), Vec::new(), Vec::new());
    for (kind, port) in ports {
        for mechanism in mechanisms.map(Some).into_iter().chain([None]) {
            let only = mechanism.map_or_else(String::new, |name| format!("mechanisms = \"{name}\""));
            for (password, names) in [("secret", &mut right), ("guess", &mut wrong)] {
                let name = format!("{kind}-{}-{password}", mechanism.unwrap_or("any").to_lowercase());
                let rest = format!("{login}\npassword = \"{password}\"\n{only}");
                transports += &transport(&name, kind, port, service, &rest);
                names.push(name);
            }
        }
    }
    let server = started(world, &transports);
    send_by(&server, &right);
    for name in &right {
        let delivered = |line: &str| line.contains(" delivered ") && line.contains(&format!("to={name}@"));
        wait_for(&format!("the mail by {name}"), || server.log().lines().any(delivered));
    }
    let log = service.log();
    for mechanism in mechanisms {
        let least = if mechanism == "SCRAM-SHA-256" { 4 } else { 2 };
        assert!(log.matches(&used(mechanism)).count() >= least, "{mechanism}: {log}");
    }
    send_by(&server, &wrong);
    for name in &wrong {
        let outcome = first_outcome(&server, name);
        assert!(outcome.starts_with("temporary auth 535 "), "{name}: {outcome}");
    }
    assert_eq!(server.log().matches(" delivered ").count(), right.len(), "{}", server.log());
    right
}

#[test]
fn dovecot_takes_each_mechanism_and_no_wrong_password() {
    let world = World::new("");
    let sink = world.smtp_sink(30, &[]);
    let dovecot = dovecot_submission(&world, 40, world.ip(30));
    let used = |mechanism: &str| format!("method={mechanism},");
    until_delivered(&sink, &takes_each_mechanism(&world, &dovecot, used));
}

#[test]
fn postfix_with_sasl_takes_each_mechanism_and_no_wrong_password() {
    let world = World::new("");
    let sink = world.smtp_sink(30, &[]);
    let postfix = postfix(&world, 40, world.ip(30));
    let used = |mechanism: &str| format!("sasl_method={mechanism}, sasl_username=ann");
    until_delivered(&sink, &takes_each_mechanism(&world, &postfix, used));
}

#[test]
fn exim_with_cyrus_sasl_takes_each_mechanism_and_no_wrong_password() {
    let world = World::new("");
    let exim = exim(&world, 40);
    takes_each_mechanism(&world, &exim, |mechanism| {
        format!("A={}:ann", mechanism.to_lowercase().replace('-', "_"))
    });
}

#[test]
fn gnu_sasl_agrees_about_the_channel_that_scram_is_bound_to() {
    let world = World::new("");
    let (service, between) = (gnu_sasl(&world, 40, true), gnu_sasl(&world, 50, false));
    let to = |name: &str, server: &MailServer, password: &str, mechanism: &str| {
        let login = format!(
            "username = \"ann\"\npassword = \"{password}\"\n{mechanism}\nca_file = \"{}\"",
            server.ca_file().display()
        );
        transport(name, "submission", SUBMISSION, server, &login)
    };
    let (sha256, sha1) = ("mechanisms = \"SCRAM-SHA-256-PLUS\"", "mechanisms = \"SCRAM-SHA-1-PLUS\"");
    let transports = [
        to("strongest", &service, "secret", ""),
        to("sha256", &service, "secret", sha256),
        to("sha1", &service, "secret", sha1),
        to("sha256-guess", &service, "guess", sha256),
        to("sha1-guess", &service, "guess", sha1),
        to("sha256-between", &between, "secret", sha256),
        to("sha1-between", &between, "secret", sha1),
    ];
    let server = started(&world, &transports.concat());
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let right = names(&["strongest", "sha256", "sha1"]);
    send_by(&server, &right);
    wait_for("the mail in GNU SASL's hands", || server.log().matches(" delivered ").count() == right.len());
    for (taken, times) in [("SCRAM-SHA-256-PLUS: GSASL_OK", 2), ("SCRAM-SHA-1-PLUS: GSASL_OK", 1)] {
        assert_eq!(service.log().matches(taken).count(), times, "{}", service.log());
    }
    let wrong = names(&["sha256-guess", "sha1-guess", "sha256-between", "sha1-between"]);
    send_by(&server, &wrong);
    for name in &wrong {
        let outcome = first_outcome(&server, name);
        assert_eq!(outcome, "temporary auth 535 GSASL_AUTHENTICATION_ERROR", "{name}");
    }
    assert_eq!(server.log().matches(" delivered ").count(), right.len(), "{}", server.log());
    assert_eq!(between.log().matches("MAIL FROM").count(), 0, "{}", between.log());
}

#[test]
fn requiretls_goes_along_or_the_message_comes_back() {
    let world = World::new("unsigned.test MX 10 mx.unsigned.test\nmx.unsigned.test A {net}.20");
    let _sink = world.smtp_sink(30, &[]);
    let (service, postfix) = (gnu_sasl(&world, 40, true), postfix(&world, 50, world.ip(30)));
    let mut other = world.waypost("b", 20, &account("bob", "b.test"));
    other.password("bob", "secret");
    other.start();
    let login = "username = \"ann\"\npassword = \"secret\"\n";
    let ca = |file: &std::path::Path| format!("ca_file = \"{}\"", file.display());
    let transports = [
        transport(
            "service",
            "submission",
            SUBMISSION,
            &service,
            &format!("{login}{}", ca(&service.ca_file())),
        ),
        transport("postfix", "smtp", SMTP, &postfix, &ca(&postfix.ca_file())),
        format!(
            "[transports.bob]\nkind = \"smtp\"\nhost = \"{}\"\nport = {SMTP}\n{}\n",
            other.ip,
            ca(&other.dir.join("cert.pem"))
        ),
    ];
    let server = started(&world, &transports.concat());
    let to = ["bob@b.test", "service@outside.test", "postfix@outside.test", "direct@unsigned.test"];
    let program = r#"
import smtplib, ssl, sys
for to in sys.argv[3:]:
    s = smtplib.SMTP(sys.argv[1], int(sys.argv[2]))
    s.starttls(context=ssl._create_unverified_context())
    s.login("ann", "secret")
    message = f"Subject: to {to}\r\n\r\nThe secret.\r\n"
    s.sendmail("ann@a.test", [to], message, mail_options=["REQUIRETLS", "RET=FULL"])
    s.quit()
"#;
    let (ip, port) = (server.ip.to_string(), SUBMISSION.to_string());
    python(program, &[&[ip.as_str(), &port], &to[..]].concat());

    wait_for("the mail at the other Waypost", || inbox(other.ip, "bob").contains("Subject: to bob@b.test"));
    assert!(inbox(other.ip, "bob").contains("by mx.b.test with ESMTPS (TLSv1.3"));
    wait_for("the mail at the service", || service.log().contains("DATA"));
    let mail = service.log().lines().find(|line| line.starts_with("MAIL")).unwrap().to_owned();
    assert!(mail.starts_with("MAIL FROM:<ann@a.test> ") && mail.ends_with(" REQUIRETLS"), "{mail}");

    wait_for("two reports", || inbox(server.ip, "ann").matches("\nSubject: Undelivered mail").count() == 2);
    let reports = inbox(server.ip, "ann");
    for part in [
        "Status: 5.7.30",
        "the sender requires REQUIRETLS, which the peer does not offer",
        "Subject: to postfix@outside.test",
        "Status: 5.7.10",
        "DNSSEC vouches for no MX record of unsigned.test",
        "Subject: to direct@unsigned.test",
    ] {
        assert!(reports.contains(part), "{part} in {reports}");
    }
    assert!(!reports.contains("The secret."), "the header alone comes back: {reports}");
}

#[test]
fn a_password_goes_to_nobody_else_and_never_in_clear() {
    let world = World::new("");
    let _sink = world.smtp_sink(30, &[]);
    let dovecot = dovecot_submission(&world, 40, world.ip(30));
    let login = "username = \"ann\"\npassword = \"secret\"\n";
    let to = |name: &str, rest: &str| {
        transport(name, "submission", SUBMISSION, &dovecot, &format!("{login}{rest}"))
    };
    let transports =
        [to("unencrypted", "tls = \"none\"\nmechanisms = \"PLAIN\""), to("stranger", "")].concat();
    let server = started(&world, &transports);
    let names = ["unencrypted", "stranger"].map(str::to_owned);
    send_by(&server, &names);
    // Dovecot does not even offer PLAIN before TLS; what is offered there is not allowed here.
    for (name, expected) in [
        (
            "unencrypted",
            "temporary auth 0 the server offers no authentication mechanism that is allowed here",
        ),
        ("stranger", "temporary tls 0 the peer's certificate is not valid"),
    ] {
        let outcome = first_outcome(&server, name);
        assert!(outcome.starts_with(expected), "{name}: {outcome}");
    }
    assert!(!dovecot.log().contains("method="), "nobody has logged in: {}", dovecot.log());
}

#[test]
fn postfix_as_the_smarthost_with_each_tls_policy() {
    let world = World::new("");
    let sink = world.smtp_sink(30, &[]);
    let postfix = postfix(&world, 40, world.ip(30));
    let ca = format!("ca_file = \"{}\"", postfix.ca_file().display());
    let required = "tls = \"required\"";
    let transports: String = [
        ("clear", "tls = \"none\"".to_owned()),
        ("opportunistic", String::new()),
        ("verified", format!("{required}\n{ca}")),
        ("unverified", format!("{required}\nverify = false")),
        ("stranger", required.to_owned()),
    ]
    .iter()
    .map(|(name, rest)| transport(name, "smtp", SMTP, &postfix, &format!("{rest}\nehlo = \"{name}.test\"")))
    .collect();
    let server = started(&world, &transports);
    let taken = ["clear", "opportunistic", "verified", "unverified"].map(str::to_owned);
    send_by(&server, &taken);
    until_delivered(&sink, &taken);
    let refused = ["stranger".to_owned()];
    send_by(&server, &refused);
    let outcome = first_outcome(&server, "stranger");
    assert!(outcome.starts_with("temporary tls 0 the peer's certificate is not valid"), "{outcome}");
    // Postfix writes down in the Received line how each came.
    for message in sink.messages() {
        let with = if message.contains("from clear.test ") { "with ESMTP id" } else { "with ESMTPS id" };
        assert!(message.contains(with), "{message}");
    }
    let history = server.command(&["queue", "show", "1"]);
    assert_eq!(history.matches("TLSv1.3").count(), 3, "{history}");
}

#[test]
fn mail_goes_out_from_the_address_of_the_proxy() {
    let world = World::new("outside.test MX 10 mx.outside.test\nmx.outside.test A {net}.30");
    let sink = world.smtp_sink(30, &[]);
    let options = ["-u", "tim", "-P", "secret"];
    let (_open, _closed) = (microsocks(&world, 50, 51, &[]), microsocks(&world, 60, 61, &options));
    let socks = |name: &str, proxy: &str, rest: &str| {
        format!("[transports.{name}]\nkind = \"socks\"\nport = {SMTP}\nproxy = \"{{net}}.{proxy}\"\n{rest}\n")
    };
    let closed = format!("60:{SOCKS}");
    let transports = [
        socks("open", "50", "remote_ips = [\"{net}.51\"]\nremote_hostname = \"away.test\""),
        socks("closed", &closed, "username = \"tim\"\npassword = \"secret\""),
        socks("wrong", &closed, "username = \"tim\"\npassword = \"guess\""),
    ]
    .concat();
    let server = started(&world, &transports);
    for (name, from, helo) in [("open", 51, "away.test"), ("closed", 61, "mx.a.test")] {
        let names = [name.to_owned()];
        send_by(&server, &names);
        until_delivered(&sink, &names);
        let messages = sink.messages();
        let message =
            messages.iter().find(|message| message.contains(&format!("<{name}@outside.test>"))).unwrap();
        for words in [format!("X-Client-Addr: {}", world.ip(from)), format!("X-Helo-Args: {helo}")] {
            assert!(message.contains(&words), "no {words:?} in {message}");
        }
    }
    send_by(&server, &["wrong".to_owned()]);
    let outcome = first_outcome(&server, "wrong");
    assert!(
        outcome.starts_with("temporary connect 0 ") && outcome.contains("wrong user name or password"),
        "{outcome}"
    );
    assert_eq!(sink.messages().len(), 2);
}

#[test]
fn dantes_log_has_the_mail_that_went_through_it() {
    let world = World::new("outside.test MX 10 mx.outside.test\nmx.outside.test A {net}.30");
    let sink = world.smtp_sink(30, &[]);
    let (open, closed) = (Dante::start(&world, 50, None), Dante::start(&world, 60, Some(("tim", "secret"))));
    let socks = |name: &str, proxy: u8, rest: &str| {
        format!("[transports.{name}]\nkind = \"socks\"\nport = {SMTP}\nproxy = \"{{net}}.{proxy}\"\n{rest}\n")
    };
    let transports = [
        socks("open", 50, ""),
        socks("closed", 60, "username = \"tim\"\npassword = \"secret\""),
        socks("wrong", 60, "username = \"tim\"\npassword = \"guess\""),
        socks("nobody", 60, ""),
    ]
    .concat();
    let server = started(&world, &transports);
    let taken = ["open", "closed"].map(str::to_owned);
    send_by(&server, &taken);
    until_delivered(&sink, &taken);
    let to = format!("{}.{SMTP}", world.ip(30));
    let passed = |log: &str, of: &str| {
        log.lines()
            .any(|line| line.contains("pass(1): tcp/connect [") && line.contains(of) && line.contains(&to))
    };
    assert!(passed(&open.log(), ""), "{}", open.log());
    assert!(passed(&closed.log(), "username%tim@"), "{}", closed.log());
    send_by(&server, &["wrong", "nobody"].map(str::to_owned));
    for name in ["wrong", "nobody"] {
        let outcome = first_outcome(&server, name);
        assert!(outcome.starts_with("temporary connect 0 "), "{name}: {outcome}");
    }
    assert_eq!(sink.messages().len(), 2);
}

#[test]
fn a_rate_holds_mail_back_and_shows_it_as_what_it_is() {
    let world = World::new("");
    let sink = world.smtp_sink(30, &[]);
    let transports = |minute: &str| {
        let to_sink = format!("kind = \"smtp\"\nhost = \"{{net}}.30\"\nport = {SMTP}");
        format!(
            "[transports.second]\n{to_sink}\nmessages_per_second = 1\n\
             [transports.minute]\n{to_sink}\nmessages_per_minute = {minute}\n"
        )
    };
    let server = started(&world, &transports("1"));
    let send = |name: &str, number: u32| {
        submit(
            &server,
            "ann",
            "ann@a.test",
            &[&format!("{name}@outside.test")],
            &format!("{name} {number};"),
        );
    };
    let start = std::time::Instant::now();
    (1..=3).for_each(|number| send("second", number));
    wait_for("mail at its rate", || sink.count("Subject: second") == 3);
    assert!(start.elapsed() >= std::time::Duration::from_secs(2), "{:?}", start.elapsed());

    send("minute", 1);
    wait_for("what the rate allows", || sink.count("Subject: minute 1;") == 1);
    send("minute", 2);
    wait_for("what waits to say so", || {
        server.command(&["queue", "list"]).contains("0 attempts, waits for the rate of transport minute")
    });
    let listed = &server.queue()["messages"][0]["recipients"][0];
    assert_eq!((&listed["in_line"]["rate"], &listed["problem"]), (&true.into(), &serde_json::Value::Null));
    send("second", 4);
    wait_for("another transport", || sink.count("Subject: second 4;") == 1);
    assert_eq!(sink.count("Subject: minute 2;"), 0);

    let waypost_toml = server.dir.join("waypost.toml");
    let text = fs::read_to_string(&waypost_toml).unwrap().replace("per_minute = 1", "per_minute = \"off\"");
    fs::write(waypost_toml, text).unwrap();
    server.reload();
    wait_for("what waited", || sink.count("Subject: minute 2;") == 1);
}
