//! Definition files for editors: what scripts know and can call, in the form that Rhai's language server reads.
//!
//! The language's own part comes from the engine, without what is switched off here; ours from the tables that scripts
//! themselves are served from.

use std::fmt::Write as _;

use rhai::Engine;

use super::delivery::properties;
use super::functions::FUNCTIONS;
use super::value_type::ValueType;

/// What scripts cannot call here.
const GONE: [&str; 6] = ["eval", "print", "debug", "sleep", "timestamp", "exit"];

/// Name and text of each file.
pub fn definitions() -> Vec<(String, String)> {
    let engine = Engine::new();
    let language = engine.definitions();
    let mut files: Vec<(String, String)> =
        language.iter_files().map(|(name, text)| (name, without_gone(&text))).collect();
    files.push(("waypost.d.rhai".to_owned(), ours()));
    files
}

fn ours() -> String {
    let mut text = String::from("module static;\n");
    let mut add = |doc: &str, example: &str, declaration: &str| {
        let doc = doc.replace('`', "");
        // Writing to a string does not fail.
        let _ = write!(text, "\n/// {doc}\n///\n/// ```rhai\n/// {example}\n/// ```\n{declaration};\n");
    };
    for property in properties() {
        let (of, name, value) = (property.of, property.name, type_name(property.value));
        add(property.doc, property.example, &format!("fn get {name}({of}: {of}) -> {value}"));
    }
    for function in FUNCTIONS {
        let declaration = match function.name() {
            "in_domain" => "fn in_domain(domain: String, pattern: String) -> bool",
            "share" => "fn share(key: String, percent: float) -> bool",
            "now" => "fn now() -> time",
            "log" => "fn log(text: ?) -> ()",
            "header" => "fn header(delivery: delivery, name: String) -> String | ()",
            other => other,
        };
        add(function.doc, function.example, declaration);
    }
    text
}

fn type_name(value: ValueType) -> String {
    match value {
        ValueType::Number => "int".into(),
        ValueType::Truth => "bool".into(),
        ValueType::Text(_) => "String".into(),
        ValueType::Time => "time".into(),
        ValueType::Attempt => "attempt".into(),
        ValueType::List(_) => "Array".into(),
        ValueType::Optional(value) => format!("{} | ()", type_name(*value)),
    }
}

/// Leaves out the declarations of what is not available, with the comments before them.
fn without_gone(text: &str) -> String {
    let (mut kept, mut comment) = (String::new(), String::new());
    for line in text.split_inclusive('\n') {
        let called =
            line.strip_prefix("fn ").and_then(|rest| rest.split_once('(')).map(|(name, _)| name.trim());
        if line.starts_with("//") {
            comment.push_str(line);
        } else if called.is_some_and(|name| GONE.contains(&name)) {
            comment.clear();
        } else {
            kept.push_str(&std::mem::take(&mut comment));
            kept.push_str(line);
        }
    }
    kept + comment.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_ours_is_defined_and_nothing_that_is_gone() {
        let files = definitions();
        let (_, ours) = files.iter().find(|(name, _)| name == "waypost.d.rhai").unwrap();
        for property in properties() {
            let line = format!("fn get {}({1}: {1})", property.name, property.of);
            assert!(ours.contains(&line), "{line}");
        }
        for function in FUNCTIONS {
            assert!(ours.contains(&format!("fn {}(", function.name())), "{}", function.name());
        }
        assert!(ours.contains("fn get last(delivery: delivery) -> attempt | ();"), "{ours}");
        let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
        for gone in GONE {
            assert!(!all.contains(&format!("\nfn {gone}(")), "{gone}");
        }
        // The language is there.
        for name in ["fn to_upper(", "fn filter(", "fn starts_with("] {
            assert!(all.contains(name), "{name}");
        }
    }
}
