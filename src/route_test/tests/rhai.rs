use super::*;

const TABLE: &str = "fn route(d) {\n    if d.attempt >= 4 { log(\"late\"); return \"smarthost\"; }\n}\n";

/// Runs these tests beside a global script.
fn tests(text: &str) -> Report {
    run_files(&[("global.rhai", TABLE), ("global.test.rhai", text)])
}

/// How the only test failed.
fn failure(text: &str) -> Failure {
    let report = tests(text);
    assert_eq!((report.cases.len(), report.broken.len()), (1, 0), "{:?}", report.complaints());
    *report.cases[0].failure.clone().unwrap_or_else(|| panic!("it passed: {text}"))
}

#[test]
fn tests_in_rhai_pass() {
    let report = tests(
        r#"
        const TRANSPORTS = ["smarthost"];

        fn test_by_attempt() {
            for attempt in 1..9 {
                assert_eq(ask(delivery(#{ attempt: attempt })) == "smarthost", attempt >= 4);
            }
        }

        fn test_what_an_answer_has() {
            let answer = ask(delivery(#{ attempt: 4 }));
            assert_eq(answer, "smarthost");
            assert_eq(answer, #{ transport: "smarthost", level: "global", log: "late" });
            assert_eq([answer.transport, answer.level, answer.line], ["smarthost", "global", 2]);
            assert_eq(answer.log, ["late"]);
            assert_eq(answer.error, ());
            assert(!answer.nothing && answer != "direct" && answer != ());
            assert_eq(`${answer}`, "\"smarthost\" (global.rhai:2)");
        }

        fn test_nothing() {
            let answer = ask(delivery());
            assert(answer.nothing && answer == () && answer == "nothing");
            assert_eq(answer, ());
            assert_eq(answer.transport, ());
            assert_eq(ask(#{ attempt: 2 }), "nothing", "a map will do");
        }

        fn test_the_chain() {
            let answer = ask(delivery(#{ account: "ann" }), "chain");
            assert_eq([answer.transport, answer.level], ["direct", "default"]);
            assert_eq(answer, "direct");
        }

        fn test_facts_can_be_read() {
            let about = delivery(#{ sender: "", last: "451 4.7.1 no", header: #{ Subject: "hello" }, account: () });
            assert_eq(about.sender, "");
            assert_eq(about.last.enhanced, "4.7.1");
            assert_eq(about.header("subject"), "hello");
            assert_eq(about.account, ());
        }

        fn test_values_are_equal() {
            assert_eq(1, 1.0);
            assert_eq(#{ a: [1, #{ b: "c" }] }, #{ a: [1, #{ b: "c" }] });
            assert_eq('x', 'x');
            assert_eq(true, 1 == 1);
        }

        fn helper() { }
        "#,
    );
    assert_eq!(report.complaints(), Vec::<String>::new());
    let names: Vec<&str> = report.cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), 6);
    assert_eq!(
        (names[0], report.cases[0].line, report.cases[0].asked.as_str()),
        ("test_by_attempt", 4, "global.rhai")
    );
}

#[test]
fn a_failed_test_tells_its_place_and_what_it_asked_last() {
    let failed = failure(
        "fn test_x() {\n    let answer = ask(delivery(#{ attempt: 5 }));\n    assert_eq(answer, \"nothing\", \"late\");\n}",
    );
    assert_eq!((&*failed.file, failed.line, failed.column), ("global.test.rhai", 3, Some(5)));
    assert_eq!(failed.in_a_line(), "late: expected nothing, got \"smarthost\" (global.rhai:2)");
    assert_eq!(failed.trace[0].log, ["late"]);
    let failed =
        failure("fn test_x() { check(1); }\nfn check(n) {\n  assert(n > 1, `${n} is not enough`);\n}");
    assert_eq!((failed.line, failed.message.as_deref()), (3, Some("1 is not enough")));
    let failed = failure("fn test_x() { assert(1 == 2); }");
    assert_eq!(failed.message.as_deref(), Some("it does not hold"));
    let failed = failure("fn test_x() { assert_eq(ask(delivery()), \"direct\"); }");
    assert!(failed.hint.unwrap().contains("expect \"nothing\""));
}

#[test]
fn long_values_are_compared_line_by_line() {
    let failed = failure(
        "fn test_x() { let a = []; for n in 0..9 { a.push(`recipient number ${n}`); }\nlet b = a; b.remove(3); assert_eq(b, a); }",
    );
    let diff = failed.diff.unwrap();
    assert!(diff.contains("\n-   \"recipient number 3\",\n"), "{diff}");
    assert_eq!(diff.lines().filter(|line| line.starts_with(['+', '-'])).count(), 1, "{diff}");
    let short = failure("fn test_x() { assert_eq([1, 2], [1, \"2\"]); }");
    assert_eq!((short.in_a_line().as_str(), short.diff), ("expected [1, \"2\"], got [1, 2]", None));
}

#[test]
fn mistakes_in_tests_are_told() {
    for (body, said) in [
        ("delivery(#{ atempt: 4 })", "delivery: delivery has no key `atempt` (did you mean `attempt`?)"),
        ("delivery(#{ attempt: \"1..3\" })", "one attempt at a time"),
        ("delivery(#{ attempt: 1, last: \"451\" })", "the first attempt has none before it"),
        ("delivery(#{ size: |x| x })", "a function cannot stand here"),
        ("ask(5)", "ask wants a delivery, not a number"),
        ("ask(delivery(), \"chian\")", "did you mean \"chain\"?"),
        ("assert(5)", "assert wants true or false, not a number"),
        ("assert_eq(ask(delivery()), 5)", "`expect` cannot be a whole number"),
        ("ask(delivery()).transprot", "an answer has no property 'transprot'"),
        ("delivery().recipent", "did you mean 'recipient'?"),
        ("assert_eq(delivery(), 1)", "cannot compare a delivery"),
        ("log(\"x\")", "only route(delivery) and what it calls can use this function"),
        ("throw \"out\"", "out"),
        ("loop { }", "more than 100000 operations"),
        ("let a = []; loop { a.push(1); }", "an array with more than 1000 elements"),
        ("test_x()", "function calls nested deeper than 32"),
    ] {
        let failed = failure(&format!("fn test_x() {{ {body}; }}"));
        let words = format!("{} {}", failed.in_a_line(), failed.hint.unwrap_or_default());
        assert!(words.contains(said), "{body}: {words}");
        assert_eq!((&*failed.file, failed.line), ("global.test.rhai", 1), "{body}");
    }
}

#[test]
fn files_that_cannot_be_used_are_told() {
    for (text, said) in [
        ("fn test_x() { ", "global.test.rhai:1:"),
        ("fn helper() { }", "there is no test in this file"),
        ("fn test_x(a) { }", "global.test.rhai:1:14: test_x takes parameters"),
        ("const TRANSPORTS = \"a\";\nfn test_x() { }", "TRANSPORTS must be an array of names"),
        ("const TRANSPORTS = [\"A B\"];\nfn test_x() { }", "is not a transport name"),
        ("import \"lib/none\" as none;\nfn test_x() { }", "there is no module \"lib/none\""),
        ("log(\"x\");\nfn test_x() { }", "stands outside a function"),
    ] {
        let report = tests(text);
        assert!(!report.is_good() && report.cases.is_empty(), "{text}");
        assert!(report.complaints()[0].contains(said), "{text}: {:?}", report.complaints());
    }
}

#[test]
fn a_module_is_tested_by_calling_it() {
    let report = run_files(&[
        ("lib/names.rhai", "fn way(domain) { if in_domain(domain, \".a.test\") { \"a\" } else { \"b\" } }"),
        (
            "lib/names.test.rhai",
            "import \"lib/names\" as names;\nfn test_it() { assert_eq(names::way(\"x.a.test\"), \"a\"); }",
        ),
    ]);
    assert_eq!((report.complaints(), report.passed()), (Vec::new(), 1));
}

#[test]
fn the_scripts_of_domains_ending_in_test_are_scripts() {
    let report = run_files(&[
        ("domain/example.test.rhai", "fn route(d) { \"a\" }"),
        ("domain/example.test.test.toml", "[[case]]\nname = \"x\"\nexpect = \"a\"\n"),
        ("domain/example.test.test.rhai", "fn test_x() { assert_eq(ask(delivery()), \"a\"); }"),
    ]);
    assert_eq!((report.complaints(), report.passed()), (Vec::new(), 2));
    assert!(report.cases.iter().all(|case| case.asked == "domain/example.test.rhai"), "{report:?}");
}
