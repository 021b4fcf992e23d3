//! Routing scripts.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use waypost::address::Mailbox;
use waypost::config::ScriptLimits;
use waypost::envelope::ReversePath;
use waypost::names::AccountName;
use waypost::route::{Facts, KnownTransports, ScriptSet};

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

fn facts() -> Facts {
    let mailbox = |text| Mailbox::parse(text).expect("an address");
    let sender = ReversePath::Mailbox(mailbox("alice@ours.example"));
    let mut facts = Facts::new(sender, mailbox("bob@far.example"), Timestamp::UNIX_EPOCH);
    facts.account = AccountName::new("alice").ok();
    facts.mx = Some(vec!["mx.far.example".to_owned()]);
    facts.header = "Subject: Hello\r\nX-Way: smarthost\r\n\r\n".into();
    facts
}
