//! Routing scripts and their tests.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use waypost::address::Mailbox;
use waypost::config::ScriptLimits;
use waypost::envelope::ReversePath;
use waypost::names::AccountName;
use waypost::route::{Facts, KnownTransports, ScriptSet};
use waypost::route_test::{self, Options};

struct Transports;

impl KnownTransports for Transports {
    fn knows(&self, name: &str) -> bool {
        matches!(name, "direct" | "smarthost")
    }
}

/// A source compiles or has problems that can be shown. What compiles comes to an end, decides the same each time, and
/// is explained as it was decided.
pub fn route_script(source: &[u8]) {
    let dir = super::spool::folder();
    std::fs::write(dir.path().join("global.rhai"), source).expect("the script can be written");
    // The time is no limit here: a busy machine would make it one at random.
    let limits = ScriptLimits {
        operations_max: 5_000,
        string_bytes_max: 4_096,
        array_elements_max: 100,
        map_entries_max: 100,
        time_max: Duration::from_hours(1),
        ..ScriptLimits::default()
    };
    let set = match ScriptSet::load(dir.path(), &limits) {
        Ok(set) => set,
        Err(problems) => {
            assert!(!problems.is_empty());
            for shown in problems.iter().map(ToString::to_string) {
                assert!(shown.starts_with("global.rhai"), "{shown:?}");
                assert!(!shown.contains('\x1b'), "a terminal would obey: {shown:?}");
            }
            return;
        }
    };
    let facts = Arc::new(facts());
    let _ = set.wants_mx(&facts);
    let verdict = |trace: waypost::route::Trace| {
        let shown = trace.to_string();
        assert!(!shown.contains('\x1b'), "a terminal would obey: {shown:?}");
        trace.verdict().map(|decision| (decision.level, decision.transport)).map_err(|error| error.kind())
    };
    let decided = verdict(set.decide(&facts, &Transports));
    assert_eq!(verdict(set.decide(&facts, &Transports)), decided, "the second time");
    assert_eq!(verdict(set.explain(&facts, &Transports)), decided, "explained");
}

/// A table of cases is run or has problems that can be shown, all of them in it.
pub fn route_tests(table: &[u8]) {
    let dir = super::spool::folder();
    let script = "fn route(d) { log(d.sender); if d.attempt > 3 || d.last != () { return \"smarthost\"; } }";
    let write = |name: &str, text: &[u8]| {
        std::fs::write(dir.path().join(name), text).expect("the file can be written");
    };
    write("global.rhai", script.as_bytes());
    write("global.test.toml", table);
    // What is no text is a problem of the set.
    let Ok(set) = ScriptSet::load(dir.path(), &ScriptLimits::default()) else { return };
    let report = route_test::run(&set, &Transports, &Options::default());
    assert_eq!(report.is_good(), report.complaints().is_empty());
    for broken in &report.broken {
        assert!(!broken.problems.is_empty() && report.cases.is_empty());
        let shown = broken.shown.render(false);
        assert!(shown.contains("global.test.toml") && !shown.contains('\x1b'), "{shown:?}");
    }
    for complaint in report.complaints() {
        assert!(complaint.starts_with("global.test.toml"), "{complaint:?}");
        assert!(!complaint.contains('\x1b'), "a terminal would obey: {complaint:?}");
    }
}

fn facts() -> Facts {
    let mailbox = |text| Mailbox::parse(text).expect("an address");
    let sender = ReversePath::Mailbox(mailbox("alice@ours.example"));
    let mut facts = Facts::new(sender, mailbox("bob@far.example"), Timestamp::UNIX_EPOCH);
    facts.account = AccountName::new("alice").ok();
    facts.mx = Some(vec!["mx.far.example".to_owned()]);
    facts.header = "Subject: Hello\r\nX-Way: smarthost\r\n\r\n".into();
    facts
}
