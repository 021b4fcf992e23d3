//! Real files, real events: each test does to a directory what editors and configuration managers do, and waits for
//! the router to notice.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;

use super::*;
use crate::address::Mailbox;
use crate::config::ScriptLimits;
use crate::envelope::ReversePath;
use crate::route::Router;
use crate::route::tests::{directory, write};
use crate::route::{Facts, Reloaded, ScriptSet, Surroundings, Tests};

fn script(way: &str) -> String {
    format!("fn route(delivery) {{ return \"{way}\"; }}")
}

fn way(set: &ScriptSet) -> String {
    let facts =
        Facts::new(ReversePath::Null, Mailbox::parse("a@example.org").unwrap(), Timestamp::UNIX_EPOCH);
    let verdict = set.decide(&Arc::new(facts), &|_: &str| true).verdict();
    verdict.unwrap().transport.to_string()
}

fn router(dir: &Path) -> Arc<Router> {
    Arc::new(Router::new(dir, ScriptLimits::default()).unwrap())
}

fn watched(dir: &Path) -> (Arc<Router>, Watch) {
    let router = router(dir);
    let watch = watch(router.clone()).unwrap();
    (router, watch)
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[track_caller]
fn until_way(router: &Router, expected: &str) {
    until(expected, || way(&router.current()) == expected);
}

#[test]
fn a_reload_tells_what_changed_and_a_bad_one_changes_nothing() {
    let dir = directory(&[("global.rhai", &script("one")), ("account/a.rhai", &script("one"))]);
    let router = router(dir.path());
    let (first, running) = (router.status(), router.current());
    let same = router.reload().unwrap();
    assert!(same.is_same() && router.status().since == first.since);

    write(dir.path(), "global.rhai", &script("two"));
    write(dir.path(), "domain/b.example.rhai", &script("two"));
    fs::remove_file(dir.path().join("account/a.rhai")).unwrap();
    let Reloaded { added, changed, removed, previous, hash, .. } = router.reload().unwrap();
    assert_eq!(
        (added.as_slice(), changed.as_slice()),
        (&["domain/b.example.rhai".into()][..], &["global.rhai".into()][..])
    );
    assert_eq!((removed.as_slice(), &previous), (&["account/a.rhai".into()][..], &first.hash));
    // Who holds the old set keeps it.
    assert_eq!((way(&running).as_str(), way(&router.current()).as_str()), ("one", "two"));

    write(dir.path(), "global.rhai", "fn route(");
    write(dir.path(), "account/x y.rhai", "");
    let problems = router.reload().unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let status = router.status();
    assert_eq!((&status.hash, way(&router.current()).as_str()), (&hash, "two"));
    assert_eq!(status.failed.as_ref().map(|failed| failed.problems.len()), Some(2));
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<crate::route::RouterStatus>(&text).unwrap(), status);

    write(dir.path(), "global.rhai", &script("three"));
    fs::remove_file(dir.path().join("account/x y.rhai")).unwrap();
    assert!(!router.reload().unwrap().is_same() && router.status().failed.is_none());

    fs::remove_dir_all(dir.path()).unwrap();
    assert!(router.reload().is_err());
    assert_eq!(way(&router.current()), "three");
}

#[test]
fn a_bad_first_set_is_an_error_that_lists_every_problem() {
    let dir = directory(&[("global.rhai", "fn route("), ("account/a.rhai", "")]);
    assert_eq!(Router::new(dir.path(), ScriptLimits::default()).err().unwrap().len(), 2);
}

#[test]
fn saving_by_write_and_by_rename_and_deleting_are_noticed() {
    let dir = directory(&[("global.rhai", &script("one"))]);
    let (router, _watch) = watched(dir.path());
    write(dir.path(), "global.rhai", &script("two"));
    until_way(&router, "two");
    // As most editors do it: a new file beside it, renamed over it, a backup left behind.
    write(dir.path(), ".global.rhai.swp", &script("three"));
    fs::rename(dir.path().join("global.rhai"), dir.path().join("global.rhai~")).unwrap();
    fs::rename(dir.path().join(".global.rhai.swp"), dir.path().join("global.rhai")).unwrap();
    until_way(&router, "three");
    fs::remove_file(dir.path().join("global.rhai")).unwrap();
    until_way(&router, "direct");
    // A folder that was not there when the watch began.
    write(dir.path(), "lib/names.rhai", "fn way() { \"four\" }");
    write(dir.path(), "global.rhai", "import \"lib/names\" as names;\nfn route(d) { names::way() }");
    until_way(&router, "four");
    write(dir.path(), "lib/names.rhai", "fn way() { \"five\" }");
    until_way(&router, "five");
}

