//! From the text of `waypost.toml` to a checked [`Config`]: the top of the file, listeners, DNS, queue, limits.
//!
//! Everything is read to the end, whatever is wrong on the way, so that all problems are shown at once. What has a
//! reasonable default has one; the least that a configuration needs is a hostname, a domain and an account.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeTable;

use super::problems::{ConfigProblems, Problem};
use super::section::{Placed, Reader, Section};
use super::{
    Config, Dns, FixedName, Limits, Listener, ListenerKind, Metrics, Queue, RetrySchedule, ScriptLimits,
    directory, login, tls, ways,
};
use crate::address::Domain;
use crate::names::AccountName;

/// Where data stands unless the configuration says otherwise.
pub const DATA_DIR_DEFAULT: &str = "/var/lib/waypost";
/// Where scripts stand unless the configuration says otherwise: beside the configuration file.
pub const SCRIPTS_DIR_DEFAULT: &str = "scripts";

/// How much of the world outside the text is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The text alone.
    Text,
    /// Also whether the files that it names are there.
    Files,
}

/// Reads and checks the text of a configuration file.
pub(super) fn config(text: &str, file: &Path, base: &Path, look: Look) -> Result<Config, ConfigProblems> {
    document(text, file, base, |top| whole(top, look))
}

/// Reads a TOML document; `read` gives `None` only where it reported a problem.
pub(super) fn document<T>(
    text: &str,
    file: &Path,
    base: &Path,
    read: impl FnOnce(Section<'_>) -> Option<T>,
) -> Result<T, ConfigProblems> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let syntax: Vec<Problem> = errors
        .iter()
        .map(|error| {
            let place = error.span().unwrap_or(0..0);
            Problem::new(place, format!("not TOML: {}", error.message()), "here")
        })
        .collect();
    let named = file.display().to_string();
    // What follows a syntax error is guesswork: complaints about it would send the operator the wrong way.
    if !syntax.is_empty() {
        return Err(ConfigProblems::new(named, text, syntax));
    }
    let reader = Reader::new(base);
    let found = read(Section::new(&reader, "the configuration", 0..0, document.get_ref()));
    let problems = reader.into_problems();
    match found {
        Some(found) if problems.is_empty() => Ok(found),
        _ => Err(ConfigProblems::new(named, text, problems)),
    }
}

/// Reads a file, and tells what relative paths in it are relative to. `hint` helps who named one that is not there.
pub(super) fn file(file: &Path, hint: &str) -> Result<(String, PathBuf), ConfigProblems> {
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot read {}: {error}", file.display());
        let help = (error.kind() == std::io::ErrorKind::NotFound).then(|| hint.to_owned());
        ConfigProblems::unreadable(file.display().to_string(), message, help)
    };
    let bytes = std::fs::read(file).map_err(unreadable)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| not_utf8(error.as_bytes(), error.utf8_error().valid_up_to(), file))?;
    let mut base = std::path::absolute(file).map_err(unreadable)?;
    base.pop();
    Ok((text, base))
}

/// A file that is no text: shown up to the first wrong byte.
fn not_utf8(bytes: &[u8], valid_up_to: usize, file: &Path) -> ConfigProblems {
    let text = String::from_utf8_lossy(bytes);
    let problem =
        Problem::new(valid_up_to..valid_up_to, "the file is not UTF-8 text", "the first byte that is not");
    ConfigProblems::new(file.display().to_string(), &text, vec![problem])
}

