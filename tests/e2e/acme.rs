//! Certificates from a CA: Debian's pebble, which comes and looks.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::certificates::shown;
use crate::first_mail::account;
use crate::pebble::{HMAC_KEY, HTTP_PORT, KEY_ID, Pebble, TLS_PORT};
use crate::world::{Conversation, Waypost, World, wait_for};

const ZONE: &str = "a.test MX 10 mx.a.test
     mx.a.test A {net}.10
     imap.a.test A {net}.10
     lost.a.test A {net}.99";

/// A server whose certificate comes from the CA.
fn server(world: &World, acme: &str) -> Waypost {
    let server = world.waypost("a", 10, &format!("{acme}{}", account("ann", "a.test")));
    edit(&server, "certificate = \"cert.pem\"\nkey = \"key.pem\"\n", "");
    server
}

fn edit(server: &Waypost, from: &str, to: &str) {
    let file = server.dir.join("waypost.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    fs::write(&file, text.replace(from, to)).unwrap();
}

fn status(server: &Waypost) -> Value {
    let output = server.command_with(&["tls", "status", "--json"], "");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn issuer(status: &Value) -> String {
    status["certificates"][0]["issuer"].as_str().unwrap().to_owned()
}

fn wait_for_certificate(server: &Waypost) -> Value {
    wait_for("the certificate of the CA", || {
        assert!(status(server)["acme"]["error"].is_null(), "{}", server.log());
        issuer(&status(server)).contains("Pebble")
    });
    status(server)
}

#[test]
fn tls_alpn_01_brings_a_certificate_and_a_restart_needs_no_ca() {
    let world = World::new(ZONE);
    let mut ca = Pebble::start(&world, 90, "");
    let listen =
        format!("names = [\"mx.a.test\", \"imap.a.test\"]\nlisten = \"{}:{TLS_PORT}\"", world.ip(10));
    let mut a = server(&world, &ca.acme(&listen));
    a.start();
    let got = wait_for_certificate(&a);
    let mut names: Vec<&str> =
        got["certificates"][0]["names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["imap.a.test", "mx.a.test"]);
    assert_eq!(got["acme"]["failures"], 0);
    let file = a.dir.join("data/acme/certificate.pem");
    let certificate = shown(&a, "mx.a.test");
    assert!(fs::read_to_string(&file).unwrap().replace('\n', "").contains(&certificate));
    for entry in fs::read_dir(a.dir.join("data/acme")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }

    ca.stop();
    a.stop();
    a.start();
    assert_eq!(shown(&a, "mx.a.test"), certificate, "at once, and without the CA");
    let text = a.command(&["tls", "status"]);
    assert!(text.contains("ACME") && text.contains("tls-alpn-01") && !text.contains("FAILED"), "{text}");
}

#[test]
fn http_01_with_an_external_account_and_a_key_that_stays() {
    let world = World::new(ZONE);
    let mut ca = Pebble::start(&world, 90, "\"externalAccountBindingRequired\": true");
    let wrong_key = "d3JvbmcgYnV0IGxvbmcgZW5vdWdoIGZvciBITUFDLVNIQTI1Ng";
    let lines = format!(
        "challenge = \"http-01\"\nlisten = \"{}:{HTTP_PORT}\"\nkeep_key = true\nkey_type = \"rsa\"
contact = \"postmaster@a.test\"\neab_key_id = \"{KEY_ID}\"\neab_hmac_key = \"{wrong_key}\"",
        world.ip(10)
    );
    let mut a = server(&world, &ca.acme(&lines));
    a.start();
    wait_for("the CA's refusal", || status(&a)["acme"]["error"].is_string());
    let failed = a.command_with(&["tls", "status"], "");
    assert_eq!(failed.status.code(), Some(1));
    let text = String::from_utf8_lossy(&failed.stdout);
    assert!(text.contains("FAILED") && text.contains("making an account"), "{text}");
    assert!(issuer(&status(&a)).contains("mx.a.test"), "it shows one of its own until then");

    edit(&a, wrong_key, HMAC_KEY);
    a.reload();
    wait_for("the reload", || a.log().contains("reloaded"));
    let renewed = a.command(&["tls", "renew"]);
    assert!(renewed.contains("mx.a.test"), "{renewed}");
    let first = wait_for_certificate(&a);
    assert_eq!(a.command_with(&["tls", "status"], "").status.code(), Some(0));

    // A CA that forgot us gets a new account; the key of the certificate stays, and so does an open session.
    ca.forget_everything();
    let mut open = Conversation::with(a.smtp());
    assert!(open.reply().starts_with("220 "));
    a.command(&["tls", "renew"]);
    let second = status(&a);
    let of = |status: &Value, what: &str| status["certificates"][0][what].clone();
    assert_ne!(of(&first, "serial"), of(&second, "serial"));
    assert_eq!(of(&first, "tlsa"), of(&second, "tlsa"));
    assert!(open.ask("EHLO client.test").starts_with("250 "));
    assert!(!a.log().contains(HMAC_KEY), "secrets are not logged");
}

#[test]
fn a_name_that_cannot_be_validated_is_told_and_is_good_once_it_is_mended() {
    let world = World::new(ZONE);
    let ca = Pebble::start(&world, 90, "");
    let lines = format!("names = [\"mx.a.test\", \"lost.a.test\"]\nlisten = \"{}:{TLS_PORT}\"", world.ip(10));
    let mut a = server(&world, &ca.acme(&lines));
    a.start();
    wait_for("the failure", || status(&a)["acme"]["error"].is_string());
    let failed = status(&a);
    let error = failed["acme"]["error"].as_str().unwrap();
    assert!(error.contains("could not validate lost.a.test: "), "{error}");
    assert_eq!(failed["acme"]["failures"], 1);
    assert!(a.log().contains("no new certificate"), "{}", a.log());
    let again = a.command_with(&["tls", "renew"], "");
    assert_eq!(again.status.code(), Some(4), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("lost.a.test"), "{again:?}");

    edit(&a, ", \"lost.a.test\"", "");
    a.reload();
    wait_for("the certificate", || issuer(&status(&a)).contains("Pebble"));
    let mended = status(&a);
    assert!(mended["acme"]["error"].is_null() && mended["acme"]["failures"] == 0, "{mended}");
}

#[test]
fn a_certificate_is_renewed_before_it_ends() {
    let world = World::new(ZONE);
    let ca = Pebble::start(&world, 90, "\"certificateValidityPeriod\": 30");
    let mut a = server(&world, &ca.acme(&format!("listen = \"{}:{TLS_PORT}\"", world.ip(10))));
    a.start();
    let first = wait_for_certificate(&a)["certificates"][0]["serial"].clone();
    wait_for("the renewal", || {
        let now = status(&a);
        assert!(now["acme"]["error"].is_null(), "{now}");
        now["certificates"][0]["serial"] != first
    });
}
