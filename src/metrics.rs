//! Counting what happens, and telling it in Prometheus' text format.
//!
//! Counting costs a few atomic additions and takes no lock, so that it can stand on the way of every message: a
//! [`Counter`] is one number, a [`Histogram`] a number for each range of times, a [`Family`] has one of something for
//! each name that turns up. Reading is rare: [`Page`] writes all of it as text.
//!
//! Prometheus text exposition format, version 0.0.4.

use std::collections::HashMap;
use std::fmt::{Display, Write};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;

/// What a page of metrics is sent as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of a histogram's ranges, microseconds; one more range takes what is above them all.
pub const BUCKETS_MICROS: [u64; 15] =
    [2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];

/// How long something took, counted by range.
#[derive(Debug, Default)]
pub struct Histogram {
    ranges: [Counter; BUCKETS_MICROS.len() + 1],
    micros: Counter,
}

impl Histogram {
    /// Counts one more.
    pub fn observe(&self, micros: u64) {
        let range = BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        self.ranges[range].inc();
        self.micros.add(micros);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(Counter::get).sum()
    }

    /// The sum of their times.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.micros.get())
    }

    /// The bound, in microseconds, that so large a part (0 to 1) of them stayed within; `None` when there is none, or
    /// when it lies above all bounds.
    pub fn within(&self, part: f64) -> Option<u64> {
        let wanted = self.count() as f64 * part;
        let mut seen = 0;
        let mut bounds = BUCKETS_MICROS.iter().zip(&self.ranges);
        let bound = bounds.find(|(_, range)| {
            seen += range.get();
            seen > 0 && seen as f64 >= wanted
        });
        bound.map(|(bound, _)| *bound)
    }
}

/// One `V` for each name that turns up. Finding one that is there takes no lock.
#[derive(Debug)]
pub struct Family<K, V>(ArcSwap<HashMap<K, Arc<V>>>);

impl<K, V> Default for Family<K, V> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<K: Clone + Eq + Hash, V: Default> Family<K, V> {
    /// That of a name, made where it is new.
    pub fn of(&self, name: &K) -> Arc<V> {
        if let Some(known) = self.0.load().get(name) {
            return known.clone();
        }
        let new = Arc::new(V::default());
        self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.entry(name.clone()).or_insert_with(|| new.clone());
            all
        });
        // Somebody else may have been first.
        self.0.load().get(name).cloned().unwrap_or(new)
    }

    /// All, by name.
    pub fn all(&self) -> Vec<(K, Arc<V>)>
    where
        K: Ord,
    {
        let mut all: Vec<_> =
            self.0.load().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// A page of metrics as Prometheus reads it.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// A number that only grows; its name ends in `_total`.
    pub fn counter<'a>(&'a mut self, name: &'a str, help: &str) -> Samples<'a> {
        self.metric(name, "counter", help)
    }

    /// A number that goes up and down.
    pub fn gauge<'a>(&'a mut self, name: &'a str, help: &str) -> Samples<'a> {
        self.metric(name, "gauge", help)
    }

    /// Times by range, in seconds.
    pub fn histogram<'a>(&'a mut self, name: &'a str, help: &str) -> Samples<'a> {
        self.metric(name, "histogram", help)
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn metric<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Samples<'a> {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        put(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Samples { text: &mut self.0, name }
    }
}

/// The values of one metric.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Samples<'_> {
    /// A value, told apart from others by its labels.
    pub fn add(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// A histogram, told apart from others by its labels.
    pub fn add_histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) -> &mut Self {
        let mut sum = 0;
        for (bound, range) in BUCKETS_MICROS.iter().zip(&histogram.ranges) {
            sum += range.get();
            let bound = seconds(Duration::from_micros(*bound));
            self.line("_bucket", labels, Some(("le", &bound)), sum);
        }
        // Read once: the count must be that of the last range, whatever is counted meanwhile.
        sum += histogram.ranges.last().map_or(0, Counter::get);
        self.line("_bucket", labels, Some(("le", "+Inf")), sum);
        self.line("_sum", labels, None, seconds(histogram.total()));
        self.line("_count", labels, None, sum);
        self
    }

    fn line(
        &mut self,
        ending: &str,
        labels: &[(&str, &str)],
        more: Option<(&str, &str)>,
        value: impl Display,
    ) {
        put(self.text, format_args!("{}{ending}", self.name));
        let mut before = '{';
        for (label, value) in labels.iter().copied().chain(more) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            put(self.text, format_args!("{before}{label}=\"{value}\""));
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        put(self.text, format_args!("{end} {value}\n"));
    }
}

/// Seconds as Prometheus wants them, without an exponent.
pub fn seconds(span: Duration) -> String {
    let text = format!("{}.{:06}", span.as_secs(), span.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_prometheus_wants_it() {
        let mut page = Page::default();
        page.counter("x_total", "What\nhappened.")
            .add(&[], 3)
            .add(&[("script", "a\"b\\c\nd.rhai"), ("kind", "time")], 4);
        let took = Histogram::default();
        for micros in [1, 2, 3, 60_000, 3_000_000] {
            took.observe(micros);
        }
        page.histogram("took_seconds", "Time.").add_histogram(&[("of", "y")], &took);
        let text = page.into_text();
        for line in [
            "# HELP x_total What\\nhappened.",
            "# TYPE x_total counter",
            "x_total 3",
            "x_total{script=\"a\\\"b\\\\c\\nd.rhai\",kind=\"time\"} 4",
            "# TYPE took_seconds histogram",
            "took_seconds_bucket{of=\"y\",le=\"0.000002\"} 2",
            "took_seconds_bucket{of=\"y\",le=\"0.000005\"} 3",
            "took_seconds_bucket{of=\"y\",le=\"0.05\"} 3",
            "took_seconds_bucket{of=\"y\",le=\"0.1\"} 4",
            "took_seconds_bucket{of=\"y\",le=\"+Inf\"} 5",
            "took_seconds_sum{of=\"y\"} 3.060006",
            "took_seconds_count{of=\"y\"} 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_histogram_says_what_most_stayed_within() {
        let took = Histogram::default();
        assert_eq!((took.within(0.5), took.count()), (None, 0));
        (0..99).for_each(|_| took.observe(4));
        took.observe(999_999);
        assert_eq!((took.within(0.5), took.within(0.99), took.within(1.0)), (Some(5), Some(5), None));
    }

    #[test]
    fn a_family_has_one_for_each_name_whoever_comes_first() {
        let family: Family<String, Counter> = Family::default();
        let names: Vec<String> = (0..50).map(|n| format!("n{n}")).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| names.iter().for_each(|name| family.of(name).inc()));
            }
        });
        let all = family.all();
        assert_eq!(all.len(), 50);
        assert!(all.iter().all(|(_, count)| count.get() == 4), "{all:?}");
    }

    #[test]
    fn seconds_have_no_exponent() {
        for (micros, text) in [(0, "0"), (5, "0.000005"), (1_500_000, "1.5"), (10_000_000, "10")] {
            assert_eq!(seconds(Duration::from_micros(micros)), text);
        }
    }
}
