//! SEARCH: whether a message is what is looked for.
//!
//! RFC 9051 §6.4.4, RFC 3501 §6.4.4 (NEW, OLD, RECENT), RFC 5032 (OLDER, YOUNGER), RFC 7162 §3.1.5 (MODSEQ). Pure. A key
//! is asked with as much of the message as there is at hand: it answers yes, no, or that it needs more, so that a
//! message is read only when its row does not decide.

mod words;

use std::collections::HashSet;

use imap_types::search::SearchKey;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::fetch::{Needs, Text};
use super::view::View;
use crate::store::{Keyword, MessageRow, SystemFlag};

/// A search that has been made ready for one mailbox.
#[derive(Debug)]
pub enum Query {
    All(Vec<Query>),
    Either(Box<Query>, Box<Query>),
    Not(Box<Query>),
    Const(bool),
    /// Sequence numbers.
    Numbers(HashSet<u32>),
    Flag(SystemFlag),
    Keyword(Keyword),
    /// INTERNALDATE: from, before.
    Received(Option<Date>, Option<Date>),
    /// The Date field: from, before.
    Sent(Option<Date>, Option<Date>),
    /// INTERNALDATE after this moment.
    YoungerThan(Timestamp),
    Larger(u64),
    Smaller(u64),
    ModSeq(u64),
    /// A field and what it holds, folded by [`words::fold`].
    Header(String, String),
    Body(String),
    Text(String),
}

/// A message as far as it is at hand.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its sequence number.
    pub number: u32,
    /// What the view knows.
    pub row: &'a MessageRow,
    /// The message, or its header, as `have` says.
    pub text: Option<&'a Text>,
    /// How much of the message there is.
    pub have: Needs,
}

