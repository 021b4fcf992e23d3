//! What goes in comes out again, also after a restart.

use super::*;

#[test]
fn an_accepted_message_is_there_after_a_restart() {
    let dir = folder();
    let (first, second) = (message(1, 2, 3000), message(2, 1, 0));
    let (spool, waiting) = open(&dir);
    assert!(waiting.is_empty());
    let id = run(spool.accept(first.clone(), false)).unwrap();
    let other = run(spool.accept(second.clone(), false)).unwrap();
    assert_ne!(id, other);
    assert_eq!(*spool.read(id).unwrap().unwrap().message, *first);
    drop(spool);

    let (spool, waiting) = open(&dir);
    let expected = |id, recipient, second, message: &NewMessage| Waiting {
        id,
        recipient,
        due: time(second),
        attempts: 0,
        held: false,
        labels: Some(MessageLabels::of(message).recipient(recipient).unwrap()),
    };
    let [of_first, again] = [0, 1].map(|recipient| expected(id, recipient, 1, &first));
    assert_eq!(waiting, [of_first, again, expected(other, 0, 2, &second)]);
    for (id, message) in [(id, &first), (other, &second)] {
        let stored = spool.read(id).unwrap().unwrap();
        assert_eq!(
            (stored.id, &*stored.message, stored.size),
            (id, &**message, message.content.len() as u64)
        );
        let summary = spool.read_summary(id).unwrap().unwrap();
        assert!(
            summary.message.content.ends_with(b"\r\n\r\n")
                && message.content.starts_with(&summary.message.content)
        );
        assert_eq!((&summary.message.envelope, summary.size), (&message.envelope, stored.size));
    }
}

#[test]
fn attempts_and_what_came_of_them_are_replayed() {
    let dir = folder();
    let (spool, _) = open(&dir);
    let id = run(spool.accept(message(1, 2, 10), false)).unwrap();
    run(spool.begin(id, vec![(0, attempt(1)), (1, attempt(1))])).unwrap();
    run(spool.settle(id, vec![retry(0, 1, 500)])).unwrap();
    let error = Next::Deferred { until: time(300), error: "global.rhai:3: no such property".into() };
    run(spool.begin(id, vec![(0, attempt(2))])).unwrap();
    run(spool
        .settle(id, vec![Settlement { recipient: 1, attempt: None, next: error, delay_reported: false }]))
    .unwrap();

    let check = |spool: &Spool| {
        let stored = spool.read(id).unwrap().unwrap();
        let [first, second] = &stored.recipients[..] else { panic!("two recipients") };
        assert_eq!((first.attempts, &first.history[..]), (2, &[failed(1), attempt(2)][..]));
        assert_eq!(first.status, Status::Waiting { due: time(500), held: false });
        assert_eq!((second.attempts, &second.history[..]), (1, &[attempt(1)][..]));
        assert_eq!(second.status, Status::Waiting { due: time(300), held: false });
        assert_eq!(second.deferral.as_deref(), Some("global.rhai:3: no such property"));
        assert_eq!(first.deferral, None);
    };
    check(&spool);
    drop(spool);
    let (spool, waiting) = open(&dir);
    check(&spool);
    assert_eq!(
        waiting.iter().map(|w| (w.recipient, w.due, w.attempts)).collect::<Vec<_>>(),
        [(0, time(500), 2), (1, time(300), 1)]
    );
}

#[test]
fn a_message_is_gone_when_its_last_recipient_is_done() {
    let dir = folder();
    let (spool, _) = open(&dir);
    let id = run(spool.accept(message(1, 2, 10), false)).unwrap();
    run(spool.settle(id, vec![done(0)])).unwrap();
    assert_eq!(spool.read(id).unwrap().unwrap().recipients[0].status, Status::Done);
    drop(spool);
    let (spool, waiting) = open(&dir);
    assert_eq!(waiting.iter().map(|w| w.recipient).collect::<Vec<_>>(), [1]);
    run(spool.settle(id, vec![done(1)])).unwrap();
    assert!(spool.read(id).unwrap().is_none());
    assert!(
        matches!(run(spool.begin(id, vec![(1, attempt(2))])), Err(SpoolError::Unknown(unknown)) if unknown == id)
    );
    drop(spool);
    let (spool, waiting) = open(&dir);
    assert!(waiting.is_empty() && spool.read(id).unwrap().is_none());
    assert_eq!(spool.stats().live_bytes, 0);
}

