//! Reads `[domains]` and `[accounts]`: whose mail ends here, and where.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::problems::Problem;
use super::section::{Placed, Reader, Section, Wrong, nearest, read_value};
use super::{Account, FixedReply, LocalDomain};
use crate::address::{Domain, LocalPart, Mailbox};
use crate::names::AccountName;
use crate::outcome::EnhancedCode;
use crate::smtp::Reply;

/// RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets, with code and CR LF.
const REPLY_TEXT_BYTES_MAX: usize = 480;
/// What a fixed reply looks like, for messages.
const REPLY_FORM: &str = "a reply such as \"550 5.1.1 no such user\", code 400 to 599";

/// Domains with their addresses, and accounts.
pub(super) struct Directory {
    pub(super) domains: BTreeMap<Domain, LocalDomain>,
    pub(super) accounts: BTreeMap<AccountName, Account>,
}

/// A domain while it is read: what it names is checked when the accounts are known.
struct RawDomain {
    place: Range<usize>,
    catch_all: Option<Placed<AccountName>>,
    separator: Option<char>,
    replies: BTreeMap<String, Placed<FixedReply>>,
}

/// An account while it is read.
struct RawAccount {
    addresses: Vec<Placed<Mailbox>>,
    users: Vec<Placed<String>>,
}

/// Reads both tables and ties them together.
pub(super) fn directory(top: &mut Section<'_>) -> Directory {
    let reader = top.reader;
    let (domains, accounts) = (top.section("domains", "[domains]"), top.section("accounts", "[accounts]"));
    let raw_domains = read_domains(&domains);
    let raw_accounts = read_accounts(&accounts);
    if !top.has("domains") {
        top.missing("domains", "[domains.\"example.org\"]: the domains whose mail ends here");
    }
    let checked: BTreeMap<_, _> =
        raw_accounts.iter().map(|(name, raw)| (name.clone(), account(raw))).collect();
    let addresses = assign(reader, &raw_domains, &raw_accounts);
    let make = |(domain, raw): (Domain, RawDomain)| {
        let catch_all = raw.catch_all.and_then(|name| existing(reader, "catch_all", name, &checked));
        let addresses = addresses.get(&domain).cloned().unwrap_or_default();
        let replies = raw.replies.into_iter().map(|(local, reply)| (local, reply.value)).collect();
        (domain, LocalDomain { addresses, catch_all, separator: raw.separator, replies })
    };
    let domains = raw_domains.into_iter().map(make).collect();
    Directory { domains, accounts: checked }
}

fn account(raw: &RawAccount) -> Account {
    Account {
        addresses: raw.addresses.iter().map(|address| address.value.clone()).collect(),
        first_address: raw.addresses.first().map(|address| address.value.clone()),
        users: raw.users.iter().map(|user| user.value.clone()).collect(),
    }
}

/// An account that is named elsewhere in the file.
pub(super) fn existing(
    reader: &Reader,
    key: &str,
    name: Placed<AccountName>,
    accounts: &BTreeMap<AccountName, Account>,
) -> Option<AccountName> {
    if accounts.contains_key(&name.value) {
        return Some(name.value);
    }
    let problem =
        Problem::new(name.place, format!("`{key}`: there is no account {}", name.value), "no such account");
    let near = nearest(name.value.as_str(), accounts.keys().map(AccountName::as_str));
    let help = near.map_or_else(
        || format!("add [accounts.{:?}]", name.value.as_str()),
        |near| format!("did you mean {near:?}?"),
    );
    reader.report(problem.help(help));
    None
}

