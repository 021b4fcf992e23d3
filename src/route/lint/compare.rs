//! What can be told about a comparison from the kinds and literals on both sides.

use super::Surroundings;
use super::kinds::{Kind, Value};
use crate::address::{Domain, Mailbox};
use crate::names::{AccountName, TransportName};
use crate::route::problem::{Rule, Severity, nearest};
use crate::route::value_type::TextOf;

/// What is wrong, without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) rule: Rule,
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Finding {
    pub(super) fn error(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, severity: Severity::Error, message: message.into(), hint: None }
    }

    pub(super) fn warning(rule: Rule, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(rule, message) }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Two values of kinds that can never be equal; `what` is how the script writes the first.
pub(super) fn kinds(what: Option<&str>, left: &Value, right: &Value, ordered: bool) -> Option<Finding> {
    if left.kind.may_equal(&right.kind) {
        return None;
    }
    let name = what.unwrap_or("this");
    if right.kind == Kind::Unit {
        let finding = Finding::warning(Rule::Comparison, format!("{name} is never ()"));
        return Some(match left.kind {
            Kind::Text(TextOf::Address | TextOf::Domain) => {
                finding.hint("for the null sender it is the empty string: compare it with \"\"")
            }
            _ => finding,
        });
    }
    let never = if ordered { "neither is ever larger" } else { "they are never equal" };
    let of = |value: &Value| match value.known_text() {
        Some(text) => format!("{text:?} is text"),
        None => format!("the other side is {}", value.kind.words()),
    };
    let message = format!("{name} is {}, and {}: {never}", left.kind.words(), of(right));
    let finding = Finding::error(Rule::Comparison, message);
    Some(match (left.kind.there(), right.known_text()) {
        (Kind::Int | Kind::Float, Some(text)) if text.trim().parse::<f64>().is_ok() => {
            finding.hint(format!("write {} without quotes", text.trim()))
        }
        (Kind::Bool, Some(text)) if text == "true" => finding.hint(format!("write: {name}")),
        (Kind::Bool, Some(text)) if text == "false" => finding.hint(format!("write: !{name}")),
        (Kind::Text(_), None) if matches!(right.kind, Kind::Int | Kind::Float) => {
            finding.hint("put the number in quotes")
        }
        _ => finding,
    })
}

/// A literal that is compared with a value which has one form.
pub(super) fn form(of: TextOf, name: Option<&str>, text: &str, around: &Surroundings) -> Option<Finding> {
    let name = name.unwrap_or("this");
    match of {
        TextOf::Words => None,
        TextOf::Domain => domain(name, text),
        TextOf::Address => address(name, text),
        TextOf::Account => account(name, text, around),
        TextOf::Transport => transport(name, text, around),
        TextOf::Word(words) if !words.contains(&text) => {
            let finding = Finding::error(Rule::Form, format!("{name} is never {text:?}"));
            Some(match nearest(text, words.iter().copied()) {
                Some(right) => finding.hint(format!("did you mean {right:?}?")),
                None => finding.hint(format!("it is one of {}", words.join(", "))),
            })
        }
        TextOf::Word(_) => None,
    }
}

/// "" is the domain of the null sender, and address literals have brackets.
fn domain(name: &str, text: &str) -> Option<Finding> {
    if text.is_empty() {
        return None;
    }
    let never = |why: &str| Finding::error(Rule::Form, format!("{name} is never {text:?}: {why}"));
    match Domain::parse_or_literal(text) {
        Ok(domain) if domain.as_str() == text => None,
        Ok(domain) => {
            let why = "domains are lower-case ASCII (A-labels) without a trailing dot";
            Some(never(why).hint(format!("write {:?}", domain.as_str())))
        }
        Err(_) => {
            let below = text.strip_prefix("*.").or_else(|| text.strip_prefix('.'));
            Some(match below.and_then(|base| Domain::parse(base).ok()) {
                Some(base) => never("that is a pattern, no domain")
                    .hint(format!("write in_domain({name}, \".{base}\") for it and all below")),
                None if text.contains('@') => {
                    never("that is an address").hint("compare it with the recipient or the sender")
                }
                None => never("that is no domain"),
            })
        }
    }
}

