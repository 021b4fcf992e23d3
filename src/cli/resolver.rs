//! Which DNS resolver a command asks, for commands that look things up by hand.

use std::net::SocketAddr;

use clap::Args;

use super::Shared;
use super::error::{CommandError, Exit};
use crate::config::{Config, Dns};
use crate::dns::Resolver;

/// `--resolver`, else what the configuration says, else the system's resolvers.
#[derive(Debug, Args)]
pub(super) struct ResolverArgs {
    /// Ask this DNS resolver, instead of those of the configuration or of this machine
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    resolver: Option<SocketAddr>,
}

impl ResolverArgs {
    /// The resolver, and the name that this host gives itself where there is a configuration.
    pub(super) fn open(&self, shared: &Shared) -> Result<(Resolver, String), CommandError> {
        let config = shared.config_file().ok().map(|file| Config::load(&file));
        // A broken configuration matters only where nothing else says whom to ask.
        let config = match (config, self.resolver) {
            (Some(Err(problems)), None) => return Err(problems.into()),
            (config, _) => config.and_then(Result::ok),
        };
        let hostname = config.as_ref().map_or_else(|| "localhost".to_owned(), |c| c.hostname.to_string());
        let dns = match self.resolver {
            Some(address) => Dns { resolvers: vec![address], ..Dns::default() },
            None => config.map(|config| config.dns).unwrap_or_default(),
        };
        Ok((Resolver::new(&dns), hostname))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    const DNS_PORT: u16 = 53;
    let ip = || text.parse().map(|ip| SocketAddr::new(ip, DNS_PORT));
    text.parse().or_else(|_| ip()).map_err(|_| "write it like 127.0.0.1:53 or [::1]:53".to_owned())
}

/// Trouble with DNS where a command can say nothing else.
pub(super) fn dns_failed(trouble: &crate::dns::Trouble) -> CommandError {
    CommandError::new(Exit::Failed, trouble).hint("--resolver ADDR:PORT asks another resolver")
}
