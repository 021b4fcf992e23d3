//! A session with a smarthost for a client that speaks SMTP itself (`sendmail -bs`): connected, in TLS and logged in as
//! the transport says; what is said in it is the client's matter.

use std::sync::Arc;

use bytes::Bytes;

use super::Engine;
use super::classify::{Failure, at_smarthost, sum_up};
use super::delivery::no_progress;
use super::open::Opener;
use super::plan::Plan;
use super::session::Session;
use crate::config::Transport;
use crate::outcome::{Outcome, Stage};
use crate::smtp::dot_stuff::stuff;
use crate::smtp::{Extensions, Reply};

/// A session that waits for commands.
pub struct Conversation(Session);

impl Engine {
    /// Begins a conversation with the host of a transport.
    pub async fn converse(&self, transport: &Arc<Transport>) -> Result<Conversation, Outcome> {
        let (engine, opener) = (&self.0, Opener::of(&self.0, transport, false));
        // For nobody's mail in particular: a host that takes all is not asked for by a recipient's domain.
        let plan = Plan::make(&engine.resolver, transport, &engine.hostname, &[], false).await;
        let mut plan = plan.map_err(at_smarthost)?;
        let mut failed = Vec::new();
        while let Some(next) = plan.next(&engine.resolver).await {
            match next {
                Err(no_address) => failed.push(no_address),
                Ok(peer) => match opener.open(&peer).await {
                    Ok(session) => return Ok(Conversation(session)),
                    Err(failure) => failed.push(failure.outcome(&peer.seen())),
                },
            }
        }
        Err(at_smarthost(sum_up(failed).unwrap_or_else(no_progress)))
    }
}

impl Conversation {
    /// What the host offers.
    pub fn extensions(&self) -> &Extensions {
        &self.0.extensions
    }

    /// Gives a command, and waits for its reply.
    pub async fn command(&mut self, line: &str) -> Result<Reply, Outcome> {
        let reply = self.0.command(line, Stage::Mail, "the reply to a command").await;
        reply.map_err(|failure| self.lost(&failure))
    }

    /// Sends the content for which DATA was answered 354, and waits for the reply. Dots are stuffed here.
    pub async fn content(&mut self, content: &Bytes) -> Result<Reply, Outcome> {
        let reply = self.0.content(&stuff(content), false).await;
        reply.map_err(|failure| self.lost(&failure))
    }

    /// Says QUIT.
    pub async fn quit(self) {
        self.0.quit().await;
    }

    fn lost(&self, failure: &Failure) -> Outcome {
        failure.outcome(&self.0.seen)
    }
}
