//! The socket through which users of this machine hand over mail: `submit.sock` in the data directory, open to all.
//!
//! It speaks SMTP as the submission listener does, without a password: the kernel says whose process is at the other
//! end (SO_PEERCRED), and `[accounts.NAME] users = [...]` as which accounts that user may send. So `sendmail` is an SMTP
//! client, `sendmail -bs` is a pipe, and what holds for submission (own addresses only, limits, Date and Message-Id)
//! holds here.

use std::collections::HashMap;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Uid, User};
use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::socket::{self, Reach};
use crate::config::SystemUser;
use crate::outcome::EnhancedCode;
use crate::smtp::Reply;

/// Name of the socket in the data directory.
pub const SUBMIT_SOCKET_NAME: &str = "submit.sock";
/// Connections of one user at the same time; who wants more is sent away and tries again.
const CLIENTS_PER_USER_MAX: usize = 32;
/// After an error of `accept` itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens the socket in the data directory and serves it until told to stop; `speak` holds a session with a process of a
/// user, and ends it when the server stops. Then the socket is removed. The caller holds the data directory's lock.
pub fn serve_submit<S, F>(
    data_dir: PathBuf,
    speak: S,
    shutdown: CancellationToken,
    tasks: &TaskTracker,
) -> std::io::Result<()>
where
    S: Fn(UnixStream, SystemUser) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = socket::bind(&data_dir, SUBMIT_SOCKET_NAME, 0o666)?;
    tasks.spawn(async move {
        accept(listener, speak, shutdown).await;
        socket::remove(&data_dir, SUBMIT_SOCKET_NAME);
    });
    Ok(())
}

/// Connects to the server of a data directory; for the client's side, which may block.
pub fn connect_submit(data_dir: &Path) -> std::io::Result<BlockingStream> {
    BlockingStream::connect(Reach::new(data_dir, SUBMIT_SOCKET_NAME)?.path)
}

async fn accept<S, F>(listener: UnixListener, speak: S, shutdown: CancellationToken)
where
    S: Fn(UnixStream, SystemUser) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let clients = TaskTracker::new();
    let places = Places::default();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                clients.spawn(client(stream, places.clone(), speak.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the socket for sendmail");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    clients.close();
    clients.wait().await;
}

async fn client<S, F>(stream: UnixStream, places: Places, speak: S)
where
    S: Fn(UnixStream, SystemUser) -> F,
    F: Future<Output = ()>,
{
    let uid = match stream.peer_cred() {
        Ok(credentials) => credentials.uid(),
        Err(error) => {
            tracing::warn!(%error, "cannot tell whose process wants to send mail");
            return;
        }
    };
    let Some(_place) = places.take(uid) else {
        tracing::warn!(
            uid,
            clients = CLIENTS_PER_USER_MAX,
            "a user has too many connections for sending mail"
        );
        // One write into a fresh socket's empty buffer; who does not read it sees the connection closed.
        let text = "Too many connections of this user; closing the connection";
        let reply = Reply::enhanced(421, EnhancedCode::new(4, 7, 0), text).to_string();
        if let Err(error) = stream.try_write(reply.as_bytes()) {
            tracing::debug!(uid, %error, "could not say why");
        }
        return;
    };
    // The directory of users may be a file or a server: asked on a thread that may wait.
    let name = match tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid))).await {
        Ok(Ok(user)) => user.map(|user| user.name),
        Ok(Err(error)) => {
            tracing::warn!(uid, %error, "cannot look up the name of a user");
            None
        }
        Err(_) => return,
    };
    speak(stream, SystemUser { uid, name }).await;
}

/// How many connections each user has.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<HashMap<u32, usize>>>);

/// One of a user's connections; given back when dropped.
struct Place {
    all: Places,
    uid: u32,
}

impl Places {
    fn take(&self, uid: u32) -> Option<Place> {
        let mut taken = self.0.lock();
        let count = taken.entry(uid).or_default();
        if *count >= CLIENTS_PER_USER_MAX {
            return None;
        }
        *count += 1;
        Some(Place { all: self.clone(), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.all.0.lock();
        match taken.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_all_places() {
        let places = Places::default();
        let mut mine: Vec<Place> = (0..CLIENTS_PER_USER_MAX).map(|_| places.take(5).unwrap()).collect();
        assert!(places.take(5).is_none());
        assert!(places.take(6).is_some());
        mine.pop();
        assert!(places.take(5).is_some());
        mine.clear();
        assert!(places.0.lock().is_empty());
    }
}
