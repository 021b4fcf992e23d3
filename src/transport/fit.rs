//! What a message needs, and whether a peer offers it: which parameters MAIL and RCPT get, or why the message cannot go.
//!
//! RFC 6531 §3.2 (SMTPUTF8), RFC 6152 §3 (8BITMIME), RFC 1870 §6 (SIZE), RFC 3461 (DSN), RFC 8689 §4.2 (REQUIRETLS).

use crate::envelope::{BodyType, Envelope, Recipient};
use crate::outcome::EnhancedCode;
use crate::smtp::Extensions;
use crate::smtp::command::{ForwardPath, Mail, Rcpt};

/// The parameters that go with one message to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Parameters {
    pub(super) size: Option<u64>,
    pub(super) eight_bit_mime: bool,
    pub(super) smtputf8: bool,
    pub(super) dsn: bool,
    pub(super) require_tls: bool,
}

/// The peer cannot take the message; always permanent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) enhanced: EnhancedCode,
    pub(super) text: String,
}

/// Decides. `verified` says whether the connection is in TLS with a peer that showed who it is.
pub(super) fn fit(
    envelope: &Envelope,
    recipients: &[&Recipient],
    content: &[u8],
    peer: &Extensions,
    verified: bool,
) -> Result<Parameters, Unfit> {
    let unfit = |enhanced, text: &str| Err(Unfit { enhanced, text: text.to_owned() });
    let smtputf8 = needs_smtputf8(envelope, recipients, content);
    if smtputf8 && !peer.smtputf8 {
        // RFC 6531 §3.2; the code is of §4.2 (there for a reply, here for a report).
        return unfit(
            EnhancedCode::new(5, 6, 7),
            "the message needs SMTPUTF8, which the peer does not offer",
        );
    }
    if envelope.require_tls && !(peer.require_tls && verified) {
        return unfit(
            EnhancedCode::new(5, 7, 30),
            "the sender requires REQUIRETLS, which the peer does not offer",
        );
    }
    let eight_bit = !content.is_ascii();
    match envelope.body {
        BodyType::BinaryMime => {
            return unfit(
                EnhancedCode::new(5, 6, 3),
                "the message is BINARYMIME, which cannot be sent with DATA",
            );
        }
        BodyType::EightBitMime if eight_bit && !peer.eight_bit_mime => {
            return unfit(
                EnhancedCode::new(5, 6, 3),
                "the message is 8BITMIME, which the peer does not offer",
            );
        }
        // Octets above 127 that were never declared broke the rules before they came to us; they are passed on.
        BodyType::EightBitMime | BodyType::SevenBit => {}
    }
    if let Some(max) = peer.size.filter(|max| *max > 0 && content.len() as u64 > *max) {
        let text = format!("the message has {} bytes, the peer takes {max} at most", content.len());
        return Err(Unfit { enhanced: EnhancedCode::new(5, 3, 4), text });
    }
    Ok(Parameters {
        size: peer.size.map(|_| content.len() as u64),
        eight_bit_mime: eight_bit && peer.eight_bit_mime,
        smtputf8,
        dsn: peer.dsn,
        require_tls: envelope.require_tls,
    })
}

/// SMTPUTF8 goes along only where it is really needed: an address or the header holds UTF-8. A client that asks for it
/// by habit must not make ASCII mail undeliverable.
fn needs_smtputf8(envelope: &Envelope, recipients: &[&Recipient], content: &[u8]) -> bool {
    envelope.sender.mailbox().is_some_and(crate::address::Mailbox::needs_smtputf8)
        || recipients.iter().any(|recipient| recipient.address.needs_smtputf8())
        || (envelope.smtputf8 && !header(content).is_ascii())
}

fn header(content: &[u8]) -> &[u8] {
    memchr::memmem::find(content, b"\r\n\r\n").map_or(content, |end| &content[..end])
}

/// MAIL for a message, with the parameters that its peer knows.
pub(super) fn mail(envelope: &Envelope, with: &Parameters) -> Mail {
    Mail {
        size: with.size,
        body: with.eight_bit_mime.then_some(BodyType::EightBitMime),
        smtputf8: with.smtputf8,
        require_tls: with.require_tls,
        ret: envelope.ret.filter(|_| with.dsn),
        envid: envelope.envid.clone().filter(|envid| with.dsn && travels(envid, with)),
        ..Mail::new(envelope.sender.clone())
    }
}

/// RCPT for a recipient, with the parameters that its peer knows.
pub(super) fn rcpt(recipient: &Recipient, with: &Parameters) -> Rcpt {
    Rcpt {
        notify: recipient.notify.filter(|_| with.dsn),
        orcpt: recipient.orcpt.clone().filter(|orcpt| with.dsn && travels(orcpt, with)),
        ..Rcpt::new(ForwardPath::Mailbox(recipient.address.clone()))
    }
}

