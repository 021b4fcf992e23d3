//! Who may deliver now: bounded in total, per transport (in number and in time) and per destination; the rest wait in
//! line.
//!
//! Pure bookkeeping, O(1) for each step however many wait. A destination stands in line at most once: in
//! `runnable` while it may run, or in its transport's `stalled` line while that transport is full or has used up its
//! rate. Among destinations, turns go round, so that none starves behind a long queue of another.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::pace::Pace;
use crate::config::Rate;

/// What shares connections and the bound on them, such as `direct/example.org`.
pub type Destination = Arc<str>;

/// How many may run at the same time, and how many may begin in what time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Over one transport.
    pub transport: usize,
    /// To one destination.
    pub destination: usize,
    /// Over one transport.
    pub rate: Rate,
}

/// Where a job goes, for the bookkeeping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// The transport's name.
    pub transport: Arc<str>,
    /// What shares connections.
    pub destination: Destination,
    /// The bounds that hold.
    pub bounds: Bounds,
}

/// The jobs in line and the count of those that run.
#[derive(Debug)]
pub struct Slots<J> {
    total_max: usize,
    running: usize,
    waiting: usize,
    destinations: HashMap<Destination, Line<J>>,
    transports: HashMap<Arc<str>, TransportLine>,
    runnable: VecDeque<Destination>,
}

#[derive(Debug)]
struct Line<J> {
    lane: Lane,
    running: usize,
    jobs: VecDeque<J>,
    /// Stands in `runnable` or in the transport's `stalled`.
    queued: bool,
}

#[derive(Debug)]
struct TransportLine {
    bounds: Bounds,
    running: usize,
    pace: Pace,
    stalled: VecDeque<Destination>,
    /// Somebody will call `resume` when the rate allows the next.
    awaited: bool,
}

impl TransportLine {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, running: 0, pace: Pace::default(), stalled: VecDeque::new(), awaited: false }
    }

    fn has_room(&self, bounds: Bounds, now: Instant) -> bool {
        self.running < bounds.transport.max(1) && self.pace.is_free(bounds.rate, now)
    }

    fn begin(&mut self, now: Instant) {
        self.running += 1;
        self.pace.begin(self.bounds.rate, now);
    }

    /// The destination whose turn it is, if there is room for one.
    fn next_turn(&mut self, now: Instant) -> Option<Destination> {
        if self.has_room(self.bounds, now) { self.stalled.pop_front() } else { None }
    }
}

impl<J> Slots<J> {
    /// Nothing runs, nothing waits.
    pub fn new(total_max: usize) -> Self {
        Self {
            total_max: total_max.max(1),
            running: 0,
            waiting: 0,
            destinations: HashMap::new(),
            transports: HashMap::new(),
            runnable: VecDeque::new(),
        }
    }

    /// Jobs that wait in line.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Jobs that run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Changes the bound on all (after a reload).
    pub fn set_total_max(&mut self, total_max: usize) {
        self.total_max = total_max.max(1);
    }

    /// Whether a job may run at once in this lane: nobody stands in line before it, and there is room.
    pub fn is_free(&self, lane: &Lane, now: Instant) -> bool {
        let transport = self.transports.get(&lane.transport);
        let (of_destination, in_line) =
            self.destinations.get(&lane.destination).map_or((0, 0), |line| (line.running, line.jobs.len()));
        in_line == 0
            && self.running < self.total_max
            && transport.is_none_or(|t| t.stalled.is_empty() && t.has_room(lane.bounds, now))
            && of_destination < lane.bounds.destination.max(1)
    }

