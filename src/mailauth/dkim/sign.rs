//! Makes signatures (RFC 6376 §5).
//!
//! Both parts are in relaxed form: what servers on the way do to white space then does no harm. The fields that a reader
//! sees are signed once more than they are there, so that nobody can add another one (RFC 6376 §8.15).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::private::{PrivateKey, PrivateKeyError};
use super::verify::body_hash;
use crate::mailauth::Message;
use crate::mailauth::canonical::Canonical;
use crate::message::header_fields::fields;

/// Fields that are signed, and signed against being added.
const OVERSIGNED: [&str; 10] = [
    "From",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-Id",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
/// Fields that are signed where they are; mailing lists may add theirs.
const SIGNED: [&str; 6] = [
    "Sender",
    "In-Reply-To",
    "References",
    "Content-Disposition",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
];
/// More fields of one name than this make a message whose signature would be no use.
const SAME_NAME_MAX: usize = 100;
/// Where lines are folded (RFC 5322 §2.1.1).
const LINE_BYTES: usize = 76;

/// Who signs: a domain, with one of its keys.
#[derive(Debug)]
pub struct Signer {
    /// `d=`: the domain in its ASCII form.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// The key.
    pub key: PrivateKey,
}

/// Signs a message; returns the fields to put in front of it, one for each signer.
pub fn sign<'s>(
    message: &Message<'_>,
    signers: impl IntoIterator<Item = &'s Signer>,
    now: Timestamp,
) -> Result<Vec<u8>, PrivateKeyError> {
    let names = names_to_sign(message);
    let lower: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let signed_fields = message.signed_fields(&lower, Canonical::Relaxed);
    let body_hash = STANDARD.encode(body_hash(message.body, Canonical::Relaxed));
    let mut out = Vec::with_capacity(1024);
    for signer in signers {
        let mut field = unsigned(signer, &names, &body_hash, now);
        let mut signed = signed_fields.clone();
        for own in fields(&field) {
            Canonical::Relaxed.own_field(&own, own.value, &mut signed);
        }
        let signature = STANDARD.encode(signer.key.sign(&signed)?);
        append_folded(&mut field, "\tb=".len(), &signature);
        field.extend_from_slice(b"\r\n");
        out.extend_from_slice(&field);
    }
    Ok(out)
}

/// `h=`.
fn names_to_sign(message: &Message<'_>) -> Vec<&'static str> {
    let count = |name: &str| message.named(name).take(SAME_NAME_MAX).count();
    let over = OVERSIGNED.iter().flat_map(|name| std::iter::repeat_n(*name, count(name) + 1));
    let there = SIGNED.iter().flat_map(|name| std::iter::repeat_n(*name, count(name)));
    over.chain(there).collect()
}

/// The field up to the empty `b=`, without a line end.
fn unsigned(signer: &Signer, names: &[&str], body_hash: &str, now: Timestamp) -> Vec<u8> {
    let mut field = format!(
        "DKIM-Signature: v=1; a={}; c=relaxed/relaxed;\r\n\td={}; s={};\r\n\tt={}; h=",
        signer.key.algorithm().as_str(),
        signer.domain,
        signer.selector,
        now.as_second().max(0),
    );
    let mut column = field.len() - field.rfind('\n').map_or(0, |lf| lf + 1);
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            field.push(':');
        }
        if column + name.len() + 1 > LINE_BYTES {
            field.push_str("\r\n\t ");
            column = 2;
        }
        field.push_str(name);
        column += name.len() + 1;
    }
    field.push_str(";\r\n\tbh=");
    field.push_str(body_hash);
    field.push_str(";\r\n\tb=");
    field.into_bytes()
}

fn append_folded(field: &mut Vec<u8>, column: usize, text: &str) {
    let (mut rest, mut room) = (text, LINE_BYTES - column);
    while rest.len() > room {
        let (line, behind) = rest.split_at(room);
        field.extend_from_slice(line.as_bytes());
        field.extend_from_slice(b"\r\n\t ");
        (rest, room) = (behind, LINE_BYTES - 2);
    }
    field.extend_from_slice(rest.as_bytes());
}
