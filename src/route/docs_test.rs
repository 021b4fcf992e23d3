//! Keeps docs/routing.md in step with the code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::tests::{directory, write};
use super::{FUNCTIONS, Facts, ScriptSet, Surroundings, properties};
use crate::address::Mailbox;
use crate::attempt::{Attempt, Decision, Level};
use crate::config::ScriptLimits;
use crate::envelope::ReversePath;
use crate::names::TransportName;
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};

fn project(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// A row of a table of the documentation.
fn row(name: &str, value: &str, doc: &str, example: &str) -> String {
    let (doc, example) = (doc.replace('|', "\\|"), example.replace('|', "\\|"));
    let example = if example.contains('`') { format!("`` {example} ``") } else { format!("`{example}`") };
    format!("| `{name}` | {value} | {doc} | {example} |\n")
}

#[test]
fn every_property_and_function_is_documented_as_the_code_has_it() {
    let doc = project("docs/routing.md");
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    for property in properties() {
        let row = row(property.name, &property.value.to_string(), property.doc, property.example);
        tables.entry(property.of).or_default().push_str(&row);
    }
    for function in FUNCTIONS {
        let row = row(function.signature, function.returns, function.doc, function.example);
        tables.entry("functions").or_default().push_str(&row);
    }
    for (of, rows) in tables {
        assert!(
            doc.contains(&format!("| --- | --- | --- | --- |\n{rows}\n")),
            "the table of {of} should be\n{rows}"
        );
    }
}

#[test]
fn every_example_of_the_reference_runs_and_is_clean() {
    let examples = properties().into_iter().map(|property| property.example);
    for example in examples.chain(FUNCTIONS.iter().map(|function| function.example)) {
        let body = format!("let attempt = delivery.last; let value = {example}; log(`${{value}}`);");
        let dir = directory(&[(
            "global.rhai",
            &format!("fn route(delivery) {{ {body} if attempt == () {{ return; }} }}"),
        )]);
        let (set, problems) =
            ScriptSet::check(dir.path(), &ScriptLimits::default(), &Surroundings::default()).unwrap();
        assert_eq!(problems, [], "{example}");
        let trace = set.decide(&Arc::new(delivery_of(2, Some((Stage::Connect, "4.4.1")))), &|_: &str| true);
        assert!(trace.verdict().is_ok(), "{example}\n{trace}");
    }
}

#[test]
fn the_documented_limits_are_the_default_ones() {
    let doc = project("docs/routing.md");
    let ScriptLimits { operations_max, call_depth_max, string_bytes_max, array_elements_max, .. } =
        ScriptLimits::default();
    for (row, value) in [
        ("operations", operations_max as usize),
        ("nested function calls (never more than 64)", call_depth_max),
        ("bytes in a string", string_bytes_max),
        ("elements in an array, entries in a map (with what is within them)", array_elements_max),
    ] {
        let line = doc.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap();
        let digits: String = line.rsplit("| ").next().unwrap().chars().filter(char::is_ascii_digit).collect();
        assert_eq!(digits, value.to_string(), "{line}");
    }
}

#[test]
fn every_script_in_the_documentation_runs() {
    let doc = project("docs/routing.md");
    let blocks: Vec<&str> =
        doc.split("```rhai\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 6, "{}", blocks.len());
    for block in blocks {
        let dir = directory(&[("lib/providers.rhai", "fn transport_of(domain) { \"smarthost\" }")]);
        write(dir.path(), "global.rhai", block);
        let set = ScriptSet::load(dir.path(), &ScriptLimits::default())
            .unwrap_or_else(|p| panic!("{block}\n{p:?}"));
        let known = [
            "smarthost",
            "sending-service",
            "new-service",
            "big-provider",
            "newsletters",
            "bulk",
            "quiet-line",
        ];
        let around =
            Surroundings { transports: Some(known.map(str::to_owned).into()), ..Surroundings::default() };
        let (_, problems) = ScriptSet::check(dir.path(), &ScriptLimits::default(), &around).unwrap();
        assert_eq!(problems, [], "{block}");
        for facts in [delivery_of(1, None), delivery_of(4, Some((Stage::Connect, "5.7.1")))] {
            let trace = set.decide(&Arc::new(facts), &|_: &str| true);
            assert!(trace.verdict().is_ok(), "{block}\n{trace}");
        }
    }
}

/// A delivery from outside, and how the attempt before it ended.
fn delivery_of(attempt: u32, last: Option<(Stage, &str)>) -> Facts {
    let mailbox = |text: &str| Mailbox::parse(text).unwrap();
    let sender = ReversePath::Mailbox(mailbox("a@example.org"));
    let mut facts = Facts::new(sender, mailbox("b@example.com"), Timestamp::UNIX_EPOCH);
    facts.attempt = attempt;
    facts.mx = Some(vec!["mx.example.com".into()]);
    facts.history = last.into_iter().map(|(stage, enhanced)| failed(stage, enhanced)).collect();
    facts
}

fn failed(stage: Stage, enhanced: &str) -> Attempt {
    let enhanced: EnhancedCode = enhanced.parse().unwrap();
    Attempt {
        number: 1,
        at: Timestamp::UNIX_EPOCH,
        decision: Some(Decision::without_script(Level::Default, TransportName::direct())),
        outcome: Some(Outcome::ours(Verdict::Temporary, stage, enhanced, "try later")),
        ended: None,
    }
}
