//! `sendmail.toml`: the server that `waypost sendmail` submits to where that is not the one on this machine.
//!
//! The top of the file is the table of a transport to one host, with the same keys as under `[transports.NAME]`; what
//! only a program that sends needs comes on top: `from`, `local_users_to`, `[aliases]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::problems::{ConfigProblems, Problem};
use super::read::{self, Look};
use super::section::{Placed, Section, Wrong, read_value};
use super::{Dns, Host, Smarthost, TlsPolicy, Transport, TransportKind, ways};
use crate::address::{LocalPart, Mailbox};
use crate::names::TransportName;

/// What an address looks like, for messages.
const ADDRESS_FORM: &str = "an address such as \"ann@example.org\"";

/// Where `waypost sendmail` submits, and as whom.
#[derive(Debug, Clone)]
pub struct SendmailConfig {
    /// The server, and who we are to it.
    pub server: Smarthost,
    /// The same as a transport.
    pub transport: Arc<Transport>,
    /// The sender where none is named, and the author of messages without one.
    pub from: Option<Mailbox>,
    /// Whether `from` is the sender whatever the caller names.
    pub from_always: bool,
    /// Who gets the mail for a user of this machine (`root`), by name in lower case.
    pub aliases: BTreeMap<String, Vec<Mailbox>>,
    /// Who gets the mail for all other users of this machine; nobody where it is empty.
    pub local_users_to: Vec<Mailbox>,
    /// How names are looked up.
    pub dns: Dns,
    /// The files that hold a password.
    pub secrets: Vec<PathBuf>,
}

impl SendmailConfig {
    /// Reads and checks a file. Relative paths in it are relative to its directory; the files that it names must be
    /// there.
    pub fn load(file: &Path) -> Result<Self, ConfigProblems> {
        let hint = "docs/sendmail.md has examples to copy";
        let (text, base) = read::file(file, hint)?;
        read::document(&text, file, &base, |top| whole(top, file, Look::Files))
    }

    /// Reads and checks the text alone.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigProblems> {
        let base = file.parent().unwrap_or(Path::new(""));
        read::document(text, file, base, |top| whole(top, file, Look::Text))
    }

    /// Who gets the mail for a user of this machine.
    pub fn mail_of_user(&self, user: &LocalPart) -> &[Mailbox] {
        self.aliases.get(&user.as_str().to_lowercase()).unwrap_or(&self.local_users_to)
    }
}

fn whole(mut top: Section<'_>, file: &Path, look: Look) -> Option<SendmailConfig> {
    let secrets = secrets(&mut top, file);
    let name = TransportName::new("sendmail").ok();
    let transport = name.and_then(|name| ways::to_one_host(&mut top, name, look));
    let from = top.parsed("from", ADDRESS_FORM, with_domain);
    let from_always = top.flag("from_always", false);
    if from_always && !top.has("from") {
        top.missing("from", "from = \"ann@example.org\": the address that `from_always` means");
    }
    let local_users_to = top.list("local_users_to", ADDRESS_FORM, with_domain);
    let aliases = aliases(&top.section("aliases", "[aliases]"));
    let dns = read::dns(top.section("dns", "[dns]"));
    let allow_clear_text = top.flag("allow_clear_text", false);
    if let Some(transport) = &transport {
        clear_text_stays_here(&top, transport, allow_clear_text);
    }
    top.finish();
    let transport = Arc::new(transport?);
    let TransportKind::Smarthost(server) = transport.kind.clone() else { return None };
    let local_users_to = local_users_to.into_iter().map(|placed| placed.value).collect();
    Some(SendmailConfig { server, transport, from, from_always, aliases, local_users_to, dns, secrets })
}

/// Whoever listens on the way would read along: that must be said, not slip in.
fn clear_text_stays_here(top: &Section<'_>, transport: &Transport, allowed: bool) {
    let TransportKind::Smarthost(Smarthost { host, .. }) = &transport.kind else { return };
    let here = match host {
        Host::Ip(ip) => ip.is_loopback(),
        Host::Name(name) => name.as_str() == "localhost",
    };
    if transport.common.tls == TlsPolicy::None && !here && !allowed {
        let message = format!("`tls = \"none\"` would send mail to {host} for everybody on the way to read");
        let problem = Problem::new(top.key_place("tls"), message, "only for this machine");
        top.reader
            .report(problem.help("leave `tls` out; or, where the network is safe, allow_clear_text = true"));
    }
}

