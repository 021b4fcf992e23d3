//! From a script set to a verdict: each test writes a directory, loads it, asks it, and reads the trace.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::address::Mailbox;
use crate::attempt::{Attempt, Decision, Level};
use crate::config::ScriptLimits;
use crate::envelope::ReversePath;
use crate::names::{AccountName, TransportName};
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};

pub(super) fn write(dir: &Path, file: &str, text: &str) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub(super) fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        write(dir.path(), file, text);
    }
    dir
}

pub(super) fn load(files: &[(&str, &str)]) -> Result<ScriptSet, Vec<ScriptProblem>> {
    ScriptSet::load(directory(files).path(), &ScriptLimits::default())
}

/// Mail that `alice` sends from a domain of ours.
pub(super) fn facts() -> Facts {
    let sender = ReversePath::Mailbox(Mailbox::parse("Alice@ours.example").unwrap());
    let recipient = Mailbox::parse("bob@far.example").unwrap();
    // A Sunday.
    let mut facts = Facts::new(sender, recipient, "2026-11-22T13:45:10Z".parse().unwrap());
    facts.account = Some(AccountName::new("alice").unwrap());
    facts.local_sender_domain = true;
    facts
}

struct Transports;

impl KnownTransports for Transports {
    fn knows(&self, name: &str) -> bool {
        matches!(name, "a" | "d" | "g" | "smarthost")
    }
    fn names(&self) -> Vec<String> {
        ["a", "d", "g", "smarthost"].map(str::to_owned).to_vec()
    }
}

pub(super) fn ask(set: &ScriptSet, facts: Facts) -> Trace {
    set.decide(&Arc::new(facts), &Transports)
}

/// What a global script with this body decides.
fn global(body: &str, facts: Facts) -> Trace {
    let script = format!("fn route(delivery) {{\n{body}\n}}");
    // Time enough on a busy machine: other limits are to be reached first.
    let limits = ScriptLimits { time_max: Duration::from_mins(1), ..ScriptLimits::default() };
    ask(&ScriptSet::load(directory(&[("global.rhai", &script)]).path(), &limits).unwrap(), facts)
}

pub(super) fn transport(trace: &Trace) -> String {
    trace.verdict().unwrap().transport.to_string()
}

fn error(trace: &Trace) -> ScriptError {
    *trace.verdict().unwrap_err().error
}

pub(super) const A: &str = r#"fn route(delivery) { return "a"; }"#;
pub(super) const D: &str = r#"fn route(delivery) { return "d"; }"#;
pub(super) const G: &str = r#"fn route(delivery) { return "g"; }"#;
pub(super) const NOTHING: &str = "fn route(delivery) { }";
const DIRECT: &str = r#"fn route(delivery) { return "direct"; }"#;
const EMPTY: &str = r#"fn route(delivery) { "" }"#;
const WRONG: &str = "fn route(delivery) { throw \"no\"; }";

#[test]
fn levels_are_asked_in_order_and_the_first_name_decides() {
    // account, domain, global script; who decides, and which way
    for (account, domain, global, level, way) in [
        (None, None, None, Level::Default, "direct"),
        (None, None, Some(G), Level::Global, "g"),
        (None, Some(D), Some(G), Level::Domain, "d"),
        (Some(A), Some(D), Some(G), Level::Account, "a"),
        (Some(NOTHING), Some(D), Some(G), Level::Domain, "d"),
        (Some(NOTHING), Some(NOTHING), Some(G), Level::Global, "g"),
        (Some(NOTHING), Some(NOTHING), Some(NOTHING), Level::Default, "direct"),
        (Some(NOTHING), None, Some(G), Level::Global, "g"),
        (Some(DIRECT), Some(D), Some(G), Level::Account, "direct"),
        (Some(EMPTY), Some(D), Some(G), Level::Account, "direct"),
        (None, Some(EMPTY), Some(G), Level::Domain, "direct"),
        (Some(NOTHING), None, Some(DIRECT), Level::Global, "direct"),
        // What a later level would have done wrong does not matter.
        (Some(A), Some(WRONG), Some(WRONG), Level::Account, "a"),
    ] {
        let scripts =
            [("account/alice.rhai", account), ("domain/ours.example.rhai", domain), ("global.rhai", global)];
        let files: Vec<_> = scripts.iter().filter_map(|(file, text)| Some((*file, (*text)?))).collect();
        let decision = ask(&load(&files).unwrap(), facts()).verdict().unwrap();
        assert_eq!((decision.level, decision.transport.as_str()), (level, way), "{files:?}");
        assert_eq!(decision.script.is_some(), level != Level::Default, "{files:?}");
    }
}

