//! `waypost route test` and `waypost route new`, as people and continuous integration use them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use tempfile::TempDir;

use super::{PATIENCE, folder, said, waypost};

const SCRIPT: &str = r#"fn route(delivery) {
    if delivery.is_dsn { return; }
    if delivery.attempt >= 4 {
        log(`attempt ${delivery.attempt}`);
        return "smarthost";
    }
}
"#;

const GOOD: &str =
    "transports = [\"smarthost\"]\n[[case]]\nname = \"late\"\nattempt = 4\nexpect = \"smarthost\"\n";

/// A folder with these files under `scripts/`.
fn scripts(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = dir.path().join("scripts").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// Exit code and standard output of `waypost route test`, without the time it took.
fn route_test(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let output = waypost(dir, &[&["route", "test"], arguments].concat(), "");
    (output.status.code().unwrap(), timeless(&String::from_utf8(output.stdout).unwrap()))
}

fn timeless(text: &str) -> String {
    let line = |line: &str| match line.split_once("; finished in ") {
        Some((before, _)) => format!("{before}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn failures_show_place_expected_got_and_trace() {
    let dir = scripts(&[
        ("global.rhai", SCRIPT),
        (
            "global.test.toml",
            "transports = [\"smarthost\"]\n\n[[case]]\nname = \"late\"\nattempt = 4\nexpect = \"smarthost\"\n\n\
             [[case]]\nname = \"early\"\nattempt = \"2..5\"\nexpect = \"nothing\"\n",
        ),
        (
            "chain.test.toml",
            "transports = [\"smarthost\"]\n[[case]]\nname = \"report\"\nis_dsn = true\nexpect = \"smarthost\"\n",
        ),
        (
            "global.test.rhai",
            "const TRANSPORTS = [\"smart-host\"];\nfn test_x() {\n    let answer = ask(delivery(#{ attempt: 4 }));\n    \
             assert_eq(answer, \"smarthost\", \"late\");\n}\n",
        ),
    ]);
    let (code, text) = route_test(dir.path(), &[]);
    assert_eq!(code, 1);
    assert_eq!(
        text,
        r#"running 4 tests
test scripts/chain.test.toml: report ... FAILED
test scripts/global.test.rhai: test_x ... FAILED
test scripts/global.test.toml: late ... ok
test scripts/global.test.toml: early ... FAILED

failures:

---- scripts/chain.test.toml: report ----
scripts/chain.test.toml:2
  expected  "smarthost"
       got  "direct" (no script decided)
     asked  all three levels
            account  not asked: no account sent it
            domain   not asked: the sender is null
            global   global.rhai:2: returned nothing

---- scripts/global.test.rhai: test_x ----
scripts/global.test.rhai:4:5
   message  late
  expected  "smarthost"
       got  an error: global.rhai:5:9: there is no transport "smarthost" (did you mean "smart-host"?)
     asked  global.rhai alone
            global   global.rhai:5:9: there is no transport "smarthost" (did you mean "smart-host"?)
                       log: attempt 4

---- scripts/global.test.toml: early ----
scripts/global.test.toml:8
   attempt  4
  expected  nothing
       got  "smarthost" (global.rhai:5)
     asked  global.rhai alone
            global   global.rhai:5: returned "smarthost"
                       log: attempt 4

failures:
    scripts/chain.test.toml: report
    scripts/global.test.rhai: test_x
    scripts/global.test.toml: early

test result: FAILED. 1 passed; 3 failed
"#
    );
}

#[test]
fn long_values_are_shown_as_their_differences() {
    let test = "const TRANSPORTS = [];\nfn test_x() {\n    let want = [\"alpha beta gamma delta\", \"epsilon zeta eta theta\", \"iota kappa lambda mu\"];\n    \
                let got = want; got.remove(1);\n    assert_eq(got, want);\n}\n";
    let dir = scripts(&[("global.rhai", SCRIPT), ("global.test.rhai", test)]);
    let (code, text) = route_test(dir.path(), &[]);
    let shown = r#"
---- scripts/global.test.rhai: test_x ----
scripts/global.test.rhai:5:5
differences  - expected  + got
              [
                "alpha beta gamma delta",
            -   "epsilon zeta eta theta",
                "iota kappa lambda mu",
              ]
"#;
    assert!(code == 1 && text.contains(shown), "{text}");
}

#[test]
fn mistakes_in_a_table_are_shown_with_a_mark_and_end_with_2() {
    let dir = scripts(&[
        ("global.rhai", SCRIPT),
        ("global.test.toml", "[[case]]\nname = \"x\"\natempt = 4\nexpect = \"smarthost\"\n"),
    ]);
    let (code, text) = route_test(dir.path(), &[]);
    assert_eq!(code, 2);
    for words in
        ["scripts/global.test.toml:3:1", "3 │ atempt = 4", "did you mean `attempt`?", "1 file is unusable"]
    {
        assert!(text.contains(words), "{words} in\n{text}");
    }
    fs::write(dir.path().join("scripts/global.rhai"), "fn route(d) { retrun }").unwrap();
    let (code, text) = route_test(dir.path(), &[]);
    assert!(code == 2 && text.contains("scripts/global.rhai:1:15: Undefined variable: retrun"), "{text}");
}

#[test]
fn coverage_on_the_terminal_and_as_lcov() {
    let dir = scripts(&[("global.rhai", SCRIPT), ("global.test.toml", GOOD)]);
    let (code, text) =
        route_test(dir.path(), &["--coverage", "--lcov", "coverage.info", "--fail-under", "70"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.ends_with(
            r"
coverage:
  scripts/global.rhai   75.0 %    4 of   4 lines,   2 of   4 branches
  total                 75.0 %

not reached in scripts/global.rhai:
     2 |     if delivery.is_dsn { return; }
       |     ^ never true
     3 |     if delivery.attempt >= 4 {
       |     ^ never false
"
        ),
        "{text}"
    );
    let lcov = fs::read_to_string(dir.path().join("coverage.info")).unwrap();
    assert_eq!(
        lcov,
        "TN:\nSF:scripts/global.rhai\nDA:2,1\nDA:3,1\nDA:4,1\nDA:5,1\nBRDA:2,0,0,0\nBRDA:2,0,1,1\nBRDA:3,0,2,1\n\
         BRDA:3,0,3,0\nBRF:4\nBRH:2\nLF:4\nLH:4\nend_of_record\n"
    );
    let output = waypost(dir.path(), &["route", "test", "--fail-under", "80%"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("75.0 % of lines and branches are reached, less than 80 %"),
        "{}",
        said(&output)
    );
}

#[test]
fn formats_for_programs() {
    let table = format!("{GOOD}[[case]]\nname = \"wrong <&> #1\"\nexpect = \"smarthost\"\n");
    let dir = scripts(&[("global.rhai", SCRIPT), ("global.test.toml", &table)]);
    let json = waypost(dir.path(), &["route", "test", "--format", "json", "--coverage"], "");
    assert_eq!(json.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let failure = &json["suites"][0]["cases"][1]["failure"];
    assert_eq!(
        (json["good"].as_bool(), json["passed"].as_u64(), failure["line"].as_u64(), failure["got"].as_str()),
        (Some(false), Some(1), Some(6), Some("nothing"))
    );
    assert_eq!(failure["trace"][0]["answer"]["nothing"]["line"], serde_json::Value::Null);
    assert!(json["percent"].as_f64().unwrap() > 80.0);

    let (_, junit) = route_test(dir.path(), &["--format", "junit"]);
    let python = "import sys, xml.etree.ElementTree as tree\nroot = tree.parse(sys.stdin).getroot()\n\
                  [print(c.get('name'), c.get('line'), [f.get('message') for f in c]) for c in root.iter('testcase')]\n";
    let mut child = Command::new("python3")
        .args(["-c", python])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), junit.as_bytes()).unwrap();
    let read = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(read, "late 2 []\nwrong <&> #1 6 ['expected \"smarthost\", got nothing']\n");

    let (_, tap) = route_test(dir.path(), &["--format", "tap"]);
    assert_eq!(
        tap,
        "TAP version 14\n1..2\nok 1 - scripts/global.test.toml: late\nnot ok 2 - scripts/global.test.toml: wrong <&> \\#1\n  ---\n  \
         at: \"scripts/global.test.toml:6\"\n  message: \"expected \\\"smarthost\\\", got nothing\"\n  trace:\n    \
         - \"global   global.rhai: returned nothing\"\n  ...\n"
    );

    fs::write(dir.path().join("scripts/global.test.toml"), "[[case]]\n").unwrap();
    for format in ["json", "junit", "tap"] {
        let (code, text) = route_test(dir.path(), &["--format", format]);
        assert!(code == 2 && text.contains("a case has no `name`"), "{format}: {text}");
    }
}

#[test]
fn paths_and_filters_choose_what_runs() {
    let dir = scripts(&[
        ("global.rhai", SCRIPT),
        ("global.test.toml", GOOD),
        ("domain/example.org.rhai", SCRIPT),
        ("domain/example.org.test.toml", GOOD),
        ("lib/x.rhai", "fn x() { 1 }"),
        ("lib/x.test.rhai", "import \"lib/x\" as x;\nfn test_x() { assert_eq(x::x(), 1); }"),
    ]);
    for (name, text) in
        [("one.rhai", SCRIPT), ("one.test.toml", GOOD), ("two.rhai", SCRIPT), ("two.test.toml", GOOD)]
    {
        fs::create_dir_all(dir.path().join("loose")).unwrap();
        fs::write(dir.path().join("loose").join(name), text).unwrap();
    }
    for (arguments, ran, code) in [
        (vec![], 3, 0),
        (vec!["scripts"], 3, 0),
        (vec!["."], 3, 0),
        (vec!["scripts/global.rhai"], 1, 0),
        (vec!["scripts/global.test.toml"], 1, 0),
        (vec!["scripts/global.rhai", "scripts/domain/example.org.test.toml"], 2, 0),
        (vec!["scripts/global.rhai", "scripts"], 3, 0),
        (vec!["scripts/lib/x.test.rhai"], 1, 0),
        (vec!["loose"], 2, 0),
        (vec!["loose/one.rhai"], 1, 0),
        (vec!["loose/two.test.toml", "scripts"], 4, 0),
        (vec!["--filter", "domain/"], 1, 0),
        (vec!["--filter", "late"], 2, 0),
        (vec!["--filter", "nobody"], 0, 2),
        (vec!["nowhere"], 0, 2),
        (vec!["loose/one.rhai", "--what"], 0, 2),
        (vec!["scripts/domain"], 1, 0),
        (vec!["scripts/lib"], 1, 0),
        (vec!["loose", "scripts/domain", "scripts/global.rhai"], 4, 0),
    ] {
        let output = waypost(dir.path(), &[&["route", "test"], arguments.as_slice()].concat(), "");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert_eq!(text.matches(" ... ok\n").count(), ran, "{arguments:?}: {text}");
    }
    let empty = tempfile::tempdir().unwrap();
    let output = waypost(empty.path(), &["route", "test"], "");
    assert!(
        output.status.code() == Some(2) && said(&output).contains("waypost route new global"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_configuration_says_which_transports_and_accounts_there_are() {
    let dir = folder("[transports.smart]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\n");
    fs::create_dir(dir.path().join("scripts")).unwrap();
    fs::write(dir.path().join("scripts/global.rhai"), "fn route(d) { \"smarthost\" }").unwrap();
    let test = dir.path().join("scripts/global.test.toml");
    fs::write(&test, "[[case]]\nname = \"x\"\naccount = \"annn\"\nexpect = \"smarthost\"\n").unwrap();
    let (code, text) = route_test(dir.path(), &[]);
    assert_eq!(code, 1);
    for words in [
        "there is no transport \"smarthost\" (did you mean \"smart\"?)",
        "there is no account annn; did you mean ann?",
    ] {
        assert!(text.contains(words), "{text}");
    }
    // What the file says counts more: ready-made scripts are tested with their own names.
    fs::write(&test, "transports = [\"smarthost\"]\n[[case]]\nname = \"x\"\nexpect = \"smarthost\"\n")
        .unwrap();
    assert_eq!(route_test(dir.path(), &[]).0, 0);
    fs::remove_file(dir.path().join("waypost.toml")).unwrap();
    assert_eq!(route_test(dir.path(), &[]).0, 0);
    fs::write(&test, "[[case]]\nname = \"x\"\nexpect = \"smarthost\"\n").unwrap();
    let (code, text) = route_test(dir.path(), &[]);
    assert!(code == 0 && text.contains("every name counts as a transport"), "{text}");
}

/// A process that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn wait_for(lines: &Receiver<String>, words: &str) {
    while !lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line with {words:?}")).contains(words) {
    }
}

#[test]
fn watch_runs_again_when_a_file_is_saved() {
    let dir = scripts(&[("global.rhai", SCRIPT), ("global.test.toml", GOOD)]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    command.current_dir(dir.path()).env_remove("WAYPOST_CONFIG").env_remove("WAYPOST_LOG");
    command.args(["route", "test", "--watch"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let results = lines(running.0.stdout.take().unwrap());
    let words = lines(running.0.stderr.take().unwrap());
    wait_for(&results, "test result: ok. 1 passed");
    wait_for(&words, "waiting for a change in scripts");
    // As many editors save: another file, renamed.
    let script = dir.path().join("scripts/global.rhai");
    fs::write(dir.path().join("scripts/.global.rhai.swp"), SCRIPT.replace('4', "5")).unwrap();
    fs::rename(dir.path().join("scripts/.global.rhai.swp"), &script).unwrap();
    wait_for(&words, "global.rhai was saved");
    wait_for(&results, "test result: FAILED. 0 passed; 1 failed");
    wait_for(&words, "waiting");
    fs::write(&script, "half a scr").unwrap();
    wait_for(&results, "the scripts have problems");
    wait_for(&words, "waiting");
    fs::write(&script, SCRIPT).unwrap();
    wait_for(&results, "test result: ok. 1 passed");
    wait_for(&words, "waiting");
    // A checkout or a deployment puts another folder in its place.
    let other = scripts(&[
        ("global.rhai", SCRIPT),
        ("global.test.toml", &format!("{GOOD}[[case]]\nname = \"early\"\nexpect = \"nothing\"\n")),
    ]);
    fs::rename(dir.path().join("scripts"), dir.path().join("old")).unwrap();
    fs::rename(other.path().join("scripts"), dir.path().join("scripts")).unwrap();
    wait_for(&results, "test result: ok. 2 passed");
}

#[test]
fn colours_are_for_terminals_only() {
    let dir = scripts(&[("global.rhai", SCRIPT), ("global.test.toml", GOOD)]);
    assert!(!route_test(dir.path(), &[]).1.contains('\x1b'));
    let on_a_terminal = |no_color: &str| {
        let line = format!("{} route test", env!("CARGO_BIN_EXE_waypost"));
        let mut command = Command::new("script");
        command.current_dir(dir.path()).env("NO_COLOR", no_color).env_remove("WAYPOST_CONFIG");
        let output = command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(on_a_terminal("").contains("\x1b[32mok\x1b[0m"));
    let plain = on_a_terminal("1");
    assert!(plain.contains("test result: ok") && !plain.contains('\x1b'), "{plain}");
}

#[test]
fn a_new_script_comes_with_a_test_that_passes() {
    let dir = tempfile::tempdir().unwrap();
    for whose in [vec!["global"], vec!["domain", "Example.org"], vec!["account", "ann"]] {
        let made = waypost(dir.path(), &[&["route", "new"], whose.as_slice()].concat(), "");
        assert!(made.status.success() && said(&made).contains("waypost route test"), "{}", said(&made));
        let again = waypost(dir.path(), &[&["route", "new"], whose.as_slice()].concat(), "");
        assert!(
            again.status.code() == Some(1) && said(&again).contains("is there already"),
            "{}",
            said(&again)
        );
    }
    let (code, text) = route_test(dir.path(), &["--fail-under", "100"]);
    assert!(code == 0 && text.contains("6 passed"), "{text}");
    assert!(dir.path().join("scripts/domain/example.org.test.toml").is_file());

    let with_config = folder("[transports.a-service]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\n");
    let made = waypost(with_config.path(), &["route", "new", "domain", "exmaple.org"], "");
    assert!(said(&made).contains("did you mean example.org?"), "{}", said(&made));
    for whose in [vec!["global"], vec!["account", "ann"]] {
        let made = waypost(with_config.path(), &[&["route", "new"], whose.as_slice()].concat(), "");
        assert!(made.status.success(), "{}", said(&made));
    }
    assert_eq!(route_test(with_config.path(), &[]).0, 0);
    let checked = waypost(with_config.path(), &["check"], "");
    assert!(checked.status.success(), "{}", said(&checked));

    let without_transport = folder("");
    let made = waypost(without_transport.path(), &["route", "new", "global"], "");
    assert!(said(&made).contains("no transport but direct"), "{}", said(&made));
    assert_eq!(route_test(without_transport.path(), &[]).0, 0);
}

#[test]
fn the_ready_made_scripts_pass_their_tests_and_nothing_in_them_is_untested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (code, text) = route_test(root, &["scripts", "--coverage", "--fail-under", "100"]);
    assert_eq!(code, 0, "{text}");
    let readme = fs::read_to_string(root.join("scripts/README.md")).unwrap();
    for script in [
        "scripts/avoid-last-failure.rhai",
        "scripts/by-mx-operator.rhai",
        "scripts/by-recipient-domain.rhai",
        "scripts/by-sender-account.rhai",
        "scripts/never-direct.rhai",
        "scripts/newsletters-at-night.rhai",
        "scripts/smarthost-after-failures.rhai",
        "scripts/socks-when-blocked.rhai",
        "scripts/warm-up-share.rhai",
        "scripts/warm-up-share.test.rhai",
    ] {
        assert!(text.contains(script), "{script} was not run:\n{text}");
        let name = script.trim_start_matches("scripts/");
        assert!(name.contains(".test.") || readme.contains(&format!("[{name}]({name})")), "README: {name}");
        let head = fs::read_to_string(root.join(script)).unwrap();
        assert!(
            name.contains(".test.") || (head.contains("// Use it ") && head.contains("// To adapt: ")),
            "{script}"
        );
    }
}

/// The blocks of this kind in a page, in order.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let opening = format!("```{kind}\n");
    page.split(opening.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_page_about_tests_leads_from_nothing_to_a_tested_script() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/route-test.md")).unwrap();
    let (text, toml, rhai) = (blocks(&page, "text"), blocks(&page, "toml"), blocks(&page, "rhai"));
    let dir = tempfile::tempdir().unwrap();
    assert!(waypost(dir.path(), &["route", "new", "global"], "").status.success());
    assert_eq!(route_test(dir.path(), &[]), (0, timeless(&text[0])));
    // "Names of transports": the page comes to it after this.
    let (script, test) =
        (dir.path().join("scripts/global.rhai"), dir.path().join("scripts/global.test.toml"));
    let cases =
        fs::read_to_string(&test).unwrap().replace("[\"smarthost\"]", "[\"smarthost\", \"bulk-line\"]");
    fs::write(&test, format!("{cases}\n{}", toml[0])).unwrap();
    let (code, failed) = route_test(dir.path(), &[]);
    assert!(code == 1 && failed.contains(&text[1]), "{failed}");
    fs::write(&script, &rhai[0]).unwrap();
    assert_eq!(route_test(dir.path(), &["--fail-under", "100"]).0, 0);
    fs::write(&test, cases).unwrap();
    let (_, coverage) = route_test(dir.path(), &["--coverage"]);
    // The text in the page is what stands there, line numbers included.
    assert!(coverage.contains(&text[2]), "{coverage}");
    // The other examples work as they stand.
    fs::write(dir.path().join("scripts/global.test.rhai"), &rhai[1]).unwrap();
    let alone = dir.path().join("alone");
    fs::create_dir(&alone).unwrap();
    let by_last = "fn route(d) { if d.last != () && d.last.enhanced == \"4.7.1\" { \"smarthost\" } }";
    fs::write(alone.join("last.rhai"), by_last).unwrap();
    fs::write(alone.join("last.test.toml"), &toml[1]).unwrap();
    assert_eq!(route_test(dir.path(), &["alone"]).0, 0);
    let head = format!("{}[[case]]\nname = \"x\"\nexpect = \"nothing\"\n", toml[2]);
    fs::write(dir.path().join("scripts/more.test.toml"), head).unwrap();
    let (code, all) = route_test(dir.path(), &[]);
    assert!(code == 0 && all.contains("5 passed"), "{all}");
}