fn address(name: &str, text: &str) -> Option<Finding> {
    if text.is_empty() {
        return None;
    }
    let never = |why: &str| Finding::error(Rule::Form, format!("{name} is never {text:?}: {why}"));
    match Mailbox::parse(text) {
        Ok(mailbox) if mailbox.to_string() == text => None,
        Ok(mailbox) => {
            Some(never("that is not its one form").hint(format!("write {:?}", mailbox.to_string())))
        }
        Err(_) if text == "<>" => Some(never("the null sender is \"\"").hint("write \"\"")),
        Err(_) if Domain::parse(text.trim_start_matches('@')).is_ok() && text.contains('.') => {
            Some(never("that is a domain").hint(format!("compare {name}_domain with it")))
        }
        Err(_) => Some(never("that is no address")),
    }
}

fn account(name: &str, text: &str, around: &Surroundings) -> Option<Finding> {
    let Ok(account) = AccountName::new(text) else {
        let finding =
            Finding::error(Rule::Form, format!("{name} is never {text:?}: no account can be called so"));
        let lower = text.to_lowercase();
        return Some(match AccountName::new(&lower) {
            Ok(_) => finding.hint(format!("write {lower:?}")),
            Err(_) if text.is_empty() => finding.hint("when nobody logged in it is ()"),
            Err(_) => finding,
        });
    };
    let accounts = around.accounts.as_ref().filter(|accounts| !accounts.contains(&account))?;
    let finding = Finding::warning(Rule::Comparison, format!("there is no account {text:?}"));
    Some(match nearest(text, accounts.iter().map(AccountName::as_str)) {
        Some(right) => finding.hint(format!("did you mean {right:?}?")),
        None => finding,
    })
}

fn transport(name: &str, text: &str, around: &Surroundings) -> Option<Finding> {
    if TransportName::new(text).is_err() {
        let finding = format!("{name} is never {text:?}: no transport can be called so");
        return Some(Finding::error(Rule::Form, finding));
    }
    let known = around.transports.as_ref().filter(|known| !known.contains(text))?;
    if text == TransportName::DIRECT || text == TransportName::LOCAL {
        return None;
    }
    let finding = Finding::warning(Rule::Comparison, format!("there is no transport {text:?}"));
    Some(match nearest(text, known.iter().map(String::as_str)) {
        Some(right) => finding.hint(format!("did you mean {right:?}?")),
        None => finding,
    })
}

/// A literal that is looked for within a domain or an address.
pub(super) fn part(of: TextOf, method: &str, name: Option<&str>, text: &str) -> Option<Finding> {
    let domain_part = match (of, text.rsplit_once('@')) {
        (TextOf::Domain, None) => text,
        (TextOf::Address, Some((_, domain))) => domain,
        (TextOf::Address, None) if method == "ends_with" => text,
        _ => return None,
    };
    let name = name.unwrap_or("this");
    let never =
        |why: String| Finding::error(Rule::Form, format!("{name}.{method}({text:?}) is never true: {why}"));
    if domain_part.bytes().any(|b| b.is_ascii_uppercase()) && !domain_part.contains('[') {
        let right = text.replace(domain_part, &domain_part.to_ascii_lowercase());
        return Some(never("domains are in lower case".into()).hint(format!("write {right:?}")));
    }
    if !domain_part.is_ascii() {
        let why = "domains are in ASCII (A-labels)".into();
        return Some(never(why).hint("in_domain takes patterns in any letters"));
    }
    if method == "ends_with" && domain_part.ends_with('.') {
        return Some(never("domains have no trailing dot".into()));
    }
    None
}
