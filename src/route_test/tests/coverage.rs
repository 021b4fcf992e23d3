use super::*;

/// What cases for a global script, and the tests in Rhai beside it, did not reach: lines, and branches with their place.
fn unreached(script: &str, cases: &[&str]) -> Vec<String> {
    let coverage = coverage(&[("global.rhai", script)], cases);
    let file = coverage.files.iter().find(|file| &*file.file == "global.rhai").unwrap();
    missing(file)
}

fn coverage(files: &[(&str, &str)], cases: &[&str]) -> Coverage {
    // Whether they pass is not looked at here.
    let case =
        |(number, case): (usize, &&str)| format!("[[case]]\nname = \"{number}\"\nexpect = \"x\"\n{case}\n");
    let table: String = cases.iter().enumerate().map(case).collect();
    let files = [files, &[("global.test.toml", table.as_str())]].concat();
    let report = run_with(&files, &Options { coverage: true, ..Options::default() });
    assert!(report.broken.is_empty(), "{:?}", report.complaints());
    report.coverage.unwrap()
}

fn missing(file: &FileCoverage) -> Vec<String> {
    let lines = file.lines.iter().filter(|(_, count)| **count == 0).map(|(line, _)| format!("{line}"));
    let branches = file.branches.iter().filter(|branch| branch.taken == 0 && branch.fork_reached);
    lines
        .chain(branches.map(|branch| format!("{}:{} {:?}", branch.line, branch.column, branch.branch)))
        .collect()
}

#[test]
fn lines_and_branches_that_no_case_reached() {
    let on_one_line = "fn route(d) { if d.size > 9 { return \"a\"; } }";
    let with_else = "fn route(d) {\n  if d.size > 9 {\n    \"a\"\n  } else if d.size > 5 {\n    \"b\"\n  } else {\n    \"c\"\n  }\n}";
    let arms = "fn route(d) {\n  switch d.size {\n    1 => \"a\",\n    2 | 3 => { return \"b\"; }\n    4..9 => \"c\",\n    _ => (),\n  }\n}";
    let no_default =
        "fn route(d) {\n  switch d.size {\n    1 => \"a\",\n    2 if d.attempt > 1 => \"b\",\n  }\n}";
    let looping = "fn route(d) {\n  for a in d.history { if a.code == 450 { return \"a\"; } }\n}";
    let closure = "fn route(d) {\n  if d.history.some(|a| a.code == 450) { return \"a\"; }\n}";
    let catching = "fn route(d) {\n  try { if d.size > 9 { throw \"no\"; } } catch { return \"a\"; }\n}";
    let helper = "fn route(d) {\n  if big(d) { return \"a\"; }\n}\nfn big(d) {\n  if d.size > 9 { return true; }\n  false\n}\nfn unused() {\n  1\n}";
    let value = "fn route(d) {\n  let way = if d.size > 9 { \"a\" } else { \"b\" };\n  way\n}";
    let empty_then = "fn route(d) {\n  if d.size > 9 { } else { return \"a\"; }\n}";
    let nested = "fn route(d) {\n  if d.size > 9 {\n    if d.size > 99 { return \"a\"; }\n  }\n}";
    let constant = "const LIMIT = 9;\n\nfn route(d) {\n  if d.size > global::LIMIT { return \"a\"; }\n}";
    let small = "size = 1";
    let large = "size = 10";
    for (script, cases, expected) in [
        (on_one_line, vec![small], vec!["1:15 True"]),
        (on_one_line, vec![large], vec!["1:15 False"]),
        (on_one_line, vec![small, large], vec![]),
        (with_else, vec![large], vec!["4", "5", "7", "2:3 False"]),
        (with_else, vec![small], vec!["3", "5", "2:3 True", "4:10 True"]),
        (with_else, vec![small, large, "size = 6"], vec![]),
        (arms, vec![small], vec!["4", "5", "6", "4:16 Arm", "5:13 Arm", "6:10 Arm"]),
        (arms, vec!["size = 3", "size = 8", "size = 50"], vec!["3", "3:10 Arm"]),
        (no_default, vec!["size = 1"], vec!["4", "4:27 Arm", "2:3 NoArm"]),
        (no_default, vec!["size = 2"], vec!["3", "4", "3:10 Arm", "4:27 Arm"]),
        (no_default, vec!["size = 1", "size = 2\nattempt = 2", "size = 3"], vec![]),
        (looping, vec![small], vec!["2:3 Body"]),
        (looping, vec!["last = \"451\""], vec!["2:24 True"]),
        (looping, vec!["last = \"450\"", "last = \"451\""], vec![]),
        (closure, vec![small], vec!["2:3 True", "2:32 Closure"]),
        (closure, vec!["last = \"450\""], vec!["2:3 False"]),
        (catching, vec![small], vec!["2:3 Catch", "2:9 True"]),
        (catching, vec![large], vec!["2:9 False"]),
        (helper, vec![small], vec!["9", "2:3 True", "5:3 True"]),
        (helper, vec![large], vec!["6", "9", "2:3 False", "5:3 False"]),
        (value, vec![small], vec!["2:13 True"]),
        (empty_then, vec![small], vec!["2:3 True"]),
        (empty_then, vec![large], vec!["2:3 False"]),
        (nested, vec![small], vec!["3", "2:3 True"]),
        (nested, vec![large], vec!["2:3 False", "3:5 True"]),
        (nested, vec![large, small], vec!["3:5 True"]),
        (constant, vec![small], vec!["4:3 True"]),
    ] {
        assert_eq!(unreached(script, &cases), expected, "{script}\n{cases:?}");
    }
}

