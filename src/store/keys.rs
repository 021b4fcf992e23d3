//! What an account proves itself with besides the password's hash: the keys of SCRAM, a salt for each, and, where the
//! operator wants it, the state of CRAM-MD5.
//!
//! They are kept as text: `iterations$salt$stored key$server key` in base64 (RFC 5802 §2.2 calls for no form), and the
//! state in base64. A name without keys has some that stand in for them, always the same, made from a secret of this
//! database: asking for the salt of a name tells nobody whether there is such an account.

use std::num::NonZeroU32;

use aws_lc_rs::hmac;
use rusqlite::{Connection, OptionalExtension, params};

use super::writer::Tx;
use super::{StoreError, micros};
use crate::names::AccountName;
use crate::sasl::{self, CramState, Hash, KeyKind, Keys, StoredKeys};

type Result<T> = std::result::Result<T, StoreError>;
/// Keys of a password, each as the text that is kept.
pub(super) type Written = Vec<(KeyKind, String)>;

/// Rounds of PBKDF2, which the client has to do as well: as many as GNU SASL's own tool takes.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(65_535);
/// A salt, of keys and of what stands in for them.
const SALT_BYTES: usize = 16;

const ALL: [KeyKind; 3] = [KeyKind::ScramSha256, KeyKind::ScramSha1, KeyKind::CramMd5];

/// The kinds that are kept. The state of CRAM-MD5 is as good as the password for that mechanism: by choice only.
pub(super) fn wanted(cram_md5: bool) -> Vec<KeyKind> {
    ALL.into_iter().filter(|kind| cram_md5 || *kind != KeyKind::CramMd5).collect()
}

/// Keys of a password, each with a salt of its own; none for a password that SASLprep refuses, which a client of these
/// mechanisms cannot send either. It takes some 25 ms for each kind of SCRAM.
pub(super) fn derive(password: &str, kinds: &[KeyKind]) -> Written {
    let Ok(password) = sasl::prepare(password) else { return Vec::new() };
    let scram = |hash| {
        let salt = rand::random::<[u8; SALT_BYTES]>().to_vec();
        write(&StoredKeys::derive(hash, &password, salt, ITERATIONS))
    };
    let derived = kinds.iter().map(|kind| {
        let text = match kind {
            KeyKind::ScramSha256 => scram(Hash::Sha256),
            KeyKind::ScramSha1 => scram(Hash::Sha1),
            KeyKind::CramMd5 => sasl::encode(&CramState::derive(&password).to_bytes()),
        };
        (*kind, text)
    });
    derived.collect()
}

/// The keys of an account. A user who is none, or an account without keys, has what stands in for them.
pub(super) fn find(
    connection: &Connection,
    account: Option<&AccountName>,
    user: &str,
    kind: KeyKind,
) -> Result<Keys> {
    let mut statement = connection.prepare_cached(
        "SELECT c.data FROM account a JOIN credential c ON c.account = a.id WHERE a.name = ?1 AND c.kind = ?2",
    )?;
    // Nobody has the empty name: the same look-up, finding nothing.
    let name = account.map_or("", AccountName::as_str);
    let kept: Option<String> = statement.query_row([name, name_of(kind)], |row| row.get(0)).optional()?;
    let secret: Vec<u8> =
        connection.prepare_cached("SELECT data FROM secret WHERE id = 1")?.query_row([], |row| row.get(0))?;
    // An account that has no keys yet looks the same under each of its names.
    let stand_in = stand_in(&secret, account.map_or(user, AccountName::as_str), kind);
    match kept {
        Some(kept) => read(&kept, kind).ok_or_else(|| StoreError::corrupt("the keys of a password")),
        None => Ok(stand_in),
    }
}

/// The kinds that an account has keys of.
pub(super) fn kinds(connection: &Connection, account: &AccountName) -> Result<Vec<KeyKind>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.kind FROM account a JOIN credential c ON c.account = a.id WHERE a.name = ?1",
    )?;
    let names = statement.query_map([account.as_str()], |row| row.get::<_, String>(0))?;
    let names = names.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(ALL.into_iter().filter(|kind| names.iter().any(|name| name == name_of(*kind))).collect())
}

/// Keeps keys for an account.
pub(super) fn keep(tx: &mut Tx<'_>, account: i64, keys: &Written) -> Result<()> {
    let mut statement = tx.connection.prepare_cached(
        "INSERT OR REPLACE INTO credential (account, kind, data, changed) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (kind, data) in keys {
        statement.execute(params![account, name_of(*kind), data, micros(tx.now)])?;
    }
    Ok(())
}

