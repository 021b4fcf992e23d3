//! Reads a DKIM-Signature field (RFC 6376 §3.5), and says by the words of RFC 8601 what is wrong with it.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;

use super::Algorithm;
use crate::mailauth::Verdict;
use crate::mailauth::canonical::Canonical;
use crate::mailauth::tags::{Tags, shortened, without_space};

/// RFC 6376 §2.10 lets padding be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// A longer field is nobody's honest signature.
const FIELD_BYTES_MAX: usize = 16 * 1024;

/// A result that is no pass, and why.
pub(super) type Problem = (Verdict, String);

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) algorithm: Algorithm,
    pub(super) header_form: Canonical,
    pub(super) body_form: Canonical,
    /// `d=`, lower-case.
    pub(super) domain: String,
    /// `s=`, lower-case.
    pub(super) selector: String,
    /// The domain of `i=`, lower-case; that of `d=` where there is none.
    pub(super) identity_domain: String,
    /// `h=`, lower-case.
    pub(super) names: Vec<String>,
    pub(super) body_hash: Vec<u8>,
    /// `l=`.
    pub(super) body_bytes: Option<u64>,
    /// `b=`.
    pub(super) proof: Vec<u8>,
}

/// What can be told of a signature even where it is no good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) domain: Option<String>,
    pub(super) selector: Option<String>,
    pub(super) algorithm: Option<String>,
    pub(super) identity: Option<String>,
    pub(super) signature: Option<String>,
}

