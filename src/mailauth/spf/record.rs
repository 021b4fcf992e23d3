//! SPF records: `v=spf1`, directives and modifiers (RFC 7208 §4.5, §4.6, §5, §6).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::macros::{MacroString, Place};

/// A record without syntax errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) directives: Vec<Directive>,
    pub(super) redirect: Option<MacroString>,
    pub(super) explanation: Option<MacroString>,
}

/// A mechanism, and the result when it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) qualifier: Qualifier,
    pub(super) mechanism: Mechanism,
    /// As it stands in the record.
    pub(super) text: String,
}

/// RFC 7208 §4.6.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

/// RFC 7208 §5. Without a domain-spec the domain that is checked is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(MacroString),
    A(Option<MacroString>, Lengths),
    Mx(Option<MacroString>, Lengths),
    Ptr(Option<MacroString>),
    Ip4(Ipv4Net),
    Ip6(Ipv6Net),
    Exists(MacroString),
}

/// Prefix lengths (dual-cidr-length).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

/// Whether a TXT record is an SPF record (RFC 7208 §4.5): the version alone, or followed by a space.
pub(super) fn is_spf(text: &[u8]) -> bool {
    const VERSION: &[u8] = b"v=spf1";
    text.get(..VERSION.len()).is_some_and(|start| start.eq_ignore_ascii_case(VERSION))
        && matches!(text.get(VERSION.len()), None | Some(b' '))
}

impl Record {
    /// Reads a record that [`is_spf`]; the error says what is wrong with it, for people.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii());
        let text = text.ok_or("the record is not in ASCII")?;
        let mut record = Self { directives: Vec::new(), redirect: None, explanation: None };
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            record.add(term).map_err(|why| format!("\"{}\": {why}", term.escape_debug()))?;
        }
        Ok(record)
    }

    fn add(&mut self, term: &str) -> Result<(), String> {
        // A modifier has its "=" before any ":" or "/" (§4.6.1).
        if let Some((name, value)) = term.split_once('=').filter(|(name, _)| !name.contains([':', '/'])) {
            return self.modifier(name, value);
        }
        let (qualifier, rest) = Qualifier::split(term);
        let mechanism = Mechanism::parse(rest)?;
        self.directives.push(Directive { qualifier, mechanism, text: term.to_owned() });
        Ok(())
    }

    fn modifier(&mut self, name: &str, value: &str) -> Result<(), String> {
        let known = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.explanation,
            other => {
                let rest_good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                if !other.starts_with(|c: char| c.is_ascii_alphabetic()) || !other.chars().all(rest_good) {
                    return Err(format!("{name:?} is no name of a modifier"));
                }
                return MacroString::parse(value, Place::Record).map(|_| ());
            }
        };
        if known.is_some() {
            return Err("it stands there twice".to_owned());
        }
        *known = Some(MacroString::domain_spec(value)?);
        Ok(())
    }
}

impl Qualifier {
    fn split(term: &str) -> (Self, &str) {
        let signs = [('+', Self::Pass), ('-', Self::Fail), ('~', Self::SoftFail), ('?', Self::Neutral)];
        signs
            .into_iter()
            .find_map(|(sign, qualifier)| Some((qualifier, term.strip_prefix(sign)?)))
            .unwrap_or((Self::Pass, term))
    }
}

impl Mechanism {
    fn parse(text: &str) -> Result<Self, String> {
        let end = text.find([':', '/']).unwrap_or(text.len());
        let (name, argument) = text.split_at(end);
        let domain = || required(argument).and_then(MacroString::domain_spec);
        Ok(match name.to_ascii_lowercase().as_str() {
            "all" if argument.is_empty() => Self::All,
            "all" => return Err("\"all\" takes nothing behind it".to_owned()),
            "include" => Self::Include(domain()?),
            "exists" => Self::Exists(domain()?),
            "ptr" if argument.is_empty() => Self::Ptr(None),
            "ptr" => Self::Ptr(Some(domain()?)),
            "a" => {
                let (spec, lengths) = host(argument)?;
                Self::A(spec, lengths)
            }
            "mx" => {
                let (spec, lengths) = host(argument)?;
                Self::Mx(spec, lengths)
            }
            "ip4" => Self::Ip4(ip4(required(argument)?)?),
            "ip6" => Self::Ip6(ip6(required(argument)?)?),
            _ => return Err("there is no such mechanism".to_owned()),
        })
    }
}

fn required(argument: &str) -> Result<&str, String> {
    argument
        .strip_prefix(':')
        .filter(|rest| !rest.is_empty())
        .ok_or_else(|| "a \":\" and a value must follow".into())
}

