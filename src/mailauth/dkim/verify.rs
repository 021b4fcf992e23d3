//! Checks all signatures of a message (RFC 6376 §6).

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::future::join_all;
use jiff::Timestamp;

use super::SIGNATURES_MAX;
use super::key::Key;
use super::signature::{self, Claim, Problem, Signature, without_signature};
use crate::dns::Resolver;
use crate::mailauth::canonical::Canonical;
use crate::mailauth::{Message, Verdict};
use crate::message::header_fields::RawField;

/// What came of one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The result.
    pub verdict: Verdict,
    /// `d=`, lower-case, where it is a domain.
    pub domain: Option<String>,
    /// `s=`, lower-case.
    pub selector: Option<String>,
    /// `a=`.
    pub algorithm: Option<String>,
    /// `i=`.
    pub identity: Option<String>,
    /// The first characters of `b=`, to tell signatures apart (RFC 6008).
    pub signature: Option<String>,
    /// Why it is no pass, for people.
    pub reason: Option<String>,
}

/// Checks the signatures of a message, in the order in which they stand, with all look-ups at once. At most
/// [`SIGNATURES_MAX`] are looked at; those beyond it are neutral.
pub async fn verify(resolver: &Resolver, message: &Message<'_>, now: Timestamp) -> Vec<Checked> {
    let fields = message.fields.iter().filter(|field| field.is("DKIM-Signature"));
    let read: Vec<_> = fields
        .take(2 * SIGNATURES_MAX)
        .enumerate()
        .map(|(at, field)| {
            let (claim, signature) = signature::read(field.value, now);
            let too_many = || (Verdict::Neutral, "not looked at: there are too many signatures".to_owned());
            (field, claim, signature.and_then(|s| if at < SIGNATURES_MAX { Ok(s) } else { Err(too_many()) }))
        })
        .collect();
    let signatures = read.iter().filter_map(|(_, _, signature)| signature.as_ref().ok());
    let bodies = BodyHashes::of(message.body, signatures);
    let checks = read.into_iter().map(|(field, claim, signature)| {
        let bodies = &bodies;
        async move {
            let result = match signature {
                Ok(signature) => check(resolver, message, bodies, field, &signature).await,
                Err(problem) => Err(problem),
            };
            checked(claim, result)
        }
    });
    join_all(checks).await
}

/// The result for the message as a whole: that of its best signature.
pub fn best(all: &[Checked]) -> Verdict {
    const ORDER: [Verdict; 6] = [
        Verdict::Pass,
        Verdict::TempError,
        Verdict::Policy,
        Verdict::Fail,
        Verdict::PermError,
        Verdict::Neutral,
    ];
    ORDER.into_iter().find(|verdict| all.iter().any(|one| one.verdict == *verdict)).unwrap_or(Verdict::None)
}

fn checked(claim: Claim, result: Result<(), Problem>) -> Checked {
    let (verdict, reason) = match result {
        Ok(()) => (Verdict::Pass, None),
        Err((verdict, reason)) => (verdict, Some(reason)),
    };
    let start = |signature: String| signature.chars().take(8).collect();
    Checked {
        verdict,
        domain: claim.domain,
        selector: claim.selector,
        algorithm: claim.algorithm,
        identity: claim.identity,
        signature: claim.signature.map(start),
        reason,
    }
}

async fn check(
    resolver: &Resolver,
    message: &Message<'_>,
    bodies: &BodyHashes,
    field: &RawField<'_>,
    signature: &Signature,
) -> Result<(), Problem> {
    bodies.check(signature)?;
    let keys = Key::find(resolver, &signature.selector, &signature.domain).await?;
    let form = signature.header_form;
    let mut signed = message.signed_fields(&signature.names, form);
    form.own_field(field, &without_signature(field.value), &mut signed);
    let mut first_problem = None;
    for key in &keys {
        match by_key(key, signature, &signed) {
            Ok(()) => return Ok(()),
            Err(problem) => first_problem = first_problem.or(Some(problem)),
        }
    }
    Err(first_problem.unwrap_or_else(|| (Verdict::PermError, "there is no key".to_owned())))
}

fn by_key(key: &Key, signature: &Signature, signed: &[u8]) -> Result<(), Problem> {
    // RFC 6376 §3.6.1: whoever tries DKIM out must be treated as if he did not sign, whatever comes of it.
    if key.testing {
        return Err((Verdict::Neutral, "the key is for tests only (t=y)".to_owned()));
    }
    if key.strict && signature.identity_domain != signature.domain {
        return Err((Verdict::PermError, "the key wants i= to have the domain of d= (t=s)".to_owned()));
    }
    key.prove(signature.algorithm, signed, &signature.proof)
}

/// The hashes of a body in the forms that its signatures want, each made once.
struct BodyHashes(Vec<((Canonical, Option<u64>), BodyHash)>);

struct BodyHash {
    hash: Vec<u8>,
    /// Octets of the whole body in this form.
    bytes: u64,
}

impl BodyHashes {
    fn of<'s>(body: &[u8], signatures: impl Iterator<Item = &'s Signature>) -> Self {
        let mut all: Vec<((Canonical, Option<u64>), BodyHash)> = Vec::new();
        for signature in signatures {
            let wanted = (signature.body_form, signature.body_bytes);
            if !all.iter().any(|(made, _)| *made == wanted) {
                all.push((wanted, hash(body, wanted.0, wanted.1)));
            }
        }
        Self(all)
    }

    fn check(&self, signature: &Signature) -> Result<(), Problem> {
        let wanted = (signature.body_form, signature.body_bytes);
        let found = self.0.iter().find(|(made, _)| *made == wanted).map(|(_, hash)| hash);
        let changed = || (Verdict::Fail, "the body was changed".to_owned());
        let found = found.ok_or_else(changed)?;
        // RFC 6376 §3.5.
        if signature.body_bytes.is_some_and(|bytes| bytes > found.bytes) {
            return Err((Verdict::PermError, "l= is more than the body has".to_owned()));
        }
        if found.hash != signature.body_hash {
            return Err(changed());
        }
        // RFC 6376 §8.2: anybody could have added the rest.
        if signature.body_bytes.is_some_and(|bytes| bytes < found.bytes) {
            return Err((Verdict::Policy, "only a part of the body is signed (l=)".to_owned()));
        }
        Ok(())
    }
}

fn hash(body: &[u8], form: Canonical, bytes_max: Option<u64>) -> BodyHash {
    let (mut context, mut bytes) = (Context::new(&SHA256), 0_u64);
    form.body(body, |piece| {
        let room = bytes_max.map_or(u64::MAX, |max| max.saturating_sub(bytes));
        context.update(&piece[..piece.len().min(usize::try_from(room).unwrap_or(usize::MAX))]);
        bytes += piece.len() as u64;
    });
    BodyHash { hash: context.finish().as_ref().to_vec(), bytes }
}

/// The hash of a whole body.
pub(super) fn body_hash(body: &[u8], form: Canonical) -> Vec<u8> {
    hash(body, form, None).hash
}
