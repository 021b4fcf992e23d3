//! Sending services: TLS at once, logging in, and all that can go wrong with it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::peer::{Peer, listeners};
use super::tls::certificate;
use super::world::{common, engine, job, show, smarthost};
use crate::config::{Login, PrivateCa, Secret, Service, TlsPolicy, Transport, TransportCommon};
use crate::outcome::Outcome;
use crate::sasl::{Allowed, Mechanism, encode};

const TAKES: &str = "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 taken\nBYE";
/// `\0tim\0secret`.
const PLAIN: &str = "C: AUTH PLAIN AHRpbQBzZWNyZXQ=";

fn login(mechanisms: Allowed, allow_plaintext: bool) -> Login {
    Login { username: "tim".into(), password: Secret::new("secret"), mechanisms, allow_plaintext }
}

fn hello(offers: &str) -> String {
    format!("S: 220 x\nC: EHLO client.test\nS: 250-x\nS: 250-PIPELINING\nS: 250 AUTH {offers}\n")
}

async fn deliver(transport: impl FnOnce(SocketAddr) -> Arc<Transport>, dialogue: &str) -> Outcome {
    let (_, mut listeners) = listeners(&["127.0.0.1"]).await;
    let peer = Peer::play(listeners.remove(0), &[dialogue], None);
    let engine = engine("");
    let outcome = engine.deliver(&transport(peer.address), &job(&["b@x.test"])).await.remove(0);
    engine.close_idle().await;
    peer.finish().await;
    outcome
}

/// In clear text.
async fn in_clear_text(login: impl Into<Option<Login>>, dialogue: &str) -> String {
    let login = login.into();
    show(&deliver(|address| smarthost(address, Service::Smtp, login, common()), dialogue).await)
}

#[tokio::test]
async fn a_login_by_each_mechanism_that_a_script_can_play() {
    let taken = "delivered data 250 2.0.0 taken";
    let plain = format!("{}{PLAIN}\nS: 235 2.7.0 welcome\n{TAKES}", hello("LOGIN PLAIN"));
    assert_eq!(in_clear_text(login(Allowed::Any, true), &plain).await, taken);
    let words =
        "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dGlt\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\nS: 235 welcome\n";
    let dialogue = format!("{}{words}{TAKES}", hello("PLAIN LOGIN"));
    assert_eq!(in_clear_text(login(Allowed::Exactly(Mechanism::Login), true), &dialogue).await, taken);
    // RFC 2195 §2, the example; it needs no leave to go in clear text, for the password does not travel.
    let challenge = encode(b"<1896.697170952@postoffice.reston.mci.net>");
    let answer = encode(b"tim b913a602c7eda7a495b4e6e7334d3890");
    let dialogue = format!(
        "{}C: AUTH CRAM-MD5\nS: 334 {challenge}\nC: {answer}\nS: 235 welcome\n{TAKES}",
        hello("PLAIN LOGIN CRAM-MD5")
    );
    let tim = Login { password: Secret::new("tanstaaftanstaaf"), ..login(Allowed::Any, false) };
    assert_eq!(in_clear_text(tim, &dialogue).await, taken);
}

#[tokio::test]
async fn an_initial_response_that_is_too_long_waits_to_be_asked_for() {
    let password = "p".repeat(400);
    let response = encode(format!("\0tim\0{password}").as_bytes());
    let dialogue =
        format!("{}C: AUTH PLAIN\nS: 334 \nC: {response}\nS: 235 welcome\n{TAKES}", hello("PLAIN"));
    let login = Login { password: Secret::new(password), ..login(Allowed::Any, true) };
    assert_eq!(in_clear_text(login, &dialogue).await, "delivered data 250 2.0.0 taken");
}

