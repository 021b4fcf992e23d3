//! Reads who we are to somebody else: a user name, and a password that stands in the file, in a file of its own or in
//! the environment; and how our users log in here. Other secrets come from the same places.

use std::path::PathBuf;

use super::problems::Problem;
use super::read::Look;
use super::section::{Placed, Section};
use super::{Listener, ListenerKind, Login, Secret};
use crate::sasl::{Allowed, Mechanism};

/// How our users log in, to submission and IMAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The mechanisms that are offered where the connection bears them, in no order.
    pub mechanisms: Vec<Mechanism>,
}

impl Auth {
    /// The mechanisms, strongest first.
    pub fn mechanisms(&self) -> impl Iterator<Item = &'static Mechanism> {
        Mechanism::ALL.iter().filter(|mechanism| self.mechanisms.contains(mechanism))
    }

    /// Whether CRAM-MD5 is offered, for which more of a password must be kept.
    pub fn wants_cram_md5(&self) -> bool {
        self.mechanisms.contains(&Mechanism::CramMd5)
    }

    /// Whether a password may be sent as such, where the connection protects it.
    pub fn takes_passwords(&self) -> bool {
        self.mechanisms.iter().any(|mechanism| mechanism.sends_password())
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self { mechanisms: Mechanism::OFFERED_BY_DEFAULT.into() }
    }
}