#[test]
fn an_error_at_any_level_is_an_error_and_no_further_level_is_asked() {
    for (account, domain, global, level) in [
        (WRONG, D, G, Level::Account),
        (NOTHING, WRONG, G, Level::Domain),
        (NOTHING, NOTHING, WRONG, Level::Global),
    ] {
        let files =
            [("account/alice.rhai", account), ("domain/ours.example.rhai", domain), ("global.rhai", global)];
        let trace = ask(&load(&files).unwrap(), facts());
        let error = trace.verdict().unwrap_err();
        assert_eq!((error.level, error.kind()), (level, ErrorKind::Script));
        assert_eq!(error.error.message, "no");
        assert_eq!((error.error.line, error.error.file.as_ref()), (Some(1), error.script.file.as_ref()));
        let later = trace.steps.iter().skip_while(|step| step.level != level).skip(1);
        assert!(later.into_iter().all(|step| step.answer == Answer::NotAsked(NotAsked::Failed)), "{trace}");
    }
}

#[test]
fn levels_that_do_not_exist_for_a_message_are_not_asked() {
    let files = [("account/alice.rhai", A), ("domain/ours.example.rhai", D), ("global.rhai", G)];
    let set = load(&files).unwrap();
    let no_account = Facts { account: None, ..facts() };
    let null_sender = Facts { sender: ReversePath::Null, account: None, is_dsn: true, ..facts() };
    let foreign = Facts { account: None, local_sender_domain: false, ..facts() };
    let elsewhere = Facts { account: Some(AccountName::new("bob").unwrap()), ..facts() };
    let why =
        |facts: &Facts| ask(&set, facts.clone()).steps.into_iter().map(|s| s.answer).collect::<Vec<_>>();
    for (facts, way, account, domain) in [
        (no_account, "d", Answer::NotAsked(NotAsked::NoAccount), None),
        (
            null_sender,
            "g",
            Answer::NotAsked(NotAsked::NoAccount),
            Some(Answer::NotAsked(NotAsked::NullSender)),
        ),
        (
            foreign,
            "g",
            Answer::NotAsked(NotAsked::NoAccount),
            Some(Answer::NotAsked(NotAsked::ForeignSenderDomain)),
        ),
        (elsewhere, "d", Answer::NoScript, None),
    ] {
        assert_eq!(transport(&ask(&set, facts.clone())), way);
        let answers = why(&facts);
        assert_eq!(answers[0], account);
        assert!(domain.is_none_or(|domain| answers[1] == domain), "{answers:?}");
    }
}

#[test]
fn the_decision_says_where_it_was_made() {
    let script =
        "fn route(delivery) {\n  log(\"one\");\n  if delivery.attempt == 1 {\n    return \"g\";\n  }\n}";
    let set =
        load(&[("global.rhai", script), ("account/alice.rhai", "fn route(d) { log(`two ${d.size}`); }")])
            .unwrap();
    let decision = ask(&set, facts()).verdict().unwrap();
    let place = decision.script.unwrap();
    assert_eq!((place.file.as_str(), place.line), ("global.rhai", Some(4)));
    assert_eq!(place.hash, source::content_hash(script.as_bytes()).as_ref());
    assert_eq!(decision.log, ["two 1000", "one"]);
}

