//! The index of waiting recipients: what is due when, what is being attempted, what is held.
//!
//! Small for each recipient (no addresses, no bodies), and every step costs O(log n) at most. A recipient's place in
//! the heap may be out of date after a kick or a hold; the table says what holds, and stale places are skipped.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use jiff::Timestamp;

use crate::names::QueueId;

/// A recipient of a message in the queue: its index in the envelope.
pub type Key = (QueueId, u32);

/// What the queue knows about a waiting recipient without reading the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// When the next attempt is due.
    pub due: Timestamp,
    /// Attempts made.
    pub attempts: u32,
    /// Not tried until the operator lets it go.
    pub held: bool,
    /// An attempt runs, or waits in line for a slot.
    pub busy: bool,
    /// It waits in line: for this transport.
    pub in_line: Option<Line>,
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

impl Entry {
    /// A recipient that waits until it is due.
    pub fn waiting(due: Timestamp, attempts: u32, held: bool) -> Self {
        Self { due, attempts, held, busy: false, in_line: None }
    }
}

impl Due {
    /// Recipients in the queue.
    pub fn count(&self) -> usize {
        self.entries.len()
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
        if !entry.busy && !entry.held {
            self.heap.push(Reverse((entry.due, key)));
        }
    }

    /// A recipient whose attempt ended goes back into the queue; one that has gone meanwhile stays gone.
    /// A hold that was set during the attempt holds.
    pub fn put_back(&mut self, key: Key, due: Timestamp, attempts: u32) {
        if let Some(entry) = self.entries.get(&key).copied() {
            self.put(key, Entry::waiting(due, attempts, entry.held));
        }
    }

    /// Takes a recipient out of the queue for good.
    pub fn remove(&mut self, key: Key) -> Option<Entry> {
        self.entries.remove(&key)
    }

    /// Changes when a recipient is due, and whether it is held. One that is being attempted only takes the hold.
    pub fn change(&mut self, key: Key, due: Option<Timestamp>, held: Option<bool>) -> bool {
        let Some(entry) = self.entries.get(&key).copied() else { return false };
        let due = due.filter(|_| !entry.busy).unwrap_or(entry.due);
        self.put(key, Entry { due, held: held.unwrap_or(entry.held), ..entry });
        true
    }

    /// Takes a recipient as if for an attempt; false when somebody else has it.
    pub fn claim(&mut self, key: Key) -> bool {
        match self.entries.get_mut(&key) {
            Some(entry) if !entry.busy => {
                entry.busy = true;
                true
            }
            _ => false,
        }
    }

