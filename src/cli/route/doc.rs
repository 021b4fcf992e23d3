//! `waypost route doc`: the reference of what scripts know and can call.

use std::io::Write;

use clap::Args;

use super::super::Shared;
use super::super::error::{CommandError, Exit};
use crate::config::nearest;
use crate::route::{FUNCTIONS, Function, PropertyDoc, properties};

const HELP: &str = "\
The same as the tables of docs/routing.md.

Examples:
  waypost route doc
  waypost route doc attempt          the properties of a previous attempt
  waypost route doc last.code        one property
  waypost route doc in_domain        one function";

/// Print what scripts know and can call
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct DocArgs {
    /// A type (delivery, attempt, time), a property or a function
    name: Option<String>,
}

/// What each type is, and how one comes to it.
const TYPES: [(&str, &str); 3] = [
    ("delivery", "what route is called with"),
    ("attempt", "a previous attempt: delivery.last, and the elements of delivery.history"),
    ("time", "a point in time, UTC: now(), and attempt.at"),
];

pub(super) fn run(args: &DocArgs, shared: &Shared, out: &mut dyn Write) -> Result<(), CommandError> {
    let all = properties();
    let Some(asked) = &args.name else {
        for (of, what) in TYPES {
            write_type(of, what, &all, shared, out)?;
        }
        writeln!(out, "{}", heading("functions", "on top of the language's own", shared))?;
        FUNCTIONS.iter().try_for_each(|function| write_function(function, out))?;
        writeln!(out, "\nOne of them: waypost route doc NAME. The language: https://rhai.rs/book/")?;
        return Ok(());
    };
    let name = asked.trim_end_matches("()").rsplit('.').next().unwrap_or_default();
    let mut found = false;
    for (of, what) in TYPES.iter().filter(|(of, _)| *of == name) {
        write_type(of, what, &all, shared, out)?;
        found = true;
    }
    for property in all.iter().filter(|property| property.name == name) {
        writeln!(
            out,
            "{}",
            heading(&format!("{}.{}", property.of, property.name), &plain(property), shared)
        )?;
        writeln!(out, "  {}", bare(property.doc))?;
        writeln!(out, "  example: {}", property.example)?;
        found = true;
    }
    for function in FUNCTIONS.iter().filter(|function| function.name() == name) {
        write_function(function, out)?;
        found = true;
    }
    if found {
        return Ok(());
    }
    let names =
        all.iter().map(|p| p.name).chain(FUNCTIONS.iter().map(Function::name)).chain(TYPES.map(|t| t.0));
    let error = CommandError::new(Exit::Bad, format!("scripts have nothing called {asked:?}"));
    Err(match nearest(name, names) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint("`waypost route doc` prints everything; https://rhai.rs/book/ the language"),
    })
}

fn heading(name: &str, what: &str, shared: &Shared) -> String {
    if shared.terminal { format!("\x1b[1m{name}\x1b[0m: {what}") } else { format!("{name}: {what}") }
}

fn write_type(
    of: &str,
    what: &str,
    all: &[PropertyDoc],
    shared: &Shared,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    writeln!(out, "{}", heading(of, what, shared))?;
    let of_type = || all.iter().filter(|property| property.of == of);
    let names = of_type().map(|property| property.name.len()).max().unwrap_or(0);
    let types = of_type().map(|property| plain(property).len()).max().unwrap_or(0);
    for property in of_type() {
        let (name, value) = (property.name, plain(property));
        writeln!(out, "  {name:names$}  {value:types$}  {}", bare(property.doc))?;
    }
    writeln!(out)
}

fn write_function(function: &Function, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "  {} -> {}", function.signature, bare(function.returns))?;
    writeln!(out, "      {}", bare(function.doc))?;
    writeln!(out, "      example: {}", function.example)
}

fn plain(property: &PropertyDoc) -> String {
    bare(&property.value.to_string())
}

/// Without the marks that the Markdown of the documentation has.
fn bare(text: &str) -> String {
    text.replace('`', "")
}