#[test]
fn the_line_of_the_return_is_known_however_the_name_came_about() {
    for (body, line) in [
        // Literals, equal ones too.
        ("if delivery.attempt > 5 { return \"g\"; }\nreturn \"g\";", Some(3)),
        ("if delivery.attempt < 5 { return \"g\"; }\nreturn \"g\";", Some(2)),
        // The value of the last statement.
        ("if delivery.attempt > 5 {\n\"a\"\n} else {\n\"g\"\n}", Some(5)),
        ("switch delivery.attempt {\n0 => \"a\",\n1 => \"g\",\n_ => \"d\"\n}", Some(4)),
        ("switch delivery.attempt {\n0 => \"a\",\n1 => { return \"g\"; }\n_ => \"d\"\n}", Some(4)),
        // One computed value.
        ("let way = \"g\";\nif delivery.attempt > 5 { return \"a\"; }\nreturn way;", Some(4)),
        ("let ways = #{ \"far.example\": \"g\" };\nways[delivery.recipient_domain]", Some(3)),
        // Several computed values.
        (
            "let x = \"g\";\nif delivery.attempt > 5 {\nreturn x;\n}\nif delivery.attempt == 1 {\nreturn x;\n}\nx",
            Some(7),
        ),
        ("let x = \"g\";\nif delivery.attempt > 5 {\nreturn x;\n}\n\nx", Some(7)),
        ("let x = \"g\";\nif delivery.attempt > 5 {\nreturn x;\n}\nx.to_lower()", Some(6)),
        ("for x in [\"g\", \"a\"] {\nif x == \"g\" { return x; }\nif x == \"a\" { return x; }\n}", Some(3)),
        ("try {\nthrow 1;\n} catch {\nreturn \"g\";\n}", Some(5)),
        ("if delivery.attempt > 5 { return \"\"; }\nreturn \"\";", Some(3)),
        ("return if delivery.attempt > 5 {\n\"a\"\n} else {\n\"g\"\n};", Some(2)),
        ("helper()\n}\nfn helper() {\nreturn \"g\";", Some(2)),
    ] {
        let trace = global(body, facts());
        let place = trace.verdict().unwrap_or_else(|e| panic!("{body}: {e}")).script.unwrap();
        assert_eq!(place.line, line, "{body}");
    }
}