/// The files that hold a password: this one, or the one that it names.
fn secrets(top: &mut Section<'_>, file: &Path) -> Vec<PathBuf> {
    let inline = top.has("password").then(|| file.to_owned());
    let named = top.get("password_file").and_then(|value| value.get_ref().as_str());
    inline.into_iter().chain(named.map(|text| top.reader.path(text))).collect()
}

fn with_domain(text: &str) -> Result<Mailbox, String> {
    Mailbox::parse(text).map_err(|error| format!("{text:?}: {error}"))
}

fn aliases(section: &Section<'_>) -> BTreeMap<String, Vec<Mailbox>> {
    let mut all = BTreeMap::new();
    for (name, place, value) in section.entries() {
        if let Err(error) = LocalPart::from_unquoted(name) {
            let problem =
                Problem::new(place, format!("{name:?}: {error}"), "expected a user of this machine");
            section.reader.report(problem);
        }
        let found = addresses(section, name, value).into_iter().map(|placed| placed.value).collect();
        all.insert(name.to_lowercase(), found);
    }
    all
}

/// One address, or an array of them.
fn addresses<'a>(section: &Section<'a>, name: &str, value: &'a Spanned<DeValue<'a>>) -> Vec<Placed<Mailbox>> {
    let items: Vec<_> =
        value.get_ref().as_array().map_or_else(|| vec![value], |array| array.iter().collect());
    if items.is_empty() {
        let message = format!("nobody gets the mail for `{name}`");
        section.reader.report(Problem::new(value.span(), message, format!("expected {ADDRESS_FORM}")));
    }
    let read = |item: &'a Spanned<DeValue<'a>>| {
        let parse = |value: &DeValue<'_>| {
            with_domain(value.as_str().ok_or(Wrong::Kind)?).map_err(|error| Wrong::Value(Some(error)))
        };
        let value = read_value(section.reader, name, ADDRESS_FORM, item, parse)?;
        Some(Placed { value, place: item.span() })
    };
    items.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, Service};
    use crate::sasl::{Allowed, Mechanism};

    const FILE: &str = "/etc/waypost/sendmail.toml";

    fn parse(text: &str) -> Result<SendmailConfig, ConfigProblems> {
        SendmailConfig::parse(text, Path::new(FILE))
    }

    #[test]
    fn everything_that_can_be_said() {
        let config = parse(include_str!("golden/sendmail.toml")).unwrap();
        assert_eq!(config.server.service, Service::Submission);
        assert_eq!((config.server.host.to_string().as_str(), config.server.port), ("smtp.example.com", 2587));
        let login = config.server.login.clone().unwrap();
        assert_eq!((login.username.as_str(), login.password), ("ann@example.com", Secret::new("secret")));
        assert_eq!(login.mechanisms, Allowed::Exactly(Mechanism::ScramSha256));
        assert_eq!(config.transport.common.ca.as_ref().unwrap().file, Path::new("/etc/waypost/ca.pem"));
        assert_eq!(config.secrets, [Path::new(FILE)]);
        let to = |user: &str| {
            let user = LocalPart::from_unquoted(user).unwrap();
            config.mail_of_user(&user).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(to("root"), "ann@example.com bob@example.com");
        assert_eq!(to("Www-Data"), "web@example.com");
        assert_eq!(to("nobody"), "rest@example.com");
        assert_eq!(
            (config.from.unwrap().to_string().as_str(), config.from_always),
            ("ann@example.com", true)
        );
    }

    #[test]
    fn examples_to_copy_are_right_and_every_key_is_told() {
        let docs = include_str!("../../docs/sendmail.md");
        let blocks = docs.split("```toml\n").skip(1).filter_map(|block| block.split_once("```"));
        let (servers, clients): (Vec<_>, Vec<_>) =
            blocks.map(|(text, _)| text).partition(|text| text.contains("hostname"));
        for text in servers {
            crate::config::Config::parse(text, Path::new("waypost.toml")).unwrap();
        }
        assert!(clients.len() >= 3);
        for text in clients {
            parse(text).unwrap();
        }
        let table: toml::Table = include_str!("golden/sendmail.toml").parse().unwrap();
        for key in table.keys() {
            assert!(docs.contains(&format!("| `{key}`")) || docs.contains(&format!("`[{key}]`")), "{key}");
        }
    }

    #[test]
    fn the_port_tells_the_kind() {
        for (text, service, port, tls) in [
            ("", Service::Submissions, 465, TlsPolicy::Required),
            ("port = 465", Service::Submissions, 465, TlsPolicy::Required),
            ("port = 587", Service::Submission, 587, TlsPolicy::Required),
            ("port = 25", Service::Smtp, 25, TlsPolicy::Opportunistic),
            ("kind = \"smtp\"", Service::Smtp, 25, TlsPolicy::Opportunistic),
            ("kind = \"submission\"", Service::Submission, 587, TlsPolicy::Required),
            ("kind = \"submissions\"\nport = 4650", Service::Submissions, 4650, TlsPolicy::Required),
        ] {
            let config = parse(&format!("host = \"smtp.example.com\"\n{text}")).unwrap();
            let found = (config.server.service, config.server.port, config.transport.common.tls);
            assert_eq!(found, (service, port, tls), "{text}");
        }
    }

    #[test]
    fn where_clear_text_may_go() {
        for (host, more, fine) in [
            ("127.0.0.1", "", true),
            ("::1", "", true),
            ("localhost", "", true),
            ("192.0.2.1", "", false),
            ("smtp.example.com", "", false),
            ("smtp.example.com", "allow_clear_text = true", true),
        ] {
            let text = format!("host = \"{host}\"\nkind = \"smtp\"\ntls = \"none\"\n{more}");
            assert_eq!(parse(&text).is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn mistakes_are_shown_where_they_stand() {
        let host = "host = \"smtp.example.com\"\n";
        for (text, place, words) in [
            ("from = \"a@b.test\"", (1, 1), "has no `host`"),
            ("host = 5", (1, 8), "`host` cannot be a whole number"),
            ("host = \"smtp.example.com:465\"", (1, 8), "belongs into `port`"),
            (&format!("{host}prot = 587"), (2, 1), "no key `prot`"),
            (&format!("{host}port = 2525"), (2, 1), "does not tell how"),
            (&format!("{host}port = \"587\""), (2, 8), "`port` cannot be text"),
            (&format!("{host}kind = \"direct\""), (2, 1), "sendmail goes to one host"),
            (&format!("{host}kind = \"submision\""), (2, 8), "did you mean \"submission\"?"),
            (&format!("{host}tls = \"none\""), (2, 1), "can only be \"required\""),
            (&format!("{host}kind = \"smtp\"\ntls = \"none\""), (3, 1), "for everybody on the way"),
            (&format!("{host}from = \"ann\""), (2, 8), "\"ann\": "),
            (&format!("{host}from_always = true"), (1, 1), "has no `from`"),
            (&format!("{host}local_users_to = [\"a@b.test\", \"root\"]"), (2, 31), "\"root\": "),
            (&format!("{host}[aliases]\nroot = 5"), (3, 8), "`root` cannot be"),
            (&format!("{host}[aliases]\nroot = []"), (3, 8), "nobody gets the mail for `root`"),
            (&format!("{host}[aliases]\n\"a\\u0000\" = \"a@b.test\""), (3, 1), "\"a\\0\": "),
            (&format!("{host}username = \"ann\""), (1, 1), "no `password_file`"),
            (&format!("{host}password = \"x\""), (2, 1), "without a `username`"),
            (&format!("{host}mechanisms = \"PLIAN\""), (2, 14), "did you mean \"PLAIN\"?"),
            (&format!("{host}concurrency = 5"), (2, 1), "no meaning for a single message"),
            (&format!("{host}proxy = \"x\""), (2, 1), "has no `proxy`"),
            ("host = ", (1, 8), "not TOML"),
        ] {
            let problems = parse(text).unwrap_err();
            let found = problems.problems().iter().find(|problem| problem.message.contains(words));
            let found = found.unwrap_or_else(|| panic!("{text}: {problems}"));
            assert_eq!(problems.line_and_column(found), Some(place), "{text}: {problems}");
        }
    }

    #[test]
    fn files_that_are_not_there_or_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sendmail.toml");
        let error = SendmailConfig::load(&file).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("docs/sendmail.md"), "{error}");
        std::fs::write(&file, b"host = \"\xff\"").unwrap();
        assert!(SendmailConfig::load(&file).unwrap_err().to_string().contains("not UTF-8"));
        let text =
            "host = \"a.test\"\nusername = \"ann\"\npassword_file = \"secret\"\nca_file = \"ca.pem\"\n";
        std::fs::write(&file, text).unwrap();
        let error = SendmailConfig::load(&file).unwrap_err();
        assert_eq!(error.problems().len(), 2, "{error}");
        std::fs::write(&file, &text[..text.find("ca_file").unwrap()]).unwrap();
        std::fs::write(dir.path().join("secret"), "pass word\n").unwrap();
        let config = SendmailConfig::load(&file).unwrap();
        assert_eq!(config.server.login.unwrap().password, Secret::new("pass word"));
        assert_eq!(config.secrets, [dir.path().join("secret")]);
    }
}
