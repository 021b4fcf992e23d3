//! The server's side against the examples of the RFCs, and against all that a client should not say.

use std::num::NonZeroU32;

use super::*;

fn start(mechanism: Mechanism, initial: Option<&[u8]>) -> Step {
    let terms = Terms { offered: &[], bindings: &ChannelBindings::default(), hostname: "mx.test" };
    Exchange::start(mechanism, initial, &terms)
}

fn verify(user: &str, act_as: Option<&str>, password: &str) -> Step {
    let act_as = act_as.map(str::to_owned);
    Step::Verify(Credentials { user: user.to_owned(), act_as, password: password.to_owned() })
}

#[test]
fn plain_messages() {
    for (message, step) in [
        (&b"\0tim\0tanstaaftanstaaf"[..], verify("tim", None, "tanstaaftanstaaf")),
        (b"tim\0tim\0secret", verify("tim", None, "secret")),
        (b"Ursel\0Kurt\0xipj3plmq", verify("Kurt", Some("Ursel"), "xipj3plmq")),
        (b"", Step::Malformed),
        (b"tim", Step::Malformed),
        (b"\0tim", Step::Malformed),
        (b"\0\0secret", Step::Malformed),
        (b"\0tim\0", Step::Malformed),
        (b"\0tim\0a\0b", Step::Malformed),
        (b"\0tim\0\xff", Step::Malformed),
    ] {
        assert_eq!(start(Mechanism::Plain, Some(message)), step, "{message:?}");
    }
}

#[test]
fn login_asks_twice() {
    let Step::Challenge { text, exchange } = start(Mechanism::Login, None) else { panic!() };
    assert_eq!(text, b"Username:");
    let Step::Challenge { text, exchange } = exchange.respond(b"tim") else { panic!() };
    assert_eq!(text, b"Password:");
    assert_eq!(exchange.respond(b"secret"), verify("tim", None, "secret"));
    assert_eq!(start(Mechanism::Login, Some(b"")), Step::Malformed);
}

#[test]
fn nothing_secret_is_printed() {
    let step = start(Mechanism::Plain, Some(b"\0tim\0hunter2"));
    let printed = format!("{step:?}");
    assert!(!printed.contains("hunter2") && !printed.contains("tim"), "{printed}");
}

