//! `waypost metrics`: the numbers that Prometheus reads.

use std::io::Write;

use clap::Args;

use super::error::CommandError;
use super::{Shared, ask, unexpected};
use crate::control::{Answer, Request};

const AFTER_HELP: &str = "\
The format is that of Prometheus. To let Prometheus read it over HTTP, give an
address in the configuration: [metrics] listen = \"127.0.0.1:9100\". Which
numbers there are stands in docs/metrics.md.

Examples:
  waypost metrics
  waypost metrics | grep ^waypost_queue
  waypost metrics > /var/lib/prometheus/node-exporter/waypost.prom";

/// Print what the running server counted, for Prometheus
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct MetricsArgs {}

pub(super) fn run(_args: &MetricsArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let Answer::Metrics(text) = ask(&shared.config()?, &Request::Metrics)? else { return Err(unexpected()) };
    Ok(out.write_all(text.as_bytes())?)
}
