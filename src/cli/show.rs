//! How times, sizes and attempts are written for people.

use std::time::Duration;

use jiff::Timestamp;

use crate::attempt::{Attempt, Decision};
use crate::outcome::{Outcome, Verdict};

/// `450 B`, `4.2 KiB`, `12 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" || value >= 10.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// `1 message`, `3 messages`, `2 deliveries`.
pub(super) fn count(number: usize, word: &str) -> String {
    match (number, word.strip_suffix('y')) {
        (1, _) => format!("1 {word}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {word}s"),
    }
}

/// The two largest units: `4d 3h`, `7m 30s`, `12s`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let mut words: Vec<String> = Vec::new();
    for (length, unit) in parts {
        let count = rest / length;
        rest %= length;
        if count > 0 || (!words.is_empty() && words.len() < 2) {
            words.push(format!("{count}{unit}"));
        }
        if words.len() == 2 {
            break;
        }
    }
    words.retain(|word| !word.starts_with('0'));
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}

/// `in 7m 30s`, `now`, `3h ago`.
pub(super) fn when(at: Timestamp, now: Timestamp) -> String {
    let distance =
        |from: Timestamp, to: Timestamp| Duration::try_from(to.duration_since(from)).unwrap_or_default();
    match (distance(now, at).as_secs(), distance(at, now).as_secs()) {
        (0, 0) => "now".to_owned(),
        (0, _) => format!("{} ago", span(distance(at, now))),
        _ => format!("in {}", span(distance(now, at))),
    }
}

/// A point in time, UTC, to the second.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Why a way was taken: `sending-service (global.rhai:3)`, `direct (no script decided)`.
pub(super) fn decision(decision: &Decision) -> String {
    let why = match &decision.script {
        Some(script) => match script.line {
            Some(line) => format!("{}:{line}", script.file),
            None => script.file.clone(),
        },
        None => match decision.level {
            crate::attempt::Level::Default => "no script decided".to_owned(),
            crate::attempt::Level::Override => "set by the operator".to_owned(),
            crate::attempt::Level::Local => "a mailbox here".to_owned(),
            level => level.to_string(),
        },
    };
    format!("{} ({why})", decision.transport)
}

/// What came of an attempt: `451 4.7.1 greylisted, at rcpt, mx.example.net [192.0.2.1]`.
pub(super) fn outcome(outcome: &Outcome) -> String {
    let verdict = match outcome.verdict {
        Verdict::Delivered => "delivered: ",
        Verdict::Temporary | Verdict::Permanent => "",
    };
    let code = outcome.code.map_or_else(String::new, |code| format!("{code} "));
    let enhanced = outcome.enhanced.map_or_else(String::new, |enhanced| format!("{enhanced} "));
    let words = outcome.text.replace('\n', " / ");
    let stage =
        if outcome.verdict == Verdict::Delivered { String::new() } else { format!(", at {}", outcome.stage) };
    let host = match (&outcome.host, outcome.ip) {
        (Some(host), Some(ip)) => format!(", {host} [{ip}]"),
        (Some(host), None) => format!(", {host}"),
        (None, Some(ip)) => format!(", [{ip}]"),
        (None, None) => String::new(),
    };
    let tls = outcome.tls.as_ref().map_or_else(String::new, |tls| format!(", {tls}"));
    // What a peer said is shown, not obeyed: no control character reaches the terminal.
    format!("{verdict}{code}{enhanced}{words}{stage}{host}{tls}")
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

/// A whole attempt on a few lines.
pub(super) fn attempt(attempt: &Attempt, indent: &str) -> String {
    let way = match (&attempt.decision, &attempt.outcome) {
        (Some(chosen), _) => decision(chosen),
        (None, None) => "way unknown".to_owned(),
        (None, Some(_)) => "given up without an attempt".to_owned(),
    };
    let asked = attempt.decision.as_ref().and_then(|decision| decision.set.as_ref());
    let asked = asked.map_or_else(String::new, |hash| format!(", scripts {hash}"));
    let end = match &attempt.outcome {
        Some(end) if attempt.decision.is_none() => end.text.chars().filter(|c| !c.is_control()).collect(),
        Some(end) => outcome(end),
        None => "no outcome: it runs, or the server died during it".to_owned(),
    };
    let log = attempt.decision.iter().flat_map(|decision| &decision.log);
    let log = log.map(|line| format!("{indent}    log: {line}\n")).collect::<Vec<_>>().concat();
    format!("{indent}{:>3}  {}  {way}{asked}\n{log}{indent}     {end}\n", attempt.number, time(attempt.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_for_people() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (4300, "4.2 KiB"), (12 << 20, "12 MiB")]
        {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (450, "7m 30s"), (3600, "1h"), (3661, "1h 1m"), (356_400, "4d 3h")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        let counted = [(0, "recipient"), (1, "delivery"), (2, "delivery")].map(|(n, word)| count(n, word));
        assert_eq!(counted, ["0 recipients", "1 delivery", "2 deliveries"]);
        let now = Timestamp::from_second(1_000_000).unwrap();
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        assert_eq!(when(at(450), now), "in 7m 30s");
        assert_eq!(when(at(-61), now), "1m 1s ago");
        assert_eq!(when(now, now), "now");
    }

    #[test]
    fn what_a_peer_said_cannot_drive_the_terminal() {
        let end = Outcome {
            code: Some(550),
            host: Some("mx.example.net".to_owned()),
            ip: "192.0.2.1".parse().ok(),
            ..Outcome::ours(
                Verdict::Permanent,
                crate::outcome::Stage::Rcpt,
                crate::outcome::EnhancedCode::new(5, 1, 1),
                "no\x1b[2J\nnever",
            )
        };
        assert_eq!(outcome(&end), "550 5.1.1 no[2J / never, at rcpt, mx.example.net [192.0.2.1]");
    }
}