    /// Takes a slot for a job: gives it back when it may run now, else keeps it in line.
    pub fn enter(&mut self, lane: &Lane, job: J, now: Instant) -> Option<J> {
        let free = self.is_free(lane, now);
        let line = self.destinations.entry(lane.destination.clone()).or_insert_with(|| Line {
            lane: lane.clone(),
            running: 0,
            jobs: VecDeque::new(),
            queued: false,
        });
        line.lane.bounds = lane.bounds;
        let transport = self.transports.entry(lane.transport.clone());
        let transport = transport.or_insert_with(|| TransportLine::new(lane.bounds));
        transport.bounds = lane.bounds;
        if free {
            self.running += 1;
            transport.begin(now);
            line.running += 1;
            return Some(job);
        }
        line.jobs.push_back(job);
        self.waiting += 1;
        if !line.queued && line.running < line.lane.bounds.destination.max(1) {
            line.queued = true;
            let behind =
                if transport.stalled.is_empty() { &mut self.runnable } else { &mut transport.stalled };
            behind.push_back(lane.destination.clone());
        }
        None
    }

    /// Gives a slot back.
    pub fn leave(&mut self, lane: &Lane, now: Instant) {
        self.running = self.running.saturating_sub(1);
        if let Some(transport) = self.transports.get_mut(&lane.transport) {
            transport.running = transport.running.saturating_sub(1);
            if let Some(destination) = transport.next_turn(now) {
                self.runnable.push_back(destination);
            } else if transport.running == 0 && transport.stalled.is_empty() && transport.pace.is_forgotten()
            {
                self.transports.remove(&lane.transport);
            }
        }
        let Some(line) = self.destinations.get_mut(&lane.destination) else { return };
        line.running = line.running.saturating_sub(1);
        if !line.jobs.is_empty() && !line.queued {
            line.queued = true;
            self.runnable.push_back(lane.destination.clone());
        } else if line.jobs.is_empty() && line.running == 0 && !line.queued {
            self.destinations.remove(&lane.destination);
        }
    }

    /// The next job that may run, its slot taken, with its lane.
    pub fn take_next(&mut self, now: Instant) -> Option<(Lane, J)> {
        while self.running < self.total_max {
            let destination = self.runnable.pop_front()?;
            let Some(line) = self.destinations.get_mut(&destination) else { continue };
            let transport = self.transports.entry(line.lane.transport.clone());
            let transport = transport.or_insert_with(|| TransportLine::new(line.lane.bounds));
            if !transport.has_room(transport.bounds, now) {
                transport.stalled.push_back(destination);
                continue;
            }
            line.queued = false;
            let full = line.running >= line.lane.bounds.destination.max(1);
            let Some(job) = (if full { None } else { line.jobs.pop_front() }) else {
                // The turn goes to the next.
                self.runnable.extend(transport.next_turn(now));
                if line.jobs.is_empty() && line.running == 0 {
                    self.destinations.remove(&destination);
                }
                continue;
            };
            self.running += 1;
            self.waiting -= 1;
            transport.begin(now);
            line.running += 1;
            self.runnable.extend(transport.next_turn(now));
            if !line.jobs.is_empty() && line.running < line.lane.bounds.destination.max(1) {
                line.queued = true;
                self.runnable.push_back(destination);
            }
            return Some((line.lane.clone(), job));
        }
        None
    }

    /// The transports whose rate alone holds jobs back, and until when. Each is named once: whoever asks must call
    /// [`Slots::resume`] then, and `take_next`.
    pub fn held_by_rates(&mut self) -> Vec<(Arc<str>, Instant)> {
        let mut found = Vec::new();
        for (name, line) in &mut self.transports {
            // Where it is full as well, whoever leaves sees to what comes next.
            let full = line.running >= line.bounds.transport.max(1);
            if line.awaited || full || line.stalled.is_empty() {
                continue;
            }
            if let Some(at) = line.pace.free_at(line.bounds.rate) {
                line.awaited = true;
                found.push((name.clone(), at));
            }
        }
        found
    }

    /// The time has come that [`Slots::held_by_rates`] named.
    pub fn resume(&mut self, transport: &str, now: Instant) {
        let Some(line) = self.transports.get_mut(transport) else { return };
        line.awaited = false;
        self.runnable.extend(line.next_turn(now));
    }

