mod coverage;
mod rhai;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::config::ScriptLimits;
use crate::route::{ScriptSet, Surroundings};

/// From the fourth attempt on by the smarthost.
const FOURTH: &str = "fn route(delivery) {\n    if delivery.attempt >= 4 {\n        log(\"late\");\n        return \"smarthost\";\n    }\n}\n";

pub(super) fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

pub(super) fn load(dir: &Path) -> ScriptSet {
    ScriptSet::load(dir, &ScriptLimits::default()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn run_with(files: &[(&str, &str)], options: &Options) -> Report {
    run(&load(directory(files).path()), &|_: &str| true, options)
}

pub(super) fn run_files(files: &[(&str, &str)]) -> Report {
    run_with(files, &Options::default())
}

/// What became of each case: its name, and how it failed.
fn outcomes(report: &Report) -> Vec<(String, Option<String>)> {
    assert!(report.broken.is_empty(), "{:?}", report.complaints());
    let failure = |case: &CaseResult| case.failure.as_ref().map(|failure| failure.in_a_line());
    report.cases.iter().map(|case| (case.name.clone(), failure(case))).collect()
}

/// One case for a global script with this body: how it failed.
fn one(body: &str, case: &str) -> Option<String> {
    let script = format!("fn route(delivery) {{ {body} }}");
    let table = format!("[[case]]\nname = \"x\"\n{case}\n");
    let report = run_files(&[("global.rhai", &script), ("global.test.toml", &table)]);
    outcomes(&report).remove(0).1
}

/// Asserts that `condition` holds for the delivery that a case gives.
fn holds(condition: &str, case: &str) {
    let body = format!(
        "if {condition} {{ return \"yes\"; }} log(`${{{}}}`);",
        condition.split(" == ").next().unwrap()
    );
    assert_eq!(one(&body, &format!("{case}\nexpect = \"yes\"")), None, "{condition} with {case}");
}

fn problems(file: &str, text: &str) -> String {
    let scripts = [
        ("global.rhai", FOURTH),
        ("domain/example.com.rhai", FOURTH),
        ("account/ann.rhai", FOURTH),
        (file, text),
    ];
    let report = run_files(&scripts);
    assert!(!report.is_good());
    report.broken.iter().flat_map(|broken| broken.problems.clone()).collect::<Vec<_>>().join("\n")
}

#[test]
fn cases_pass_and_fail() {
    let table = r#"
[[case]]
name = "direct at first"
attempt = "1..3"
expect = "nothing"

[[case]]
name = "then the smarthost"
attempt = [4, 9]
expect = "smarthost"

[[case]]
name = "too early"
attempt = "2..4"
expect = "nothing"

[[case]]
name = "another name"
attempt = 4
expect = "smarthots"

[[case]]
name = "direct is not nothing"
expect = "direct"
"#;
    let report = run_files(&[("global.rhai", FOURTH), ("global.test.toml", table)]);
    let outcomes = outcomes(&report);
    let failures: Vec<Option<&str>> = outcomes.iter().map(|(_, failure)| failure.as_deref()).collect();
    assert_eq!(
        failures,
        [
            None,
            None,
            Some("attempt 4: expected nothing, got \"smarthost\" (global.rhai:4)"),
            Some("expected \"smarthots\", got \"smarthost\" (global.rhai:4)"),
            Some("expected \"direct\", got nothing"),
        ]
    );
    assert_eq!((report.passed(), report.failed().count(), report.is_good()), (2, 3, false));
    let last = report.cases[4].failure.as_ref().unwrap();
    assert!(last.hint.as_ref().unwrap().contains("ask = \"chain\""), "{last:?}");
    let early = report.cases[2].failure.as_ref().unwrap();
    assert_eq!((early.line, early.trace[0].log[0].as_str()), (12, "late"));
}

#[test]
fn every_property_can_be_given() {
    for (condition, case) in [
        ("delivery.attempt == 3", "attempt = 3"),
        ("delivery.attempt >= 3", "attempt = \"3-5\""),
        ("delivery.attempt == 3", "history = [\"451\", \"connect\"]"),
        ("delivery.attempt == 2", "last = \"451\""),
        ("delivery.account == ()", ""),
        ("delivery.account == \"ann\"", "account = \"ann\""),
        ("delivery.sender == \"sender@example.org\"", ""),
        ("delivery.sender == \"\"", "sender = \"\""),
        ("delivery.sender == \"\"", "sender = \"<>\""),
        ("delivery.sender == \"ann@example.org\"", "sender_local = \"ann\""),
        ("delivery.sender == \"sender@b.test\"", "sender_domain = \"B.test.\""),
        ("delivery.sender_domain == \"xn--bcher-kva.example\"", "sender = \"a@bücher.example\""),
        ("delivery.recipient == \"recipient@example.net\"", ""),
        ("delivery.recipient_local == \"a\"", "recipient = \"a@b.test\""),
        ("delivery.recipient == \"c@b.test\"", "recipient_domain = \"b.test\"\nrecipient_local = \"c\""),
        ("delivery.size == 2048", "size = \"2 KiB\""),
        ("delivery.size == 5", "size = 5"),
        ("delivery.age == 0", ""),
        ("delivery.age == 450", "attempt = 2"),
        ("delivery.age == 3600", "age = \"1h\""),
        ("delivery.age == 60", "age = 60"),
        ("delivery.expires_in == 345600", ""),
        ("delivery.expires_in == 120", "expires_in = \"2m\""),
        ("delivery.message_id == \"message@example.org\"", ""),
        ("delivery.message_id == \"a@b\"", "message_id = \"<a@b>\""),
        ("delivery.message_id == \"a@b\"", "header = { Message-Id = \"<a@b>\" }"),
        ("delivery.message_id == ()", "message_id = false"),
        ("delivery.is_dsn == true", "is_dsn = true"),
        ("delivery.sender == \"\"", "is_dsn = true"),
        ("delivery.smtputf8 == false", ""),
        ("delivery.smtputf8 == true", "smtputf8 = true"),
        ("delivery.smtputf8 == true", "recipient = \"bücher@b.test\""),
        ("delivery.require_tls == true", "require_tls = true"),
        ("delivery.mx == [\"mx.example.net\"]", ""),
        ("delivery.mx == [\"mx1.b.test\"]", "mx = \"MX1.b.test\""),
        ("delivery.mx == [\"a.test\", \"b.test\"]", "mx = [\"a.test\", \"b.test\"]"),
        ("delivery.mx == []", "mx = []"),
        ("delivery.header(\"subject\") == \"hello\"", "header = { Subject = \"hello\" }"),
        ("delivery.header(\"x\") == \"one\"", "header.X = [\"one\", \"two\"]"),
        ("delivery.header(\"x\") == ()", ""),
        ("delivery.last == ()", ""),
        ("delivery.last.code == 451", "attempt = 2"),
        ("delivery.last.enhanced == \"4.3.0\"", "attempt = 2"),
        ("delivery.last.transport == \"direct\"", "attempt = 2"),
        ("delivery.last.level == \"default\"", "attempt = 2"),
        ("delivery.last.level == \"global\"", "last = { transport = \"smarthost\" }"),
        ("delivery.last.level == \"override\"", "last = { level = \"override\" }"),
        ("delivery.last.enhanced == \"4.7.1\"", "last = \"451 4.7.1 greylisted\""),
        ("delivery.last.enhanced == \"4.0.0\"", "last = \"421\""),
        ("delivery.last.text == \"greylisted\"", "last = \"451 greylisted\""),
        ("delivery.last.stage == \"connect\"", "last = \"connect\""),
        ("delivery.last.code == ()", "last = \"connect\""),
        ("delivery.last.code == ()", "last = { stage = \"connect\" }"),
        ("delivery.last.code == ()", "last = { stage = \"data\", code = false }"),
        ("delivery.last.code == 554", "last = { stage = \"greeting\", code = 554 }"),
        ("delivery.last.ip == \"192.0.2.1\"", "last = { ip = \"192.0.2.1\" }"),
        ("delivery.last.host == \"mx.a.test\"", "last = { host = \"mx.a.test\" }"),
        ("delivery.last.tls == \"TLSv1.3\"", "last = { tls = \"TLSv1.3\" }"),
        ("delivery.last.text == \"no\"", "last = { text = \"no\" }"),
        ("delivery.last.at.hour == 3", "last = { at = \"2026-01-01T03:00:00Z\" }"),
        ("now() - delivery.last.at == 450", "attempt = 2"),
        ("now() - delivery.last.at == 900", "attempt = 3"),
        ("delivery.history.len() == 3", "attempt = 4"),
        ("delivery.history[1].code == 450", "history = [\"451\", \"450\", \"421\"]"),
        ("delivery.history[0].code == 451", "attempt = 4\nlast = \"450\""),
        ("now().hour == 12", ""),
        ("now().weekday == 3", ""),
        ("now().hour == 3", "now = 03:00:00"),
        ("now().minute == 5", "now = \"03:05\""),
        ("now().year == 2027", "now = 2027-05-01"),
        ("now().hour == 1", "now = 2026-05-01T03:00:00+02:00"),
        ("now().hour == 3", "now = 2026-05-01T03:00:00"),
    ] {
        holds(condition, case);
    }
}

#[test]
fn expectations_of_every_kind() {
    let failing = "throw \"no way\";";
    let logging = "log(\"by size\"); return \"a\";";
    for (body, expect, failure) in [
        ("", "\"nothing\"", None),
        ("", "{ nothing = true }", None),
        ("return \"direct\";", "\"direct\"", None),
        ("return \"direct\";", "\"\"", None),
        ("\"\"", "\"direct\"", None),
        ("return \"direct\";", "\"nothing\"", Some("expected nothing, got \"direct\"")),
        (failing, "{ error = \"no way\" }", None),
        (
            failing,
            "{ error = \"other\" }",
            Some("expected an error with \"other\", got an error: global.rhai:1:"),
        ),
        (failing, "\"nothing\"", Some("expected nothing, got an error: global.rhai:1:22: no way")),
        ("", "{ error = \"x\" }", Some("expected an error with \"x\", got nothing")),
        ("return 5;", "{ error = \"no name\" }", None),
        ("delivery.nothing", "{ error = \"no property\" }", None),
        ("loop { }", "{ error = \"operations\" }", None),
        (logging, "{ transport = \"a\", log = \"size\" }", None),
        (
            logging,
            "{ transport = \"a\", log = \"time\" }",
            Some("expected \"a\", a logged line with \"time\", got"),
        ),
        (logging, "{ transport = \"a\", level = \"global\" }", None),
        (
            logging,
            "{ level = \"domain\" }",
            Some("expected decided by the domain level, got \"a\" (global.rhai:1)"),
        ),
        ("", "{ level = \"default\" }", Some("expected decided by no script, got nothing")),
    ] {
        let got = one(body, &format!("expect = {expect}"));
        let fits = match (failure, &got) {
            (Some(words), Some(got)) => got.contains(words),
            (None, None) => true,
            _ => false,
        };
        assert!(fits, "{body} {expect}: {got:?}");
    }
}

#[test]
fn a_file_asks_the_script_beside_it_and_at_the_top_all_of_them() {
    let by = |name: &str| format!("fn route(d) {{ if d.size > 9 {{ return \"{name}\"; }} }}");
    let table = |cases: &[&str]| {
        let case = |(number, case): (usize, &&str)| format!("[[case]]\nname = \"{number}\"\n{case}\n");
        cases.iter().enumerate().map(case).collect::<String>()
    };
    let files = [
        ("global.rhai", by("g")),
        ("domain/Example.COM.rhai", by("d")),
        ("account/ann.rhai", by("a")),
        (
            "global.test.toml",
            table(&["size = 10\nexpect = \"g\"\naccount = \"ann\"\nsender_domain = \"example.com\""]),
        ),
        (
            "domain/Example.COM.test.toml",
            table(&[
                "size = 10\nexpect = \"d\"\naccount = \"ann\"",
                "size = 10\nask = \"chain\"\nexpect = { transport = \"d\", level = \"domain\" }",
                "size = 10\nask = \"global\"\nexpect = \"g\"",
            ]),
        ),
        ("account/ann.test.toml", table(&["size = 10\nexpect = \"a\"", "size = 1\nexpect = \"nothing\""])),
        (
            "chain.test.toml",
            table(&[
                "size = 10\nexpect = { transport = \"g\", level = \"global\" }",
                "size = 10\naccount = \"ann\"\nexpect = { level = \"account\" }",
                "size = 10\nsender_domain = \"example.com\"\nexpect = \"d\"",
                "size = 10\nsender_domain = \"example.com\"\nforeign_sender = true\nexpect = \"g\"",
                "size = 1\naccount = \"ann\"\nexpect = \"direct\"",
                "size = 1\nexpect = { transport = \"direct\", level = \"default\" }",
                "size = 1\nexpect = \"nothing\"",
                "size = 1\nsender_domain = \"example.com\"\nexpect = { nothing = [\"domain\", \"global\"] }",
                "ask = \"account\"\naccount = \"ann\"\nsize = 10\nexpect = \"a\"",
            ]),
        ),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (*file, text.as_str())).collect();
    let report = run_files(&files);
    assert_eq!(report.complaints(), Vec::<String>::new());
    let asked: Vec<(&str, &str)> = report.cases.iter().map(|c| (&*c.file, c.asked.as_str())).collect();
    assert_eq!(asked.len(), 15);
    assert_eq!(asked[0], ("account/ann.test.toml", "account/ann.rhai"));
    assert!(asked.contains(&("chain.test.toml", "chain")));
    assert!(asked.contains(&("domain/Example.COM.test.toml", "domain/Example.COM.rhai")));
    assert!(asked.contains(&("domain/Example.COM.test.toml", "chain")));
}

#[test]
fn transports_are_those_of_the_file_else_all() {
    let script = ("global.rhai", "fn route(d) { \"smart\" }");
    for (head, failure) in [
        ("", None),
        ("transports = [\"smart\", \"other\"]", None),
        (
            "transports = [\"smarthost\"]",
            Some("there is no transport \"smart\" (did you mean \"smarthost\"?)"),
        ),
    ] {
        let table = format!("{head}\n[[case]]\nname = \"x\"\nexpect = \"smart\"\n");
        let report = run_files(&[script, ("global.test.toml", &table)]);
        let got = report.complaints();
        assert_eq!(got.is_empty(), failure.is_none(), "{got:?}");
        assert!(got.iter().all(|got| got.contains(failure.unwrap())), "{got:?}");
    }
}

#[test]
fn defaults_hold_for_every_case_that_says_nothing_else() {
    let table = r#"
[defaults]
sender = "ann@example.com"
last = "451"

[[case]]
name = "as the defaults say"
expect = { error = "ann@example.com 2 451" }

[[case]]
name = "another part"
sender_local = "bob"
expect = { error = "bob@example.com 2" }

[[case]]
name = "another whole"
sender = "x@y.test"
history = ["450", "421"]
expect = { error = "x@y.test 3 421" }
"#;
    let script = "fn route(d) { throw `${d.sender} ${d.attempt} ${d.last.code}`; }";
    let report = run_files(&[("global.rhai", script), ("global.test.toml", table)]);
    assert_eq!(report.complaints(), Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_place() {
    let case = |text: &str| format!("[[case]]\nname = \"x\"\nexpect = \"nothing\"\n{text}\n");
    for (text, said) in [
        (case("atempt = 3"), "global.test.toml:4:1: a case has no key `atempt` (did you mean `attempt`?)"),
        (case("attempt = true"), "global.test.toml:4:11: `attempt` cannot be true"),
        (case("attempt = 0"), "4:11: `attempt`: attempts count from 1 to 1000"),
        (case("attempt = \"3..1\""), "\"3..1\" has no attempt in it"),
        (case("attempt = \"1..\""), "`attempt` has a value that is not allowed"),
        (case("attempt = \"1..900\""), "more than 100 attempts"),
        (case("attempt = []"), "no attempt at all"),
        (case("last = \"451\"\nattempt = 1"), "4:8: the first attempt has none before it"),
        (case("last = \"451\"\nattempt = \"1..2\""), "the first attempt has none before it"),
        (case("history = [\"451\"]\nattempt = 4"), "with this history it is attempt 2, not attempt 4"),
        (case("history = \"451\""), "`history` must be an array"),
        (case("history = [\"451\"]\nlast = \"451\""), "5:8: `history` is given as a whole and in parts"),
        (case("last = \"550 5.1.1 no\""), "the message bounces, and there is no further attempt"),
        (case("last = { code = 550 }"), "4:17: after 550 the message bounces"),
        (case("last = { enhanced = \"5.7.1\" }"), "(a previous attempt ended with 4.7.1)"),
        (case("last = { stage = \"conect\" }"), "did you mean \"connect\"?"),
        (case("last = { transprot = \"x\" }"), "did you mean `transport`?"),
        (case("sender = \"a@b.test\"\nsender_local = \"c\""), "`sender` is given as a whole and in parts"),
        (case("sender = \"nobody\""), "4:10: `sender`: \"nobody\""),
        (
            case("is_dsn = true\nsender = \"a@b.test\""),
            "5:10: a delivery report of this server has the null sender",
        ),
        (case("is_dsn = true\naccount = \"ann\""), "is sent by no account"),
        (case("smtputf8 = false\nrecipient = \"ü@b.test\""), "needs SMTPUTF8"),
        (case("now = \"noon\""), "4:7: `now` has a value that is not allowed"),
        (case("mx = 5"), "`mx` cannot be a whole number"),
        (case("header = { \"a b\" = \"x\" }"), "\"a b\" is not the name of a header field"),
        (case("header = { a = 5 }"), "`a` cannot be a whole number"),
        (case("ask = \"chian\""), "\"chian\" cannot be asked; did you mean \"chain\"?"),
        (case("account = \"Ann Smith\""), "is not an account name"),
        ("[[case]]\nexpect = \"nothing\"\n".to_owned(), "1:1: a case has no `name`"),
        ("[[case]]\nname = \"x\"\n".to_owned(), "1:1: a case has no `expect`"),
        ("[[case]]\nname = \"x\"\nexpect = {}\n".to_owned(), "`expect` does not say which answer"),
        ("[[case]]\nname = \"x\"\nexpect = { trasnport = \"x\" }\n".to_owned(), "did you mean `transport`?"),
        (
            "[[case]]\nname = \"x\"\nexpect = { error = \"x\", transport = \"y\" }\n".to_owned(),
            "gives no answer",
        ),
        (
            "[[case]]\nname = \"x\"\nexpect = { nothing = \"domain\" }\n".to_owned(),
            "one script alone is asked",
        ),
        (
            "[[case]]\nname = \"x\"\nexpect = { nothing = true, transport = \"y\" }\n".to_owned(),
            "no script decides",
        ),
        ("[[case]]\nname = \"x\"\nexpect = \"No Name\"\n".to_owned(), "is not a transport name"),
        ([case(""), case("")].concat(), "5:1: two cases are called \"x\""),
        (
            "[[cases]]\nname = \"x\"\n".to_owned(),
            "1:3: a file of tests has no key `cases` (did you mean `case`?)",
        ),
        ("[case]\nname = \"x\"\n".to_owned(), "a case begins with [[case]], in double brackets"),
        ("# nothing\n".to_owned(), "there is no case in this file"),
        ("[[case]\n".to_owned(), "not TOML"),
        (format!("[defaults]\nsiez = 5\n{}", case("")), "did you mean `size`?"),
    ] {
        let got = problems("global.test.toml", &text);
        assert!(got.contains(said), "{text}\n{got}");
        assert!(got.lines().count() <= 2, "one slip, one problem: {text}\n{got}");
    }
    for (file, text, said) in [
        (
            "domain/example.com.test.toml",
            case("sender = \"a@b.test\""),
            "the script of example.com is not asked",
        ),
        (
            "domain/example.com.test.toml",
            case("sender = \"\""),
            "4:10: the script of example.com is not asked",
        ),
        (
            "domain/example.com.test.toml",
            case("foreign_sender = true"),
            "when the sender's domain is foreign",
        ),
        (
            "account/ann.test.toml",
            case("account = \"bob\""),
            "the script of account ann is asked for mail of that",
        ),
        ("account/ann.test.toml", case("account = false"), "account ann"),
        (
            "account/ann.test.toml",
            case("is_dsn = true"),
            "4:10: a delivery report of this server is sent by no",
        ),
        ("account/anne.test.toml", case(""), "should this be account/ann.test.toml?"),
        ("chain.test.toml", case("ask = \"script\""), "no script stands beside this file"),
    ] {
        let got = problems(file, &text);
        assert!(got.contains(said), "{file} {text}\n{got}");
    }
}

#[test]
fn a_filter_takes_names_and_files_and_a_run_ends_in_time() {
    let table = "[[case]]\nname = \"early\"\nexpect = \"nothing\"\n[[case]]\nname = \"late\"\nattempt = 4\nexpect = \"smarthost\"\n";
    let files = [("global.rhai", FOURTH), ("global.test.toml", table), ("chain.test.toml", table)];
    let with = |filter: &str| Options { filter: Some(filter.to_owned()), ..Options::default() };
    let late = run_with(&files, &with("late"));
    assert_eq!((late.cases.len(), late.left_out, late.is_good()), (2, 2, true));
    assert_eq!(run_with(&files, &with("chain")).cases.len(), 2);
    let one = Options { files: ["chain.test.toml".to_owned()].into(), ..Options::default() };
    assert_eq!(run_with(&files, &one).cases.len(), 2);
    let report = run_with(&files, &Options { time_max: Duration::ZERO, ..Options::default() });
    assert_eq!((report.out_of_time, report.is_good()), (4, false));
    assert!(report.complaints()[0].contains("take too long"));
}

#[test]
fn accounts_that_do_not_exist_get_a_note() {
    let table = "[[case]]\nname = \"x\"\naccount = \"annn\"\nexpect = \"nothing\"\n";
    let options = Options {
        accounts: Some([crate::names::AccountName::new("ann").unwrap()].into()),
        ..Options::default()
    };
    let report = run_with(&[("global.rhai", FOURTH), ("global.test.toml", table)], &options);
    assert!(report.is_good());
    assert_eq!(report.notes, ["global.test.toml:1: there is no account annn; did you mean ann?"]);
}

#[test]
fn tests_are_read_with_the_scripts_and_do_not_change_their_hash() {
    let table = "[[case]]\nname = \"x\"\nexpect = \"nothing\"\n";
    let dir = directory(&[("global.rhai", FOURTH)]);
    let before = load(dir.path());
    fs::write(dir.path().join("global.test.toml"), table).unwrap();
    fs::write(dir.path().join(".#global.test.toml"), "an editor's").unwrap();
    let after = load(dir.path());
    assert_eq!((before.tests().len(), after.tests().len()), (0, 1));
    assert_eq!(before.hash(), after.hash());
    fs::write(dir.path().join("global.test.toml"), "half a fi").unwrap();
    assert!(run(&after, &|_: &str| true, &Options::default()).is_good());
    assert!(!run(&load(dir.path()), &|_: &str| true, &Options::default()).is_good());
}

#[test]
fn a_script_that_stands_alone_is_tested_with_the_tests_of_its_name() {
    let table = "[[case]]\nname = \"x\"\nexpect = \"a\"\n";
    let dir = directory(&[
        ("one.rhai", "import \"lib/names\" as names;\nfn route(d) { names::a() }"),
        ("one.test.toml", table),
        ("two.rhai", "not a script"),
        ("two.test.toml", "nor this"),
        ("lib/names.rhai", "fn a() { \"a\" }"),
    ]);
    let set = ScriptSet::load_alone(&dir.path().join("one.rhai"), &ScriptLimits::default()).unwrap();
    let report = run(&set, &|_: &str| true, &Options::default());
    assert_eq!((report.complaints(), report.cases.len()), (Vec::new(), 1));
    assert_eq!(report.cases[0].asked, "one.rhai");
}

#[test]
fn the_ready_made_scripts_are_without_findings() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut looked_at = 0;
    for entry in fs::read_dir(scripts).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.strip_suffix(".rhai").is_none_or(|stem| stem.contains('.')) {
            continue;
        }
        let dir = directory(&[("global.rhai", &fs::read_to_string(&path).unwrap())]);
        let (_, found) =
            ScriptSet::check(dir.path(), &ScriptLimits::default(), &Surroundings::default()).unwrap();
        assert_eq!(found, [], "{name}");
        looked_at += 1;
    }
    assert!(looked_at >= 9, "{looked_at}");
}

#[test]
fn a_test_in_rhai_cannot_ask_for_ever() {
    let files = [
        ("global.rhai", "fn route(d) { loop { } }"),
        ("global.test.rhai", "fn test_x() { for n in 0..10000 { ask(delivery()); } }"),
    ];
    let report = run_with(&files, &Options { time_max: Duration::from_millis(200), ..Options::default() });
    let failures = report.complaints();
    assert!(failures[0].contains("the time for all tests together is over"), "{failures:?}");
}

#[test]
fn the_tests_of_the_examples_pass() {
    for example in [
        "examples/smarthost-of-last-resort",
        "examples/two-sending-services",
        "examples/several-customers",
        "examples/warming-up-a-new-address",
    ] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(example);
        let config = crate::config::Config::parse(
            &fs::read_to_string(dir.join("waypost.toml")).unwrap(),
            &dir.join("waypost.toml"),
        )
        .unwrap();
        let set = load(&dir.join("scripts"));
        let report = run(&set, &config, &Options::default());
        assert!(report.broken.is_empty(), "{example}: {:?}", report.complaints());
        assert!(report.cases.len() >= 3, "{example} has no tests");
        let failed: Vec<_> = report.cases.iter().filter(|case| case.failure.is_some()).collect();
        assert!(failed.is_empty(), "{example}: {failed:?}");
    }
}
