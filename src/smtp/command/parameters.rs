//! The parameters of MAIL and RCPT: `KEYWORD` or `KEYWORD=value` (RFC 5321 §4.1.2 esmtp-param).

use super::CommandError;
use crate::envelope::{BodyType, Notify, Ret};
use crate::smtp::xtext;

/// RFC 3461 §4.4.
const ENVID_BYTES_MAX: usize = 100;
/// RFC 3461 §4.2.
const ORCPT_BYTES_MAX: usize = 500;
/// RFC 1870 §3 and RFC 3030 §2: numbers have at most 20 digits.
const NUMBER_DIGITS_MAX: usize = 20;

/// The registered ones are far shorter.
const KEYWORD_BYTES_MAX: usize = 64;

/// Goes over parameters; each keyword may stand there once.
pub(super) struct Parameters<'a> {
    rest: std::str::Split<'a, char>,
    seen: Vec<String>,
}

impl<'a> Parameters<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text.split(' '), seen: Vec::new() }
    }

    /// The next one, its keyword in upper case.
    pub(super) fn next_parameter(&mut self) -> Result<Option<(String, Option<&'a str>)>, CommandError> {
        let Some(parameter) = self.rest.by_ref().find(|word| !word.is_empty()) else { return Ok(None) };
        let (keyword, value) =
            parameter.split_once('=').map_or((parameter, None), |(keyword, value)| (keyword, Some(value)));
        let first_good = keyword.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        // The keyword stands in our reply, whose lines are short, too.
        let keyword_good = first_good
            && keyword.len() <= KEYWORD_BYTES_MAX
            && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let value_good = value.is_none_or(|value| !value.is_empty() && !value.contains('='));
        if !keyword_good || !value_good {
            return Err(CommandError::Parameters);
        }
        let keyword = keyword.to_ascii_uppercase();
        if self.seen.contains(&keyword) {
            return Err(CommandError::ParameterTwice(keyword));
        }
        self.seen.push(keyword.clone());
        Ok(Some((keyword, value)))
    }
}

fn wrong(keyword: &str) -> CommandError {
    CommandError::ParameterValue(keyword.to_owned())
}

pub(super) fn number(digits: &str, keyword: &str) -> Result<u64, CommandError> {
    let good = (1..=NUMBER_DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    // Twenty digits may exceed 64 bits: such a size is over any limit, not a mistake.
    if good { Ok(digits.parse().unwrap_or(u64::MAX)) } else { Err(wrong(keyword)) }
}

pub(super) fn body(value: &str) -> Result<BodyType, CommandError> {
    let kinds = [
        ("7BIT", BodyType::SevenBit),
        ("8BITMIME", BodyType::EightBitMime),
        ("BINARYMIME", BodyType::BinaryMime),
    ];
    let found = kinds.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
    found.map(|(_, kind)| kind).ok_or_else(|| wrong("BODY"))
}

pub(super) fn ret(value: &str) -> Result<Ret, CommandError> {
    let kinds = [("FULL", Ret::Full), ("HDRS", Ret::Headers)];
    let found = kinds.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
    found.map(|(_, kind)| kind).ok_or_else(|| wrong("RET"))
}

/// RFC 3461 §4.4: xtext of printable ASCII, at most 100 characters before encoding.
pub(super) fn envid(value: &str) -> Result<String, CommandError> {
    let decoded = xtext::decode(value).filter(|id| id.is_ascii() && id.len() <= ENVID_BYTES_MAX);
    decoded.ok_or_else(|| wrong("ENVID"))
}

/// RFC 4954 §5: a mailbox as xtext, or `<>`. We trust no client in that and only see that it is well-formed.
pub(super) fn auth(value: &str) -> Result<String, CommandError> {
    let decoded = xtext::decode(value).ok_or_else(|| wrong("AUTH"))?;
    let known = decoded == "<>" || crate::address::Mailbox::parse(&decoded).is_ok();
    if known { Ok(decoded) } else { Err(wrong("AUTH")) }
}

/// RFC 3461 §4.1: `NEVER` alone, or a list of the others.
pub(super) fn notify(value: &str) -> Result<Notify, CommandError> {
    let mut notify = Notify { success: false, failure: false, delay: false };
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(notify);
    }
    for word in value.split(',') {
        match word {
            w if w.eq_ignore_ascii_case("SUCCESS") => notify.success = true,
            w if w.eq_ignore_ascii_case("FAILURE") => notify.failure = true,
            w if w.eq_ignore_ascii_case("DELAY") => notify.delay = true,
            _ => return Err(wrong("NOTIFY")),
        }
    }
    Ok(notify)
}

/// RFC 3461 §4.2: `addr-type ";" xtext`.
pub(super) fn orcpt(value: &str) -> Result<String, CommandError> {
    let (kind, address) = value.split_once(';').ok_or_else(|| wrong("ORCPT"))?;
    let atom = |b: u8| b.is_ascii_graphic() && !b"()<>@,;:\\\".[]".contains(&b);
    let decoded = xtext::decode(address).filter(|address| !address.is_empty());
    match decoded {
        Some(address) if value.len() <= ORCPT_BYTES_MAX && !kind.is_empty() && kind.bytes().all(atom) => {
            Ok(format!("{kind};{address}"))
        }
        _ => Err(wrong("ORCPT")),
    }
}
