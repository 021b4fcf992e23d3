//! Random operations, and restarts of both kinds at random points, against a model that is a map.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::disk::{TestDisk, kill, open_on};
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Accept { recipients: u32, body_bytes: usize, started: bool },
    Begin { which: usize, recipient: u32 },
    Settle { which: usize, recipient: u32, next: u8, later: bool },
    Control { which: usize, recipient: u32, hold: bool },
    Drop { which: usize },
    Restart { kill: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..1000usize;
    let bytes = prop_oneof![8 => 0..200usize, 4 => 2000..9000usize, 1 => 16_000..20_000usize];
    prop_oneof![
        6 => (1..4u32, bytes, any::<bool>())
            .prop_map(|(recipients, body_bytes, started)| Step::Accept { recipients, body_bytes, started }),
        3 => (which.clone(), 0..3u32).prop_map(|(which, recipient)| Step::Begin { which, recipient }),
        8 => (which.clone(), 0..3u32, 0..6u8, any::<bool>())
            .prop_map(|(which, recipient, next, later)| Step::Settle { which, recipient, next, later }),
        1 => (which.clone(), 0..4u32, any::<bool>())
            .prop_map(|(which, recipient, hold)| Step::Control { which, recipient, hold }),
        1 => which.prop_map(|which| Step::Drop { which }),
        1 => any::<bool>().prop_map(|kill| Step::Restart { kill }),
    ]
}

type Model = BTreeMap<QueueId, (Arc<NewMessage>, Vec<RecipientState>)>;

struct World {
    dir: TempDir,
    spool: Option<(Spool, Arc<TestDisk>)>,
    model: Model,
    /// Attempt 1 began with the acceptance, nothing is recorded of it, and there was no restart.
    fresh: BTreeSet<(QueueId, u32)>,
    last: QueueId,
    clock: i64,
}

impl World {
    fn new() -> Self {
        let dir = folder();
        let spool = Some(open_on(&dir));
        Self { dir, spool, model: Model::new(), fresh: BTreeSet::new(), last: QueueId(0), clock: 1000 }
    }

    fn spool(&self) -> &Spool {
        &self.spool.as_ref().unwrap().0
    }

    fn take(&mut self, step: Step) {
        self.clock += 1;
        let ids: Vec<QueueId> = self.model.keys().copied().collect();
        let pick = |which: usize| ids.get(which % ids.len().max(1)).copied();
        match step {
            Step::Accept { recipients, body_bytes, started } => self.accept(recipients, body_bytes, started),
            Step::Begin { which, recipient } => {
                if let Some(id) = pick(which) {
                    self.begin(id, recipient);
                }
            }
            Step::Settle { which, recipient, next, later } => {
                if let Some(id) = pick(which) {
                    self.settle(id, recipient, next, later);
                }
            }
            Step::Control { which, recipient, hold } => {
                if let Some(id) = pick(which) {
                    self.control(id, recipient, hold);
                }
            }
            Step::Drop { which } => {
                if let Some(id) = pick(which) {
                    run(self.spool().drop_message(id)).unwrap();
                    self.model.remove(&id);
                }
            }
            Step::Restart { kill } => self.restart(kill),
        }
    }

    fn accept(&mut self, recipients: u32, body_bytes: usize, started: bool) {
        let message = message(self.clock as u32, recipients, body_bytes);
        let id = run(self.spool().accept(message.clone(), started)).unwrap();
        assert!(id > self.last, "{id} after {}", self.last);
        self.last = id;
        let assumed = Attempt { number: 1, at: message.received, decision: None, outcome: None, ended: None };
        let state = RecipientState {
            status: Status::Waiting { due: message.received, held: false },
            attempts: u32::from(started),
            history: started.then_some(assumed).into_iter().collect(),
            transport_override: None,
            deferral: None,
            delay_reported: false,
        };
        self.model.insert(id, (message, vec![state; recipients as usize]));
        if started {
            self.fresh.extend((0..recipients).map(|recipient| (id, recipient)));
        }
    }

    /// The recipient that a step means, if it waits.
    fn waits(&mut self, id: QueueId, recipient: u32) -> Option<&mut RecipientState> {
        let state = self.model.get_mut(&id)?.1.get_mut(recipient as usize)?;
        (state.status != Status::Done).then_some(state)
    }

