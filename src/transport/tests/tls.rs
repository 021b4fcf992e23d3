//! STARTTLS: policies, certificates, and peers that break it.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::Engine;
use super::peer::{Peer, listeners};
use super::world::{CONTENT, common, direct, domain, engine, fixed, job, job_with, show};
use crate::config::{PrivateCa, TlsPolicy, TransportCommon};
use crate::dns::Resolver;
use crate::envelope::Envelope;
use crate::outcome::Outcome;
use crate::tls::ClientTls;

pub(super) const OFFERS: &str =
    "S: 220 x\nC: EHLO client.test\nS: 250-x\nS: 250-PIPELINING\nS: 250 STARTTLS\n";
pub(super) const STARTS: &str = "C: STARTTLS\nS: 220 go\nTLS\n";
pub(super) const INSIDE: &str = "C: EHLO client.test\nS: 250-x\nS: 250-REQUIRETLS\nS: 250 PIPELINING\n";
pub(super) const TAKES: &str =
    "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 Ok\nS: 250 Ok\nS: 354 go\nM\nS: 250 taken\nC: QUIT\nBYE";

/// A certificate of its own for a name, and what a server shows with it.
pub(crate) fn certificate(name: &str) -> (CertificateDer<'static>, Arc<rustls::ServerConfig>) {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let der = params.self_signed(&signing_key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![der.clone()], key).unwrap();
    (der, Arc::new(config))
}

/// A delivery to mx.test, whose certificate is for a name; the client trusts it where `trusted`.
pub(super) async fn deliver(
    policy: TlsPolicy,
    name: &str,
    trusted: bool,
    dialogues: &[&str],
    envelope: Option<Envelope>,
) -> Outcome {
    let (der, server) = certificate(name);
    let (port, mut listeners) = listeners(&["127.0.0.1"]).await;
    let peer = Peer::play(listeners.remove(0), dialogues, Some(server));
    let names = Resolver::new(&fixed("x.test MX 10 mx.test\nmx.test A 127.0.0.1"));
    let (other, _) = certificate("other.test");
    let engine = Engine::with_tls(
        names,
        domain("client.test"),
        ClientTls::with_roots(vec![if trusted { der } else { other }]),
    );
    let common = TransportCommon { tls: policy, tls_timeout: Duration::from_secs(2), ..common() };
    let job = envelope.map_or_else(|| job(&["b@x.test"]), |envelope| job_with(envelope, CONTENT));
    let mut outcomes = engine.deliver(&direct(port, common), &job).await;
    engine.close_idle().await;
    peer.finish().await;
    outcomes.remove(0)
}

pub(super) fn in_tls() -> String {
    format!("{OFFERS}{STARTS}{INSIDE}{TAKES}")
}

#[tokio::test]
async fn opportunistic_tls_takes_any_certificate() {
    let outcome = deliver(TlsPolicy::Opportunistic, "wrong.test", false, &[&in_tls()], None).await;
    assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken");
    assert_eq!(outcome.tls.as_deref(), Some("TLSv1.3 TLS13_AES_256_GCM_SHA384"));
}

#[tokio::test]
async fn required_tls_takes_the_right_certificate_only() {
    let outcome = deliver(TlsPolicy::Required, "mx.test", true, &[&in_tls()], None).await;
    assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken");
    let broken_off = format!("{OFFERS}C: STARTTLS\nS: 220 go\nTLS");
    for (name, trusted, why) in
        [("wrong.test", true, "certificate not valid for name"), ("mx.test", false, "UnknownIssuer")]
    {
        let outcome = deliver(TlsPolicy::Required, name, trusted, &[&broken_off], None).await;
        let shown = show(&outcome);
        let expected = "temporary tls - 4.7.5 the peer's certificate is not valid: ";
        assert!(shown.starts_with(expected) && shown.contains(why), "{shown}");
        assert_eq!((outcome.host.as_deref(), outcome.tls), (Some("mx.test"), None));
    }
}

