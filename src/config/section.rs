//! Reads one table of the configuration, key by key, and remembers all that is wrong on the way.
//!
//! A reader asks a [`Section`] for each key it knows, and at the end for [`Section::finish`], which reports the keys
//! that nobody asked for, with the nearest known one. Whatever cannot be read is reported where it stands and comes
//! back as `None`, so that reading goes on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Problem;
use super::units::{DURATION_FORM, NEVER, SIZE_FORM, parse_duration, parse_size};

/// What all sections share: where problems go, and what paths are relative to.
pub(crate) struct Reader {
    problems: RefCell<Vec<Problem>>,
    /// Relative paths begin here.
    base: PathBuf,
}

impl Reader {
    pub(crate) fn new(base: &Path) -> Self {
        Self { problems: RefCell::default(), base: base.to_owned() }
    }

    pub(crate) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// How many problems were reported so far.
    pub(crate) fn problem_count(&self) -> usize {
        self.problems.borrow().len()
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) place: Range<usize>,
}

/// One table.
pub(crate) struct Section<'a> {
    pub(crate) reader: &'a Reader,
    /// As messages name it: `[limits]`, or `the configuration`.
    title: String,
    /// Its header, for what is missing in it.
    pub(crate) place: Range<usize>,
    table: Option<&'a DeTable<'a>>,
    known: BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(
        reader: &'a Reader,
        title: impl Into<String>,
        place: Range<usize>,
        table: &'a DeTable<'a>,
    ) -> Self {
        Self { reader, title: title.into(), place, table: Some(table), known: BTreeSet::new() }
    }

    /// A table that is not there: every key has its default.
    fn absent(reader: &'a Reader, title: &str) -> Self {
        Self { reader, title: title.to_owned(), place: 0..0, table: None, known: BTreeSet::new() }
    }

    /// Whether a key is there, without reading it.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether the table itself is there.
    pub(crate) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The value of a key; the key is known from now on.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.insert(key);
        self.table?.get(key)
    }

    /// All entries, in the order of the file: for tables whose keys are names that the operator chose.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Range<usize>, &'a Spanned<DeValue<'a>>)> {
        let entries = self.table.map(DeTable::iter).into_iter().flatten();
        let mut all: Vec<_> =
            entries.map(|(key, value)| (key.get_ref().as_ref(), key.span(), value)).collect();
        all.sort_by_key(|(_, place, _)| place.start);
        all
    }

    /// Reads a key with a function that says what is wrong with the value.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&'a DeValue<'a>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.get(key)?;
        read_value(self.reader, key, expected, value, read)
    }

    /// Text that a function understands.
    pub(crate) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.read(key, expected, |value| parse_text(value, parse))
    }

    /// Text that a function understands, and where it stands.
    pub(crate) fn placed<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Placed<T>> {
        let place = self.get(key)?.span();
        self.parsed(key, expected, parse).map(|value| Placed { value, place })
    }

    /// An array of text that a function understands, each with its place. A single text is taken for an array of one.
    pub(crate) fn list<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<Placed<T>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let items: Vec<_> =
            value.get_ref().as_array().map_or_else(|| vec![value], |array| array.iter().collect());
        let read = |item: &&'a Spanned<DeValue<'a>>| {
            let value = read_value(self.reader, key, expected, item, |value| parse_text(value, &parse))?;
            Some(Placed { value, place: item.span() })
        };
        items.iter().filter_map(read).collect()
    }

    /// A path, relative to the configuration file.
    pub(crate) fn path(&mut self, key: &'static str) -> Option<Placed<PathBuf>> {
        let reader = self.reader;
        self.placed(key, "a path", |text| {
            if text.is_empty() || text.contains('\0') {
                Err("a path cannot be empty")
            } else {
                Ok(reader.path(text))
            }
        })
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let expected = "true or false";
        self.read(key, expected, |value| value.as_bool().ok_or(Wrong::Kind)).unwrap_or(default)
    }

    /// A duration.
    pub(crate) fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        self.read(key, DURATION_FORM, read_duration).unwrap_or(default)
    }

    /// A duration, or `false` or `"off"`.
    pub(crate) fn duration_or_off(
        &mut self,
        key: &'static str,
        default: Option<Duration>,
    ) -> Option<Duration> {
        self.or_off(key, DURATION_FORM, default, read_duration)
    }

    /// A duration that the server wants as a number: switched off, it is ten years.
    pub(crate) fn duration_or_never(&mut self, key: &'static str, default: Duration) -> Duration {
        self.duration_or_off(key, Some(default)).unwrap_or(NEVER)
    }

    /// A size in bytes.
    pub(crate) fn size(&mut self, key: &'static str, default: u64) -> u64 {
        self.read(key, SIZE_FORM, read_size).unwrap_or(default)
    }

    /// A size in bytes, or `false` or `"off"`.
    pub(crate) fn size_or_off(&mut self, key: &'static str, default: Option<u64>) -> Option<u64> {
        self.or_off(key, SIZE_FORM, default, read_size)
    }

    /// A whole number from a range.
    pub(crate) fn number(
        &mut self,
        key: &'static str,
        default: u64,
        allowed: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        let expected = number_form(&allowed);
        self.read(key, &expected, |value| read_number(value, &allowed)).unwrap_or(default)
    }

    /// A whole number from a range, or `false` or `"off"`.
    pub(crate) fn number_or_off(
        &mut self,
        key: &'static str,
        default: Option<u64>,
        allowed: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        self.or_off(key, &number_form(&allowed), default, |value| read_number(value, &allowed))
    }

    /// A number with or without a fraction from a range.
    pub(crate) fn fraction(
        &mut self,
        key: &'static str,
        default: f64,
        allowed: std::ops::RangeInclusive<f64>,
    ) -> f64 {
        let expected = format!("a number from {} to {}", allowed.start(), allowed.end());
        let read = |value: &DeValue<'_>| {
            let number = match (value.as_integer(), value.as_float()) {
                (Some(integer), _) => integer.as_str().parse::<f64>().ok(),
                (None, Some(float)) => float.as_str().parse::<f64>().ok(),
                (None, None) => None,
            };
            number
                .ok_or(Wrong::Kind)
                .and_then(|n| if allowed.contains(&n) { Ok(n) } else { Err(Wrong::Value(None)) })
        };
        self.read(key, &expected, read).unwrap_or(default)
    }

    fn or_off<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        default: Option<T>,
        read: impl FnOnce(&'a DeValue<'a>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let expected = format!("{expected}, or \"off\"");
        if !self.has(key) {
            self.get(key);
            return default;
        }
        let off = |value: &DeValue<'_>| value.as_bool() == Some(false) || value.as_str() == Some("off");
        self.read(key, &expected, |value| if off(value) { Ok(None) } else { read(value).map(Some) }).flatten()
    }

    /// A table inside this one; when it is missing, everything in it has its default.
    pub(crate) fn section(&mut self, key: &'static str, title: &str) -> Section<'a> {
        let Some(value) = self.get(key) else { return Section::absent(self.reader, title) };
        let place = self.key_place(key);
        let absent = || Section { place: place.clone(), ..Section::absent(self.reader, title) };
        self.reader.table(title, place.clone(), value).unwrap_or_else(absent)
    }

    /// Where a key stands, else the section's header.
    pub(crate) fn key_place(&self, key: &str) -> Range<usize> {
        let entry = self.table.and_then(|table| table.get_key_value(key));
        entry.map_or_else(|| self.place.clone(), |(key, _)| key.span())
    }

    /// Reports a key without which the section makes no sense.
    pub(crate) fn missing(&self, key: &str, example: &str) {
        if self.is_misspelt(key) {
            return;
        }
        let message = format!("{} has no `{key}`", self.title);
        self.reader.report(
            Problem::new(self.place.clone(), message, "expected in here")
                .help(format!("for example {example}")),
        );
    }

    /// Whether a key is there under a slightly wrong name, which [`Section::finish`] reports: one slip, one problem.
    pub(crate) fn is_misspelt(&self, key: &str) -> bool {
        !self.has(key)
            && self.entries().iter().any(|(name, ..)| nearest(name, std::iter::once(key)).is_some())
    }

    /// Reports the keys that nobody asked for.
    pub(crate) fn finish(self) {
        self.finish_with(&[]);
    }

    /// As [`Self::finish`], with help for keys that people guess: the guess, and what is right.
    pub(crate) fn finish_with(self, guesses: &[(&str, &str)]) {
        for (key, place, _) in self.entries().into_iter().filter(|(key, ..)| !self.known.contains(key)) {
            let message = format!("{} has no key `{key}`", self.title);
            let known: Vec<&str> = self.known.iter().copied().collect();
            let guess = guesses.iter().find(|(guess, _)| *guess == key);
            let help = match (guess, nearest(key, known.iter().copied())) {
                (Some((_, help)), _) => (*help).to_owned(),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("known here: {}", known.join(", ")),
            };
            self.reader.report(Problem::new(place, message, "unknown key").help(help));
        }
    }
}

