//! Logging in with every mechanism that we offer, by the clients that people have: GNU SASL, msmtp, curl, swaks, Python.

use std::process::{Command, Output};

use crate::tools::{gsasl, python, scram};
use crate::world::{IMAP, SUBMISSION, Waypost, World, run};

const CONFIG: &str = r#"
[domains."a.test"]

[accounts.alice]
addresses = ["alice@a.test"]
"#;

/// Each mechanism, and whether it is bound to the channel. Where GNU SASL could bind it gives up an unbound exchange by
/// itself, so it must not be able to.
const MECHANISMS: [(&str, bool); 6] = [
    ("SCRAM-SHA-256-PLUS", true),
    ("SCRAM-SHA-1-PLUS", true),
    ("SCRAM-SHA-256", false),
    ("SCRAM-SHA-1", false),
    ("PLAIN", false),
    ("LOGIN", false),
];

/// A password, and whether it is the right one.
const PASSWORDS: [(&str, bool); 2] = [("s=cret,", true), ("secret", false)];

fn started(world: &World) -> Waypost {
    let mut server = world.waypost("a", 2, CONFIG);
    server.password("alice", PASSWORDS[0].0);
    server.start();
    server
}

fn told(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// How a client's run ended, and whether that is how it should.
fn ends(command: &mut Command, input: &str, well: bool) {
    let output = run(command, input);
    assert_eq!(output.status.success(), well, "{command:?}\n{}", told(&output));
}

#[test]
fn gsasl_with_every_mechanism() {
    let world = World::new("");
    let server = started(&world);
    for (protocol, port) in [("--smtp", SUBMISSION), ("--imap", IMAP)] {
        for (password, right) in PASSWORDS {
            for (mechanism, bound) in MECHANISMS {
                let options = if bound { vec![protocol] } else { vec![protocol, "--no-cb"] };
                ends(&mut gsasl(&server, &options, port, mechanism, "alice", password), "", right);
            }
            let options = [protocol, "--no-starttls"];
            ends(&mut gsasl(&server, &options, port, "SCRAM-SHA-256", "alice", password), "", right);
        }
        // The names of what is not offered.
        ends(&mut gsasl(&server, &[protocol], port, "CRAM-MD5", "alice", PASSWORDS[0].0), "", false);
    }
}

#[test]
fn msmtp_with_scram_plain_and_login() {
    let world = World::new("");
    let server = started(&world);
    for mechanism in ["scram-sha-256", "scram-sha-1", "plain", "login"] {
        for (password, right) in PASSWORDS {
            let mut command = Command::new("msmtp");
            command.args(["--file=/dev/null", &format!("--host={}", server.ip)]);
            command.args([&format!("--port={SUBMISSION}"), "--tls=on", "--tls-certcheck=off"]);
            command.args([&format!("--auth={mechanism}"), "--user=alice"]);
            command.arg(format!("--passwordeval=echo {password}"));
            command.args(["--from=alice@a.test", "alice@a.test"]);
            ends(&mut command, "Subject: hello\n\nHello\n", right);
        }
    }
}

#[test]
fn curl_and_swaks_with_plain_and_login() {
    let world = World::new("");
    let server = started(&world);
    for mechanism in ["PLAIN", "LOGIN"] {
        for (password, right) in PASSWORDS {
            for sasl_ir in [true, false] {
                for url in
                    [format!("imap://{}:{IMAP}/", server.ip), format!("smtp://{}:{SUBMISSION}/", server.ip)]
                {
                    let mut curl = Command::new("curl");
                    curl.args(["--silent", "--show-error", "--insecure", "--ssl-reqd", &url]);
                    curl.args(["--user", &format!("alice:{password}")]);
                    curl.args(["--login-options", &format!("AUTH={mechanism}")]);
                    if url.starts_with("smtp") {
                        curl.args(["--request", "NOOP"]);
                    }
                    if sasl_ir {
                        curl.arg("--sasl-ir");
                    }
                    ends(&mut curl, "", right);
                }
            }
            let mut swaks = Command::new("swaks");
            swaks.args(["--server", &server.ip.to_string(), "--port", &SUBMISSION.to_string(), "--tls"]);
            swaks.args(["--auth", mechanism, "--auth-user", "alice", "--auth-password", password]);
            swaks.args(["--from", "alice@a.test", "--to", "alice@a.test", "--quit-after", "AUTH"]);
            ends(&mut swaks, "", right);
        }
    }
}

#[test]
fn python_bound_to_the_certificate_and_with_what_it_has() {
    let world = World::new("");
    let server = started(&world);
    let ip = server.ip.to_string();
    for (password, right) in PASSWORDS {
        let code = scram(&server, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", password);
        assert_eq!(code, if right { "235" } else { "535" });
    }
    let program = r#"
import imaplib, smtplib, sys
c = smtplib.SMTP(sys.argv[1], int(sys.argv[2]))
print(c.login("alice", sys.argv[4])[0])
c = imaplib.IMAP4(sys.argv[1], int(sys.argv[3]))
print(c.authenticate("PLAIN", lambda _: b"\0alice\0" + sys.argv[4].encode())[0])
"#;
    let printed = python(program, &[&ip, &SUBMISSION.to_string(), &IMAP.to_string(), PASSWORDS[0].0]);
    assert_eq!(printed, "235\nOK\n");
}

/// Asked again and again for the salt of a name, the server answers the same, whether there is such an account or not.
#[test]
fn a_salt_tells_nothing_about_an_account() {
    let world = World::new("");
    let server = started(&world);
    let salts = |name: &str| {
        let program = r#"
import base64, smtplib, sys
c = smtplib.SMTP(sys.argv[1], int(sys.argv[2]))
c.ehlo()
for _ in range(2):
    first = base64.b64encode(f"n,,n={sys.argv[3]},r=abc".encode()).decode()
    parts = base64.b64decode(c.docmd("AUTH", "SCRAM-SHA-256 " + first)[1]).decode().split(",")
    print(parts[1], parts[2])
    print(c.docmd("c=biws")[0])
"#;
        python(program, &[&server.ip.to_string(), &SUBMISSION.to_string(), name])
    };
    let (alice, mallory) = (salts("alice"), salts("mallory"));
    assert_ne!(alice, mallory);
    for printed in [alice, mallory] {
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!((lines[0], lines[1]), (lines[2], lines[3]));
        assert!(lines[0].ends_with(" i=65536") && lines[1] == "501", "{printed}");
    }
}
