//! What operators see: defaults, every kind of mistake, and the text it is reported in.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::sasl::{Allowed, Mechanism};

const MINIMAL: &str = r#"
hostname = "mail.example.org"

[domains."example.org"]

[accounts.ann]
addresses = ["ann@example.org"]
"#;

fn parse(text: &str) -> Result<Config, ConfigProblems> {
    Config::parse(text, Path::new("waypost.toml"))
}

fn name(text: &str) -> AccountName {
    AccountName::new(text).unwrap()
}

/// The minimal configuration with something in front of its tables and something behind.
fn with(top: &str, tables: &str) -> String {
    MINIMAL.replacen("\n\n", &format!("\n{top}\n"), 1) + tables
}

#[test]
fn the_least_that_is_needed() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.hostname.as_str(), "mail.example.org");
    assert_eq!(config.data_dir, Path::new(DATA_DIR_DEFAULT));
    let kinds: Vec<_> = config.listeners.iter().map(|l| (l.kind, l.address.to_string())).collect();
    assert_eq!(
        kinds,
        [(ListenerKind::Smtp, "0.0.0.0:25".to_owned()), (ListenerKind::Smtp, "[::]:25".to_owned())],
        "without [tls] nobody could log in"
    );
    assert_eq!(config.queue.retry.first, Duration::from_secs(450));
    assert_eq!(config.queue.retry.give_up_after, Duration::from_hours(96));
    assert!(matches!(config.transport("direct").unwrap().kind, TransportKind::Direct { port: 25 }));
    assert_eq!(config.postmaster, Some(name("ann")), "the only account is postmaster");
    assert_eq!(config.auth.mechanisms, Mechanism::OFFERED_BY_DEFAULT);
    let lookup = |text: &str| config.lookup(&Mailbox::parse(text).unwrap()).clone();
    assert!(matches!(lookup("Ann@Example.ORG"), Lookup::Account(owner) if *owner == name("ann")));
    assert!(matches!(lookup("bob@example.org"), Lookup::NoSuchMailbox));
    assert!(matches!(lookup("postmaster@example.org"), Lookup::Account(_)));
    assert!(matches!(lookup("ann@example.net"), Lookup::Foreign));
}

#[test]
fn with_tls_all_usual_ports_are_served() {
    let text = with("", "[tls]\ncertificate = \"c.pem\"\nkey = \"/k.pem\"\n");
    let config = Config::parse(&text, Path::new("/etc/waypost/waypost.toml")).unwrap();
    let ports: Vec<_> = config.listeners.iter().map(|l| l.address.port()).collect();
    assert_eq!(ports, [25, 25, 587, 587, 465, 465, 143, 143, 993, 993]);
    let tls = config.tls.unwrap();
    let [files] = &tls.files[..] else { panic!("{tls:?}") };
    assert_eq!(files.certificate, Path::new("/etc/waypost/c.pem"), "relative to the configuration file");
    assert_eq!(files.key, Path::new("/k.pem"));
    assert_eq!(config.scripts_dir, Path::new("/etc/waypost/scripts"));
}

#[test]
fn a_certificate_by_acme_needs_nothing_more_said() {
    let config = parse(&with("", "[tls.acme]\n")).unwrap();
    assert!(config.listeners.iter().any(|listener| listener.kind == ListenerKind::Imaps));
    let tls = config.tls.unwrap();
    assert!(tls.files.is_empty());
    let acme = tls.acme.unwrap();
    assert_eq!(acme.directory, "https://acme-v02.api.letsencrypt.org/directory");
    assert_eq!(acme.names, [config.hostname]);
    assert_eq!((acme.challenge, acme.key_type), (AcmeChallenge::TlsAlpn01, AcmeKeyType::Ecdsa));
    let listen: Vec<_> = acme.listen.iter().map(|one| (one.address.to_string(), one.required)).collect();
    assert_eq!(listen, [("0.0.0.0:443".to_owned(), true), ("[::]:443".to_owned(), false)]);
    assert_eq!((acme.external_account, acme.contact.len(), acme.keep_key), (None, 0, false));
}

