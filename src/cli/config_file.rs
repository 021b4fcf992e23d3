//! Which configuration file a command means.

use std::path::{Path, PathBuf};

use super::error::{CommandError, Exit};

/// Looked for in this order when none is named.
const PLACES: [&str; 2] = ["waypost.toml", "/etc/waypost/waypost.toml"];

/// The file that was named (by `--config` or `$WAYPOST_CONFIG`), else the first of the usual ones that is there.
pub(super) fn find(named: Option<&Path>, is_there: impl Fn(&Path) -> bool) -> Result<PathBuf, CommandError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let found = PLACES.iter().map(Path::new).find(|path| is_there(path));
    found.map(Path::to_owned).ok_or_else(|| {
        let message = format!("no configuration: neither ./{} nor {} is there", PLACES[0], PLACES[1]);
        CommandError::new(Exit::Bad, message)
            .hint("name it with --config FILE or in $WAYPOST_CONFIG; `waypost localserve` needs none")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_file_then_the_nearest() {
        let there =
            |paths: &'static [&'static str]| move |path: &Path| paths.iter().any(|p| Path::new(p) == path);
        assert_eq!(find(Some(Path::new("x.toml")), there(&[])).unwrap(), Path::new("x.toml"));
        assert_eq!(
            find(None, there(&["waypost.toml", "/etc/waypost/waypost.toml"])).unwrap(),
            Path::new("waypost.toml")
        );
        let etc = find(None, there(&["/etc/waypost/waypost.toml"])).unwrap();
        assert_eq!(etc, Path::new("/etc/waypost/waypost.toml"));
        assert_eq!(find(None, there(&[])).unwrap_err().exit(), Exit::Bad);
    }
}
