//! How sendmail fails: with a code of sysexits.h, which cron, PHP and mail programs know, and a sentence.

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

use crate::outcome::{EnhancedCode, Outcome, Stage, Verdict};
use crate::smtp::Reply;

/// The codes of sysexits.h that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SysExit {
    /// The command line is wrong.
    Usage = 64,
    /// The message cannot be sent as it is: an address in its header, its size.
    DataErr = 65,
    /// A recipient does not exist.
    NoUser = 67,
    /// There is no server of the name that the configuration gives.
    NoHost = 68,
    /// It was refused for good.
    Unavailable = 69,
    /// Standard input or output failed.
    IoErr = 74,
    /// Not now; trying again later may help.
    TempFail = 75,
    /// The server answers something else than SMTP.
    Protocol = 76,
    /// This user may not send so.
    NoPerm = 77,
    /// The configuration cannot be read, or is wrong.
    Config = 78,
}

impl From<SysExit> for ExitCode {
    fn from(exit: SysExit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: SysExit,
    pub(super) message: String,
    /// The arguments that send it to those who did not get it, where others did.
    pub(super) again: Option<Vec<OsString>>,
}

impl Failure {
    pub(super) fn new(exit: SysExit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), again: None }
    }

    /// A command was refused; `what` is the address or the thing that it was about.
    pub(super) fn refused(what: impl fmt::Display, reply: &Reply) -> Self {
        let enhanced = reply.enhanced.map_or_else(String::new, |enhanced| format!("{enhanced} "));
        let words = reply.lines.join(" ");
        let exit = exit_for(reply.code, reply.enhanced);
        Self::new(exit, format!("{what}: {} {enhanced}{words}", reply.code))
    }

    /// A delivery that came to nothing.
    pub(super) fn outcome(message: impl fmt::Display, outcome: &Outcome) -> Self {
        Self::new(exit_for_outcome(outcome), message)
    }

    /// Several as one: the first that lasts decides the code, each has its line.
    pub(super) fn joined(all: Vec<Self>) -> Option<Self> {
        let lasting = all.iter().find(|failure| failure.exit != SysExit::TempFail);
        let exit = lasting.or(all.first())?.exit;
        let lines: Vec<_> = all.into_iter().map(|failure| failure.message).collect();
        Some(Self::new(exit, lines.join("\n")))
    }
}

/// What a refusal means for the program that called us.
fn exit_for(code: u16, enhanced: Option<EnhancedCode>) -> SysExit {
    match code {
        400..500 => return SysExit::TempFail,
        500..600 => {}
        _ => return SysExit::Protocol,
    }
    // x.0.0 says nothing (RFC 3463 §3.1).
    match enhanced.map(|enhanced| (enhanced.subject, enhanced.detail)).filter(|said| *said != (0, 0)) {
        Some((1, 1 | 2 | 3 | 6 | 10)) => SysExit::NoUser,
        Some((7, _)) => SysExit::NoPerm,
        Some((6, _) | (3, 4)) => SysExit::DataErr,
        Some(_) => SysExit::Unavailable,
        None if code == 552 => SysExit::DataErr,
        // RFC 4954 §6.
        None if matches!(code, 530 | 534 | 535 | 538) => SysExit::NoPerm,
        None => SysExit::Unavailable,
    }
}

