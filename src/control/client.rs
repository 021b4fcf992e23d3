//! The commands' side of the control socket. It blocks: a command has nothing else to do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::protocol::{Answer, Fault, Request, Response};
use super::socket::{Reach, SOCKET_NAME};

/// Why a running server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("no server is running for {}", data_dir.display())]
    NotRunning {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// There is one, but not for us.
    #[error("cannot speak to the server in {}: {source}", data_dir.display())]
    Unreachable {
        /// The data directory.
        data_dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the server hung up: {0}")]
    Broken(#[from] io::Error),
    /// The answer makes no sense; another version, perhaps.
    #[error("the server answered what this command does not understand ({0}): are they of the same version?")]
    Strange(String),
    /// The server refused or failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A connection to a running server.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the server of a data directory.
    pub fn connect(data_dir: &Path) -> Result<Self, ClientError> {
        let reach = Reach::new(data_dir, SOCKET_NAME);
        match reach.and_then(|reach| UnixStream::connect(&reach.path)) {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            // Refused: a dead server left its socket behind.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Err(ClientError::NotRunning { data_dir: data_dir.to_owned() })
            }
            Err(source) => Err(ClientError::Unreachable { data_dir: data_dir.to_owned(), source }),
        }
    }

    /// Asks, and waits for the answer.
    pub fn call(&mut self, request: &Request) -> Result<Answer, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer)? == 0 {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&answer) {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Error(fault)) => Err(fault.into()),
            Err(error) => Err(ClientError::Strange(error.to_string())),
        }
    }
}
