//! Where the control socket is, and how it is reached when its path is too long for a socket address.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Name of the socket in the data directory.
pub const SOCKET_NAME: &str = "control.sock";
/// unix(7): `sun_path` has 108 bytes, the last of them zero.
const PATH_BYTES_MAX: usize = 107;

/// A path to a socket that is short enough; the directory stays open as long as the path is used.
pub(super) struct Reach {
    pub(super) path: PathBuf,
    _directory: Option<File>,
}

impl Reach {
    /// A long directory is gone through by its open descriptor: `/proc/self/fd/7/control.sock`.
    pub(super) fn new(data_dir: &Path, name: &str) -> io::Result<Self> {
        let path = data_dir.join(name);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path, _directory: None });
        }
        let directory = File::open(data_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
        Ok(Self { path, _directory: Some(directory) })
    }
}

/// Opens a socket under a name, for whom `mode` says. What a dead server left behind is replaced: the caller holds the
/// data directory's lock.
pub(super) fn bind(data_dir: &Path, name: &str, mode: u32) -> io::Result<UnixListener> {
    // Under this name it is made, before it gets its permissions and its name.
    let new_name = format!("{name}.new");
    let (new, old) = (data_dir.join(&new_name), data_dir.join(name));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let reach = Reach::new(data_dir, &new_name)?;
    let listener = UnixListener::bind(&reach.path)?;
    // Nobody can connect between the making and the permissions: under this name nobody looks for it.
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&new, &old)?;
    Ok(listener)
}

/// Takes a socket away, so that commands say at once that nobody is there.
pub(super) fn remove(data_dir: &Path, name: &str) {
    let path = data_dir.join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a socket");
        }
        _ => {}
    }
}
