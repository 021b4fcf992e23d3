use super::*;
use crate::store::{EmailId, Flags, SystemFlag};
use proptest::prelude::*;

fn row(uid: u32, flags: Flags) -> MessageRow {
    let at = jiff::Timestamp::UNIX_EPOCH;
    MessageRow { uid, modseq: 1, flags, internal_date: at, saved: at, size: 1, email: EmailId::default() }
}

fn view(uids: &[u32]) -> View {
    let messages = uids.iter().map(|uid| row(*uid, Flags::new())).collect();
    View::new(store::View { uidvalidity: 1, uidnext: 100, highest_modseq: 1, messages })
}

fn changes(changed: Vec<MessageRow>, expunged: &[u32]) -> Changes {
    Changes { highest_modseq: 2, uidnext: 100, changed, expunged: expunged.to_vec() }
}

fn resolved(view: &View, set: &str, uids: bool) -> Result<Vec<u32>, NoSuchNumber> {
    view.resolve(&set.parse().unwrap(), uids)
}

#[test]
fn sets_of_numbers() {
    let view = view(&[10, 20, 30]);
    for (set, expected) in [
        ("1", Ok(vec![1])),
        ("3:1", Ok(vec![1, 2, 3])),
        ("2,1:2,2", Ok(vec![1, 2])),
        ("*", Ok(vec![3])),
        ("2:*", Ok(vec![2, 3])),
        ("*:2", Ok(vec![2, 3])),
        ("4:*", Ok(vec![3])),
        ("4", Err(NoSuchNumber)),
        ("1:4", Err(NoSuchNumber)),
    ] {
        assert_eq!(resolved(&view, set, false), expected, "{set}");
    }
    assert_eq!(view.resolve_lenient(&"2:9,7".parse().unwrap(), false), [2, 3]);
}

#[test]
fn sets_of_uids() {
    let view = view(&[10, 20, 30]);
    for (set, expected) in [
        ("20", vec![2]),
        ("1:15", vec![1]),
        ("15", vec![]),
        ("99", vec![]),
        ("99:*", vec![3]),
        ("*", vec![3]),
        ("1:4294967295", vec![1, 2, 3]),
    ] {
        assert_eq!(resolved(&view, set, true), Ok(expected), "{set}");
    }
}

#[test]
fn an_empty_mailbox_has_no_star() {
    let empty = view(&[]);
    assert_eq!(resolved(&empty, "1:*", false), Ok(vec![]));
    assert_eq!(resolved(&empty, "*", true), Ok(vec![]));
    assert_eq!(resolved(&empty, "1", false), Err(NoSuchNumber));
}

#[test]
fn expunges_wait_until_they_may_be_told() {
    let mut view = view(&[10, 20, 30]);
    view.apply(changes(vec![row(40, Flags::new())], &[10, 30]));
    assert_eq!(view.take_news(false), News { exists: Some(4), ..News::default() });
    assert_eq!((view.number(20), view.is_gone(30)), (Some(2), true));
    assert_eq!(view.take_news(true), News { expunged: vec![(3, 30), (1, 10)], ..News::default() });
    assert_eq!((view.number(20), view.number(40)), (Some(1), Some(2)));
}

#[test]
fn what_came_and_went_unseen_is_not_told() {
    let mut view = view(&[10]);
    view.apply(changes(vec![row(20, Flags::new()), row(30, Flags::new())], &[]));
    view.apply(changes(vec![], &[20]));
    assert_eq!(view.take_news(true), News { exists: Some(2), ..News::default() });
    view.apply(changes(vec![], &[40]));
    assert!(!view.has_news());
}

#[test]
fn flags_are_told_once_and_only_when_they_changed() {
    let seen = Flags::new().with(SystemFlag::Seen);
    let mut view = view(&[10, 20]);
    view.apply(changes(vec![row(10, Flags::new()), row(20, seen.clone())], &[]));
    assert_eq!(view.take_news(false).flags, [2]);
    assert!(!view.has_news());
    view.apply(changes(vec![row(10, seen)], &[]));
    view.knows_flags(10);
    assert!(!view.has_news());
}

#[test]
fn sets_are_written_short() {
    for (numbers, expected) in [(vec![], ""), (vec![5], "5"), (vec![1, 2, 3, 5, 7, 8], "1:3,5,7:8")] {
        assert_eq!(write_set(numbers), expected);
    }
}

/// A client that believes what it is told.
struct Client {
    uids: Vec<u32>,
}

impl Client {
    fn hear(&mut self, news: &News, view: &View) {
        for (number, uid) in &news.expunged {
            assert_eq!(self.uids.remove(*number as usize - 1), *uid, "the number told is the number known");
        }
        if let Some(exists) = news.exists {
            for number in self.uids.len() as u32 + 1..=exists {
                self.uids.push(view.row(number).unwrap().uid);
            }
        }
    }
}

proptest! {
    /// Whatever happens in the mailbox and whenever it is told, client and server mean the same messages.
    #[test]
    fn client_and_server_agree(steps in prop::collection::vec((0u8..4, 0usize..20), 0..60)) {
        let (mut view, mut client, mut truth, mut next) = (view(&[]), Client { uids: vec![] }, vec![], 1);
        for (kind, which) in steps {
            match kind {
                0 => {
                    truth.push(next);
                    view.apply(changes(vec![row(next, Flags::new())], &[]));
                    next += 1;
                }
                1 if !truth.is_empty() => {
                    let uid = truth.remove(which % truth.len());
                    view.apply(changes(vec![], &[uid]));
                }
                _ => {
                    let news = view.take_news(kind == 2);
                    client.hear(&news, &view);
                    let known: Vec<u32> = view.rows().map(|(_, row)| row.uid).collect();
                    prop_assert_eq!(&client.uids, &known);
                }
            }
        }
        let news = view.take_news(true);
        client.hear(&news, &view);
        prop_assert_eq!(client.uids, truth);
    }

    #[test]
    fn numbers_and_uids_are_one_to_one(uids in prop::collection::btree_set(1u32..1000, 0..50)) {
        let view = view(&uids.iter().copied().collect::<Vec<_>>());
        for (number, row) in view.rows() {
            prop_assert_eq!(view.number(row.uid), Some(number));
            prop_assert_eq!(view.row(number).map(|r| r.uid), Some(row.uid));
        }
    }
}
