//! Keeps docs/routing.md in step with the code.

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

#[test]
fn every_property_and_function_is_documented() {
    let doc = project("docs/routing.md");
    for property in properties() {
        assert!(doc.contains(&format!("`{}`", property.name)), "{property:?}");
    }
    for function in FUNCTIONS {
        assert!(doc.contains(&format!("`{}`", function.signature)), "function {}", function.signature);
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
