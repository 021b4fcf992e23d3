//! Certificates while the server runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::first_mail::account;
use crate::world::{Conversation, SMTP, Waypost, World, run, wait_for};

/// The certificate that a client is shown who asks for a name, PEM.
pub fn shown(server: &Waypost, name: &str) -> String {
    let address = format!("{}:{SMTP}", server.ip);
    let mut command = Command::new("openssl");
    command.args(["s_client", "-starttls", "smtp", "-connect", &address, "-servername", name]);
    let output = String::from_utf8_lossy(&run(&mut command, "QUIT\r\n").stdout).into_owned();
    let begin = output.find("-----BEGIN CERTIFICATE-----").expect("a certificate");
    let end = output.find("-----END CERTIFICATE-----").unwrap();
    output[begin..end].replace(['\r', '\n'], "")
}

fn on_one_line(pem: &str) -> String {
    pem.split("-----END").next().unwrap().replace(['\r', '\n'], "")
}

/// Writes a new certificate with its key; returns the certificate.
fn write_pair(dir: &std::path::Path, name: &str, to: &str) -> String {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    fs::write(dir.join(format!("{to}-key.pem")), made.signing_key.serialize_pem()).unwrap();
    fs::write(dir.join(format!("{to}-cert.pem")), made.cert.pem()).unwrap();
    on_one_line(&made.cert.pem())
}

#[test]
fn new_certificate_files_are_taken_while_sessions_go_on_and_bad_ones_are_not() {
    let world = World::new("a.test MX 10 mx.a.test\nmx.a.test A {net}.10");
    let more = "[[tls.more]]\ncertificate = \"live-cert.pem\"\nkey = \"live-key.pem\"\n";
    let mut a = world.waypost("a", 10, &format!("{more}{}", account("ann", "a.test")));
    let first = write_pair(&a.dir, "other.test", "first");
    let second = write_pair(&a.dir, "other.test", "second");
    // As certbot does it: links that are made to point elsewhere.
    let dir = a.dir.clone();
    let point = |kind: &str, to: &str| {
        let link = dir.join(format!("live-{kind}.pem"));
        let _ = fs::remove_file(&link);
        symlink(format!("{to}-{kind}.pem"), link).unwrap();
    };
    point("cert", "first");
    point("key", "first");
    let default = on_one_line(&fs::read_to_string(a.dir.join("cert.pem")).unwrap());
    a.start();
    assert_eq!(shown(&a, "other.test"), first);
    assert_eq!(shown(&a, "a.test"), default);
    assert_eq!(shown(&a, "elsewhere.test"), default);

    let mut open = Conversation::with(a.smtp());
    assert!(open.reply().starts_with("220 "));
    point("cert", "second");
    point("key", "second");
    wait_for("the new certificate", || shown(&a, "other.test") == second);
    assert_eq!(shown(&a, "a.test"), default);
    assert!(open.ask("EHLO client.test").starts_with("250 "), "the session goes on");

    // A key that is not the certificate's.
    point("key", "first");
    let status = || a.command_with(&["tls", "status"], "");
    wait_for("the problem", || String::from_utf8_lossy(&status().stdout).contains("does not belong"));
    assert_eq!(status().status.code(), Some(1));
    assert_eq!(shown(&a, "other.test"), second, "the old one is still shown");
    assert!(a.log().contains("new certificate not taken"), "{}", a.log());

    point("cert", "first");
    wait_for("the first certificate", || shown(&a, "other.test") == first);
    let text = a.command(&["tls", "status"]);
    assert!(text.contains("other.test\n  from    ") && !text.contains("PROBLEM"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&a.command(&["tls", "status", "--json"])).unwrap();
    assert_eq!(json["certificates"][1]["names"][0], "other.test");
    assert!(json["certificates"][1]["days_left"].as_i64().unwrap() > 0);
}
