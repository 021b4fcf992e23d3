//! What can be told about a script without running it: its `route` function, where that returns, what it imports,
//! which properties it reads, and what stands where nothing should.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTFlags, ASTNode, Expr, FnAccess, Position, ScriptFuncDef, Stmt, StmtBlock};

use super::problem::{ScriptProblem, line_and_column, nearest};

/// What the walk over a script found.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Paths of `import`, each with its place.
    pub(super) imports: Vec<(String, Position)>,
    /// Calls of functions in modules.
    pub(super) calls: Vec<ModuleCall>,
    /// Name and number of parameters of the functions that others may call.
    pub(super) functions: BTreeSet<(String, usize)>,
    /// What modules are called here, each with its path.
    aliases: BTreeMap<String, BTreeSet<String>>,
    /// Whether any code in it reads a property `mx`.
    pub(super) reads_mx: bool,
    /// Names in lower case of the header fields that code in it asks for by a literal.
    pub(super) header_fields: BTreeSet<String>,
    /// Whether there are top-level statements (imports and constants) that a call must run first.
    pub(super) has_top_level: bool,
}

/// A call such as `names::way(delivery)`.
#[derive(Debug)]
pub(super) struct ModuleCall {
    alias: String,
    pub(super) function: String,
    pub(super) arguments: usize,
    pub(super) position: Position,
}

impl Outline {
    /// The paths that a module's name stands for here.
    pub(super) fn paths_of(&self, alias: &str) -> impl Iterator<Item = &str> {
        self.aliases.get(alias).into_iter().flatten().map(String::as_str)
    }

    /// The path of the module that a call means; none when one name stands for several.
    pub(super) fn module_of(&self, call: &ModuleCall) -> Option<&str> {
        let paths = self.aliases.get(&call.alias)?;
        paths.first().filter(|_| paths.len() == 1).map(String::as_str)
    }
}

/// Walks a script or a module; what should not be there is added to `problems`.
pub(super) fn outline(file: &str, ast: &AST, problems: &mut Vec<ScriptProblem>) -> Outline {
    let mut found = Outline { has_top_level: !ast.statements().is_empty(), ..Outline::default() };
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        found.header_fields.extend(path.last().and_then(header_field));
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Import(import, position))) => match &import.0 {
                Expr::StringConstant(path, position) => {
                    found.aliases.entry(import.1.name.to_string()).or_default().insert(path.to_string());
                    found.imports.push((path.to_string(), *position));
                }
                _ => problems.push(
                    ScriptProblem::at(file, *position, "import needs its path as a literal")
                        .with_hint("import \"lib/name\" as name;"),
                ),
            },
            Some(ASTNode::Expr(Expr::Property(property, _))) if property.2 == "mx" => found.reads_mx = true,
            Some(
                ASTNode::Expr(Expr::FnCall(call, position)) | ASTNode::Stmt(Stmt::FnCall(call, position)),
            ) if call.namespace.path.len() == 1 => found.calls.push(ModuleCall {
                alias: call.namespace.path[0].name.to_string(),
                function: call.name.to_string(),
                arguments: call.args.len(),
                position: *position,
            }),
            _ => {}
        }
        true
    });
    let public = ast.iter_functions().filter(|f| f.access == FnAccess::Public);
    found.functions = public.map(|f| (f.name.to_owned(), f.params.len())).collect();
    for statement in ast.statements() {
        let constant = |flags: &ASTFlags| flags.contains(ASTFlags::CONSTANT);
        match statement {
            Stmt::Noop(_) | Stmt::Import(..) | Stmt::Export(..) => {}
            Stmt::Var(_, flags, _) if constant(flags) => {}
            other => problems.push(
                ScriptProblem::at(
                    file,
                    start(other),
                    "this statement stands outside a function and never runs",
                )
                .with_hint("outside functions there are only fn, import and const"),
            ),
        }
    }
    found
}

