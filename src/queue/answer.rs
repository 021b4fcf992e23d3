//! What a peer may answer, in an operator's words: `451 4.7.1 greylisted`, `554@greeting`, `timeout`.
//!
//! What an answer means (temporary or permanent, and how a smarthost's differs) the transports say themselves.

use crate::config::{Transport, TransportKind};
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::smtp::Reply;
use crate::transport;

/// How an attempt may end, whatever it goes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAnswer {
    /// A reply, at a stage.
    Reply(Stage, Reply),
    /// No reply: our own words.
    Silence(Outcome),
}

/// Words for what happens often: the reply that is meant.
const REPLIES: [(&str, &str); 6] = [
    ("ok", "250 2.0.0 taken"),
    ("greylisted", "451 4.7.1 greylisted"),
    ("busy", "421@greeting 4.3.2 too busy"),
    ("full", "452 4.2.2 mailbox full"),
    ("unknown", "550 5.1.1 no such user"),
    ("blocked", "554@greeting 5.7.1 your address is blocked"),
];

/// An end without a reply.
struct Silence {
    word: &'static str,
    verdict: Verdict,
    stage: Stage,
    /// Subject and detail of the enhanced status code.
    about: (u16, u16),
    text: &'static str,
}

impl Silence {
    const fn temporary(word: &'static str, stage: Stage, about: (u16, u16), text: &'static str) -> Self {
        Self { word, verdict: Verdict::Temporary, stage, about, text }
    }
}

/// Words for what happens without a word of the peer.
const SILENCES: [Silence; 7] = [
    Silence::temporary("timeout", Stage::Connect, (4, 1), "no connection: timed out"),
    Silence::temporary("refused", Stage::Connect, (4, 1), "no connection: refused"),
    Silence::temporary("connect", Stage::Connect, (4, 1), "no connection"),
    Silence::temporary("lost", Stage::Data, (4, 2), "the connection was lost"),
    Silence::temporary("dns", Stage::Dns, (4, 3), "no answer from DNS"),
    Silence::temporary("tls", Stage::Tls, (7, 5), "TLS did not come about"),
    Silence {
        word: "nxdomain",
        verdict: Verdict::Permanent,
        stage: Stage::Dns,
        about: (1, 2),
        text: "there is no such domain",
    },
];

/// The words that stand for an answer.
pub fn words() -> impl Iterator<Item = &'static str> {
    REPLIES.iter().map(|(word, _)| *word).chain(SILENCES.iter().map(|silence| silence.word))
}

impl PeerAnswer {
    /// Reads `CODE[@STAGE] [ENHANCED] [TEXT]`, or a word, which may be followed by a text of one's own.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        if let Some((_, meant)) = REPLIES.iter().find(|(word, _)| *word == first) {
            let own = format!("{} {rest}", meant.split(' ').next().unwrap_or_default());
            return Self::parse(if rest.is_empty() { meant } else { &own });
        }
        if let Some(silence) = SILENCES.iter().find(|silence| silence.word == first) {
            let class = if silence.verdict == Verdict::Permanent { 5 } else { 4 };
            let enhanced = EnhancedCode::new(class, silence.about.0, silence.about.1);
            let words = if rest.is_empty() { silence.text } else { rest };
            return Ok(Self::Silence(Outcome::ours(silence.verdict, silence.stage, enhanced, words)));
        }
        let (code, stage) = first.split_once('@').unwrap_or((first, ""));
        let delivered = code == "250";
        let reply =
            if delivered { taken(rest) } else { crate::config::parse_reply(&format!("{code} {rest}")) };
        let reply = reply.map_err(|error| Self::wrong(text, code, error))?;
        let stage = match stage {
            "" if delivered => Stage::Data,
            "" => Stage::Rcpt,
            name => stage_of(name).filter(|stage| !delivered || *stage == Stage::Data).ok_or_else(|| {
                format!("{first:?}: a {code} comes at no stage {name:?}; the stages are {}", stage_names())
            })?,
        };
        Ok(Self::Reply(stage, reply))
    }

    fn wrong(text: &str, code: &str, error: String) -> String {
        if code.starts_with(|c: char| c.is_ascii_digit()) {
            return error;
        }
        let known: Vec<&str> = words().collect();
        let near = crate::config::nearest(code, known.iter().copied());
        let hint = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
        format!(
            "{text:?} is no answer{hint}: write a reply such as \"451 4.7.1 greylisted\", or one of {}",
            known.join(", ")
        )
    }

    /// What it means when it comes over this transport. A `fail` transport has its own answer.
    pub fn over(&self, transport: Option<&Transport>) -> Outcome {
        let own = match transport.map(|transport| &transport.kind) {
            Some(TransportKind::Fail { reply, .. }) => Some((Stage::Mail, reply)),
            _ => None,
        };
        match (own, self) {
            (Some((stage, reply)), _) => transport::meaning(transport, stage, reply),
            (None, Self::Reply(stage, reply)) => transport::meaning(transport, *stage, reply),
            (None, Self::Silence(outcome)) => transport::as_seen_over(transport, outcome.clone()),
        }
    }
}

