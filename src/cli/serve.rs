//! `waypost serve`: runs the server until it is told to stop.

use clap::Args;

use super::error::CommandError;
use super::{Shared, server_runtime};
use crate::config::Config;
use crate::server::Server;

const AFTER_HELP: &str = "\
The server runs in the foreground and logs to standard error. Under systemd
(Type=notify) it tells when it is ready.

  SIGTERM, Ctrl-C  takes nothing new, lets what is under way end, and stops
  SIGHUP           loads configuration, certificate and scripts again

Scripts and certificates are also loaded again by themselves when a file changes.
What is bad is reported and changes nothing.

Examples:
  waypost serve
  waypost serve --config /etc/waypost/waypost.toml --log-format json
  waypost serve --log info,waypost::queue=debug";

/// Run the server
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ServeArgs {}

pub(super) fn run(_args: &ServeArgs, shared: &Shared) -> Result<(), CommandError> {
    let file = shared.config_file()?;
    let config = Config::load(&file)?;
    server_runtime()?.block_on(async {
        let server = Server::start(config, None).await?;
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!(%error, "systemd could not be told that the server is ready");
        }
        Ok(server.run(&file).await?)
    })
}
