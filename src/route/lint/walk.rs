//! Goes through one function as an evaluation would, with kinds in place of values: both sides of every branch, every
//! loop once.

use std::rc::Rc;

use rhai::{ASTFlags, Expr, Position, Stmt, StmtBlock};

use super::compare::{self, Finding};
use super::kinds::{Kind, Place, Value};
use super::program::{Function, Program};
use super::switch;
use crate::route::problem::{Rule, ScriptProblem, nearest};

/// The way through one function.
pub(super) struct Walk<'p> {
    pub(super) program: &'p Program<'p>,
    pub(super) function: &'p Function,
    scope: Vec<(String, Value)>,
    returns: Value,
    /// Where problems go; nowhere while kinds are still being found out.
    pub(super) problems: Option<&'p mut Vec<ScriptProblem>>,
}

impl<'p> Walk<'p> {
    pub(super) fn new(
        program: &'p Program<'p>,
        function: &'p Function,
        problems: Option<&'p mut Vec<ScriptProblem>>,
    ) -> Self {
        Self { program, function, scope: Vec::new(), returns: Kind::Never.into(), problems }
    }

    /// Goes through the whole function; gives what it returns.
    pub(super) fn function(mut self) -> Value {
        let function = self.function;
        for (at, name) in function.parameters.iter().enumerate() {
            let known = function.known.borrow().parameters.get(at).cloned().flatten();
            self.define(name, known.unwrap_or(Kind::Any.into()));
        }
        let tail = self.statements(&function.statements);
        if tail.kind != Kind::Never {
            let place = function.statements.iter().rev().find(|statement| !statement.is_noop());
            let place = place.map_or(function.place, start);
            self.exit(tail, place);
        }
        self.returns
    }

