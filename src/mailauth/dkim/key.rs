//! Key records (RFC 6376 §3.6.1): what they say, and whether octets were signed by the key.

use aws_lc_rs::rsa::PublicKey as RsaPublicKey;
use aws_lc_rs::signature::{ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};

use super::Algorithm;
use super::signature::{decode_base64, is_domain};
use crate::dns::{Resolver, Trouble};
use crate::mailauth::Verdict;
use crate::mailauth::tags::{Tags, shortened};

/// Several records of one selector are tried, though the standard leaves open what they mean (RFC 6376 §3.6.2.2).
const RECORDS_MAX: usize = 4;
/// RFC 8301 §3.2: keys with less prove nothing.
const RSA_BITS_MIN: usize = 1024;

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    algorithm: Algorithm,
    /// RSA: DER; Ed25519: 32 octets.
    public: Vec<u8>,
    /// Length of an RSA key.
    bits: Option<usize>,
    /// `t=y`: the domain only tries DKIM out.
    pub(super) testing: bool,
    /// `t=s`: `i=` must have the very domain of `d=`.
    pub(super) strict: bool,
}

/// The key records of a selector, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLookup {
    /// The name that was asked.
    pub name: String,
    /// As they stand in DNS; octets that are no UTF-8 are shown as U+FFFD.
    pub records: Vec<String>,
    /// `rsa, 2048 bits`, of each record that can be used.
    pub keys: Vec<String>,
    /// What is wrong.
    pub problem: Option<String>,
}

/// Looks the records of a selector up.
pub async fn lookup(resolver: &Resolver, selector: &str, domain: &str) -> Result<KeyLookup, Trouble> {
    let name = format!("{selector}._domainkey.{domain}");
    if !is_domain(&name) {
        let problem = Some(format!("{name} is no name that DNS can hold"));
        return Ok(KeyLookup { name, records: Vec::new(), keys: Vec::new(), problem });
    }
    let texts = resolver.texts(&name).await?.into_records();
    let read: Vec<_> = texts.iter().map(|text| Key::parse(text)).collect();
    let problem = match read.as_slice() {
        [] => Some(format!("{name} has no TXT record")),
        [Err(why)] => Some(why.clone()),
        [Ok(key)] if key.testing => {
            Some("the key is for tests only (t=y): its signatures prove nothing".to_owned())
        }
        [Ok(_)] => None,
        _ => Some(format!("{name} has several TXT records: which one counts is left to chance")),
    };
    Ok(KeyLookup {
        records: texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
        keys: read.into_iter().flatten().map(|key| key.describe()).collect(),
        problem,
        name,
    })
}

impl Key {
    /// The keys of a selector, or why there is none.
    pub(super) async fn find(
        resolver: &Resolver,
        selector: &str,
        domain: &str,
    ) -> Result<Vec<Self>, (Verdict, String)> {
        let name = format!("{selector}._domainkey.{domain}");
        let texts = match resolver.texts(&name).await {
            Ok(answer) => answer.into_records(),
            Err(trouble) => return Err((Verdict::TempError, trouble.to_string())),
        };
        let read: Vec<_> = texts.iter().take(RECORDS_MAX).map(|text| Self::parse(text)).collect();
        let problem = read.iter().find_map(|key| key.as_ref().err().cloned());
        let keys: Vec<_> = read.into_iter().flatten().collect();
        if keys.is_empty() {
            let why = problem.unwrap_or_else(|| format!("there is no key at {name}"));
            return Err((Verdict::PermError, why));
        }
        Ok(keys)
    }