fn whole(mut top: Section<'_>, look: Look) -> Option<Config> {
    let reader = top.reader;
    let hostname = top.parsed("hostname", "this server's name, such as \"mail.example.org\"", host_name);
    if !top.has("hostname") {
        top.missing("hostname", "hostname = \"mail.example.org\": this server's name, as others look it up");
    }
    let data_dir = top.path("data_dir").map_or_else(|| DATA_DIR_DEFAULT.into(), |path| path.value);
    let scripts_dir = top.path("scripts_dir");
    if let Some(dir) = scripts_dir.as_ref().filter(|dir| look == Look::Files && !dir.value.is_dir()) {
        let message = format!("there is no directory {}", dir.value.display());
        reader.report(
            Problem::new(dir.place.clone(), message, "not there")
                .help("make it, or leave `scripts_dir` out: without scripts all mail goes direct"),
        );
    }
    let scripts_dir = scripts_dir.map_or_else(|| reader.path(SCRIPTS_DIR_DEFAULT), |path| path.value);
    let tls = tls::tls(top.section("tls", "[tls]"), hostname.as_ref(), look);
    let listeners = listeners(&mut top, tls.is_some());
    let auth = login::auth(top.section("auth", "[auth]"), tls.is_some(), &listeners);
    let dns = dns(top.section("dns", "[dns]"));
    let transports = ways::transports(top.section("transports", "[transports]"), look);
    let directory = directory::directory(&mut top);
    let postmaster = top.placed("postmaster", "the name of an account", AccountName::new);
    let postmaster =
        postmaster.and_then(|name| directory::existing(reader, "postmaster", name, &directory.accounts));
    let only = directory.accounts.keys().next().filter(|_| directory.accounts.len() == 1).cloned();
    let queue = queue(top.section("queue", "[queue]"));
    let limits = limits(top.section("limits", "[limits]"));
    let mut script_section = top.section("scripts", "[scripts]");
    let shadow_dir = script_section.path("shadow").map(|path| path.value);
    let (script_limits, require_tests) = scripts(script_section);
    let metrics = metrics(top.section("metrics", "[metrics]"));
    top.finish();
    Some(Config {
        hostname: hostname?,
        data_dir,
        scripts_dir,
        listeners,
        tls,
        auth,
        dns,
        transports,
        domains: directory.domains,
        accounts: directory.accounts,
        postmaster: postmaster.or(only),
        queue,
        limits,
        script_limits,
        shadow_dir,
        require_tests,
        metrics,
    })
}

/// A domain name that is no address literal.
pub(super) fn host_name(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|error| format!("{text:?}: {error}"))
}

const KINDS: [ListenerKind; 5] = [
    ListenerKind::Smtp,
    ListenerKind::Submission,
    ListenerKind::Submissions,
    ListenerKind::Imap,
    ListenerKind::Imaps,
];

/// IANA service names and ports: smtp, submission, submissions (RFC 8314 §7.3), imap, imaps.
pub const fn default_port(kind: ListenerKind) -> u16 {
    match kind {
        ListenerKind::Smtp => 25,
        ListenerKind::Submission => 587,
        ListenerKind::Submissions => 465,
        ListenerKind::Imap => 143,
        ListenerKind::Imaps => 993,
    }
}

/// The listeners; without any, the usual ones on all addresses (those that need TLS only when there is TLS).
fn listeners(top: &mut Section<'_>, tls: bool) -> Vec<Listener> {
    let Some(value) = top.get("listeners") else {
        let kinds = KINDS.into_iter().filter(|kind| tls || *kind == ListenerKind::Smtp);
        return kinds
            .flat_map(|kind| everywhere(default_port(kind)).map(|address| plain_listener(kind, address)))
            .collect();
    };
    let reader = top.reader;
    let Some(array) = value.get_ref().as_array() else {
        let problem =
            Problem::new(value.span(), "`listeners` must be tables", "written [[listeners]], one for each");
        reader.report(problem);
        return Vec::new();
    };
    let mut seen: BTreeMap<SocketAddr, std::ops::Range<usize>> = BTreeMap::new();
    let mut all = Vec::new();
    for item in array {
        let Some(section) = reader.table("[[listeners]]", item.span(), item) else { continue };
        for (listener, place) in listener(section, tls) {
            // Port 0 takes any free port: two of them do not meet.
            let first = seen.get(&listener.address).filter(|_| listener.address.port() != 0);
            if let Some(first) = first {
                if !listener.required {
                    continue; // Its IPv4 twin says it.
                }
                let message = format!("two listeners on {}", listener.address);
                reader.report(Problem::new(place, message, "and here").also(first.clone(), "here"));
                continue;
            }
            seen.insert(listener.address, place);
            all.push(listener);
        }
    }
    all
}