#[test]
fn a_half_written_file_keeps_the_old_set_until_it_is_whole() {
    let dir = directory(&[("global.rhai", &script("one"))]);
    let (router, _watch) = watched(dir.path());
    let whole = script("two");
    write(dir.path(), "global.rhai", &whole[..whole.len() / 2]);
    until("the half is refused", || router.status().failed.is_some());
    assert_eq!(way(&router.current()), "one");
    write(dir.path(), "global.rhai", &whole);
    until_way(&router, "two");
    assert!(router.status().failed.is_none());
    // And back to what ran: no longer a failure, though nothing new runs.
    write(dir.path(), "global.rhai", "fn");
    until("the wreck is refused", || router.status().failed.is_some());
    write(dir.path(), "global.rhai", &whole);
    until("it is mended", || router.status().failed.is_none());
}

#[test]
fn files_saved_together_become_one_set() {
    let dir = directory(&[("global.rhai", &script("one"))]);
    let (router, _watch) = watched(dir.path());
    write(dir.path(), "global.rhai", "import \"lib/b\" as b;\nfn route(d) { b::way() }");
    write(dir.path(), "lib/b.rhai", "import \"lib/c\" as c;\nfn way() { c::way() }");
    write(dir.path(), "lib/c.rhai", "fn way() { \"two\" }");
    until_way(&router, "two");
    assert_eq!(router.status().scripts.len(), 3);
}

#[test]
fn a_directory_replaced_by_another_link_is_followed() {
    let top = directory(&[("v1/global.rhai", &script("one")), ("v2/global.rhai", &script("two"))]);
    let link = top.path().join("scripts");
    symlink("v1", &link).unwrap();
    let (router, _watch) = watched(&link);
    symlink("v2", top.path().join("next")).unwrap();
    fs::rename(top.path().join("next"), &link).unwrap();
    until_way(&router, "two");
    // The new directory is watched now.
    write(top.path(), "v2/global.rhai", &script("three"));
    until_way(&router, "three");
    // Gone for a while, and back.
    fs::rename(top.path().join("v2"), top.path().join("v3")).unwrap();
    until("the loss is noticed", || router.status().failed.is_some());
    assert_eq!(way(&router.current()), "three");
    write(top.path(), "v3/global.rhai", &script("four"));
    fs::rename(top.path().join("v3"), top.path().join("v2")).unwrap();
    until_way(&router, "four");
}

#[test]
fn a_dropped_watch_ends_its_thread() {
    let dir = directory(&[("global.rhai", &script("one"))]);
    let (router, watch) = watched(dir.path());
    drop(watch);
    assert_eq!(Arc::strong_count(&router), 1);
}

#[test]
fn reading_is_no_change() {
    use notify::event::{CreateKind, ModifyKind};
    for (kind, change) in [
        (EventKind::Access(AccessKind::Open(AccessMode::Any)), false),
        (EventKind::Access(AccessKind::Close(AccessMode::Read)), false),
        (EventKind::Access(AccessKind::Close(AccessMode::Write)), true),
        (EventKind::Create(CreateKind::File), true),
        (EventKind::Modify(ModifyKind::Any), true),
        (EventKind::Remove(notify::event::RemoveKind::Any), true),
    ] {
        assert_eq!(is_change(kind), change, "{kind:?}");
    }
}

#[test]
fn what_the_lint_refuses_does_not_run_and_the_status_says_why() {
    let dir = directory(&[("global.rhai", &script("one"))]);
    let router = Router::guarded(
        dir.path(),
        ScriptLimits::default(),
        Surroundings {
            transports: Some(["one", "two"].map(str::to_owned).into()),
            ..Surroundings::default()
        },
        None,
    );
    let router = Arc::new(router.unwrap());
    let _watch = watch(router.clone()).unwrap();
    write(dir.path(), "global.rhai", "fn route(d) { if d.atempt > 1 { return \"two\"; } }");
    until("the misspelt property is refused", || router.status().failed.is_some());
    assert_eq!(way(&router.current()), "one");
    let problems = router.status().failed.unwrap().problems;
    assert!(problems[0].to_string().starts_with("global.rhai:1:20: delivery has no property 'atempt'"));
    // A name that the configuration does not have, and then has.
    write(dir.path(), "global.rhai", &script("three"));
    until("the unknown transport is refused", || {
        router.status().failed.is_some_and(|failed| failed.problems[0].message.contains("three"))
    });
    let more =
        Surroundings { transports: Some(["three"].map(str::to_owned).into()), ..Surroundings::default() };
    let candidate = router.read_anew(Some(more)).map_err(|problems| format!("{problems:?}")).unwrap();
    assert_eq!(way(&router.current()), "one", "nothing runs before it is adopted");
    assert!(!router.adopt(candidate).is_same());
    assert_eq!((way(&router.current()).as_str(), router.status().failed), ("three", None));
    // A configuration without what the running scripts name is refused; that says nothing about the files.
    assert!(
        router
            .read_anew(Some(Surroundings { transports: Some([].into()), ..Surroundings::default() }))
            .is_err()
    );
    assert_eq!(router.status().failed, None);
    // Warnings keep nothing from running.
    write(dir.path(), "global.rhai", "fn route(d) { let x = 1; return \"three\"; }");
    until("the odd script runs", || router.status().problems.len() == 1);
}