    /// Reads a record.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "the key record is not UTF-8".to_owned())?;
        let tags = Tags::parse(text).map_err(|why| format!("the key record is wrong: {why}"))?;
        // RFC 6376 §3.6.1: where it stands, it stands first, with this value.
        if tags.get("v").is_some_and(|version| version != "DKIM1" || tags.first() != Some("v")) {
            return Err("the record is no key record: v= is not DKIM1, or not the first tag".to_owned());
        }
        let has = |name: &str, wanted: &[&str]| {
            tags.compact(name).is_none_or(|list| list.split(':').any(|one| wanted.contains(&one)))
        };
        if !has("h", &["sha256"]) {
            return Err("the key does not allow SHA-256 (h=)".to_owned());
        }
        if !has("s", &["*", "email"]) {
            return Err("the key is not for mail (s=)".to_owned());
        }
        let public = tags.compact("p").ok_or("the key record has no p=")?;
        if public.is_empty() {
            return Err("the key was revoked (p= is empty)".to_owned());
        }
        let public = decode_base64(&public).ok_or("p= of the key record is no base64")?;
        let (algorithm, bits) = match tags.compact("k").as_deref() {
            None | Some("rsa") => {
                let key =
                    RsaPublicKey::from_der(&public).map_err(|_| "p= of the key record is no RSA key")?;
                (Algorithm::RsaSha256, Some(bits(key.modulus().big_endian_without_leading_zero())))
            }
            Some("ed25519") if public.len() == 32 => (Algorithm::Ed25519Sha256, None),
            Some("ed25519") => {
                return Err("p= of the key record is no Ed25519 key: it has not 32 octets".to_owned());
            }
            Some(other) => return Err(format!("the key's type {:?} is not known", shortened(other))),
        };
        let flag =
            |name: &str| tags.compact("t").is_some_and(|flags| flags.split(':').any(|flag| flag == name));
        Ok(Self { algorithm, public, bits, testing: flag("y"), strict: flag("s") })
    }

    /// Whether `signature` was made by this key over `signed`.
    pub(super) fn prove(
        &self,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), (Verdict, String)> {
        if self.algorithm != algorithm {
            let why =
                format!("the key is of type {}, not {}", self.algorithm.key_type(), algorithm.key_type());
            return Err((Verdict::PermError, why));
        }
        if let Some(bits) = self.bits.filter(|bits| *bits < RSA_BITS_MIN) {
            return Err((Verdict::Policy, format!("an RSA key of {bits} bits proves nothing (RFC 8301)")));
        }
        let proved = match algorithm {
            Algorithm::RsaSha256 => {
                UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, &self.public)
                    .verify(signed, signature)
            }
            // RFC 8463 §3: what is signed is the hash.
            Algorithm::Ed25519Sha256 => {
                let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, signed);
                UnparsedPublicKey::new(&ED25519, &self.public).verify(hash.as_ref(), signature)
            }
        };
        proved.map_err(|_| {
            (Verdict::Fail, "the signature does not match: header fields were changed, or the key".to_owned())
        })
    }

    fn describe(&self) -> String {
        let bits = self.bits.map(|bits| format!(", {bits} bits")).unwrap_or_default();
        format!("{}{bits}", self.algorithm.key_type())
    }
}

fn bits(modulus: &[u8]) -> usize {
    let top = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    modulus.len() * 8 - top
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    #[test]
    fn records() {
        let key =
            Key::parse(format!("v=DKIM1; k=ed25519; t=s:y; h=sha1:sha256; s=email; n=hi; p={ED}").as_bytes());
        let key = key.unwrap();
        assert!(key.strict && key.testing);
        assert_eq!(key.describe(), "ed25519");
    }

    #[test]
    fn records_that_are_no_good() {
        for (text, why) in [
            (format!("v=DKIM2; k=ed25519; p={ED}"), "not DKIM1"),
            (format!("k=ed25519; v=DKIM1; p={ED}"), "not the first tag"),
            (format!("k=ed25519; h=sha1; p={ED}"), "SHA-256"),
            (format!("k=ed25519; s=tlsrpt; p={ED}"), "not for mail"),
            ("v=DKIM1; k=ed25519; p=".to_owned(), "revoked"),
            ("v=DKIM1; k=ed25519".to_owned(), "no p="),
            ("v=DKIM1; k=ed25519; p=!".to_owned(), "no base64"),
            ("v=DKIM1; k=ed25519; p=YWJj".to_owned(), "32 octets"),
            ("v=DKIM1; p=YWJj".to_owned(), "no RSA key"),
            (format!("v=DKIM1; k=dsa; p={ED}"), "\"dsa\""),
            ("v=spf1 -all".to_owned(), "no key record"),
        ] {
            let problem = Key::parse(text.as_bytes()).unwrap_err();
            assert!(problem.contains(why), "{text}: {problem}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_octets_can_be_read(text: Vec<u8>) {
            let _ = Key::parse(&text);
        }
    }
}
