//! The functions that scripts can call besides the language's own: `in_domain`, `share`, `now`, `log`.

use rhai::{Dynamic, Engine, EvalAltResult, FLOAT, INT, ImmutableString, NativeCallContext};
use sha2::{Digest, Sha256};

use super::delivery::{Delivery, Given, Time};
use crate::address::Domain;

/// A function that scripts can call.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// As it is called.
    pub signature: &'static str,
    /// What it gives back, as the reference says it.
    pub returns: &'static str,
    /// What it does, in a line.
    pub doc: &'static str,
    /// A call of it.
    pub example: &'static str,
}

impl Function {
    /// Its name alone.
    pub fn name(&self) -> &'static str {
        let call = self.signature.rsplit_once('.').map_or(self.signature, |(_, call)| call);
        call.split_once('(').map_or(call, |(name, _)| name)
    }
}

/// All of ours. The language's own (strings, arrays, maps, mathematics) come on top.
pub const FUNCTIONS: &[Function] = &[
    Function {
        signature: "in_domain(domain, pattern)",
        returns: "true or false",
        doc: "`\"example.com\"` matches that domain alone; `\".example.com\"` matches it and all below",
        example: r#"in_domain(delivery.recipient_domain, ".example.com")"#,
    },
    Function {
        signature: "share(key, percent)",
        returns: "true or false",
        doc: "a stable split: true for `percent` (0 to 100) of all keys, and always the same for one key",
        example: r#"share("warm-up " + delivery.recipient, 10)"#,
    },
    Function {
        signature: "now()",
        returns: "time",
        doc: "the time of the attempt",
        example: "now().hour < 6",
    },
    Function {
        signature: "log(text)",
        returns: "`()`",
        doc: "writes a line into the trace of this decision, which is kept with the attempt",
        example: "log(`to ${delivery.recipient_domain}`)",
    },
    Function {
        signature: "delivery.header(name)",
        returns: "text or `()`",
        doc: "the first header field of that name, unfolded; `()` when there is none",
        example: r#"delivery.header("List-Unsubscribe") != ()"#,
    },
];

type Failed = Box<EvalAltResult>;

