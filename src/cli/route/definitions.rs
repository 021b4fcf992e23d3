//! `waypost route definitions`: files from which editors complete and check scripts.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::super::Shared;
use super::super::error::CommandError;
use crate::route::definitions;

const HELP: &str = "\
Rhai's language server and editors that use it read *.d.rhai files in the
workspace. Without DIR they go to .rhai/ in the scripts directory, where Waypost
takes no notice of them. Write them anew after an update of Waypost.

Examples:
  waypost route definitions
  waypost route definitions ~/mail-scripts/.rhai";

/// Write definition files, from which editors complete and check scripts
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct DefinitionsArgs {
    /// Where to; made if it is not there
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &DefinitionsArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => shared.config()?.scripts_dir.join(".rhai"),
    };
    std::fs::create_dir_all(&dir)?;
    for (name, text) in definitions() {
        let file = dir.join(name);
        std::fs::write(&file, text)?;
        writeln!(out, "{}", file.display())?;
    }
    Ok(())
}