/// The exchange of RFC 7677 §3 up to the server's first message.
fn example() -> Exchange {
    let first = start_scram(Mechanism::ScramSha256, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", bindings(false));
    let Step::FindKeys(find) = first else { panic!("{first:?}") };
    assert_eq!((find.user.as_str(), find.kind), ("user", KeyKind::ScramSha256));
    let salt = crate::sasl::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let keys = StoredKeys::derive(Hash::Sha256, "pencil", salt, NonZeroU32::new(4096).unwrap());
    let Step::Challenge { text, exchange } = find.found(Keys::Scram(keys)) else { panic!() };
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    exchange
}

fn start_scram(mechanism: Mechanism, first: &[u8], bindings: ChannelBindings) -> Step {
    let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
    let facts = Facts { tls: true, plaintext_allowed: false, bindings: &bindings };
    let offered = offered(&Mechanism::ALL, facts);
    let terms = Terms { offered: &offered, bindings: &bindings, hostname: "mx.test" };
    Exchange::start_with_nonce(mechanism, Some(first), &terms, nonce)
}

fn bindings(some: bool) -> ChannelBindings {
    ChannelBindings { exporter: some.then(|| b"channel".to_vec()), server_end_point: None }
}

const NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

#[test]
fn scram_as_in_rfc_7677() {
    let step = example().respond(format!("c=biws,r={NONCE},p={PROOF}").as_bytes());
    let Step::Challenge { text, exchange } = step else { panic!("{step:?}") };
    assert_eq!(text, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_eq!(exchange.respond(b""), Step::Proved { user: "user".to_owned(), act_as: None });
}

#[test]
fn last_messages_that_are_refused() {
    let short = &NONCE[..NONCE.len() - 1];
    for (message, step) in [
        (format!("c=biws,r={NONCE},p=AAAA"), Step::Refused),
        (format!("c=biws,r={NONCE},p="), Step::Refused),
        (format!("c=biws,r={short},p={PROOF}"), Step::Refused),
        (format!("c=biws,r=rOprNGfwEbeRWgbNEkqO,p={PROOF}"), Step::Refused),
        (format!("c=eSws,r={NONCE},p={PROOF}"), Step::Refused),
        (format!("c=biws,r={NONCE},x=1,p={PROOF}"), Step::Refused),
        (format!("c=biws,r={NONCE},m=1,p={PROOF}"), Step::Malformed),
        (format!("r={NONCE},c=biws,p={PROOF}"), Step::Malformed),
        (format!("c=biws,r={NONCE}"), Step::Malformed),
        (String::new(), Step::Malformed),
    ] {
        assert_eq!(example().respond(message.as_bytes()), step, "{message}");
    }
}

#[test]
fn first_messages() {
    let is = |mechanism, text: &str, bound| match start_scram(mechanism, text.as_bytes(), bindings(bound)) {
        Step::FindKeys(_) => "goes on",
        Step::Refused => "refused",
        Step::Malformed => "malformed",
        other => panic!("{other:?}"),
    };
    let (plus, bare) = (Mechanism::ScramSha256Plus, Mechanism::ScramSha256);
    for (mechanism, text, bound, expected) in [
        (bare, "n,,n=tim,r=abc", false, "goes on"),
        (bare, "n,,n=tim,r=abc,x=extension", false, "goes on"),
        (bare, "n,a=ann,n=tim,r=abc", false, "goes on"),
        (bare, "y,,n=tim,r=abc", false, "goes on"),
        (bare, "n,,n=tim,r=abc", true, "goes on"),
        // Somebody took -PLUS out of our list.
        (bare, "y,,n=tim,r=abc", true, "refused"),
        (bare, "p=tls-exporter,,n=tim,r=abc", true, "malformed"),
        (plus, "p=tls-exporter,,n=tim,r=abc", true, "goes on"),
        (plus, "p=tls-unique,,n=tim,r=abc", true, "refused"),
        (plus, "p=tls-server-end-point,,n=tim,r=abc", true, "refused"),
        (plus, "n,,n=tim,r=abc", true, "malformed"),
        (plus, "y,,n=tim,r=abc", true, "malformed"),
        (bare, "n,,n=,r=abc", false, "malformed"),
        (bare, "n,,n=a=b,r=abc", false, "malformed"),
        (bare, "n,,n=tim,r=", false, "malformed"),
        (bare, "n,,m=1,n=tim,r=abc", false, "malformed"),
        (bare, "n,,n=tim", false, "malformed"),
        (bare, "n,tim,n=tim,r=abc", false, "malformed"),
        (bare, "x,,n=tim,r=abc", false, "malformed"),
        (bare, "n", false, "malformed"),
    ] {
        assert_eq!(is(mechanism, text, bound), expected, "{mechanism} {text}");
    }
}

/// RFC 5802 §6 speaks of what the client was told, which is the operator's choice.
#[test]
fn a_client_that_heard_of_no_binding_is_right_where_none_is_offered() {
    let bindings = bindings(true);
    for (offered, goes_on) in [
        (&[Mechanism::ScramSha256, Mechanism::Plain][..], true),
        (&[Mechanism::ScramSha256Plus, Mechanism::ScramSha256], false),
        // It could have taken the other one.
        (&[Mechanism::ScramSha1Plus, Mechanism::ScramSha256], false),
    ] {
        let terms = Terms { offered, bindings: &bindings, hostname: "mx.test" };
        let step = Exchange::start(Mechanism::ScramSha256, Some(b"y,,n=tim,r=abc"), &terms);
        assert_eq!(matches!(step, Step::FindKeys(_)), goes_on, "{offered:?} {step:?}");
    }
}

#[test]
fn what_is_offered_where() {
    let offered = |wanted: &[Mechanism], tls, plaintext_allowed, bound| {
        let bindings = bindings(bound);
        let names = offered(wanted, Facts { tls, plaintext_allowed, bindings: &bindings });
        names.iter().map(Mechanism::to_string).collect::<Vec<_>>().join(" ")
    };
    let usual = |tls, plaintext, bound| offered(&Mechanism::OFFERED_BY_DEFAULT, tls, plaintext, bound);
    assert_eq!(
        usual(true, false, true),
        "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN"
    );
    assert_eq!(usual(true, false, false), "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN");
    assert_eq!(usual(false, true, false), "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN");
    assert_eq!(usual(false, false, false), "SCRAM-SHA-256 SCRAM-SHA-1");
    // By the operator's choice, strongest first whatever the order of the choice.
    let chosen = [Mechanism::Login, Mechanism::CramMd5, Mechanism::ScramSha1Plus];
    assert_eq!(offered(&chosen, true, false, true), "SCRAM-SHA-1-PLUS CRAM-MD5 LOGIN");
    assert_eq!(offered(&chosen, false, false, false), "CRAM-MD5");
}

#[test]
fn cram_md5_knows_a_right_digest_from_a_wrong_one() {
    let begin = || {
        let Step::Challenge { text, exchange } = start(Mechanism::CramMd5, None) else { panic!() };
        (String::from_utf8(text).unwrap(), exchange)
    };
    let (challenge, other) = (begin().0, begin().0);
    assert!(challenge.starts_with('<') && challenge.ends_with("@mx.test>"), "{challenge}");
    assert_ne!(challenge, other);
    let state = CramState::derive("secret");
    let ends = |make: &dyn Fn(&str) -> String, keys: Keys| {
        let (challenge, exchange) = begin();
        match exchange.respond(make(&challenge).as_bytes()) {
            Step::FindKeys(find) => {
                assert_eq!(find.kind, KeyKind::CramMd5);
                find.found(keys)
            }
            step => step,
        }
    };
    let keys = || Keys::CramMd5(CramState::derive("secret"));
    let proved = |user: &str| Step::Proved { user: user.to_owned(), act_as: None };
    let digest = |challenge: &str| state.answer(challenge.as_bytes());
    assert_eq!(ends(&|c| format!("tim {}", digest(c)), keys()), proved("tim"));
    assert_eq!(ends(&|c| format!("tim tom {}", digest(c).to_uppercase()), keys()), proved("tim tom"));
    for wrong in [
        &(|_: &str| format!("tim {}", digest("<another@mx.test>"))) as &dyn Fn(&str) -> String,
        &|c| format!("tim {}", &digest(c)[1..]),
        &|_| "tim ".to_owned(),
    ] {
        assert_eq!(ends(wrong, keys()), Step::Refused);
    }
    let other = Keys::CramMd5(CramState::derive("secrets"));
    assert_eq!(ends(&|c| format!("tim {}", digest(c)), other), Step::Refused);
    for malformed in ["", "tim", " 0123"] {
        assert_eq!(ends(&|_| malformed.to_owned(), keys()), Step::Malformed, "{malformed:?}");
    }
    // An answer before the question is none to it.
    assert_eq!(start(Mechanism::CramMd5, Some(b"tim 0123")), Step::Malformed);
}