#[test]
fn an_explanation_has_the_line_of_a_return_without_a_value_too() {
    let set = load(&[(
        "global.rhai",
        "fn route(delivery) {\n  log(\"once\");\n  if delivery.attempt == 1 { return; }\n}",
    )]);
    let trace = set.unwrap().explain(&Arc::new(facts()), &Transports);
    assert_eq!(trace.steps[2].answer, Answer::Nothing { line: Some(3) });
    assert_eq!(trace.verdict().unwrap().log, ["once"]);
    let text = trace.to_string();
    for part in [
        "account  no script",
        "global.rhai:3: returned nothing",
        "log: once",
        "=> direct (no script decided)",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_trace_survives_being_written_down() {
    for body in ["return \"g\";", "return 1;", "log(\"x\");"] {
        let trace = global(body, facts());
        let text = serde_json::to_string(&trace).unwrap();
        assert_eq!(serde_json::from_str::<Trace>(&text).unwrap(), trace, "{text}");
    }
}

#[test]
fn every_kind_of_failure_is_told_apart_and_has_its_place() {
    use ErrorKind::{CallDepth, NotKnown, Operations, ReturnType, Script, Size, UnknownTransport};
    for (body, kind, line, message) in [
        (
            "\nif delivery.atempt > 1 { }",
            Script,
            3,
            "delivery has no property 'atempt': did you mean 'attempt'?",
        ),
        ("delivery.last.code", Script, 2, ""),
        ("delivery.tag", Script, 2, "delivery has no property 'tag'"),
        ("delivery[\"size\"]", Script, 2, "write delivery.size"),
        ("delivery.size = 5;", Script, 2, ""),
        ("\n\nin_domian(\"a\", \"b\")", Script, 4, "Function not found: in_domian"),
        ("in_domain(1, \"b\")", Script, 2, "Function not found: in_domain"),
        ("in_domain(\"a\", \"b c\")", Script, 2, "\"b c\" is not a domain"),
        ("share(\"a\", 101)", Script, 2, "0 to 100"),
        ("delivery.mx", NotKnown, 2, "no MX answer for far.example"),
        ("throw \"because\";", Script, 2, "because"),
        ("1 / 0", Script, 2, ""),
        ("[1][5]", Script, 2, ""),
        ("now().hours", Script, 2, "time has no property 'hours': did you mean 'hour'?"),
        ("exit(\"g\")", Script, 2, "exit() is not available"),
        ("sleep(1)", Script, 2, "sleep() is not available"),
        ("timestamp()", Script, 2, "timestamp() is not available"),
        ("\nhelper()\n}\nfn helper() {\n\nnope()", Script, 7, "Function not found: nope"),
        ("\nloop { }", Operations, 3, "more than 100000 operations"),
        ("let x = 0;\nwhile true {\nx += 1;\n}", Operations, 4, "more than 100000 operations"),
        (
            "let m = #{};\nlet f = || m.len();\nlet n = 0;\nloop {\nn += 1;\nm[`k${n}`] = f.call();\n}",
            Size,
            3,
            "a map",
        ),
        ("let e = \"eval\";\nFn(e).call(\"1\")", Script, 3, "'eval' is a reserved keyword"),
        ("deep(1)\n}\nfn deep(n) {\ndeep(n + 1)", CallDepth, 5, "deeper than 32"),
        ("let s = \"abcdefgh\";\nloop {\ns += s;\n}", Size, 4, "a string longer than 65536 bytes"),
        ("let a = [1];\nloop {\na.push(1);\n}", Size, 4, "an array with more than 1000 elements"),
        ("let a = [1];\nloop {\na += a;\n}", Size, 4, "an array with more than 1000 elements"),
        (
            "let m = #{};\nlet n = 0;\nloop {\nn += 1;\nm[`k${n}`] = n;\n}",
            Size,
            6,
            "a map with more than 1000 entries",
        ),
        ("let s = \"\";\ns.pad(1000000000, \"x\");\ns", Size, 3, "a string longer"),
        ("let b = blob(1000000000, 1);\nb", Size, 2, "an array with more"),
        ("let x = 1;\nreturn x;", ReturnType, 3, "route returned a number"),
        ("return true;", ReturnType, 2, "true or false"),
        ("return [\"g\"];", ReturnType, 2, "an array"),
        ("delivery", ReturnType, 2, "a delivery"),
        ("return 'g';", ReturnType, 2, "a char"),
        ("\nreturn \"smarthos\";", UnknownTransport, 3, "there is no transport \"smarthos\""),
        ("return \"G\";", UnknownTransport, 2, "there is no transport \"G\""),
        ("return \"local\";", UnknownTransport, 2, "there is no transport \"local\""),
        ("return \" \";", UnknownTransport, 2, "there is no transport \" \""),
    ] {
        let trace = global(body, facts());
        let error = trace.verdict().expect_err(body);
        assert_eq!((error.level, error.kind()), (Level::Global, kind), "{body}: {error}");
        let error = error.error;
        assert_eq!((error.file.as_ref(), error.line), ("global.rhai", Some(line)), "{body}: {error}");
        assert!(error.message.contains(message), "{body}: {error}");
        assert!(!error.message.contains("(line"), "{body}: {error}");
    }
}

#[test]
fn an_error_hints_at_what_was_meant() {
    for (body, hint) in [
        ("return \"smarthos\";", "did you mean \"smarthost\"?"),
        ("return \"Direct\";", "did you mean \"direct\"?"),
        ("in_domian(\"a\", \"b\")", "did you mean in_domain(domain, pattern)?"),
        ("in_domain(1, \"b\")", "write: in_domain(domain, pattern)"),
        ("delivery.last.code", "the value is (): test for that first, as in: if x != () { ... }"),
        ("delivery.heder(\"a\")", "did you mean header(name)?"),
    ] {
        assert_eq!(error(&global(body, facts())).hint.as_deref(), Some(hint), "{body}");
    }
}

#[test]
fn wall_time_is_limited() {
    let limits = ScriptLimits {
        time_max: Duration::from_millis(5),
        operations_max: u64::MAX,
        ..ScriptLimits::default()
    };
    let dir = directory(&[("global.rhai", "fn route(delivery) {\n\n  loop { }\n}")]);
    let error = error(&ask(&ScriptSet::load(dir.path(), &limits).unwrap(), facts()));
    assert_eq!((error.kind, error.line), (ErrorKind::Time, Some(3)));
    assert_eq!(error.message, "took longer than 5 ms");
}

#[test]
fn an_error_in_a_module_names_the_module() {
    let set = load(&[
        (
            "lib/helpers.rhai",
            "fn fine() { \"g\" }\n\n\nfn bad(delivery) { delivery.atempt }\nfn endless() {\n loop { }\n}",
        ),
        (
            "global.rhai",
            "import \"lib/helpers\" as helpers;\nfn route(delivery) {\n  helpers::bad(delivery)\n}",
        ),
        (
            "account/alice.rhai",
            "import \"lib/helpers\" as h;\nfn route(d) { if d.attempt == 2 { return h::endless(); } }",
        ),
    ]);
    let set = set.unwrap();
    let bad = error(&ask(&set, facts()));
    assert_eq!((bad.file.as_ref(), bad.line), ("lib/helpers.rhai", Some(4)), "{bad}");
    let endless = error(&ask(&set, Facts { attempt: 2, ..facts() }));
    assert_eq!((endless.file.as_ref(), endless.line), ("lib/helpers.rhai", Some(6)), "{endless}");
}

#[test]
fn modules_and_constants_are_seen_in_functions() {
    let set = load(&[
        (
            "lib/names.rhai",
            "import \"lib/sub/more\" as more;\nconst WAY = \"g\";\nfn way() { more::same(global::WAY) }",
        ),
        ("lib/sub/more.rhai", "fn same(x) { x }"),
        (
            "global.rhai",
            "import \"lib/names\" as names;\nconst LIMIT = 3;\nfn route(delivery) {\n  if delivery.attempt < global::LIMIT { return names::way(); }\n}",
        ),
        (
            "account/alice.rhai",
            "fn route(delivery) { import \"lib/names\" as n; if delivery.attempt == 2 { n::way() } }",
        ),
    ]);
    let set = set.unwrap();
    assert_eq!(transport(&ask(&set, facts())), "g");
    assert_eq!(transport(&ask(&set, Facts { attempt: 3, ..facts() })), "direct");
    assert_eq!(ask(&set, Facts { attempt: 2, ..facts() }).verdict().unwrap().level, Level::Account);
}

#[test]
fn no_state_is_kept_between_calls_and_threads_do_not_meet() {
    let script = "const SEEN = [];\nfn route(delivery) {\n let n = 0;\n while n < 200 { n += 1; }\n log(delivery.recipient);\n if global::SEEN.len() > 0 { throw \"state\" }\n \"g\"\n}";
    let set = Arc::new(load(&[("global.rhai", script)]).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let set = &set;
            scope.spawn(move || {
                for n in 0..50 {
                    let recipient = Mailbox::parse(&format!("u{n}@t{thread}.example")).unwrap();
                    let trace = ask(set, Facts { recipient: recipient.clone(), ..facts() });
                    assert_eq!(trace.verdict().unwrap().log, [recipient.to_string()]);
                }
            });
        }
    });
}

