//! Reads `[transports]`: the ways out that scripts choose from.
//!
//! Each kind has keys of its own; a key that stands at a kind that cannot use it is a mistake, for whoever wrote it
//! believes that it does something.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::directory::parse_reply;
use super::login::{login, name_and_password};
use super::problems::Problem;
use super::read::{Look, host_name};
use super::section::{Section, did_you_mean};
use super::{
    Host, IpPolicy, PrivateCa, Proxy, Rate, Service, Smarthost, TlsPolicy, Transport, TransportCommon,
    TransportKind,
};
use crate::names::TransportName;

/// IANA: smtp.
const SMTP_PORT: u16 = 25;
/// IANA: submission.
const SUBMISSION_PORT: u16 = 587;
/// IANA: submissions.
const SUBMISSIONS_PORT: u16 = 465;
/// IANA: socks.
const SOCKS_PORT: u16 = 1080;

/// What `kind` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Direct,
    Smtp,
    Submission,
    Submissions,
    Socks,
    Fail,
}

const KINDS: [(&str, Kind); 6] = [
    ("direct", Kind::Direct),
    ("smtp", Kind::Smtp),
    ("submission", Kind::Submission),
    ("submissions", Kind::Submissions),
    ("socks", Kind::Socks),
    ("fail", Kind::Fail),
];

/// Kinds that go to one host.
const TO_A_HOST: &[Kind] = &[Kind::Smtp, Kind::Submission, Kind::Submissions];
/// Kinds that show who we are.
const WITH_LOGIN: &[Kind] = &[Kind::Smtp, Kind::Submission, Kind::Submissions, Kind::Socks];

/// The keys that only some kinds have, and which do. All others are for every kind that connects to somebody.
const SOME: [(&str, &[Kind]); 13] = [
    ("host", TO_A_HOST),
    ("username", WITH_LOGIN),
    ("password", WITH_LOGIN),
    ("password_file", WITH_LOGIN),
    ("password_env", WITH_LOGIN),
    ("mechanisms", TO_A_HOST),
    ("allow_plaintext_auth", TO_A_HOST),
    ("proxy", &[Kind::Socks]),
    ("remote_ips", &[Kind::Socks]),
    ("remote_hostname", &[Kind::Socks]),
    ("ehlo", &[Kind::Direct, Kind::Smtp, Kind::Submission, Kind::Submissions]),
    ("reply", &[Kind::Fail]),
    ("at_submission", &[Kind::Fail]),
];

/// The keys of every kind that connects to somebody.
const CONNECTING: [&str; 20] = [
    "port",
    "tls",
    "verify",
    "ca_file",
    "ip",
    "source_ipv4",
    "source_ipv6",
    "concurrency",
    "concurrency_per_destination",
    "messages_per_connection",
    "messages_per_second",
    "messages_per_minute",
    "keep_idle",
    "connect_timeout",
    "greeting_timeout",
    "tls_timeout",
    "command_timeout",
    "block_timeout",
    "data_timeout",
    "recipients_max",
];

/// What only a queue has a use for: keys that mean nothing where one message is sent.
const FOR_MANY: [&str; 4] =
    ["concurrency", "concurrency_per_destination", "messages_per_connection", "keep_idle"];

