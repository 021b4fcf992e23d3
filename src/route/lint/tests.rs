//! From scripts to what is wrong with them, and to nothing where nothing is wrong.

use std::path::Path;

use super::*;
use crate::config::ScriptLimits;
use crate::route::ScriptSet;
use crate::route::tests::{directory, write};

fn around() -> Surroundings {
    Surroundings {
        transports: Some(["smarthost", "bulk"].map(str::to_owned).into()),
        accounts: Some(["ann", "billing"].map(|name| AccountName::new(name).unwrap()).into()),
        domains: Some(["ours.example"].map(|domain| Domain::parse(domain).unwrap()).into()),
    }
}

fn found_in(dir: &Path, around: &Surroundings) -> Vec<ScriptProblem> {
    match ScriptSet::check(dir, &ScriptLimits::default(), around) {
        Ok((_, problems)) | Err(problems) => problems,
    }
}

fn found(files: &[(&str, &str)]) -> Vec<String> {
    let problems = found_in(directory(files).path(), &around());
    problems.iter().map(|p| format!("{} {p}", if p.is_error() { "error" } else { "warning" })).collect()
}

/// What is found in a global script with this body; its first line is line 2.
fn in_route(body: &str) -> Vec<String> {
    found(&[("global.rhai", &format!("fn route(delivery) {{\n{body}\n}}"))])
}

