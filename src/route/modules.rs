//! Modules: `lib/*.rhai`, compiled when the set is loaded and handed to the scripts that import them.
//!
//! A script can import what was read from `lib/` and nothing else: no file is opened when an `import` runs. Rhai's
//! own resolver would follow `..` and absolute paths, and overflow the stack on modules that import each other.

use std::collections::{BTreeMap, BTreeSet};

use rhai::module_resolvers::StaticModuleResolver;
use rhai::{AST, Engine, Module, Position, Scope};

use super::failure::{load_problem, parse_problem};
use super::problem::{ScriptProblem, nearest};
use super::source::Source;
use super::syntax::{ModuleCall, Outline, outline};
use crate::config::ScriptLimits;

/// The modules of a set.
#[derive(Default)]
pub(super) struct Modules {
    /// What an engine imports from.
    pub(super) resolver: StaticModuleResolver,
    /// Paths of all files under `lib/`, good or bad.
    paths: BTreeSet<String>,
    /// Functions of each module that compiled.
    functions: BTreeMap<String, BTreeSet<(String, usize)>>,
    /// Those that read `mx` themselves or by what they import.
    read_mx: BTreeSet<String>,
    /// What compiled, by path.
    pub(super) parsed: BTreeMap<String, (AST, Outline)>,
}

struct Parsed<'a> {
    source: &'a Source,
    ast: AST,
    outline: Outline,
}

impl Modules {
    /// Compiles all modules, each after those that it imports. A bad one is reported and left out.
    pub(super) fn build(
        engine: &mut Engine,
        sources: &BTreeMap<String, Source>,
        limits: &ScriptLimits,
        problems: &mut Vec<ScriptProblem>,
    ) -> Self {
        let mut modules = Self { paths: sources.keys().cloned().collect(), ..Self::default() };
        let mut parsed = BTreeMap::new();
        for (path, source) in sources {
            if let Some((ast, outline)) = parse(engine, source, problems) {
                modules.functions.insert(path.clone(), outline.functions.clone());
                parsed.insert(path.as_str(), Parsed { source, ast, outline });
            }
        }
        for module in parsed.values() {
            modules.check_imports(&module.source.id.file, &module.outline, problems);
        }
        for path in in_order(&parsed, problems) {
            let Some(module) = parsed.get(path) else { continue };
            if modules.read_mx_through(&module.outline) {
                modules.read_mx.insert(path.to_owned());
            }
            // What imports a bad module cannot be built either; one report is enough.
            if !module.outline.imports.iter().all(|(path, _)| modules.resolver.contains_path(path)) {
                continue;
            }
            match Module::eval_ast_as_new(Scope::new(), &module.ast, engine) {
                Ok(mut built) => {
                    built.set_id(&*module.source.id.file);
                    modules.resolver.insert(path, built);
                    engine.set_module_resolver(modules.resolver.clone());
                }
                Err(error) => problems.push(load_problem(&error, &module.source.id.file, limits)),
            }
        }
        let parsed = parsed.into_iter().map(|(path, module)| (path.to_owned(), (module.ast, module.outline)));
        modules.parsed = parsed.collect();
        modules
    }

    /// Whether code with these imports may read `mx`.
    pub(super) fn read_mx_through(&self, outline: &Outline) -> bool {
        outline.reads_mx || outline.imports.iter().any(|(path, _)| self.read_mx.contains(path))
    }

    /// Reports every import of what is not under `lib/`, and every call of a function that a module does not have.
    pub(super) fn check_imports(&self, file: &str, outline: &Outline, problems: &mut Vec<ScriptProblem>) {
        for (path, position) in &outline.imports {
            if !self.paths.contains(path) {
                problems.push(self.wrong_import(file, path, *position));
            }
        }
        for call in &outline.calls {
            // A module that did not compile has been reported already.
            if let Some(path) = outline.module_of(call)
                && let Some(functions) = self.functions.get(path)
                && !functions.contains(&(call.function.clone(), call.arguments))
            {
                problems.push(wrong_call(file, path, call, functions));
            }
        }
    }

