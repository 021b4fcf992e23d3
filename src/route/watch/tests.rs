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
use crate::route::{Facts, Reloaded, ScriptSet};

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
    let Reloaded { added, changed, removed, previous, hash } = router.reload().unwrap();
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
