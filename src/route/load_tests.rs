//! From files to a script set, or to everything that is wrong with them.

use std::fs;
use std::os::unix::fs::symlink;

use super::tests::{A, D, G, NOTHING, ask, directory, facts, load, transport};
use super::*;
use crate::address::Domain;
use crate::config::ScriptLimits;
use crate::names::AccountName;

fn problems(files: &[(&str, &str)]) -> Vec<String> {
    load(files).expect_err("problems").iter().map(ToString::to_string).collect()
}

#[test]
fn each_problem_has_its_place_and_what_would_be_right() {
    for (files, expected) in [
        (vec![("global.rhai", "fn route(delivery) {\n  if \n}")], vec!["global.rhai:3:1: "]),
        (
            vec![("global.rhai", "fn route(delivery) { delivry.size }")],
            vec!["global.rhai:1:22: Undefined variable: delivry"],
        ),
        (
            vec![("global.rhai", "")],
            vec!["global.rhai:1:1: there is no function route(delivery) (a script looks like"],
        ),
        (
            vec![("global.rhai", "\nfn rout(delivery) { }")],
            vec!["global.rhai:2:19: there is no function route(delivery) (did you mean 'rout'"],
        ),
        (
            vec![("global.rhai", "\nfn route() { }")],
            vec!["global.rhai:2:4: route takes one parameter, not 0 (write: fn route(delivery))"],
        ),
        (
            vec![("global.rhai", "fn route(a, b)\n{ }")],
            vec!["global.rhai:1:4: route takes one parameter, not 2"],
        ),
        (
            vec![("global.rhai", "fn route(a) { }\nfn route(a, b) { }")],
            vec!["global.rhai:2:4: route takes one parameter, not 2"],
        ),
        (vec![("global.rhai", "fn route(a) { }\nfn route(b) { }")], vec!["global.rhai:2:"]),
        (
            vec![("global.rhai", "let x = 1;\nfn route(d) { }\nlog(\"x\");")],
            vec!["global.rhai:1:1: this statement stands outside", "global.rhai:3:1: this statement"],
        ),
        (vec![("global.rhai", "fn route(d) { eval(\"1\") }")], vec!["global.rhai:1:15: "]),
        (vec![("global.rhai", "fn route(d) { print(\"1\") }")], vec!["global.rhai:1:15: "]),
        (
            vec![("global.rhai", "import \"../x\" as x;\nfn route(d) { }")],
            vec!["global.rhai:1:8: import of \"../x\", outside the scripts directory"],
        ),
        (
            vec![("global.rhai", "import \"/etc/x\" as x;\nfn route(d) { }")],
            vec!["global.rhai:1:8: import of \"/etc/x\", outside"],
        ),
        (
            vec![("global.rhai", "fn route(d) { import \"lib/../../x\" as x; }")],
            vec!["global.rhai:1:22: import of \"lib/../../x\", outside"],
        ),
        (
            vec![("global.rhai", "import \"lib/nome\" as x;\nfn route(d) { }"), ("lib/name.rhai", "")],
            vec!["global.rhai:1:8: there is no module \"lib/nome\" (did you mean \"lib/name\"?)"],
        ),
        (
            vec![("global.rhai", "import \"name.rhai\" as x;\nfn route(d) { }"), ("lib/name.rhai", "")],
            vec!["global.rhai:1:8: there is no module \"name.rhai\" (did you mean \"lib/name\"?)"],
        ),
        (
            vec![("global.rhai", "fn route(d) { import d.account as x; }")],
            vec!["global.rhai:1:15: import needs its path as a literal"],
        ),
        (
            vec![("lib/a.rhai", "import \"lib/b\" as b;"), ("lib/b.rhai", "\nimport \"lib/a\" as a;")],
            vec!["lib/b.rhai:2:8: modules import each other: lib/a -> lib/b -> lib/a"],
        ),
        (
            vec![("lib/a.rhai", "import \"lib/a\" as b;")],
            vec!["lib/a.rhai:1:8: modules import each other: lib/a -> lib/a"],
        ),
        (
            vec![
                ("lib/a.rhai", "fn f(x) { }\nprivate fn g() { }"),
                (
                    "global.rhai",
                    "import \"lib/a\" as a;\nfn route(d) {\na::f(1);\na::ff(1);\na::f();\na::g();\n}",
                ),
            ],
            vec![
                "global.rhai:4:4: lib/a has no function ff with 1 parameters (it has f with 1)",
                "global.rhai:5:4: lib/a has no function f with 0",
                "global.rhai:6:4: lib/a has no function g with 0",
            ],
        ),
        (vec![("lib/a.rhai", "const X = 1 / 0;")], vec!["lib/a.rhai:1:13: Division by zero"]),
        (vec![("lib/a.rhai", "\nfn f() {\n")], vec!["lib/a.rhai:"]),
        (vec![("account/a b.rhai", NOTHING)], vec!["account/a b.rhai: \"a b\" is not an account name"]),
        (vec![("domain/a b.rhai", NOTHING)], vec!["domain/a b.rhai: \"a b\" is not a domain"]),
        (
            vec![("domain/Example.org.rhai", NOTHING), ("domain/example.org.rhai", NOTHING)],
            vec!["domain/example.org.rhai: domain/Example.org.rhai is for the same domain"],
        ),
        (
            vec![(
                "global.rhai",
                &format!("fn route(d) {{\nlet x = {}1{};\n}}", "(".repeat(200), ")".repeat(200)),
            )],
            vec!["global.rhai:2:71: Expression exceeds maximum complexity (use"],
        ),
        (vec![("globl.rhai", NOTHING)], vec!["globl.rhai: no level asks this script"]),
        (
            vec![("accounts/a.rhai", NOTHING)],
            vec!["accounts/: no script in this folder is asked (did you mean 'account/'?)"],
        ),
        (
            vec![("global.rhai", "fn route(d) { ] }"), ("account/a.rhai", ""), ("lib/x.rhai", "fn")],
            vec!["account/a.rhai:1:1", "global.rhai:1:15", "lib/x.rhai:1:"],
        ),
    ] {
        let found = problems(&files);
        assert_eq!(found.len(), expected.len(), "{files:?} gave {found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} should begin with {expected}");
        }
    }
}

