//! What the operator says about logging in: which mechanisms are offered, what is kept of passwords for them, and what
//! the log tells of those who failed.

use std::process::Command;

use crate::tools::{gsasl, mutt, python, scram};
use crate::world::{Conversation, IMAP, SUBMISSION, Waypost, World, run};

const CONFIG: &str = r#"
[domains."a.test"]

[accounts.alice]
addresses = ["alice@a.test"]
"#;

const CRAM: &str = r#"
[auth]
mechanisms = ["CRAM-MD5", "PLAIN", "SCRAM-SHA-256"]
"#;

fn configured(world: &World, auth: &str) -> Waypost {
    world.waypost("a", 2, &format!("{CONFIG}{auth}"))
}

/// Changes what the operator wrote, and has the running server take it up. What that says.
fn change(server: &Waypost, from: &str, to: &str) -> String {
    let file = server.dir.join("waypost.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    std::fs::write(file, text.replace(from, to)).unwrap();
    let before = server.log().matches("reloaded").count();
    let pid = server.pid().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    crate::world::wait_for("the reload", || server.log().matches("reloaded").count() > before);
    server.log()
}

/// What the two servers offer, in clear text and within TLS.
const OFFERS: &str = r#"
import imaplib, smtplib, ssl, sys
ip, submission, imap = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
c = smtplib.SMTP(ip, submission)
c.ehlo()
print(c.esmtp_features.get("auth", "").strip())
c.starttls(context=context)
c.ehlo()
print(c.esmtp_features.get("auth", "").strip())
c = imaplib.IMAP4(ip, imap)
show = lambda: print(*[w[5:] if w.startswith("AUTH=") else w for w in c.capabilities if w.startswith("AUTH=") or w == "LOGINDISABLED"])
show()
c.starttls(context)
show()
"#;

fn offers(server: &Waypost) -> Vec<String> {
    let printed = python(OFFERS, &[&server.ip.to_string(), &SUBMISSION.to_string(), &IMAP.to_string()]);
    printed.lines().map(str::to_owned).collect()
}

#[test]
fn the_operators_list_is_what_both_servers_offer() {
    let world = World::new("");
    let mut server = configured(&world, "[auth]\nmechanisms = [\"SCRAM-SHA-1\", \"SCRAM-SHA-256-PLUS\"]\n");
    server.password("alice", "secret");
    server.start();
    let (clear, bound) = ("SCRAM-SHA-1", "SCRAM-SHA-256-PLUS SCRAM-SHA-1");
    let disabled = |text: &str| format!("{text} LOGINDISABLED");
    assert_eq!(offers(&server), [clear, bound, &disabled(clear), &disabled(bound)]);

    // What is not in the list is not there, asked for or not.
    let mut smtp = Conversation::with((server.ip, SUBMISSION));
    smtp.reply();
    smtp.ask("EHLO client.test");
    for command in ["AUTH PLAIN AGFsaWNlAHNlY3JldA==", "AUTH CRAM-MD5", "AUTH SCRAM-SHA-256"] {
        assert!(smtp.ask(command).starts_with("504 "), "{command}");
    }
    let mut imap = Conversation::with((server.ip, IMAP));
    imap.line();
    for command in ["LOGIN alice secret", "AUTHENTICATE PLAIN", "AUTHENTICATE CRAM-MD5"] {
        imap.send(&format!("a {command}\r\n"));
        let line = imap.line();
        assert!(line.starts_with("a NO [CANNOT]"), "{command}: {line}");
    }
    // A change of mind takes effect on the next connection.
    change(&server, "\"SCRAM-SHA-1\", \"SCRAM-SHA-256-PLUS\"", "\"PLAIN\", \"CRAM-MD5\"");
    let both = "CRAM-MD5 PLAIN";
    assert_eq!(offers(&server), [both; 4]);
}

/// Without -PLUS in the list, a client that could bind is right to say that we do not (RFC 5802 §6); with it, somebody
/// has cut it out.
#[test]
fn who_could_bind_goes_unbound_only_where_nothing_else_is_offered() {
    let world = World::new("");
    let mut server = configured(&world, "[auth]\nmechanisms = [\"SCRAM-SHA-256\", \"SCRAM-SHA-1\"]\n");
    server.password("alice", "secret");
    server.start();
    let ends = |header, password| scram(&server, "SCRAM-SHA-256", header, password);
    assert_eq!((ends("y,,", "secret").as_str(), ends("n,,", "secret").as_str()), ("235", "235"));
    assert_eq!(ends("y,,", "wrong"), "535");
    // Any -PLUS will do: it could have taken that.
    change(&server, "\"SCRAM-SHA-256\", ", "\"SCRAM-SHA-256\", \"SCRAM-SHA-1-PLUS\", ");
    assert_eq!((ends("y,,", "secret").as_str(), ends("n,,", "secret").as_str()), ("535", "235"));
}

const CRAM_PROGRAM: &str = r#"
import imaplib, smtplib, sys
ip, submission, imap, user, password = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
c = smtplib.SMTP(ip, submission)
c.ehlo()
c.user, c.password = user, password
try:
    print(c.auth("CRAM-MD5", c.auth_cram_md5)[0])
except smtplib.SMTPAuthenticationError as error:
    print(error.smtp_code, error.smtp_error.decode())
c = imaplib.IMAP4(ip, imap)
try:
    print(c.login_cram_md5(user, password)[0])
except c.error as error:
    print(error)
"#;

/// What CRAM-MD5 ends with, in SMTP and in IMAP.
fn cram(server: &Waypost, user: &str, password: &str) -> String {
    let ports = [SUBMISSION, IMAP].map(|port| port.to_string());
    python(CRAM_PROGRAM, &[&server.ip.to_string(), &ports[0], &ports[1], user, password])
}

const RIGHT: &str = "235\nOK\n";
const WRONG: &str =
    "535 5.7.8 User name or password is wrong\n[AUTHENTICATIONFAILED] User or password is wrong\n";

/// The life of a data directory whose operator comes to want CRAM-MD5 and then does not.
#[test]
fn cram_md5_comes_with_the_operators_wish_and_goes_with_it() {
    let world = World::new("");
    let mut server = configured(&world, "[auth]\nmechanisms = [\"PLAIN\", \"SCRAM-SHA-256\"]\n");
    server.password("alice", "secret");
    server.start();
    let listed = |server: &Waypost| {
        let all: serde_json::Value =
            serde_json::from_str(&server.command(&["account", "list", "--json"])).unwrap();
        let names = all[0]["mechanisms"].as_array().unwrap().iter();
        names.map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(listed(&server), "SCRAM-SHA-256 PLAIN");

    let log = change(&server, "[\"PLAIN\",", "[\"CRAM-MD5\", \"PLAIN\",");
    assert!(log.contains("CRAM-MD5 does not work yet for alice"), "{log}");
    assert_eq!(listed(&server), "SCRAM-SHA-256 PLAIN");
    let shown = server.command(&["account", "list"]);
    assert!(shown.contains("(no CRAM-MD5 before a login with the password itself)"), "{shown}");
    // Without a state, as with a wrong password or no account.
    for (user, password) in [("alice", "secret"), ("alice", "wrong"), ("mallory", "secret")] {
        assert_eq!(cram(&server, user, password), WRONG, "{user}");
    }
    plain(&server, "secret");
    assert_eq!(listed(&server), "SCRAM-SHA-256 CRAM-MD5 PLAIN");
    assert!(!server.command(&["account", "list"]).contains("(no "));
    for (user, password, said) in
        [("alice", "secret", RIGHT), ("alice@a.test", "secret", RIGHT), ("alice", "wrong", WRONG)]
    {
        assert_eq!(cram(&server, user, password), said, "{user}");
    }
    // A new password, set while the server runs and while it does not.
    server.password("alice", "second");
    assert_eq!(
        (cram(&server, "alice", "second").as_str(), cram(&server, "alice", "secret").as_str()),
        (RIGHT, WRONG)
    );
    server.stop();
    server.password("alice", "third");
    server.start();
    assert_eq!(
        (cram(&server, "alice", "third").as_str(), cram(&server, "alice", "second").as_str()),
        (RIGHT, WRONG)
    );

    let log = change(&server, "[\"CRAM-MD5\", ", "[");
    assert!(log.contains("what was kept for it is removed, accounts: 1"), "{log}");
    change(&server, "[\"PLAIN\",", "[\"CRAM-MD5\", \"PLAIN\",");
    assert_eq!(cram(&server, "alice", "third"), WRONG);
}

fn plain(server: &Waypost, password: &str) {
    let program = r#"
import smtplib, sys
c = smtplib.SMTP(sys.argv[1], int(sys.argv[2]))
c.ehlo()
c.user, c.password = "alice", sys.argv[3]
print(c.auth("PLAIN", c.auth_plain)[0])
"#;
    assert_eq!(python(program, &[&server.ip.to_string(), &SUBMISSION.to_string(), password]), "235\n");
}

#[test]
fn every_client_with_cram_md5() {
    let world = World::new("");
    let mut server = configured(&world, CRAM);
    server.password("alice", "s=cret,");
    server.start();
    for (password, right) in [("s=cret,", true), ("secret", false)] {
        for (protocol, port) in [("--smtp", SUBMISSION), ("--imap", IMAP)] {
            ends(&mut gsasl(&server, &[protocol], port, "CRAM-MD5", "alice", password), "", right);
        }
        for url in [format!("imap://{}:{IMAP}/", server.ip), format!("smtp://{}:{SUBMISSION}/", server.ip)] {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--insecure", "--ssl-reqd", &url]);
            curl.args(["--user", &format!("alice:{password}"), "--login-options", "AUTH=CRAM-MD5"]);
            if url.starts_with("smtp") {
                curl.args(["--request", "NOOP"]);
            }
            ends(&mut curl, "", right);
        }
        let mut swaks = Command::new("swaks");
        swaks.args(["--server", &server.ip.to_string(), "--port", &SUBMISSION.to_string(), "--tls"]);
        swaks.args(["--auth", "CRAM-MD5", "--auth-user", "alice", "--auth-password", password]);
        swaks.args(["--from", "alice@a.test", "--to", "alice@a.test", "--quit-after", "AUTH"]);
        ends(&mut swaks, "", right);
        let mut msmtp = Command::new("msmtp");
        msmtp.args(["--file=/dev/null", &format!("--host={}", server.ip), "--tls=on", "--tls-certcheck=off"]);
        msmtp.args([&format!("--port={SUBMISSION}"), "--auth=cram-md5", "--user=alice"]);
        msmtp.arg(format!("--passwordeval=echo {password}")).args(["--from=alice@a.test", "alice@a.test"]);
        ends(&mut msmtp, "Subject: hello\n\nHello\n", right);
    }
}

fn ends(command: &mut Command, input: &str, well: bool) {
    let output = run(command, input);
    assert_eq!(output.status.success(), well, "{command:?}\n{output:?}");
}

/// A password with an accent, which one keyboard sends as one character and another as two; a no-break space is a space.
#[test]
fn a_password_in_either_normal_form_works_with_every_mechanism() {
    const COMPOSED: &str = "caf\u{e9} noir";
    const DECOMPOSED: &str = "cafe\u{301}\u{a0}noir";
    let world = World::new("");
    let list =
        "\"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\", \"SCRAM-SHA-1\", \"CRAM-MD5\", \"PLAIN\", \"LOGIN\"";
    let mut server = configured(&world, &format!("[auth]\nmechanisms = [{list}]\n"));
    server.start();
    for set in [COMPOSED, DECOMPOSED] {
        server.password("alice", set);
        for typed in [COMPOSED, DECOMPOSED] {
            for (mechanism, option) in [
                ("SCRAM-SHA-256-PLUS", None),
                ("SCRAM-SHA-256", Some("--no-cb")),
                ("SCRAM-SHA-1", Some("--no-cb")),
                ("CRAM-MD5", None),
                ("PLAIN", None),
                ("LOGIN", None),
            ] {
                for (protocol, port) in [("--smtp", SUBMISSION), ("--imap", IMAP)] {
                    let options: Vec<&str> = option.into_iter().chain([protocol]).collect();
                    let mut command = gsasl(&server, &options, port, mechanism, "alice", typed);
                    ends(command.env("LC_ALL", "C.UTF-8"), "", true);
                }
            }
        }
    }
    for mechanism in ["SCRAM-SHA-256-PLUS", "CRAM-MD5", "PLAIN"] {
        let mut command = gsasl(&server, &["--smtp"], SUBMISSION, mechanism, "alice", "cafe noir");
        ends(command.env("LC_ALL", "C.UTF-8"), "", false);
    }
}

/// By whatever protocol and mechanism: one line, the same fields, and no name that is no account.
#[test]
fn failed_logins_are_told_once_and_alike() {
    let world = World::new("");
    let list = "\"SCRAM-SHA-256\", \"CRAM-MD5\", \"PLAIN\", \"LOGIN\"";
    let mut server = configured(&world, &format!("[auth]\nmechanisms = [{list}]\n"));
    server.password("alice", "secret");
    server.start();
    let mut told = 0;
    for mechanism in ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"] {
        for (protocol, port) in [("--smtp", SUBMISSION), ("--imap", IMAP)] {
            for (user, account) in [("alice@a.test", Some("alice")), ("hunter2", None)] {
                let options = [protocol, "--no-cb"];
                ends(&mut gsasl(&server, &options, port, mechanism, user, "swordfish"), "", false);
                let log = server.log();
                let lines: Vec<&str> = log.lines().filter(|line| line.contains("login failed")).collect();
                told += 1;
                assert_eq!(lines.len(), told, "{protocol} {mechanism} {user}\n{log}");
                let line = lines[told - 1];
                assert!(line.contains(&format!("mechanism={mechanism}")), "{line}");
                assert!(line.contains(" ip=127.") && line.contains("session="), "{line}");
                match account {
                    Some(account) => assert!(line.contains(&format!("account={account}")), "{line}"),
                    None => assert!(!line.contains("account="), "{line}"),
                }
            }
        }
    }
    let log = server.log();
    assert!(!log.contains("hunter2") && !log.contains("swordfish") && !log.contains("code=535"), "{log}");
}

/// Commands between failed logins do not buy another try.
#[test]
fn failed_logins_end_a_connection_at_some_point() {
    let world = World::new("");
    let mut server = configured(&world, "");
    server.password("alice", "secret");
    server.start();
    let mut imap = Conversation::with((server.ip, IMAP));
    imap.line();
    let mut tries = 0;
    loop {
        imap.send("a LOGIN alice wrong\r\nb NOOP\r\n");
        tries += 1;
        assert!(imap.line().starts_with("a NO [AUTHENTICATIONFAILED]"));
        let next = imap.line();
        if next.starts_with("* BYE") {
            break;
        }
        assert!(next.starts_with("b OK") && tries < 20, "{tries}: {next}");
    }
    assert_eq!(tries, 11);
}

/// As Debian builds it, with GNU SASL, mutt cannot bind and tries one mechanism alone.
#[test]
fn mutt_submits_and_reads_by_either_cure() {
    let world = World::new("");
    let mut server = configured(&world, "");
    server.password("alice", "secret");
    server.start();
    let named = "set smtp_authenticators = \"scram-sha-256\"\nset imap_authenticators = \"scram-sha-256\"\n";
    mutt_works(&world, &server, named);
    // The operator's list, and nothing in the muttrc.
    let file = server.dir.join("waypost.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let list = "[auth]\nmechanisms = [\"SCRAM-SHA-256\", \"SCRAM-SHA-1\", \"PLAIN\", \"LOGIN\"]\n";
    std::fs::write(&file, format!("{text}{list}")).unwrap();
    change(&server, "[auth]", "[auth]");
    mutt_works(&world, &server, "");
}

/// Sends a message and files a copy over IMAP; with a wrong password neither.
fn mutt_works(world: &World, server: &Waypost, settings: &str) {
    let sent = |server: &Waypost| {
        let program = r#"
import imaplib, sys
c = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]))
c.login("alice", "secret")
print(c.select("Sent")[1][0].decode())
"#;
        python(program, &[&server.ip.to_string(), &IMAP.to_string()]).trim().parse::<u32>().unwrap()
    };
    let before = sent(server);
    let output = mutt(world, server, settings, "secret");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sent(server), before + 1, "{output:?}");
    let wrong = mutt(world, server, settings, "wrong");
    assert!(!wrong.status.success(), "{wrong:?}");
}

/// A configuration whose list cannot work is refused by `waypost check`, with the place.
#[test]
fn check_says_what_is_wrong_with_the_list() {
    let world = World::new("");
    for (list, words) in [
        ("[]", "names none: nobody could log in"),
        ("[\"SCRAM-SHA256\"]", "did you mean \"SCRAM-SHA-256\"?"),
        ("[\"DIGEST-MD5\"]", "is unknown"),
    ] {
        let server = configured(&world, &format!("[auth]\nmechanisms = {list}\n"));
        let output = server.command_with(&["check"], "");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains(words), "{list}: {said}");
    }
}