fn plain_listener(kind: ListenerKind, address: SocketAddr) -> Listener {
    Listener {
        kind,
        address,
        required: address.is_ipv4(),
        hostname: None,
        relay_from: Vec::new(),
        allow_plaintext_auth: false,
    }
}

/// Every address of the machine.
pub(super) fn everywhere(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
}

/// One `[[listeners]]`: as many listeners as it has addresses.
fn listener(mut section: Section<'_>, tls: bool) -> Vec<(Listener, std::ops::Range<usize>)> {
    let reader = section.reader;
    let kind = section.parsed(
        "kind",
        "one of \"smtp\", \"submission\", \"submissions\", \"imap\", \"imaps\"",
        parse_kind,
    );
    if !section.has("kind") {
        section.missing("kind", "kind = \"smtp\"");
    }
    let port_given = section.has("port");
    let port = kind.map_or(0, default_port);
    let port = section.number("port", port.into(), 0..=65535) as u16;
    let expected = "an address such as \"127.0.0.1\", \"127.0.0.1:2525\", \"[::1]:2525\" or \"::\"";
    let addresses = section.list("address", expected, |text| address_and_port(text, port, port_given));
    let named = section.has("address");
    let addresses = if named {
        addresses
    } else {
        everywhere(port).map(|value| Placed { value, place: section.place.clone() }).into()
    };
    let hostname = section.parsed("hostname", "a domain name", host_name);
    let relay_from =
        section.list("relay_from", "a network such as \"192.0.2.0/24\" or an address", parse_network);
    let allow_plaintext_auth = section.flag("allow_plaintext_auth", false);
    let imap = kind.filter(|kind| matches!(kind, ListenerKind::Imap | ListenerKind::Imaps));
    if let (Some(kind), Some(first)) = (imap, relay_from.first()) {
        let message = format!("`relay_from` has no meaning for {}", kind.as_str());
        reader.report(Problem::new(first.place.clone(), message, "only for smtp, submission, submissions"));
    }
    if let Some(kind) =
        kind.filter(|kind| !tls && needs_tls(*kind, allow_plaintext_auth, !relay_from.is_empty()))
    {
        let message = format!("a listener of kind {} needs [tls]", kind.as_str());
        let help = if kind.tls_at_once() {
            "add [tls] with `certificate` and `key`, or [tls.acme]"
        } else {
            "add [tls] with `certificate` and `key`, or [tls.acme]; or, where something else encrypts, allow_plaintext_auth = true"
        };
        let place = section.key_place("kind");
        reader.report(Problem::new(place, message, "nobody could log in here").help(help));
    }
    section.finish();
    let Some(kind) = kind else { return Vec::new() };
    let relay_from: Vec<IpNet> = relay_from.into_iter().map(|net| net.value).collect();
    let make = |address: Placed<SocketAddr>| {
        let plain = plain_listener(kind, address.value);
        let listener = Listener {
            required: named || plain.required,
            hostname: hostname.clone(),
            relay_from: relay_from.clone(),
            allow_plaintext_auth,
            ..plain
        };
        (listener, address.place)
    };
    addresses.into_iter().map(make).collect()
}

/// Whether a listener would be of no use without a certificate.
fn needs_tls(kind: ListenerKind, allow_plaintext_auth: bool, relays: bool) -> bool {
    match kind {
        ListenerKind::Smtp => false,
        ListenerKind::Submissions | ListenerKind::Imaps => true,
        ListenerKind::Submission => !allow_plaintext_auth && !relays,
        ListenerKind::Imap => !allow_plaintext_auth,
    }
}

fn parse_kind(text: &str) -> Result<ListenerKind, String> {
    let found = KINDS.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| super::section::did_you_mean(text, KINDS.iter().map(|kind| kind.as_str())))
}

