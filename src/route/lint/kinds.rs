//! Kinds of values: what the lint knows of a value without computing it.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::rc::Rc;

use rhai::{Dynamic, FLOAT, FnPtr, INT, ImmutableString, Position};

use crate::route::delivery::{Delivery, PastAttempt, Time};
use crate::route::value_type::{TextOf, ValueType};

/// Arrays within arrays that are told apart.
const DEPTH_MAX: u32 = 4;

/// What sort of value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// It never comes to a value: `return`, `throw`, an endless loop.
    Never,
    /// Not known.
    Any,
    Unit,
    Bool,
    Int,
    Float,
    Char,
    Text(TextOf),
    /// With what its elements are.
    Array(Rc<Value>),
    /// With what its values are.
    Map(Rc<Value>),
    Function,
    Delivery,
    Attempt,
    Time,
    /// That, or `()`.
    Maybe(Box<Kind>),
}

/// A literal's place: file (as a number), line and column.
pub(super) type Place = (usize, usize, usize);

/// What is known of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub(super) kind: Kind,
    /// Text literals that it may be, each with its place.
    pub(super) texts: Rc<BTreeMap<Place, ImmutableString>>,
    /// It can be nothing but the one literal.
    pub(super) exact: bool,
}

impl From<Kind> for Value {
    fn from(kind: Kind) -> Self {
        Self { kind, texts: Rc::default(), exact: false }
    }
}

impl From<ValueType> for Kind {
    fn from(value: ValueType) -> Self {
        match value {
            ValueType::Number => Self::Int,
            ValueType::Truth => Self::Bool,
            ValueType::Text(of) => Self::Text(of),
            ValueType::Time => Self::Time,
            ValueType::Attempt => Self::Attempt,
            ValueType::List(of) => Self::Array(Rc::new(Self::from(*of).into())),
            ValueType::Optional(value) => Self::Maybe(Box::new(Self::from(*value))),
        }
    }
}

impl Value {
    pub(super) const TEXT: Kind = Kind::Text(TextOf::Words);

    /// A text literal.
    pub(super) fn literal(file: usize, position: Position, text: &ImmutableString) -> Self {
        let texts = BTreeMap::from([(place(file, position), text.clone())]);
        Self { kind: Self::TEXT, texts: Rc::new(texts), exact: true }
    }

    /// What may be either.
    pub(super) fn or(self, other: Self) -> Self {
        match (&self.kind, &other.kind) {
            (Kind::Never, _) => return other,
            (_, Kind::Never) => return self,
            _ => {}
        }
        let exact = self.exact && other.exact && self.texts == other.texts;
        let mut texts = self.texts;
        if other.texts.iter().any(|(place, _)| !texts.contains_key(place)) {
            let all = other.texts.iter().map(|(place, text)| (*place, text.clone()));
            Rc::make_mut(&mut texts).extend(all);
        }
        Self { kind: join(self.kind, other.kind), texts, exact }
    }

    /// As a variable holds it: of several literals, a test in between may have left only some.
    pub(super) fn kept(self) -> Self {
        let texts = if self.exact { self.texts } else { Rc::default() };
        Self { texts, ..self }
    }

    /// The literal, when it can be nothing else.
    pub(super) fn known_text(&self) -> Option<&ImmutableString> {
        self.texts.values().next().filter(|_| self.exact)
    }

    pub(super) fn is_any(&self) -> bool {
        self.kind == Kind::Any
    }
}

pub(super) fn place(file: usize, position: Position) -> Place {
    (file, position.line().unwrap_or(0), position.position().unwrap_or(0))
}

fn join(a: Kind, b: Kind) -> Kind {
    use Kind::{Any, Array, Map, Maybe, Text, Unit};
    match (a, b) {
        (a, b) if a == b => a,
        (Any, _) | (_, Any) => Any,
        (Unit, Maybe(kind)) | (Maybe(kind), Unit) => Maybe(kind),
        (Unit, kind) | (kind, Unit) => Maybe(Box::new(kind)),
        (Maybe(a), Maybe(b)) => maybe(join(*a, *b)),
        (Maybe(a), b) => maybe(join(*a, b)),
        (a, Maybe(b)) => maybe(join(a, *b)),
        (Text(_), Text(_)) => Text(TextOf::Words),
        (Array(a), Array(b)) => shallow(&Array(Rc::new((*a).clone().or((*b).clone())))),
        (Map(a), Map(b)) => shallow(&Map(Rc::new((*a).clone().or((*b).clone())))),
        _ => Any,
    }
}