    pub(super) fn file(&self) -> &'p str {
        &self.program.units[self.function.unit].source.id.file
    }

    pub(super) fn report(&mut self, position: Position, finding: Finding) {
        let file = self.file();
        self.report_in(file, position, finding);
    }

    /// At a place that may lie in another file.
    pub(super) fn report_at(&mut self, (file, line, column): Place, finding: Finding) {
        let number = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let position = Position::new(number(line).max(1), number(column));
        let program = self.program;
        self.report_in(&program.units[file].source.id.file, position, finding);
    }

    fn report_in(&mut self, file: &str, position: Position, finding: Finding) {
        let Some(problems) = self.problems.as_mut() else { return };
        let problem = ScriptProblem::at(file, position, finding.message).of(finding.rule, finding.severity);
        problems.push(match finding.hint {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        });
    }

    fn define(&mut self, name: &str, value: Value) {
        let names = &self.function.names;
        // Nothing within a delivery can be changed, whatever a script tries.
        let changed = names.changed.contains(name) && value.kind.native().is_none();
        let changes = changed || names.assigned.contains(name);
        let value = if changes { Kind::Any.into() } else { value.kept() };
        self.scope.push((name.to_owned(), value));
    }

    pub(super) fn variable(&self, name: &str) -> Option<&Value> {
        self.scope.iter().rev().find(|(called, _)| called == name).map(|(_, value)| value)
    }

    pub(super) fn block(&mut self, block: &StmtBlock) -> Value {
        let outside = self.scope.len();
        let value = self.statements(block.statements());
        self.scope.truncate(outside);
        value
    }

    fn statements(&mut self, statements: &[Stmt]) -> Value {
        let mut value = Value::from(Kind::Unit);
        let mut left: Option<Position> = None;
        for statement in statements.iter().filter(|statement| !statement.is_noop()) {
            if let Some(left) = left {
                self.unreachable(start(statement), left);
                return Kind::Never.into();
            }
            value = self.statement(statement);
            if value.kind == Kind::Never {
                left = Some(statement.position());
            }
        }
        value
    }

    fn unreachable(&mut self, position: Position, left: Position) {
        let why = left.line().map_or_else(String::new, |line| format!(": line {line} leaves before it"));
        self.report(position, Finding::warning(Rule::Unreachable, format!("no path reaches this{why}")));
    }

    fn statement(&mut self, statement: &Stmt) -> Value {
        match statement {
            Stmt::If(flow, _) => {
                self.condition(&flow.expr);
                let body = self.block(&flow.body);
                body.or(self.block(&flow.branch))
            }
            Stmt::Switch(switch, position) => self.switch(&switch.0, &switch.1, *position),
            Stmt::While(flow, _) => {
                let endless = flow.expr.is_unit();
                if !endless {
                    self.condition(&flow.expr);
                }
                self.block(&flow.body);
                match breaks(&flow.body) {
                    Break::None if endless => Kind::Never.into(),
                    Break::WithValue => Kind::Any.into(),
                    _ => Kind::Unit.into(),
                }
            }
            Stmt::Do(flow, ..) => {
                self.block(&flow.body);
                self.condition(&flow.expr);
                let value =
                    if matches!(breaks(&flow.body), Break::WithValue) { Kind::Any } else { Kind::Unit };
                value.into()
            }
            Stmt::For(parts, _) => {
                let (variable, counter, flow) = &**parts;
                let over = self.value(&flow.expr);
                let outside = self.scope.len();
                if let Some(counter) = counter {
                    self.define(&counter.name, Kind::Int.into());
                }
                self.define(&variable.name, element(&over));
                self.block(&flow.body);
                self.scope.truncate(outside);
                if matches!(breaks(&flow.body), Break::WithValue) {
                    Kind::Any.into()
                } else {
                    Kind::Unit.into()
                }
            }
            Stmt::Var(variable, _, _) => {
                let value = self.value(&variable.1);
                if value.kind == Kind::Never {
                    return value;
                }
                self.unused(&variable.0);
                self.define(&variable.0.name, value);
                Kind::Unit.into()
            }
            Stmt::Assignment(assignment) => {
                self.value(&assignment.1.rhs);
                self.assigned(&assignment.1.lhs);
                Kind::Unit.into()
            }
            Stmt::FnCall(call, position) => self.call(call, *position),
            Stmt::Block(block) => self.block(block),
            Stmt::TryCatch(flow, _) => {
                let tried = self.block(&flow.body);
                let outside = self.scope.len();
                if let Expr::Variable(variable, ..) = &flow.expr {
                    self.define(&variable.1, Kind::Any.into());
                }
                let caught = self.block(&flow.branch);
                self.scope.truncate(outside);
                tried.or(caught)
            }
            Stmt::Expr(expression) => self.value(expression),
            Stmt::BreakLoop(value, ..) => {
                value.as_ref().map(|value| self.value(value));
                Kind::Never.into()
            }
            Stmt::Return(value, flags, position) => {
                let place = value.as_ref().map_or(*position, |value| start_of(value));
                let value = value.as_ref().map_or(Kind::Unit.into(), |value| self.value(value));
                if !flags.contains(ASTFlags::BREAK) && value.kind != Kind::Never {
                    self.exit(value, place);
                }
                Kind::Never.into()
            }
            _ => Kind::Unit.into(),
        }
    }

    fn switch(&mut self, over: &Expr, switch: &rhai::SwitchCasesCollection, position: Position) -> Value {
        let value = self.value(over);
        if self.problems.is_some() {
            let name = name_of(over);
            let tokens = self.program.tokens(self.function.unit);
            for (case, position) in switch::cases(tokens, self.function.unit, position) {
                self.compare(name.as_deref(), &value, &case, position, false);
            }
        }
        let mut result = Value::from(if switch.def_case.is_some() { Kind::Never } else { Kind::Unit });
        for case in &switch.expressions {
            if !matches!(case.lhs, Expr::BoolConstant(true, _)) {
                self.condition(&case.lhs);
            }
            result = result.or(self.value(&case.rhs));
        }
        result
    }

    /// What decides must be true or false: Rhai takes nothing else for it.
    pub(super) fn condition(&mut self, expression: &Expr) {
        let value = self.value(expression);
        if value.kind.may_equal(&Kind::Bool) || value.kind == Kind::Never {
            return;
        }
        let name = name_of(expression).unwrap_or_else(|| "this".into());
        let message = format!("{name} is {}, not true or false", value.kind.words());
        let finding = Finding::error(Rule::Condition, message);
        self.report(
            start_of(expression),
            match value.kind {
                Kind::Maybe(_) => finding.hint(format!("write: {name} != ()")),
                Kind::Text(_) => finding.hint(format!("write: {name} != \"\"")),
                _ => finding,
            },
        );
    }

    /// Where the function ends with a value.
    fn exit(&mut self, value: Value, place: Position) {
        if self.problems.is_some() && self.function.is_route(self.program.units) {
            self.returned(&value, place);
        }
        self.returns = std::mem::replace(&mut self.returns, Kind::Never.into()).or(value);
    }

    /// What `route` returns is a name or nothing.
    fn returned(&mut self, value: &Value, place: Position) {
        let right = matches!(value.kind.there(), Kind::Any | Kind::Unit | Kind::Text(_) | Kind::Never);
        if !right {
            let message = format!("route returns {} here, which is no name", value.kind.words());
            let finding = Finding::error(Rule::Returns, message);
            self.report(
                place,
                finding.hint("return the name of a transport, or nothing: end with `return;`"),
            );
        }
        let program = self.program;
        for (place, text) in value.texts.iter() {
            if program.is_compared(self.function.unit, text) || program.is_compared(place.0, text) {
                continue;
            }
            if let Some(finding) = program.surroundings.unknown_transport(text) {
                self.report_at(*place, finding);
            }
        }
    }

    /// Two values that are compared, the second a literal perhaps.
    pub(super) fn compare(
        &mut self,
        name: Option<&str>,
        left: &Value,
        right: &Value,
        position: Position,
        ordered: bool,
    ) {
        if self.problems.is_none() {
            return;
        }
        if let Some(finding) = compare::kinds(name, left, right, ordered) {
            self.report(position, finding);
        } else if let (Kind::Text(of), Some(text)) = (left.kind.there(), right.known_text())
            && let Some(finding) = compare::form(*of, name, text, self.program.surroundings)
        {
            self.report(position, finding);
        }
    }

    /// The properties of what a delivery is cannot be set.
    fn assigned(&mut self, left: &Expr) {
        let (Expr::Dot(chain, ..) | Expr::Index(chain, ..)) = left else { return };
        let base = self.value(&chain.lhs);
        if let Some(of) = base.kind.native() {
            let finding = Finding::error(Rule::Property, format!("the properties of {of} cannot be changed"));
            self.report(left.position(), finding);
        } else if !matches!(base.kind.there(), Kind::Map(_)) {
            self.value(left);
        }
    }

    fn unused(&mut self, variable: &rhai::Ident) {
        let name = variable.name.as_str();
        if !name.starts_with('_') && !self.function.names.read.contains(name) {
            let finding = Finding::warning(Rule::Unused, format!("the variable '{name}' is never used"));
            self.report(variable.pos, finding.hint(format!("remove it, or call it '_{name}'")));
        }
    }
}

