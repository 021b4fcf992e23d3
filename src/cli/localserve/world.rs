//! The files of the small world: two configurations, scripts at all three levels, a certificate, a password.
//!
//! What is there already stays as it is, so that a second start finds what was edited.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::error::{CommandError, Exit};

/// Who lives here.
pub(super) const USERS: [&str; 2] = ["ann", "bob"];
/// Who reads all mail outside.
pub(super) const READER: &str = "reader";
/// Letters and digits that cannot be taken for each other.
const PASSWORD_LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
const PASSWORD_LETTERS_COUNT: usize = 12;
/// Ports that may turn out to be taken before the search for free ones is given up.
const FREE_PORT_TRIES_MAX: u32 = 1_000;

/// Where everything listens, on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    smtp: u16,
    submission: u16,
    submissions: u16,
    imap: u16,
    imaps: u16,
    outside_smtp: u16,
    smarthost: u16,
    outside_imap: u16,
}

impl Ports {
    /// The usual ports, moved.
    pub(super) fn usual(offset: u16) -> Self {
        Self::from([1025, 1587, 1465, 1143, 1993, 2025, 2026, 2143].map(|port| port + offset))
    }

    /// Ports that nobody listens on now.
    pub(super) fn free() -> io::Result<Self> {
        // Below the range that the system takes for outgoing connections: one of those could have the port by the time
        // we listen. All are held until all are known, so that none comes twice.
        let mut held = Vec::with_capacity(8);
        let mut refused = 0;
        while held.len() < 8 {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, rand::random_range(10_000..32_000))) {
                Ok(listener) => held.push(listener),
                Err(_) if refused < FREE_PORT_TRIES_MAX => refused += 1,
                Err(error) => return Err(error),
            }
        }
        let mut ports = [0; 8];
        for (port, listener) in ports.iter_mut().zip(&held) {
            *port = listener.local_addr()?.port();
        }
        Ok(Self::from(ports))
    }
}

impl From<[u16; 8]> for Ports {
    fn from(ports: [u16; 8]) -> Self {
        let [smtp, submission, submissions, imap, imaps, outside_smtp, smarthost, outside_imap] = ports;
        Self { smtp, submission, submissions, imap, imaps, outside_smtp, smarthost, outside_imap }
    }
}

/// The small world on disk.
#[derive(Debug)]
pub(super) struct World {
    /// Where it is.
    pub(super) dir: PathBuf,
    /// Our configuration.
    pub(super) home_file: PathBuf,
    /// The configuration of the server that plays the outside.
    pub(super) outside_file: PathBuf,
    /// Of all accounts.
    pub(super) password: String,
}

impl World {
    /// Makes what is missing.
    pub(super) fn make(dir: &Path, ports: Ports) -> Result<Self, CommandError> {
        let at = |path: &str| dir.join(path);
        let home_file = at("waypost.toml");
        if home_file.exists() && ports != Ports::usual(0) {
            let message = format!("{} is there already, with ports of its own", home_file.display());
            return Err(
                CommandError::new(Exit::Usage, message).hint("change its ports there, or take another --dir")
            );
        }
        for folder in ["tls", "outside/scripts", "scripts/account", "scripts/domain"] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(at(folder))?;
        }
        if !at("tls/cert.pem").exists() || !at("tls/key.pem").exists() {
            let (certificate, key) = certificate()?;
            put(&at("tls/cert.pem"), &certificate, true)?;
            put(&at("tls/key.pem"), &key, true)?;
        }
        put(&at("password"), &(new_password() + "\n"), false)?;
        put(&home_file, &home_config(&ports), false)?;
        let password = fs::read_to_string(at("password"))?.trim().to_owned();
        put(&at("muttrc"), &muttrc(dir, &ports, &password), false)?;
        let outside_file = at("outside/waypost.toml");
        put(&outside_file, &outside_config(&ports), false)?;
        for (path, text) in [
            ("scripts/global.rhai", include_str!("scripts/global.rhai")),
            ("scripts/domain/home.test.rhai", include_str!("scripts/domain.rhai")),
            ("scripts/account/bob.rhai", include_str!("scripts/account.rhai")),
        ] {
            put(&at(path), text, false)?;
        }
        Ok(Self { dir: dir.to_owned(), home_file, outside_file, password })
    }
}

