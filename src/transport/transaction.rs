//! One mail transaction as a state machine without I/O: which commands to write next, and what the replies mean for each
//! recipient.
//!
//! RFC 5321 §3.3 (transaction), RFC 2920 (pipelining). The connection asks [`Transaction::next`] what to do, reads as
//! many replies as were announced, and hands each to [`Transaction::take`].
//!
//! With pipelining, RSET (where the last transaction was left open), MAIL, the RCPTs and DATA go in one write. So DATA
//! may be accepted although no recipient was: then a lone dot ends it, and what the peer says to that means nothing
//! (RFC 2920 §3.1).

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::classify::{Cause, Failure, Seen, outcome_of_reply, says_too_many_recipients};
use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::smtp::Reply;
use crate::smtp::command::{Mail, Rcpt};

/// Commands in one write. More could fill the buffers of both sides, each waiting for the other to read (RFC 2920 §3.1).
const GROUP_COMMANDS_MAX: usize = 100;

/// What the connection does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write what stands in the buffer, then read so many replies.
    Send { replies: usize },
    /// Write the content with its end mark, then read one reply.
    SendContent,
    /// Write a dot and CR LF, then read one reply.
    SendLoneDot,
    /// The transaction is over.
    Done,
}

/// What the next reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    Content,
    LoneDot,
}

/// What is known of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Unanswered,
    Accepted,
    TooMany(Reply),
    Answered(Stage, Reply),
}

/// What came of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// This.
    Final(Outcome),
    /// Nothing: the transaction broke off before the content was sent, another connection may be tried.
    None,
    /// The peer wants it in another transaction, right after this one.
    Again,
}

/// One message on its way over one connection.
#[derive(Debug)]
pub(super) struct Transaction {
    mail: Mail,
    rcpts: Vec<Rcpt>,
    pipelining: bool,
    reset_first: bool,
    /// The next command to write: 0 is MAIL, then the RCPTs, then DATA.
    position: usize,
    expected: VecDeque<Expected>,
    recipients: Vec<State>,
    mail_answered: bool,
    open: bool,
    data_accepted: bool,
    content_sent: bool,
    over: bool,
}

impl Transaction {
    /// `reset_first`: the connection's last transaction was left open.
    pub(super) fn new(mail: Mail, rcpts: Vec<Rcpt>, pipelining: bool, reset_first: bool) -> Self {
        Self {
            recipients: vec![State::Unanswered; rcpts.len()],
            mail,
            rcpts,
            pipelining,
            reset_first,
            position: 0,
            expected: VecDeque::new(),
            mail_answered: false,
            open: reset_first,
            data_accepted: false,
            content_sent: false,
            over: false,
        }
    }

    /// What to do now that all announced replies were taken; commands are appended to `out`.
    pub(super) fn next(&mut self, out: &mut String) -> Step {
        if self.over {
            return Step::Done;
        }
        if self.data_accepted {
            let wanted = self.recipients.contains(&State::Accepted);
            self.content_sent = wanted;
            self.expected.push_back(if wanted { Expected::Content } else { Expected::LoneDot });
            return if wanted { Step::SendContent } else { Step::SendLoneDot };
        }
        let group = if self.pipelining { GROUP_COMMANDS_MAX } else { 1 };
        if std::mem::take(&mut self.reset_first) {
            out.push_str("RSET\r\n");
            self.expected.push_back(Expected::Reset);
        }
        while self.expected.len() < group {
            // Writing to a String cannot fail.
            match self.position.checked_sub(1) {
                None => {
                    let _ = write!(out, "{}\r\n", self.mail);
                    self.expected.push_back(Expected::Mail);
                }
                Some(at) if at < self.rcpts.len() => {
                    let _ = write!(out, "{}\r\n", self.rcpts[at]);
                    self.expected.push_back(Expected::Rcpt(at));
                }
                // Without pipelining we know when nobody is left to send to.
                Some(at) if at == self.rcpts.len() && !self.nobody_left() => {
                    out.push_str("DATA\r\n");
                    self.expected.push_back(Expected::Data);
                }
                Some(_) => break,
            }
            self.position += 1;
        }
        if self.expected.is_empty() { Step::Done } else { Step::Send { replies: self.expected.len() } }
    }

    fn nobody_left(&self) -> bool {
        !self.recipients.iter().any(|state| matches!(state, State::Unanswered | State::Accepted))
    }

