//! Keeps a message that could not be sent: in `$XDG_STATE_HOME/waypost`, by default `~/.local/state/waypost`, else in
//! `/var/tmp`; readable by its owner alone, under a name of its own.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes a message to a file, and tells which.
pub(super) fn keep(input: &[u8]) -> io::Result<PathBuf> {
    let env = |name| std::env::var_os(name).map(PathBuf::from);
    keep_in(&places(env("XDG_STATE_HOME"), env("HOME")), input)
}

/// Where it may be kept, the best first. The XDG base directory specification wants absolute paths.
fn places(state: Option<PathBuf>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let state = state.filter(|dir| dir.is_absolute());
    let home = home.filter(|dir| dir.is_absolute() && dir.is_dir()).map(|home| home.join(".local/state"));
    let mut all: Vec<_> = state.or(home).map(|dir| dir.join("waypost")).into_iter().collect();
    all.push("/var/tmp".into());
    all
}

fn keep_in(places: &[PathBuf], input: &[u8]) -> io::Result<PathBuf> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for place in places {
        result = write(place, input);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn write(dir: &Path, input: &[u8]) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix("dead-letter-").suffix(".eml").permissions(Permissions::from_mode(0o600));
    let mut file = builder.tempfile_in(dir)?;
    file.write_all(input)?;
    file.as_file().sync_all()?;
    Ok(file.keep()?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_kept_where_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let (file, good) = (dir.path().join("file"), dir.path().join("a/b"));
        std::fs::write(&file, "").unwrap();
        let kept = keep_in(&[file.join("x"), good.clone()], b"Subject: s\n").unwrap();
        assert!(kept.starts_with(&good), "{}", kept.display());
        assert_eq!(std::fs::read(&kept).unwrap(), b"Subject: s\n");
        assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(keep_in(&[good], b"").unwrap(), kept);
        assert!(keep_in(&[file], b"").is_err());
    }

    #[test]
    fn the_state_directory_then_home_then_tmp() {
        let home = tempfile::tempdir().unwrap();
        let first = |state: &str, home: Option<&Path>| {
            let state = Some(PathBuf::from(state)).filter(|state| !state.as_os_str().is_empty());
            places(state, home.map(Path::to_owned)).remove(0)
        };
        assert_eq!(first("/state", Some(home.path())), Path::new("/state/waypost"));
        assert_eq!(first("relative", Some(home.path())), home.path().join(".local/state/waypost"));
        assert_eq!(first("", Some(Path::new("/nonexistent"))), Path::new("/var/tmp"));
        assert_eq!(first("", None), Path::new("/var/tmp"));
    }
}