/// `127.0.0.1:2525`, or an address alone and the port from elsewhere.
pub(super) fn address_and_port(text: &str, port: u16, port_given: bool) -> Result<SocketAddr, String> {
    if let Ok(both) = text.parse::<SocketAddr>() {
        return if port_given {
            Err("the port is given twice, here and in `port`".to_owned())
        } else {
            Ok(both)
        };
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, port))
        .map_err(|_| format!("{text:?} is no IP address"))
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map(|network| network.trunc()).map_err(|_| format!("{text:?} is no network"))
}

pub(super) fn dns(mut section: Section<'_>) -> Dns {
    let expected = "an address such as \"127.0.0.1\" or \"127.0.0.1:5353\"";
    let resolvers = section.list("resolvers", expected, |text| address_and_port(text, 53, false));
    let timeout = section.duration("timeout", Duration::from_secs(5));
    let names = section.section("fixed", "[dns.fixed]");
    let fixed = names.entries().into_iter().filter_map(|(name, place, value)| {
        let title = format!("[dns.fixed.{name:?}]");
        let table = section.reader.table(&title, place.clone(), value)?;
        let fixed = fixed_name(table);
        match Domain::parse(name) {
            Ok(domain) => Some((domain, fixed)),
            Err(error) => {
                section.reader.report(Problem::new(
                    place,
                    format!("{name:?}: {error}"),
                    "expected a domain name",
                ));
                None
            }
        }
    });
    let fixed = fixed.collect();
    section.finish();
    Dns { resolvers: resolvers.into_iter().map(|resolver| resolver.value).collect(), fixed, timeout }
}

fn fixed_name(mut section: Section<'_>) -> FixedName {
    let addresses = section.list("addresses", "an IP address", |text| {
        text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no IP address"))
    });
    let mx = section.list("mx", "a preference and a host: \"10 mx.example.org\"", parse_mx);
    section.finish();
    let value = |placed: Placed<IpAddr>| placed.value;
    FixedName {
        addresses: addresses.into_iter().map(value).collect(),
        mx: mx.into_iter().map(|mx| mx.value).collect(),
    }
}

fn parse_mx(text: &str) -> Result<(u16, Domain), String> {
    let (preference, host) = text.trim().split_once(' ').unwrap_or(("10", text.trim()));
    let preference =
        preference.parse().map_err(|_| format!("{preference:?} is no preference (0 to 65535)"))?;
    Ok((preference, host_name(host.trim())?))
}

fn queue(mut section: Section<'_>) -> Queue {
    let default = RetrySchedule::default();
    let retry = RetrySchedule {
        first: section.duration("retry_first", default.first),
        factor: section.fraction("retry_factor", default.factor, 1.0..=100.0),
        max: section.duration("retry_max", default.max),
        jitter: section.fraction("retry_jitter", default.jitter, 0.0..=1.0),
        give_up_after: section.duration_or_never("give_up_after", default.give_up_after),
    };
    let queue = Queue {
        retry,
        concurrency: section.number("concurrency", 500, 1..=100_000) as usize,
        memory_bytes_max: section.size("memory_bytes_max", 64 << 20) as usize,
        script_error_retry: section.duration("script_error_retry", Duration::from_mins(1)),
        recipients_max: section.number("recipients_max", 1_000, 1..=1_000_000) as usize,
        history_kept: section.duration_or_never("history_kept", Duration::from_hours(24 * 30)),
        history_header: history_header(&mut section),
        delay_report_after: section.duration_or_off("delay_report_after", Some(Duration::from_hours(4))),
        failure_copies_to: section.parsed("failure_copies_to", "an address", crate::address::Mailbox::parse),
        suppress_bounced_for: section
            .duration_or_off("suppress_bounced_for", Some(Duration::from_hours(24 * 30))),
        free_bytes_min: section.size_or_off("free_bytes_min", Some(100 << 20)).unwrap_or(0),
    };
    section.finish();
    queue
}