    /// The stage that the next reply belongs to.
    pub(super) fn stage(&self) -> Stage {
        match self.expected.front() {
            None | Some(Expected::Reset | Expected::Mail) => Stage::Mail,
            Some(Expected::Rcpt(_)) => Stage::Rcpt,
            Some(Expected::Data | Expected::Content | Expected::LoneDot) => Stage::Data,
        }
    }

    /// Takes the next reply. An error ends the session, not the recipients: see [`Transaction::answers`].
    pub(super) fn take(&mut self, reply: Reply) -> Result<(), Failure> {
        let stage = self.stage();
        let Some(expected) = self.expected.pop_front() else { return Ok(()) };
        self.mail_answered |= expected != Expected::Reset && reply.code != 421;
        // RFC 5321 §3.8: the peer goes away. To the content it is an answer like any other.
        if reply.code == 421 && !matches!(expected, Expected::Content | Expected::LoneDot) {
            return Err(Failure::new(stage, Cause::Reply(reply)));
        }
        match expected {
            Expected::Reset if reply.is_positive() => self.open = false,
            Expected::Reset => return Err(Failure::new(stage, Cause::Reply(reply))),
            Expected::Mail if reply.is_positive() => self.open = true,
            Expected::Mail => self.refuse_mail(&reply),
            Expected::Rcpt(at) => self.take_rcpt(at, reply),
            Expected::Data if reply.is_intermediate() => self.data_accepted = true,
            Expected::Data => self.end(&reply),
            Expected::Content => {
                self.open = false;
                self.end(&reply);
            }
            Expected::LoneDot => {
                self.open = false;
                self.over = true;
            }
        }
        Ok(())
    }

    fn refuse_mail(&mut self, reply: &Reply) {
        for state in &mut self.recipients {
            *state = State::Answered(Stage::Mail, reply.clone());
        }
        // Commands that already went out are still answered; DATA may even be accepted.
        self.position = self.rcpts.len() + 2;
        self.over = self.expected.is_empty();
    }

    fn take_rcpt(&mut self, at: usize, reply: Reply) {
        let earlier_accepted = self.recipients.contains(&State::Accepted);
        let Some(state) = self.recipients.get_mut(at).filter(|state| **state == State::Unanswered) else {
            return;
        };
        *state = if reply.is_positive() {
            State::Accepted
        } else if earlier_accepted && says_too_many_recipients(&reply) {
            State::TooMany(reply)
        } else {
            State::Answered(Stage::Rcpt, reply)
        };
    }

    fn end(&mut self, reply: &Reply) {
        for state in self.recipients.iter_mut().filter(|state| **state == State::Accepted) {
            *state = State::Answered(Stage::Data, reply.clone());
        }
        self.over = true;
    }

    /// Whether the peer has answered MAIL. Before that, a kept connection that breaks was only stale.
    pub(super) fn mail_answered(&self) -> bool {
        self.mail_answered
    }

    /// Whether the peer may still be in the transaction, so that RSET must go before the next.
    pub(super) fn left_open(&self) -> bool {
        self.open
    }

    /// What came of each recipient; `failure` is what ended the session before its time.
    pub(super) fn answers(self, failure: Option<&Failure>, seen: &Seen) -> Vec<Answer> {
        let delivered_some = self.content_sent && failure.is_none();
        let answer = |state| match state {
            State::Answered(Stage::Data, reply) if reply.is_positive() && !self.content_sent => {
                let text = format!("the peer answered {} to DATA: {}", reply.code, reply.text());
                let enhanced = EnhancedCode::new(4, 5, 0);
                let odd = Outcome::ours(Verdict::Temporary, Stage::Data, enhanced, text);
                Answer::Final(Outcome { code: Some(reply.code), ..super::classify::with_peer(odd, seen) })
            }
            State::Answered(stage, reply) => Answer::Final(outcome_of_reply(stage, &reply, seen)),
            State::TooMany(_) if delivered_some => Answer::Again,
            State::TooMany(reply) => Answer::Final(outcome_of_reply(Stage::Rcpt, &reply, seen)),
            // From the first byte of content on, the peer may have the message: it is not tried elsewhere at once.
            State::Accepted | State::Unanswered => match failure {
                Some(failure) if self.content_sent => Answer::Final(failure.outcome(seen)),
                _ => Answer::None,
            },
        };
        self.recipients.into_iter().map(answer).collect()
    }
}