#[test]
fn mx_is_wanted_only_for_scripts_that_read_it() {
    let reads = "fn route(d) { if \"mx.example\" in d.mx { \"g\" } }";
    for (files, wanted) in [
        (vec![("global.rhai", G)], false),
        (vec![("global.rhai", reads)], true),
        (vec![("account/alice.rhai", reads)], true),
        (vec![("account/bob.rhai", reads)], false),
        (vec![("domain/far.example.rhai", reads)], false),
        (
            vec![
                ("lib/a.rhai", "import \"lib/b\" as b; fn f(d) { b::f(d) }"),
                ("lib/b.rhai", "fn f(d) { d.mx }"),
                ("global.rhai", "import \"lib/a\" as a; fn route(d) { a::f(d); }"),
            ],
            true,
        ),
        (vec![("lib/b.rhai", "fn f(d) { d.mx }"), ("global.rhai", G)], false),
        (vec![("global.rhai", "fn route(d) { let f = |x| x.mx; f.call(d); }")], true),
    ] {
        assert_eq!(load(&files).unwrap().wants_mx(&facts()), wanted, "{files:?}");
    }
    let known = Facts { mx: Some(vec!["mx.example".into()]), ..facts() };
    let set = load(&[("global.rhai", reads)]).unwrap();
    assert_eq!(transport(&ask(&set, known)), "g");
    assert_eq!(ask(&set, facts()).verdict().unwrap_err().kind(), ErrorKind::NotKnown);
}

fn previous_attempt() -> Attempt {
    let mut decision = Decision::without_script(Level::Global, TransportName::new("smarthost").unwrap());
    decision.micros = 5;
    Attempt {
        number: 1,
        at: "2026-11-22T13:00:00Z".parse().unwrap(),
        decision: Some(decision),
        outcome: Some(Outcome {
            verdict: Verdict::Temporary,
            stage: Stage::Rcpt,
            host: Some("mx.far.example".into()),
            ip: "192.0.2.7".parse().ok(),
            tls: Some("TLSv1.3 X".into()),
            code: Some(451),
            enhanced: Some(EnhancedCode::new(4, 7, 1)),
            text: "greylisted".into(),
            dsn_passed_on: false,
        }),
        ended: None,
    }
}

