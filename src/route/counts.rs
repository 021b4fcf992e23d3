//! What the scripts did, counted by script: for metrics, and for `waypost route stats`.
//!
//! Counting reads the trace of a decision that was made, so that asking scripts for another reason (to explain, to
//! simulate, to test) counts nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::trace::{Answer, ErrorKind, Trace};
use crate::metrics::{Counter, Family, Histogram, Page};
use crate::names::TransportName;

/// Which of the sets that are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The one in the scripts directory.
    Live,
    /// The one that `route promote` gives a share of the mail.
    Promoted,
    /// The one that runs beside and decides nothing.
    Shadow,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Live, Self::Promoted, Self::Shadow];

    /// As metrics and listings name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Promoted => "promoted",
            Self::Shadow => "shadow",
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the scripts of all sets did since the server started.
#[derive(Debug, Default)]
pub struct ScriptCounts([Family<Arc<str>, OfScript>; Part::ALL.len()]);

#[derive(Debug, Default)]
struct OfScript {
    time: Histogram,
    nothing: Counter,
    errors: [Counter; ErrorKind::ALL.len()],
    transports: Family<TransportName, Counter>,
}

/// What one script did since the server started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptStats {
    /// In which set.
    pub set: Part,
    /// File, relative to the scripts directory.
    pub script: Arc<str>,
    /// How often it was asked.
    pub evaluations: u64,
    /// How often it returned nothing.
    pub nothing: u64,
    /// How often it chose each transport.
    pub transports: BTreeMap<TransportName, u64>,
    /// How often it failed, by sort of failure.
    pub errors: BTreeMap<String, u64>,
    /// Time of an evaluation on average, microseconds.
    pub micros_mean: f64,
    /// 99 of 100 evaluations took at most this, microseconds; `None` when that is above what is told apart.
    pub micros_99: Option<u64>,
}

impl ScriptCounts {
    /// Counts a decision.
    pub fn count(&self, part: Part, trace: &Trace) {
        for step in &trace.steps {
            let Some(script) = &step.script else { continue };
            let counts = self.0[part as usize].of(&script.file);
            counts.time.observe(step.micros.into());
            match &step.answer {
                Answer::Returned { transport, .. } => counts.transports.of(transport).inc(),
                Answer::Error(error) => counts.errors[error.kind as usize].inc(),
                Answer::Nothing { .. } => counts.nothing.inc(),
                Answer::NoScript | Answer::NotAsked(_) => {}
            }
        }
    }

    /// Each script that was ever asked, in the order of sets and files.
    pub fn stats(&self) -> Vec<ScriptStats> {
        self.each(|set, script, counts| {
            let evaluations = counts.time.count();
            let errors = ErrorKind::ALL.into_iter().zip(&counts.errors);
            let errors = errors.filter(|(_, count)| count.get() > 0);
            ScriptStats {
                set,
                script: script.clone(),
                evaluations,
                nothing: counts.nothing.get(),
                transports: counts.transports.all().into_iter().map(|(name, n)| (name, n.get())).collect(),
                errors: errors.map(|(kind, count)| (kind.as_str().to_owned(), count.get())).collect(),
                micros_mean: counts.time.total().as_secs_f64() * 1e6 / evaluations.max(1) as f64,
                micros_99: counts.time.within(0.99),
            }
        })
    }

    /// The same for Prometheus.
    pub fn write(&self, page: &mut Page) {
        let name = "waypost_script_decisions_total";
        let mut decisions = page.counter(name, "Times that a routing script chose a transport.");
        self.each(|set, script, counts| {
            for (transport, count) in counts.transports.all() {
                let labels = [("set", set.as_str()), ("script", script), ("transport", transport.as_str())];
                decisions.add(&labels, count.get());
            }
        });
        let help = "Times that a routing script returned nothing, so that the next level was asked.";
        let mut nothing = page.counter("waypost_script_nothing_total", help);
        self.each(|set, script, counts| {
            nothing.add(&[("set", set.as_str()), ("script", script)], counts.nothing.get());
        });
        let help = "Times that a routing script failed, so that the message was deferred without an attempt.";
        let mut errors = page.counter("waypost_script_errors_total", help);
        self.each(|set, script, counts| {
            for (kind, count) in ErrorKind::ALL.into_iter().zip(&counts.errors) {
                let labels = [("set", set.as_str()), ("script", script), ("kind", kind.as_str())];
                errors.add(&labels, count.get());
            }
        });
        let help = "Time that an evaluation of a routing script took; its count is that of all evaluations.";
        let mut time = page.histogram("waypost_script_duration_seconds", help);
        self.each(|set, script, counts| {
            time.add_histogram(&[("set", set.as_str()), ("script", script)], &counts.time);
        });
    }

    fn each<T>(&self, mut see: impl FnMut(Part, &Arc<str>, &OfScript) -> T) -> Vec<T> {
        let all = Part::ALL.into_iter().zip(&self.0).flat_map(|(part, scripts)| {
            scripts.all().into_iter().map(move |(script, counts)| (part, script, counts))
        });
        all.map(|(part, script, counts)| see(part, &script, &counts)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::Level;
    use crate::route::{ScriptError, ScriptId, Step};

    fn step(file: &str, answer: Answer) -> Step {
        let script = Some(ScriptId { file: file.into(), hash: "0".into() });
        Step { level: Level::Global, script, answer, log: vec![], micros: 4 }
    }

    #[test]
    fn each_script_is_counted_by_what_it_answered() {
        let counts = ScriptCounts::default();
        let error = |kind| {
            let (file, message) = ("global.rhai".into(), String::new());
            Answer::Error(Box::new(ScriptError { kind, file, line: None, column: None, message, hint: None }))
        };
        let trace = |answer| {
            let steps =
                vec![step("domain/a.test.rhai", Answer::Nothing { line: None }), step("global.rhai", answer)];
            Trace { set: "0".into(), steps, micros: 8 }
        };
        let transport =
            |name: &str| Answer::Returned { transport: TransportName::new(name).unwrap(), line: None };
        for answer in [transport("smart"), transport("smart"), transport("direct"), error(ErrorKind::Time)] {
            counts.count(Part::Live, &trace(answer));
        }
        counts.count(Part::Shadow, &trace(error(ErrorKind::UnknownTransport)));
        let stats = counts.stats();
        let named = |set, script: &str| stats.iter().find(|s| s.set == set && &*s.script == script).unwrap();
        let global = named(Part::Live, "global.rhai");
        assert_eq!((global.evaluations, global.nothing, global.transports.len()), (4, 0, 2));
        assert_eq!(global.transports[&TransportName::new("smart").unwrap()], 2);
        assert_eq!(global.errors, BTreeMap::from([("time".to_owned(), 1)]));
        assert_eq!((global.micros_mean, global.micros_99), (4.0, Some(5)));
        assert_eq!(named(Part::Live, "domain/a.test.rhai").nothing, 4);
        assert_eq!(named(Part::Shadow, "global.rhai").errors["unknown-transport"], 1);
        let mut page = Page::default();
        counts.write(&mut page);
        let text = page.into_text();
        for line in [
            "waypost_script_decisions_total{set=\"live\",script=\"global.rhai\",transport=\"smart\"} 2",
            "waypost_script_nothing_total{set=\"live\",script=\"domain/a.test.rhai\"} 4",
            "waypost_script_errors_total{set=\"live\",script=\"global.rhai\",kind=\"time\"} 1",
            "waypost_script_duration_seconds_count{set=\"shadow\",script=\"global.rhai\"} 1",
            "waypost_script_duration_seconds_bucket{set=\"live\",script=\"global.rhai\",le=\"0.000005\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