/// The name in `delivery.header("name")`, or in `header(delivery, "name")`.
fn header_field(node: &ASTNode<'_>) -> Option<String> {
    let (ASTNode::Expr(Expr::MethodCall(call, _) | Expr::FnCall(call, _))
    | ASTNode::Stmt(Stmt::FnCall(call, _))) = node
    else {
        return None;
    };
    match call.args.last() {
        Some(Expr::StringConstant(name, _)) if call.name == "header" => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

fn start(statement: &Stmt) -> Position {
    match statement {
        Stmt::Expr(expression) => expression.start_position(),
        other => other.position(),
    }
}

/// Reports when there is no function `route`, or not one with one parameter.
pub(super) fn check_route(file: &str, text: &str, ast: &AST, problems: &mut Vec<ScriptProblem>) {
    let functions: Vec<&ScriptFuncDef> = ast.iter_fn_def().map(AsRef::as_ref).collect();
    let named: Vec<&ScriptFuncDef> = functions.iter().copied().filter(|f| f.name == "route").collect();
    if named.is_empty() {
        let own = functions.iter().filter(|f| !f.name.starts_with("anon$"));
        let near = nearest("route", own.clone().map(|f| f.name.as_str()));
        let position =
            near.and_then(|near| own.clone().find(|f| f.name == near)).map(|f| f.body.start_position());
        let message = "there is no function route(delivery)";
        let problem = ScriptProblem::at(file, position.unwrap_or(Position::new(1, 1)), message);
        problems.push(match near {
            Some(near) => problem.with_hint(format!("did you mean '{near}' to be called 'route'?")),
            None => {
                problem.with_hint("a script looks like: fn route(delivery) { if ... { return \"name\"; } }")
            }
        });
        return;
    }
    for wrong in named.iter().filter(|f| f.params.len() != 1) {
        let message = format!("route takes one parameter, not {}", wrong.params.len());
        let place = name_position(text, wrong.body.start_position());
        problems.push(ScriptProblem::at(file, place, message).with_hint("write: fn route(delivery)"));
    }
}

/// Rhai keeps the place of a function's body only; its name stands before it, mostly on the same line.
fn name_position(text: &str, body: Position) -> Position {
    let Some(line) = body.line() else { return body };
    for number in (1..=line).rev() {
        let before = text.lines().nth(number - 1).unwrap_or_default();
        if let Some(at) = before.find("fn route") {
            let column = before[..at].chars().count() + "fn ".len() + 1;
            return u16::try_from(number)
                .ok()
                .zip(u16::try_from(column).ok())
                .map_or(body, |(line, column)| Position::new(line, column));
        }
    }
    body
}

/// A place where `route` can end with a value.
#[derive(Debug, Clone, Copy)]
struct Exit {
    position: Position,
    line: Option<u32>,
    value: ExitValue,
}

#[derive(Debug, Clone, Copy)]
enum ExitValue {
    /// A string literal, by the address of its text: Rhai shares that with the value it returns.
    Literal(usize),
    /// `return;` or `()`.
    Nothing,
    /// Anything that has to be computed.
    Computed,
}

/// All places where `route` can end with a value, prepared so that the line of a returned literal costs nothing.
#[derive(Debug, Default)]
pub(super) struct Exits {
    literals: BTreeMap<usize, u32>,
    only_computed: Option<u32>,
    lines: BTreeMap<(usize, usize), u32>,
    positions: Vec<Position>,
}

/// What is known about a returned value without running anything again.
pub(super) enum KnownLine {
    /// It can only have come from there.
    Line(u32),
    /// It may have come from several places.
    Unknown,
}

impl Exits {
    /// Looks at the body of `route` alone.
    pub(super) fn of(ast: &AST) -> Self {
        let mut route = ast.clone_functions_only();
        route.retain_functions(|_, _, name, params| name == "route" && params == 1);
        let (mut exits, mut tail) = (Vec::new(), Vec::new());
        route.walk(&mut |path: &[ASTNode<'_>]| {
            match path {
                // The statements of the body come one after the other; the last one that does something is the tail.
                [ASTNode::Stmt(statement)] if !statement.is_noop() => {
                    tail.clear();
                    tail_of_statement(statement, &mut tail);
                }
                _ => {}
            }
            if let Some(ASTNode::Stmt(Stmt::Return(value, flags, position))) = path.last()
                && !flags.contains(ASTFlags::BREAK)
            {
                let value = value.as_deref().map_or(ExitValue::Nothing, exit_value);
                exits.push(Exit { position: *position, line: line_and_column(*position).0, value });
            }
            true
        });
        exits.append(&mut tail);
        Self::prepare(&exits)
    }

    fn prepare(exits: &[Exit]) -> Self {
        let mut prepared = Self::default();
        let mut computed = Vec::new();
        for exit in exits {
            prepared.positions.push(exit.position);
            let Some(line) = exit.line else { continue };
            prepared.lines.insert(key(exit.position), line);
            match exit.value {
                ExitValue::Literal(address) => drop(prepared.literals.insert(address, line)),
                ExitValue::Computed => computed.push(line),
                ExitValue::Nothing => {}
            }
        }
        prepared.only_computed = computed.first().copied().filter(|_| computed.len() == 1);
        prepared
    }

    /// The line that a returned string came from, by its address.
    pub(super) fn line_of(&self, returned: &str) -> KnownLine {
        let literal = self.literals.get(&(returned.as_ptr() as usize)).copied();
        literal.or(self.only_computed).map_or(KnownLine::Unknown, KnownLine::Line)
    }

    /// The line of an exit that was watched.
    pub(super) fn line_at(&self, position: Position) -> Option<u32> {
        self.lines.get(&key(position)).copied()
    }

    pub(super) fn positions(&self) -> &[Position] {
        &self.positions
    }
}

fn key(position: Position) -> (usize, usize) {
    (position.line().unwrap_or(0), position.position().unwrap_or(0))
}

fn exit_value(expression: &Expr) -> ExitValue {
    match expression {
        // Rhai replaces empty strings by one that is shared.
        Expr::StringConstant(text, _) if !text.is_empty() => {
            ExitValue::Literal(text.as_str().as_ptr() as usize)
        }
        Expr::Unit(_) => ExitValue::Nothing,
        _ => ExitValue::Computed,
    }
}

/// The value of a function is that of its last statement, which may itself be a block.
fn tail_of_block(block: &StmtBlock, exits: &mut Vec<Exit>) {
    if let Some(last) = block.statements().iter().rev().find(|s| !s.is_noop()) {
        tail_of_statement(last, exits);
    }
}

fn tail_of_statement(statement: &Stmt, exits: &mut Vec<Exit>) {
    match statement {
        Stmt::If(flow, _) | Stmt::TryCatch(flow, _) => {
            tail_of_block(&flow.body, exits);
            tail_of_block(&flow.branch, exits);
        }
        Stmt::Switch(switch, _) => {
            switch.1.expressions.iter().for_each(|case| tail_of_expression(&case.rhs, exits));
        }
        Stmt::Block(block) => tail_of_block(block, exits),
        Stmt::Expr(expression) => tail_of_expression(expression, exits),
        Stmt::FnCall(_, position)
        | Stmt::While(_, position)
        | Stmt::Do(_, _, position)
        | Stmt::For(_, position) => {
            let line = line_and_column(*position).0;
            exits.push(Exit { position: *position, line, value: ExitValue::Computed });
        }
        _ => {}
    }
}

fn tail_of_expression(expression: &Expr, exits: &mut Vec<Exit>) {
    match expression {
        Expr::Stmt(block) => tail_of_block(block, exits),
        other => exits.push(Exit {
            position: other.position(),
            line: line_and_column(other.start_position()).0,
            value: exit_value(other),
        }),
    }
}