/// `250 2.0.0 taken`.
fn taken(rest: &str) -> Result<Reply, String> {
    let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
    match first.parse::<EnhancedCode>() {
        Ok(enhanced) if enhanced.class != 2 => {
            Err(format!("the enhanced status code {enhanced} does not fit the code 250"))
        }
        Ok(enhanced) => Ok(Reply::enhanced(250, enhanced, if after.is_empty() { "taken" } else { after })),
        Err(_) => Ok(Reply::new(250, if rest.is_empty() { "taken" } else { rest })),
    }
}

const STAGES: [Stage; 6] = [Stage::Greeting, Stage::Tls, Stage::Auth, Stage::Mail, Stage::Rcpt, Stage::Data];

fn stage_of(name: &str) -> Option<Stage> {
    STAGES.into_iter().find(|stage| stage.as_str() == name)
}

fn stage_names() -> String {
    STAGES.map(Stage::as_str).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(text: &str) -> Outcome {
        PeerAnswer::parse(text).unwrap().over(None)
    }

    #[test]
    fn each_answer_means_what_it_would_mean_from_a_peer() {
        for (text, verdict, stage, code, words) in [
            ("250", Verdict::Delivered, Stage::Data, Some(250), "taken"),
            ("250 2.6.0 queued as 7", Verdict::Delivered, Stage::Data, Some(250), "queued as 7"),
            ("ok", Verdict::Delivered, Stage::Data, Some(250), "taken"),
            ("451 greylisted", Verdict::Temporary, Stage::Rcpt, Some(451), "greylisted"),
            ("greylisted come back", Verdict::Temporary, Stage::Rcpt, Some(451), "come back"),
            ("452@data 4.3.1 disk", Verdict::Temporary, Stage::Data, Some(452), "disk"),
            ("blocked", Verdict::Permanent, Stage::Greeting, Some(554), "your address is blocked"),
            ("550 5.1.1 no such user", Verdict::Permanent, Stage::Rcpt, Some(550), "no such user"),
            ("timeout", Verdict::Temporary, Stage::Connect, None, "no connection: timed out"),
            ("connect nobody there", Verdict::Temporary, Stage::Connect, None, "nobody there"),
            ("nxdomain", Verdict::Permanent, Stage::Dns, None, "there is no such domain"),
        ] {
            let outcome = direct(text);
            assert_eq!((outcome.verdict, outcome.stage, outcome.code), (verdict, stage, code), "{text}");
            assert_eq!(outcome.text, words, "{text}");
        }
        for word in words() {
            PeerAnswer::parse(word).unwrap();
        }
    }

    #[test]
    fn what_is_no_answer_says_what_would_be_one() {
        for (text, part) in [
            ("greylist", "did you mean greylisted?"),
            ("", "write a reply such as"),
            ("200 fine", "400 to 599"),
            ("451@rcpd x", "the stages are greeting"),
            ("250@rcpt", "comes at no stage"),
            ("451 5.1.1 x", "does not fit the code"),
            ("250 4.0.0 x", "does not fit the code"),
        ] {
            let error = PeerAnswer::parse(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