#[test]
fn names_of_files_are_normalised() {
    let set = load(&[
        ("domain/Bücher.Example.rhai", D),
        ("domain/example.test.rhai", D),
        ("account/ALICE.rhai", A),
        ("account/me@example.test.rhai", A),
        ("domain/example.org.test.rhai", "fn test_something() { }"),
        ("global.test.rhai", "fn test_something() { }"),
        ("domain/example.org.test.toml", "[[case]]"),
        ("account/.#alice.rhai", "half"),
        ("README.md", "text"),
        ("global.rhai", "\u{feff}fn route(delivery) { }"),
    ]);
    let set = set.unwrap();
    assert_eq!(
        set.domains().map(Domain::as_str).collect::<Vec<_>>(),
        ["example.test", "xn--bcher-kva.example"]
    );
    assert_eq!(set.accounts().map(AccountName::as_str).collect::<Vec<_>>(), ["alice", "me@example.test"]);
}

#[test]
fn a_directory_that_is_not_there_is_a_problem_and_an_empty_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        transport(&ask(&ScriptSet::load(dir.path(), &ScriptLimits::default()).unwrap(), facts())),
        "direct"
    );
    let problems = ScriptSet::load(&dir.path().join("gone"), &ScriptLimits::default()).unwrap_err();
    assert!(problems[0].message.starts_with("cannot be read"), "{problems:?}");
}

#[test]
fn links_may_lead_anywhere_within_the_directory_and_nowhere_else() {
    let outside = directory(&[("secret.rhai", "fn f() { 1 }"), ("global.rhai", G)]);
    let dir = directory(&[("..data/global.rhai", G), ("..data/lib/names.rhai", "fn f() { 1 }")]);
    symlink("..data/global.rhai", dir.path().join("global.rhai")).unwrap();
    symlink("..data/lib", dir.path().join("lib")).unwrap();
    let link = outside.path().join("scripts");
    symlink(dir.path(), &link).unwrap();
    assert_eq!(transport(&ask(&ScriptSet::load(&link, &ScriptLimits::default()).unwrap(), facts())), "g");

    symlink(outside.path().join("secret.rhai"), dir.path().join("..data/lib/secret.rhai")).unwrap();
    fs::create_dir(dir.path().join("account")).unwrap();
    symlink("../../nowhere.rhai", dir.path().join("account/alice.rhai")).unwrap();
    let problems = ScriptSet::load(&link, &ScriptLimits::default()).unwrap_err();
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(text[0].starts_with("account/alice.rhai: cannot be read"), "{text:?}");
    assert!(
        text[1].starts_with("lib/secret.rhai: is a link to ")
            && text[1].ends_with("outside the scripts directory")
    );
}

#[test]
fn hashes_tell_contents_and_names_apart() {
    let one = load(&[("global.rhai", G)]).unwrap();
    let same = load(&[("global.rhai", G), ("notes.txt", "x")]).unwrap();
    let text = load(&[("global.rhai", A)]).unwrap();
    let name = load(&[("account/a.rhai", G)]).unwrap();
    assert_eq!(one.hash(), same.hash());
    assert!(one.hash() != text.hash() && one.hash() != name.hash());
    assert_eq!((one.hash().len(), one.scripts().len()), (16, 1));
    assert_eq!(one.scripts()[0].hash, source::content_hash(G.as_bytes()));
    assert_eq!(source::content_hash(b"").as_ref(), "e3b0c44298fc1c14");
}
