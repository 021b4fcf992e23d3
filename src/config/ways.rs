//! Reads `[transports]`: the ways out that scripts choose from.
//!
//! Each kind has keys of its own; a key that stands at a kind that cannot use it is a mistake, for whoever wrote it
//! believes that it does something.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::directory::parse_reply;
use super::problems::Problem;
use super::read::{Look, host_name};
use super::section::{Section, did_you_mean};
use super::{Host, IpPolicy, PrivateCa, TlsPolicy, Transport, TransportCommon, TransportKind};
use crate::names::TransportName;

/// IANA: smtp.
const SMTP_PORT: u16 = 25;

/// What `kind` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Direct,
    Smtp,
    Fail,
}

const KINDS: [(&str, Kind); 3] = [("direct", Kind::Direct), ("smtp", Kind::Smtp), ("fail", Kind::Fail)];

/// Kinds that connect to somebody.
const CONNECTING: &[Kind] = &[Kind::Direct, Kind::Smtp];
/// Kinds that go to one host.
const TO_A_HOST: &[Kind] = &[Kind::Smtp];

/// The keys that not all kinds have, and which do.
const KEYS: [(&str, &[Kind]); 23] = [
    ("port", CONNECTING),
    ("host", TO_A_HOST),
    ("reply", &[Kind::Fail]),
    ("at_submission", &[Kind::Fail]),
    ("ehlo", CONNECTING),
    ("tls", CONNECTING),
    ("verify", CONNECTING),
    ("ca_file", CONNECTING),
    ("ip", CONNECTING),
    ("source_ipv4", CONNECTING),
    ("source_ipv6", CONNECTING),
    ("concurrency", CONNECTING),
    ("concurrency_per_destination", CONNECTING),
    ("messages_per_connection", CONNECTING),
    ("keep_idle", CONNECTING),
    ("connect_timeout", CONNECTING),
    ("greeting_timeout", CONNECTING),
    ("tls_timeout", CONNECTING),
    ("command_timeout", CONNECTING),
    ("block_timeout", CONNECTING),
    ("data_timeout", CONNECTING),
    ("recipients_max", CONNECTING),
    ("kind", &[Kind::Direct, Kind::Smtp, Kind::Fail]),
];

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
        let common = common(&mut table, look);
        let kind = kind.and_then(|kind| details(&mut table, kind));
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
    for (key, kinds) in KEYS {
        if table.get(key).is_none() {
            continue;
        }
        let Some(kind) = kind.filter(|kind| !kinds.contains(kind)) else { continue };
        let message = format!("a transport of kind \"{}\" has no `{key}`", kind.as_str());
        let only: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let help = match (key, kind) {
            ("host", Kind::Direct) => {
                "it goes to the hosts that the recipient's domain names (MX); a smarthost is kind = \"smtp\""
                    .to_owned()
            }
            _ => format!("`{key}` is for {}", only.join(", ")),
        };
        let problem = Problem::new(table.key_place(key), message, "not for this kind");
        table.reader.report(problem.help(help));
    }
}

/// What is a kind's own.
fn details(table: &mut Section<'_>, kind: Kind) -> Option<TransportKind> {
    let port =
        |table: &mut Section<'_>, default: u16| table.number("port", u64::from(default), 1..=65535) as u16;
    match kind {
        Kind::Direct => Some(TransportKind::Direct { port: port(table, SMTP_PORT) }),
        Kind::Smtp => {
            let port = port(table, SMTP_PORT);
            let host = table.parsed("host", "a host name or an IP address", parse_host);
            if !table.has("host") {
                table.missing("host", "host = \"smarthost.example.net\"");
            }
            Some(TransportKind::Smtp { host: host?, port })
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
fn word<T: Copy>(table: &mut Section<'_>, key: &'static str, words: &[(&str, T)]) -> Option<T> {
    let names: Vec<String> = words.iter().map(|(name, _)| format!("{name:?}")).collect();
    table.parsed(key, &format!("one of {}", names.join(", ")), |text| {
        let found = words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        found.ok_or_else(|| did_you_mean(text, words.iter().map(|(name, _)| *name)))
    })
}

fn common(table: &mut Section<'_>, look: Look) -> TransportCommon {
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
    let tls = word(table, "tls", &policies).unwrap_or(default.tls);
    let verify = table.flag("verify", default.verify);
    if verify && table.has("verify") && tls != TlsPolicy::Required {
        let message = "`verify = true` needs `tls = \"required\"`";
        let help = "a peer that is asked to show who it is, and does not, gets no mail: that is `required`";
        let place = table.key_place("verify");
        table.reader.report(Problem::new(place, message, "nobody is verified here").help(help));
    }
    let many = 1..=100_000;
    let mut count = |key, default: usize| table.number(key, default as u64, many.clone()) as usize;
    TransportCommon {
        concurrency: count("concurrency", default.concurrency),
        concurrency_per_destination: count(
            "concurrency_per_destination",
            default.concurrency_per_destination,
        ),
        messages_per_connection: count("messages_per_connection", default.messages_per_connection),
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

/// Authorities of the operator's own. A file that cannot be used is a mistake: nothing is trusted in its place.
fn private_ca(table: &mut Section<'_>, look: Look) -> Option<Arc<PrivateCa>> {
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
