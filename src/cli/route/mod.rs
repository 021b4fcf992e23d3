//! `waypost route ...`: what operators do with routing scripts, one file a subcommand.

mod definitions;
mod doc;
mod explain;
mod explain_message;
mod lint;
mod new;
mod promote;
mod replay;
mod shadow;
mod simulate;
mod stats;
mod status;
mod table;
mod test;

use std::io::Write;

use clap::{Args, Subcommand};

use super::Shared;
use super::error::CommandError;

/// Ask the routing scripts
#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    #[command(subcommand)]
    command: RouteCommand,
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    Explain(explain::ExplainArgs),
    Simulate(simulate::SimulateArgs),
    Replay(replay::ReplayArgs),
    Stats(stats::StatsArgs),
    New(new::NewArgs),
    Test(test::TestArgs),
    Shadow(shadow::ShadowArgs),
    Promote(promote::PromoteArgs),
    Lint(lint::LintArgs),
    Status(status::StatusArgs),
    Doc(doc::DocArgs),
    Definitions(definitions::DefinitionsArgs),
}

pub(super) fn run(args: &RouteArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    match &args.command {
        RouteCommand::Explain(args) => explain::run(args, shared, out),
        RouteCommand::Shadow(args) => shadow::run(args, shared, out),
        RouteCommand::Promote(args) => promote::run(args, shared, out),
        RouteCommand::Simulate(args) => simulate::run(args, shared, out),
        RouteCommand::Replay(args) => replay::run(args, shared, out),
        RouteCommand::Stats(args) => stats::run(args, shared, out),
        RouteCommand::New(args) => new::run(args, shared, out),
        RouteCommand::Test(args) => test::run(args, shared, out),
        RouteCommand::Lint(args) => lint::run(args, shared, out),
        RouteCommand::Status(args) => status::run(args, shared, out),
        RouteCommand::Doc(args) => doc::run(args, shared, out),
        RouteCommand::Definitions(args) => definitions::run(args, shared, out),
    }
}
