//! `waypost localserve`: a mail server to play with, and a world to send to, in one process.
//!
//! Two servers run: ours, and one that plays the outside. They are set up by files in a directory (configuration,
//! scripts, certificate), so that everything an operator does with a real server works here too: edit a script, ask
//! the queue, add an account. Nothing needs root, a configuration or the internet, and nothing leaves the machine.

mod page;
mod world;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tracing_subscriber::filter::LevelFilter;

use super::error::{CommandError, Exit};
use super::server_runtime;
use crate::config::Config;
use crate::server::{Server, StartError};
use world::{Ports, World};

const AFTER_HELP: &str = "\
It listens on 127.0.0.1 only: smtp 1025, submission 1587, submissions 1465,
imap 1143, imaps 1993; and for the outside that it plays: smtp 2025, a smarthost
on 2026, imap 2143. What to type next is printed when it runs.

Examples:
  waypost localserve
  waypost localserve --dir ./playground    keep everything for the next time
  waypost localserve --port-offset 10000   11025, 11587, ... when ports are taken";

/// Run a mail server to play with: no configuration, no root, no internet
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct LocalserveArgs {
    /// Where everything is kept; without it, a temporary directory that is removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Added to every port
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=60_000))]
    port_offset: u16,
    /// Take ports that are free, whatever their numbers
    #[arg(long, conflicts_with = "port_offset")]
    free_ports: bool,
}

pub(super) fn run(args: &LocalserveArgs, out: &mut dyn Write) -> Result<(), CommandError> {
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("waypost-").tempdir()?),
    };
    let dir =
        args.dir.as_deref().or(temporary.as_ref().map(TempDir::path)).unwrap_or(std::path::Path::new("."));
    std::fs::create_dir_all(dir)?;
    let dir = dir.canonicalize()?;
    let ports = if args.free_ports { Ports::free()? } else { Ports::usual(args.port_offset) };
    let world = World::make(&dir, ports)?;
    let result = serve(&world, out);
    if let Some(temporary) = temporary {
        temporary.close()?;
    }
    result
}

fn serve(world: &World, out: &mut dyn Write) -> Result<(), CommandError> {
    // The outside has threads of its own, and those log warnings only: what happens there is not our server's log.
    let outside_runtime = quiet_runtime()?;
    let runtime = server_runtime()?;
    let outside = quietly(|| outside_runtime.block_on(start(world, &world.outside_file, &[world::READER])))?;
    let home = runtime.block_on(start(world, &world.home_file, &world::USERS));
    let home = match home {
        Ok(home) => home,
        Err(error) => {
            quietly(|| outside_runtime.block_on(outside.stop()));
            return Err(error);
        }
    };
    let page = page::text(world, home.addresses(), outside.addresses());
    out.write_all(page.as_bytes())?;
    out.flush()?;
    let ran = runtime.block_on(home.run(&world.home_file));
    quietly(|| outside_runtime.block_on(outside.stop()));
    Ok(ran?)
}

/// Starts one of the two servers and gives its accounts their password.
async fn start(world: &World, file: &std::path::Path, accounts: &[&str]) -> Result<Server, CommandError> {
    let server = Server::start(Config::load(file)?, None).await.map_err(port_taken)?;
    for account in accounts {
        let name = crate::names::AccountName::new(account)
            .map_err(|error| CommandError::new(Exit::Failed, error))?;
        server.store().set_password(&name, &world.password).await?;
    }
    Ok(server)
}

fn port_taken(error: StartError) -> CommandError {
    match error {
        StartError::Listen(error) => CommandError::new(Exit::Failed, error)
            .hint("take other ports: `waypost localserve --port-offset 10000`, or --free-ports"),
        error => error.into(),
    }
}

fn quiet_runtime() -> Result<Runtime, CommandError> {
    let start = || {
        // For as long as the thread lives.
        std::mem::forget(tracing::subscriber::set_default(quiet_log()));
    };
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(start)
        .build()?)
}

fn quietly<T>(work: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(quiet_log(), work)
}

fn quiet_log() -> impl tracing::Subscriber {
    tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).with_writer(std::io::stderr).finish()
}
