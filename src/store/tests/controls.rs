//! What the queue's operators keep here: hold rules and the suppression list.

use super::*;

fn rule(fields: HoldFields) -> NewHoldRule {
    NewHoldRule { fields, by: "root".into(), reason: "they asked us to wait".into() }
}

fn to_domain(domain: &str) -> HoldFields {
    HoldFields { recipient_domain: Some(domain.parse().unwrap()), ..HoldFields::default() }
}

fn suppressed(account: &AccountName, address: &str, expires: Option<i64>) -> Suppression {
    let at = |second| Timestamp::from_second(second).unwrap();
    Suppression {
        account: account.clone(),
        address: address.parse().unwrap(),
        reason: "550 5.1.1 no such user".into(),
        by: None,
        since: at(1_000),
        expires: expires.map(at),
    }
}

#[tokio::test]
async fn hold_rules_outlive_a_restart_and_their_numbers_are_never_given_twice() {
    let World { dir, store, .. } = World::new().await;
    let all = HoldFields {
        account: Some(ann()),
        sender_domain: "ours.test".parse().ok(),
        recipient_domain: "there.test".parse().ok(),
    };
    let first = store.add_hold_rule(rule(all)).await.unwrap();
    let second = store.add_hold_rule(rule(HoldFields::default())).await.unwrap();
    assert_eq!((first.number, second.number), (1, 2));
    assert!(matches!(
        store.add_hold_rule(rule(HoldFields::default())).await,
        Err(StoreError::Invalid(text)) if text.contains("hold rule 2")
    ));
    store.close().await;
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.hold_rules().await.unwrap(), [first.clone(), second]);
    assert!(store.remove_hold_rule(2).await.unwrap());
    assert!(!store.remove_hold_rule(2).await.unwrap());
    assert_eq!(store.add_hold_rule(rule(to_domain("x.test"))).await.unwrap().number, 3);
    assert_eq!(store.hold_rules().await.unwrap()[0], first);
}

#[tokio::test]
async fn there_is_an_end_to_hold_rules_and_to_their_reasons() {
    let store = World::new().await.store;
    let long = NewHoldRule { reason: "x".repeat(2_000), ..rule(to_domain("x.test")) };
    assert!(matches!(store.add_hold_rule(long).await, Err(StoreError::Invalid(_))));
    for number in 0..HOLD_RULES_MAX {
        store.add_hold_rule(rule(to_domain(&format!("d{number}.test")))).await.unwrap();
    }
    assert!(matches!(store.add_hold_rule(rule(to_domain("x.test"))).await, Err(StoreError::Invalid(_))));
}

#[tokio::test]
async fn suppressed_recipients_are_kept_until_they_expire_or_are_removed() {
    let World { dir, store, .. } = World::new().await;
    let (a, b) = (suppressed(&ann(), "a@x.test", Some(2_000)), suppressed(&ann(), "b@x.test", None));
    let of_bob = suppressed(&bob(), "a@x.test", None);
    let entries = vec![a.clone(), b.clone(), of_bob.clone()];
    assert_eq!(store.add_suppressions(entries.clone()).await.unwrap(), entries);
    // A later one takes the place of the earlier.
    let again = Suppression { reason: "gone".into(), by: Some("root".into()), ..a.clone() };
    store.add_suppressions(vec![again.clone()]).await.unwrap();
    store.close().await;
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.suppressions().await.unwrap(), [again, b.clone(), of_bob.clone()]);
    assert_eq!(store.prune_suppressions(Timestamp::from_second(2_000).unwrap()).await.unwrap(), 1);
    let gone = vec![(ann(), b.address.clone()), (ann(), a.address)];
    assert_eq!(store.remove_suppressions(gone).await.unwrap(), 1);
    assert_eq!(store.suppressions().await.unwrap(), [of_bob]);
    store.ensure_account(&bob()).await.unwrap();
    store.remove_account(&bob()).await.unwrap();
    assert_eq!(store.suppressions().await.unwrap(), []);
}

#[tokio::test]
async fn a_reason_is_cut_where_it_grows_too_long() {
    let store = World::new().await.store;
    let long = Suppression { reason: "ü".repeat(1_000), ..suppressed(&ann(), "a@x.test", None) };
    let kept = store.add_suppressions(vec![long]).await.unwrap();
    assert_eq!(kept[0].reason.len(), 1_000);
    assert_eq!(store.suppressions().await.unwrap(), kept);
}

#[test]
fn a_suppression_holds_until_it_expires() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let entry = suppressed(&ann(), "a@x.test", Some(2_000));
    assert!(entry.holds(at(1_999)) && !entry.holds(at(2_000)));
    assert!(suppressed(&ann(), "a@x.test", None).holds(Timestamp::MAX));
}
