//! Who may deliver now: bounded in total, per transport and per destination; the rest wait in line.
//!
//! Pure bookkeeping, O(1) for each step however many wait. A destination stands in line at most once: in
//! `runnable` while it may run, or in its transport's `stalled` line while that transport is full. Among
//! destinations, turns go round, so that none starves behind a long queue of another.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What shares connections and the bound on them, such as `direct/example.org`.
pub type Destination = Arc<str>;

/// How many may run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Over one transport.
    pub transport: usize,
    /// To one destination.
    pub destination: usize,
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

#[derive(Debug, Default)]
struct TransportLine {
    running: usize,
    stalled: VecDeque<Destination>,
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

    /// Whether a job may run at once in this lane.
    pub fn is_free(&self, lane: &Lane) -> bool {
        let of_transport = self.transports.get(&lane.transport).map_or(0, |t| t.running);
        let (of_destination, in_line) =
            self.destinations.get(&lane.destination).map_or((0, 0), |line| (line.running, line.jobs.len()));
        in_line == 0
            && self.running < self.total_max
            && of_transport < lane.bounds.transport.max(1)
            && of_destination < lane.bounds.destination.max(1)
    }

    /// Takes a slot for a job: gives it back when it may run now, else keeps it in line.
    pub fn enter(&mut self, lane: &Lane, job: J) -> Option<J> {
        let free = self.is_free(lane);
        let line = self.destinations.entry(lane.destination.clone()).or_insert_with(|| Line {
            lane: lane.clone(),
            running: 0,
            jobs: VecDeque::new(),
            queued: false,
        });
        line.lane.bounds = lane.bounds;
        let transport = self.transports.entry(lane.transport.clone()).or_default();
        if free {
            self.running += 1;
            transport.running += 1;
            line.running += 1;
            return Some(job);
        }
        line.jobs.push_back(job);
        self.waiting += 1;
        if !line.queued && line.running < line.lane.bounds.destination.max(1) {
            line.queued = true;
            self.runnable.push_back(lane.destination.clone());
        }
        None
    }

