//! Macro strings of SPF (RFC 7208 §7): read once, expanded for each delivery.

use std::fmt::Write as _;
use std::net::IpAddr;

/// Longest name that DNS can hold, in text form.
const NAME_BYTES_MAX: usize = 253;

/// A macro-string, checked (RFC 7208 §7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MacroString(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `%%`, `%_`, `%-`: what they stand for.
    Escape(&'static str),
    Macro(Macro),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Macro {
    letter: char,
    /// Written in upper case: URL-escaped (§7.3).
    escaped: bool,
    /// Parts kept, counted from the right.
    keep: Option<usize>,
    reversed: bool,
    delimiters: String,
}

/// What macros stand for.
pub(super) struct Values<'a> {
    pub(super) ip: IpAddr,
    /// `local-part@domain`.
    pub(super) sender: &'a str,
    /// The domain whose record is evaluated: `%{d}`.
    pub(super) domain: &'a str,
    pub(super) helo: &'a str,
    /// The name of the host that checks: `%{r}`.
    pub(super) receiver: &'a str,
    /// `%{p}`; only looked up for strings that use it.
    pub(super) validated_name: &'a str,
    /// Seconds since 1970: `%{t}`.
    pub(super) now: i64,
}

/// Where a macro string stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A term of a record: visible characters.
    Record,
    /// The text that exp= leads to: spaces, and the macros c, r and t, too.
    Explanation,
}

impl MacroString {
    /// Reads one; the error says what is wrong with it.
    pub(super) fn parse(text: &str, place: Place) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let end = rest.find('%').unwrap_or(rest.len());
            let (literal, more) = rest.split_at(end);
            if let Some(bad) = literal.chars().find(|c| !is_literal(*c, place)) {
                return Err(format!("the character {bad:?} is not allowed here"));
            }
            if !literal.is_empty() {
                parts.push(Part::Text(literal.to_owned()));
            }
            let Some(after) = more.strip_prefix('%') else { break };
            let (part, after) = expansion(after, place)?;
            parts.push(part);
            rest = after;
        }
        Ok(Self(parts))
    }

    /// A domain-spec: a macro string that ends in a macro or in `.toplabel` (§7.1).
    pub(super) fn domain_spec(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the domain is missing".to_owned());
        }
        let spec = Self::parse(text, Place::Record)?;
        match spec.0.last() {
            Some(Part::Text(end)) if !ends_in_top_label(end) => {
                let hint =
                    if text.parse::<IpAddr>().is_ok() { "; for an address write ip4: or ip6:" } else { "" };
                Err(format!("\"{text}\" is no domain name{hint}"))
            }
            _ => Ok(spec),
        }
    }

    /// Whether `%{p}` stands in it, which costs DNS queries.
    pub(super) fn needs_validated_name(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Macro(Macro { letter: 'p', .. })))
    }

    /// The text with its macros expanded.
    pub(super) fn expand(&self, values: &Values<'_>) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Escape(character) => text.push_str(character),
                Part::Macro(expansion) => text.push_str(&expansion.expand(values)),
            }
        }
        text
    }

    /// The name to look up: expanded, without a trailing dot, cut on the left where it is too long for DNS (§7.3).
    pub(super) fn expand_name(&self, values: &Values<'_>) -> String {
        let text = self.expand(values);
        let mut name = text.strip_suffix('.').unwrap_or(&text);
        while name.len() > NAME_BYTES_MAX {
            name = name.split_once('.').map_or("", |(_, rest)| rest);
        }
        name.to_owned()
    }
}

fn is_literal(c: char, place: Place) -> bool {
    matches!(c, '\x21'..='\x24' | '\x26'..='\x7e') || (c == ' ' && place == Place::Explanation)
}

/// What follows a `%`, and the rest.
fn expansion(text: &str, place: Place) -> Result<(Part, &str), String> {
    for (mark, stands_for) in [("%", "%"), ("_", " "), ("-", "%20")] {
        if let Some(rest) = text.strip_prefix(mark) {
            return Ok((Part::Escape(stands_for), rest));
        }
    }
    let inner = text.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let Some((inner, rest)) = inner else { return Err("a % must be %{..}, %%, %_ or %-".to_owned()) };
    Ok((Part::Macro(Macro::parse(inner, place)?), rest))
}