/// The places that a secret may come from.
pub(super) struct SecretKeys {
    /// What it is, for messages: a password.
    pub(super) what: &'static str,
    /// In the file itself, in a file of its own, in the environment.
    pub(super) keys: [&'static str; 3],
}

/// A secret, as far as it was found.
pub(super) struct Found {
    /// The key that gives it.
    pub(super) given: Option<&'static str>,
    /// `None` too where something is wrong with it, which is reported.
    pub(super) value: Option<Secret>,
}

const PASSWORD: SecretKeys =
    SecretKeys { what: "password", keys: ["password", "password_file", "password_env"] };

/// Reads a secret from the one place that is given.
pub(super) fn secret(table: &mut Section<'_>, from: &SecretKeys, look: Look) -> Found {
    let given: Vec<&'static str> = from.keys.into_iter().filter(|key| table.has(key)).collect();
    let value = read_secret(table, from, look);
    if let [first, second, ..] = given[..] {
        let message = format!("the {} is given twice, in `{first}` and in `{second}`", from.what);
        table.reader.report(Problem::new(table.key_place(second), message, "one of them is too much"));
    }
    Found { given: given.first().copied(), value }
}

/// A user name and its password, where there are any; `None` too where something is wrong with them, which is reported.
pub(super) fn name_and_password(table: &mut Section<'_>, look: Look) -> Option<(String, Secret)> {
    let username = table.parsed("username", "a user name", |text| not_empty(text, "a user name"));
    let password = secret(table, &PASSWORD, look);
    match (table.has("username"), password.given) {
        (true, None) => {
            table.missing("password_file", "password_file = \"password\", or `password_env`, or `password`");
        }
        (false, Some(key)) => {
            let message = format!("`{key}` without a `username`");
            table.reader.report(Problem::new(table.key_place(key), message, "whose password is this?"));
        }
        _ => {}
    }
    Some((username?, password.value?))
}

/// A login by SASL.
pub(super) fn login(table: &mut Section<'_>, look: Look) -> Option<Login> {
    let mechanisms = mechanisms(table);
    let allow_plaintext = table.flag("allow_plaintext_auth", false);
    let (username, password) = name_and_password(table, look)?;
    let mechanisms = match &mechanisms[..] {
        [] => Allowed::Any,
        [one] => Allowed::Exactly(one.value),
        some => Allowed::Of(some.iter().map(|placed| placed.value).collect()),
    };
    Some(Login { username, password, mechanisms, allow_plaintext })
}

/// How our users log in: `[auth]`.
pub(super) fn auth(mut table: Section<'_>, tls: bool, listeners: &[Listener]) -> Auth {
    let given = table.has("mechanisms");
    let problems = table.reader.problem_count();
    let mechanisms: Vec<Mechanism> = mechanisms(&mut table).iter().map(|placed| placed.value).collect();
    let place = table.key_place("mechanisms");
    let usable = |mechanism: &Mechanism| tls || !mechanism.binds_channel();
    let logs_in = listeners.iter().any(|listener| listener.kind != ListenerKind::Smtp);
    if given && mechanisms.is_empty() && table.reader.problem_count() == problems {
        table.reader.report(
            Problem::new(place, "`mechanisms` names none: nobody could log in", "expected at least one")
                .help("leave it out for those that are offered by default"),
        );
    } else if given && logs_in && !mechanisms.is_empty() && !mechanisms.iter().any(usable) {
        let message = "the mechanisms ending in -PLUS need TLS, and there is no [tls]: nobody could log in";
        table.reader.report(
            Problem::new(place, message, "all that is offered")
                .help("add [tls] with `certificate` and `key`, or another mechanism"),
        );
    }
    table.finish();
    if given { Auth { mechanisms } } else { Auth::default() }
}

/// The key `mechanisms`: a list of their names, or one.
fn mechanisms(table: &mut Section<'_>) -> Vec<Placed<Mechanism>> {
    let known: Vec<&str> = Mechanism::ALL.iter().map(|mechanism| mechanism.as_str()).collect();
    table.list("mechanisms", &format!("one of {}", known.join(", ")), |text| {
        text.parse::<Mechanism>().map_err(|_| super::section::did_you_mean(text, known.iter().copied()))
    })
}

fn read_secret(table: &mut Section<'_>, from: &SecretKeys, look: Look) -> Option<Secret> {
    let (what, [inline, file, env]) = (from.what, from.keys);
    let inline = table.parsed(inline, &format!("a {what}"), |text| not_empty(text, &format!("a {what}")));
    let file = table.path(file);
    let env = table.placed(env, "the name of an environment variable", |text| {
        not_empty(text, "a name").and_then(|name| {
            if name.contains(['=', '\0']) { Err("a name holds no `=`".to_owned()) } else { Ok(name) }
        })
    });
    let found = match (inline, file, env) {
        (Some(secret), ..) => secret,
        // The world outside the text is not looked at: nobody logs in with this.
        (None, Some(_), _) | (None, None, Some(_)) if look == Look::Text => String::new(),
        (None, Some(file), _) => read_file(table, &file, what)?,
        (None, None, Some(name)) => read_environment(table, &name)?,
        (None, None, None) => return None,
    };
    Some(Secret::new(found))
}

/// The first line of a file, without its end.
fn read_file(table: &Section<'_>, file: &Placed<PathBuf>, what: &str) -> Option<String> {
    let shown = file.value.display();
    let message = match std::fs::read_to_string(&file.value) {
        Ok(text) => match text.lines().next().filter(|line| !line.is_empty()) {
            Some(line) => return Some(line.to_owned()),
            None => format!("there is no {what} in the first line of {shown}"),
        },
        Err(error) => format!("cannot read {shown}: {error}"),
    };
    table.reader.report(Problem::new(
        file.place.clone(),
        message,
        format!("expected a file with the {what}"),
    ));
    None
}

fn read_environment(table: &Section<'_>, name: &Placed<String>) -> Option<String> {
    let found = std::env::var(&name.value).ok().filter(|value| !value.is_empty());
    if found.is_none() {
        let message = format!("the environment has no variable {}", name.value);
        table.reader.report(Problem::new(name.place.clone(), message, "not set, or empty"));
    }
    found
}

fn not_empty(text: &str, what: &str) -> Result<String, String> {
    if text.is_empty() { Err(format!("{what} cannot be empty")) } else { Ok(text.to_owned()) }
}