    /// Gives a slot back.
    pub fn leave(&mut self, lane: &Lane) {
        self.running = self.running.saturating_sub(1);
        if let Some(transport) = self.transports.get_mut(&lane.transport) {
            transport.running = transport.running.saturating_sub(1);
            if let Some(destination) = transport.stalled.pop_front() {
                self.runnable.push_back(destination);
            } else if transport.running == 0 {
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
    pub fn take_next(&mut self) -> Option<(Lane, J)> {
        while self.running < self.total_max {
            let destination = self.runnable.pop_front()?;
            let Some(line) = self.destinations.get_mut(&destination) else { continue };
            let transport = self.transports.entry(line.lane.transport.clone()).or_default();
            if transport.running >= line.lane.bounds.transport.max(1) {
                transport.stalled.push_back(destination);
                continue;
            }
            line.queued = false;
            let full = line.running >= line.lane.bounds.destination.max(1);
            let Some(job) = (if full { None } else { line.jobs.pop_front() }) else {
                if line.jobs.is_empty() && line.running == 0 {
                    self.destinations.remove(&destination);
                }
                continue;
            };
            self.running += 1;
            self.waiting -= 1;
            transport.running += 1;
            line.running += 1;
            if !line.jobs.is_empty() && line.running < line.lane.bounds.destination.max(1) {
                line.queued = true;
                self.runnable.push_back(destination);
            }
            return Some((line.lane.clone(), job));
        }
        None
    }

    /// Takes all that wait out of their lines, in no particular order (after the routes changed).
    pub fn take_waiting(&mut self) -> Vec<J> {
        self.waiting = 0;
        self.runnable.clear();
        for transport in self.transports.values_mut() {
            transport.stalled.clear();
        }
        self.transports.retain(|_, transport| transport.running > 0);
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
    use super::*;
    use proptest::prelude::*;

    fn lane(transport: &str, destination: &str, (of_transport, of_destination): (usize, usize)) -> Lane {
        Lane {
            transport: transport.into(),
            destination: format!("{transport}/{destination}").into(),
            bounds: Bounds { transport: of_transport, destination: of_destination },
        }
    }

    #[test]
    fn a_free_slot_is_taken_at_once_and_the_next_job_waits() {
        let mut slots = Slots::new(10);
        let a = lane("direct", "a", (10, 1));
        assert_eq!(slots.enter(&a, 1), Some(1));
        assert_eq!(slots.enter(&a, 2), None);
        assert_eq!(slots.take_next(), None, "the destination is full");
        slots.leave(&a);
        assert_eq!(slots.take_next(), Some((a.clone(), 2)));
        slots.leave(&a);
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
        assert!(slots.enter(&a, "a1").is_some());
        for job in ["a2", "a3", "a4"] {
            assert!(slots.enter(&a, job).is_none());
        }
        assert!(slots.enter(&b, "b1").is_none());
        let mut order = Vec::new();
        let mut last = a;
        loop {
            slots.leave(&last);
            let Some((lane, job)) = slots.take_next() else { break };
            order.push(job);
            last = lane;
        }
        assert_eq!(order, ["a2", "b1", "a3", "a4"]);
    }

    #[test]
    fn a_full_transport_does_not_hold_up_another() {
        let mut slots = Slots::new(3);
        let (slow, other) = (lane("slow", "x", (1, 9)), lane("fast", "y", (9, 9)));
        assert!(slots.enter(&slow, 1).is_some());
        assert!(slots.enter(&slow, 2).is_none());
        assert!(slots.enter(&other, 3).is_some());
        assert_eq!(slots.take_next(), None);
        slots.leave(&other);
        assert_eq!(slots.take_next(), None);
        slots.leave(&slow);
        assert_eq!(slots.take_next(), Some((slow, 2)));
    }

    #[test]
    fn what_waits_can_be_taken_back() {
        let mut slots = Slots::new(1);
        let a = lane("direct", "a", (1, 1));
        slots.enter(&a, 1);
        slots.enter(&a, 2);
        slots.enter(&lane("smtp", "b", (1, 1)), 3);
        let mut taken = slots.take_waiting();
        taken.sort_unstable();
        assert_eq!((taken, slots.waiting(), slots.take_next()), (vec![2, 3], 0, None));
        slots.leave(&a);
        assert_eq!((slots.running(), slots.destinations.len()), (0, 0));
    }

    proptest! {
        /// However jobs come and go, no bound is broken, none is lost, and all run in the end.
        #[test]
        fn bounds_hold_and_nothing_is_lost(
            jobs in proptest::collection::vec((0usize..3, 0usize..4, any::<bool>()), 1..200),
            total in 1usize..6, of_transport in 1usize..4, of_destination in 1usize..3,
        ) {
            let mut slots = Slots::new(total);
            let (mut running, mut done): (Vec<Lane>, usize) = (Vec::new(), 0);
            let check = |running: &[Lane]| {
                assert!(running.len() <= total);
                for lane in running {
                    assert!(running.iter().filter(|l| l.transport == lane.transport).count() <= of_transport);
                    assert!(running.iter().filter(|l| l.destination == lane.destination).count() <= of_destination);
                }
            };
            for (number, (transport, destination, finish)) in jobs.iter().enumerate() {
                let lane = lane(&format!("t{transport}"), &format!("d{destination}"), (of_transport, of_destination));
                if slots.enter(&lane, number).is_some() { running.push(lane); }
                while let Some((lane, _)) = slots.take_next() { running.push(lane); }
                check(&running);
                if *finish && !running.is_empty() {
                    let lane = running.remove(number % running.len());
                    slots.leave(&lane);
                    done += 1;
                }
            }
            while !running.is_empty() || slots.waiting() > 0 {
                while let Some((lane, _)) = slots.take_next() { running.push(lane); }
                check(&running);
                prop_assert!(!running.is_empty(), "stuck: {slots:?}");
                slots.leave(&running.remove(0));
                done += 1;
            }
            prop_assert_eq!(done, jobs.len());
            prop_assert!(slots.destinations.is_empty() && slots.transports.is_empty());
        }
    }
}