/// `[":" domain-spec] [dual-cidr-length]`. A slash may stand in a domain-spec too, so lengths are read from the end.
fn host(argument: &str) -> Result<(Option<MacroString>, Lengths), String> {
    let (rest, v6) = match split_length(argument, "//") {
        Some((rest, digits)) => (rest, length(digits, 128)?),
        None => (argument, 128),
    };
    let (rest, v4) = match split_length(rest, "/").filter(|(rest, _)| !rest.ends_with('/')) {
        Some((rest, digits)) => (rest, length(digits, 32)?),
        None => (rest, 32),
    };
    let spec = if rest.is_empty() { None } else { Some(MacroString::domain_spec(required(rest)?)?) };
    Ok((spec, Lengths { v4, v6 }))
}

fn split_length<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let (rest, digits) = text.rsplit_once(mark)?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some((rest, digits))
}

fn length(digits: &str, max: u8) -> Result<u8, String> {
    let plain = digits == "0" || !digits.starts_with('0');
    let value = digits.parse::<u8>().ok().filter(|value| plain && *value <= max);
    value.ok_or_else(|| format!("/{digits} is no prefix length from 0 to {max}"))
}

fn ip4(text: &str) -> Result<Ipv4Net, String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, digits)) => (address, length(digits, 32)?),
        None => (text, 32),
    };
    let address: Ipv4Addr = address.parse().map_err(|_| format!("{address:?} is no IPv4 address"))?;
    Ipv4Net::new(address, bits).map_err(|error| error.to_string())
}

fn ip6(text: &str) -> Result<Ipv6Net, String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, digits)) => (address, length(digits, 128)?),
        None => (text, 128),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| format!("{address:?} is no IPv6 address"))?;
    Ipv6Net::new(address, bits).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_other_texts() {
        for (text, expected) in [
            ("v=spf1", true),
            ("V=SPF1 -all", true),
            ("v=spf1  ", true),
            ("v=spf10 -all", false),
            ("v=spf1-all", false),
            ("v=spf", false),
            (" v=spf1", false),
            ("google-site-verification=1", false),
        ] {
            assert_eq!(is_spf(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn every_term_is_read() {
        let text = "v=spf1 +mx a:foo:bar/baz.example.com/24//64 ~include:_spf.%{d} ?ip4:192.0.2.0/24 \
                    ip6:2001:db8::/32 exists:%{i}.x.test ptr a//0 -all redirect=r.test exp=e.test moo.x=%{s}";
        let record = Record::parse(text.as_bytes()).unwrap();
        assert_eq!(record.directives.len(), 9);
        assert_eq!(record.directives[0].qualifier, Qualifier::Pass);
        assert!(matches!(record.directives[1].mechanism, Mechanism::A(Some(_), Lengths { v4: 24, v6: 64 })));
        assert_eq!(record.directives[2].qualifier, Qualifier::SoftFail);
        assert!(matches!(record.directives[7].mechanism, Mechanism::A(None, Lengths { v4: 32, v6: 0 })));
        assert_eq!(record.directives[8].text, "-all");
        assert!(record.redirect.is_some() && record.explanation.is_some());
    }

    #[test]
    fn an_error_anywhere_spoils_the_record_and_says_where() {
        for bad in [
            "moo",
            "all.",
            "all:x",
            "all/8",
            "include",
            "include:",
            "include:a.test/24",
            "exists",
            "ptr/0",
            "ptr:",
            "a/33",
            "a//129",
            "a/24/64",
            "a/032",
            "a:",
            "a:museum",
            "mx:abc.123",
            "ip4",
            "ip4:1.2.3",
            "ip4:1.2.3.4/33",
            "ip4:1.2.3.4:25",
            "ip4:1.2.3.4//32",
            "ip4:1.2.3.04",
            "ip6::a::b",
            "ip6:::1/129",
            "redirect:a.test",
            "redirect=",
            "exp=-all",
            "1up=x",
            "=all",
            "moo.cow/x=y",
            "foo=%abc",
            "a\r",
            "\ta",
            "redirect=a.test redirect=b.test",
        ] {
            let error = Record::parse(format!("v=spf1 ip4:192.0.2.1 {bad} -all").as_bytes()).unwrap_err();
            assert!(error.contains(bad.split(' ').next_back().unwrap().trim()), "{bad}: {error}");
        }
        assert_eq!(
            Record::parse(b"v=spf1 a:192.0.2.1 -all").unwrap_err(),
            "\"a:192.0.2.1\": \"192.0.2.1\" is no domain name; for an address write ip4: or ip6:"
        );
        Record::parse(b"v=spf1 \x96all").unwrap_err();
    }
}
