//! What is kept between starts: accounts with CAs, the certificate with its key, and how the last attempt went.
//!
//! All of it stands in the folder `acme` of the data directory, for the server's user alone, and each file is replaced as
//! a whole: a power cut leaves the old one or the new one. Chain and key are one file, so that they always fit.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use instant_acme::AccountCredentials;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Acme;

const CERTIFICATE_FILE: &str = "certificate.pem";
const RECORD_FILE: &str = "state.json";

/// Why something cannot be kept or read back.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The system refuses.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What stands there was not written by us.
    #[error("{} is damaged ({reason}): remove it, and it is made anew", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The folder `acme` of the data directory.
#[derive(Debug, Clone)]
pub struct Storage {
    dir: PathBuf,
}

/// An account with a CA.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredAccount {
    /// The contacts that the CA knows.
    pub(super) contact: Vec<String>,
    pub(super) credentials: AccountCredentials,
}

/// How things stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// The directory of the CA that issued the certificate.
    pub(super) issued_by: Option<String>,
    /// When it was issued.
    pub(super) issued_at: Option<Timestamp>,
    /// Set while attempts fail.
    pub(super) failure: Option<Failure>,
}

/// The attempts that failed, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// How many.
    pub(super) count: u32,
    /// When the last one ended.
    pub(super) at: Timestamp,
    /// When the next one is due.
    pub(super) next: Timestamp,
    /// What went wrong.
    pub(super) error: String,
    /// The settings that failed: others are worth an attempt at once.
    pub(super) settings: String,
}

impl Storage {
    /// The folder of a data directory, made where it is missing.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        let storage = Self { dir: data_dir.join("acme") };
        let failed = |source| StorageError::Io { path: storage.dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&storage.dir).map_err(failed)?;
        fs::set_permissions(&storage.dir, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        Ok(storage)
    }

    /// Where chain and key stand, PEM.
    pub fn certificate_file(&self) -> PathBuf {
        self.dir.join(CERTIFICATE_FILE)
    }

    /// Chain and key, if there are any.
    pub(super) fn certificate(&self) -> Result<Option<String>, StorageError> {
        let found = self.read(CERTIFICATE_FILE)?;
        found
            .map(|octets| String::from_utf8(octets).map_err(|e| self.damaged(CERTIFICATE_FILE, e)))
            .transpose()
    }

    pub(super) fn put_certificate(&self, pem: &str) -> Result<(), StorageError> {
        self.write(CERTIFICATE_FILE, pem.as_bytes())
    }

    pub(super) fn record(&self) -> Result<Record, StorageError> {
        Ok(self.read_json(RECORD_FILE)?.unwrap_or_default())
    }

    pub(super) fn put_record(&self, record: &Record) -> Result<(), StorageError> {
        self.write_json(RECORD_FILE, record)
    }

    pub(super) fn account(&self, settings: &Acme) -> Result<Option<StoredAccount>, StorageError> {
        self.read_json(&account_file(settings))
    }

    pub(super) fn put_account(&self, settings: &Acme, account: &StoredAccount) -> Result<(), StorageError> {
        self.write_json(&account_file(settings), account)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(octets) => Ok(Some(octets)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StorageError::Io { path, source }),
        }
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StorageError> {
        let found = self.read(name)?;
        found.map(|octets| serde_json::from_slice(&octets).map_err(|e| self.damaged(name, e))).transpose()
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), StorageError> {
        let text = serde_json::to_vec_pretty(value).map_err(|error| self.damaged(name, error))?;
        self.write(name, &text)
    }

    /// A temporary file is for its owner alone (0600) from the start.
    fn write(&self, name: &str, octets: &[u8]) -> Result<(), StorageError> {
        let path = self.dir.join(name);
        let replace = || {
            let mut new = tempfile::NamedTempFile::new_in(&self.dir)?;
            new.write_all(octets)?;
            new.as_file().sync_all()?;
            new.persist(&path).map_err(|error| error.error)?;
            File::open(&self.dir)?.sync_all()
        };
        replace().map_err(|source| StorageError::Io { path: path.clone(), source })
    }

    fn damaged(&self, name: &str, error: impl ToString) -> StorageError {
        StorageError::Damaged { path: self.dir.join(name), reason: error.to_string() }
    }
}

/// One file for each CA, and for each external account there.
fn account_file(settings: &Acme) -> String {
    let key_id = settings.external_account.as_ref().map_or("", |account| &account.key_id);
    let hash = digest::digest(&digest::SHA256, format!("{}\n{key_id}", settings.directory).as_bytes());
    let digits: [u8; 8] = std::array::from_fn(|at| hash.as_ref()[at]);
    format!("account-{:016x}.json", u64::from_be_bytes(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_for_the_owner_alone_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        assert_eq!(storage.certificate().unwrap(), None);
        assert_eq!(storage.record().unwrap(), Record::default());
        storage.put_certificate("one").unwrap();
        storage.put_certificate("two").unwrap();
        let record = Record { issued_by: Some("https://ca.test/".into()), ..Record::default() };
        storage.put_record(&record).unwrap();
        let again = Storage::open(dir.path()).unwrap();
        assert_eq!(again.certificate().unwrap().as_deref(), Some("two"));
        assert_eq!(again.record().unwrap(), record);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("acme")), 0o700);
        assert_eq!(mode(&again.certificate_file()), 0o600);
        assert_eq!(fs::read_dir(dir.path().join("acme")).unwrap().count(), 2, "nothing else is left behind");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        fs::write(dir.path().join("acme/state.json"), "{").unwrap();
        let error = storage.record().unwrap_err().to_string();
        assert!(error.contains("acme/state.json is damaged") && error.contains("remove it"), "{error}");
    }
}
