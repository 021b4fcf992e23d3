//! What an account proves itself with besides the password's hash: the keys of SCRAM, a salt for each.
//!
//! They are kept as text, `iterations$salt$stored key$server key` in base64 (RFC 5802 §2.2 calls for no form). A name
//! without keys has some that stand in for them, always the same, made from a secret of this database: asking for
//! the salt of a name tells nobody whether there is such an account.

use std::num::NonZeroU32;

use aws_lc_rs::hmac;
use rusqlite::{Connection, OptionalExtension, params};

use super::writer::Tx;
use super::{StoreError, micros};
use crate::names::AccountName;
use crate::sasl::{self, Hash, StoredKeys};

type Result<T> = std::result::Result<T, StoreError>;

/// Rounds of PBKDF2, which the client has to do as well: as many as GNU SASL's own tool takes.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(65_535);
/// A salt, of keys and of what stands in for them.
const SALT_BYTES: usize = 16;

/// Each hash function with its kind of credential.
const KINDS: [(Hash, &str); 2] = [(Hash::Sha256, "scram-sha-256"), (Hash::Sha1, "scram-sha-1")];

/// Keys of a password for every kind, each with a salt of its own; none for a password that SASLprep refuses, which a
/// client of SCRAM cannot send either. It takes some 50 ms.
pub(super) fn derive(password: &str) -> Vec<(&'static str, String)> {
    let Ok(password) = sasl::prepare(password) else { return Vec::new() };
    let keys = KINDS.map(|(hash, kind)| {
        let salt = rand::random::<[u8; SALT_BYTES]>().to_vec();
        (kind, write(&StoredKeys::derive(hash, &password, salt, ITERATIONS)))
    });
    keys.into()
}

/// The keys of an account. A user who is none, or an account without keys, has what stands in for them.
pub(super) fn find(
    connection: &Connection,
    account: Option<&AccountName>,
    user: &str,
    hash: Hash,
) -> Result<StoredKeys> {
    let mut statement = connection.prepare_cached(
        "SELECT c.data FROM account a JOIN credential c ON c.account = a.id WHERE a.name = ?1 AND c.kind = ?2",
    )?;
    // Nobody has the empty name: the same look-up, finding nothing.
    let name = account.map_or("", AccountName::as_str);
    let kept: Option<String> = statement.query_row([name, kind(hash)], |row| row.get(0)).optional()?;
    let secret: Vec<u8> =
        connection.prepare_cached("SELECT data FROM secret WHERE id = 1")?.query_row([], |row| row.get(0))?;
    // An account that has no keys yet looks the same under each of its names.
    let stand_in = stand_in(&secret, account.map_or(user, AccountName::as_str), hash);
    match kept {
        Some(kept) => read(&kept, hash).ok_or_else(|| StoreError::corrupt("the keys of a password")),
        None => Ok(stand_in),
    }
}

/// Whether an account has keys of every kind.
pub(super) fn are_there(connection: &Connection, account: &AccountName) -> Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT COUNT(*) FROM account a JOIN credential c ON c.account = a.id \
         WHERE a.name = ?1 AND c.kind LIKE 'scram-%'",
    )?;
    let found: u32 = statement.query_row([account.as_str()], |row| row.get(0))?;
    Ok(found as usize == KINDS.len())
}

/// Keeps keys for an account.
pub(super) fn keep(tx: &mut Tx<'_>, account: i64, keys: &[(&str, String)]) -> Result<()> {
    let mut statement = tx.connection.prepare_cached(
        "INSERT OR REPLACE INTO credential (account, kind, data, changed) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (kind, data) in keys {
        statement.execute(params![account, kind, data, micros(tx.now)])?;
    }
    Ok(())
}

fn kind(hash: Hash) -> &'static str {
    KINDS.into_iter().find(|(of, _)| *of == hash).map_or("", |(_, kind)| kind)
}

fn write(keys: &StoredKeys) -> String {
    let [salt, stored, server] =
        [&keys.salt, &keys.stored_key, &keys.server_key].map(|part| sasl::encode(part));
    format!("{}${salt}${stored}${server}", keys.iterations)
}

fn read(text: &str, hash: Hash) -> Option<StoredKeys> {
    let mut parts = text.split('$');
    let iterations = parts.next()?.parse().ok()?;
    let mut bytes = || sasl::decode(parts.next()?.as_bytes()).ok();
    let keys = StoredKeys { hash, iterations, salt: bytes()?, stored_key: bytes()?, server_key: bytes()? };
    (keys.stored_key.len() == hash.bytes() && keys.server_key.len() == hash.bytes()).then_some(keys)
}

/// Keys of no password: what is stored is no digest of anything that is known.
fn stand_in(secret: &[u8], user: &str, hash: Hash) -> StoredKeys {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let part = |label: &str, bytes: usize| {
        let text = format!("{label} {} {}", kind(hash), user.to_lowercase());
        hmac::sign(&key, text.as_bytes()).as_ref()[..bytes].to_vec()
    };
    StoredKeys {
        hash,
        iterations: ITERATIONS.get(),
        salt: part("salt", SALT_BYTES),
        stored_key: part("stored", hash.bytes()),
        server_key: part("server", hash.bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_written() {
        for (kind, text) in derive("secret") {
            let hash = KINDS.into_iter().find(|(_, name)| *name == kind).unwrap().0;
            let keys = read(&text, hash).unwrap();
            assert_eq!(write(&keys), text);
            assert_eq!(keys, StoredKeys::derive(hash, "secret", keys.salt.clone(), ITERATIONS));
            let stand_in = stand_in(b"x", "nobody", hash);
            assert_eq!((stand_in.salt.len(), stand_in.iterations), (keys.salt.len(), keys.iterations));
        }
        for damaged in ["", "4096", "4096$AAAA$AAAA$AAAA", "x$AAAA$AAAA$AAAA"] {
            assert_eq!(read(damaged, Hash::Sha1), None);
        }
    }

    #[test]
    fn no_salt_is_used_twice_and_an_unprepared_password_has_no_keys() {
        let salt = |(_, text): &(&str, String)| text.split('$').nth(1).unwrap().to_owned();
        let all = [derive("secret"), derive("secret")].concat();
        let salts: std::collections::BTreeSet<String> = all.iter().map(salt).collect();
        assert_eq!(salts.len(), 4);
        assert_eq!(derive("\u{7}"), []);
    }
}