/// The same where no server may have said a word. That it is temporary for the queue, which waits for the operator to
/// mend a login or a certificate, means nothing to somebody who will not try again by himself.
fn exit_for_outcome(outcome: &Outcome) -> SysExit {
    let about = outcome.enhanced.map(|enhanced| (enhanced.subject, enhanced.detail));
    match (outcome.stage, outcome.code) {
        (Stage::Auth, Some(500..600)) => SysExit::NoPerm,
        (Stage::Rcpt, Some(550 | 551 | 553)) if about.is_none_or(|said| said == (0, 0)) => SysExit::NoUser,
        (_, Some(code)) => exit_for(code, outcome.enhanced),
        (Stage::Dns, None) if about == Some((4, 4)) => SysExit::NoHost,
        // Not SMTP, or not as it should be.
        (_, None) if about == Some((5, 0)) => SysExit::Protocol,
        // Nobody was there, or not for long.
        (_, None) if matches!(about, Some((4, _))) => SysExit::TempFail,
        (Stage::Auth, None) => SysExit::NoPerm,
        (Stage::Tls, None) => SysExit::Unavailable,
        (_, None) if outcome.verdict == Verdict::Permanent => exit_for(554, outcome.enhanced),
        (_, None) => SysExit::TempFail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_codes() {
        for (reply, exit) in [
            ("550 5.1.1 no such user", SysExit::NoUser),
            ("553 5.7.1 not yours", SysExit::NoPerm),
            ("550 5.7.1 no", SysExit::NoPerm),
            ("552 5.3.4 too large", SysExit::DataErr),
            ("552 too large", SysExit::DataErr),
            ("554 5.6.0 bare LF", SysExit::DataErr),
            ("554 5.4.6 loop", SysExit::Unavailable),
            ("550 no", SysExit::Unavailable),
            ("452 4.3.1 full", SysExit::TempFail),
            ("421 4.3.2 stopping", SysExit::TempFail),
        ] {
            let failure = Failure::refused("x@y", &crate::config::parse_reply(reply).unwrap());
            assert_eq!(failure.exit, exit, "{reply}");
            assert_eq!(failure.message, format!("x@y: {reply}"));
        }
        assert_eq!(exit_for(250, None), SysExit::Protocol);
    }

    #[test]
    fn deliveries_that_failed_have_theirs() {
        use Verdict::{Permanent, Temporary};
        for (verdict, stage, code, enhanced, exit) in [
            (Temporary, Stage::Dns, None, "4.4.4", SysExit::NoHost),
            (Temporary, Stage::Dns, None, "4.4.3", SysExit::TempFail),
            (Temporary, Stage::Connect, None, "4.4.1", SysExit::TempFail),
            (Temporary, Stage::Greeting, None, "4.5.0", SysExit::Protocol),
            (Temporary, Stage::Greeting, Some(554), "4.0.0", SysExit::Unavailable),
            (Temporary, Stage::Greeting, Some(421), "4.3.2", SysExit::TempFail),
            (Temporary, Stage::Tls, None, "4.7.4", SysExit::Unavailable),
            (Temporary, Stage::Tls, None, "4.7.5", SysExit::Unavailable),
            (Temporary, Stage::Tls, None, "4.4.2", SysExit::TempFail),
            (Temporary, Stage::Auth, Some(535), "4.7.8", SysExit::NoPerm),
            (Temporary, Stage::Auth, Some(535), "4.0.0", SysExit::NoPerm),
            (Temporary, Stage::Auth, Some(454), "4.7.0", SysExit::TempFail),
            (Temporary, Stage::Auth, None, "4.7.11", SysExit::NoPerm),
            (Temporary, Stage::Auth, None, "4.7.0", SysExit::NoPerm),
            (Temporary, Stage::Mail, Some(530), "4.7.0", SysExit::NoPerm),
            (Temporary, Stage::Mail, Some(530), "4.0.0", SysExit::NoPerm),
            (Permanent, Stage::Mail, None, "5.6.7", SysExit::DataErr),
            (Permanent, Stage::Mail, None, "5.3.4", SysExit::DataErr),
            (Permanent, Stage::Rcpt, Some(550), "5.0.0", SysExit::NoUser),
            (Permanent, Stage::Rcpt, Some(550), "5.7.1", SysExit::NoPerm),
            (Temporary, Stage::Rcpt, Some(450), "4.2.0", SysExit::TempFail),
            (Permanent, Stage::Data, Some(554), "5.0.0", SysExit::Unavailable),
            (Temporary, Stage::Data, None, "4.4.2", SysExit::TempFail),
        ] {
            let outcome = Outcome::ours(verdict, stage, enhanced.parse().unwrap(), "x");
            let outcome = Outcome { code, ..outcome };
            assert_eq!(Failure::outcome("x", &outcome).exit, exit, "{outcome:?}");
        }
    }

    #[test]
    fn several_refusals_are_one_failure() {
        let failure = |exit, text: &str| Failure::new(exit, text);
        assert_eq!(Failure::joined(vec![]), None);
        let both = [failure(SysExit::TempFail, "a"), failure(SysExit::NoUser, "b")];
        assert_eq!(Failure::joined(both.to_vec()), Some(failure(SysExit::NoUser, "a\nb")));
        assert_eq!(Failure::joined(both[..1].to_vec()).unwrap().exit, SysExit::TempFail);
    }
}
