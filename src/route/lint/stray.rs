//! What stands there for nothing: imports that nothing uses, and scripts that nobody will ever ask.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{ASTNode, Expr, Position, Stmt};

use super::Surroundings;
use super::program::Unit;
use crate::address::Domain;
use crate::names::AccountName;
use crate::route::problem::{Rule, ScriptProblem, Severity, nearest};

pub(super) fn unused_imports(unit: &Unit<'_>) -> Vec<ScriptProblem> {
    let (mut imports, mut used) = (BTreeMap::<String, Position>::new(), BTreeSet::<String>::new());
    unit.ast.walk(&mut |path: &[ASTNode<'_>]| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Import(import, position))) => {
                imports.insert(import.1.name.to_string(), *position);
            }
            Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _))) => {
                used.extend(call.namespace.path.first().map(|root| root.name.to_string()));
            }
            Some(ASTNode::Expr(Expr::Variable(variable, ..))) => {
                used.extend(variable.2.path.first().map(|root| root.name.to_string()));
            }
            _ => {}
        }
        true
    });
    let unused = imports.into_iter().filter(|(name, _)| !name.is_empty() && !used.contains(name));
    let problem = |(name, position): (String, Position)| {
        let message = format!("nothing uses the module '{name}'");
        let problem = ScriptProblem::at(&*unit.source.id.file, position, message);
        problem.of(Rule::Unused, Severity::Warning).with_hint("remove the import")
    };
    unused.map(problem).collect()
}

pub(super) fn never_asked(units: &[Unit<'_>], around: &Surroundings) -> Vec<ScriptProblem> {
    units.iter().filter_map(|unit| stray(&unit.source.id.file, around)).collect()
}

fn stray(file: &str, around: &Surroundings) -> Option<ScriptProblem> {
    let (folder, name) = file.strip_suffix(".rhai")?.split_once('/')?;
    let (message, near) = match folder {
        "account" => {
            let name = AccountName::new(&name.to_ascii_lowercase()).ok()?;
            let known = around.accounts.as_ref().filter(|known| !known.contains(&name))?;
            let near = nearest(name.as_str(), known.iter().map(AccountName::as_str));
            (format!("is never asked: there is no account {name}"), near)
        }
        "domain" => {
            let domain = Domain::parse(name).ok()?;
            let known = around.domains.as_ref().filter(|known| !known.contains(&domain))?;
            let near = nearest(domain.as_str(), known.iter().map(Domain::as_str));
            (format!("is never asked: {domain} is not one of our domains"), near)
        }
        _ => return None,
    };
    let problem = ScriptProblem::whole(file, message).of(Rule::Stray, Severity::Warning);
    Some(match near {
        Some(near) => problem.with_hint(format!("did you mean {near}?")),
        None => problem,
    })
}
