//! When the next attempt is due: decided from what is known, without a clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::storage::Record;
use crate::config::Acme;
use crate::tls::CertificateFacts;

/// After the first failure; each further wait is three times as long. Let's Encrypt allows five failures for a name in an
/// hour.
const RETRY_FIRST: Duration = Duration::from_mins(2);
const RETRY_FACTOR: u32 = 3;
const RETRY_MAX: Duration = Duration::from_hours(12);
/// What chance may take from a wait, or add to it.
const RETRY_JITTER: f64 = 0.2;

/// When to ask for a certificate, with the one that we have.
pub(super) fn due(
    have: Option<&CertificateFacts>,
    settings: &Acme,
    record: &Record,
    now: Timestamp,
) -> Timestamp {
    let good = have.filter(|facts| is_what_we_want(facts, settings, record));
    let wish = good.map_or(now, renewal);
    match &record.failure {
        // What failed with other settings says nothing about these.
        Some(failure) if failure.settings == fingerprint(settings) => wish.max(failure.next),
        _ => wish,
    }
}

/// After two thirds of its life, which leaves a month of the usual three for whatever goes wrong.
pub(super) fn renewal(facts: &CertificateFacts) -> Timestamp {
    let life = facts.not_after.duration_since(facts.not_before);
    facts.not_before + SignedDuration::from_secs(life.as_secs() / 3 * 2)
}

/// Whether it is for all names that are wanted, and from the CA that is wanted.
fn is_what_we_want(facts: &CertificateFacts, settings: &Acme, record: &Record) -> bool {
    let has = |name: &str| facts.names.iter().any(|has| has.eq_ignore_ascii_case(name));
    !facts.self_signed
        && record.issued_by.as_ref() == Some(&settings.directory)
        && settings.names.iter().all(|name| has(name.as_str()))
}

/// The wait after so many failures; `chance` is from 0 to 1.
pub(super) fn wait(failures: u32, chance: f64) -> Duration {
    let factor = RETRY_FACTOR.saturating_pow(failures.saturating_sub(1));
    let wait = RETRY_FIRST.saturating_mul(factor).min(RETRY_MAX);
    wait.mul_f64(1.0 + RETRY_JITTER * (2.0 * chance - 1.0))
}

/// What an attempt depends on, without its secrets.
pub(super) fn fingerprint(settings: &Acme) -> String {
    let names: Vec<&str> = settings.names.iter().map(crate::address::Domain::as_str).collect();
    let account = settings.external_account.as_ref().map_or("", |account| &account.key_id);
    format!("{} {} {} {account}", settings.directory, settings.challenge.as_str(), names.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::storage::Failure;
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    fn settings(table: &str) -> Acme {
        let text = format!("hostname = \"mx.example.org\"\n[domains.\"example.org\"]\n[tls.acme]\n{table}");
        Config::parse(&text, Path::new("waypost.toml")).unwrap().tls.unwrap().acme.unwrap()
    }

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).unwrap()
    }

    fn facts(names: &[&str]) -> CertificateFacts {
        CertificateFacts {
            names: names.iter().map(ToString::to_string).collect(),
            issuer: "CA".into(),
            serial: "01".into(),
            not_before: day(0),
            not_after: day(90),
            self_signed: false,
            tlsa: String::new(),
        }
    }

    #[test]
    fn a_certificate_is_asked_for_at_once_or_after_two_thirds() {
        let wanted = settings("directory = \"https://ca.test/\"");
        let by_us = Record { issued_by: Some("https://ca.test/".into()), ..Record::default() };
        let by_another = Record { issued_by: Some("https://other.test/".into()), ..Record::default() };
        let (good, wrong) = (facts(&["mx.example.org", "a.example.org"]), facts(&["a.example.org"]));
        let own = CertificateFacts { self_signed: true, ..good.clone() };
        for (have, record, expected) in [
            (None, &by_us, day(10)),
            (Some(&good), &by_us, day(60)),
            (Some(&wrong), &by_us, day(10)),
            (Some(&own), &by_us, day(10)),
            (Some(&good), &by_another, day(10)),
            (Some(&good), &Record::default(), day(10)),
        ] {
            assert_eq!(due(have, &wanted, record, day(10)), expected, "{have:?} {record:?}");
        }
    }

    #[test]
    fn after_a_failure_the_wait_holds_unless_the_settings_are_others() {
        let wanted = settings("directory = \"https://ca.test/\"");
        let failure = |settings: &Acme| Record {
            failure: Some(Failure {
                count: 1,
                at: day(10),
                next: day(11),
                error: "no".into(),
                settings: fingerprint(settings),
            }),
            ..Record::default()
        };
        assert_eq!(due(None, &wanted, &failure(&wanted), day(10)), day(11));
        for table in [
            "directory = \"https://other.test/\"",
            "directory = \"https://ca.test/\"\nchallenge = \"http-01\"",
            "directory = \"https://ca.test/\"\nnames = [\"b.example.org\"]",
            "directory = \"https://ca.test/\"\neab_key_id = \"k\"\neab_hmac_key = \"c2VjcmV0\"",
        ] {
            assert_eq!(due(None, &settings(table), &failure(&wanted), day(10)), day(10), "{table}");
        }
    }

    #[test]
    fn waits_grow_and_end() {
        let minutes = |failures| wait(failures, 0.5).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 5, 6].map(minutes), [2, 6, 18, 54, 162, 486]);
        assert_eq!(wait(7, 0.5), RETRY_MAX);
        assert_eq!(wait(u32::MAX, 0.5), RETRY_MAX);
        assert!(wait(1, 0.0) < wait(1, 0.5) && wait(1, 0.5) < wait(1, 1.0));
    }
}
