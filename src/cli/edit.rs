//! Changes the configuration file and leaves everything in it that people wrote: comments, order, spacing.
//!
//! The new text is checked as a whole before it replaces the old, and it replaces it in one step.

use std::io::Write;
use std::path::Path;

use toml_edit::{Array, DocumentMut, Item, Table};

use super::error::{CommandError, Exit};
use crate::address::Mailbox;
use crate::config::Config;
use crate::names::AccountName;

/// The text with one more account.
pub(super) fn with_account(
    text: &str,
    name: &AccountName,
    addresses: &[Mailbox],
) -> Result<String, CommandError> {
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error| CommandError::new(Exit::Bad, format!("the configuration is not TOML: {error}")))?;
    let accounts = document.entry("accounts").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let Some(accounts) = accounts.as_table_like_mut() else {
        return Err(CommandError::new(Exit::Bad, "[accounts] in the configuration is not a table"));
    };
    let mut account = Table::new();
    let list: Array = addresses.iter().map(ToString::to_string).collect();
    account.insert("addresses", toml_edit::value(list));
    accounts.insert(name.as_str(), Item::Table(account));
    Ok(document.to_string())
}

/// Replaces the file with text that is a good configuration. Owner and permissions stay.
pub(super) fn replace(file: &Path, text: &str) -> Result<Config, CommandError> {
    let config = Config::parse(text, file)?;
    // Through a symbolic link the file behind it is meant.
    let file = file.canonicalize()?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let failed = |error: std::io::Error| {
        CommandError::new(Exit::Failed, format!("cannot change {}: {error}", file.display()))
            .hint("add it there by hand, or run this command as the file's owner")
    };
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let old = std::fs::metadata(&file).map_err(failed)?;
    new.write_all(text.as_bytes()).map_err(failed)?;
    new.as_file().set_permissions(old.permissions()).map_err(failed)?;
    keep_owner(&old, new.as_file()).map_err(failed)?;
    new.as_file().sync_all().map_err(failed)?;
    new.persist(&file).map_err(|error| failed(error.error))?;
    Ok(config)
}

/// Root editing the server's file must not take it from the server.
fn keep_owner(old: &std::fs::Metadata, new: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let made = new.metadata()?;
    if (made.uid(), made.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(new, Some(old.uid()), Some(old.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "# ours\nhostname = \"mail.example.org\" # as in DNS\n\n[domains.\"example.org\"]\n\n\
                       [accounts.ann] # the first\naddresses = [\"ann@example.org\"]\n\n[queue]\nretry_first = \"1m\" # quick\n";

    fn bob() -> (AccountName, Vec<Mailbox>) {
        let addresses = ["bob@example.org", "b.b@example.org"].map(|text| Mailbox::parse(text).unwrap());
        (AccountName::new("bob.b@x").unwrap(), addresses.to_vec())
    }

    #[test]
    fn comments_and_order_stay_and_the_new_account_is_there() {
        let (name, addresses) = bob();
        let new = with_account(OLD, &name, &addresses).unwrap();
        for kept in ["# ours", "# as in DNS", "# the first", "# quick"] {
            assert!(new.contains(kept), "{kept} in\n{new}");
        }
        let config = Config::parse(&new, Path::new("waypost.toml")).unwrap();
        assert_eq!(config.accounts[&name].addresses.len(), 2);
        let without = "hostname = \"a.b\"\n[domains.\"example.org\"]\n";
        let new = with_account(without, &name, &addresses).unwrap();
        assert!(new.starts_with(without) && !new.contains("[accounts]\n"), "{new}");
        assert_eq!(Config::parse(&new, Path::new("waypost.toml")).unwrap().accounts.len(), 1);
    }

    #[test]
    fn inline_tables_grow_too_and_what_is_no_table_is_refused() {
        let (name, addresses) = bob();
        let inline = "hostname = \"a.b\"\naccounts = { ann = {} }\n[domains.\"example.org\"]\n";
        let new = with_account(inline, &name, &addresses).unwrap();
        assert_eq!(Config::parse(&new, Path::new("waypost.toml")).unwrap().accounts.len(), 2, "{new}");
        assert!(with_account("accounts = 5\n", &name, &addresses).is_err());
        assert!(with_account("accounts = \n", &name, &addresses).is_err());
    }

    #[test]
    fn only_a_good_configuration_replaces_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("waypost.toml");
        std::fs::write(&file, OLD).unwrap();
        assert_eq!(replace(&file, "hostname = 5").unwrap_err().exit(), Exit::Bad);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), OLD);
        let (name, addresses) = bob();
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, &with_account(OLD, &name, &addresses).unwrap()).unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().contains("b.b@example.org"));
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
    }
}
