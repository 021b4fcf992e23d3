//! The functions and properties that the engine itself has, with the types they take: read from the engine, so that
//! what the lint believes is what runs.

use std::any::TypeId;
use std::collections::BTreeMap;

use rhai::Engine;

use super::kinds::{Kind, Value};
use crate::route::value_type::TextOf;

/// All of them, by name.
pub(super) struct Natives(BTreeMap<String, Vec<Native>>);

struct Native {
    parameters: Vec<TypeId>,
    returns: Kind,
}

/// What a call of a native function comes to.
pub(super) enum Call {
    Returns(Kind),
    /// No function has this name.
    Unknown,
    /// None takes so many arguments; these numbers would do.
    Count(Vec<usize>),
    /// None takes arguments of these types.
    Types,
}

impl Natives {
    pub(super) fn of(engine: &Engine) -> Self {
        let all = engine.collect_fn_metadata(
            None,
            |function| {
                let meta = function.metadata;
                let native = Native {
                    parameters: meta.param_types.iter().copied().collect(),
                    returns: returns(&meta.name, &meta.return_type),
                };
                Some((meta.name.to_string(), native))
            },
            true,
        );
        let mut natives: BTreeMap<String, Vec<Native>> = BTreeMap::new();
        for (name, native) in all {
            natives.entry(name).or_default().push(native);
        }
        Self(natives)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Names that a script can write.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
    }

    pub(super) fn call(&self, name: &str, arguments: &[&Kind]) -> Call {
        let Some(all) = self.0.get(name) else { return Call::Unknown };
        let counted: Vec<&Native> = all.iter().filter(|n| n.parameters.len() == arguments.len()).collect();
        if counted.is_empty() {
            let mut counts: Vec<usize> = all.iter().map(|native| native.parameters.len()).collect();
            counts.sort_unstable();
            counts.dedup();
            return Call::Count(counts);
        }
        let fits =
            |native: &&&Native| native.parameters.iter().zip(arguments).all(|(id, kind)| kind.fits(*id));
        let fitting = counted.iter().filter(fits).map(|native| Value::from(native.returns.clone()));
        fitting.reduce(Value::or).map_or(Call::Types, |value| Call::Returns(value.kind))
    }

    /// A property of a value, as Rhai brings it; `None` when that kind of value has no such property.
    pub(super) fn property(&self, of: &Kind, name: &str) -> Option<Kind> {
        match self.call(&format!("get${name}"), &[of]) {
            Call::Returns(kind) => Some(kind),
            _ => None,
        }
    }
}

/// What a function gives back, by the name of its type; ours say less than they know.
fn returns(name: &str, type_name: &str) -> Kind {
    match name {
        "in_domain" | "share" => return Kind::Bool,
        "now" => return Kind::Time,
        "header" => return Kind::Maybe(Box::new(Value::TEXT)),
        _ => {}
    }
    let bare = type_name.strip_prefix("RhaiResultOf<").and_then(|rest| rest.strip_suffix('>'));
    match bare.unwrap_or(type_name).trim() {
        "bool" => Kind::Bool,
        "INT" | "i64" => Kind::Int,
        "FLOAT" | "f64" => Kind::Float,
        "char" => Kind::Char,
        "()" => Kind::Unit,
        "ImmutableString" | "String" | "&str" | "string" => Kind::Text(TextOf::Words),
        "Array" => Kind::array_of(Kind::Any.into()),
        _ => Kind::Any,
    }
}
