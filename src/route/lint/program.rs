//! The functions of a script set, and what is known of their parameters and results.
//!
//! A function's parameters are what its callers give it. So all functions are gone through again and again, each time
//! with what the last round found out, until nothing new comes; only then is anything reported.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTNode, Engine, Expr, FnPtr, Position, Stmt, Token};

use super::Surroundings;
use super::kinds::{Kind, Value};
use super::natives::Natives;
use super::switch;
use super::walk::Walk;
use crate::route::problem::ScriptProblem;
use crate::route::source::Source;
use crate::route::syntax::Outline;

/// Rounds after which every function is taken to be called with anything.
const ROUNDS_MAX: usize = 20;

/// A file that compiled.
pub(in crate::route) struct Unit<'a> {
    pub(in crate::route) source: &'a Source,
    pub(in crate::route) ast: &'a AST,
    pub(in crate::route) outline: &'a Outline,
    /// The path it is imported by; scripts have none.
    pub(in crate::route) module: Option<&'a str>,
}

/// A function of a script, with its statements.
pub(super) struct Function {
    pub(super) unit: usize,
    pub(super) name: String,
    pub(super) parameters: Vec<String>,
    pub(super) statements: Vec<Stmt>,
    pub(super) place: Position,
    /// What it does with names.
    pub(super) names: Names,
    pub(super) known: RefCell<Known>,
}

/// What a function does with the names in it, as far as can be told without knowing what they are.
#[derive(Default)]
pub(super) struct Names {
    /// They are given another value.
    pub(super) assigned: BTreeSet<String>,
    /// Something within them is changed: an array gets an element, a map an entry.
    pub(super) changed: BTreeSet<String>,
    /// They are read.
    pub(super) read: BTreeSet<String>,
    /// Texts that something is compared with.
    compared: BTreeSet<String>,
    /// Properties and keys: one may hold a function.
    fields: BTreeSet<String>,
}

/// What the rounds have found out so far.
#[derive(Default)]
pub(super) struct Known {
    /// `None` as long as no call was seen.
    pub(super) parameters: Vec<Option<Value>>,
    pub(super) returns: Option<Value>,
    /// Called from where it cannot be seen.
    escaped: bool,
    changed: bool,
}

impl Function {
    pub(super) fn is_route(&self, units: &[Unit<'_>]) -> bool {
        self.name == "route" && self.parameters.len() == 1 && units[self.unit].module.is_none()
    }

    /// Notes a call with these arguments.
    pub(super) fn called_with(&self, arguments: &[Value]) {
        let mut known = self.known.borrow_mut();
        for (at, argument) in arguments.iter().enumerate() {
            let Some(old) = known.parameters.get(at).cloned() else { continue };
            let new = old.clone().map_or_else(|| argument.clone(), |old| old.or(argument.clone())).kept();
            if old.as_ref() != Some(&new) {
                known.parameters[at] = Some(new);
                known.changed = true;
            }
        }
    }

    /// It may be called from anywhere, with anything after the first so many arguments.
    pub(super) fn escapes(&self, captured: usize) {
        let mut known = self.known.borrow_mut();
        if !known.escaped {
            known.escaped = true;
            known.changed = true;
            for parameter in known.parameters.iter_mut().skip(captured) {
                *parameter = Some(Kind::Any.into());
            }
        }
    }

    fn returned(&self, value: Value) {
        let mut known = self.known.borrow_mut();
        let new = known.returns.clone().map_or_else(|| value.clone(), |old| old.or(value.clone()));
        if known.returns.as_ref() != Some(&new) {
            known.returns = Some(new);
            known.changed = true;
        }
    }
}

/// All that the lint goes through.
pub(super) struct Program<'a> {
    pub(super) engine: &'a Engine,
    pub(super) units: &'a [Unit<'a>],
    pub(super) surroundings: &'a Surroundings,
    pub(super) natives: Natives,
    pub(super) functions: Vec<Function>,
    by_name: BTreeMap<(usize, String, usize), usize>,
    /// Functions that stand in a file more than once, for different types: not followed.
    ambiguous: BTreeSet<(usize, String, usize)>,
    tokens: Vec<OnceCell<Vec<(Token, Position)>>>,
}