    /// Recipients that were taken stand in a transport's line from now on.
    pub fn put_in_line(&mut self, keys: impl Iterator<Item = Key>, transport: &Arc<str>) {
        let known = self.lines.iter().position(|name| name == transport);
        let number = known.unwrap_or_else(|| {
            self.lines.push(transport.clone());
            self.lines.len() - 1
        });
        let line = u16::try_from(number).ok().map(Line);
        for key in keys {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.in_line = line;
            }
        }
    }

    /// The turn of a recipient in line has come. Gives what is known about it.
    pub fn out_of_line(&mut self, key: Key) -> Option<&Entry> {
        let entry = self.entries.get_mut(&key)?;
        entry.in_line = None;
        Some(entry)
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

    /// Takes what is due, at most `limit` recipients, but all those of a message that are due at the same time;
    /// they count as busy from now on.
    pub fn take(&mut self, now: Timestamp, limit: usize) -> Vec<Key> {
        let mut taken: Vec<Key> = Vec::new();
        loop {
            self.skip_stale();
            let Some(Reverse((due, key))) = self.heap.peek().copied() else { break };
            let same_message = taken.last().is_some_and(|(id, _)| *id == key.0);
            if due > now || (taken.len() >= limit && !same_message) {
                break;
            }
            self.heap.pop();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.busy = true;
                taken.push(key);
            }
        }
        taken
    }

    fn skip_stale(&mut self) {
        while let Some(Reverse((due, key))) = self.heap.peek() {
            if self.entries.get(key).is_some_and(|e| !e.busy && !e.held && e.due == *due) {
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
        Entry::waiting(at(due), 1, false)
    }

    fn key(id: u64, recipient: u32) -> Key {
        (QueueId(id), recipient)
    }

    #[test]
    fn what_is_due_first_is_taken_first_and_only_once() {
        let mut due = Due::default();
        due.put(key(1, 0), waiting(30));
        due.put(key(2, 0), waiting(10));
        due.put(key(3, 0), waiting(20));
        assert_eq!(due.next_due(), Some(at(10)));
        assert_eq!(due.take(at(9), 10), []);
        assert_eq!(due.take(at(20), 10), [key(2, 0), key(3, 0)]);
        assert_eq!(due.take(at(20), 10), [], "they are busy");
        due.put_back(key(2, 0), at(40), 2);
        due.remove(key(3, 0));
        due.put_back(key(3, 0), at(1), 2);
        assert_eq!(due.take(at(99), 10), [key(1, 0), key(2, 0)], "what was removed stays gone");
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
        assert!(due.change(key(1, 0), Some(at(5)), None));
        assert!(!due.change(key(9, 0), Some(at(5)), None), "unknown");
        assert!(due.change(key(1, 0), None, Some(true)));
        assert_eq!((due.next_due(), due.take(at(2000), 9).len()), (None, 0), "held");
        assert!(due.change(key(1, 0), None, Some(false)));
        assert_eq!(due.take(at(5), 9), [key(1, 0)]);
        assert_eq!(due.take(at(2000), 9), [], "the old place in the heap is stale");
    }

    #[test]
    fn what_is_claimed_is_not_taken_until_it_is_put_back() {
        let mut due = Due::default();
        due.put(key(1, 0), waiting(1));
        assert!(due.claim(key(1, 0)));
        assert!(!due.claim(key(1, 0)) && !due.claim(key(2, 0)), "claimed already; unknown");
        assert_eq!(due.take(at(9), 9), []);
        due.put_back(key(1, 0), at(2), 1);
        assert_eq!(due.take(at(9), 9), [key(1, 0)]);
        assert!(!due.claim(key(1, 0)), "an attempt is under way");
    }

    #[test]
    fn who_stands_in_line_is_known_until_the_turn_comes() {
        let mut due = Due::default();
        let (slow, fast): (Arc<str>, Arc<str>) = ("slow".into(), "fast".into());
        due.put(key(1, 0), waiting(1));
        due.put(key(1, 1), waiting(1));
        assert_eq!(due.take(at(1), 9), [key(1, 0), key(1, 1)]);
        due.put_in_line([key(1, 0)].into_iter(), &slow);
        due.put_in_line([key(1, 1), key(9, 9)].into_iter(), &fast);
        let line =
            |due: &Due, key| due.get(key).unwrap().in_line.and_then(|line| due.transport(line).cloned());
        assert_eq!((line(&due, key(1, 0)), line(&due, key(1, 1))), (Some(slow), Some(fast)));
        assert!(due.out_of_line(key(1, 0)).is_some_and(|entry| entry.busy));
        due.put_back(key(1, 1), at(2), 1);
        assert_eq!((line(&due, key(1, 0)), line(&due, key(1, 1))), (None, None));
    }

    #[test]
    fn a_hold_during_an_attempt_holds_after_it() {
        let mut due = Due::default();
        due.put(key(1, 0), waiting(1));
        assert_eq!(due.take(at(1), 1), [key(1, 0)]);
        due.change(key(1, 0), Some(at(0)), Some(true));
        assert_eq!(due.take(at(9), 1), [], "still busy");
        due.put_back(key(1, 0), at(2), 2);
        assert_eq!(due.take(at(9), 1), [], "held");
    }
}
