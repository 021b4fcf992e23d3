//! Calls of functions: of the script itself, of its modules, of the language and of ours.

use std::fmt::Write as _;

use rhai::{Expr, FnCallExpr, Position};

use super::compare::Finding;
use super::kinds::{Kind, Value};
use super::natives::Call;
use super::program::{Function, closure};
use super::walk::{Walk, element, meant, name_of, start_of};
use crate::route::delivery::properties;
use crate::route::functions::{self, FUNCTIONS};
use crate::route::problem::Rule;
use crate::route::value_type::TextOf;

impl Walk<'_> {
    /// A function called as `value.name(...)`.
    pub(super) fn method(
        &mut self,
        base: &Value,
        on: Option<&str>,
        call: &FnCallExpr,
        position: Position,
    ) -> Value {
        let name = call.name.as_str();
        if let Some(value) = self.over_elements(base, call) {
            return value;
        }
        let arguments: Vec<Value> = call.args.iter().map(|argument| self.value(argument)).collect();
        if is_special(name) {
            self.pointers(call);
            return Kind::Any.into();
        }
        if let Some(function) = self.program.function(self.function.unit, name, arguments.len()) {
            return returned(function, &arguments);
        }
        if base.is_any() || matches!(base.kind.there(), Kind::Map(_) | Kind::Never) {
            self.unknown_method(base, name, position);
            return Kind::Any.into();
        }
        self.partial_match(base, on, call, &arguments);
        if name == "contains" {
            self.contained(base, call.args.first(), &arguments, position);
        }
        if name == "header" {
            self.header_name(&arguments, call);
        }
        let there = Value { kind: base.kind.there().clone(), ..base.clone() };
        let all: Vec<Value> = std::iter::once(there).chain(arguments).collect();
        self.native(name, &all, position, true)
    }

    /// What is not known may be a map with a function in it; a name that nobody has is still worth a word.
    fn unknown_method(&mut self, base: &Value, name: &str, position: Position) {
        let program = self.program;
        let known = program.natives.has(name)
            || program.is_field(self.function.unit, name)
            || !program.arities(self.function.unit, name).is_empty()
            || matches!(base.kind.there(), Kind::Map(_) | Kind::Never);
        if !known {
            let finding = Finding::warning(Rule::Function, format!("no function is called '{name}'"));
            let names = program.natives.names().chain(program.names(self.function.unit));
            let hint = meant(name, names);
            self.report(
                position,
                match hint {
                    Some(hint) => finding.hint(hint),
                    None => finding,
                },
            );
        }
    }

    /// `filter`, `map` and the like hand the elements of an array to a closure.
    fn over_elements(&mut self, base: &Value, call: &FnCallExpr) -> Option<Value> {
        let Kind::Array(_) = base.kind.there() else { return None };
        let taking = ["filter", "map", "some", "all", "find", "find_map", "index_of", "drain", "retain"];
        let over = call.args.first().filter(|_| taking.contains(&call.name.as_str()))?;
        closure(over)?;
        self.closure(over, Some(element(base)));
        for argument in call.args.iter().skip(1) {
            self.value(argument);
        }
        Some(match call.name.as_str() {
            "filter" => base.clone(),
            "find" => element(base).or(Kind::Unit.into()),
            "some" | "all" => Kind::Bool.into(),
            "index_of" => Kind::Int.into(),
            _ => Kind::Any.into(),
        })
    }

    /// A closure where it is made: it takes variables with it, and is given elements or anything.
    pub(super) fn closure(&mut self, expression: &Expr, given: Option<Value>) {
        let Some((name, captured)) = closure(expression) else { return };
        let captured: Vec<Value> = captured.into_iter().map(|variable| self.value(variable)).collect();
        let functions = &self.program.functions;
        for function in functions.iter().filter(|f| f.unit == self.function.unit && f.name == name) {
            let count = captured.len();
            match &given {
                Some(element) => {
                    let arguments = captured.iter().cloned().chain([element.clone(), Kind::Int.into()]);
                    let rest = function.parameters.len().saturating_sub(count + 2);
                    let arguments: Vec<Value> =
                        arguments.chain(std::iter::repeat_n(Kind::Any.into(), rest)).collect();
                    function.called_with(&arguments);
                }
                None => {
                    function.called_with(&captured);
                    function.escapes(count);
                }
            }
        }
    }

    /// `Fn("name")`: the function of that name may be called with anything.
    fn pointers(&mut self, call: &FnCallExpr) {
        if call.name == "Fn" {
            match call.args.first() {
                Some(Expr::StringConstant(name, _)) => self.program.name_escapes(Some(name)),
                _ => self.program.name_escapes(None),
            }
        }
    }

    /// A function called as `name(...)`, or an operator.
    pub(super) fn call(&mut self, call: &FnCallExpr, position: Position) -> Value {
        if call.op_token.is_some() {
            return self.operator(call, position);
        }
        let name = call.name.as_str();
        let arguments: Vec<Value> = call.args.iter().map(|argument| self.value(argument)).collect();
        if !call.namespace.path.is_empty() {
            return self.in_module(call, &arguments);
        }
        if is_special(name) {
            self.pointers(call);
            return Kind::Any.into();
        }
        let program = self.program;
        if let Some(function) = program.function(self.function.unit, name, arguments.len()) {
            return returned(function, &arguments);
        }
        let arities = program.arities(self.function.unit, name);
        if !arities.is_empty() && !program.natives.has(name) {
            if !arities.contains(&arguments.len()) {
                let finding = wrong_count(name, arguments.len(), &arities);
                self.report(position, finding);
            }
            return Kind::Any.into();
        }
        match name {
            // `x in list` is `contains(list, x)`.
            "contains" if arguments.len() == 2 => {
                self.contained(&arguments[0], call.args.get(1), &arguments[1..], position);
            }
            "in_domain" => self.in_domain(call, &arguments),
            "share" => self.percent(call),
            "sleep" | "timestamp" | "exit" => {
                let message = format!("{name}() is not available in routing scripts");
                let finding = Finding::error(Rule::Function, message);
                self.report(
                    position,
                    match name {
                        "timestamp" => finding.hint("now() is the time of the attempt"),
                        "exit" => finding.hint("write: return \"name\";"),
                        _ => finding,
                    },
                );
                return Kind::Never.into();
            }
            _ => {}
        }
        self.native(name, &arguments, position, false)
    }

    fn in_module(&mut self, call: &FnCallExpr, arguments: &[Value]) -> Value {
        let unit = &self.program.units[self.function.unit];
        let alias = call.namespace.path.first().map(|root| root.name.as_str());
        let paths: Vec<&str> = unit.outline.paths_of(alias.unwrap_or_default()).collect();
        let meant = |path: &&str| self.program.module(path);
        let found: Vec<&Function> = paths
            .iter()
            .filter_map(meant)
            .filter_map(|unit| self.program.function(unit, &call.name, arguments.len()))
            .collect();
        match (found.as_slice(), paths.len()) {
            ([function], 1) => returned(function, arguments),
            (functions, _) => {
                for function in functions {
                    function.escapes(0);
                }
                Kind::Any.into()
            }
        }
    }

    /// A function of the language or one of ours.
    fn native(&mut self, name: &str, arguments: &[Value], position: Position, method: bool) -> Value {
        let kinds: Vec<&Kind> = arguments.iter().map(|argument| &argument.kind).collect();
        let finding = match self.program.natives.call(name, &kinds) {
            Call::Returns(kind) => return kind.into(),
            Call::Unknown => self.unknown(name, arguments, method),
            Call::Count(counts) => {
                let hidden = usize::from(method);
                let counts: Vec<usize> = counts.iter().map(|count| count.saturating_sub(hidden)).collect();
                wrong_count(name, arguments.len() - hidden, &counts)
            }
            Call::Types => {
                let words: Vec<&str> = kinds.iter().map(|kind| kind.words()).collect();
                let message = match words.split_first() {
                    Some((on, rest)) if method && !rest.is_empty() => {
                        format!("'{name}' of {on} does not take {}", rest.join(" and "))
                    }
                    Some((on, _)) if method => format!("{on} has no function '{name}'"),
                    _ => format!("{name} does not take {}", words.join(" and ")),
                };
                Finding::error(Rule::Arguments, message)
            }
        };
        let signature = FUNCTIONS.iter().find(|function| function.name() == name);
        let finding = match signature {
            Some(function) if finding.hint.is_none() => {
                finding.hint(format!("write: {}", function.signature))
            }
            _ => finding,
        };
        self.report(position, finding);
        Kind::Any.into()
    }

    fn unknown(&self, name: &str, arguments: &[Value], method: bool) -> Finding {
        let on = arguments.first().filter(|_| method).and_then(|value| value.kind.native());
        if let Some(of) = on {
            let finding = Finding::error(Rule::Function, format!("{of} has no function '{name}'"));
            return if properties().iter().any(|p| p.of == of && p.name == name) {
                finding.hint(format!("'{name}' is a property: write it without ()"))
            } else {
                match meant(name, FUNCTIONS.iter().map(functions::Function::name)) {
                    Some(hint) => finding.hint(hint),
                    None => finding,
                }
            };
        }
        let finding = Finding::error(Rule::Function, format!("there is no function '{name}'"));
        let program = self.program;
        let ours = FUNCTIONS.iter().map(functions::Function::name);
        let own = program.names(self.function.unit);
        match meant(name, ours).or_else(|| meant(name, own.chain(program.natives.names()))) {
            Some(hint) => finding.hint(hint),
            None => finding,
        }
    }

    /// RFC 5322 §2.2: a field name is printable ASCII without a colon.
    fn header_name(&mut self, arguments: &[Value], call: &FnCallExpr) {
        let Some(name) = arguments.first().and_then(Value::known_text) else { return };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            let finding = Finding::error(Rule::Form, format!("no header field can be called {name:?}"));
            let bare = name.trim_end_matches([':', ' ']).to_owned();
            let place = call.args.first().map_or(Position::NONE, Expr::position);
            self.report(
                place,
                if bare != name.as_str() && !bare.is_empty() {
                    finding.hint(format!("write {bare:?}"))
                } else {
                    finding
                },
            );
        }
    }

    fn in_domain(&mut self, call: &FnCallExpr, arguments: &[Value]) {
        let [domain, pattern] = arguments else { return };
        let place = |at: usize| call.args.get(at).map_or(Position::NONE, start_of);
        if let Some(text) = pattern.known_text()
            && !functions::is_pattern(text)
        {
            let finding =
                Finding::error(Rule::Form, format!("{text:?} is no domain: in_domain fails with it"));
            let base = text.trim_start_matches('*').trim_start_matches(['.', '@']);
            let right = format!(".{base}");
            self.report(
                place(1),
                if functions::is_pattern(&right) {
                    finding.hint(format!("write {right:?} for {base} and all below it"))
                } else {
                    finding
                        .hint("write \"example.com\" for that domain, \".example.com\" for it and all below")
                },
            );
        }
        let name = call.args.first().and_then(name_of);
        match (&domain.kind, &pattern.kind) {
            (Kind::Text(TextOf::Address), _) => {
                let name = name.unwrap_or_else(|| "this".into());
                let finding = Finding::error(
                    Rule::Arguments,
                    format!("{name} is an address, in_domain takes a domain"),
                );
                self.report(place(0), finding.hint(format!("write {name}_domain")));
            }
            (_, Kind::Text(TextOf::Domain)) if domain.known_text().is_some() => {
                let finding =
                    Finding::warning(Rule::Arguments, "the pattern is the second argument of in_domain");
                self.report(place(0), finding.hint("write: in_domain(domain, pattern)"));
            }
            _ => {}
        }
    }

    fn percent(&mut self, call: &FnCallExpr) {
        if let Some(percent) = call.args.get(1).and_then(number)
            && !(0.0..=100.0).contains(&percent)
        {
            let finding =
                Finding::error(Rule::Arguments, format!("share takes 0 to 100 percent, not {percent}"));
            self.report(call.args[1].position(), finding);
        }
    }
}

