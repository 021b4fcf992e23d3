//! Scripts that try to take more than their share: each stops within its limit, at its line, and leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use super::tests::{ask, directory, facts, load, write};
use super::*;
use crate::config::ScriptLimits;

/// What a global script with this body comes to; its first line is line 2.
fn failure(body: &str) -> ScriptError {
    let script = format!("fn route(delivery) {{\n{body}\n}}");
    // Time enough on a busy machine: the other limits are to be reached first.
    let limits = ScriptLimits { time_max: Duration::from_mins(1), ..ScriptLimits::default() };
    let dir = directory(&[("global.rhai", &script)]);
    let trace = ask(&ScriptSet::load(dir.path(), &limits).unwrap(), facts());
    *trace.verdict().expect_err(body).error
}

#[test]
fn whatever_grows_without_end_is_stopped_at_its_line() {
    use ErrorKind::{CallDepth, Operations, Size};
    for (body, kind, line) in [
        // Loops.
        ("loop { }", Operations, 2),
        ("let n = 0;\nwhile n < 1 {\nn -= 1;\n}", Operations, 4),
        ("do { } while true", Operations, 2),
        ("for i in 0..1_000_000_000 {\nlet x = i;\n}", Operations, 3),
        ("let a = [1];\nfor x in a {\nloop { }\n}", Operations, 4),
        // Calls.
        ("f()\n}\nfn f() {\nf()", CallDepth, 5),
        ("f(1)\n}\nfn f(n) {\ng(n)\n}\nfn g(n) {\nf(n + 1)", CallDepth, 8),
        ("let f = |f| f.call(f);\nf.call(f)", CallDepth, 2),
        // Strings.
        ("let s = \"abcdefgh\";\nloop {\ns += s;\n}", Size, 4),
        ("let s = \"abcdefgh\";\nloop {\ns = s + s;\n}", Size, 4),
        ("let s = \"abcdefgh\";\nloop {\ns = `${s}${s}`;\n}", Size, 4),
        ("let s = \"\";\ns.pad(1_000_000_000, \"x\");", Size, 3),
        ("let s = \"x\";\nfor i in 0..40 {\ns.replace(\"x\", \"xxxxxxxx\");\n}", Size, 4),
        ("let s = \"x\";\nloop {\ns.append(s);\n}", Size, 4),
        // Arrays.
        ("let a = [1];\nloop {\na.push(1);\n}", Size, 4),
        ("let a = [1];\nloop {\na += a;\n}", Size, 4),
        ("let a = [];\na.pad(1_000_000_000, 1);", Size, 3),
        ("let a = [[1]];\nloop {\na = [a, a];\n}", Size, 4),
        ("let b = blob(1_000_000_000, 1);\nb", Size, 2),
        ("let s = \"x,\";\nfor i in 0..14 { s += s }\ns.split(\",\")", Size, 4),
        ("let s = \"x\";\nfor i in 0..14 { s += s }\ns.to_chars()", Size, 4),
        // Maps.
        ("let m = #{};\nlet n = 0;\nloop {\nn += 1;\nm[`k${n}`] = n;\n}", Size, 6),
        ("let m = #{ a: 1 };\nloop {\nm = #{ a: m, b: m };\n}", Size, 4),
    ] {
        let error = failure(body);
        assert_eq!((error.kind, error.line), (kind, Some(line)), "{body}\n{error}");
        assert_eq!(&*error.file, "global.rhai", "{body}");
    }
}

#[test]
fn a_limit_says_how_large_it_is() {
    for (body, message) in [
        ("loop { }", "more than 100000 operations"),
        ("f()\n}\nfn f() { f()", "function calls nested deeper than 32"),
        ("let s = \"x\"; loop { s += s }", "a string longer than 65536 bytes"),
        ("let a = [1]; loop { a += a }", "an array with more than 1000 elements"),
    ] {
        assert_eq!(failure(body).message, message, "{body}");
    }
}