/// Removes the keys of one kind of all accounts; of how many.
pub(super) fn forget(tx: &mut Tx<'_>, kind: KeyKind) -> Result<usize> {
    let forgotten = tx.connection.execute("DELETE FROM credential WHERE kind = ?1", [name_of(kind)])?;
    Ok(forgotten)
}

/// As the database names them.
fn name_of(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::ScramSha256 => "scram-sha-256",
        KeyKind::ScramSha1 => "scram-sha-1",
        KeyKind::CramMd5 => "cram-md5",
    }
}

fn write(keys: &StoredKeys) -> String {
    let [salt, stored, server] =
        [&keys.salt, &keys.stored_key, &keys.server_key].map(|part| sasl::encode(part));
    format!("{}${salt}${stored}${server}", keys.iterations)
}

fn read(text: &str, kind: KeyKind) -> Option<Keys> {
    match kind {
        KeyKind::ScramSha256 => read_scram(text, Hash::Sha256).map(Keys::Scram),
        KeyKind::ScramSha1 => read_scram(text, Hash::Sha1).map(Keys::Scram),
        KeyKind::CramMd5 => sasl::decode(text.as_bytes())
            .ok()
            .and_then(|bytes| CramState::from_bytes(&bytes))
            .map(Keys::CramMd5),
    }
}

fn read_scram(text: &str, hash: Hash) -> Option<StoredKeys> {
    let mut parts = text.split('$');
    let iterations = parts.next()?.parse().ok()?;
    let mut bytes = || sasl::decode(parts.next()?.as_bytes()).ok();
    let keys = StoredKeys { hash, iterations, salt: bytes()?, stored_key: bytes()?, server_key: bytes()? };
    (keys.stored_key.len() == hash.bytes() && keys.server_key.len() == hash.bytes()).then_some(keys)
}

/// Keys of no password: what is stored is no digest of anything that is known.
fn stand_in(secret: &[u8], user: &str, kind: KeyKind) -> Keys {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let part = |label: &str, bytes: usize| {
        let text = format!("{label} {} {}", name_of(kind), user.to_lowercase());
        hmac::sign(&key, text.as_bytes()).as_ref()[..bytes].to_vec()
    };
    let scram = |hash: Hash| {
        Keys::Scram(StoredKeys {
            hash,
            iterations: ITERATIONS.get(),
            salt: part("salt", SALT_BYTES),
            stored_key: part("stored", hash.bytes()),
            server_key: part("server", hash.bytes()),
        })
    };
    match kind {
        KeyKind::ScramSha256 => scram(Hash::Sha256),
        KeyKind::ScramSha1 => scram(Hash::Sha1),
        KeyKind::CramMd5 => Keys::CramMd5(CramState::derive(&sasl::encode(&part("state", 32)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_written() {
        for (kind, text) in derive("secret", &ALL) {
            match (read(&text, kind).unwrap(), stand_in(b"x", "nobody", kind)) {
                (Keys::Scram(keys), Keys::Scram(stand_in)) => {
                    assert_eq!(write(&keys), text);
                    assert_eq!(keys, StoredKeys::derive(keys.hash, "secret", keys.salt.clone(), ITERATIONS));
                    assert_eq!(
                        (stand_in.salt.len(), stand_in.iterations),
                        (keys.salt.len(), keys.iterations)
                    );
                }
                (Keys::CramMd5(state), Keys::CramMd5(stand_in)) => {
                    assert_eq!(state.to_bytes(), CramState::derive("secret").to_bytes());
                    assert_ne!(stand_in.to_bytes(), state.to_bytes());
                }
                other => panic!("{other:?}"),
            }
            for damaged in ["", "4096", "4096$AAAA$AAAA$AAAA", "x$AAAA$AAAA$AAAA", "AAAA"] {
                assert!(read(damaged, kind).is_none());
            }
        }
    }

    #[test]
    fn no_salt_is_used_twice_and_an_unprepared_password_has_no_keys() {
        let salt = |(_, text): &(KeyKind, String)| text.split('$').nth(1).map(str::to_owned);
        let all = [derive("secret", &ALL), derive("secret", &ALL)].concat();
        let salts: std::collections::BTreeSet<String> = all.iter().filter_map(salt).collect();
        assert_eq!(salts.len(), 4);
        assert_eq!(derive("\u{7}", &ALL), []);
    }

    #[test]
    fn the_state_of_cram_md5_is_kept_by_choice() {
        assert_eq!(wanted(false), [KeyKind::ScramSha256, KeyKind::ScramSha1]);
        assert_eq!(wanted(true), ALL);
    }
}
