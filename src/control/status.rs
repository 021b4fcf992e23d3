//! How the server is: for people as [`Status`], for Prometheus as a page of metrics.

use super::ControlContext;
use super::protocol::{Listening, Status};
use crate::metrics::Page;

pub(super) fn status(context: &ControlContext) -> Status {
    let router = context.router.status();
    let listening = |(kind, address): &(crate::config::ListenerKind, _)| Listening {
        kind: kind.as_str().to_owned(),
        address: *address,
    };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: context.config.load().hostname.to_string(),
        pid: std::process::id(),
        started: context.started,
        listeners: context.listeners.iter().map(listening).collect(),
        scripts: router.hash.to_string(),
        scripts_since: Some(router.since),
        failed_reload: router.failed,
        promotion: context.router.promotion().running,
        queue: context.queue.stats(),
    }
}

/// The page that Prometheus reads.
pub fn metrics(context: &ControlContext) -> String {
    let mut page = Page::default();
    let version = env!("CARGO_PKG_VERSION");
    page.gauge("waypost_build_info", "1; its label says which version runs.").add(&[("version", version)], 1);
    let help = "When the server started.";
    page.gauge("waypost_start_time_seconds", help).add(&[], context.started.as_second());
    context.queue.write_metrics(&mut page);
    let router = context.router.status();
    let help = "When the set of scripts that runs was loaded.";
    page.gauge("waypost_scripts_loaded_timestamp_seconds", help).add(&[], router.since.as_second());
    let help = "1 when the newest scripts on disk are those that run, 0 when they were refused.";
    page.gauge("waypost_scripts_last_reload_successful", help).add(&[], u8::from(router.failed.is_none()));
    context.router.write_metrics(&mut page);
    page.into_text()
}