#[test]
fn everything_that_can_be_said() {
    let text = include_str!("golden/full.toml");
    let config = parse(text).unwrap();
    assert_eq!(config.postmaster, Some(name("ann")));
    assert_eq!(config.listeners.len(), 8, "a listener for each address");
    assert_eq!(
        config.listeners[0].relay_from,
        ["192.0.2.0/24".parse().unwrap(), "::1/128".parse::<IpNet>().unwrap()]
    );
    assert!(config.listeners[5].allow_plaintext_auth);
    assert_eq!(
        config.auth.mechanisms,
        [Mechanism::ScramSha256, Mechanism::CramMd5, Mechanism::Plain],
        "one list for all listeners"
    );
    assert_eq!(
        config.dns.resolvers,
        ["127.0.0.1:53".parse().unwrap(), "[::1]:5353".parse::<SocketAddr>().unwrap()]
    );
    let fixed = &config.dns.fixed[&Domain::parse("outside.test").unwrap()];
    assert_eq!(fixed.mx, [(10, Domain::parse("mx.outside.test").unwrap())]);
    let sending = config.transport("sending-service").unwrap();
    assert!(
        matches!(&sending.kind, TransportKind::Smarthost(Smarthost { host: Host::Name(n), port: 587, .. }) if n.as_str() == "smtp.sending.example")
    );
    assert_eq!(sending.common.tls, TlsPolicy::Required);
    assert_eq!(sending.common.keep_idle, Duration::ZERO);
    assert_eq!(sending.common.rate, Rate { per_second: Some(14), per_minute: None });
    let ca = sending.common.ca.as_ref().unwrap();
    assert_eq!((sending.common.verify, ca.file.as_path()), (false, Path::new("ca.pem")));
    assert!(ca.certificates.is_empty(), "only the text is looked at here");
    let direct = &config.transport("direct").unwrap().common;
    assert_eq!((direct.ip, direct.source_ipv4), (IpPolicy::Prefer4, "192.0.2.5".parse().ok()));
    let smarthost = |name: &str| match &config.transport(name).unwrap().kind {
        TransportKind::Smarthost(smarthost) => smarthost.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(
        smarthost("sending-service").login.unwrap(),
        Login {
            username: "ann".into(),
            password: Secret::new("secret"),
            mechanisms: Allowed::Exactly(Mechanism::ScramSha256),
            allow_plaintext: false,
        }
    );
    let submit = smarthost("submit");
    assert_eq!((submit.service, submit.port), (Service::Submission, 587));
    assert_eq!(config.transport("submit").unwrap().common.tls, TlsPolicy::Required);
    let login = submit.login.unwrap();
    assert_eq!(login.mechanisms, Allowed::Of(vec![Mechanism::ScramSha256, Mechanism::Plain]));
    assert!(login.allow_plaintext);
    assert_eq!((smarthost("submits").service, smarthost("submits").port), (Service::Submissions, 465));
    let away = config.transport("away").unwrap();
    assert_eq!(away.common.ehlo, Domain::parse("away.example.net").ok());
    let TransportKind::Socks { port: 25, proxy } = &away.kind else { panic!("{away:?}") };
    assert_eq!((proxy.host.to_string().as_str(), proxy.port), ("proxy.example.net", 1080));
    assert_eq!(proxy.login.as_ref().unwrap(), &("ann".to_owned(), Secret::new("secret")));
    assert_eq!(proxy.remote_ips, ["192.0.2.77".parse::<IpAddr>().unwrap()]);
    let nowhere = &config.transport("nowhere").unwrap().kind;
    assert!(
        matches!(nowhere, TransportKind::Fail { reply, at_submission: true } if reply.to_string() == "550 5.7.1 not from here\r\n")
    );
    let domain = &config.domains[&Domain::parse("example.org").unwrap()];
    assert_eq!(domain.separator, Some('+'));
    assert_eq!(domain.catch_all, Some(name("bob")));
    assert_eq!(domain.replies["gone"].reply.to_string(), "550 5.1.1 moved away\r\n");
    assert_eq!(domain.replies["slow"].after, Duration::from_mins(10));
    assert_eq!(config.limits.recipients_max, None);
    assert_eq!(config.limits.session_timeout, None);
    assert_eq!(config.limits.received_max, usize::MAX);
    assert!(config.queue.retry.jitter.abs() < f64::EPSILON);
    let tls = config.tls.as_ref().unwrap();
    assert_eq!(tls.files.len(), 1);
    let acme = tls.acme.as_ref().unwrap();
    assert_eq!(acme.contact, ["mailto:postmaster@example.org", "mailto:ann@example.org"]);
    let listen: Vec<_> = acme.listen.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(listen, ["0.0.0.0:80", "[::1]:8080"]);
    assert_eq!(
        (acme.challenge, acme.key_type, acme.keep_key),
        (AcmeChallenge::Http01, AcmeKeyType::Rsa, true)
    );
    assert_eq!(acme.external_account.as_ref().unwrap().hmac_key, b"secret");
    assert_eq!(config.script_limits.time_max, Duration::from_millis(20));
    assert_eq!(config.shadow_dir.as_deref(), Some(Path::new("next-scripts")));
    assert_eq!(config.metrics.listen, ["127.0.0.1:9100".parse().unwrap(), "[::1]:9100".parse().unwrap()]);
}

/// Each mistake alone: the line and column it is found at, and words of its message.
#[test]
fn mistakes_are_found_where_they_are() {
    let minimal_lines = MINIMAL.lines().count();
    // A top-level line stands in line 3 of the text, what follows the tables from `minimal_lines` + 1 on.
    let top = |text: &'static str, column: usize, words: &'static str| (with(text, ""), (3, column), words);
    let table = |text: &'static str, line: usize, column: usize, words: &'static str| {
        (with("", text), (minimal_lines + line, column), words)
    };
    for (text, place, words) in [
        top("x = ", 5, "not TOML"),
        top("hostname = \"a\"", 1, "duplicate key"),
        top("data_dir = 5", 12, "cannot be a whole number"),
        top("data_dir = \"\"", 12, "a path cannot be empty"),
        top("postmaster = \"anm\"", 14, "no account anm"),
        top("postmaster = \"A\"", 14, "not an account name"),
        top("postmastr = \"ann\"", 1, "no key `postmastr`"),
        top("listeners = 5", 13, "must be tables"),
        top("limits = []", 10, "must be a table"),
        table("[tls]\ncertificate = \"c\"", 1, 2, "[tls] has no `key`"),
        table("[tls]\ncertificate = \"c\"\nkey = \"k\"\n[[tls.more]]\nkey = \"k\"", 4, 1, "no `certificate`"),
        table("[tls]\ncertificate = \"c\"\nkey = \"k\"\nmore = \"c\"", 4, 8, "`more` must be tables"),
        table("[tls]\ncertificate = \"c\"\n[tls.acme]", 2, 1, "beside [tls.acme]"),
        table("[tls.acme]\ndirectory = \"http://ca.test/\"", 2, 13, "no https:// URL"),
        table("[tls.acme]\ndirectory = \"https://\"", 2, 13, "no https:// URL"),
        table("[tls.acme]\ncontact = \"nobody\"", 2, 11, "nobody"),
        table("[tls.acme]\nnames = []", 2, 1, "holds none"),
        table("[tls.acme]\nnames = [\"*.example.org\"]", 2, 10, "*.example.org"),
        table("[tls.acme]\nchallenge = \"dns-01\"", 2, 13, "\"dns-01\" is unknown"),
        table("[tls.acme]\nlisten = \"here\"", 2, 10, "no IP address"),
        table("[tls.acme]\nkey_type = \"ed25519\"", 2, 12, "is unknown"),
        table("[tls.acme]\neab_key_id = \"k\"", 1, 6, "no `eab_hmac_key`"),
        table("[tls.acme]\neab_hmac_key = \"c2VjcmV0\"", 2, 1, "without an `eab_key_id`"),
        table("[tls.acme]\neab_key_id = \"k\"\neab_hmac_key = \"!\"", 3, 1, "no base64url"),
        table("[tls.acme]\nname = \"mx.example.org\"", 2, 1, "no key `name`"),
        table("[tsl]", 1, 2, "no key `tsl`"),
        table("[[listeners]]\nport = 25", 1, 1, "no `kind`"),
        table("[[listeners]]\nkind = \"smpt\"", 2, 8, "did you mean \"smtp\""),
        table("[[listeners]]\nkind = \"imaps\"", 2, 1, "needs [tls]"),
        table("[[listeners]]\nkind = \"submission\"", 2, 1, "needs [tls]"),
        table("[[listeners]]\nkind = \"smtp\"\nport = 70000", 3, 8, "not allowed"),
        table("[[listeners]]\nkind = \"smtp\"\nport = -1", 3, 8, "not allowed"),
        table("[[listeners]]\nkind = \"smtp\"\naddress = \"host:25\"", 3, 11, "no IP address"),
        table("[[listeners]]\nkind = \"smtp\"\nport = 25\naddress = \"[::]:25\"", 4, 11, "given twice"),
        table("[[listeners]]\nkind = \"smtp\"\nrelay_from = [\"192.0.2.0/24\", \"x\"]", 3, 31, "no network"),
        table("[[listeners]]\nkind = \"smtp\"\nadress = \"::\"", 3, 1, "no key `adress`"),
        table("[[listeners]]\nkind = \"smtp\"\n[[listeners]]\nkind = \"smtp\"", 3, 1, "two listeners on"),
        table(
            "[[listeners]]\nkind = \"imap\"\nallow_plaintext_auth = true\nrelay_from = [\"::1\"]",
            4,
            15,
            "no meaning for imap",
        ),
        table("[auth]\nmechanisms = [\"PLAIN\", \"SCRAM-SHA-255\"]", 2, 24, "did you mean \"SCRAM-SHA-256\""),
        table("[auth]\nmechanisms = [\"GSSAPI\"]", 2, 15, "\"GSSAPI\" is unknown"),
        table("[auth]\nmechanisms = []", 2, 1, "names none"),
        table("[auth]\nmechanism = \"PLAIN\"", 2, 1, "no key `mechanism`"),
        table("[auth]\nmechanisms = 5", 2, 14, "cannot be a whole number"),
        table(
            "[auth]\nmechanisms = \"SCRAM-SHA-1-PLUS\"\n[[listeners]]\nkind = \"imap\"\nallow_plaintext_auth = true",
            2,
            1,
            "need TLS",
        ),
        table("[dns]\nresolvers = [\"resolver.example\"]", 2, 14, "no IP address"),
        table("[metrics]\nlisten = \"localhost:9100\"", 2, 10, "no IP address"),
        table("[metrics]\nlisten = [\"127.0.0.1\"]", 2, 11, "with a port"),
        table("[dns]\ntimeout = 5", 2, 11, "needs its unit"),
        table("[dns]\ntimeout = \"5 secs\"", 2, 11, "not allowed"),
        table("[dns.fixed.\"a b\"]\nmx = []", 1, 12, "domain"),
        table("[dns.fixed.x]\nmx = [\"ten mx.x\"]", 2, 7, "no preference"),
        table("[transports.Bad]\nkind = \"direct\"", 1, 13, "not a transport name"),
        table("[transports.local]\nkind = \"direct\"", 1, 13, "cannot be named `local`"),
        table("[transports.a]\nkind = \"smpt\"", 2, 8, "did you mean \"smtp\""),
        table("[transports.a]\nkind = \"smtp\"", 1, 13, "no `host`"),
        table("[transports.a]\nkind = \"direct\"\nhost = \"x\"", 3, 1, "has no `host`"),
        table("[transports.a]\nkind = \"submission\"", 1, 13, "no `host`"),
        table("[transports.a]\nkind = \"smtp\"\nhost = \"x\"\nusername = \"u\"", 1, 13, "no `password_file`"),
        table(
            "[transports.a]\nkind = \"smtp\"\nhost = \"x\"\npassword = \"p\"",
            4,
            1,
            "without a `username`",
        ),
        table(
            "[transports.a]\nkind = \"smtp\"\nhost = \"x\"\nusername = \"u\"\npassword = \"p\"\npassword_env = \"P\"",
            6,
            1,
            "given twice",
        ),
        table(
            "[transports.a]\nkind = \"smtp\"\nhost = \"x\"\nmechanisms = [\"PLAIN\", \"SCRAM-SHA256\"]",
            4,
            24,
            "did you mean \"SCRAM-SHA-256\"",
        ),
        table(
            "[transports.a]\nkind = \"submissions\"\nhost = \"x\"\ntls = \"none\"",
            4,
            1,
            "from the first byte",
        ),
        table("[transports.a]\nkind = \"socks\"", 1, 13, "no `proxy`"),
        table("[transports.a]\nkind = \"socks\"\nproxy = \"x:y\"", 3, 9, "no port"),
        table("[transports.a]\nkind = \"socks\"\nproxy = \"x\"\nehlo = \"y\"", 4, 1, "has no `ehlo`"),
        table("[transports.a]\nkind = \"direct\"\nusername = \"x\"", 3, 1, "has no `username`"),
        table("[transports.a]\nkind = \"fail\"", 1, 13, "no `reply`"),
        table("[transports.a]\nkind = \"fail\"\nreply = \"250 Ok\"", 3, 9, "400 to 599"),
        table("[transports.a]\nkind = \"fail\"\nreply = \"550\"\nhost = \"x\"", 4, 1, "has no `host`"),
        table("[transports.a]\nkind = \"direct\"\nat_submission = true", 3, 1, "has no `at_submission`"),
        table("[transports.a]\nkind = \"direct\"\nip = \"prefer5\"", 3, 6, "did you mean"),
        table("[transports.a]\nkind = \"direct\"\nsource_ipv4 = \"::1\"", 3, 15, "IPv4"),
        table("[transports.a]\nkind = \"direct\"\nverify = true", 3, 1, "needs `tls = \"required\"`"),
        table("[transports.a]\nkind = \"smtp\"\nhost = \"x:25\"", 3, 8, "belongs into `port`"),
        table(
            "[transports.a]\nkind = \"smtp\"\nhost = \"x\"\ntls = \"require\"",
            4,
            7,
            "did you mean \"required\"",
        ),
        table("[transports.a]\nkind = \"smtp\"\nhost = \"x\"\nport = 0", 4, 8, "not allowed"),
        table("[transports.direct]\nkind = \"smtp\"\nhost = \"x\"", 2, 1, "must be of kind \"direct\""),
        table("[domains.\"a..b\"]", 1, 10, "the domain is not valid"),
        table("[domains.\"EXAMPLE.org\"]", 1, 10, "there twice"),
        table("[domains.b]\ncatch_all = \"bob\"", 2, 13, "no account bob"),
        table("[domains.b]\nseparator = \"++\"", 2, 13, "no separator"),
        table("[domains.b.replies]\nx = \"250 ok\"", 2, 5, "400 to 599"),
        table("[domains.b.replies]\nx = \"550 4.1.1 no\"", 2, 5, "does not fit"),
        table("[domains.b.replies]\nx = \"550 5.1.1 n\\r\\no\"", 2, 5, "printable"),
        table("[domains.b.replies]\nx = { after = \"1m\" }", 2, 5, "no `reply`"),
        table("[domains.b.replies]\nx = { reply = \"450\", after = 5 }", 2, 30, "unit"),
        table("[domains.b.replies]\n\"x@b\" = \"450\"", 2, 1, "before the @"),
        table("[domains.b.replies]\nx = \"450\"\nX = \"451\"", 3, 1, "two replies"),
        table("[accounts.\"a b\"]", 1, 11, "not an account name"),
        table("[accounts.bob]\naddresses = [\"bob\"]", 2, 14, "no @domain"),
        table("[accounts.bob]\naddresses = [\"bob@exmaple.org\"]", 2, 14, "not one of our domains"),
        table("[accounts.bob]\naddresses = [\"ANN@example.org\"]", 2, 14, "belongs to ann and to bob"),
        table("[accounts.bob]\naddresses = 5", 2, 13, "cannot be a whole number"),
        table("[accounts.bob]\npassword = \"secret\"", 2, 1, "no key `password`"),
        table("[accounts.bob]\nusers = [\"a b\"]", 2, 10, "not the name of a system user"),
        table("[queue]\nretry_factor = 0.5", 2, 16, "not allowed"),
        table("[queue]\nretry_factor = nan", 2, 16, "not allowed"),
        table("[queue]\nretry_jitter = true", 2, 16, "cannot be true"),
        table("[queue]\nconcurrency = 0", 2, 15, "not allowed"),
        table("[queue]\nmemory_bytes_max = \"64 megs\"", 2, 20, "not allowed"),
        table("[limits]\nmessage_bytes_max = true", 2, 21, "cannot be true"),
        table("[limits]\nrecipients_max = 1979-05-27", 2, 18, "a date"),
        table("[limits]\nrecipients = 5", 2, 1, "no key `recipients`"),
        table("[scripts]\ncall_depth_max = \"off\"", 2, 18, "cannot be text"),
    ] {
        let problems = parse(&text).expect_err(&text);
        let found: Vec<_> =
            problems.problems().iter().map(|p| (problems.line_and_column(p), p.message.clone())).collect();
        let hit =
            |(at, message): &(Option<(usize, usize)>, String)| *at == Some(place) && message.contains(words);
        assert!(
            found.len() == 1 && found.iter().all(hit),
            "wanted {words:?} at {place:?}, found {found:?} in\n{text}"
        );
    }
}

/// The text itself, as printed without colours. After a wanted change: `WAYPOST_BLESS=1 cargo test --lib config`.
#[test]
fn what_the_operator_reads() {
    for (text, golden, expected) in [
        (include_str!("golden/broken.toml"), "broken.txt", include_str!("golden/broken.txt")),
        (include_str!("golden/syntax.toml"), "syntax.txt", include_str!("golden/syntax.txt")),
    ] {
        let shown = parse(text).unwrap_err().to_string();
        if std::env::var_os("WAYPOST_BLESS").is_some() {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/golden");
            std::fs::write(dir.join(golden), &shown).unwrap();
            continue;
        }
        assert_eq!(shown, expected, "{golden}");
    }
}

#[test]
fn nothing_in_the_file_reaches_a_terminal_as_a_command() {
    for text in ["hostname \x1b[31m\r\n\u{9b}31m", "\"\x1b[31m\" = 5", "hostname = \"\u{9b}31m\x07\x7f\""] {
        let problems = parse(text).unwrap_err();
        let shown = problems.render(false);
        assert!(shown.contains("31m"), "{shown}");
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }
    let problems = parse("hostname = \"\u{9b}\"\nlimits = 5").unwrap_err();
    let places: Vec<_> = problems.problems().iter().map(|p| problems.line_and_column(p).unwrap()).collect();
    assert!(places.ends_with(&[(1, 12), (2, 10)]), "{problems}");
}

#[test]
fn files_that_are_named_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("waypost.toml");
    let missing = Config::load(&file).unwrap_err().to_string();
    assert!(missing.contains("cannot read") && missing.contains("--config"), "{missing}");

    let tables = "[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";
    std::fs::write(&file, with("scripts_dir = \"ways\"", tables)).unwrap();
    let problems = Config::load(&file).unwrap_err();
    let places: Vec<_> = problems.problems().iter().map(|p| problems.line_and_column(p).unwrap().0).collect();
    assert_eq!(places, [3, 9, 10], "{problems}");

    for (name, directory) in [("cert.pem", false), ("key.pem", false), ("ways", true)] {
        let path = dir.path().join(name);
        if directory { std::fs::create_dir(path).unwrap() } else { std::fs::write(path, "").unwrap() }
    }
    assert_eq!(Config::load(&file).unwrap().scripts_dir, dir.path().join("ways"));

    std::fs::write(&file, b"hostname = \"a\xff\"").unwrap();
    let problems = Config::load(&file).unwrap_err();
    assert_eq!(problems.line_and_column(&problems.problems()[0]), Some((1, 14)), "{problems}");
}