impl Kind {
    fn as_str(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// All transports; `direct` is there whether it was written down or not.
pub(super) fn transports(section: Section<'_>, look: Look) -> BTreeMap<TransportName, Arc<Transport>> {
    let reader = section.reader;
    let mut all: BTreeMap<_, _> = BTreeMap::new();
    for (name, place, value) in section.entries() {
        let title = format!("[transports.{name}]");
        let Some(mut table) = reader.table(&title, place.clone(), value) else { continue };
        let kind = kind(&mut table, name == TransportName::DIRECT);
        // Read in any case, so that a table without a kind is not blamed for its other keys as well.
        misplaced(&mut table, kind);
        let mut common = common(&mut table, kind, look);
        let kind = kind.and_then(|kind| details(&mut table, kind, look));
        if matches!(kind, Some(TransportKind::Socks { .. })) {
            common.ehlo = table.parsed("remote_hostname", "a domain name", host_name);
        }
        table.finish();
        match TransportName::new(name) {
            Ok(checked) if checked == TransportName::local() => {
                let message = "a transport cannot be named `local`";
                let help = "`local` is delivery into this server's own mailboxes";
                reader.report(Problem::new(place, message, "this name is taken").help(help));
            }
            Ok(checked) => {
                if let Some(kind) = kind {
                    all.insert(checked.clone(), Arc::new(Transport { name: checked, kind, common }));
                }
            }
            Err(error) => reader.report(Problem::new(
                place,
                error.to_string(),
                "expected a name such as sending-service",
            )),
        }
    }
    all.entry(TransportName::direct()).or_insert_with(|| Arc::new(direct()));
    all
}

/// The way of `sendmail.toml`: its top is the table of a transport to one host. Where it names no `kind`, the port tells
/// which; without a port it is submissions (RFC 8314 §3.3).
pub(super) fn to_one_host(table: &mut Section<'_>, name: TransportName, look: Look) -> Option<Transport> {
    let given = table.has("kind");
    let kind = if given { kind(table, false) } else { kind_of_port(table) };
    if let Some(other) = kind.filter(|kind| !TO_A_HOST.contains(kind)) {
        let message = format!("sendmail goes to one host: `kind` cannot be \"{}\"", other.as_str());
        let problem =
            Problem::new(table.key_place("kind"), message, "expected smtp, submission, submissions");
        table.reader.report(problem);
        return None;
    }
    for key in FOR_MANY.into_iter().filter(|key| table.has(key)) {
        let message = format!("`{key}` has no meaning for a single message");
        table.reader.report(Problem::new(table.key_place(key), message, "only for transports of the server"));
    }
    misplaced(table, kind);
    let mut common = common(table, kind, look);
    common.keep_idle = Duration::ZERO;
    let kind = details(table, kind?, look)?;
    Some(Transport { name, kind, common })
}

/// The kind that belongs to a port.
fn kind_of_port(table: &mut Section<'_>) -> Option<Kind> {
    table.get("kind");
    let port =
        table.get("port").map(|value| value.get_ref().as_integer().map(|port| port.as_str().to_owned()));
    match port.as_ref().map(Option::as_deref) {
        None | Some(Some("465")) => Some(Kind::Submissions),
        Some(Some("587")) => Some(Kind::Submission),
        Some(Some("25")) => Some(Kind::Smtp),
        Some(Some(other)) => {
            let message = format!("port {other} does not tell how the server is spoken to");
            let help = "kind = \"submissions\" is TLS at once, \"submission\" is STARTTLS, \"smtp\" is as servers do";
            let problem = Problem::new(table.key_place("port"), message, "needs a `kind`");
            table.reader.report(problem.help(help));
            None
        }
        // No number: whoever reads the port says so.
        Some(None) => Some(Kind::Submissions),
    }
}

/// The built-in transport as it is when the configuration does not mention it.
pub fn direct() -> Transport {
    Transport {
        name: TransportName::direct(),
        kind: TransportKind::Direct { port: SMTP_PORT },
        common: TransportCommon::default(),
    }
}

impl Default for TransportCommon {
    fn default() -> Self {
        Self {
            ehlo: None,
            tls: TlsPolicy::Opportunistic,
            verify: true,
            ca: None,
            ip: IpPolicy::default(),
            source_ipv4: None,
            source_ipv6: None,
            concurrency: 200,
            concurrency_per_destination: 20,
            messages_per_connection: 100,
            rate: Rate::default(),
            keep_idle: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(30),
            greeting_timeout: Duration::from_mins(5),
            tls_timeout: Duration::from_mins(1),
            command_timeout: Duration::from_mins(5),
            block_timeout: Duration::from_mins(3),
            data_timeout: Duration::from_mins(10),
            recipients_max: 100,
        }
    }
}

fn kind(table: &mut Section<'_>, is_direct: bool) -> Option<Kind> {
    let names = KINDS.map(|(name, _)| name);
    let expected = names.map(|name| format!("{name:?}")).join(", ");
    let given = table.parsed("kind", &format!("one of {expected}"), |text| {
        let found = KINDS.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
        found.ok_or_else(|| did_you_mean(text, names.into_iter()))
    });
    if !table.has("kind") && !is_direct {
        table.missing("kind", "kind = \"smtp\" and host = \"smarthost.example.net\"");
    }
    if is_direct && given.is_some_and(|kind| kind != Kind::Direct) {
        let message = "the transport `direct` must be of kind \"direct\"";
        let help = "scripts rely on it: give a smarthost a name of its own";
        table.reader.report(Problem::new(table.key_place("kind"), message, "not for this name").help(help));
        // The rest is read as what it was meant to be.
        return given;
    }
    given.or((is_direct && !table.has("kind")).then_some(Kind::Direct))
}

/// Reports the keys that mean nothing to a kind.
fn misplaced(table: &mut Section<'_>, kind: Option<Kind>) {
    let connecting = &KINDS.map(|(_, kind)| kind)[..KINDS.len() - 1];
    let all = SOME.into_iter().chain(CONNECTING.map(|key| (key, connecting)));
    for (key, kinds) in all {
        if table.get(key).is_none() {
            continue;
        }
        let Some(kind) = kind.filter(|kind| !kinds.contains(kind)) else { continue };
        let message = format!("a transport of kind \"{}\" has no `{key}`", kind.as_str());
        let only: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let help = match (key, kind) {
            ("host", Kind::Direct | Kind::Socks) => {
                "it goes to the hosts that the recipient's domain names (MX); a smarthost is kind = \"smtp\""
                    .to_owned()
            }
            ("ehlo", Kind::Socks) => "the name goes with the proxy's address: `remote_hostname`".to_owned(),
            _ => format!("`{key}` is for {}", only.join(", ")),
        };
        let problem = Problem::new(table.key_place(key), message, "not for this kind");
        table.reader.report(problem.help(help));
    }
}

/// What is a kind's own.
fn details(table: &mut Section<'_>, kind: Kind, look: Look) -> Option<TransportKind> {
    match kind {
        Kind::Direct => Some(TransportKind::Direct { port: port(table, SMTP_PORT) }),
        Kind::Smtp => smarthost(table, Service::Smtp, SMTP_PORT, look),
        Kind::Submission => smarthost(table, Service::Submission, SUBMISSION_PORT, look),
        Kind::Submissions => smarthost(table, Service::Submissions, SUBMISSIONS_PORT, look),
        Kind::Socks => {
            let port = port(table, SMTP_PORT);
            let expected = "a proxy such as \"127.0.0.1:1080\" or \"proxy.example.net\"";
            let proxy = table.parsed("proxy", expected, parse_proxy);
            if !table.has("proxy") {
                table.missing("proxy", "proxy = \"127.0.0.1:1080\"");
            }
            let login = name_and_password(table, look);
            let remote_ips = table.list("remote_ips", "an IP address", str::parse::<IpAddr>);
            let remote_ips = remote_ips.into_iter().map(|placed| placed.value).collect();
            let (host, proxy_port) = proxy?;
            let proxy = Proxy { host, port: proxy_port, login, remote_ips };
            Some(TransportKind::Socks { port, proxy })
        }
        Kind::Fail => {
            let reply = table.parsed("reply", "a reply such as \"550 5.7.1 not from here\"", parse_reply);
            if !table.has("reply") {
                table.missing("reply", "reply = \"550 5.7.1 this mail goes nowhere\"");
            }
            let at_submission = table.flag("at_submission", false);
            Some(TransportKind::Fail { reply: reply?, at_submission })
        }
    }
}

fn port(table: &mut Section<'_>, default: u16) -> u16 {
    table.number("port", u64::from(default), 1..=65535) as u16
}

fn smarthost(
    table: &mut Section<'_>,
    service: Service,
    default_port: u16,
    look: Look,
) -> Option<TransportKind> {
    let port = port(table, default_port);
    let host = table.parsed("host", "a host name or an IP address", parse_host);
    if !table.has("host") {
        table.missing("host", "host = \"smarthost.example.net\"");
    }
    let login = login(table, look);
    Some(TransportKind::Smarthost(Smarthost { service, host: host?, port, login }))
}

fn parse_proxy(text: &str) -> Result<(Host, u16), String> {
    if let Ok(both) = text.parse::<SocketAddr>() {
        return Ok((Host::Ip(both.ip()), both.port()));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok((parse_host(text)?, SOCKS_PORT));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => {
            let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
            Ok((parse_host(host)?, port))
        }
        None => Ok((parse_host(text)?, SOCKS_PORT)),
    }
}

fn parse_host(text: &str) -> Result<Host, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(Host::Ip(ip));
    }
    host_name(text).map(Host::Name).map_err(|error| match text.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => format!("the port of {text:?} belongs into `port`"),
        _ => error,
    })
}

