use std::fs;

use super::*;
use crate::address::Mailbox;
use crate::config::ScriptLimits;
use crate::envelope::ReversePath;
use crate::route::ErrorKind;

/// A data directory, a live scripts directory, and others beside them.
struct World(tempfile::TempDir);

impl World {
    fn new(live: &str) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        world.write("live/global.rhai", live);
        world
    }

    fn dir(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A server's router, as it is after a start.
    fn router(&self) -> Router {
        let router = Router::new(&self.dir("live"), ScriptLimits::default()).unwrap();
        router.resume_promotion(&self.dir("data")).unwrap();
        router
    }

    fn promote(&self, router: &Router, dir: &str, percent: f64) -> Result<PromotionReport, PromoteError> {
        router.promote(&Promote { dir: Some(self.dir(dir)), percent, rollback_on_errors: None })
    }
}

const DIRECT: &str = "fn route(d) { \"direct\" }";
const SMART: &str = "fn route(d) { \"smart\" }";

fn way(router: &Router, id: u64) -> Result<String, ErrorKind> {
    let to = Mailbox::parse("user@example.net").unwrap();
    let facts = Arc::new(Facts::new(ReversePath::Null, to, jiff::Timestamp::UNIX_EPOCH));
    let (id, chosen) = (QueueId(id), router.for_message(QueueId(id)));
    let decided = router.decide(&chosen, id, &facts, &|_: &str| true);
    if let Ok(decision) = &decided {
        assert_eq!(decision.set.as_ref(), Some(chosen.set.hash()));
    }
    decided.map(|decision| decision.transport.to_string()).map_err(|error| error.kind())
}

/// The messages that are sent by the smarthost, of a thousand.
fn smart(router: &Router) -> Vec<u64> {
    (0..1_000).filter(|id| way(router, *id).unwrap() == "smart").collect()
}

#[test]
fn a_share_of_the_messages_is_decided_by_the_candidate_and_a_larger_one_keeps_them() {
    let world = World::new(DIRECT);
    world.write("next/global.rhai", SMART);
    let router = world.router();
    assert!(smart(&router).is_empty());
    world.promote(&router, "next", 10.0).unwrap();
    let ten = smart(&router);
    assert!((60..140).contains(&ten.len()), "{}", ten.len());
    // Known answers: these never change, for messages under way would change sides.
    assert_eq!(ten[..5], KNOWN);
    assert_eq!(smart(&router), ten, "and each time the same");
    assert_eq!(router.deciding().len(), 2);
    world.promote(&router, "next", 40.0).unwrap();
    let forty = smart(&router);
    assert!(forty.len() > ten.len() && ten.iter().all(|id| forty.contains(id)));
    router.promote(&Promote { dir: None, percent: 100.0, rollback_on_errors: None }).unwrap();
    assert_eq!((smart(&router).len(), router.deciding().len()), (1_000, 1));
    let ended = router.roll_back().unwrap();
    assert_eq!((ended.running, ended.last.unwrap().why), (None, WhyEnded::RolledBack));
    assert!(smart(&router).is_empty());
    assert!(matches!(router.roll_back(), Err(PromoteError::NothingRuns)));
}

const KNOWN: [u64; 5] = [5, 13, 24, 34, 36];

#[test]
fn a_restart_goes_on_with_the_copy_whatever_became_of_the_directory() {
    let world = World::new(DIRECT);
    world.write("next/global.rhai", "import \"lib/way\" as way;\nfn route(d) { way::out() }");
    world.write("next/lib/way.rhai", "fn out() { \"smart\" }");
    world.write("next/global.test.toml", "[[case]]\nname = \"x\"\nexpect = \"smart\"\n");
    let before = {
        let router = world.router();
        world.promote(&router, "next", 25.0).unwrap();
        smart(&router)
    };
    fs::remove_dir_all(world.dir("next")).unwrap();
    let router = world.router();
    assert_eq!(smart(&router), before);
    assert_eq!(router.for_message(QueueId(before[0])).set.tests().len(), 1, "the tests are kept as well");

    // A copy that somebody changed does not run; without a server, the promotion can be taken back.
    let hash = router.promotion().running.unwrap().hash;
    world.write(&format!("data/promotion/sets/{hash}/lib/way.rhai"), "fn out() { \"elsewhere\" }");
    let router = Router::new(&world.dir("live"), ScriptLimits::default()).unwrap();
    let error = router.resume_promotion(&world.dir("data")).unwrap_err().to_string();
    assert!(error.contains("were changed") && error.contains("--rollback"), "{error}");
    world.write(&format!("data/promotion/sets/{hash}/lib/way.rhai"), "fn out() {");
    let error = router.resume_promotion(&world.dir("data")).unwrap_err().to_string();
    assert!(error.contains("lib/way.rhai:1:") && error.contains("--rollback"), "{error}");
    let dir = PromotionDir::new(&world.dir("data"));
    assert_eq!(dir.roll_back(jiff::Timestamp::UNIX_EPOCH).unwrap().unwrap().hash, hash);
    assert_eq!(dir.roll_back(jiff::Timestamp::UNIX_EPOCH).unwrap(), None);
    assert!(smart(&world.router()).is_empty());
    assert!(!world.dir(&format!("data/promotion/sets/{hash}")).exists());
}