/// UTF-8 in a parameter needs SMTPUTF8 (RFC 6533 §3); without it the parameter, which is only a help to the sender, is
/// left out.
fn travels(text: &str, with: &Parameters) -> bool {
    with.smtputf8 || text.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Notify, Ret, ReversePath};

    const ASCII: &[u8] = b"Subject: x\r\n\r\nHello\r\n";
    const EIGHT: &[u8] = b"Subject: x\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n";
    const UTF8_HEADER: &[u8] = b"Subject: \xc3\xbc\r\n\r\nHello\r\n";

    fn envelope(sender: &str) -> Envelope {
        Envelope::new(ReversePath::try_from(sender.to_owned()).unwrap(), ["b@example.org".parse().unwrap()])
    }

    fn everything() -> Extensions {
        let ehlo = "x\nPIPELINING\nSIZE 1000\n8BITMIME\nSMTPUTF8\nDSN\nREQUIRETLS\nSTARTTLS";
        Extensions::from_ehlo(&crate::smtp::Reply::new(250, ehlo))
    }

    fn try_fit(envelope: &Envelope, content: &[u8], peer: &Extensions) -> Result<String, String> {
        let recipients: Vec<&Recipient> = envelope.recipients.iter().collect();
        let with =
            fit(envelope, &recipients, content, peer, true).map_err(|unfit| unfit.enhanced.to_string())?;
        let rcpts = recipients.iter().map(|recipient| format!("{}|", rcpt(recipient, &with)));
        Ok(format!("{}|{}", mail(envelope, &with), rcpts.collect::<String>()))
    }

    #[test]
    fn what_a_message_needs_and_a_peer_offers() {
        let nothing = Extensions::default();
        let plain = envelope("a@example.net");
        let null = envelope("");
        let eight = Envelope { body: BodyType::EightBitMime, ..plain.clone() };
        let utf8 = Envelope { smtputf8: true, ..plain.clone() };
        let utf8_sender = envelope("ä@example.net");
        let tls = Envelope { require_tls: true, ..plain.clone() };
        let binary = Envelope { body: BodyType::BinaryMime, ..plain.clone() };
        let ok = |text: &str| Ok(format!("MAIL FROM:<{text}|RCPT TO:<b@example.org>|"));
        for (envelope, content, peer, expected) in [
            (&plain, ASCII, &nothing, ok("a@example.net>")),
            (&null, ASCII, &nothing, ok(">")),
            (&plain, ASCII, &everything(), ok("a@example.net> SIZE=21")),
            (&plain, EIGHT, &nothing, ok("a@example.net>")),
            (&plain, EIGHT, &everything(), ok("a@example.net> SIZE=23 BODY=8BITMIME")),
            (&eight, ASCII, &nothing, ok("a@example.net>")),
            (&eight, EIGHT, &everything(), ok("a@example.net> SIZE=23 BODY=8BITMIME")),
            (&eight, EIGHT, &nothing, Err("5.6.3".into())),
            (&binary, EIGHT, &everything(), Err("5.6.3".into())),
            (&utf8, ASCII, &nothing, ok("a@example.net>")),
            (&utf8, EIGHT, &nothing, ok("a@example.net>")),
            (&utf8, UTF8_HEADER, &nothing, Err("5.6.7".into())),
            (&utf8, UTF8_HEADER, &everything(), ok("a@example.net> SIZE=22 BODY=8BITMIME SMTPUTF8")),
            (&utf8_sender, ASCII, &nothing, Err("5.6.7".into())),
            (&utf8_sender, ASCII, &everything(), ok("ä@example.net> SIZE=21 SMTPUTF8")),
            (&tls, ASCII, &nothing, Err("5.7.30".into())),
            (&tls, ASCII, &everything(), ok("a@example.net> SIZE=21 REQUIRETLS")),
            (&plain, &[b'x'; 1000], &everything(), ok("a@example.net> SIZE=1000")),
            (&plain, &[b'x'; 1001], &everything(), Err("5.3.4".into())),
            (
                &plain,
                &[b'x'; 1001],
                &Extensions { size: Some(0), ..Extensions::default() },
                ok("a@example.net> SIZE=1001"),
            ),
        ] {
            assert_eq!(try_fit(envelope, content, peer), expected, "{envelope:?} {peer:?}");
        }
    }

    #[test]
    fn require_tls_needs_a_peer_that_showed_who_it_is() {
        let envelope = Envelope { require_tls: true, ..envelope("a@example.net") };
        let recipients: Vec<&Recipient> = envelope.recipients.iter().collect();
        assert!(fit(&envelope, &recipients, ASCII, &everything(), false).is_err());
    }

    #[test]
    fn dsn_parameters_go_to_peers_that_know_them() {
        let mut envelope = envelope("a@example.net");
        (envelope.ret, envelope.envid) = (Some(Ret::Headers), Some("a+b=c d".into()));
        let notify = Notify { success: true, failure: false, delay: true };
        envelope.recipients[0].notify = Some(notify);
        envelope.recipients[0].orcpt = Some("rfc822;x+y@example.org".into());
        let mut never = envelope.recipients[0].clone();
        never.notify = Some(Notify { success: false, delay: false, ..notify });
        never.orcpt = Some("utf-8;ä@example.org".into());
        envelope.recipients.push(never);
        assert_eq!(
            try_fit(&envelope, ASCII, &everything()).unwrap(),
            "MAIL FROM:<a@example.net> SIZE=21 RET=HDRS ENVID=a+2Bb+3Dc+20d|\
             RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@example.org|\
             RCPT TO:<b@example.org> NOTIFY=NEVER|"
        );
        let without = Extensions { dsn: false, ..everything() };
        assert!(!try_fit(&envelope, ASCII, &without).unwrap().contains("NOTIFY"));
    }
}