#[test]
fn the_authorities_of_a_transport_are_read_along() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("waypost.toml");
    let tables = "[transports.a]\nkind = \"smtp\"\nhost = \"x\"\ntls = \"required\"\nca_file = \"ca.pem\"\n";
    std::fs::write(&file, with("", tables)).unwrap();
    std::fs::create_dir(dir.path().join("scripts")).unwrap();
    for (content, words) in [
        (None, "cannot read"),
        (Some("no certificate at all"), "holds no certificate"),
        (Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), "cannot read"),
    ] {
        if let Some(content) = content {
            std::fs::write(dir.path().join("ca.pem"), content).unwrap();
        }
        let problems = Config::load(&file).unwrap_err();
        assert!(problems.to_string().contains(words), "{content:?}: {problems}");
    }
    let made = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap();
    std::fs::write(dir.path().join("ca.pem"), made.cert.pem().repeat(2)).unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.transport("a").unwrap().common.ca.as_ref().unwrap().certificates.len(), 2);
}

#[test]
fn passwords_come_from_files_and_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("waypost.toml");
    let load = |password: &str| {
        let head = "[transports.a]\nkind = \"submission\"\nhost = \"x\"\nusername = \"u\"\n";
        std::fs::write(&file, with("", &format!("{head}{password}\n"))).unwrap();
        Config::load(&file).map(|config| match &config.transport("a").unwrap().kind {
            TransportKind::Smarthost(Smarthost { login: Some(login), .. }) => {
                login.password.reveal().to_owned()
            }
            other => panic!("{other:?}"),
        })
    };
    std::fs::write(dir.path().join("secret"), "p\u{e4}ss word\r\nnot this\n").unwrap();
    std::fs::write(dir.path().join("empty"), "\nsecret\n").unwrap();
    assert_eq!(load("password_file = \"secret\"").unwrap(), "p\u{e4}ss word");
    assert_eq!(load("password_env = \"CARGO_PKG_NAME\"").unwrap(), "waypost");
    for (password, words) in [
        ("password_file = \"empty\"", "no password in the first line"),
        ("password_file = \"nowhere\"", "cannot read"),
        ("password_env = \"NO_SUCH_VARIABLE_9\"", "has no variable NO_SUCH_VARIABLE_9"),
    ] {
        let problems = load(password).unwrap_err().to_string();
        assert!(problems.contains(words), "{problems}");
    }
}