impl Reader {
    /// A value that must be a table.
    pub(crate) fn table<'a>(
        &'a self,
        title: &str,
        place: Range<usize>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Option<Section<'a>> {
        match value.get_ref().as_table() {
            Some(table) => Some(Section::new(self, title, place, table)),
            None => {
                let message = format!("{title} must be a table");
                self.report(Problem::new(
                    value.span(),
                    message,
                    format!("this is {}", kind(value.get_ref())),
                ));
                None
            }
        }
    }
}

/// Why a value cannot be taken.
pub(crate) enum Wrong {
    /// Another kind of value is expected.
    Kind,
    /// The kind is right, the value is not; with a reason where there is more to say than what is expected.
    Value(Option<String>),
}

fn parse_text<T, E: std::fmt::Display>(
    value: &DeValue<'_>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Wrong> {
    let text = value.as_str().ok_or(Wrong::Kind)?;
    parse(text).map_err(|error| Wrong::Value(Some(error.to_string()).filter(|text| !text.is_empty())))
}

/// Reads one value; reports what is wrong with it under the name of its key.
pub(crate) fn read_value<'a, T>(
    reader: &Reader,
    key: &str,
    expected: &str,
    value: &'a Spanned<DeValue<'a>>,
    read: impl FnOnce(&'a DeValue<'a>) -> Result<T, Wrong>,
) -> Option<T> {
    let problem = match read(value.get_ref()) {
        Ok(value) => return Some(value),
        Err(Wrong::Kind) => {
            let message = format!("`{key}` cannot be {}", kind(value.get_ref()));
            Problem::new(value.span(), message, format!("expected {expected}"))
        }
        Err(Wrong::Value(None)) => Problem::new(
            value.span(),
            format!("`{key}` has a value that is not allowed"),
            format!("expected {expected}"),
        ),
        Err(Wrong::Value(Some(reason))) => {
            Problem::new(value.span(), format!("`{key}`: {reason}"), format!("expected {expected}"))
        }
    };
    reader.report(problem);
    None
}