impl<'a> Program<'a> {
    pub(super) fn new(engine: &'a Engine, units: &'a [Unit<'a>], surroundings: &'a Surroundings) -> Self {
        let natives = Natives::of(engine);
        let mut program = Self {
            engine,
            units,
            surroundings,
            natives,
            functions: Vec::new(),
            by_name: BTreeMap::new(),
            ambiguous: BTreeSet::new(),
            tokens: vec![OnceCell::new(); units.len()],
        };
        for (number, unit) in units.iter().enumerate() {
            program.add_unit(number, unit);
        }
        program
    }

    fn add_unit(&mut self, number: usize, unit: &Unit<'_>) {
        let first = self.functions.len();
        for definition in unit.ast.iter_fn_def() {
            let key = (number, definition.name.to_string(), definition.params.len());
            if definition.this_type.is_some() || self.by_name.contains_key(&key) {
                self.ambiguous.insert(key);
                continue;
            }
            self.by_name.insert(key, self.functions.len());
            let parameters: Vec<String> = definition.params.iter().map(ToString::to_string).collect();
            let statements = statements_of(unit.ast, &definition.name, parameters.len());
            let names = names_in(&statements, &self.natives);
            let known = Known { parameters: vec![None; parameters.len()], ..Known::default() };
            self.functions.push(Function {
                unit: number,
                name: definition.name.to_string(),
                parameters,
                statements,
                place: definition.body.start_position(),
                names,
                known: RefCell::new(known),
            });
        }
        // A closure changes the variables of the function around it.
        let of_unit = &mut self.functions[first..];
        let closures = of_unit.iter().filter(|function| function.name.starts_with("anon$"));
        let names = closures.map(|function| &function.names);
        let (assigned, changed): (Vec<_>, Vec<_>) =
            names.map(|names| (names.assigned.clone(), names.changed.clone())).unzip();
        for function in of_unit {
            function.names.assigned.extend(assigned.iter().flatten().cloned());
            function.names.changed.extend(changed.iter().flatten().cloned());
        }
    }

    /// The function that a call in a unit means.
    pub(super) fn function(&self, unit: usize, name: &str, arguments: usize) -> Option<&Function> {
        let key = (unit, name.to_owned(), arguments);
        if self.ambiguous.contains(&key) {
            return None;
        }
        self.by_name.get(&key).map(|at| &self.functions[*at])
    }

    /// Whether a unit has functions of this name.
    pub(super) fn arities(&self, unit: usize, name: &str) -> Vec<usize> {
        let named = self.by_name.keys().chain(&self.ambiguous);
        named.filter(|(of, called, _)| *of == unit && called == name).map(|(_, _, arity)| *arity).collect()
    }

    pub(super) fn names(&self, unit: usize) -> impl Iterator<Item = &str> {
        let own = self.functions.iter().filter(move |f| f.unit == unit && !f.name.starts_with("anon$"));
        own.map(|function| function.name.as_str())
    }

    /// Whether a file compares something with this text. Then it is probably no name, but a sign between functions.
    pub(super) fn is_compared(&self, unit: usize, text: &str) -> bool {
        self.functions.iter().any(|function| function.unit == unit && function.names.compared.contains(text))
    }

    /// Whether a file has a property or a map's key of this name.
    pub(super) fn is_field(&self, unit: usize, name: &str) -> bool {
        self.functions.iter().any(|function| function.unit == unit && function.names.fields.contains(name))
    }

    /// The tokens of a unit; read when they are first needed.
    pub(super) fn tokens(&self, unit: usize) -> &[(Token, Position)] {
        self.tokens[unit].get_or_init(|| switch::tokens(self.engine, &self.units[unit].source.text))
    }

    /// The unit that an import path means.
    pub(super) fn module(&self, path: &str) -> Option<usize> {
        self.units.iter().position(|unit| unit.module == Some(path))
    }

    /// Functions of this name may be called through a pointer.
    pub(super) fn name_escapes(&self, name: Option<&str>) {
        for function in self.functions.iter().filter(|f| name.is_none_or(|name| f.name == name)) {
            function.escapes(0);
        }
    }

    /// Everything that is wrong with the functions.
    pub(super) fn check(&self) -> Vec<ScriptProblem> {
        for function in self.functions.iter().filter(|function| function.is_route(self.units)) {
            function.called_with(&[Kind::Delivery.into()]);
        }
        self.settle();
        // Who is called from nowhere may be called with anything.
        for function in &self.functions {
            if function.known.borrow().parameters.iter().any(Option::is_none) {
                function.escapes(0);
            }
        }
        self.settle();
        let mut problems = Vec::new();
        for function in &self.functions {
            Walk::new(self, function, Some(&mut problems)).function();
        }
        problems
    }

    fn settle(&self) {
        for _ in 0..ROUNDS_MAX {
            if !self.round() {
                return;
            }
        }
        self.name_escapes(None);
        self.round();
    }

    /// Goes through all functions that are called; tells whether anything new was found out.
    fn round(&self) -> bool {
        for function in &self.functions {
            if function.known.borrow().parameters.iter().all(Option::is_some) {
                let returned = Walk::new(self, function, None).function();
                function.returned(returned);
            }
        }
        let changed = |function: &Function| std::mem::take(&mut function.known.borrow_mut().changed);
        self.functions.iter().filter(|function| changed(function)).count() > 0
    }
}

/// Rhai hands a function's statements out only by walking over all of them.
fn statements_of(ast: &AST, name: &str, parameters: usize) -> Vec<Stmt> {
    let mut alone = ast.clone_functions_only();
    alone.retain_functions(|_, _, called, count| called == name && count == parameters);
    let mut statements = Vec::new();
    alone.walk(&mut |path: &[ASTNode<'_>]| {
        if let [ASTNode::Stmt(statement)] = path {
            statements.push((*statement).clone());
        }
        true
    });
    statements
}

fn names_in(statements: &[Stmt], natives: &Natives) -> Names {
    let mut names = Names::default();
    let mut look = |path: &[ASTNode<'_>]| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Assignment(assignment))) => {
                let left = &assignment.1.lhs;
                let set =
                    if matches!(left, Expr::Variable(..)) { &mut names.assigned } else { &mut names.changed };
                set.extend(root(left).map(str::to_owned));
            }
            Some(ASTNode::Expr(Expr::Variable(variable, ..))) if variable.2.is_empty() => {
                names.read.insert(variable.1.to_string());
            }
            Some(ASTNode::Expr(Expr::Property(property, _))) => {
                names.fields.insert(property.2.to_string());
            }
            Some(ASTNode::Expr(Expr::Map(map, _))) => {
                names.fields.extend(map.0.iter().map(|(key, _)| key.name.to_string()));
            }
            Some(ASTNode::Expr(chain @ (Expr::Dot(..) | Expr::Index(..)))) if changes(chain, natives) => {
                names.changed.extend(root(chain).map(str::to_owned));
            }
            Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _))) => {
                let compares = matches!(call.name.as_str(), "==" | "!=" | "contains");
                for argument in call.args.iter().filter(|_| compares) {
                    if let Expr::StringConstant(text, _) = argument {
                        names.compared.insert(text.to_string());
                    }
                }
                // A function of the language may change its first argument; those of scripts get copies.
                if natives.has(&call.name) && call.op_token.is_none() && !is_pure(&call.name) {
                    names.changed.extend(call.args.first().and_then(root).map(str::to_owned));
                }
            }
            _ => {}
        }
        true
    };
    for statement in statements {
        statement.walk(&mut Vec::new(), &mut look);
    }
    names
}