#[test]
fn nothing_outside_the_directory_can_be_imported() {
    let outside = directory(&[("secret.rhai", "fn way() { \"g\" }")]);
    let secret = outside.path().join("secret");
    let absolute = format!("import \"{}\" as s;\nfn route(d) {{ s::way() }}", secret.display());
    for import in [
        absolute.as_str(),
        "import \"../secret\" as s;\nfn route(d) { s::way() }",
        "import \"lib/../../secret\" as s;\nfn route(d) { s::way() }",
        "fn route(d) { import \"./secret\" as s; s::way() }",
        "fn route(d) { import \"lib/\\x2e\\x2e/secret\" as s; s::way() }",
        "fn route(d) { import \"li\" + \"b/secret\" as s; s::way() }",
        "fn route(d) { import d.header(\"x\") as s; s::way() }",
    ] {
        let problems = load(&[("global.rhai", import)]).unwrap_err();
        assert!(
            problems.iter().any(|p| p.message.contains("import") || p.message.contains("no module")),
            "{import}"
        );
    }
    let dir = directory(&[("global.rhai", "import \"lib/secret\" as s;\nfn route(d) { s::way() }")]);
    std::fs::create_dir(dir.path().join("lib")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret.rhai"), dir.path().join("lib/secret.rhai"))
        .unwrap();
    let problems = ScriptSet::load(dir.path(), &ScriptLimits::default()).unwrap_err();
    assert!(problems.iter().any(|p| p.message.ends_with("outside the scripts directory")), "{problems:?}");
}

#[test]
fn eval_is_no_way_out() {
    for script in ["fn route(d) { eval(\"1\") }", "fn route(d) { let e = eval; }"] {
        let problems = load(&[("global.rhai", script)]).unwrap_err();
        assert!(problems[0].message.contains("eval"), "{script} {problems:?}");
    }
    assert!(load(&[("global.rhai", "fn route(d) { d.eval() }")]).is_err());
    for body in ["Fn(\"eval\").call(\"1\")", "let f = Fn(\"ev\" + \"al\"); f.call(\"1\")"] {
        assert!(failure(body).message.contains("eval"), "{body}");
    }
}

#[test]
fn a_native_function_on_the_largest_values_takes_no_long_time() {
    // What cannot be interrupted is bounded by the sizes of what it works on.
    for body in [
        "let s = \"x\"; for i in 0..16 { s += s } for i in 0..20 { s.replace(\"x\", \"y\"); s.contains(\"z\"); s.index_of(\"yz\"); s.to_upper(); }",
        "let a = []; for i in 0..999 { a.push(999 - i) } for i in 0..20 { a.sort(); a.reverse(); a.dedup(); }",
        "let s = \"a\"; for i in 0..15 { s += s } s.split(\"b\"); s.crop(1, 5);",
    ] {
        let script = format!("fn route(delivery) {{\n{body}\n}}");
        let dir = directory(&[("global.rhai", &script)]);
        let limits = ScriptLimits { time_max: Duration::from_mins(1), ..ScriptLimits::default() };
        let trace = ask(&ScriptSet::load(dir.path(), &limits).unwrap(), facts());
        assert!(trace.steps[2].micros < 20_000_000, "{body}: {} µs", trace.steps[2].micros);
    }
}

#[test]
fn a_script_that_fails_harms_no_other_while_both_run() {
    let dir = directory(&[("global.rhai", "fn route(d) { \"g\" }")]);
    write(dir.path(), "account/alice.rhai", "fn route(d) { let s = \"x\"; loop { s += s } }");
    write(dir.path(), "domain/ours.example.rhai", "fn route(d) { loop { } }");
    let limits = ScriptLimits { time_max: Duration::from_mins(1), ..ScriptLimits::default() };
    let set = Arc::new(ScriptSet::load(dir.path(), &limits).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let set = set.clone();
            scope.spawn(move || {
                for _ in 0..20 {
                    let mut facts = facts();
                    match thread {
                        0 => {
                            assert!(matches!(
                                ask(&set, facts).verdict().unwrap_err().kind(),
                                ErrorKind::Size
                            ));
                        }
                        1 => {
                            facts.account = None;
                            assert!(matches!(
                                ask(&set, facts).verdict().unwrap_err().kind(),
                                ErrorKind::Operations
                            ));
                        }
                        _ => {
                            (facts.account, facts.local_sender_domain) = (None, false);
                            assert_eq!(ask(&set, facts).verdict().unwrap().transport.as_str(), "g");
                        }
                    }
                }
            });
        }
    });
}