/// Reads the value of a field.
pub(super) fn read(value: &[u8], now: Timestamp) -> (Claim, Result<Signature, Problem>) {
    let neutral = |why: String| (Verdict::Neutral, why);
    if value.len() > FIELD_BYTES_MAX {
        return (Claim::default(), Err(neutral(format!("the field has more than {FIELD_BYTES_MAX} octets"))));
    }
    let Ok(text) = std::str::from_utf8(value) else {
        return (Claim::default(), Err(neutral("the field is not UTF-8".to_owned())));
    };
    let tags = match Tags::parse(text) {
        Ok(tags) => tags,
        Err(why) => return (Claim::default(), Err(neutral(why))),
    };
    // What does not look as it must is not repeated to anybody.
    let shown = |name: &str, good: &dyn Fn(&str) -> bool| {
        tags.compact(name).filter(|value| good(value)).map(Cow::into_owned)
    };
    let printable = |text: &str| {
        text.len() <= 320 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    let claim = Claim {
        domain: shown("d", &is_domain).map(|domain| domain.to_ascii_lowercase()),
        selector: shown("s", &is_domain).map(|selector| selector.to_ascii_lowercase()),
        algorithm: shown("a", &|text| {
            text.len() <= 40 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
        identity: shown("i", &|text| printable(text) && text.contains('@')),
        signature: shown("b", &|text| !text.is_empty() && printable(text)),
    };
    let signature = interpret(&tags, &claim, now);
    (claim, signature)
}

/// RFC 6376 §6.1.1.
fn interpret(tags: &Tags<'_>, claim: &Claim, now: Timestamp) -> Result<Signature, Problem> {
    let need = |name: &str| {
        tags.compact(name).ok_or_else(|| (Verdict::Neutral, format!("the tag {name}= is missing")))
    };
    let neutral = |why: &str| (Verdict::Neutral, why.to_owned());
    match &*need("v")? {
        "1" => {}
        other => return Err((Verdict::Neutral, format!("version {:?} is not known", shortened(other)))),
    }
    let algorithm = match &*need("a")? {
        "rsa-sha256" => Algorithm::RsaSha256,
        "ed25519-sha256" => Algorithm::Ed25519Sha256,
        // RFC 8301 §3.1.
        "rsa-sha1" => return Err((Verdict::Policy, "SHA-1 proves nothing any more (RFC 8301)".to_owned())),
        other => return Err((Verdict::Neutral, format!("algorithm {:?} is not known", shortened(other)))),
    };
    let (header_form, body_form) = forms(tags.compact("c").as_deref())?;
    for name in ["d", "s"] {
        need(name)?;
    }
    let domain = claim.domain.clone().ok_or_else(|| neutral("d= is no domain"))?;
    let selector = claim.selector.clone().ok_or_else(|| neutral("s= is no selector"))?;
    let names = names_of(&need("h")?);
    // RFC 6376 §5.4.
    if !names.iter().any(|name| name == "from") {
        return Err((Verdict::PermError, "From is not signed".to_owned()));
    }
    let identity_domain = match tags.compact("i") {
        None => domain.clone(),
        Some(identity) => {
            let (_, part) = identity.rsplit_once('@').ok_or_else(|| neutral("i= has no \"@\""))?;
            part.to_ascii_lowercase()
        }
    };
    if !is_within(&identity_domain, &domain) {
        return Err((Verdict::PermError, "the domain of i= is not within that of d=".to_owned()));
    }
    // Queries other than dns/txt may stand beside it (RFC 6376 §3.5).
    if tags.compact("q").is_some_and(|query| !query.split(':').any(|one| one.eq_ignore_ascii_case("dns/txt")))
    {
        return Err(neutral("q= does not offer dns/txt"));
    }
    times(tags, now)?;
    let body_hash = decode_base64(&need("bh")?).ok_or_else(|| neutral("bh= is no base64"))?;
    let proof =
        decode_base64(&need("b")?).filter(|b| !b.is_empty()).ok_or_else(|| neutral("b= is no base64"))?;
    let body_bytes = number(tags, "l")?;
    Ok(Signature {
        algorithm,
        header_form,
        body_form,
        domain,
        selector,
        identity_domain,
        names,
        body_hash,
        body_bytes,
        proof,
    })
}

fn forms(text: Option<&str>) -> Result<(Canonical, Canonical), Problem> {
    let unknown =
        |part: &str| (Verdict::Neutral, format!("canonicalization {:?} is not known", shortened(part)));
    let one = |part: &str| Canonical::parse(part).ok_or_else(|| unknown(part));
    match text.map(|text| text.split_once('/').unwrap_or((text, "simple"))) {
        None => Ok((Canonical::Simple, Canonical::Simple)),
        Some((header, body)) => Ok((one(header)?, one(body)?)),
    }
}

/// `t=` and `x=`, in seconds since 1970.
fn times(tags: &Tags<'_>, now: Timestamp) -> Result<(), Problem> {
    let (signed, expires) = (number(tags, "t")?, number(tags, "x")?);
    let Some(expires) = expires else { return Ok(()) };
    if signed.is_some_and(|signed| signed > expires) {
        return Err((Verdict::Neutral, "x= is before t=".to_owned()));
    }
    if i128::from(expires) < i128::from(now.as_second()) {
        return Err((Verdict::Policy, "the signature has expired".to_owned()));
    }
    Ok(())
}

/// Digits; what is more than fits counts as the greatest number.
fn number(tags: &Tags<'_>, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = tags.get(name) else { return Ok(None) };
    // RFC 6376 §3.5: up to 76 digits in l=, more than 12 in t= may be an attempt to trick us, but are no error.
    if text.is_empty() || text.len() > 76 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err((Verdict::Neutral, format!("{name}= is no number")));
    }
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}

/// The names in a list such as `From : To`, lower-case.
pub(super) fn names_of(list: &str) -> Vec<String> {
    without_space(list).split(':').map(str::to_ascii_lowercase).collect()
}

/// Base64 without white space.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// Labels of letters, digits, `-`, `_` and what RFC 8616 adds, none empty, no longer than DNS takes.
pub(super) fn is_domain(text: &str) -> bool {
    const DOMAIN_BYTES_MAX: usize = 253;
    let good =
        |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || !c.is_ascii() && c.is_alphanumeric();
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(good);
    text.len() <= DOMAIN_BYTES_MAX && text.split('.').all(label)
}

/// Whether a domain is another one or below it; both lower-case.
pub(super) fn is_within(domain: &str, parent: &str) -> bool {
    domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The value of a field of a signature with the value of `b=` taken out (RFC 6376 §3.7).
pub(super) fn without_signature(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for (at, tag) in value.split(|byte| *byte == b';').enumerate() {
        if at > 0 {
            out.push(b';');
        }
        match tag.iter().position(|byte| *byte == b'=') {
            Some(equals) if tag[..equals].trim_ascii() == b"b" => out.extend_from_slice(&tag[..=equals]),
            _ => out.extend_from_slice(tag),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "v=1; a=rsa-sha256; d=Example.ORG; s=s1; h=To : From; bh=YWJj; b=YW Jj";

    fn problem(text: &str) -> (&'static str, String) {
        let (verdict, why) = read(text.as_bytes(), "2026-11-22T00:00:00Z".parse().unwrap()).1.unwrap_err();
        (verdict.as_str(), why)
    }

    #[test]
    fn a_signature() {
        let (claim, signature) = read(GOOD.as_bytes(), Timestamp::UNIX_EPOCH);
        let signature = signature.unwrap();
        assert_eq!((signature.domain.as_str(), signature.selector.as_str()), ("example.org", "s1"));
        assert_eq!((signature.header_form, signature.body_form), (Canonical::Simple, Canonical::Simple));
        assert_eq!(
            (signature.names, signature.proof),
            (vec!["to".to_owned(), "from".into()], b"abc".to_vec())
        );
        assert_eq!(claim.signature.as_deref(), Some("YWJj"));
        let with = |more: &str| read(format!("{GOOD}; {more}").as_bytes(), Timestamp::UNIX_EPOCH).1.unwrap();
        assert_eq!(with("c=relaxed").body_form, Canonical::Simple);
        assert_eq!(with("c=simple/relaxed").body_form, Canonical::Relaxed);
        assert_eq!(with("i=ann@mail.Example.org; q=other:dns/txt; x=1").identity_domain, "mail.example.org");
        assert_eq!(with("l=99999999999999999999999").body_bytes, Some(u64::MAX));
    }

    #[test]
    fn signatures_that_are_no_good() {
        for (from, to, verdict, why) in [
            ("v=1; ", "", "neutral", "v= is missing"),
            ("v=1", "v=2", "neutral", "version \"2\""),
            ("rsa-sha256", "rsa-sha1", "policy", "SHA-1"),
            ("rsa-sha256", "rsa-md5", "neutral", "algorithm \"rsa-md5\""),
            ("To : From", "To:Subject", "permerror", "From is not signed"),
            ("s=s1", "s=", "neutral", "s= is no selector"),
            ("Example.ORG", "a..b", "neutral", "d= is no domain"),
            ("YWJj;", "Y*;", "neutral", "bh= is no base64"),
            ("YW Jj", "", "neutral", "b= is no base64"),
            ("b=YW Jj", "b=YWJj; c=loose", "neutral", "canonicalization \"loose\""),
            ("b=YW Jj", "b=YWJj; c=simple/strict", "neutral", "canonicalization \"strict\""),
            ("b=YW Jj", "b=YWJj; i=@elsewhere.example", "permerror", "not within"),
            ("b=YW Jj", "b=YWJj; i=@notexample.org", "permerror", "not within"),
            ("b=YW Jj", "b=YWJj; i=nobody", "neutral", "no \"@\""),
            ("b=YW Jj", "b=YWJj; q=http", "neutral", "dns/txt"),
            ("b=YW Jj", "b=YWJj; x=1700000000", "policy", "expired"),
            ("b=YW Jj", "b=YWJj; t=9900000001; x=9900000000", "neutral", "before"),
            ("b=YW Jj", "b=YWJj; x=soon", "neutral", "x= is no number"),
            ("b=YW Jj", "b=YWJj; d=other.example", "neutral", "twice"),
        ] {
            let found = problem(&GOOD.replacen(from, to, 1));
            assert!(found.0 == verdict && found.1.contains(why), "{to}: {found:?}");
        }
        assert!(problem(&format!("{GOOD}; n={}", "x".repeat(FIELD_BYTES_MAX))).1.contains("octets"));
    }

    #[test]
    fn only_the_value_of_b_is_taken_out() {
        for (value, left) in [
            ("v=1; bh=b=; b = abc\r\n def ; h=b", "v=1; bh=b=; b =; h=b"),
            ("b=abc", "b="),
            ("x=1; b=abc;", "x=1; b=;"),
            ("bb=1;B=2", "bb=1;B=2"),
        ] {
            assert_eq!(without_signature(value.as_bytes()), left.as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_octets_can_be_read(value: Vec<u8>) {
            let _ = read(&value, Timestamp::UNIX_EPOCH);
            let _ = without_signature(&value);
        }
    }
}