/// One of a few words.
pub(super) fn word<T: Copy>(table: &mut Section<'_>, key: &'static str, words: &[(&str, T)]) -> Option<T> {
    let names: Vec<String> = words.iter().map(|(name, _)| format!("{name:?}")).collect();
    table.parsed(key, &format!("one of {}", names.join(", ")), |text| {
        let found = words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        found.ok_or_else(|| did_you_mean(text, words.iter().map(|(name, _)| *name)))
    })
}

fn common(table: &mut Section<'_>, kind: Option<Kind>, look: Look) -> TransportCommon {
    let default = TransportCommon::default();
    let policies = [
        ("required", TlsPolicy::Required),
        ("opportunistic", TlsPolicy::Opportunistic),
        ("none", TlsPolicy::None),
    ];
    let families = [
        ("prefer4", IpPolicy::Prefer4),
        ("prefer6", IpPolicy::Prefer6),
        ("only4", IpPolicy::Only4),
        ("only6", IpPolicy::Only6),
    ];
    let tls = word(table, "tls", &policies).unwrap_or_else(|| usual_tls(table, kind));
    if kind == Some(Kind::Submissions) && tls != TlsPolicy::Required {
        let message = "kind \"submissions\" is TLS from the first byte: `tls` can only be \"required\"";
        let help = "where its certificate cannot be verified: verify = false, or better ca_file";
        let place = table.key_place("tls");
        table.reader.report(Problem::new(place, message, "not for this kind").help(help));
    }
    let verify = table.flag("verify", default.verify);
    if verify && table.has("verify") && tls != TlsPolicy::Required {
        let message = "`verify = true` needs `tls = \"required\"`";
        let help = "a peer that is asked to show who it is, and does not, gets no mail: that is `required`";
        let place = table.key_place("verify");
        table.reader.report(Problem::new(place, message, "nobody is verified here").help(help));
    }
    let many = 1..=100_000;
    let rate = Rate {
        per_second: table.number_or_off("messages_per_second", None, many.clone()).map(|max| max as u32),
        per_minute: table.number_or_off("messages_per_minute", None, many.clone()).map(|max| max as u32),
    };
    let mut count = |key, default: usize| table.number(key, default as u64, many.clone()) as usize;
    TransportCommon {
        concurrency: count("concurrency", default.concurrency),
        concurrency_per_destination: count(
            "concurrency_per_destination",
            default.concurrency_per_destination,
        ),
        messages_per_connection: count("messages_per_connection", default.messages_per_connection),
        rate,
        recipients_max: count("recipients_max", default.recipients_max),
        ehlo: table.parsed("ehlo", "a domain name", host_name),
        tls,
        verify,
        ca: private_ca(table, look),
        ip: word(table, "ip", &families).unwrap_or_default(),
        source_ipv4: table.parsed("source_ipv4", "an IPv4 address", str::parse::<Ipv4Addr>),
        source_ipv6: table.parsed("source_ipv6", "an IPv6 address", str::parse::<Ipv6Addr>),
        keep_idle: table.duration_or_off("keep_idle", Some(default.keep_idle)).unwrap_or_default(),
        connect_timeout: table.duration("connect_timeout", default.connect_timeout),
        greeting_timeout: table.duration("greeting_timeout", default.greeting_timeout),
        tls_timeout: table.duration("tls_timeout", default.tls_timeout),
        command_timeout: table.duration("command_timeout", default.command_timeout),
        block_timeout: table.duration("block_timeout", default.block_timeout),
        data_timeout: table.duration("data_timeout", default.data_timeout),
    }
}