/// `*("." label) "." toplabel ["."]` at the end of a literal (§7.1).
fn ends_in_top_label(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let Some((_, label)) = text.rsplit_once('.') else { return false };
    let letter = |c: char| c.is_ascii_alphabetic() || c == '-';
    label.chars().all(|c| letter(c) || c.is_ascii_digit())
        && label.contains(letter)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl Macro {
    fn parse(inner: &str, place: Place) -> Result<Self, String> {
        let wrong = |why: &str| format!("the macro %{{{inner}}} {why}");
        let letter = inner.chars().next().ok_or_else(|| wrong("is empty"))?;
        let lower = letter.to_ascii_lowercase();
        match lower {
            's' | 'l' | 'o' | 'd' | 'i' | 'p' | 'v' | 'h' => {}
            'c' | 'r' | 't' if place == Place::Explanation => {}
            'c' | 'r' | 't' => return Err(wrong("is only allowed in an explanation")),
            _ => return Err(wrong("is unknown")),
        }
        let transformers = &inner[letter.len_utf8()..];
        let digits = transformers.find(|c: char| !c.is_ascii_digit()).unwrap_or(transformers.len());
        let (number, rest) = transformers.split_at(digits);
        let keep = match number {
            "" => None,
            number => match number.parse::<usize>() {
                Ok(0) => return Err(wrong("keeps no part")),
                // More parts than any name has.
                Err(_) => Some(usize::MAX),
                Ok(parts) => Some(parts),
            },
        };
        let after_reverse = rest.strip_prefix(['r', 'R']);
        let delimiters = after_reverse.unwrap_or(rest);
        if !delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
            return Err(wrong("has transformers that do not exist"));
        }
        let delimiters = if delimiters.is_empty() { "." } else { delimiters }.to_owned();
        let escaped = letter.is_ascii_uppercase();
        Ok(Self { letter: lower, escaped, keep, reversed: after_reverse.is_some(), delimiters })
    }

    fn expand(&self, values: &Values<'_>) -> String {
        let value = self.value(values);
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.reversed {
            parts.reverse();
        }
        let first = parts.len() - self.keep.unwrap_or(parts.len()).min(parts.len());
        let text = parts[first..].join(".");
        if self.escaped { url_escaped(&text) } else { text }
    }

    fn value(&self, values: &Values<'_>) -> String {
        let (local, domain) = values.sender.rsplit_once('@').unwrap_or(("postmaster", values.sender));
        match self.letter {
            's' => values.sender.to_owned(),
            'l' => local.to_owned(),
            'o' => domain.to_owned(),
            'd' => values.domain.to_owned(),
            'i' => dotted(values.ip),
            'p' => values.validated_name.to_owned(),
            'v' => if values.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            'h' => values.helo.to_owned(),
            'c' => values.ip.to_string(),
            'r' => values.receiver.to_owned(),
            _ => values.now.to_string(),
        }
    }
}

/// An address as `%{i}` gives it: dotted, IPv6 nibble by nibble (§7.3).
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            nibbles.map(|nibble| format!("{nibble:X}")).collect::<Vec<_>>().join(".")
        }
    }
}

/// RFC 3986 §2.3: all but unreserved characters are escaped.
fn url_escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(ip: &str) -> Values<'static> {
        Values {
            ip: ip.parse().unwrap(),
            sender: "strong-bad@email.example.com",
            domain: "email.example.com",
            helo: "mx.example.org",
            receiver: "here.test",
            validated_name: "unknown",
            now: 1_800_000_000,
        }
    }

    #[test]
    fn macros_expand_as_the_examples_of_the_standard() {
        for (text, v4) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%{L}%{S}", "strong-badstrong-bad%40email.example.com"),
            ("%{h}%%%_%-%{p}", "mx.example.org% %20unknown"),
        ] {
            let read = MacroString::parse(text, Place::Record).unwrap();
            assert_eq!(read.expand(&values("192.0.2.3")), v4, "{text}");
        }
        let v6 = MacroString::parse("%{ir}.%{v}._spf.%{d2}", Place::Record).unwrap();
        assert_eq!(
            v6.expand(&values("2001:db8::cb01")),
            "1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.ip6._spf.example.com"
        );
        let text = MacroString::parse("from %{c} to %{r} at %{t}", Place::Explanation).unwrap();
        assert_eq!(text.expand(&values("2001:db8::1")), "from 2001:db8::1 to here.test at 1800000000");
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for good in
            ["example.com", "example.com.", "a:b/c.example.com", "%{d}", "x%%", "a..b.com", "a.xn--zckzah"]
        {
            MacroString::domain_spec(good).unwrap();
        }
        for bad in [
            "",
            "museum",
            "museum.",
            "abc.123",
            "192.0.2.1",
            "example.-com",
            "a.com-",
            "example.com:8080",
            "%{x}.com",
            "%{c}.com",
            "%{d0}.com",
            "%{d",
            "%(d).com",
            "a%.com",
            "%{d}com",
            "a b.com",
            "a.c\u{e9}m",
        ] {
            MacroString::domain_spec(bad).unwrap_err();
        }
    }

    #[test]
    fn a_name_too_long_for_dns_loses_labels_on_the_left() {
        let spec = MacroString::domain_spec(&format!("{}%{{d}}", "abcdefghi.".repeat(30))).unwrap();
        let name = spec.expand_name(&values("192.0.2.3"));
        assert!(
            name.len() <= 253 && name.starts_with("abcdefghi.") && name.ends_with(".email.example.com"),
            "{name}"
        );
        let endless = MacroString::parse(&"x".repeat(300), Place::Record).unwrap();
        assert_eq!(endless.expand_name(&values("192.0.2.3")), "");
    }
}