fn read_duration(value: &DeValue<'_>) -> Result<Duration, Wrong> {
    if value.is_integer() {
        return Err(Wrong::Value(Some("a duration needs its unit".to_owned())));
    }
    parse_duration(value.as_str().ok_or(Wrong::Kind)?).ok_or(Wrong::Value(None))
}

pub(crate) fn read_size(value: &DeValue<'_>) -> Result<u64, Wrong> {
    if value.is_integer() {
        return read_number(value, &(0..=u64::MAX));
    }
    parse_size(value.as_str().ok_or(Wrong::Kind)?).ok_or(Wrong::Value(None))
}

pub(crate) fn read_number(
    value: &DeValue<'_>,
    allowed: &std::ops::RangeInclusive<u64>,
) -> Result<u64, Wrong> {
    let integer = value.as_integer().ok_or(Wrong::Kind)?;
    let number = u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix());
    number.ok().filter(|number| allowed.contains(number)).ok_or(Wrong::Value(None))
}

fn number_form(allowed: &std::ops::RangeInclusive<u64>) -> String {
    match (*allowed.start(), *allowed.end()) {
        (start, u64::MAX) => format!("a whole number, {start} or more"),
        (start, end) => format!("a whole number from {start} to {end}"),
    }
}

/// A value's kind, for messages.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The known name that a misspelt one most probably stands for.
pub fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let name = name.to_lowercase().replace('-', "_");
    let scored = known
        .map(|known| (strsim::damerau_levenshtein(&name, &known.to_lowercase().replace('-', "_")), known));
    // One slip in three characters; a name of one or two characters has no near ones but itself in other case.
    scored
        .filter(|(distance, known)| *distance <= known.chars().count().max(name.chars().count()) / 3)
        .min()
        .map(|(_, k)| k)
}

/// What to say about a word that is none of the known ones.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> String {
    match nearest(word, known) {
        Some(near) => format!("{word:?} is unknown; did you mean {near:?}?"),
        None => format!("{word:?} is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let known = ["hostname", "data_dir", "scripts_dir", "postmaster"];
        for (given, near) in [
            ("hostnmae", Some("hostname")),
            ("Hostname", Some("hostname")),
            ("data-dir", Some("data_dir")),
            ("script_dir", Some("scripts_dir")),
            ("port", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known.into_iter()), near, "{given:?}");
        }
    }
}