/// The variable that a chain such as `a.b[c].d()` begins with.
fn root(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Variable(variable, ..) if variable.2.is_empty() => Some(variable.1.as_str()),
        Expr::Dot(chain, ..) | Expr::Index(chain, ..) => root(&chain.lhs),
        _ => None,
    }
}

/// Whether a chain has a call that may change what it begins with.
fn changes(chain: &Expr, natives: &Natives) -> bool {
    match chain {
        Expr::Dot(chain, ..) | Expr::Index(chain, ..) => changes_link(&chain.rhs, natives),
        _ => false,
    }
}

fn changes_link(link: &Expr, natives: &Natives) -> bool {
    match link {
        // What nobody has changes nothing: it is reported as unknown.
        Expr::MethodCall(call, _) => !is_pure(&call.name) && natives.has(&call.name),
        Expr::Dot(chain, ..) | Expr::Index(chain, ..) => {
            changes_link(&chain.lhs, natives) || changes_link(&chain.rhs, natives)
        }
        _ => false,
    }
}

/// Functions of the language and ours that leave what they are called on as it is.
fn is_pure(name: &str) -> bool {
    matches!(
        name,
        "header"
            | "in_domain"
            | "share"
            | "log"
            | "len"
            | "is_empty"
            | "contains"
            | "filter"
            | "map"
            | "some"
            | "all"
            | "find"
            | "find_map"
            | "index_of"
            | "reduce"
            | "reduce_rev"
            | "starts_with"
            | "ends_with"
            | "to_lower"
            | "to_upper"
            | "sub_string"
            | "split"
            | "split_rev"
            | "keys"
            | "values"
            | "get"
            | "to_string"
            | "to_debug"
            | "parse_int"
            | "parse_float"
            | "bytes"
            | "chars"
            | "extract"
            | "type_of"
            | "abs"
            | "min"
            | "max"
            | "to_int"
            | "to_float"
            | "call"
            | "curry"
            | "is_def_var"
            | "is_def_fn"
            | "Fn"
    )
}

/// A closure as Rhai writes it down: the name of its function, and the variables that it took with it.
pub(super) fn closure(expression: &Expr) -> Option<(String, Vec<&Expr>)> {
    let name = |expression: &Expr| match expression {
        Expr::DynamicConstant(value, _) => {
            let pointer = value.read_lock::<FnPtr>()?;
            Some(pointer.fn_name().to_owned())
        }
        _ => None,
    };
    match expression {
        Expr::Stmt(block) => match block.statements() {
            [Stmt::Share(..), Stmt::Expr(call)] => match &**call {
                Expr::FnCall(call, _) if call.name == "curry" => {
                    Some((name(call.args.first()?)?, call.args.iter().skip(1).collect()))
                }
                _ => None,
            },
            _ => None,
        },
        other => Some((name(other)?, Vec::new())),
    }
}