#[test]
fn every_property_has_the_value_that_the_contract_says() {
    let lost = Attempt { decision: None, outcome: None, ..previous_attempt() };
    let whole = Facts {
        attempt: 3,
        age: Duration::from_millis(61_500),
        expires_in: Duration::from_secs(100),
        message_id: Some("id@x".into()),
        smtputf8: true,
        header: Bytes::from_static(b"Subject: Hi\r\n there\r\n\r\n"),
        mx: Some(vec!["mx1".into(), "mx2".into()]),
        history: Arc::new([lost, previous_attempt()]),
        ..facts()
    };
    let bare = Facts { sender: ReversePath::Null, account: None, is_dsn: true, require_tls: true, ..facts() };
    for (facts, condition) in [
        (&whole, "delivery.attempt == 3"),
        (&whole, "delivery.account == \"alice\""),
        (&whole, "delivery.sender == \"Alice@ours.example\""),
        (&whole, "delivery.sender_local == \"Alice\" && delivery.sender_domain == \"ours.example\""),
        (&whole, "delivery.recipient == \"bob@far.example\""),
        (&whole, "delivery.recipient_local == \"bob\" && delivery.recipient_domain == \"far.example\""),
        (&whole, "delivery.size == 1000 && delivery.age == 61 && delivery.expires_in == 100"),
        (
            &whole,
            "delivery.message_id == \"id@x\" && !delivery.is_dsn && delivery.smtputf8 && !delivery.require_tls",
        ),
        (&whole, "delivery.mx == [\"mx1\", \"mx2\"] && \"mx2\" in delivery.mx"),
        (&whole, "delivery.header(\"subject\") == \"Hi there\" && delivery.header(\"x\") == ()"),
        (&whole, "delivery.history.len() == 2 && delivery.last.transport == delivery.history[1].transport"),
        (&whole, "delivery.last.transport == \"smarthost\" && delivery.last.level == \"global\""),
        (&whole, "delivery.last.host == \"mx.far.example\" && delivery.last.ip == \"192.0.2.7\""),
        (&whole, "delivery.last.tls == \"TLSv1.3 X\" && delivery.last.stage == \"rcpt\""),
        (
            &whole,
            "delivery.last.code == 451 && delivery.last.enhanced == \"4.7.1\" && delivery.last.text == \"greylisted\"",
        ),
        (&whole, "now() - delivery.last.at == 2710 && delivery.last.at < now()"),
        (
            &whole,
            "let lost = delivery.history[0]; lost.transport == () && lost.code == () && lost.text == () && lost.stage == ()",
        ),
        (
            &whole,
            "let lost = delivery.history[0]; lost.level == () && lost.host == () && lost.ip == () && lost.tls == () && lost.enhanced == ()",
        ),
        (
            &whole,
            "let n = now(); [n.year, n.month, n.day, n.hour, n.minute, n.second] == [2026, 11, 22, 13, 45, 10]",
        ),
        (&whole, "now().weekday == 7 && now().unix == 1795355110"),
        (&whole, "`${now()}` == \"2026-11-22T13:45:10Z\""),
        (&whole, "delivery.history.filter(|a| a.code == 451).len() == 1"),
        (&bare, "delivery.sender == \"\" && delivery.sender_local == \"\" && delivery.sender_domain == \"\""),
        (&bare, "!in_domain(delivery.sender_domain, \".example\")"),
        (&bare, "delivery.account == () && delivery.message_id == () && delivery.last == ()"),
        (
            &bare,
            "delivery.history.is_empty() && delivery.is_dsn && delivery.require_tls && !delivery.smtputf8",
        ),
    ] {
        let (before, condition) = condition.rsplit_once("; ").unwrap_or(("", condition));
        let trace = global(&format!("{before};\nif {condition} {{ \"g\" }}"), facts.clone());
        assert_eq!(transport(&trace), "g", "{condition}\n{trace}");
    }
}

#[test]
fn what_is_logged_is_bounded_and_stays_one_line() {
    let limits = ScriptLimits { log_lines_max: 2, ..ScriptLimits::default() };
    let script = "fn route(d) { log(\"a\\nb\\x1b[0m\"); let s = \"\"; s.pad(600, \"é\"); log(s); log(3); log(2.5); log(d.account); }";
    let dir = directory(&[("global.rhai", script)]);
    let log = ask(&ScriptSet::load(dir.path(), &limits).unwrap(), facts()).verdict().unwrap().log;
    assert_eq!(log[0], "a b [0m");
    assert_eq!((log[1].len(), log[1].ends_with('…')), (503, true));
    assert_eq!((log.len(), log[2].as_str()), (3, "(3 more lines were not kept)"));
    let small =
        global("log(3); log(2.5); log(()); log([1, \"x\"]); log(now());", facts()).verdict().unwrap().log;
    assert_eq!(small, ["3", "2.5", "", "[1, \"x\"]", "2026-11-22T13:45:10Z"]);
}

