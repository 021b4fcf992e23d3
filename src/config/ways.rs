//! Reads `[transports]`: the ways out that scripts choose from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::problems::Problem;
use super::read::host_name;
use super::section::{Section, did_you_mean};
use super::{Host, TlsPolicy, Transport, TransportCommon, TransportKind};
use crate::names::TransportName;

/// IANA: smtp.
const SMTP_PORT: u64 = 25;

/// All transports; `direct` is there whether it was written down or not.
pub(super) fn transports(section: Section<'_>) -> BTreeMap<TransportName, Arc<Transport>> {
    let reader = section.reader;
    let mut all: BTreeMap<_, _> = BTreeMap::new();
    for (name, place, value) in section.entries() {
        let title = format!("[transports.{name}]");
        let Some(mut table) = reader.table(&title, place.clone(), value) else { continue };
        let is_direct = name == TransportName::DIRECT;
        let kind = kind(&mut table, is_direct);
        let common = common(&mut table);
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
        kind: TransportKind::Direct { port: SMTP_PORT as u16 },
        common: TransportCommon::default(),
    }
}

impl Default for TransportCommon {
    fn default() -> Self {
        Self {
            ehlo: None,
            tls: TlsPolicy::Opportunistic,
            concurrency: 200,
            concurrency_per_destination: 20,
            messages_per_connection: 100,
            keep_idle: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(30),
            command_timeout: Duration::from_mins(5),
            data_timeout: Duration::from_mins(10),
            recipients_max: 100,
        }
    }
}

fn kind(table: &mut Section<'_>, is_direct: bool) -> Option<TransportKind> {
    let kinds = ["direct", "smtp"];
    let given = table.parsed("kind", "\"direct\" or \"smtp\"", |text| {
        let found = kinds.iter().find(|kind| **kind == text);
        found.copied().ok_or_else(|| did_you_mean(text, kinds.into_iter()))
    });
    if !table.has("kind") && !is_direct {
        table.missing("kind", "kind = \"smtp\" and host = \"smarthost.example.net\"");
    }
    let port = table.number("port", SMTP_PORT, 1..=65535) as u16;
    // Read in both cases, so that a table without a kind is not blamed for its host as well.
    let host_place = table.key_place("host");
    let host = table.parsed("host", "a host name or an IP address", parse_host);
    if is_direct && given == Some("smtp") {
        let message = "the transport `direct` must be of kind \"direct\"";
        let help = "scripts rely on it: give a smarthost a name of its own";
        table.reader.report(Problem::new(table.key_place("kind"), message, "not for this name").help(help));
        return None;
    }
    match given.or(is_direct.then_some("direct"))? {
        "direct" => {
            if table.has("host") {
                let problem = Problem::new(
                    host_place,
                    "a transport of kind \"direct\" has no host",
                    "not for this kind",
                );
                table.reader.report(problem.help("it goes to the hosts that the recipient's domain names (MX); a smarthost is kind = \"smtp\""));
            }
            Some(TransportKind::Direct { port })
        }
        _ => {
            if !table.has("host") {
                table.missing("host", "host = \"smarthost.example.net\"");
            }
            Some(TransportKind::Smtp { host: host?, port })
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

fn common(table: &mut Section<'_>) -> TransportCommon {
    let default = TransportCommon::default();
    let policies = [
        ("required", TlsPolicy::Required),
        ("opportunistic", TlsPolicy::Opportunistic),
        ("none", TlsPolicy::None),
    ];
    let tls = table.parsed("tls", "\"required\", \"opportunistic\" or \"none\"", |text| {
        let found = policies.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, policy)| *policy)
            .ok_or_else(|| did_you_mean(text, policies.iter().map(|(name, _)| *name)))
    });
    let many = 1..=100_000;
    TransportCommon {
        ehlo: table.parsed("ehlo", "a domain name", host_name),
        tls: tls.unwrap_or(default.tls),
        concurrency: table.number("concurrency", default.concurrency as u64, many.clone()) as usize,
        concurrency_per_destination: table.number(
            "concurrency_per_destination",
            default.concurrency_per_destination as u64,
            many.clone(),
        ) as usize,
        messages_per_connection: table.number(
            "messages_per_connection",
            default.messages_per_connection as u64,
            many.clone(),
        ) as usize,
        keep_idle: table.duration_or_off("keep_idle", Some(default.keep_idle)).unwrap_or_default(),
        connect_timeout: table.duration("connect_timeout", default.connect_timeout),
        command_timeout: table.duration("command_timeout", default.command_timeout),
        data_timeout: table.duration("data_timeout", default.data_timeout),
        recipients_max: table.number("recipients_max", default.recipients_max as u64, many) as usize,
    }
}