/// Tells an engine about the functions.
pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("in_domain", in_domain);
    engine.register_fn("share", |key: &str, percent: INT| share(key, percent as FLOAT));
    engine.register_fn("share", share);
    engine.register_fn("now", |ctx: NativeCallContext<'_>| -> Given {
        Ok(Dynamic::from(Time(evaluation(&ctx)?.0.facts.now)))
    });
    engine.register_fn("log", |ctx: NativeCallContext<'_>, text: ImmutableString| log(&ctx, &text));
    engine.register_fn("log", |ctx: NativeCallContext<'_>, value: Dynamic| log(&ctx, &value.to_string()));
    engine.register_fn("log", |ctx: NativeCallContext<'_>, time: Time| log(&ctx, &time.0.to_string()));
    // Rhai's own `log` of a number is a logarithm: silence where a line was meant.
    engine.register_fn("log", |ctx: NativeCallContext<'_>, value: FLOAT| log(&ctx, &value.to_string()));
    // These would make the same facts answer differently, stop the queue, or hide where a decision was made.
    for name in ["sleep", "timestamp", "exit"] {
        let gone = move || -> Given { Err(format!("{name}() is not available in routing scripts").into()) };
        engine.register_fn(name, gone);
        engine.register_fn(name, move |_: INT| gone());
        engine.register_fn(name, move |_: FLOAT| gone());
        engine.register_fn(name, move |_: Dynamic| gone());
    }
}

/// The evaluation that a function was called in.
fn evaluation(ctx: &NativeCallContext<'_>) -> Result<Delivery, Failed> {
    let delivery = ctx.tag().and_then(|tag| tag.clone().try_cast::<Delivery>());
    delivery.ok_or_else(|| "only route(delivery) and what it calls can use this function".into())
}

fn log(ctx: &NativeCallContext<'_>, text: &str) -> Result<(), Failed> {
    evaluation(ctx)?.0.log.lock().push(text);
    Ok(())
}

/// Domains are compared in their one form; text that already has it, as `delivery` gives it, costs no conversion.
fn in_domain(domain: &str, pattern: &str) -> Result<bool, Failed> {
    let (below, base) = pattern.strip_prefix('.').map_or((false, pattern), |base| (true, base));
    let parsed = if has_one_form(base) { None } else { Some(parse(base)?) };
    let base = parsed.as_ref().map_or(base, Domain::as_str);
    let parsed = if has_one_form(domain) || domain.is_empty() { None } else { Some(parse(domain)?) };
    let domain = parsed.as_ref().map_or(domain, Domain::as_str);
    Ok(match domain.strip_suffix(base) {
        Some("") => true,
        Some(rest) => below && rest.ends_with('.'),
        None => false,
    })
}

fn parse(domain: &str) -> Result<Domain, Failed> {
    Domain::parse_or_literal(domain).map_err(|_| format!("in_domain: {domain:?} is not a domain").into())
}

/// Whether it is a domain, perhaps with a dot before it: what `in_domain` takes as its pattern.
pub(super) fn is_pattern(pattern: &str) -> bool {
    let base = pattern.strip_prefix('.').unwrap_or(pattern);
    has_one_form(base) || parse(base).is_ok()
}

fn has_one_form(domain: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    !domain.is_empty() && !domain.ends_with('.') && domain.bytes().all(plain)
}

/// The first 8 bytes of the key's SHA-256, as a part of 2⁶⁴, are below `percent`: documented in docs/routing.md and
/// never to be changed, for mail under way would change sides.
fn share(key: &str, percent: FLOAT) -> Result<bool, Failed> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(format!("share: percent is 0 to 100, not {percent}").into());
    }
    Ok(in_share(key, percent))
}

/// Whether a key is among so many percent of all keys.
pub(super) fn in_share(key: &str, percent: f64) -> bool {
    let digest = Sha256::digest(key.as_bytes());
    let first = digest.iter().take(8).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    // 53 bits are exact in a float, so that 100 takes every key and 0 takes none.
    let part = (first >> 11) as f64 / (1u64 << 53) as f64;
    part * 100.0 < percent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_match_as_documented() {
        for (domain, pattern, matches) in [
            ("example.com", "example.com", true),
            ("mail.example.com", "example.com", false),
            ("mail.example.com", ".example.com", true),
            ("a.b.example.com", ".example.com", true),
            ("example.com", ".example.com", true),
            ("badexample.com", ".example.com", false),
            ("example.com", ".com", true),
            ("example.com", "EXAMPLE.com.", true),
            ("Mail.Example.COM.", ".example.com", true),
            ("xn--bcher-kva.example", "bücher.example", true),
            ("www.bücher.example", ".bücher.example", true),
            ("[192.0.2.1]", "[192.0.2.1]", true),
            ("", "example.com", false),
            ("", ".example.com", false),
        ] {
            assert_eq!(in_domain(domain, pattern).unwrap(), matches, "{domain} {pattern}");
        }
    }

    #[test]
    fn what_is_no_domain_is_an_error() {
        for (domain, pattern) in [("a.b", ""), ("a.b", "."), ("a.b", "a b"), ("a b", "a.b"), ("a.b", "*.b")] {
            assert!(in_domain(domain, pattern).is_err(), "{domain:?} {pattern:?}");
        }
    }

    #[test]
    fn a_share_is_stable_and_about_as_large_as_asked() {
        let keys: Vec<String> = (0..2_000).map(|n| format!("user{n}@example.org")).collect();
        let inside = |percent| keys.iter().filter(|key| share(key, percent).unwrap()).count();
        assert_eq!((inside(0.0), inside(100.0)), (0, 2_000));
        assert!((350..450).contains(&inside(20.0)), "{}", inside(20.0));
        // A larger share keeps everyone who was in the smaller one.
        assert!(keys.iter().all(|key| !share(key, 5.0).unwrap() || share(key, 20.0).unwrap()));
        // Known answers: these never change.
        for (key, percent, side) in
            [("c@example.org", 8.0, false), ("c@example.org", 9.0, true), ("a@example.org", 88.0, false)]
        {
            assert_eq!(share(key, percent).unwrap(), side, "{key}");
        }
        assert!(
            share("key", 101.0).is_err() && share("key", -1.0).is_err() && share("key", FLOAT::NAN).is_err()
        );
    }
}
