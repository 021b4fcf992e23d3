//! Passwords: hashed with argon2id, verified off the async threads and a few at a time.
//!
//! One verification costs some 40 ms of CPU and 19 MiB. An account that does not exist, or has no password, costs the
//! same, so that nobody learns by the clock which accounts there are. A verification that succeeded is remembered for
//! a short while, under a keyed hash of account, stored hash and password: a client that logs in for every message
//! pays once, and a changed password is another key.
//!
//! RFC 9106 (argon2id).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::keys::{self, Written};
use super::writer::Tx;
use super::{StoreError, mailboxes, micros};
use crate::names::AccountName;
use crate::sasl::{KeyKind, prepare};

/// Longest password.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// How long a successful verification is remembered.
const REMEMBERED: Duration = Duration::from_mins(2);
/// Successful verifications remembered at the same time.
const REMEMBERED_MAX: usize = 4_096;
/// The kind of credential.
const KIND: &str = "argon2id";
/// Stands in for the hash of an account that has none: the same parameters as [`Argon2::default`], a result that no
/// password is known to give.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$d2F5cG9zdC1ub2JvZHk$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

type Result<T> = std::result::Result<T, StoreError>;
type Key = [u8; 32];

/// Hashes and verifies.
pub(super) struct Passwords {
    /// How many may work at the same time.
    workers: Arc<Semaphore>,
    /// Of this process alone: what is remembered cannot be looked up in tables.
    secret: Key,
    remembered: Mutex<HashMap<Key, Instant>>,
}

impl Passwords {
    pub(super) fn new(parallel_max: usize) -> Self {
        Self {
            workers: Arc::new(Semaphore::new(parallel_max.max(1))),
            secret: rand::random(),
            remembered: Mutex::new(HashMap::new()),
        }
    }

    /// The PHC string to keep for a password.
    pub(super) async fn hash(&self, password: &str) -> Result<String> {
        if password.is_empty() {
            return Err(StoreError::invalid("a password cannot be empty"));
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(StoreError::invalid(format!("a password has at most {PASSWORD_BYTES_MAX} bytes")));
        }
        let password = password.to_owned();
        self.work(move || {
            // RFC 4616 §2: the prepared form, so that it does not matter on which keyboard it was typed.
            let prepared = prepare(&password).unwrap_or(password.as_str().into());
            let hash = Argon2::default().hash_password(prepared.as_bytes());
            hash.map(|hash| hash.to_string())
                .map_err(|error| StoreError::Database(format!("argon2id: {error}")))
        })
        .await?
    }

    /// Keys of a password, of these kinds.
    pub(super) async fn keys(&self, password: &str, kinds: Vec<KeyKind>) -> Result<Written> {
        let password = password.to_owned();
        self.work(move || keys::derive(&password, &kinds)).await
    }

    /// Whether the password belongs to what is kept. Takes the same time when nothing is kept.
    pub(super) async fn verify(
        &self,
        account: &AccountName,
        kept: Option<String>,
        password: &str,
    ) -> Result<bool> {
        // A password that cannot have been set still costs the same, and never more.
        let too_long = password.len() > PASSWORD_BYTES_MAX;
        let kept = kept.filter(|_| !too_long);
        let password = if too_long { "" } else { password };
        let key = kept.as_deref().map(|kept| self.key(account, kept, password));
        if key.is_some_and(|key| self.remembers(&key, Instant::now())) {
            return Ok(true);
        }
        let password = password.to_owned();
        let good = self.work(move || {
            let hash = PasswordHash::new(kept.as_deref().unwrap_or(NOBODY))
                .map_err(|_| StoreError::corrupt("a password hash"))?;
            let fits = |text: &str| Argon2::default().verify_password(text.as_bytes(), &hash).is_ok();
            let prepared = prepare(&password).unwrap_or(password.as_str().into());
            // What was set before passwords were prepared is kept as it was typed.
            let same = fits(&prepared) || (prepared != password && fits(&password));
            Ok::<_, StoreError>(same && kept.is_some())
        });
        let good = good.await??;
        if let Some(key) = key.filter(|_| good) {
            self.remember(key, Instant::now());
        }
        Ok(good)
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let permit = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        task.await.map_err(|_| StoreError::Closed)
    }