#[test]
fn a_header_that_is_too_long_for_scripts_is_cut() {
    let mut header = b"X: ".to_vec();
    header.extend_from_slice("é".repeat(70_000).as_bytes());
    let facts = Facts { header: header.into(), ..facts() };
    assert_eq!(transport(&global("if delivery.header(\"x\").bytes == 65536 { \"g\" }", facts)), "g");
}

#[test]
fn of_a_message_that_is_gone_some_header_fields_are_known_and_the_others_are_an_error() {
    let script = "import \"lib/news\" as news;\nfn route(d) { if d.header(\"List-Id\") == () && !news::bulk(d) { \"g\" } }";
    let module = "fn bulk(d) { d.header(\"Precedence\") == \"bulk\" || header(d, \"X-A\") == \"1\" }";
    let set = load(&[("global.rhai", script), ("lib/news.rhai", module)]).unwrap();
    let asked: Vec<&str> = set.header_fields().iter().map(String::as_str).collect();
    assert_eq!(asked, ["list-id", "precedence", "x-a"], "what the history is to keep");

    let kept = [("list-id", None), ("precedence", Some("normal")), ("message-id", Some("<7@far.example>"))];
    let kept: BTreeMap<_, _> = kept.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).into();
    let facts = Facts { kept_header: Some(Arc::new(kept)), ..facts() };
    let error = ask(&set, facts.clone()).verdict().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKnown);
    assert_eq!((&*error.error.file, error.error.line), ("lib/news.rhai", Some(1)), "{error}");
    assert!(error.error.message.contains("delivery.header(\"X-A\") is not known"), "{error}");
    assert_eq!(transport(&global("if delivery.message_id == \"7@far.example\" { \"g\" }", facts)), "g");
}

#[test]
fn the_time_that_scripts_see_is_that_of_the_facts() {
    let night = Facts { now: Timestamp::UNIX_EPOCH, ..facts() };
    assert_eq!(transport(&global("if now().hour < 6 && now().weekday == 4 { \"g\" }", night)), "g");
}

#[test]
fn code_nested_as_deep_as_is_allowed_fits_on_a_small_stack() {
    // Deep calls of deep expressions, on a thread like those of the server.
    let nested = format!("{}n{}", "(1 + ".repeat(50), ")".repeat(50));
    let script = format!("fn route(d) {{ deep(0); }}\nfn deep(n) {{ let x = {nested}; deep(n + 1); }}");
    let limits = ScriptLimits {
        call_depth_max: usize::MAX,
        time_max: Duration::from_mins(1),
        ..ScriptLimits::default()
    };
    let set = ScriptSet::load(directory(&[("global.rhai", &script)]).path(), &limits).unwrap();
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    let kind = thread.spawn(move || error(&ask(&set, facts())).kind).unwrap().join().unwrap();
    assert_eq!(kind, ErrorKind::CallDepth);
}

/// A script may throw or return what a stranger wrote; it is kept with the message and shown on terminals.
#[test]
fn what_a_script_says_went_wrong_is_one_short_printable_line() {
    let mut facts = facts();
    facts.header = Bytes::from_static(b"Subject: \x1b[31mred\x07\r\n\r\n");
    for body in
        [r#"throw delivery.header("Subject")"#, r#"throw "\x1b[31mred\n\r""#, r#"return "\x1b[31mred";"#]
    {
        let text = global(body, facts.clone()).to_string();
        assert!(text.contains("[31mred"), "{text:?}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert_eq!(text.lines().filter(|line| line.contains("[31mred")).count(), 1, "{text:?}");
    }
    for body in
        [r#"let s = "ä"; for i in 0..12 { s += s } throw s"#, r#"let s = "ä"; for i in 0..12 { s += s } s"#]
    {
        let message = error(&global(body, facts.clone())).message;
        assert!(message.len() < 1_100 && message.ends_with('…'), "{} bytes", message.len());
    }
    let problems = load(&[("global.rhai", "fn route(delivery) { \x1b[31m }")]).unwrap_err();
    assert!(problems.iter().all(|problem| !problem.to_string().contains('\x1b')), "{problems:?}");
}