#[tokio::test]
async fn what_goes_wrong_with_a_login_is_temporary_and_shown_as_what_it_is() {
    let exactly = |mechanism| login(Allowed::Exactly(mechanism), true);
    for (login, dialogue, expected) in [
        (
            login(Allowed::Any, true),
            format!("{}{PLAIN}\nS: 535 5.7.8 wrong password\nC: QUIT\nBYE", hello("PLAIN")),
            "temporary auth 535 4.7.8 wrong password",
        ),
        (
            login(Allowed::Any, true),
            format!("{}{PLAIN}\nS: 454 4.7.0 database down\nC: QUIT\nBYE", hello("PLAIN")),
            "temporary auth 454 4.7.0 database down",
        ),
        (
            login(Allowed::Any, true),
            format!("{}{PLAIN}\nCLOSE", hello("PLAIN")),
            "temporary auth - 4.4.2 the peer closed the connection while we waited for the reply to AUTH",
        ),
        (
            login(Allowed::Any, true),
            format!("{}{PLAIN}\nSTALL", hello("PLAIN")),
            "temporary auth - 4.4.2 timed out after 3 s while waiting for the reply to AUTH",
        ),
        (
            login(Allowed::Any, true),
            format!("{}{PLAIN}\nS: what?\nBYE", hello("PLAIN")),
            "temporary auth - 4.5.0 not an SMTP reply: \"what?\"",
        ),
        (
            login(Allowed::Any, false),
            format!("{}C: QUIT\nBYE", hello("PLAIN LOGIN")),
            "temporary auth - 4.7.11 the server offers only PLAIN, LOGIN without TLS, which would send the password in clear text",
        ),
        (
            exactly(Mechanism::ScramSha256),
            format!("{}C: QUIT\nBYE", hello("PLAIN LOGIN")),
            "temporary auth - 4.7.0 the server offers no authentication mechanism that is allowed here, only PLAIN, LOGIN",
        ),
        (
            login(Allowed::Any, true),
            "S: 220 x\nC: EHLO*\nS: 250 x\nC: QUIT\nBYE".to_owned(),
            "temporary auth - 4.7.0 the server offers no authentication",
        ),
        (
            exactly(Mechanism::Login),
            format!("{}C: AUTH LOGIN\nS: 334 !\nC: *\nS: 501 given up\nC: QUIT\nBYE", hello("LOGIN")),
            "temporary auth - 4.5.0 the peer sent a challenge that is not base64",
        ),
        // A server that asks on and on, and one that says yes before it has proved itself.
        (
            exactly(Mechanism::Login),
            format!(
                "{}C: AUTH LOGIN\n{}C: *\nS: 501 given up\nC: QUIT\nBYE",
                hello("LOGIN"),
                "S: 334 eA==\nC: dGlt\nS: 334 eA==\nC: c2VjcmV0\nS: 334 eA==\n"
            ),
            "temporary auth - 4.7.0 the server sent a challenge that LOGIN does not know",
        ),
        (
            exactly(Mechanism::ScramSha256),
            format!("{}C: AUTH SCRAM-SHA-256 *\nS: 235 welcome\nC: QUIT\nBYE", hello("SCRAM-SHA-256")),
            "temporary auth - 4.7.0 the server says that it knows us, but did not prove itself",
        ),
    ] {
        assert_eq!(in_clear_text(login, &dialogue).await, expected);
    }
}

#[tokio::test]
async fn a_smarthost_that_wants_a_login_keeps_the_mail_waiting() {
    let start = "C: MAIL*\nC: RCPT*\nC: DATA\n";
    for (code, expected) in [
        ("530 5.7.0 log in first", "temporary mail 530 4.7.0 log in first"),
        ("550 5.7.1 not you", "permanent mail 550 5.7.1 not you"),
    ] {
        let dialogue = format!("{}{start}S: {code}\nS: 503 x\nS: 503 x\nBYE", hello("PLAIN"));
        assert_eq!(in_clear_text(None, &dialogue).await, expected);
    }
}

