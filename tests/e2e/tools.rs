//! The clients that people have: swaks, GNU SASL, mutt, Python, mbsync.

use std::net::IpAddr;
use std::process::{Command, Output};

use crate::world::{IMAP, SUBMISSION, Waypost, World, run};

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

/// A login with GNU SASL's own tool.
pub fn gsasl(
    server: &Waypost,
    options: &[&str],
    port: u16,
    mechanism: &str,
    user: &str,
    password: &str,
) -> Command {
    let mut command = Command::new("gsasl");
    command.args(["--connect", &format!("{}:{port}", server.ip), "--x509-ca-file=", "--verbose"]);
    command.args(options).args(["--mechanism", mechanism]);
    command.args(["--authentication-id", user, "--password", password]);
    command
}

/// SCRAM with SHA-256 once more, written from its RFC in Python; the GS2 header may bind to the certificate.
const SCRAM: &str = r#"
import base64, hashlib, hmac, os, smtplib, ssl, sys
host, port, mechanism, header, password = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4].encode(), sys.argv[5]
c = smtplib.SMTP(host, port)
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
c.starttls(context=context)
c.ehlo()
assert mechanism in c.esmtp_features["auth"].split(), c.esmtp_features
b64 = lambda b: base64.b64encode(b).decode()
mac = lambda key, text: hmac.new(key, text, "sha256").digest()
binding = header
if header.startswith(b"p=tls-server-end-point"):
    binding += hashlib.sha256(c.sock.getpeercert(True)).digest()
first = "n=alice,r=" + b64(os.urandom(18))
code, text = c.docmd("AUTH", mechanism + " " + b64(header + first.encode()))
if code == 334:
    challenge = base64.b64decode(text).decode()
    parts = dict(part.split("=", 1) for part in challenge.split(","))
    assert int(parts["i"]) >= 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
    key = mac(salted, b"Client Key")
    last = "c=" + b64(binding) + ",r=" + parts["r"]
    message = ",".join([first, challenge, last]).encode()
    proof = bytes(a ^ b for a, b in zip(key, mac(hashlib.sha256(key).digest(), message)))
    code, text = c.docmd(b64((last + ",p=" + b64(proof)).encode()))
if code == 334:
    assert base64.b64decode(text) == b"v=" + b64(mac(mac(salted, b"Server Key"), message)).encode()
    code, text = c.docmd("")
print(code)
"#;

/// The code that alice's login ends with, in TLS.
pub fn scram(server: &Waypost, mechanism: &str, header: &str, password: &str) -> String {
    let (ip, port) = (server.ip.to_string(), SUBMISSION.to_string());
    python(SCRAM, &[&ip, &port, mechanism, header, password]).trim().to_owned()
}

/// A message that alice sends to herself with mutt, which files a copy in Sent over IMAP.
pub fn mutt(world: &World, server: &Waypost, settings: &str, password: &str) -> Output {
    let (ip, certificate) = (server.ip, server.dir.join("cert.pem"));
    let text = format!(
        r#"set from="alice@a.test"
set use_envelope_from=yes
set ssl_force_tls=yes
set certificate_file="{}"
set smtp_url="smtp://alice@{ip}:{SUBMISSION}/"
set smtp_pass="{password}"
set imap_pass="{password}"
set folder="imap://alice@{ip}:{IMAP}/"
set record="+Sent"
{settings}
"#,
        certificate.display()
    );
    let file = world.dir.path().join("muttrc");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("mutt");
    command.arg("-n").arg("-F").arg(&file).args(["-s", "by mutt", "alice@a.test"]);
    run(command.env("HOME", world.dir.path()), "Hello\n")
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
