use super::*;

fn with_trace_of(sender: &str, recipient: &str, message: &str) -> String {
    let sender = ReversePath::try_from(sender.to_owned()).unwrap();
    let recipient = Mailbox::parse(recipient).unwrap();
    let content = with_trace(&sender, &recipient, &Bytes::from(message.to_owned()));
    String::from_utf8([content.header, content.body].concat()).unwrap()
}

#[test]
fn the_envelope_stands_at_the_head() {
    for (sender, message, stored) in [
        (
            "bob@example.net",
            "A: 1\r\n\r\nbody",
            "Return-Path: <bob@example.net>\r\nDelivered-To: ann@example.org\r\nA: 1\r\n\r\nbody",
        ),
        ("", "\r\nbody", "Return-Path: <>\r\nDelivered-To: ann@example.org\r\n\r\nbody"),
    ] {
        assert_eq!(with_trace_of(sender, "ann@example.org", message), stored);
    }
}
