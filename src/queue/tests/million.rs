//! How quick operators' commands are when a million recipients wait. Not for every day:
//! `cargo test --lib -- --ignored --nocapture a_million_rows` prints what each takes. `WAYPOST_ROWS` sets another number.

use std::time::Instant;

use super::*;
use crate::store::{HoldFields, NewHoldRule};

const AT_ONCE: usize = 512;

async fn fill(queue: &Queue, rows: usize) {
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let queue = queue.clone();
            tokio::spawn(async move {
                for row in (task..rows).step_by(AT_ONCE) {
                    let to = format!("user{row}@d{}.test", row % 1_000);
                    queue.accept(message("ann@ours.test", &[&to])).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// What this process has in memory, bytes.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    println!("{:>9.1} ms  {what}", began.elapsed().as_secs_f64() * 1e3);
    done
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and gigabytes"]
async fn a_million_rows() {
    let rows = std::env::var("WAYPOST_ROWS").map_or(1_000_000, |rows| rows.parse().unwrap());
    let mut world = world("", None).await;
    let rule = NewHoldRule { fields: HoldFields::default(), by: "root".into(), reason: String::new() };
    world.queue.add_hold_rule(rule).await.unwrap();
    let before = resident_bytes();
    timed("accepted", fill(&world.queue, rows)).await;
    println!("{} bytes of memory a recipient", (resident_bytes() - before) / rows);
    for round in ["in the run that took them", "after a restart"] {
        println!("{rows} rows, {round}:");
        let queue = &world.queue;
        let everything = Filter::default();
        let page = timed("the first page of 200", queue.list(&everything, None, 200)).await.unwrap();
        assert_eq!(page.messages.len(), 200);
        let middle = Some(QueueId(rows as u64 / 2));
        timed("a page of 200 in the middle", queue.list(&everything, middle, 200)).await.unwrap();
        let of_domain = Filter { recipient_domain: "d77.test".parse().ok(), ..Filter::default() };
        let page = timed("one domain of 1,000", queue.list(&of_domain, None, 1_000_000)).await.unwrap();
        assert_eq!(page.messages.len(), rows / 1_000);
        timed("one domain of 1,000, again", queue.list(&of_domain, None, 1_000_000)).await.unwrap();
        let nobody = Filter { recipient: Mailbox::parse("nobody@d77.test").ok(), ..Filter::default() };
        timed("nobody (--to)", queue.list(&nobody, None, 200)).await.unwrap();
        let not_held = Filter { held: Some(false), ..Filter::default() };
        timed("none of them (--not-held)", queue.list(&not_held, None, 200)).await.unwrap();
        let failed = Filter { error: Some("refused".into()), ..Filter::default() };
        timed("none of them (--error, all must be read)", queue.list(&failed, None, 200)).await.unwrap();
        let tried = Filter { attempts_min: Some(1), ..Filter::default() };
        timed("none of them (--attempts 1..)", queue.list(&tried, None, 200)).await.unwrap();
        let done = timed("kick --all --dry-run", queue.control(&everything, &KICK, true)).await.unwrap();
        assert_eq!(done.recipients, rows);
        timed("kick --to-domain --dry-run", queue.control(&of_domain, &KICK, true)).await.unwrap();
        timed("kick --to-domain", queue.control(&of_domain, &KICK, false)).await.unwrap();
        let fields = HoldFields { recipient_domain: "d78.test".parse().ok(), ..HoldFields::default() };
        timed("hold-rule add --dry-run", queue.would_hold(&fields)).await.unwrap();
        world.stop().await;
        let World { dir, queue, parts } = world;
        drop((queue, parts));
        let (parts, queue) = timed("a restart", open(dir.path(), "")).await;
        world = World { dir, queue, parts };
    }
    world.stop().await;
}
