//! The index of waiting recipients: what is due when, what is being attempted, what is held.
//!
//! Small for each recipient (hashes instead of addresses, no bodies), and every step costs O(log n) at most. A recipient's place in
//! the heap may be out of date after a kick or a hold; the table says what holds, and stale places are skipped.
//!
//! Who takes a recipient gets a [`Turn`]. It is good until the recipient is put back or somebody else takes it: an
//! operator may take one that waits in line for a slot, and when its turn would have come, that turn is over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use jiff::Timestamp;

use crate::names::QueueId;
use crate::spool::Labels;

/// A recipient of a message in the queue: its index in the envelope.
pub type Key = (QueueId, u32);

/// The right to attempt a recipient, or to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which.
    pub key: Key,
    /// Counts how often the recipient was taken.
    pub number: u32,
}

/// Where a recipient is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the queue, until it is due.
    Waits,
    /// It is due: its way is being chosen, or it stands in line for a slot.
    InLine,
    /// An attempt runs, or the operator is taking it out.
    UnderWay,
}

/// What the queue knows about a waiting recipient without reading the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// When the next attempt is due.
    pub due: Timestamp,
    /// Attempts made.
    pub attempts: u32,
    /// Not tried until the operator lets it go.
    pub held: bool,
    /// Not tried as long as there is this hold rule.
    pub rule: Option<u32>,
    /// Where it is.
    pub place: Place,
    /// It stands in the line of this transport.
    pub in_line: Option<Line>,
    /// Of the one who took it last.
    pub turn: u32,
    /// The accepting record says that attempt 1 has begun; whether it has is known here alone.
    pub started: bool,
    /// Whose mail it is; where they are missing (an early version's record), the message must be read.
    pub labels: Option<Labels>,
}

impl Entry {
    /// One that was not taken yet.
    pub fn new(due: Timestamp, attempts: u32) -> Self {
        Self {
            due,
            attempts,
            held: false,
            rule: None,
            place: Place::Waits,
            in_line: None,
            turn: 0,
            started: false,
            labels: None,
        }
    }

    /// Whether the operator, or a rule of theirs, keeps it back.
    pub fn is_held(&self) -> bool {
        self.held || self.rule.is_some()
    }

    /// The record says that its first attempt has begun, but it has not.
    pub fn is_unbegun(&self) -> bool {
        self.started && self.attempts == 0 && self.place != Place::UnderWay
    }

    fn is_ready(&self) -> bool {
        self.place == Place::Waits && !self.is_held()
    }
}

/// A transport's line, by number: names would be too much to keep for each recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line(u16);

/// All waiting recipients.
#[derive(Debug, Default)]
pub struct Due {
    heap: BinaryHeap<Reverse<(Timestamp, Key)>>,
    entries: BTreeMap<Key, Entry>,
    /// Transports that ever had a line.
    lines: Vec<Arc<str>>,
}

impl Due {
    /// Recipients in the queue.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The last message.
    pub fn last(&self) -> Option<QueueId> {
        self.entries.last_key_value().map(|(key, _)| key.0)
    }