/// Fields by which mail is commonly told apart, and which say little of what is in it.
const HISTORY_HEADER_DEFAULT: [&str; 4] = ["auto-submitted", "list-id", "list-unsubscribe", "precedence"];

fn history_header(section: &mut Section<'_>) -> Vec<String> {
    let given = section.has("history_header");
    let names = section.list("history_header", "the name of a header field", |text| {
        // RFC 5322 §2.2: printable ASCII but the colon.
        let good = !text.is_empty() && text.bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b':');
        good.then(|| text.to_ascii_lowercase())
            .ok_or_else(|| format!("{text:?} is no name of a header field"))
    });
    if given {
        names.into_iter().map(|placed| placed.value).collect()
    } else {
        HISTORY_HEADER_DEFAULT.map(str::to_owned).to_vec()
    }
}

fn limits(mut section: Section<'_>) -> Limits {
    let count = |number: Option<u64>| number.map(|number| number as usize);
    let any = 1..=u64::MAX;
    let limits = Limits {
        message_bytes_max: section.size_or_off("message_bytes_max", Some(50 << 20)).unwrap_or(u64::MAX),
        header_bytes_max: section.size_or_off("header_bytes_max", Some(256 << 10)),
        // RFC 5321 §4.5.3.1.8: at least 100, which is for the operator to know: a test may want less.
        recipients_max: count(section.number_or_off("recipients_max", Some(500), any.clone())),
        connections_max: count(section.number_or_off("connections_max", Some(2_000), any.clone())),
        connections_per_ip_max: count(section.number_or_off(
            "connections_per_ip_max",
            Some(100),
            any.clone(),
        )),
        idle_commands_max: count(section.number_or_off("idle_commands_max", Some(50), any.clone())),
        bad_commands_max: count(section.number_or_off("bad_commands_max", Some(10), any.clone())),
        // RFC 5321 §4.5.3.2.7: at least 5 minutes.
        command_timeout: section.duration_or_never("command_timeout", Duration::from_mins(5)),
        session_timeout: section.duration_or_off("session_timeout", Some(Duration::from_hours(1))),
        auth_failure_delay: section.duration_or_off("auth_failure_delay", Some(Duration::from_secs(2))),
        // RFC 5321 §6.3.
        received_max: count(section.number_or_off("received_max", Some(100), any)).unwrap_or(usize::MAX),
        imap_idle_timeout: section.duration_or_never("imap_idle_timeout", Duration::from_mins(30)),
    };
    section.finish();
    limits
}

fn metrics(mut section: Section<'_>) -> Metrics {
    let listen = section.list("listen", "an address with a port: \"127.0.0.1:9100\"", |text| {
        text.parse::<SocketAddr>().map_err(|_| format!("{text:?} is no IP address with a port"))
    });
    section.finish();
    Metrics { listen: listen.into_iter().map(|address| address.value).collect() }
}

/// How scripts are bounded, and whether they must pass their tests.
fn scripts(mut section: Section<'_>) -> (ScriptLimits, bool) {
    let default = ScriptLimits::default();
    let limits = ScriptLimits {
        operations_max: section.number("operations_max", default.operations_max, 1_000..=1_000_000_000),
        // The call stack is the server's own: more than this could end the process.
        call_depth_max: section.number("call_depth_max", default.call_depth_max as u64, 4..=128) as usize,
        string_bytes_max: section.size("string_bytes_max", default.string_bytes_max as u64) as usize,
        array_elements_max: section.number(
            "array_elements_max",
            default.array_elements_max as u64,
            1..=1_000_000,
        ) as usize,
        map_entries_max: section.number("map_entries_max", default.map_entries_max as u64, 1..=1_000_000)
            as usize,
        time_max: section.duration("time_max", default.time_max),
        log_lines_max: section.number("log_lines_max", default.log_lines_max as u64, 0..=10_000) as usize,
    };
    let require_tests = section.flag("require_tests", true);
    section.finish();
    (limits, require_tests)
}