    fn wrong_import(&self, file: &str, path: &str, position: Position) -> ScriptProblem {
        let outside = path.starts_with(['/', '\\']) || path.split(['/', '\\']).any(|part| part == "..");
        if outside {
            return ScriptProblem::at(
                file,
                position,
                format!("import of {path:?}, outside the scripts directory"),
            )
            .with_hint("only files under lib/ can be imported: import \"lib/name\" as name;");
        }
        let problem = ScriptProblem::at(file, position, format!("there is no module {path:?}"));
        let bare = path.trim_end_matches(".rhai");
        let meant = [bare.to_owned(), format!("lib/{bare}")].into_iter().find(|p| self.paths.contains(p));
        match meant.as_deref().or_else(|| nearest(bare, self.paths.iter().map(String::as_str))) {
            Some(right) => problem.with_hint(format!("did you mean {right:?}?")),
            None => problem.with_hint(format!("it would be the file {bare}.rhai under lib/")),
        }
    }
}

fn wrong_call(
    file: &str,
    path: &str,
    call: &ModuleCall,
    functions: &BTreeSet<(String, usize)>,
) -> ScriptProblem {
    let message = format!("{path} has no function {} with {} parameters", call.function, call.arguments);
    let problem = ScriptProblem::at(file, call.position, message);
    let names = functions.iter().map(|(name, _)| name.as_str());
    let Some(right) = nearest(&call.function, names) else { return problem };
    let takes = functions.iter().filter(|(name, _)| name == right).map(|(_, count)| count.to_string());
    let takes = takes.collect::<Vec<_>>().join(" or ");
    problem.with_hint(format!("it has {right} with {takes}"))
}

/// Compiles a file and looks it over.
pub(super) fn parse(
    engine: &Engine,
    source: &Source,
    problems: &mut Vec<ScriptProblem>,
) -> Option<(AST, Outline)> {
    let mut ast = match engine.compile(&source.text) {
        Ok(ast) => ast,
        Err(error) => {
            problems.push(parse_problem(&source.id.file, &error));
            return None;
        }
    };
    ast.set_source(&*source.id.file);
    let outline = outline(&source.id.file, &ast, problems);
    Some((ast, outline))
}

/// Every module after those that it imports. Cycles are reported once, and what is in one is left out.
fn in_order<'a>(
    parsed: &'a BTreeMap<&'a str, Parsed<'a>>,
    problems: &mut Vec<ScriptProblem>,
) -> Vec<&'a str> {
    let mut walk = Walk { parsed, order: Vec::new(), done: BTreeSet::new(), way: Vec::new(), problems };
    for path in parsed.keys() {
        walk.visit(path);
    }
    walk.order
}

struct Walk<'a, 'p> {
    parsed: &'a BTreeMap<&'a str, Parsed<'a>>,
    order: Vec<&'a str>,
    done: BTreeSet<&'a str>,
    way: Vec<&'a str>,
    problems: &'p mut Vec<ScriptProblem>,
}

impl<'a> Walk<'a, '_> {
    fn visit(&mut self, path: &'a str) {
        let Some(module) = self.parsed.get(path).filter(|_| !self.done.contains(path)) else { return };
        self.way.push(path);
        let mut in_cycle = false;
        for (import, position) in &module.outline.imports {
            if let Some(from) = self.way.iter().position(|on_way| on_way == import) {
                let mut cycle = self.way[from..].to_vec();
                cycle.push(import);
                let message = format!("modules import each other: {}", cycle.join(" -> "));
                self.problems.push(ScriptProblem::at(&*module.source.id.file, *position, message));
                in_cycle = true;
            } else {
                self.visit(import);
            }
        }
        self.way.pop();
        self.done.insert(path);
        if !in_cycle {
            self.order.push(path);
        }
    }
}