    /// What is known about a recipient.
    pub fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// Recipients after `after`, in order of queue id.
    pub fn after(&self, after: Option<Key>) -> impl Iterator<Item = (&Key, &Entry)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.entries.range((after.map_or(Unbounded, Excluded), Unbounded))
    }

    /// The recipients of one message.
    pub fn of_message(&self, id: QueueId) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range((id, 0)..=(id, u32::MAX))
    }

    /// Adds or replaces a recipient.
    pub fn put(&mut self, key: Key, entry: Entry) {
        self.entries.insert(key, entry);
        if entry.is_ready() {
            self.heap.push(Reverse((entry.due, key)));
        }
    }

    /// Whether this turn is still good.
    pub fn has(&self, turn: Turn) -> bool {
        self.taken(turn).is_some()
    }

    fn taken(&self, turn: Turn) -> Option<Entry> {
        let entry = self.entries.get(&turn.key).copied();
        entry.filter(|entry| entry.turn == turn.number && entry.place != Place::Waits)
    }

    /// A recipient whose attempt ended, or was not made, goes back into the queue; not if its turn is over. A hold that
    /// was set meanwhile holds.
    pub fn put_back(&mut self, turn: Turn, due: Timestamp, attempts: u32) {
        if let Some(entry) = self.taken(turn) {
            self.put(turn.key, Entry { due, attempts, place: Place::Waits, in_line: None, ..entry });
        }
    }

    /// Takes a recipient out of the queue for good, if the turn is good.
    pub fn remove(&mut self, turn: Turn) {
        if self.has(turn) {
            self.entries.remove(&turn.key);
        }
    }

    /// Changes when a recipient is due, and whether it is held. One that is being attempted takes only the hold; one in
    /// line leaves it if its time is yet to come.
    pub fn change(&mut self, key: Key, due: Option<Timestamp>, held: Option<bool>, now: Timestamp) {
        let Some(mut entry) = self.entries.get(&key).copied() else { return };
        let leaves = |due: &Timestamp| entry.place == Place::InLine && *due > now;
        if due.as_ref().is_some_and(leaves) {
            (entry.place, entry.in_line) = (Place::Waits, None);
        }
        let due = due.filter(|_| entry.place == Place::Waits).unwrap_or(entry.due);
        self.put(key, Entry { due, held: held.unwrap_or(entry.held), ..entry });
    }

    /// A rule keeps a recipient back from now on: at once, or after the attempt that runs. False when one runs.
    pub fn hold_by_rule(&mut self, key: Key, rule: u32) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else { return true };
        entry.rule = Some(rule);
        if entry.place == Place::InLine {
            (entry.place, entry.in_line) = (Place::Waits, None);
        }
        entry.place == Place::Waits
    }

    /// Lets go what a rule kept back, among the next `limit` recipients after `after`; where to go on, `None` at the end.
    pub fn release_rule(&mut self, rule: u32, after: Option<Key>, limit: usize) -> Option<Key> {
        let (keys, mut last) = (self.after(after).take(limit), None);
        let mut released = Vec::new();
        for (seen, (key, entry)) in keys.enumerate() {
            if entry.rule == Some(rule) {
                released.push((*key, Entry { rule: None, ..*entry }));
            }
            last = Some(*key).filter(|_| seen + 1 == limit);
        }
        for (key, entry) in released {
            self.put(key, entry);
        }
        last
    }

    /// Takes a recipient that is not being attempted, so that nobody begins to.
    pub fn claim(&mut self, key: Key) -> Option<Turn> {
        let entry = self.entries.get_mut(&key).filter(|entry| entry.place != Place::UnderWay)?;
        (entry.place, entry.in_line) = (Place::UnderWay, None);
        entry.turn = entry.turn.wrapping_add(1);
        Some(Turn { key, number: entry.turn })
    }

    /// The slot is there, the attempt begins: true unless the turn is over, or the recipient is held by now and so goes
    /// back.
    pub fn begin(&mut self, turn: Turn) -> bool {
        let Some(entry) = self.entries.get_mut(&turn.key) else { return false };
        if entry.turn != turn.number || entry.place != Place::InLine {
            return false;
        }
        entry.in_line = None;
        entry.place = if entry.is_held() { Place::Waits } else { Place::UnderWay };
        entry.place == Place::UnderWay
    }

    /// Recipients that were taken stand in a transport's line from now on.
    pub fn put_in_line(&mut self, turns: impl Iterator<Item = Turn>, transport: &Arc<str>) {
        let known = self.lines.iter().position(|name| name == transport);
        let number = known.unwrap_or_else(|| {
            self.lines.push(transport.clone());
            self.lines.len() - 1
        });
        let line = u16::try_from(number).ok().map(Line);
        for turn in turns {
            let entry = self.entries.get_mut(&turn.key);
            if let Some(entry) = entry.filter(|e| e.turn == turn.number && e.place == Place::InLine) {
                entry.in_line = line;
            }
        }
    }

    /// The transport of a line.
    pub fn transport(&self, line: Line) -> Option<&Arc<str>> {
        self.lines.get(usize::from(line.0))
    }

    /// When the next recipient is due.
    pub fn next_due(&mut self) -> Option<Timestamp> {
        self.skip_stale();
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes what is due, at most `limit` recipients, but all those of a message that are due at the same time; they are
    /// in line from now on.
    pub fn take(&mut self, now: Timestamp, limit: usize) -> Vec<Turn> {
        let mut taken: Vec<Turn> = Vec::new();
        loop {
            self.skip_stale();
            let Some(Reverse((due, key))) = self.heap.peek().copied() else { break };
            let same_message = taken.last().is_some_and(|turn| turn.key.0 == key.0);
            if due > now || (taken.len() >= limit && !same_message) {
                break;
            }
            self.heap.pop();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::InLine;
                entry.turn = entry.turn.wrapping_add(1);
                taken.push(Turn { key, number: entry.turn });
            }
        }
        taken
    }

    fn skip_stale(&mut self) {
        while let Some(Reverse((due, key))) = self.heap.peek() {
            if self.entries.get(key).is_some_and(|e| e.is_ready() && e.due == *due) {
                return;
            }
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn waiting(due: i64) -> Entry {
        Entry::new(at(due), 1)
    }

    fn key(id: u64, recipient: u32) -> Key {
        (QueueId(id), recipient)
    }

    fn keys(turns: &[Turn]) -> Vec<Key> {
        turns.iter().map(|turn| turn.key).collect()
    }

    /// With one recipient that has been taken and stands in line.
    fn in_line() -> (Due, Turn) {
        let mut due = Due::default();
        due.put(key(1, 0), waiting(1));
        let turn = due.take(at(1), 1)[0];
        (due, turn)
    }

    #[test]
    fn what_is_due_first_is_taken_first_and_only_once() {
        let mut due = Due::default();
        due.put(key(1, 0), waiting(30));
        due.put(key(2, 0), waiting(10));
        due.put(key(3, 0), waiting(20));
        assert_eq!(due.next_due(), Some(at(10)));
        assert_eq!(due.take(at(9), 10), []);
        let taken = due.take(at(20), 10);
        assert_eq!(keys(&taken), [key(2, 0), key(3, 0)]);
        assert_eq!(due.take(at(20), 10), [], "they are in line");
        due.put_back(taken[0], at(40), 2);
        due.remove(taken[1]);
        due.put_back(taken[1], at(1), 2);
        assert_eq!(keys(&due.take(at(99), 10)), [key(1, 0), key(2, 0)], "what was removed stays gone");
    }

    #[test]
    fn recipients_of_a_message_due_together_are_taken_together() {
        let mut due = Due::default();
        for recipient in 0..5 {
            due.put(key(1, recipient), waiting(10));
            due.put(key(2, recipient), waiting(10));
        }
        assert_eq!(due.take(at(10), 2).len(), 5);
        assert_eq!(due.take(at(10), 2).len(), 5);
    }

    #[test]
    fn a_kick_brings_forward_and_a_hold_keeps_back() {
        let mut due = Due::default();
        due.put(key(1, 0), waiting(1000));
        due.change(key(1, 0), Some(at(5)), None, at(5));
        due.change(key(1, 0), None, Some(true), at(5));
        assert_eq!((due.next_due(), due.take(at(2000), 9).len()), (None, 0), "held");
        due.change(key(1, 0), None, Some(false), at(5));
        assert_eq!(keys(&due.take(at(5), 9)), [key(1, 0)]);
        assert_eq!(due.take(at(2000), 9), [], "the old place in the heap is stale");
    }

    #[test]
    fn what_is_claimed_is_not_taken_until_it_is_put_back() {
        let mut due = Due::default();
        due.put(key(1, 0), waiting(1));
        let claim = due.claim(key(1, 0)).unwrap();
        assert_eq!((due.claim(key(1, 0)), due.claim(key(2, 0))), (None, None), "claimed already; unknown");
        assert_eq!(due.take(at(9), 9), []);
        due.put_back(claim, at(2), 1);
        let turn = due.take(at(9), 9)[0];
        assert!(due.begin(turn));
        assert_eq!(due.claim(key(1, 0)), None, "an attempt is under way");
    }

    #[test]
    fn who_is_claimed_in_line_has_lost_the_turn() {
        let (mut due, turn) = in_line();
        let claim = due.claim(key(1, 0)).unwrap();
        assert!(!due.begin(turn) && !due.has(turn) && due.has(claim));
        due.put_back(claim, at(2), 1);
        let again = due.take(at(2), 1)[0];
        assert!(!due.begin(turn), "the old turn stays over");
        due.put_back(turn, at(99), 7);
        due.remove(turn);
        assert!(due.begin(again));
        assert!(!due.begin(again), "an attempt begins once");
    }

    #[test]
    fn who_is_scheduled_for_later_leaves_the_line() {
        let (mut due, turn) = in_line();
        due.change(key(1, 0), Some(at(5)), None, at(5));
        assert!(due.has(turn), "a kick does not cost its place in line");
        due.change(key(1, 0), Some(at(9)), None, at(5));
        assert!(!due.begin(turn));
        assert_eq!((due.take(at(8), 1), keys(&due.take(at(9), 1))), (vec![], vec![key(1, 0)]));
    }

    #[test]
    fn a_hold_in_line_holds_when_the_turn_comes() {
        let (mut due, turn) = in_line();
        due.change(key(1, 0), None, Some(true), at(1));
        assert!(!due.begin(turn));
        assert_eq!(due.take(at(9), 1), []);
        due.change(key(1, 0), None, Some(false), at(1));
        assert_eq!(keys(&due.take(at(9), 1)), [key(1, 0)]);
    }

    #[test]
    fn who_stands_in_line_is_known_until_the_turn_comes() {
        let mut due = Due::default();
        let (slow, fast): (Arc<str>, Arc<str>) = ("slow".into(), "fast".into());
        due.put(key(1, 0), waiting(1));
        due.put(key(1, 1), waiting(1));
        let turns = due.take(at(1), 9);
        due.put_in_line([turns[0]].into_iter(), &slow);
        due.put_in_line([turns[1], Turn { key: key(9, 9), number: 1 }].into_iter(), &fast);
        let line =
            |due: &Due, key| due.get(key).unwrap().in_line.and_then(|line| due.transport(line).cloned());
        assert_eq!((line(&due, key(1, 0)), line(&due, key(1, 1))), (Some(slow.clone()), Some(fast)));
        assert!(due.begin(turns[0]));
        due.put_back(turns[1], at(2), 1);
        due.put_in_line([turns[1]].into_iter(), &slow);
        assert_eq!((line(&due, key(1, 0)), line(&due, key(1, 1))), (None, None));
    }

    #[test]
    fn a_hold_during_an_attempt_holds_after_it() {
        for by_rule in [false, true] {
            let (mut due, turn) = in_line();
            assert!(due.begin(turn));
            if by_rule {
                assert!(!due.hold_by_rule(key(1, 0), 7), "an attempt runs");
            } else {
                due.change(key(1, 0), Some(at(0)), Some(true), at(0));
            }
            assert_eq!(due.take(at(9), 1), [], "still under way");
            due.put_back(turn, at(2), 2);
            assert_eq!(due.take(at(9), 1), [], "held");
        }
    }

    #[test]
    fn a_rule_that_goes_lets_go_what_it_alone_held() {
        let mut due = Due::default();
        for id in 1..=5 {
            due.put(key(id, 0), waiting(1));
        }
        for id in [1, 2, 5] {
            assert!(due.hold_by_rule(key(id, 0), 7));
        }
        assert!(due.hold_by_rule(key(3, 0), 8));
        due.change(key(2, 0), None, Some(true), at(1));
        assert_eq!(keys(&due.take(at(9), 9)), [key(4, 0)]);
        let mut after = None;
        let steps = std::iter::from_fn(|| {
            after = due.release_rule(7, after, 2);
            after
        });
        assert_eq!(steps.count(), 2, "two recipients a step, five of them");
        assert_eq!(keys(&due.take(at(9), 9)), [key(1, 0), key(5, 0)]);
    }
}