/// Writes a file for its owner alone; leaves one that is there, unless it is to be replaced.
fn put(path: &Path, text: &str, replace: bool) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).mode(0o600);
    if replace {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        opened => opened?.write_all(text.as_bytes()),
    }
}

fn new_password() -> String {
    use rand::seq::IndexedRandom;
    let mut chance = rand::rng();
    let letters = (0..PASSWORD_LETTERS_COUNT).filter_map(|_| PASSWORD_LETTERS.choose(&mut chance));
    letters.map(|letter| char::from(*letter)).collect()
}

/// Certificate and key, PEM; nobody vouches for it.
fn certificate() -> Result<(String, String), CommandError> {
    let failed =
        |error: rcgen::Error| CommandError::new(Exit::Failed, format!("cannot make a certificate: {error}"));
    let names = ["localhost", "127.0.0.1", "mail.home.test"].map(str::to_owned);
    let mut params = rcgen::CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "mail.home.test");
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// What mutt needs to read and write ann's mail here.
fn muttrc(dir: &Path, ports: &Ports, password: &str) -> String {
    let Ports { submissions, imaps, .. } = ports;
    format!(
        r#"set imap_user="ann"
set imap_pass="{password}"
set folder="imaps://ann@localhost:{imaps}/"
set spoolfile="+INBOX"
set record="+Sent"
set postponed="+Drafts"
set smtp_url="smtps://ann:{password}@localhost:{submissions}/"
set from="ann@home.test"
set use_envelope_from=yes
# Built with GNU SASL, mutt takes SCRAM-...-PLUS without being able to bind it to the channel, and gives up.
set smtp_authenticators="scram-sha-256"
set imap_authenticators="scram-sha-256"
set certificate_file="{dir}/tls/cert.pem"
"#,
        dir = dir.display()
    )
}

/// Our server.
fn home_config(ports: &Ports) -> String {
    let Ports { smtp, submission, submissions, imap, imaps, outside_smtp, smarthost, .. } = ports;
    format!(
        r#"# A mail server to play with, made by `waypost localserve`. Change what you like: it stays.
hostname = "mail.home.test"
data_dir = "data"
scripts_dir = "scripts"
postmaster = "ann"

[[listeners]]
kind = "smtp"                       # mail from other servers, for our domain only
address = "127.0.0.1:{smtp}"

[[listeners]]
kind = "submission"                 # mail from our users: STARTTLS, then a password
address = "127.0.0.1:{submission}"

[[listeners]]
kind = "submissions"                # the same, TLS at once
address = "127.0.0.1:{submissions}"

[[listeners]]
kind = "imap"
address = "127.0.0.1:{imap}"

[[listeners]]
kind = "imaps"
address = "127.0.0.1:{imaps}"

[tls]
certificate = "tls/cert.pem"
key = "tls/key.pem"

# The two ways out that the scripts choose from. Real servers leave `direct` out: its port is 25.
[transports.direct]
kind = "direct"
port = {outside_smtp}
command_timeout = "10s"

[transports.smarthost]
kind = "smtp"
host = "smarthost.outside.test"
port = {smarthost}
command_timeout = "10s"

[domains."home.test"]
separator = "+"                     # ann+anything@home.test is ann's

[accounts.ann]
addresses = ["ann@home.test"]

[accounts.bob]
addresses = ["bob@home.test"]

# Impatient, so that things can be seen. A real server waits 7m30s, doubling up to 8h, for 4 days.
[queue]
retry_first = "10s"
retry_factor = 1.5
retry_max = "1m"
retry_jitter = 0
give_up_after = "15m"
script_error_retry = "5s"

[limits]
auth_failure_delay = "off"

# The internet, as far as it goes here: nobody answers at the resolver, so nothing else exists.
[dns]
resolvers = ["127.0.0.1:9"]
timeout = "1s"

[dns.fixed."outside.test"]
mx = ["10 mx.outside.test"]

[dns.fixed."partner.test"]
mx = ["10 mx.outside.test"]

[dns.fixed."mx.outside.test"]
addresses = ["127.0.0.1"]

[dns.fixed."smarthost.outside.test"]
addresses = ["127.0.0.1"]
"#
    )
}

