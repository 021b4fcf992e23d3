//! The kinds of expressions, and what is wrong with them: properties, elements, comparisons.

use rhai::{Expr, FnCallExpr, ImmutableString, Position, Stmt};

use super::compare::{self, Finding};
use super::kinds::{Kind, Value};
use super::program::closure;
use super::walk::{Walk, element, joined, meant, name_of};
use crate::route::delivery::{properties, unknown_property};
use crate::route::problem::Rule;
use crate::route::value_type::TextOf;

impl Walk<'_> {
    pub(super) fn value(&mut self, expression: &Expr) -> Value {
        match expression {
            Expr::BoolConstant(..) => Kind::Bool.into(),
            Expr::IntegerConstant(..) => Kind::Int.into(),
            Expr::FloatConstant(..) => Kind::Float.into(),
            Expr::CharConstant(..) => Kind::Char.into(),
            Expr::StringConstant(text, position) => Value::literal(self.function.unit, *position, text),
            Expr::InterpolatedString(parts, _) => {
                for part in parts {
                    self.value(part);
                }
                Value::TEXT.into()
            }
            Expr::Array(elements, _) => {
                let elements: Vec<Value> = elements.iter().map(|element| self.value(element)).collect();
                Kind::array_of(joined(elements)).into()
            }
            Expr::Map(map, _) => {
                let values: Vec<Value> = map.0.iter().map(|(_, value)| self.value(value)).collect();
                Kind::map_of(joined(values)).into()
            }
            Expr::Unit(_) => Kind::Unit.into(),
            Expr::Variable(variable, _, position) => match variable.2.path.first() {
                None => self.variable(&variable.1).cloned().unwrap_or(Kind::Any.into()),
                Some(root) if root.name == "global" => self.constant(&variable.1, *position),
                Some(_) => Kind::Any.into(),
            },
            Expr::FnCall(call, position) => self.call(call, *position),
            Expr::Dot(chain, ..) => {
                let base = self.value(&chain.lhs);
                let name = name_of(&chain.lhs);
                self.link(base, name, &chain.rhs)
            }
            Expr::Index(chain, flags, position) => {
                let base = self.value(&chain.lhs);
                let ends = flags.contains(rhai::ASTFlags::BREAK);
                self.index_link(base, &chain.rhs, ends, *position)
            }
            Expr::And(parts, _) | Expr::Or(parts, _) => {
                for part in parts.iter() {
                    self.condition(part);
                }
                Kind::Bool.into()
            }
            Expr::Coalesce(parts, _) => {
                let parts: Vec<Value> = parts.iter().map(|part| self.value(part)).collect();
                let last = parts.len().saturating_sub(1);
                let there = |(at, value): (usize, Value)| if at < last { without_unit(value) } else { value };
                parts.into_iter().enumerate().map(there).fold(Kind::Never.into(), Value::or)
            }
            Expr::Stmt(block) if closure(expression).is_none() => self.block(block),
            Expr::DynamicConstant(..) | Expr::Stmt(_) => {
                self.closure(expression, None);
                Kind::Function.into()
            }
            _ => Kind::Any.into(),
        }
    }

    /// A constant of this file, outside functions.
    fn constant(&mut self, name: &str, position: Position) -> Value {
        let unit = &self.program.units[self.function.unit];
        let constant = unit.ast.statements().iter().find_map(|statement| match statement {
            Stmt::Var(variable, ..) if variable.0.name == name => Some(&variable.1),
            _ => None,
        });
        // A constant that is made from another is not followed: they could go in a circle.
        match constant {
            Some(expression @ (Expr::StringConstant(..) | Expr::Array(..) | Expr::Map(..))) => {
                let literal = expression.is_constant();
                if literal { self.value(expression) } else { Kind::Any.into() }
            }
            Some(Expr::IntegerConstant(..)) => Kind::Int.into(),
            Some(Expr::BoolConstant(..)) => Kind::Bool.into(),
            Some(_) => Kind::Any.into(),
            None => {
                let names: Vec<&str> = unit
                    .ast
                    .statements()
                    .iter()
                    .filter_map(|s| match s {
                        Stmt::Var(variable, ..) => Some(variable.0.name.as_str()),
                        _ => None,
                    })
                    .collect();
                let finding =
                    Finding::error(Rule::Property, format!("there is no constant '{name}' in this file"));
                let hint = meant(name, names)
                    .unwrap_or_else(|| format!("write: const {name} = ...; outside functions"));
                self.report(position, finding.hint(hint));
                Kind::Any.into()
            }
        }
    }

    /// What follows a dot.
    fn link(&mut self, base: Value, name: Option<String>, link: &Expr) -> Value {
        match link {
            Expr::Property(property, position) => {
                self.property(&base, name.as_deref(), &property.2, *position)
            }
            Expr::MethodCall(call, position) => self.method(&base, name.as_deref(), call, *position),
            Expr::Dot(chain, ..) => {
                let first = self.link(base, name.clone(), &chain.lhs);
                let name = name.zip(name_of(&chain.lhs)).map(|(name, link)| format!("{name}.{link}"));
                self.link(first, name, &chain.rhs)
            }
            Expr::Index(chain, flags, position) => {
                let first = self.link(base, name, &chain.lhs);
                let ends = flags.contains(rhai::ASTFlags::BREAK);
                self.index_link(first, &chain.rhs, ends, *position)
            }
            other => {
                self.value(other);
                Kind::Any.into()
            }
        }
    }

    /// What follows a bracket: the index, and behind it the rest of the chain.
    fn index_link(&mut self, base: Value, rest: &Expr, ends: bool, position: Position) -> Value {
        if ends {
            return self.indexed(&base, rest, position);
        }
        match rest {
            Expr::Dot(chain, ..) => {
                let element = self.indexed(&base, &chain.lhs, position);
                self.link(element, None, &chain.rhs)
            }
            Expr::Index(chain, flags, next) => {
                let element = self.indexed(&base, &chain.lhs, position);
                let ends = flags.contains(rhai::ASTFlags::BREAK);
                self.index_link(element, &chain.rhs, ends, *next)
            }
            other => self.indexed(&base, other, position),
        }
    }

    fn indexed(&mut self, base: &Value, index: &Expr, position: Position) -> Value {
        let by = self.value(index);
        if let Some(of) = base.kind.native() {
            let finding = Finding::error(Rule::Property, format!("{of} has no elements"));
            self.report(
                position,
                match by.known_text() {
                    Some(name) => finding.hint(format!("write {of}.{name} for the property '{name}'")),
                    None => finding,
                },
            );
            return Kind::Any.into();
        }
        match base.kind.there() {
            Kind::Array(_) if by.kind == Kind::Int => element(base),
            // Which entry it is cannot be told, unless the key stands there; then the others do not matter.
            Kind::Map(of) if by.known_text().is_none() => (**of).clone().or(Kind::Unit.into()),
            _ => Kind::Any.into(),
        }
    }

    fn property(
        &mut self,
        base: &Value,
        on: Option<&str>,
        name: &ImmutableString,
        position: Position,
    ) -> Value {
        if let Some(of) = base.kind.native() {
            let all = properties();
            if let Some(property) = all.iter().find(|p| p.of == of && p.name == name.as_str()) {
                return Kind::from(property.value).into();
            }
            let (message, hint) = unknown_property(of, name);
            let finding = Finding::error(Rule::Property, message);
            self.report(
                position,
                match hint {
                    Some(hint) => finding.hint(hint),
                    None => finding,
                },
            );
            return Kind::Any.into();
        }
        match base.kind.there() {
            Kind::Any | Kind::Never | Kind::Map(_) => Kind::Any.into(),
            _ if name == "tag" => Kind::Any.into(),
            kind => match self.program.natives.property(kind, name) {
                Some(kind) => kind.into(),
                None => {
                    self.no_property(kind, on, name, position);
                    Kind::Any.into()
                }
            },
        }
    }

    fn no_property(&mut self, kind: &Kind, on: Option<&str>, name: &str, position: Position) {
        let whole = on.unwrap_or("this");
        let message = format!("{whole} is {}, and has no property '{name}'", kind.words());
        let finding = Finding::error(Rule::Property, message);
        let parts = [("domain", "_domain"), ("host", "_domain"), ("local", "_local"), ("user", "_local")];
        let part = parts.iter().find(|(part, _)| *part == name);
        self.report(
            position,
            match (kind, part) {
                (Kind::Text(TextOf::Address), Some((_, end))) => finding.hint(format!("write {whole}{end}")),
                (Kind::Array(_), _) if on.is_some_and(|on| on.ends_with("history")) => {
                    finding.hint("the attempts are its elements: for the previous one write delivery.last")
                }
                _ if self.program.natives.has(name) => {
                    finding.hint(format!("write {name}(): it is a function"))
                }
                _ => finding,
            },
        );
    }

    pub(super) fn operator(&mut self, call: &FnCallExpr, position: Position) -> Value {
        let name = call.name.as_str();
        if let ("!", Some(operand)) = (name, call.args.first()) {
            self.condition(operand);
            return Kind::Bool.into();
        }
        let arguments: Vec<Value> = call.args.iter().map(|argument| self.value(argument)).collect();
        let [left, right] = arguments.as_slice() else { return number_or_any(&arguments) };
        match name {
            "==" | "!=" | "<" | "<=" | ">" | ">=" => {
                let ordered = !matches!(name, "==" | "!=");
                self.both_ways(call, left, right, position, ordered);
                Kind::Bool.into()
            }
            "+" if matches!(left.kind, Kind::Text(_)) => Value::TEXT.into(),
            "-" if (&left.kind, &right.kind) == (&Kind::Time, &Kind::Time) => Kind::Int.into(),
            "+" | "-" | "*" | "/" | "%" => number_or_any(&arguments),
            _ => Kind::Any.into(),
        }
    }

    /// The literal may stand on either side.
    fn both_ways(
        &mut self,
        call: &FnCallExpr,
        left: &Value,
        right: &Value,
        position: Position,
        ordered: bool,
    ) {
        let [left_side, right_side] = call.args.as_slice() else { return };
        let literal = |side: &Expr| side.is_constant();
        let at = |side: &Expr| if literal(side) { side.position() } else { position };
        if literal(left_side) && !literal(right_side) {
            let name = name_of(right_side);
            self.compare(name.as_deref(), right, left, at(left_side), ordered);
        } else {
            let name = name_of(left_side);
            self.compare(name.as_deref(), left, right, at(right_side), ordered);
        }
    }

    /// What is looked for in an array must be of the sort of its elements; of texts, each is looked at.
    pub(super) fn contained(
        &mut self,
        list: &Value,
        what: Option<&Expr>,
        arguments: &[Value],
        position: Position,
    ) {
        let (Kind::Array(of), Some(value)) = (list.kind.there(), arguments.first()) else { return };
        let name = what.and_then(name_of);
        let place = what.filter(|what| what.is_constant()).map_or(position, Expr::position);
        if self.problems.is_none() || of.kind == Kind::Never {
            return;
        }
        if let Kind::Text(form) = value.kind.there()
            && value.known_text().is_none()
        {
            for (at, text) in of.texts.iter() {
                if let Some(finding) = compare::form(*form, name.as_deref(), text, self.program.surroundings)
                {
                    self.report_at(*at, finding);
                }
            }
        }
        self.compare(Some("an element"), &element(list), value, place, false);
    }

    pub(super) fn partial_match(
        &mut self,
        base: &Value,
        on: Option<&str>,
        call: &FnCallExpr,
        arguments: &[Value],
    ) {
        let looks = ["starts_with", "ends_with", "contains", "index_of"].contains(&call.name.as_str());
        if let (Kind::Text(of), Some(text)) =
            (base.kind.there(), arguments.first().and_then(Value::known_text))
            && looks
            && let Some(finding) = compare::part(*of, &call.name, on, text)
        {
            let place = call.args.first().map_or(Position::NONE, Expr::position);
            self.report(place, finding);
        }
    }
}

fn number_or_any(arguments: &[Value]) -> Value {
    let all = |kind: &Kind| arguments.iter().all(|argument| argument.kind == *kind);
    if all(&Kind::Int) { Kind::Int.into() } else { Kind::Any.into() }
}

fn without_unit(value: Value) -> Value {
    match value.kind {
        Kind::Unit => Kind::Never.into(),
        Kind::Maybe(kind) => Value { kind: *kind, ..value },
        _ => value,
    }
}