    fn key(&self, account: &AccountName, kept: &str, password: &str) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        for part in [account.as_str(), kept, password] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn remembers(&self, key: &Key, now: Instant) -> bool {
        self.remembered.lock().get(key).is_some_and(|until| now < *until)
    }

    fn remember(&self, key: Key, now: Instant) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, until| now < *until);
        }
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(key, now + REMEMBERED);
        }
    }

    /// Forgets all verifications, after a password changed or an account went.
    pub(super) fn forget(&self) {
        self.remembered.lock().clear();
    }
}

/// What is kept for an account.
pub(super) fn find(connection: &Connection, account: &AccountName) -> Result<Option<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.data FROM account a JOIN credential c ON c.account = a.id WHERE a.name = ?1 AND c.kind = ?2",
    )?;
    Ok(statement.query_row([account.as_str(), KIND], |row| row.get(0)).optional()?)
}

/// Keeps a PHC string and keys for an account, which is made on first sight, and nothing of an older password.
pub(super) fn keep(tx: &mut Tx<'_>, account: &AccountName, phc: &str, keys: &Written) -> Result<()> {
    let id = mailboxes::ensure_account(tx, account)?;
    tx.connection.prepare_cached("DELETE FROM credential WHERE account = ?1")?.execute([id])?;
    tx.connection
        .prepare_cached(
            "INSERT OR REPLACE INTO credential (account, kind, data, changed) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![id, KIND, phc, micros(tx.now)])?;
    keys::keep(tx, id, keys)
}

/// Adds keys to an account whose password is still the one that they were made of.
pub(super) fn add_keys(tx: &mut Tx<'_>, account: &AccountName, phc: &str, keys: &Written) -> Result<()> {
    if find(tx.connection, account)?.as_deref() != Some(phc) {
        return Ok(());
    }
    let id = mailboxes::ensure_account(tx, account)?;
    keys::keep(tx, id, keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> AccountName {
        AccountName::new(name).unwrap()
    }

    #[test]
    fn the_stand_in_has_the_parameters_of_real_hashes() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let real = Argon2::default().hash_password(b"secret").unwrap();
        let shape = |hash: &PasswordHash| {
            (hash.algorithm, hash.version, hash.params.to_string(), hash.hash.map(|output| output.len()))
        };
        assert_eq!(shape(&nobody), shape(&real));
    }

    #[tokio::test]
    async fn a_verification_is_remembered_for_one_password_one_hash_and_a_while() {
        let passwords = Passwords::new(1);
        let (ann, bob) = (account("ann"), account("bob"));
        let kept = passwords.hash("secret").await.unwrap();
        assert!(passwords.verify(&ann, Some(kept.clone()), "secret").await.unwrap());
        let now = Instant::now();
        let knows = |account, kept: &str, password, at| {
            passwords.remembers(&passwords.key(account, kept, password), at)
        };
        assert!(knows(&ann, &kept, "secret", now));
        assert!(!knows(&ann, &kept, "other", now));
        assert!(!knows(&bob, &kept, "secret", now));
        assert!(!knows(&ann, "another hash", "secret", now));
        assert!(!knows(&ann, &kept, "secret", now + REMEMBERED));
        passwords.forget();
        assert!(!knows(&ann, &kept, "secret", now));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_makes_room_when_it_expires() {
        let (passwords, begin) = (Passwords::new(1), Instant::now());
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            key
        };
        (0..=REMEMBERED_MAX).for_each(|number| passwords.remember(key(number), begin));
        assert_eq!(passwords.remembered.lock().len(), REMEMBERED_MAX);
        assert!(!passwords.remembers(&key(REMEMBERED_MAX), begin));
        let later = begin + REMEMBERED;
        passwords.remember(key(REMEMBERED_MAX), later);
        assert!(passwords.remembers(&key(REMEMBERED_MAX), later));
    }

    #[tokio::test]
    async fn passwords_have_limits() {
        let passwords = Passwords::new(1);
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        assert!(matches!(passwords.hash("").await, Err(StoreError::Invalid(_))));
        assert!(matches!(passwords.hash(&long).await, Err(StoreError::Invalid(_))));
        let empty = Argon2::default().hash_password(b"").unwrap().to_string();
        assert!(!passwords.verify(&account("ann"), Some(empty), &long).await.unwrap());
    }
}