/// What an array or a text is made of.
pub(super) fn element(over: &Value) -> Value {
    match over.kind.there() {
        Kind::Array(of) => Value { exact: false, ..(**of).clone() }.kept(),
        _ => Kind::Any.into(),
    }
}

enum Break {
    None,
    Bare,
    WithValue,
}

/// Whether a loop's body ends the loop, nested loops aside: they are taken to do so too.
fn breaks(body: &StmtBlock) -> Break {
    let mut found = Break::None;
    for statement in body.statements() {
        statement.walk(&mut Vec::new(), &mut |path: &[rhai::ASTNode<'_>]| {
            if let Some(rhai::ASTNode::Stmt(Stmt::BreakLoop(value, flags, _))) = path.last()
                && flags.contains(ASTFlags::BREAK)
            {
                match (value, &found) {
                    (Some(_), _) => found = Break::WithValue,
                    (None, Break::None) => found = Break::Bare,
                    (None, _) => {}
                }
            }
            true
        });
    }
    found
}

fn start(statement: &Stmt) -> Position {
    match statement {
        Stmt::Expr(expression) => start_of(expression),
        Stmt::Assignment(assignment) => start_of(&assignment.1.lhs),
        other => other.position(),
    }
}

/// Where an expression begins; Rhai says for `a == b` where the operator stands.
pub(super) fn start_of(expression: &Expr) -> Position {
    match expression {
        Expr::FnCall(call, position) if call.op_token.is_some() => match call.args.as_slice() {
            [left, _] => start_of(left),
            _ => *position,
        },
        // `x in list` is kept as `contains(list, x)`.
        Expr::FnCall(call, position) if call.name == "contains" => {
            call.args.iter().map(start_of).chain([*position]).min().unwrap_or(*position)
        }
        Expr::And(parts, position) | Expr::Or(parts, position) | Expr::Coalesce(parts, position) => {
            parts.first().map_or(*position, start_of)
        }
        Expr::Dot(chain, ..) | Expr::Index(chain, ..) => start_of(&chain.lhs),
        other => other.start_position(),
    }
}

/// How the script writes a value, where that is short: `delivery.last.code`, `now().hour`.
pub(super) fn name_of(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Variable(variable, ..) if variable.2.is_empty() => Some(variable.1.to_string()),
        Expr::Property(property, _) => Some(property.2.to_string()),
        Expr::FnCall(call, _) | Expr::MethodCall(call, _)
            if call.args.is_empty() && call.op_token.is_none() =>
        {
            Some(format!("{}()", call.name))
        }
        Expr::MethodCall(call, _) => match call.args.first() {
            Some(Expr::StringConstant(text, _)) if call.args.len() == 1 => {
                Some(format!("{}({text:?})", call.name))
            }
            _ => None,
        },
        Expr::Dot(chain, ..) => Some(format!("{}.{}", name_of(&chain.lhs)?, name_of(&chain.rhs)?)),
        _ => None,
    }
}

/// A hint for a misspelt name.
pub(super) fn meant<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(wrong, names.into_iter().filter(|name| *name != wrong))
        .map(|right| format!("did you mean '{right}'?"))
}

/// An array literal's elements, joined.
pub(super) fn joined(values: impl IntoIterator<Item = Value>) -> Value {
    let mut joined = Value::from(Kind::Never);
    for value in values {
        joined = joined.or(value);
    }
    Value { exact: false, texts: Rc::clone(&joined.texts), kind: joined.kind }
}