fn read_domains(section: &Section<'_>) -> BTreeMap<Domain, RawDomain> {
    let reader = section.reader;
    let mut all: BTreeMap<Domain, RawDomain> = BTreeMap::new();
    for (name, place, value) in section.entries() {
        let Some(mut table) = reader.table(&format!("[domains.{name:?}]"), place.clone(), value) else {
            continue;
        };
        let catch_all = table.placed("catch_all", "the name of an account", AccountName::new);
        let separator = table.parsed("separator", "one character, such as \"+\"", parse_separator);
        let replies = read_replies(table.section("replies", &format!("[domains.{name:?}.replies]")));
        table.finish();
        let domain = match Domain::parse(name) {
            Ok(domain) => domain,
            Err(error) => {
                let message = format!("{name:?}: {error}");
                reader.report(
                    Problem::new(place, message, "expected a domain name")
                        .help("a domain stands in quotes: [domains.\"example.org\"]"),
                );
                continue;
            }
        };
        if let Some(first) = all.get(&domain) {
            let message = format!("the domain {domain} is there twice");
            reader.report(Problem::new(place, message, "and here").also(first.place.clone(), "here"));
            continue;
        }
        all.insert(domain, RawDomain { place, catch_all, separator, replies });
    }
    all
}

fn parse_separator(text: &str) -> Result<char, String> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if c.is_ascii_punctuation() && c != '@' && c != '"' && c != '\\' => Ok(c),
        _ => Err(format!("{text:?} is no separator")),
    }
}

fn read_replies(section: Section<'_>) -> BTreeMap<String, Placed<FixedReply>> {
    let reader = section.reader;
    let mut all: BTreeMap<String, Placed<FixedReply>> = BTreeMap::new();
    for (local, place, value) in section.entries() {
        let Some(reply) = read_reply(reader, local, value) else { continue };
        if LocalPart::from_unquoted(local).is_err() || local.contains('@') {
            let message = format!("{local:?} is not the part of an address before the @");
            reader.report(Problem::new(place, message, "expected the part before the @ alone"));
            continue;
        }
        let lower = local.to_lowercase();
        if let Some(first) = all.get(&lower) {
            let problem = Problem::new(place, format!("two replies for {lower:?}"), "and here");
            reader.report(
                problem.also(first.place.clone(), "here").help("upper and lower case are the same here"),
            );
            continue;
        }
        all.insert(lower, Placed { value: reply, place });
    }
    all
}

/// `"550 5.1.1 text"`, or `{ reply = "...", after = "10m" }`.
fn read_reply<'a>(reader: &'a Reader, local: &str, value: &'a Spanned<DeValue<'a>>) -> Option<FixedReply> {
    if !value.get_ref().is_table() {
        let read = |value: &DeValue<'_>| match value.as_str() {
            Some(text) => parse_reply(text).map_err(|reason| Wrong::Value(Some(reason))),
            None => Err(Wrong::Kind),
        };
        let reply = read_value(reader, local, REPLY_FORM, value, read)?;
        return Some(FixedReply { reply, after: Duration::ZERO });
    }
    let mut table = reader.table(&format!("the reply for {local:?}"), value.span(), value)?;
    let reply = table.parsed("reply", REPLY_FORM, parse_reply);
    if !table.has("reply") {
        table.missing("reply", "reply = \"451 4.3.0 come back later\"");
    }
    let after = table.duration("after", Duration::ZERO);
    table.finish();
    Some(FixedReply { reply: reply?, after })
}

/// Reads `550 5.1.1 text`; the enhanced status code may be missing.
pub fn parse_reply(text: &str) -> Result<Reply, String> {
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    let digits = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
    let code = code.parse::<u16>().ok().filter(|code| digits && (400..600).contains(code));
    let code = code.ok_or_else(|| format!("{text:?} does not begin with a code from 400 to 599"))?;
    let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
    let (enhanced, words) = match first.parse::<EnhancedCode>() {
        // RFC 2034 §4: the class must be the first digit of the code.
        Ok(enhanced) if u16::from(enhanced.class) != code / 100 => {
            return Err(format!("the enhanced status code {enhanced} does not fit the code {code}"));
        }
        Ok(enhanced) => (Some(enhanced), after),
        Err(_) => (None, rest),
    };
    // RFC 5321 §4.2: textstring is HT and printable ASCII.
    if words.len() > REPLY_TEXT_BYTES_MAX || !words.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
    {
        return Err(format!("a reply's text is printable ASCII, at most {REPLY_TEXT_BYTES_MAX} characters"));
    }
    let words = match words.trim() {
        "" if code < 500 => "not now, try again later",
        "" => "refused",
        words => words,
    };
    Ok(Reply { enhanced, ..Reply::new(code, words) })
}