/// The server that plays everybody else.
fn outside_config(ports: &Ports) -> String {
    let Ports { smtp, outside_smtp, smarthost, outside_imap, .. } = ports;
    let codes = [
        (450, "4.2.1 mailbox busy"),
        (451, "4.7.1 greylisted, come back later"),
        (452, "4.2.2 mailbox full"),
        (550, "5.1.1 no such user"),
        (552, "5.2.2 mailbox full"),
        (553, "5.1.3 no such address"),
        (554, "5.7.1 not wanted here"),
    ];
    let codes: String = codes.map(|(code, text)| format!("\"{code}\" = \"{code} {text}\"\n")).concat();
    format!(
        r#"# Everybody else, for `waypost localserve`: takes mail for outside.test and partner.test, whatever the address.
hostname = "mx.outside.test"
data_dir = "data"

[[listeners]]
kind = "smtp"                       # where the domains' MX points
address = "127.0.0.1:{outside_smtp}"

[[listeners]]
kind = "smtp"                       # a pretend smarthost: it takes mail for anybody, from this machine
address = "127.0.0.1:{smarthost}"
hostname = "smarthost.outside.test"
relay_from = ["127.0.0.0/8"]

[[listeners]]
kind = "imap"
address = "127.0.0.1:{outside_imap}"
allow_plaintext_auth = true

[accounts.{READER}]
addresses = ["{READER}@outside.test"]

[domains."partner.test"]
catch_all = "{READER}"

[domains."outside.test"]
catch_all = "{READER}"

# Addresses that fail on purpose.
[domains."outside.test".replies]
"temporary" = "451 4.3.0 not now"
"permanent" = "550 5.1.1 never"
"timeout" = {{ reply = "451 4.4.2 too late", after = "10m" }}
{codes}
[transports.direct]
kind = "direct"
port = {smtp}

[dns]
resolvers = ["127.0.0.1:9"]
timeout = "1s"

[dns.fixed."home.test"]
mx = ["10 mail.home.test"]

[dns.fixed."mail.home.test"]
addresses = ["127.0.0.1"]
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::route::ScriptSet;

    #[test]
    fn what_is_made_is_good_and_what_was_edited_stays() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::make(dir.path(), Ports::usual(0)).unwrap();
        let home = Config::load(&world.home_file).unwrap();
        Config::load(&world.outside_file).unwrap();
        crate::tls::ServerTls::load(&home.tls.as_ref().unwrap().files).unwrap();
        let scripts = ScriptSet::load(&home.scripts_dir, &home.script_limits).unwrap();
        assert_eq!(scripts.scripts().len(), 3, "a script at each level");
        assert_eq!(world.password.len(), PASSWORD_LETTERS_COUNT);

        let script = dir.path().join("scripts/global.rhai");
        fs::write(&script, "fn route(delivery) {}").unwrap();
        let again = World::make(dir.path(), Ports::usual(0)).unwrap();
        assert_eq!(again.password, world.password);
        assert_eq!(fs::read_to_string(&script).unwrap(), "fn route(delivery) {}");
        let moved = World::make(dir.path(), Ports::usual(10_000)).unwrap_err();
        assert_eq!(moved.exit(), Exit::Usage);
    }

    #[test]
    fn nobody_else_may_read_password_and_key() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        World::make(dir.path(), Ports::free().unwrap()).unwrap();
        for file in ["password", "muttrc", "tls/key.pem", "waypost.toml"] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