impl Query {
    /// Makes keys ready: sets become sequence numbers, strings are folded. `now` is for OLDER and YOUNGER.
    pub fn new(keys: &[SearchKey<'_>], view: &View, now: Timestamp) -> Self {
        let mut all: Vec<Self> = keys.iter().map(|key| one(key, view, now)).collect();
        // What is cheap decides first.
        all.sort_by_key(Self::cost);
        Self::All(all)
    }

    /// How much of a message it takes at most.
    pub fn cost(&self) -> Needs {
        match self {
            Self::All(all) => all.iter().map(Self::cost).max().unwrap_or(Needs::Row),
            Self::Either(a, b) => a.cost().max(b.cost()),
            Self::Not(inner) => inner.cost(),
            Self::Header(..) | Self::Sent(..) => Needs::Header,
            Self::Body(_) | Self::Text(_) => Needs::Content,
            _ => Needs::Row,
        }
    }

    /// Whether the message fits; `None` when that takes more of it than there is.
    pub fn decide(&self, candidate: &Candidate<'_>) -> Option<bool> {
        let row = candidate.row;
        match self {
            Self::All(all) => {
                let mut open = false;
                for query in all {
                    match query.decide(candidate) {
                        Some(false) => return Some(false),
                        Some(true) => {}
                        None => open = true,
                    }
                }
                (!open).then_some(true)
            }
            Self::Either(a, b) => match (a.decide(candidate), b.decide(candidate)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::Not(inner) => inner.decide(candidate).map(|found| !found),
            Self::Const(answer) => Some(*answer),
            Self::Numbers(numbers) => Some(numbers.contains(&candidate.number)),
            Self::Flag(flag) => Some(row.flags.contains(*flag)),
            Self::Keyword(keyword) => Some(row.flags.contains_keyword(keyword)),
            Self::Received(from, before) => {
                Some(within(row.internal_date.to_zoned(TimeZone::UTC).date(), *from, *before))
            }
            Self::YoungerThan(moment) => Some(row.internal_date > *moment),
            Self::Larger(size) => Some(row.size > *size),
            Self::Smaller(size) => Some(row.size < *size),
            Self::ModSeq(modseq) => Some(row.modseq >= *modseq),
            Self::Sent(..) | Self::Header(..) => {
                (candidate.have >= Needs::Header).then(|| self.in_header(candidate.text))
            }
            Self::Body(needle) => (candidate.have >= Needs::Content)
                .then(|| candidate.text.is_some_and(|t| words::body_has(t, needle))),
            Self::Text(needle) => {
                let header = |text: &Text| words::header_text_has(text.header(), needle);
                let found = |text: &Text| header(text) || words::body_has(text, needle);
                (candidate.have >= Needs::Content).then(|| candidate.text.is_some_and(found))
            }
        }
    }

    fn in_header(&self, text: Option<&Text>) -> bool {
        let Some(text) = text else { return false };
        match self {
            Self::Header(name, needle) => words::field_has(text.header(), name, needle),
            Self::Sent(from, before) => {
                words::sent_date(text.header()).is_some_and(|date| within(date, *from, *before))
            }
            _ => false,
        }
    }
}

fn within(date: Date, from: Option<Date>, before: Option<Date>) -> bool {
    from.is_none_or(|from| date >= from) && before.is_none_or(|before| date < before)
}

fn one(key: &SearchKey<'_>, view: &View, now: Timestamp) -> Query {
    let flag = Query::Flag;
    let not = |query| Query::Not(Box::new(query));
    let header = |name: &str, needle: &[u8]| Query::Header(name.to_owned(), words::fold(needle));
    match key {
        SearchKey::And(keys) => Query::new(keys.as_ref(), view, now),
        SearchKey::Or(a, b) => Query::Either(Box::new(one(a, view, now)), Box::new(one(b, view, now))),
        SearchKey::Not(inner) => not(one(inner, view, now)),
        SearchKey::All => Query::Const(true),
        SearchKey::SequenceSet(set) => Query::Numbers(view.resolve_lenient(set, false).into_iter().collect()),
        SearchKey::Uid(set) => Query::Numbers(view.resolve_lenient(set, true).into_iter().collect()),
        SearchKey::Answered => flag(SystemFlag::Answered),
        SearchKey::Deleted => flag(SystemFlag::Deleted),
        SearchKey::Draft => flag(SystemFlag::Draft),
        SearchKey::Flagged => flag(SystemFlag::Flagged),
        SearchKey::Seen => flag(SystemFlag::Seen),
        SearchKey::Unanswered => not(flag(SystemFlag::Answered)),
        SearchKey::Undeleted => not(flag(SystemFlag::Deleted)),
        SearchKey::Undraft => not(flag(SystemFlag::Draft)),
        SearchKey::Unflagged => not(flag(SystemFlag::Flagged)),
        SearchKey::Unseen => not(flag(SystemFlag::Seen)),
        // Nothing is \Recent here: a flag that each message has in one session only helps nobody (RFC 9051 appendix E
        // takes it out).
        SearchKey::New | SearchKey::Recent => Query::Const(false),
        SearchKey::Old => Query::Const(true),
        SearchKey::Keyword(word) => keyword(word.inner()),
        SearchKey::Unkeyword(word) => not(keyword(word.inner())),
        SearchKey::Larger(size) => Query::Larger(u64::from(*size)),
        SearchKey::Smaller(size) => Query::Smaller(u64::from(*size)),
        SearchKey::Before(date) => before(Query::Received, &date.as_ref().to_string()),
        SearchKey::On(date) => on(Query::Received, &date.as_ref().to_string()),
        SearchKey::Since(date) => since(Query::Received, &date.as_ref().to_string()),
        SearchKey::SentBefore(date) => before(Query::Sent, &date.as_ref().to_string()),
        SearchKey::SentOn(date) => on(Query::Sent, &date.as_ref().to_string()),
        SearchKey::SentSince(date) => since(Query::Sent, &date.as_ref().to_string()),
        SearchKey::Older(seconds) => not(Query::YoungerThan(ago(now, seconds.get()))),
        SearchKey::Younger(seconds) => Query::YoungerThan(ago(now, seconds.get())),
        SearchKey::ModSequence { modseq, .. } => Query::ModSeq(*modseq),
        SearchKey::Bcc(text) => header("Bcc", text.as_ref()),
        SearchKey::Cc(text) => header("Cc", text.as_ref()),
        SearchKey::From(text) => header("From", text.as_ref()),
        SearchKey::To(text) => header("To", text.as_ref()),
        SearchKey::Subject(text) => header("Subject", text.as_ref()),
        SearchKey::Header(name, text) => header(&String::from_utf8_lossy(name.as_ref()), text.as_ref()),
        SearchKey::Body(text) => Query::Body(words::fold(text.as_ref())),
        SearchKey::Text(text) => Query::Text(words::fold(text.as_ref())),
    }
}

/// Whether a search asks for MODSEQ, which makes its answer tell one too (RFC 7162 §3.1.5).
pub fn asks_modseq(keys: &[SearchKey<'_>]) -> bool {
    keys.iter().any(|key| match key {
        SearchKey::ModSequence { .. } => true,
        SearchKey::And(keys) => asks_modseq(keys.as_ref()),
        SearchKey::Not(inner) => asks_modseq(std::slice::from_ref(&**inner)),
        SearchKey::Or(a, b) => {
            asks_modseq(std::slice::from_ref(&**a)) || asks_modseq(std::slice::from_ref(&**b))
        }
        _ => false,
    })
}

fn keyword(word: &str) -> Query {
    Keyword::new(word).map_or(Query::Const(false), Query::Keyword)
}

fn ago(now: Timestamp, seconds: u32) -> Timestamp {
    now.checked_sub(jiff::SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MIN)
}

type Between = fn(Option<Date>, Option<Date>) -> Query;

// imap-codec gives dates of another crate; ISO 8601 is what both know. A date out of our range (year 10,000) is in the
// future of all mail.

fn before(between: Between, date: &str) -> Query {
    date.parse().map_or(Query::Const(true), |date| between(None, Some(date)))
}

fn since(between: Between, date: &str) -> Query {
    date.parse().map_or(Query::Const(false), |date| between(Some(date), None))
}

fn on(between: Between, date: &str) -> Query {
    date.parse().map_or(Query::Const(false), |date: Date| between(Some(date), date.tomorrow().ok()))
}

#[cfg(test)]
#[path = "../tests/search.rs"]
mod tests;
