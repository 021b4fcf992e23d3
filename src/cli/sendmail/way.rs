//! Which server gets the mail: the one on this machine, through its socket, or the one that a `sendmail.toml` names.
//!
//! What is named beats what is found, and the command line beats the environment. So a `sendmail.toml` in a usual place
//! decides only where nobody has said anything.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::arguments::Arguments;
use super::exit::{Failure, SysExit};
use crate::cli::config_file;
use crate::config::DATA_DIR_DEFAULT;

/// Names the server's configuration, as for every other command.
pub(super) const CONFIG_VARIABLE: &str = "WAYPOST_CONFIG";
/// Names a `sendmail.toml`.
const SENDMAIL_CONFIG_VARIABLE: &str = "WAYPOST_SENDMAIL_CONFIG";
/// For all users of the machine.
const SYSTEM_FILE: &str = "/etc/waypost/sendmail.toml";
/// For one, in `$XDG_CONFIG_HOME` or `~/.config`.
const USER_FILE: &str = "waypost/sendmail.toml";

/// The server that gets the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// The one on this machine; its configuration, where one was named.
    Local(Option<PathBuf>),
    /// The one of this `sendmail.toml`.
    Remote(PathBuf),
}

/// Decides.
pub(super) fn choose(
    arguments: &Arguments,
    env: impl Fn(&str) -> Option<OsString>,
    is_there: impl Fn(&Path) -> bool,
) -> Way {
    let env = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let remote = |file: Option<PathBuf>| file.map(Way::Remote);
    let local = |file: Option<PathBuf>| file.map(|file| Way::Local(Some(file)));
    let home = || env("HOME").map(|home| home.join(".config"));
    let users = env("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute()).or_else(home);
    let usual = users.map(|dir| dir.join(USER_FILE)).into_iter().chain([SYSTEM_FILE.into()]);
    remote(arguments.sendmail_config.clone())
        .or_else(|| local(arguments.config.clone()))
        .or_else(|| remote(env(SENDMAIL_CONFIG_VARIABLE)))
        .or_else(|| local(env(CONFIG_VARIABLE)))
        .or_else(|| remote(usual.into_iter().find(|file| is_there(file))))
        .unwrap_or(Way::Local(None))
}

/// The directory with the socket of the server on this machine. The rest of the configuration is none of our business:
/// it may be wrong at the moment, and this user may not even read it.
pub(super) fn data_dir(config: Option<&Path>) -> Result<PathBuf, Failure> {
    let Ok(file) = config_file::find(config, Path::is_file) else {
        return Ok(DATA_DIR_DEFAULT.into());
    };
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(data_dir_in(&text, &file)),
        Err(_) if config.is_none() => Ok(DATA_DIR_DEFAULT.into()),
        Err(error) => Err(Failure::new(SysExit::Config, format!("cannot read {}: {error}", file.display()))),
    }
}

fn data_dir_in(text: &str, file: &Path) -> PathBuf {
    let table: Option<toml::Table> = text.parse().ok();
    let dir = table.as_ref().and_then(|table| table.get("data_dir")?.as_str());
    // Relative to the configuration file, as for the server.
    dir.map_or_else(|| DATA_DIR_DEFAULT.into(), |dir| file.parent().unwrap_or(Path::new("")).join(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_beats_what_is_found() {
        let local = |file: &str| Way::Local(Some(file.into()));
        let remote = |file: &str| Way::Remote(file.into());
        let nothing = Way::Local(None);
        let (user, system) = ("/home/ann/.config/waypost/sendmail.toml", SYSTEM_FILE);
        // Command line, environment, files that are there.
        for (words, environment, there, way) in [
            ("", "", "", nothing.clone()),
            ("", "", system, remote(system)),
            ("", "HOME=/home/ann", &format!("{system} {user}"), remote(user)),
            ("", "HOME=/home/ann", system, remote(system)),
            (
                "",
                "HOME=/home/ann XDG_CONFIG_HOME=/x",
                "/x/waypost/sendmail.toml",
                remote("/x/waypost/sendmail.toml"),
            ),
            ("", "HOME=/home/ann XDG_CONFIG_HOME=x", user, remote(user)),
            ("", "WAYPOST_CONFIG=/w.toml", system, local("/w.toml")),
            ("", "WAYPOST_CONFIG=", system, remote(system)),
            ("", "WAYPOST_CONFIG=/w.toml WAYPOST_SENDMAIL_CONFIG=/s.toml", "", remote("/s.toml")),
            ("--config /c.toml", "WAYPOST_SENDMAIL_CONFIG=/s.toml", system, local("/c.toml")),
            ("--sendmail-config /a.toml", "WAYPOST_SENDMAIL_CONFIG=/s.toml", system, remote("/a.toml")),
            ("--config /c.toml --sendmail-config=/a.toml", "", "", remote("/a.toml")),
        ] {
            let words = words.split_whitespace().chain(["-t"]).map(OsString::from).collect();
            let arguments = super::super::arguments::parse(Path::new("sendmail"), words).unwrap();
            let env = |name: &str| {
                let mut pairs = environment.split(' ').filter_map(|pair| pair.split_once('='));
                pairs.find(|(found, _)| *found == name).map(|(_, value)| OsString::from(value))
            };
            let is_there = |file: &Path| there.split(' ').any(|path| Path::new(path) == file);
            assert_eq!(choose(&arguments, env, is_there), way, "{arguments:?} {environment} {there}");
        }
    }

    #[test]
    fn the_socket_is_in_the_data_directory() {
        let file = Path::new("/etc/waypost/waypost.toml");
        for (text, dir) in [
            ("data_dir = \"/srv/mail\"", "/srv/mail"),
            ("data_dir = \"data\"", "/etc/waypost/data"),
            ("hostname = \"x\"", DATA_DIR_DEFAULT),
            ("not toml", DATA_DIR_DEFAULT),
        ] {
            assert_eq!(data_dir_in(text, file), Path::new(dir), "{text}");
        }
        assert_eq!(data_dir(Some(Path::new("/nonexistent"))).unwrap_err().exit, SysExit::Config);
    }
}