    /// Whether it is its rate that keeps a transport from beginning with the next.
    pub fn is_held_by_rate(&self, transport: &str, now: Instant) -> bool {
        let line = self.transports.get(transport);
        line.is_some_and(|line| line.awaited || !line.pace.is_free(line.bounds.rate, now))
    }

    /// Takes all that wait out of their lines, in no particular order (after the routes changed).
    pub fn take_waiting(&mut self) -> Vec<J> {
        self.waiting = 0;
        self.runnable.clear();
        for transport in self.transports.values_mut() {
            transport.stalled.clear();
            // Another rate may allow the next earlier.
            transport.awaited = false;
        }
        self.transports.retain(|_, transport| transport.running > 0 || !transport.pace.is_forgotten());
        let mut taken = Vec::new();
        for line in self.destinations.values_mut() {
            taken.extend(line.jobs.drain(..));
            line.queued = false;
        }
        self.destinations.retain(|_, line| line.running > 0);
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    fn now() -> Instant {
        Instant::now()
    }

    fn lane(transport: &str, destination: &str, (of_transport, of_destination): (usize, usize)) -> Lane {
        Lane {
            transport: transport.into(),
            destination: format!("{transport}/{destination}").into(),
            bounds: Bounds { transport: of_transport, destination: of_destination, rate: Rate::default() },
        }
    }

    #[test]
    fn a_free_slot_is_taken_at_once_and_the_next_job_waits() {
        let mut slots = Slots::new(10);
        let a = lane("direct", "a", (10, 1));
        assert_eq!(slots.enter(&a, 1, now()), Some(1));
        assert_eq!(slots.enter(&a, 2, now()), None);
        assert_eq!(slots.take_next(now()), None, "the destination is full");
        slots.leave(&a, now());
        assert_eq!(slots.take_next(now()), Some((a.clone(), 2)));
        slots.leave(&a, now());
        assert_eq!((slots.running(), slots.waiting()), (0, 0));
        assert!(
            slots.destinations.is_empty() && slots.transports.is_empty(),
            "nothing is remembered: {slots:?}"
        );
    }

    #[test]
    fn turns_go_round_among_destinations() {
        let mut slots = Slots::new(1);
        let (a, b) = (lane("direct", "a", (9, 9)), lane("direct", "b", (9, 9)));
        assert!(slots.enter(&a, "a1", now()).is_some());
        for job in ["a2", "a3", "a4"] {
            assert!(slots.enter(&a, job, now()).is_none());
        }
        assert!(slots.enter(&b, "b1", now()).is_none());
        let mut order = Vec::new();
        let mut last = a;
        loop {
            slots.leave(&last, now());
            let Some((lane, job)) = slots.take_next(now()) else { break };
            order.push(job);
            last = lane;
        }
        assert_eq!(order, ["a2", "b1", "a3", "a4"]);
    }

    #[test]
    fn a_full_transport_does_not_hold_up_another() {
        let mut slots = Slots::new(3);
        let (slow, other) = (lane("slow", "x", (1, 9)), lane("fast", "y", (9, 9)));
        assert!(slots.enter(&slow, 1, now()).is_some());
        assert!(slots.enter(&slow, 2, now()).is_none());
        assert!(slots.enter(&other, 3, now()).is_some());
        assert_eq!(slots.take_next(now()), None);
        slots.leave(&other, now());
        assert_eq!(slots.take_next(now()), None);
        slots.leave(&slow, now());
        assert_eq!(slots.take_next(now()), Some((slow, 2)));
    }

    #[test]
    fn what_waits_can_be_taken_back() {
        let mut slots = Slots::new(1);
        let a = lane("direct", "a", (1, 1));
        slots.enter(&a, 1, now());
        slots.enter(&a, 2, now());
        slots.enter(&lane("smtp", "b", (1, 1)), 3, now());
        let mut taken = slots.take_waiting();
        taken.sort_unstable();
        assert_eq!((taken, slots.waiting(), slots.take_next(now())), (vec![2, 3], 0, None));
        slots.leave(&a, now());
        assert_eq!((slots.running(), slots.destinations.len()), (0, 0));
    }

    fn at_most(per_second: u32, transport: &str, destination: &str) -> Lane {
        let mut lane = lane(transport, destination, (9, 9));
        lane.bounds.rate = Rate { per_second: Some(per_second), per_minute: None };
        lane
    }

    #[test]
    fn a_rate_holds_a_transport_back_and_no_other() {
        let (mut slots, start) = (Slots::new(9), now());
        let second = |count| start + Duration::from_secs(count);
        let (a, b) = (at_most(1, "slow", "a"), at_most(1, "slow", "b"));
        assert!(slots.enter(&a, "a1", start).is_some());
        slots.leave(&a, start);
        for (lane, job) in [(&a, "a2"), (&a, "a3"), (&b, "b1")] {
            assert!(slots.enter(lane, job, start).is_none(), "{job}");
        }
        assert!(slots.enter(&lane("fast", "a", (9, 9)), "x", start).is_some());
        assert_eq!(slots.take_next(start), None);
        assert_eq!(slots.held_by_rates(), [("slow".into(), second(1))]);
        assert_eq!(slots.held_by_rates(), [], "once is enough");
        assert!(slots.is_held_by_rate("slow", start) && !slots.is_held_by_rate("fast", start));
        let mut order = Vec::new();
        for count in 1..=3 {
            assert_eq!(slots.take_next(second(count)), None, "nobody has resumed it");
            slots.resume("slow", second(count));
            let (lane, job) = slots.take_next(second(count)).unwrap();
            order.push(job);
            assert_eq!(slots.take_next(second(count)), None);
            slots.leave(&lane, second(count));
            let expected = if count < 3 { vec![("slow".into(), second(count + 1))] } else { vec![] };
            assert_eq!(slots.held_by_rates(), expected);
        }
        assert_eq!(order, ["a2", "b1", "a3"], "destinations take turns");
    }

    #[test]
    fn who_comes_when_the_rate_allows_one_more_does_not_overtake_who_waits() {
        let (mut slots, start) = (Slots::new(9), now());
        let later = start + Duration::from_secs(1);
        let (a, b) = (at_most(1, "slow", "a"), at_most(1, "slow", "b"));
        assert!(slots.enter(&a, 1, start).is_some());
        assert!(slots.enter(&a, 2, start).is_none());
        assert_eq!((slots.take_next(start), slots.held_by_rates().len()), (None, 1));
        assert!(slots.enter(&b, 3, later).is_none());
        slots.resume("slow", later);
        assert_eq!(slots.take_next(later).map(|(_, job)| job), Some(2));
    }

    #[test]
    fn a_transport_that_was_full_waits_for_its_rate_when_it_has_room() {
        let (mut slots, start) = (Slots::new(9), now());
        let mut a = at_most(1, "slow", "a");
        a.bounds.transport = 1;
        assert!(slots.enter(&a, 1, start).is_some());
        assert!(slots.enter(&a, 2, start).is_none());
        assert_eq!((slots.take_next(start), slots.held_by_rates().len()), (None, 0), "it is full");
        slots.leave(&a, start);
        assert_eq!((slots.take_next(start), slots.held_by_rates().len()), (None, 1));
        slots.resume("slow", start + Duration::from_secs(1));
        assert_eq!(slots.take_next(start + Duration::from_secs(1)), Some((a, 2)));
    }

    #[test]
    fn a_reload_keeps_what_the_rate_has_seen_and_another_rate_holds_at_once() {
        let (mut slots, start) = (Slots::new(9), now());
        let a = at_most(1, "slow", "a");
        assert!(slots.enter(&a, 1, start).is_some());
        slots.leave(&a, start);
        assert!(slots.enter(&a, 2, start).is_none());
        assert_eq!((slots.take_next(start), slots.held_by_rates().len()), (None, 1));
        assert_eq!(slots.take_waiting(), [2]);
        assert!(slots.enter(&a, 2, start).is_none(), "its second is not over");
        assert_eq!(
            (slots.take_next(start), slots.held_by_rates().len()),
            (None, 1),
            "somebody must wait anew"
        );
        assert_eq!(slots.take_waiting(), [2]);
        assert!(slots.enter(&at_most(2, "slow", "a"), 2, start).is_some());
    }

    proptest! {
        /// However jobs come and go, no bound is broken, none is lost, and all run in the end.
        #[test]
        fn bounds_hold_and_nothing_is_lost(
            jobs in proptest::collection::vec((0usize..3, 0usize..4, any::<bool>()), 1..200),
            total in 1usize..6, of_transport in 1usize..4, of_destination in 1usize..3, per_second in 0u32..4,
        ) {
            let (mut slots, mut now) = (Slots::new(total), now());
            let rate = Rate { per_second: Some(per_second).filter(|max| *max > 0), per_minute: None };
            let mut begun: Vec<(Arc<str>, Instant)> = Vec::new();
            let (mut running, mut done): (Vec<Lane>, usize) = (Vec::new(), 0);
            let mut resumed: Vec<(Arc<str>, Instant)> = Vec::new();
            let mut begin = |running: &mut Vec<Lane>, lane: Lane, now: Instant| {
                begun.push((lane.transport.clone(), now));
                running.push(lane);
            };
            let check = |running: &[Lane]| {
                assert!(running.len() <= total);
                for lane in running {
                    assert!(running.iter().filter(|l| l.transport == lane.transport).count() <= of_transport);
                    assert!(running.iter().filter(|l| l.destination == lane.destination).count() <= of_destination);
                }
            };
            for (number, (transport, destination, finish)) in jobs.iter().enumerate() {
                let mut lane = lane(&format!("t{transport}"), &format!("d{destination}"), (of_transport, of_destination));
                lane.bounds.rate = rate;
                now += Duration::from_millis(100);
                if slots.enter(&lane, number, now).is_some() { begin(&mut running, lane, now); }
                while let Some((lane, _)) = slots.take_next(now) { begin(&mut running, lane, now); }
                resumed.extend(slots.held_by_rates());
                check(&running);
                if *finish && !running.is_empty() {
                    let lane = running.remove(number % running.len());
                    slots.leave(&lane, now);
                    done += 1;
                }
            }
            while !running.is_empty() || slots.waiting() > 0 {
                while let Some((lane, _)) = slots.take_next(now) { begin(&mut running, lane, now); }
                resumed.extend(slots.held_by_rates());
                check(&running);
                if running.is_empty() {
                    let earliest = resumed.iter().enumerate().min_by_key(|(_, (_, at))| *at).map(|(at, _)| at);
                    prop_assert!(earliest.is_some(), "stuck: {slots:?}");
                    let (transport, at) = resumed.remove(earliest.unwrap());
                    now = now.max(at);
                    slots.resume(&transport, now);
                    continue;
                }
                slots.leave(&running.remove(0), now);
                done += 1;
            }
            prop_assert_eq!(done, jobs.len());
            prop_assert!(slots.destinations.is_empty());
            prop_assert!(per_second > 0 || slots.transports.is_empty());
            for (transport, start) in begun.iter().filter(|_| per_second > 0) {
                let inside = |at: &Instant| (*start..*start + Duration::from_secs(1)).contains(at);
                let count = begun.iter().filter(|(of, at)| of == transport && inside(at)).count();
                prop_assert!(count <= per_second as usize, "{count} in a second over {transport}");
            }
        }
    }
}