fn maybe(kind: Kind) -> Kind {
    if kind == Kind::Any { kind } else { Kind::Maybe(Box::new(kind)) }
}

/// Cuts what is nested too deep, so that going through a script comes to an end.
fn shallow(kind: &Kind) -> Kind {
    if kind.depth() > DEPTH_MAX { Kind::Any } else { kind.clone() }
}

impl Kind {
    fn depth(&self) -> u32 {
        match self {
            Self::Array(of) | Self::Map(of) => 1 + of.kind.depth(),
            Self::Maybe(kind) => kind.depth(),
            _ => 0,
        }
    }

    pub(super) fn array_of(value: Value) -> Self {
        shallow(&Self::Array(Rc::new(value)))
    }

    pub(super) fn map_of(value: Value) -> Self {
        shallow(&Self::Map(Rc::new(value)))
    }

    /// Without the `()` that it may be.
    pub(super) fn there(&self) -> &Self {
        if let Self::Maybe(kind) = self { kind } else { self }
    }

    /// The name of the type whose properties are in our tables.
    pub(super) fn native(&self) -> Option<&'static str> {
        Some(match self.there() {
            Self::Delivery => "delivery",
            Self::Attempt => "attempt",
            Self::Time => "time",
            _ => return None,
        })
    }

    /// Rhai's types that it may have at run time; `None` when nothing is known.
    pub(super) fn types(&self) -> Option<Vec<TypeId>> {
        let one = |id| Some(vec![id]);
        match self {
            Self::Never | Self::Any => None,
            Self::Unit => one(TypeId::of::<()>()),
            Self::Bool => one(TypeId::of::<bool>()),
            Self::Int => one(TypeId::of::<INT>()),
            Self::Float => one(TypeId::of::<FLOAT>()),
            Self::Char => one(TypeId::of::<char>()),
            Self::Text(_) => one(TypeId::of::<ImmutableString>()),
            Self::Array(_) => one(TypeId::of::<rhai::Array>()),
            Self::Map(_) => one(TypeId::of::<rhai::Map>()),
            Self::Function => one(TypeId::of::<FnPtr>()),
            Self::Delivery => one(TypeId::of::<Delivery>()),
            Self::Attempt => one(TypeId::of::<PastAttempt>()),
            Self::Time => one(TypeId::of::<Time>()),
            Self::Maybe(kind) => {
                let mut types = kind.types()?;
                types.push(TypeId::of::<()>());
                Some(types)
            }
        }
    }

    /// Whether a parameter of that type takes it.
    pub(super) fn fits(&self, parameter: TypeId) -> bool {
        let any = TypeId::of::<Dynamic>();
        parameter == any || self.types().is_none_or(|types| types.contains(&parameter))
    }

    /// Whether a value of this kind can be equal to one of the other. Numbers are compared with each other, and so
    /// are texts and characters.
    pub(super) fn may_equal(&self, other: &Self) -> bool {
        fn group(kind: &Kind) -> Option<u8> {
            Some(match kind {
                Kind::Never | Kind::Any | Kind::Maybe(_) => return None,
                Kind::Unit => 0,
                Kind::Bool => 1,
                Kind::Int | Kind::Float => 2,
                Kind::Char | Kind::Text(_) => 3,
                Kind::Array(_) => 4,
                Kind::Map(_) => 5,
                Kind::Function => 6,
                Kind::Delivery => 7,
                Kind::Attempt => 8,
                Kind::Time => 9,
            })
        }
        match (self, other) {
            (Self::Maybe(kind), other) | (other, Self::Maybe(kind)) => {
                other == &Self::Unit || matches!(other, Self::Maybe(_)) || kind.may_equal(other)
            }
            (a, b) => group(a).zip(group(b)).is_none_or(|(a, b)| a == b),
        }
    }

    /// In words: `a number`.
    pub(super) fn words(&self) -> &'static str {
        match self.there() {
            Self::Never | Self::Any | Self::Maybe(_) => "something",
            Self::Unit => "()",
            Self::Bool => "true or false",
            Self::Int | Self::Float => "a number",
            Self::Char => "a character",
            Self::Text(_) => "text",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
            Self::Function => "a function",
            Self::Delivery => "the delivery",
            Self::Attempt => "an attempt",
            Self::Time => "a time",
        }
    }
}