#[test]
fn a_user_name_is_an_account_or_one_of_its_addresses() {
    let config = parse(include_str!("golden/full.toml")).unwrap();
    for (user, account) in [
        ("ann", Some("ann")),
        ("Ann", Some("ann")),
        ("ann@example.org", Some("ann")),
        ("ANN@Example.ORG", Some("ann")),
        ("info@bücher.example", Some("ann")),
        ("ann+lists@example.org", Some("ann")),
        // The catch-all's.
        ("anybody@example.org", Some("bob")),
        ("gone@example.org", None),
        ("ann@example.net", None),
        ("mallory", None),
        ("", None),
        ("a b", None),
    ] {
        assert_eq!(config.account_of(user).map(AccountName::as_str), account, "{user:?}");
    }
    // Typed on a keyboard that sends letters and their accents apart.
    let text = with("", "[accounts.zoe]\naddresses = [\"zo\u{eb}@example.org\"]\n");
    let config = parse(&text).unwrap();
    for user in ["zo\u{eb}@example.org", "zoe\u{308}@example.org"] {
        assert_eq!(config.account_of(user).map(AccountName::as_str), Some("zoe"), "{user:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}|([a-z_]{1,8} ?=? ?[\\[\\]\"{}0-9.,a-z\n]{0,20}\n){0,8}") {
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.problems().is_empty());
            prop_assert!(!problems.to_string().is_empty());
        }
    }

    #[test]
    fn a_good_file_with_a_wrong_spot_is_read_or_refused(at in 0usize..3000, cut in 0usize..40, put in "[\\PC\n]{0,12}") {
        let text: Vec<char> = include_str!("golden/full.toml").chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        let mutated: String = text[..at].iter().copied().chain(put.chars()).chain(text[end..].iter().copied()).collect();
        if let Err(problems) = parse(&mutated) {
            prop_assert!(!problems.to_string().is_empty());
        }
    }
}

