//! The clients that people have: swaks, Python, mbsync.

use std::net::IpAddr;
use std::process::{Command, Output};

use crate::world::{IMAP, SUBMISSION, Waypost, run};

/// A submission with swaks; returns its whole transcript.
pub fn swaks(server: &Waypost, user: &str, from: &str, to: &[&str], subject: &str) -> Output {
    let mut command = Command::new("swaks");
    command.args(["--server", &server.ip.to_string(), "--port", &SUBMISSION.to_string(), "--tls"]);
    command.args(["--auth", "PLAIN", "--auth-user", user, "--auth-password", "secret"]);
    command.args(["--from", from, "--to", &to.join(","), "--header", &format!("Subject: {subject}")]);
    run(&mut command, "")
}

/// A submission with swaks that must be taken.
pub fn submit(server: &Waypost, user: &str, from: &str, to: &[&str], subject: &str) {
    let output = swaks(server, user, from, to, subject);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Runs a Python program; it must end well. Returns what it printed.
pub fn python(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("python3");
    let output = run(command.args(["-c", program]).args(arguments), "");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "python: {printed}\n{}", String::from_utf8_lossy(&output.stderr));
    printed
}

/// All messages of an account's Inbox, one after the other, by Python's imaplib.
pub fn inbox(ip: IpAddr, user: &str) -> String {
    python(
        r#"
import imaplib, sys
c = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]))
c.login(sys.argv[3], "secret")
c.select("INBOX")
for number in c.search(None, "ALL")[1][0].split():
    print(c.fetch(number, "(BODY.PEEK[])")[1][0][1].decode("utf-8", "replace"))
c.logout()
"#,
        &[&ip.to_string(), &IMAP.to_string(), user],
    )
}
