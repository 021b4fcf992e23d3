//! Takes connections on the control socket and answers line by line.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handle::handle;
use super::protocol::{Fault, FaultKind, Request, Response};
use super::{ControlContext, socket};

/// Longest request, with its line end.
pub(super) const LINE_BYTES_MAX: u64 = 1 << 20;
/// Clients at the same time; others wait.
const CLIENTS_MAX: usize = 32;
/// A client that asks nothing is sent away after this.
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);
/// After an error of `accept` itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens the socket in the data directory and serves it until told to stop; then lets running requests end and removes
/// the socket. The caller holds the data directory's lock.
pub fn serve(
    context: ControlContext,
    shutdown: CancellationToken,
    tasks: &TaskTracker,
) -> std::io::Result<()> {
    let data_dir = context.config.load().data_dir.clone();
    let listener = socket::bind(&data_dir, socket::SOCKET_NAME, 0o600)?;
    tasks.spawn(async move {
        accept(listener, context, shutdown).await;
        socket::remove(&data_dir, socket::SOCKET_NAME);
    });
    Ok(())
}

async fn accept(listener: UnixListener, context: ControlContext, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CLIENTS_MAX));
    let clients = TaskTracker::new();
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (context, shutdown) = (context.clone(), shutdown.clone());
                clients.spawn(async move {
                    if let Err(error) = client(stream, &context, &shutdown).await {
                        tracing::debug!(%error, "a control connection ended early");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    clients.close();
    clients.wait().await;
}

async fn client(
    stream: UnixStream,
    context: &ControlContext,
    shutdown: &CancellationToken,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut read).take(LINE_BYTES_MAX);
        let got = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            got = tokio::time::timeout(IDLE_TIMEOUT, limited.read_until(b'\n', &mut line)) => got,
        };
        match got {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
        let whole = line.last() == Some(&b'\n');
        let response = if whole { respond(context, &line).await } else { too_long() };
        let mut bytes = serde_json::to_vec(&response).map_err(std::io::Error::other)?;
        bytes.push(b'\n');
        write.write_all(&bytes).await?;
        if !whole {
            return Ok(());
        }
    }
}

async fn respond(context: &ControlContext, line: &[u8]) -> Response {
    let request = match serde_json::from_slice::<Request>(line) {
        Ok(request) => request,
        // The error names keys and positions, never values: a password in a request that is wrong elsewhere stays secret.
        Err(error) => {
            let message = format!(
                "not a request that this server knows (line {}, column {})",
                error.line(),
                error.column()
            );
            return Response::Error(Fault::new(FaultKind::BadRequest, message));
        }
    };
    match handle(context, request).await {
        Ok(answer) => Response::Ok(answer),
        Err(fault) => Response::Error(fault),
    }
}

fn too_long() -> Response {
    let message = format!("a request is a line of at most {LINE_BYTES_MAX} bytes");
    Response::Error(Fault::new(FaultKind::BadRequest, message))
}