#[test]
fn a_condition_that_fails_was_neither_true_nor_false() {
    let script = "fn route(d) {\n  if d.mx.len() > 0 { return \"a\"; }\n}";
    assert_eq!(unreached(script, &["mx = false"]), ["2:3 True", "2:3 False"]);
    let later = "fn route(d) {\n  if d.size > 9 { return \"a\"; }\n  d.mx\n}";
    assert_eq!(unreached(later, &["mx = false\nsize = 1"]), ["2:3 True"]);
}

#[test]
fn modules_count_and_so_does_what_tests_in_rhai_ask() {
    let files = [
        ("global.rhai", "import \"lib/names\" as names;\nfn route(d) {\n  names::way(d.size)\n}"),
        (
            "lib/names.rhai",
            "const A = \"a\";\nfn way(size) {\n  if size > 9 { return \"a\"; }\n  \"b\"\n}\nfn other() {\n  1\n}",
        ),
        ("global.test.rhai", "fn test_x() { ask(delivery(#{ size: 10 })); }"),
    ];
    let reached = coverage(&files, &["size = 1"]);
    let module = reached.files.iter().find(|file| &*file.file == "lib/names.rhai").unwrap();
    assert_eq!(missing(module), ["7"]);
    let (lines, branches) = module.reached();
    assert_eq!((lines.reached, lines.all, branches.reached, branches.all), (2, 3, 2, 2));
    assert!((module.percent() - 80.0).abs() < 0.01 && reached.percent() > 80.0);
}

#[test]
fn a_script_that_no_test_asks_is_not_reached_at_all() {
    let reached = coverage(&[("global.rhai", FOURTH), ("domain/a.test.rhai", FOURTH)], &["attempt = 4"]);
    let percents: Vec<(&str, u32)> =
        reached.files.iter().map(|file| (&*file.file, file.percent().round() as u32)).collect();
    assert_eq!(percents, [("domain/a.test.rhai", 0), ("global.rhai", 80)]);
    assert!(
        missing(&reached.files[0]).iter().all(|line| !line.contains(':')),
        "no branches of what was not reached"
    );
}