    fn begin(&mut self, id: QueueId, recipient: u32) {
        let Some(state) = self.waits(id, recipient) else { return };
        let attempt = attempt(state.attempts + 1);
        state.attempts += 1;
        state.deferral = None;
        state.history.push(attempt.clone());
        self.fresh.remove(&(id, recipient));
        run(self.spool().begin(id, vec![(recipient, attempt)])).unwrap();
    }

    fn settle(&mut self, id: QueueId, recipient: u32, next: u8, later: bool) {
        let at = time(self.clock);
        let fresh = self.fresh.contains(&(id, recipient));
        let Some(state) = self.waits(id, recipient) else { return };
        let Status::Waiting { held, .. } = state.status else { return };
        let waiting = Status::Waiting { due: at, held };
        let unfinished = state.history.last().is_some_and(|attempt| attempt.outcome.is_none());
        let attempt = unfinished.then(|| failed(state.attempts)).filter(|_| next != 5);
        if let Some(attempt) = &attempt {
            *state.history.last_mut().unwrap() = attempt.clone();
        }
        let next = match next {
            0..3 => {
                (state.status, state.deferral) = (Status::Done, None);
                Next::Done
            }
            3..5 => {
                (state.status, state.deferral) = (waiting, None);
                Next::Retry(at)
            }
            _ => {
                (state.status, state.deferral) = (waiting, Some("line 3".into()));
                if fresh {
                    // The attempt that the acceptance spoke of was not made.
                    (state.attempts, state.history) = (0, Vec::new());
                }
                Next::Deferred { until: at, error: "line 3".into() }
            }
        };
        if attempt.is_some() || matches!(next, Next::Deferred { .. }) {
            self.fresh.remove(&(id, recipient));
        }
        let settlements = vec![Settlement { recipient, attempt, next, delay_reported: false }];
        if later {
            self.spool().settle_later(id, settlements);
        } else {
            run(self.spool().settle(id, settlements)).unwrap();
        }
        if self.model[&id].1.iter().all(|state| state.status == Status::Done) {
            self.model.remove(&id);
        }
    }

    fn control(&mut self, id: QueueId, recipient: u32, hold: bool) {
        let (clock, transport) = (time(self.clock), TransportName::new("smarthost").unwrap());
        if let Some(state) = self.waits(id, recipient) {
            state.status = Status::Waiting { due: clock, held: hold };
            state.transport_override = hold.then(|| transport.clone());
        }
        let transport = Some(hold.then_some(transport));
        let control = Control { recipients: vec![recipient], due: Some(clock), hold: Some(hold), transport };
        // A recipient that is done keeps the override in its record only; the model does not look at it.
        if self.waits(id, recipient).is_some() {
            run(self.spool().control(id, control)).unwrap();
        }
    }

    /// Waits for what nobody waits for.
    fn barrier(&self) {
        let id = run(self.spool().accept(message(0, 1, 0), false)).unwrap();
        run(self.spool().drop_message(id)).unwrap();
    }

    fn restart(&mut self, by_kill: bool) {
        if by_kill {
            self.barrier();
        }
        self.fresh.clear();
        let (spool, disk) = self.spool.take().unwrap();
        if by_kill {
            kill(spool, &disk);
            disk.lose_unsynced(|| false);
        } else {
            drop(spool);
        }
        self.spool = Some(open_on(&self.dir));
        self.check();
    }

    fn check(&self) {
        self.barrier();
        let spool = self.spool();
        let waiting: Vec<_> = spool.waiting(None, usize::MAX);
        let expected: Vec<_> = self
            .model
            .iter()
            .flat_map(|(id, (_, states))| {
                states.iter().enumerate().filter_map(|(index, state)| match state.status {
                    Status::Done => None,
                    Status::Waiting { due, held } => Some(Waiting {
                        id: *id,
                        recipient: index as u32,
                        due,
                        attempts: state.attempts,
                        held,
                        labels: None,
                    }),
                })
            })
            .collect();
        assert_eq!(waiting, expected);
        for (id, (message, states)) in &self.model {
            let stored = spool.read(*id).unwrap().unwrap();
            assert_eq!((&stored.message, &stored.recipients), (message, states), "{id}");
            assert!(spool.read_summary(*id).unwrap().is_some());
        }
        let stats = spool.stats();
        assert_eq!((stats.messages, stats.recipients), (self.model.len() as u64, waiting.len() as u64));
        assert_eq!((stats.damaged, stats.failures), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_is_a_map(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.check();
        world.restart(true);
        world.restart(false);
    }
}