#[test]
fn what_cannot_be_promoted_is_refused_and_changes_nothing() {
    let world = World::new(DIRECT);
    world.write("next/global.rhai", SMART);
    world.write("other/global.rhai", "fn route(d) { \"other\" }");
    world.write("broken/global.rhai", "fn route(d) {");
    world.write("same/global.rhai", DIRECT);
    let router = world.router();
    let refused = |dir: &str, percent| world.promote(&router, dir, percent).unwrap_err().to_string();
    for (dir, percent, words) in [
        ("next", 0.0, "above 0"),
        ("next", 100.5, "at most 100"),
        ("next", f64::NAN, "above 0"),
        ("broken", 10.0, "global.rhai:1:"),
        ("nowhere", 10.0, "nowhere"),
        ("same", 10.0, "run already"),
    ] {
        let said = refused(dir, percent);
        assert!(said.contains(words), "{dir} {percent}: {said}");
    }
    let nothing = Promote { dir: None, percent: 5.0, rollback_on_errors: None };
    assert!(matches!(router.promote(&nothing), Err(PromoteError::NoDirectory)));
    assert_eq!(router.promotion().running, None);
    world.promote(&router, "next", 10.0).unwrap();
    assert!(refused("other", 10.0).contains("roll it back first"));
    assert!(refused("broken", 10.0).contains("global.rhai:1:"));
    assert_eq!(router.promotion().running.unwrap().from, world.dir("next"));
    // What runs must not have lost its copy by that.
    assert!(!smart(&world.router()).is_empty());
}

#[test]
fn the_live_part_is_reloaded_and_the_promotion_ends_when_it_is_the_live_set() {
    let world = World::new(DIRECT);
    world.write("next/global.rhai", SMART);
    let router = world.router();
    world.promote(&router, "next", 50.0).unwrap();
    let half = smart(&router);
    world.write("live/global.rhai", "fn route(d) { \"other\" }");
    router.reload().unwrap();
    assert_eq!(smart(&router), half, "the candidate stays");
    let live = (0..1_000).find(|id| !half.contains(id)).unwrap();
    assert_eq!(way(&router, live), Ok("other".to_owned()));
    world.write("live/global.rhai", SMART);
    router.reload().unwrap();
    let report = router.promotion();
    assert_eq!((report.running, report.last.unwrap().why), (None, WhyEnded::Live));
    assert_eq!(smart(&router).len(), 1_000);

    // The same while no server ran.
    world.write("next/global.rhai", DIRECT);
    world.promote(&router, "next", 50.0).unwrap();
    world.write("live/global.rhai", DIRECT);
    let report = world.router().promotion();
    assert_eq!((report.running, report.last.unwrap().why), (None, WhyEnded::Live));
}

#[test]
fn an_error_of_the_candidate_never_falls_to_the_live_set_but_so_many_end_the_promotion() {
    let world = World::new(DIRECT);
    world.write("next/global.rhai", "fn route(d) { throw \"no\" }");
    let router = world.router();
    world.promote(&router, "next", 100.0).unwrap();
    for id in 0..20 {
        assert_eq!(way(&router, id), Err(ErrorKind::Script));
    }
    assert_eq!(router.promotion().errors, 20);
    router.roll_back().unwrap();
    let terms = Promote { dir: Some(world.dir("next")), percent: 100.0, rollback_on_errors: Some(3) };
    router.promote(&terms).unwrap();
    // Another share keeps the limit and the count.
    assert_eq!(way(&router, 0), Err(ErrorKind::Script));
    router.promote(&Promote { dir: None, percent: 100.0, rollback_on_errors: None }).unwrap();
    assert_eq!((way(&router, 1), way(&router, 2)), (Err(ErrorKind::Script), Err(ErrorKind::Script)));
    assert_eq!(way(&router, 3), Ok("direct".to_owned()));
    let WhyEnded::Errors { count: 3, last } = router.promotion().last.unwrap().why else {
        panic!("not by errors")
    };
    assert!(last.contains("no"), "{last}");
    assert_eq!(world.router().promotion().running, None, "also after a restart");
}