fn read_accounts(section: &Section<'_>) -> BTreeMap<AccountName, RawAccount> {
    let reader = section.reader;
    let mut all = BTreeMap::new();
    for (name, place, value) in section.entries() {
        let Some(mut table) = reader.table(&format!("[accounts.{name}]"), place.clone(), value) else {
            continue;
        };
        let addresses = table.list("addresses", "an address such as \"user@example.org\"", |text| {
            Mailbox::parse(text).map_err(|error| format!("{text:?}: {error}"))
        });
        let users = table.list("users", "a system user such as \"www-data\"", system_user);
        table.finish();
        match AccountName::new(name) {
            Ok(name) => {
                all.insert(name, RawAccount { addresses, users });
            }
            Err(error) => reader.report(Problem::new(place, error.to_string(), "expected an account name")),
        }
    }
    all
}

/// A user's name, or its number where it has no name here (a container's user).
fn system_user(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_graphic() && !matches!(b, b':' | b'/' | b',');
    if !text.is_empty() && !text.starts_with('-') && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not the name of a system user"))
}

type Assigned = BTreeMap<Domain, BTreeMap<String, AccountName>>;

/// Gives each address to its account; an address has one owner, a configured domain, and no fixed reply.
fn assign(
    reader: &Reader,
    domains: &BTreeMap<Domain, RawDomain>,
    accounts: &BTreeMap<AccountName, RawAccount>,
) -> Assigned {
    let mut owners: BTreeMap<(Domain, String), (AccountName, Range<usize>)> = BTreeMap::new();
    for (account, address) in
        accounts.iter().flat_map(|(account, raw)| raw.addresses.iter().map(move |one| (account, one)))
    {
        let Mailbox { local, domain } = &address.value;
        let Some(known) = domains.get(domain) else {
            reader.report(foreign(address, domains));
            continue;
        };
        let lower = local.as_str().to_lowercase();
        if let Some(reply) = known.replies.get(&lower) {
            let message = format!("{} has an account and a fixed reply", address.value);
            let problem = Problem::new(address.place.clone(), message, "its account");
            reader.report(problem.also(reply.place.clone(), "its reply"));
            continue;
        }
        let key = (domain.clone(), lower);
        match owners.get(&key) {
            Some((owner, first)) => {
                let message = if owner == account {
                    format!("{} is there twice", address.value)
                } else {
                    format!("{} belongs to {owner} and to {account}", address.value)
                };
                // Accounts come in the order of their names; the second place is the one further down the file.
                let (mut first, mut second) = (first.clone(), address.place.clone());
                if second.start < first.start {
                    std::mem::swap(&mut first, &mut second);
                }
                let help = "an address has one account; upper and lower case are the same here";
                reader.report(Problem::new(second, message, "and here").also(first, "here").help(help));
            }
            None => {
                owners.insert(key, (account.clone(), address.place.clone()));
            }
        }
    }
    let mut assigned = Assigned::new();
    for ((domain, local), (account, _)) in owners {
        assigned.entry(domain).or_default().insert(local, account);
    }
    assigned
}

fn foreign(address: &Placed<Mailbox>, domains: &BTreeMap<Domain, RawDomain>) -> Problem {
    let domain = &address.value.domain;
    let help = match nearest(domain.as_str(), domains.keys().map(Domain::as_str)) {
        Some(near) => format!("did you mean {}@{near}?", address.value.local),
        None => format!("add [domains.{:?}], or take the address away", domain.as_str()),
    };
    let message = format!("{}: {domain} is not one of our domains", address.value);
    Problem::new(address.place.clone(), message, "in no configured domain").help(help)
}