#[tokio::test]
async fn required_tls_never_falls_back() {
    for (dialogue, expected) in [
        (
            "S: 220 x\nC: EHLO*\nS: 250 x\nC: QUIT\nBYE".to_owned(),
            "temporary tls - 4.7.4 TLS is required, but the peer does not offer it",
        ),
        (format!("{OFFERS}C: STARTTLS\nS: 454 4.7.0 not now\nBYE"), "temporary tls 454 4.7.0 not now"),
        (format!("{OFFERS}C: STARTTLS\nS: 554 5.7.3 never\nBYE"), "temporary tls 554 4.0.0 never"),
        (
            format!("{OFFERS}C: STARTTLS\nRAW 220 go\\r\\n250 injected\\r\\nBYE"),
            "temporary tls - 4.7.5 the TLS handshake failed",
        ),
        (format!("{OFFERS}C: STARTTLS\nS: 220 go\nCLOSE"), "temporary tls - 4.7.5 the TLS handshake failed"),
        (
            format!("{OFFERS}C: STARTTLS\nCLOSE"),
            "temporary tls - 4.4.2 the peer closed the connection while we waited for the reply to STARTTLS",
        ),
        (
            format!("{OFFERS}C: STARTTLS\nSTALL"),
            "temporary tls - 4.4.2 timed out after 3 s while waiting for the reply to STARTTLS",
        ),
        (format!("{OFFERS}C: STARTTLS\nS: what?\nBYE"), "temporary tls - 4.5.0 not an SMTP reply: \"what?\""),
        (
            format!("{OFFERS}{STARTS}CLOSE"),
            "temporary tls - 4.4.2 the peer closed the connection while we waited for the reply to EHLO",
        ),
        (format!("{OFFERS}{STARTS}C: EHLO*\nS: 451 4.3.0 hm\nBYE"), "temporary tls 451 4.3.0 hm"),
        (
            format!("{OFFERS}{STARTS}C: EHLO*\nS: 550 5.7.1 no\nC: HELO*\nS: 550 5.7.1 no\nBYE"),
            "temporary tls 550 4.0.0 no",
        ),
        (
            format!("{OFFERS}C: STARTTLS\nS: 220 go\nSTALL"),
            "temporary tls - 4.4.2 timed out after 2 s while waiting for the TLS handshake",
        ),
    ] {
        let outcome = deliver(TlsPolicy::Required, "mx.test", true, &[&dialogue], None).await;
        let shown = show(&outcome);
        // What was sent along with the 220 is found at once or breaks the handshake, as the network has it.
        let injected = "temporary tls - 4.7.5 the peer sent clear text after STARTTLS";
        assert!(
            shown.starts_with(expected) || (dialogue.contains("injected") && shown == injected),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn opportunistic_tls_that_fails_is_followed_by_clear_text_at_once() {
    let clear = format!("{OFFERS}{TAKES}");
    for broken in [
        "C: STARTTLS\nS: 220 go\nCLOSE",
        "C: STARTTLS\nS: 220 go\nRAW this is no TLS\nSTALL",
        "C: STARTTLS\nRAW 220 go\\r\\n250 injected\\r\\nSTALL",
        "C: STARTTLS\nCLOSE",
        "C: STARTTLS\nS: 421 bye\nCLOSE",
        &format!("{STARTS}CLOSE"),
        &format!("{STARTS}C: EHLO*\nS: 421 bye\nCLOSE"),
    ] {
        let broken = format!("{OFFERS}{broken}");
        let outcome = deliver(TlsPolicy::Opportunistic, "mx.test", false, &[&broken, &clear], None).await;
        assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken", "{broken}");
        assert_eq!(outcome.tls, None);
    }
}

#[tokio::test]
async fn a_peer_that_refuses_starttls_keeps_its_connection() {
    let dialogue = format!("{OFFERS}C: STARTTLS\nS: 454 not now\n{TAKES}");
    let outcome = deliver(TlsPolicy::Opportunistic, "mx.test", false, &[&dialogue], None).await;
    assert_eq!((show(&outcome).as_str(), outcome.tls), ("delivered data 250 2.0.0 taken", None));
}

#[tokio::test]
async fn without_tls_nobody_asks_for_it() {
    let outcome = deliver(TlsPolicy::None, "mx.test", true, &[&format!("{OFFERS}{TAKES}")], None).await;
    assert_eq!((show(&outcome).as_str(), outcome.tls), ("delivered data 250 2.0.0 taken", None));
}

/// A delivery over a transport with settings of its own, to mx.test with this certificate.
async fn deliver_with(
    certificate: (CertificateDer<'static>, Arc<rustls::ServerConfig>),
    common: TransportCommon,
    dialogue: &str,
    envelope: Envelope,
) -> Outcome {
    let (port, mut listeners) = listeners(&["127.0.0.1"]).await;
    let peer = Peer::play(listeners.remove(0), &[dialogue], Some(certificate.1));
    let names = Resolver::new(&fixed("x.test MX 10 mx.test\nmx.test A 127.0.0.1"));
    // The system's roots, in which no certificate of a test stands.
    let engine = Engine::new(names, domain("client.test"));
    let job = job_with(envelope, super::world::CONTENT);
    let mut outcomes = engine.deliver(&direct(port, common), &job).await;
    engine.close_idle().await;
    peer.finish().await;
    outcomes.remove(0)
}

#[tokio::test]
async fn required_tls_without_verification_takes_any_certificate_but_no_clear_text() {
    let common = TransportCommon { tls: TlsPolicy::Required, verify: false, ..common() };
    let envelope = job(&["b@x.test"]).message.envelope.clone();
    let wrong = || certificate("wrong.test");
    let outcome = deliver_with(wrong(), common.clone(), &in_tls(), envelope.clone()).await;
    assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken");
    assert!(outcome.tls.is_some());
    for (dialogue, expected) in [
        ("S: 220 x\nC: EHLO*\nS: 250 x\nC: QUIT\nBYE".to_owned(), "temporary tls - 4.7.4 TLS is required"),
        (format!("{OFFERS}C: STARTTLS\nS: 454 4.7.0 not now\nBYE"), "temporary tls 454 4.7.0 not now"),
    ] {
        let outcome = deliver_with(wrong(), common.clone(), &dialogue, envelope.clone()).await;
        assert!(show(&outcome).starts_with(expected), "{}", show(&outcome));
    }
    // RFC 8689: who asks for REQUIRETLS is not content with less.
    let broken_off = format!("{OFFERS}C: STARTTLS\nS: 220 go\nTLS");
    let strict = Envelope { require_tls: true, ..envelope };
    let outcome = deliver_with(wrong(), common, &broken_off, strict).await;
    let expected = "permanent mail - 5.7.10 the sender requires TLS with a verified peer (REQUIRETLS): \
                    the peer's certificate is not valid";
    assert!(show(&outcome).starts_with(expected), "{}", show(&outcome));
}

#[tokio::test]
async fn an_authority_of_the_operators_own_is_trusted_by_its_transport_alone() {
    let envelope = job(&["b@x.test"]).message.envelope.clone();
    let ours = certificate("mx.test");
    let ca = |certificates| Some(Arc::new(PrivateCa { file: "ca.pem".into(), certificates }));
    let required = TransportCommon { tls: TlsPolicy::Required, ..common() };
    let private = TransportCommon { ca: ca(vec![ours.0.clone()]), ..required.clone() };
    let outcome = deliver_with(ours.clone(), private, &in_tls(), envelope.clone()).await;
    assert_eq!(show(&outcome), "delivered data 250 2.0.0 taken");
    let broken_off = format!("{OFFERS}C: STARTTLS\nS: 220 go\nTLS");
    let other = TransportCommon { ca: ca(vec![certificate("mx.test").0]), ..required };
    let outcome = deliver_with(ours.clone(), other.clone(), &broken_off, envelope.clone()).await;
    assert!(show(&outcome).contains("the peer's certificate is not valid"), "{}", show(&outcome));
    // A file that nobody has read makes nobody trusted.
    let unread = TransportCommon { ca: ca(Vec::new()), ..other };
    let no_roots = format!("{OFFERS}C: STARTTLS\nS: 220 go\nSTALL");
    let outcome = deliver_with(ours, unread, &no_roots, envelope).await;
    assert!(show(&outcome).contains("cannot verify anybody"), "{}", show(&outcome));
}

#[tokio::test]
async fn kept_connections_stay_in_tls() {
    let (_, server) = certificate("mx.test");
    let (port, mut listeners) = listeners(&["127.0.0.1"]).await;
    let dialogue = format!("{OFFERS}{STARTS}{INSIDE}{}{TAKES}", TAKES.replace("C: QUIT\nBYE", ""));
    let peer = Peer::play(listeners.remove(0), &[&dialogue], Some(server));
    let engine = engine("x.test A 127.0.0.1");
    let transport = direct(port, TransportCommon { tls: TlsPolicy::Opportunistic, ..common() });
    for _ in 0..2 {
        let outcomes = engine.deliver(&transport, &job(&["b@x.test"])).await;
        assert_eq!(show(&outcomes[0]), "delivered data 250 2.0.0 taken");
        assert!(outcomes[0].tls.is_some());
    }
    engine.close_idle().await;
    peer.finish().await;
}