#[test]
fn an_attempt_that_began_with_the_acceptance_is_remembered() {
    let dir = folder();
    let (spool, _) = open(&dir);
    let died = run(spool.accept(message(1, 1, 10), true)).unwrap();
    let settled = run(spool.accept(message(2, 1, 10), true)).unwrap();
    let deferred = run(spool.accept(message(3, 1, 10), true)).unwrap();
    spool.settle_later(settled, vec![retry(0, 1, 700)]);
    let next = Next::Deferred { until: time(600), error: "no such transport".into() };
    run(spool.settle(deferred, vec![Settlement { recipient: 0, attempt: None, next, delay_reported: false }])).unwrap();
    drop(spool);

    let (spool, waiting) = open(&dir);
    let state = |id| spool.read(id).unwrap().unwrap().recipients.remove(0);
    assert_eq!(
        state(died).history,
        [Attempt { number: 1, at: time(1), decision: None, outcome: None, ended: None }]
    );
    assert_eq!(state(settled).history, [failed(1)]);
    assert_eq!(state(deferred).history, []);
    let seen: Vec<_> = waiting.iter().map(|w| (w.id, w.attempts, w.due)).collect();
    assert_eq!(seen, [(died, 1, time(1)), (settled, 1, time(700)), (deferred, 0, time(600))]);
}

#[test]
fn what_the_operator_set_is_replayed() {
    let dir = folder();
    let (spool, _) = open(&dir);
    let id = run(spool.accept(message(1, 2, 10), false)).unwrap();
    let smarthost = TransportName::new("smarthost").unwrap();
    let control = |recipients: &[u32], hold, due, transport| {
        let control = Control { recipients: recipients.to_vec(), due, hold, transport };
        run(spool.control(id, control)).unwrap();
    };
    control(&[0, 1], Some(true), None, Some(Some(smarthost.clone())));
    control(&[1], Some(false), Some(time(50)), Some(None));
    control(&[], Some(false), Some(time(60)), Some(None));
    drop(spool);
    let (spool, waiting) = open(&dir);
    let recipients = spool.read(id).unwrap().unwrap().recipients;
    assert_eq!(recipients[0].status, Status::Waiting { due: time(1), held: true });
    assert_eq!(recipients[0].transport_override, Some(smarthost));
    assert_eq!(recipients[1].status, Status::Waiting { due: time(50), held: false });
    assert_eq!(recipients[1].transport_override, None);
    assert!(waiting[0].held && !waiting[1].held);
    run(spool.drop_message(id)).unwrap();
    assert!(spool.waiting(None, 10).is_empty());
    drop(spool);
    assert!(open(&dir).1.is_empty());
}

#[test]
fn numbers_are_never_given_twice() {
    let dir = folder();
    let mut last = QueueId(0);
    let mut segment_bytes = small().segment_bytes;
    for round in 0..8 {
        // Another size makes all earlier segments go.
        segment_bytes += 4096 * u64::from(round % 3 == 2);
        let options = SpoolOptions { segment_bytes, ..small() };
        let (spool, waiting) = Spool::open(dir.path(), options).unwrap();
        assert!(waiting.is_empty());
        for number in 0..round {
            let id = run(spool.accept(message(number, 1, 1000), true)).unwrap();
            assert!(id > last, "{id} after {last}");
            last = id;
            run(spool.settle(id, vec![done(0)])).unwrap();
        }
    }
}

#[test]
fn a_spool_is_open_once() {
    let dir = folder();
    let (spool, _) = open(&dir);
    assert!(matches!(Spool::open(dir.path(), small()), Err(SpoolError::Locked(path)) if path == dir.path()));
    run(spool.close());
    assert!(matches!(run(spool.accept(message(1, 1, 1), false)), Err(SpoolError::Closed)));
    open(&dir);
}

#[test]
fn a_record_of_more_than_half_a_segment_is_refused() {
    let dir = folder();
    let (spool, _) = open(&dir);
    assert!(matches!(run(spool.accept(message(1, 2000, 1), false)), Err(SpoolError::TooLarge)));
    run(spool.accept(message(1, 2, 1), false)).unwrap();
    assert_eq!(spool.stats().messages, 1);
}

#[test]
fn pages_of_the_queue_follow_one_another() {
    let dir = folder();
    let (spool, _) = open(&dir);
    let ids: Vec<QueueId> = (0..5).map(|n| run(spool.accept(message(n, 2, 1), false)).unwrap()).collect();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = spool.waiting(after, 2);
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 4);
        after = Some(last.id);
        seen.extend(page.iter().map(|w| (w.id, w.recipient)));
    }
    assert_eq!(seen, ids.iter().flat_map(|id| [(*id, 0), (*id, 1)]).collect::<Vec<_>>());
}

#[test]
fn an_outcome_on_its_way_to_the_disk_is_known_to_a_deferral_that_follows_it() {
    let dir = folder();
    let (spool, _) = open(&dir);
    let id = run(spool.accept(message(1, 1, 10), true)).unwrap();
    let next = Next::Deferred { until: time(600), error: "no such transport".into() };
    let deferral = Settlement { recipient: 0, attempt: None, next, delay_reported: false };
    spool.settle_later(id, vec![retry(0, 1, 500)]);
    run(spool.settle(id, vec![deferral])).unwrap();

    let check = |spool: &Spool| {
        let state = spool.read(id).unwrap().unwrap().recipients.remove(0);
        assert_eq!((state.attempts, &state.history[..]), (1, &[failed(1)][..]), "attempt 1 was made");
    };
    check(&spool);
    drop(spool);
    check(&open(&dir).0);
}