/// The value of a number that stands in a script as such.
fn number(expression: &Expr) -> Option<rhai::FLOAT> {
    match expression {
        Expr::IntegerConstant(number, _) => Some(*number as rhai::FLOAT),
        Expr::FloatConstant(number, _) => Some(**number),
        Expr::FnCall(call, _) if call.name == "-" && call.args.len() == 1 => {
            number(call.args.first()?).map(|n| -n)
        }
        _ => None,
    }
}

fn returned(function: &Function, arguments: &[Value]) -> Value {
    function.called_with(arguments);
    // Not known yet: a later round will tell.
    let returns = function.known.borrow().returns.clone().unwrap_or(Kind::Never.into());
    Value { exact: false, ..returns }
}

/// Functions that Rhai treats in ways of its own.
fn is_special(name: &str) -> bool {
    matches!(name, "Fn" | "call" | "curry" | "type_of" | "is_def_fn" | "is_def_var" | "is_shared")
}

fn wrong_count(name: &str, given: usize, right: &[usize]) -> Finding {
    let mut takes = String::new();
    for (at, count) in right.iter().enumerate() {
        let or = match at {
            0 => "",
            _ if at + 1 == right.len() => " or ",
            _ => ", ",
        };
        // Writing to a string does not fail.
        let _ = write!(takes, "{or}{count}");
    }
    let plural = if right == [1] { "" } else { "s" };
    Finding::error(Rule::Arguments, format!("{name} takes {takes} argument{plural}, not {given}"))
}