/// Who is given a password must show who it is, unless the operator says otherwise.
fn usual_tls(table: &Section<'_>, kind: Option<Kind>) -> TlsPolicy {
    match kind {
        Some(Kind::Submission | Kind::Submissions) => TlsPolicy::Required,
        Some(Kind::Smtp) if table.has("username") => TlsPolicy::Required,
        _ => TlsPolicy::Opportunistic,
    }
}

/// Authorities of the operator's own. A file that cannot be used is a mistake: nothing is trusted in its place.
pub(super) fn private_ca(table: &mut Section<'_>, look: Look) -> Option<Arc<PrivateCa>> {
    let file = table.path("ca_file")?;
    let mut certificates = Vec::new();
    if look == Look::Files {
        let report = |place: Range<usize>, message: String, label: &str| {
            table.reader.report(Problem::new(place, message, label));
        };
        let shown = file.value.display();
        match std::fs::read(&file.value) {
            Ok(text) => match CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
                Ok(found) if !found.is_empty() => certificates = found,
                Ok(_) => report(file.place, format!("{shown} holds no certificate"), "expected PEM"),
                Err(error) => report(file.place, format!("cannot read {shown}: {error}"), "expected PEM"),
            },
            Err(error) => report(file.place, format!("cannot read {shown}: {error}"), "not readable"),
        }
    }
    Some(Arc::new(PrivateCa { file: file.value, certificates }))
}