/// A delivery to 127.0.0.1 with a certificate for it, or for somebody else.
async fn in_tls(service: Service, name: &str, tls: TlsPolicy, dialogue: &str) -> Outcome {
    let (der, server) = certificate(name);
    let (_, mut listeners) = listeners(&["127.0.0.1"]).await;
    let peer = Peer::play(listeners.remove(0), &[dialogue], Some(server));
    let ca = Some(Arc::new(PrivateCa { file: "ca.pem".into(), certificates: vec![der] }));
    let common = TransportCommon { tls, ca, ..common() };
    let transport = smarthost(peer.address, service, Some(login(Allowed::Any, false)), common);
    let engine = engine("");
    let outcome = engine.deliver(&transport, &job(&["b@x.test"])).await.remove(0);
    engine.close_idle().await;
    peer.finish().await;
    outcome
}

#[tokio::test]
async fn submissions_is_tls_before_the_first_word() {
    let dialogue = format!("TLS\n{}{PLAIN}\nS: 235 welcome\n{TAKES}", hello("PLAIN"));
    let outcome = in_tls(Service::Submissions, "127.0.0.1", TlsPolicy::Required, &dialogue).await;
    assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken");
    assert_eq!(outcome.tls.as_deref(), Some("TLSv1.3 TLS13_AES_256_GCM_SHA384"));
    let outcome = in_tls(Service::Submissions, "wrong.test", TlsPolicy::Required, "TLS").await;
    let shown = show(&outcome);
    assert!(shown.starts_with("temporary tls - 4.7.5 the peer's certificate is not valid"), "{shown}");
    let outcome =
        in_tls(Service::Submissions, "127.0.0.1", TlsPolicy::Required, "S: 220 no TLS here\nSTALL").await;
    assert!(
        show(&outcome).starts_with("temporary tls - 4.7.5 the TLS handshake failed"),
        "{}",
        show(&outcome)
    );
}

#[tokio::test]
async fn submission_logs_in_after_starttls_alone() {
    let starts = "S: 220 x\nC: EHLO*\nS: 250-x\nS: 250-AUTH PLAIN\nS: 250 STARTTLS\nC: STARTTLS\n";
    let inside = "C: EHLO*\nS: 250-x\nS: 250-PIPELINING\nS: 250 AUTH PLAIN\n";
    let dialogue = format!("{starts}S: 220 go\nTLS\n{inside}{PLAIN}\nS: 235 welcome\n{TAKES}");
    let outcome = in_tls(Service::Submission, "127.0.0.1", TlsPolicy::Required, &dialogue).await;
    assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken");
    // Whoever takes STARTTLS away hears no password, whatever the policy.
    let stripped = format!("{}C: QUIT\nBYE", hello("PLAIN"));
    for (tls, expected) in [
        (TlsPolicy::Required, "temporary tls - 4.7.4 TLS is required, but the peer does not offer it"),
        (TlsPolicy::Opportunistic, "temporary auth - 4.7.11 the server offers only PLAIN without TLS"),
    ] {
        let shown = show(&in_tls(Service::Submission, "127.0.0.1", tls, &stripped).await);
        assert!(shown.starts_with(expected), "{shown}");
    }
    let refused = format!("{starts}S: 454 4.7.0 not now\nC: QUIT\nBYE");
    let shown = show(&in_tls(Service::Submission, "127.0.0.1", TlsPolicy::Opportunistic, &refused).await);
    assert!(shown.starts_with("temporary auth - 4.7.11"), "{shown}");
}

#[tokio::test]
async fn a_kept_connection_stays_logged_in() {
    let (_, mut listeners) = listeners(&["127.0.0.1"]).await;
    let dialogue =
        format!("{}{PLAIN}\nS: 235 welcome\n{}\n{TAKES}", hello("PLAIN"), TAKES.replace("\nBYE", ""));
    let peer = Peer::play(listeners.remove(0), &[&dialogue], None);
    let transport = smarthost(peer.address, Service::Smtp, Some(login(Allowed::Any, true)), common());
    let engine = engine("");
    for _ in 0..2 {
        let outcome = engine.deliver(&transport, &job(&["b@x.test"])).await.remove(0);
        assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken");
    }
    engine.close_idle().await;
    peer.finish().await;
}

#[test]
fn secrets_are_not_shown() {
    let login = login(Allowed::Any, true);
    assert!(!format!("{login:?}").contains("secret"), "{login:?}");
}