/// Each body has the one problem that is expected of it.
#[track_caller]
fn each(table: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (body, expected) in table {
        let found = in_route(body);
        if found.len() != 1 || !found[0].starts_with(expected) {
            wrong.push(format!("{body}\n  found    {found:#?}\n  expected {expected}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn misspelt_properties_are_found_whatever_the_delivery_is_called() {
    each(&[
        (
            "if delivery.atempt > 1 { }",
            "error global.rhai:2:13: delivery has no property 'atempt' (did you mean 'attempt'?)",
        ),
        (
            "let d = delivery; if d.atempt > 1 { }",
            "error global.rhai:2:24: delivery has no property 'atempt'",
        ),
        (
            "if delivery.last.cod == 1 { }",
            "error global.rhai:2:18: attempt has no property 'cod' (did you mean 'code'?)",
        ),
        (
            "let l = delivery.last; if l != () && l.cod == 1 { }",
            "error global.rhai:2:40: attempt has no property 'cod'",
        ),
        (
            "for a in delivery.history { if a.cod == 1 { } }",
            "error global.rhai:2:34: attempt has no property 'cod'",
        ),
        (
            "if delivery.history.filter(|a| a.cod == 4).len() > 1 { }",
            "error global.rhai:2:34: attempt has no property 'cod'",
        ),
        ("if delivery.history[0].cod == 4 { }", "error global.rhai:2:24: attempt has no property 'cod'"),
        (
            "let f = || delivery.atempt; f.call();",
            "error global.rhai:2:21: delivery has no property 'atempt'",
        ),
        (
            "if now().hours < 6 { }",
            "error global.rhai:2:10: time has no property 'hours' (did you mean 'hour'?)",
        ),
        ("if delivery.last.at.hours < 6 { }", "error global.rhai:2:21: time has no property 'hours'"),
        ("if delivery?.last?.cod == 1 { }", "error global.rhai:2:20: attempt has no property 'cod'"),
        (
            "helper(1, delivery);\n}\nfn helper(n, d) { d.atempt",
            "error global.rhai:4:21: delivery has no property 'atempt'",
        ),
        (
            "if delivery.header == \"x\" { }",
            "error global.rhai:2:13: delivery has no property 'header' (it is a function: write delivery.header(name))",
        ),
        (
            "if delivery.recipient.domain == \"a.example\" { }",
            "error global.rhai:2:23: delivery.recipient is text, and has no property 'domain' (write delivery.recipient_domain)",
        ),
        (
            "if delivery[\"size\"] > 5 { }",
            "error global.rhai:2:12: delivery has no elements (write delivery.size for the property 'size')",
        ),
        ("delivery.size = 5;", "error global.rhai:2:9: the properties of delivery cannot be changed"),
        (
            "if delivery.history.code == 5 { }",
            "error global.rhai:2:21: delivery.history is an array, and has no property 'code' (the attempts are its elements",
        ),
        (
            "if delivery.attempt > global::PATIENC { }",
            "error global.rhai:2:31: there is no constant 'PATIENC' in this file",
        ),
    ]);
    assert_eq!(
        found(&[
            ("lib/helpers.rhai", "fn tired(mail) { mail.atempt > 3 }"),
            ("global.rhai", "import \"lib/helpers\" as h;\nfn route(x) { if h::tired(x) { \"bulk\" } }"),
        ]),
        ["error lib/helpers.rhai:1:23: delivery has no property 'atempt' (did you mean 'attempt'?)"]
    );
}

#[test]
fn unknown_functions_and_wrong_arguments_are_found() {
    each(&[
        (
            "in_domian(delivery.recipient_domain, \"a.example\");",
            "error global.rhai:2:1: there is no function 'in_domian' (did you mean 'in_domain'?)",
        ),
        (
            "if in_domain(delivery.recipient_domain) { }",
            "error global.rhai:2:4: in_domain takes 2 arguments, not 1 (write: in_domain(domain, pattern))",
        ),
        (
            "if in_domain(delivery.attempt, \"a.example\") { }",
            "error global.rhai:2:4: in_domain does not take a number and text (write: in_domain(domain, pattern))",
        ),
        (
            "if share(delivery.size, 5) { }",
            "error global.rhai:2:4: share does not take a number and a number (write: share(key, percent))",
        ),
        (
            "if share(delivery.sender, 105) { }",
            "error global.rhai:2:27: share takes 0 to 100 percent, not 105",
        ),
        ("helper(1);\n}\nfn helper(a, b) { a", "error global.rhai:2:1: helper takes 2 arguments, not 1"),
        (
            "if delivery.attempt() > 3 { }",
            "error global.rhai:2:13: delivery has no function 'attempt' ('attempt' is a property: write it without ())",
        ),
        (
            "if delivery.heder(\"x\") != () { }",
            "error global.rhai:2:13: delivery has no function 'heder' (did you mean 'header'?)",
        ),
        ("if delivery.header() != () { }", "error global.rhai:2:13: header takes 1 argument, not 0"),
        (
            "if delivery.header(\"Subject:\") != () { }",
            "error global.rhai:2:20: no header field can be called \"Subject:\" (write \"Subject\")",
        ),
        (
            "if delivery.sender_local.starts_wiht(\"a\") { }",
            "error global.rhai:2:26: there is no function 'starts_wiht' (did you mean 'starts_with'?)",
        ),
        (
            "if delivery.sender_local.starts_with(5) { }",
            "error global.rhai:2:26: 'starts_with' of text does not take a number",
        ),
        (
            "exit(\"bulk\");",
            "error global.rhai:2:1: exit() is not available in routing scripts (write: return \"name\";)",
        ),
        ("if timestamp() > 5 { }", "error global.rhai:2:4: timestamp() is not available"),
        (
            "if in_domain(delivery.recipient, \"a.example\") { }",
            "error global.rhai:2:14: delivery.recipient is an address, in_domain takes a domain (write delivery.recipient_domain)",
        ),
        (
            "if in_domain(delivery.recipient_domain, \"*.a.example\") { }",
            "error global.rhai:2:41: \"*.a.example\" is no domain: in_domain fails with it (write \".a.example\" for a.example and all below it)",
        ),
        (
            "if in_domain(\"a.example\", delivery.recipient_domain) { }",
            "warning global.rhai:2:14: the pattern is the second argument",
        ),
        ("let x = [1]; x.frobnicate();", "error global.rhai:2:16: there is no function 'frobnicate'"),
        (
            "helper(delivery)\n}\nfn helper(x) { x.account.frobnicate()",
            "error global.rhai:4:26: there is no function 'frobnicate'",
        ),
        (
            "if delivery.account { }",
            "error global.rhai:2:4: delivery.account is text, not true or false (write: delivery.account != ())",
        ),
        (
            "if delivery.attempt > 1 && delivery.size { }",
            "error global.rhai:2:28: delivery.size is a number, not true or false",
        ),
        (
            "if !delivery.attempt { }",
            "error global.rhai:2:5: delivery.attempt is a number, not true or false",
        ),
    ]);
}

#[test]
fn returned_names_that_no_transport_has_are_found_where_they_stand() {
    each(&[
        (
            "return \"smarthos\";",
            "error global.rhai:2:8: there is no transport \"smarthos\" (did you mean \"smarthost\"?)",
        ),
        (
            "if delivery.attempt > 3 { \"smarthos\" }",
            "error global.rhai:2:27: there is no transport \"smarthos\"",
        ),
        (
            "let way = \"smarthos\";\nreturn way;",
            "error global.rhai:2:11: there is no transport \"smarthos\"",
        ),
        (
            "switch delivery.attempt { 1 => \"direct\", 2 => \"smarthos\" }",
            "error global.rhai:2:47: there is no transport \"smarthos\"",
        ),
        (
            "let ways = #{ \"a.example\": \"smarthos\" };\nways[delivery.recipient_domain]",
            "error global.rhai:2:28: there is no transport \"smarthos\"",
        ),
        (
            "ways()\n}\nfn ways() { if true { return \"smarthos\"; } \"bulk\"",
            "error global.rhai:4:30: there is no transport \"smarthos\"",
        ),
        ("return \"Bulk\";", "error global.rhai:2:8: no transport can be called \"Bulk\" (write \"bulk\")"),
        ("return \"local\";", "error global.rhai:2:8: scripts cannot choose the transport \"local\""),
        (
            "return \"elsewhere\";",
            "error global.rhai:2:8: there is no transport \"elsewhere\" (add [transports.elsewhere] to the configuration first)",
        ),
        (
            "return 5;",
            "error global.rhai:2:8: route returns a number here, which is no name (return the name of a transport, or nothing",
        ),
        ("delivery.attempt > 3", "error global.rhai:2:1: route returns true or false here"),
        ("return delivery.last;", "error global.rhai:2:8: route returns an attempt here"),
        ("[\"bulk\"]", "error global.rhai:2:1: route returns an array here"),
    ]);
    // Without a configuration nobody knows which transports there are.
    let dir = directory(&[("global.rhai", "fn route(d) { return \"elsewhere\"; }")]);
    assert_eq!(found_in(dir.path(), &Surroundings::default()), []);
}

#[test]
fn comparisons_that_are_never_true_are_found() {
    each(&[
        (
            "if delivery.attempt >= \"4\" { }",
            "error global.rhai:2:24: delivery.attempt is a number, and \"4\" is text: neither is ever larger (write 4 without quotes)",
        ),
        (
            "if \"4\" == delivery.attempt { }",
            "error global.rhai:2:4: delivery.attempt is a number, and \"4\" is text: they are never equal",
        ),
        (
            "if delivery.last.code == \"451\" { }",
            "error global.rhai:2:26: delivery.last.code is a number, and \"451\" is text",
        ),
        (
            "if delivery.last.enhanced == 4.7 { }",
            "error global.rhai:2:30: delivery.last.enhanced is text, and the other side is a number: they are never equal (put the number in quotes)",
        ),
        (
            "if delivery.is_dsn == \"true\" { }",
            "error global.rhai:2:23: delivery.is_dsn is true or false, and \"true\" is text: they are never equal (write: delivery.is_dsn)",
        ),
        (
            "if delivery.recipient_domain == 5 { }",
            "error global.rhai:2:33: delivery.recipient_domain is text",
        ),
        (
            "if delivery.last == \"direct\" { }",
            "error global.rhai:2:21: delivery.last is an attempt, and \"direct\" is text",
        ),
        (
            "if delivery.attempt in [\"1\", \"2\"] { }",
            "error global.rhai:2:21: an element is text, and the other side is a number",
        ),
        (
            "switch delivery.attempt { \"4\" => \"bulk\" }",
            "error global.rhai:2:27: delivery.attempt is a number, and \"4\" is text",
        ),
        (
            "if delivery.sender == () { }",
            "warning global.rhai:2:23: delivery.sender is never () (for the null sender",
        ),
        ("if now().hour == \"6\" { }", "error global.rhai:2:18: now().hour is a number"),
        (
            "if delivery.last.at == 5 { }",
            "error global.rhai:2:24: delivery.last.at is a time, and the other side is a number",
        ),
        (
            "let limit = \"4\";\nif delivery.attempt > limit { }",
            "error global.rhai:3:21: delivery.attempt is a number, and \"4\" is text",
        ),
    ]);
}

#[test]
fn texts_in_a_form_that_the_value_never_has_are_found() {
    each(&[
        (
            "if delivery.recipient_domain == \"Example.COM\" { }",
            "error global.rhai:2:33: delivery.recipient_domain is never \"Example.COM\": domains are lower-case ASCII (A-labels) without a trailing dot (write \"example.com\")",
        ),
        (
            "if delivery.recipient_domain == \"example.com.\" { }",
            "error global.rhai:2:33: delivery.recipient_domain is never \"example.com.\": domains",
        ),
        (
            "if delivery.sender_domain != \"bücher.example\" { }",
            "error global.rhai:2:30: delivery.sender_domain is never \"bücher.example\": domains are lower-case ASCII (A-labels) without a trailing dot (write \"xn--bcher-kva.example\")",
        ),
        (
            "if delivery.recipient_domain == \".example.com\" { }",
            "error global.rhai:2:33: delivery.recipient_domain is never \".example.com\": that is a pattern, no domain (write in_domain(delivery.recipient_domain, \".example.com\") for it and all below)",
        ),
        (
            "if delivery.recipient_domain == \"a@example.com\" { }",
            "error global.rhai:2:33: delivery.recipient_domain is never \"a@example.com\": that is an address",
        ),
        (
            "switch delivery.recipient_domain {\n\"a.example\" | \"B.example\" => \"bulk\",\n_ => { }\n}",
            "error global.rhai:3:15: delivery.recipient_domain is never \"B.example\"",
        ),
        (
            "if delivery.recipient_domain in [\"a.example\", \"B.example\"] { }",
            "error global.rhai:2:47: delivery.recipient_domain is never \"B.example\"",
        ),
        (
            "let big = [\"B.example\"];\nif big.contains(delivery.recipient_domain) { }",
            "error global.rhai:2:12: delivery.recipient_domain is never \"B.example\"",
        ),
        (
            "if delivery.mx.some(|host| host == \"MX.example\") { }",
            "error global.rhai:2:36: host is never \"MX.example\"",
        ),
        (
            "if delivery.recipient_domain.ends_with(\".Example.com\") { }",
            "error global.rhai:2:40: delivery.recipient_domain.ends_with(\".Example.com\") is never true: domains are in lower case (write \".example.com\")",
        ),
        (
            "if delivery.recipient.ends_with(\"@Example.com\") { }",
            "error global.rhai:2:33: delivery.recipient.ends_with(\"@Example.com\") is never true",
        ),
        (
            "if delivery.recipient == \"ann@Example.com\" { }",
            "error global.rhai:2:26: delivery.recipient is never \"ann@Example.com\": that is not its one form (write \"ann@example.com\")",
        ),
        (
            "if delivery.recipient == \"example.com\" { }",
            "error global.rhai:2:26: delivery.recipient is never \"example.com\": that is a domain (compare delivery.recipient_domain with it)",
        ),
        (
            "if delivery.sender == \"<>\" { }",
            "error global.rhai:2:23: delivery.sender is never \"<>\": the null sender is \"\"",
        ),
        (
            "if delivery.last.stage == \"recipient\" { }",
            "error global.rhai:2:27: delivery.last.stage is never \"recipient\" (it is one of dns, connect",
        ),
        (
            "if delivery.last.stage == \"conect\" { }",
            "error global.rhai:2:27: delivery.last.stage is never \"conect\" (did you mean \"connect\"?)",
        ),
        (
            "if delivery.account == \"Ann\" { }",
            "error global.rhai:2:24: delivery.account is never \"Ann\": no account can be called so (write \"ann\")",
        ),
        (
            "if delivery.account == \"biling\" { }",
            "warning global.rhai:2:24: there is no account \"biling\" (did you mean \"billing\"?)",
        ),
        (
            "if delivery.last.transport == \"smarthos\" { }",
            "warning global.rhai:2:31: there is no transport \"smarthos\" (did you mean \"smarthost\"?)",
        ),
    ]);
}

#[test]
fn code_for_nothing_is_found() {
    for (body, expected) in [
        (
            "return \"bulk\";\nlog(\"x\");",
            "warning global.rhai:3:1: no path reaches this: line 2 leaves before it",
        ),
        (
            "if delivery.attempt > 1 { return \"bulk\"; } else { throw \"x\"; }\nlog(\"x\");",
            "warning global.rhai:3:1: no path reaches this",
        ),
        ("loop { log(\"x\"); }\nreturn \"bulk\";", "warning global.rhai:3:1: no path reaches this"),
        ("for x in delivery.mx { break; log(x); }", "warning global.rhai:2:31: no path reaches this"),
        (
            "switch delivery.attempt { 1 => { return \"bulk\"; } _ => { return; } }\nlog(\"x\");",
            "warning global.rhai:3:1: no path reaches this",
        ),
        (
            "let way = \"bulk\";",
            "warning global.rhai:2:5: the variable 'way' is never used (remove it, or call it '_way')",
        ),
        ("import \"lib/x\" as x;", "error global.rhai:2:8: there is no module"),
    ] {
        let found = in_route(body);
        assert!(found.iter().any(|found| found.starts_with(expected)), "{body}\n{found:#?}");
    }
    assert_eq!(
        found(&[("global.rhai", "import \"lib/x\" as x;\nfn route(d) { }"), ("lib/x.rhai", "fn f() { 1 }")]),
        ["warning global.rhai:1:1: nothing uses the module 'x' (remove the import)"]
    );
}

#[test]
fn scripts_that_nobody_asks_are_found() {
    let nothing = "fn route(d) { }";
    assert_eq!(
        found(&[
            ("account/bilinng.rhai", nothing),
            ("account/ann.rhai", nothing),
            ("domain/our.example.rhai", nothing),
            ("domain/Ours.Example.rhai", nothing),
        ]),
        [
            "warning account/bilinng.rhai: is never asked: there is no account bilinng (did you mean billing?)",
            "warning domain/our.example.rhai: is never asked: our.example is not one of our domains (did you mean ours.example?)",
        ]
    );
}

#[test]
fn all_files_are_looked_at_even_when_one_does_not_compile() {
    let found = found(&[
        ("account/ann.rhai", "fn route(d) { if }"),
        ("global.rhai", "fn route(d) { if d.atempt > 1 { return \"bulc\"; } }"),
    ]);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("error account/ann.rhai:1:18"), "{found:#?}");
}

/// What people write and mean: nothing is to be found in it.
#[test]
fn right_scripts_are_clean() {
    let mut wrong = Vec::new();
    for body in [
        "",
        "return;",
        "\"\"",
        "()",
        "if delivery.attempt >= 4 { return \"smarthost\"; }",
        "if delivery.last != () && delivery.last.code == 451 { \"bulk\" } else { \"direct\" }",
        "let way = \"none\"; if delivery.attempt > 3 { way = \"bulk\"; } if way != \"none\" { return way; }",
        "let way = if delivery.attempt > 3 { \"bulk\" } else { \"none\" }; if way != \"none\" { return way; }",
        "let w = helper(); if w != \"none\" { return w; }\n}\nfn helper() { \"none\"",
        "const NAMES = #{ smart: \"smarthost\", note: \"some words\" };\nreturn NAMES.smart;",
        "let n = 0; for a in delivery.history { if a.stage == \"connect\" { n += 1; } } if n > 2 { return \"bulk\"; }",
        "let seen = []; for a in delivery.history { seen.push(a.transport); } if \"smarthost\" in seen { return; }",
        "let m = #{}; m.f = |x| x + 1; if m.f(1) == 2 { \"bulk\" }",
        "let m = #{ a: 1 }; if m.b == () { \"bulk\" }",
        "let x = delivery.header(\"Subject\") ?? \"\"; if x.contains(\"News\") { \"bulk\" }",
        "try { if delivery.mx.len() == 0 { return \"bulk\"; } } catch (e) { log(e); }",
        "switch delivery.recipient_domain { \"a.example\" | \"b.example\" if delivery.attempt > 2 => \"bulk\", \"c.example\" => { return; } _ => () }",
        "switch delivery.attempt { 5 => \"bulk\", 1..3 => \"direct\" }",
        "switch [delivery.attempt, #{ a: `x${1 + {2}}` }] { [1, #{ a: \"x3\" }] => \"bulk\" }",
        "log(`${if delivery.attempt > 1 { \"a\" } else { \"b\" }} {`); switch delivery.sender_domain { \"\" => \"bulk\" }",
        "if delivery.recipient_domain == \"[192.0.2.1]\" { \"bulk\" }",
        "if delivery.recipient_domain.sub_string(-3) == \".DE\".to_lower() { \"bulk\" }",
        "if delivery.account in [\"ann\", \"billing\"] { \"bulk\" }",
        "if delivery.sender == \"\" || delivery.sender_domain == \"\" { return; }",
        "if type_of(delivery.last) == \"()\" { return; }",
        "let f = Fn(\"helper\"); if f.call(\"x\") { \"bulk\" }\n}\nfn helper(x) { x == 5",
        "if double(2) == 4 && double(\"a\") == \"aa\" { \"bulk\" }\n}\nfn double(x) { x + x",
        "if delivery.tired() { \"bulk\" }\n}\nfn tired() { this.attempt > 3",
        "let counts = #{}; for a in delivery.history { let k = a.transport ?? \"none\"; counts[k] = (counts[k] ?? 0) + 1; } if (counts[\"direct\"] ?? 0) > 3 { \"bulk\" }",
        "let i = 0; while i < 3 { i += 1; if i == 2 { continue; } } if i == 3 { \"bulk\" }",
        "let x = loop { break \"bulk\"; }; x",
        "let d = delivery; d = 5; if d.foo == 5 { }",
        "if false { return \"bulk\"; }",
        "let _unused = 5;",
        "if delivery.age > 1.5 * 3600 || delivery.size == 10.0 { \"bulk\" }",
        "if now() - delivery.last.at > 600 && now() > delivery.last.at { \"bulk\" }",
        "[\"smarthost\", \"bulk\"][delivery.attempt % 2]",
        "if delivery.history.map(|a| a.transport).contains(\"direct\") { \"bulk\" }",
        "if delivery.history.some(|a, i| i > 2 && a.code >= 500) { \"bulk\" }",
        "if share(`${delivery.sender}-${delivery.recipient}`, 12.5) { \"bulk\" }",
        "helper(delivery, 3)\n}\nfn helper(d, n) { if n == 0 { return \"bulk\"; } helper(d, n - 1)",
        "throw `no way for ${delivery.recipient}`;",
    ] {
        let found = in_route(body);
        if !found.is_empty() {
            wrong.push(format!("{body}\n  {found:#?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn consts_and_modules_are_followed() {
    assert_eq!(
        found(&[
            (
                "lib/names.rhai",
                "const WAY = \"bulk\";\nfn way(d) { if d.last == () { return global::WAY; } \"smarthos\" }"
            ),
            (
                "global.rhai",
                "import \"lib/names\" as names;\nconst BIG = [\"a.example\", \"B.example\"];\nfn route(d) {\n  if d.recipient_domain in global::BIG { return names::way(d); }\n}",
            ),
        ]),
        [
            "error global.rhai:2:27: d.recipient_domain is never \"B.example\": domains are lower-case ASCII (A-labels) without a trailing dot (write \"b.example\")",
            "error lib/names.rhai:2:53: there is no transport \"smarthos\" (did you mean \"smarthost\"?)",
        ]
    );
}

#[test]
fn a_misspelt_module_function_is_told_once() {
    let dir = directory(&[("lib/a.rhai", "fn way(d) { d.size }")]);
    write(dir.path(), "global.rhai", "import \"lib/a\" as a;\nfn route(d) { if a::wai(d) > 5 { \"bulk\" } }");
    let found = found_in(dir.path(), &around());
    assert_eq!(found.len(), 1, "{found:#?}");
}