#[test]
fn a_reading_that_was_overtaken_is_not_adopted() {
    let dir = directory(&[("global.rhai", &script("one"))]);
    let router = router(dir.path());
    write(dir.path(), "global.rhai", &script("two"));
    let early = router.read_anew(None).ok().unwrap();
    write(dir.path(), "global.rhai", &script("three"));
    router.reload().unwrap();
    assert!(router.adopt(early).is_same());
    assert_eq!(way(&router.current()), "three");
}

/// Tests of which one fails as long as a file of tests says so.
fn tests_that_a_file_decides() -> Tests {
    Box::new(|set: &ScriptSet, _: &Surroundings| {
        let failing = set.tests().iter().filter(|test| test.text.contains("name = \"fails\""));
        failing.map(|test| ScriptProblem::whole(&*test.file, "a test fails")).collect()
    })
}

#[test]
fn scripts_whose_tests_fail_do_not_run_until_they_pass() {
    let dir = directory(&[("global.rhai", &script("one")), ("global.test.toml", "")]);
    let tests = Some(tests_that_a_file_decides());
    let router = Router::guarded(dir.path(), ScriptLimits::default(), Surroundings::default(), tests);
    let router = Arc::new(router.unwrap());
    let _watch = watch(router.clone()).unwrap();
    write(dir.path(), "global.test.toml", "[[case]]\nname = \"fails\"");
    // The scripts are the same and run; that a test of theirs fails now is to be seen.
    until("the failing test is seen", || !router.status().problems.is_empty());
    assert_eq!((way(&router.current()).as_str(), router.status().failed), ("one", None));
    write(dir.path(), "global.rhai", &script("two"));
    until("the set is refused", || router.status().failed.is_some());
    assert_eq!(way(&router.current()), "one");
    // Only the test changes, and the scripts go live.
    write(dir.path(), "global.test.toml", "[[case]]\nname = \"passes\"");
    until_way(&router, "two");
    assert!(router.status().failed.is_none() && router.status().problems.is_empty());
}

#[test]
fn at_the_start_a_failing_test_is_told_and_keeps_no_mail_waiting() {
    let files = [("global.rhai", script("one")), ("global.test.toml", "[[case]]\nname = \"fails\"".into())];
    let dir = directory(&files.each_ref().map(|(file, text)| (*file, text.as_str())));
    let tests = Some(tests_that_a_file_decides());
    let router =
        Router::guarded(dir.path(), ScriptLimits::default(), Surroundings::default(), tests).unwrap();
    assert_eq!((way(&router.current()).as_str(), router.status().problems.len()), ("one", 1));
}

/// Kubernetes mounts a volume so: the files are links into `..data`, itself a link that is replaced as a whole.
#[test]
fn the_link_that_a_configuration_manager_swaps_is_followed() {
    let dir = directory(&[
        ("..1/global.rhai", "import \"lib/names\" as names;\nfn route(d) { names::way() }"),
        ("..1/lib/names.rhai", "fn way() { \"one\" }"),
        ("..2/global.rhai", "import \"lib/names\" as names;\nfn route(d) { names::way() }"),
        ("..2/lib/names.rhai", "fn way() { \"two\" }"),
    ]);
    let link = |to: &str, at: &str| symlink(to, dir.path().join(at)).unwrap();
    link("..1", "..data");
    link("..data/global.rhai", "global.rhai");
    link("..data/lib", "lib");
    let (router, _watch) = watched(dir.path());
    assert_eq!(way(&router.current()), "one");
    link("..2", "..data_tmp");
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    fs::remove_dir_all(dir.path().join("..1")).unwrap();
    until_way(&router, "two");
    assert!(router.status().failed.is_none());
}

#[test]
fn a_file_that_may_not_be_read_any_more_keeps_the_old_set() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let dir = directory(&[("global.rhai", &script("one")), ("account/ann.rhai", &script("two"))]);
    let router = router(dir.path());
    for lost in ["global.rhai", "account"] {
        mode(dir.path(), 0o755);
        mode(&dir.path().join(lost), 0o000);
        let reload = || {
            // Root may read everything; this thread then looks as somebody else.
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
            router.reload().unwrap_err()
        };
        let problems = std::thread::scope(|scope| scope.spawn(reload).join().unwrap());
        assert!(
            problems.iter().all(|p| p.message.starts_with("cannot be read: Permission denied")),
            "{problems:?}"
        );
        assert_eq!(way(&router.current()), "one", "{lost}");
        mode(&dir.path().join(lost), 0o755);
        assert!(router.reload().is_ok(), "{lost}");
    }
}