#[test]
fn every_key_is_documented_and_no_other() {
    let documented = include_str!("../../docs/configuration.md");
    let table: toml::Table = include_str!("golden/full.toml").parse().unwrap();
    let mut keys = Vec::new();
    collect_keys(&toml::Value::Table(table), &mut keys);
    for key in &keys {
        assert!(documented.contains(&format!("`{key}`")), "docs/configuration.md does not mention `{key}`");
    }
    let rows = documented.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for row in rows {
        assert!(keys.iter().any(|key| key == row), "docs/configuration.md has `{row}`, which does not exist");
    }
    for block in documented.split("```toml\n").skip(1) {
        parse(block.split("```").next().unwrap()).unwrap();
    }
}

/// The names of settings, without the names that operators choose (of transports, domains, accounts, local parts).
fn collect_keys(value: &toml::Value, keys: &mut Vec<String>) {
    match value {
        toml::Value::Array(items) => items.iter().for_each(|item| collect_keys(item, keys)),
        toml::Value::Table(table) => {
            for (key, value) in table {
                let chosen =
                    matches!(key.as_str(), "transports" | "domains" | "accounts" | "fixed" | "replies");
                match value {
                    toml::Value::Table(inner) if chosen => {
                        inner.values().for_each(|value| collect_keys(value, keys));
                    }
                    toml::Value::Table(_) => collect_keys(value, keys),
                    toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                        collect_keys(value, keys);
                    }
                    _ => keys.push(key.clone()),
                }
            }
        }
        _ => {}
    }
}
