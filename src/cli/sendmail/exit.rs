//! How sendmail fails: with a code of sysexits.h, which cron, PHP and mail programs know, and a sentence.

use std::fmt;
use std::process::ExitCode;

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
    /// The configuration that was named cannot be read.
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
}

impl Failure {
    pub(super) fn new(exit: SysExit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// A command was refused; `what` is the address or the thing that it was about.
    pub(super) fn refused(what: impl fmt::Display, reply: &Reply) -> Self {
        let enhanced = reply.enhanced.map_or_else(String::new, |enhanced| format!("{enhanced} "));
        let words = reply.lines.join(" ");
        Self::new(exit_for(reply), format!("{what}: {} {enhanced}{words}", reply.code))
    }
}

/// What a refusal means for the program that called us.
fn exit_for(reply: &Reply) -> SysExit {
    if !reply.is_permanent() {
        return if reply.is_temporary() { SysExit::TempFail } else { SysExit::Protocol };
    }
    match reply.enhanced.map(|enhanced| (enhanced.subject, enhanced.detail)) {
        Some((1, 1 | 2 | 3 | 6 | 10)) => SysExit::NoUser,
        Some((7, _)) => SysExit::NoPerm,
        Some((6, _) | (3, 4)) => SysExit::DataErr,
        Some(_) => SysExit::Unavailable,
        None if reply.code == 552 => SysExit::DataErr,
        None => SysExit::Unavailable,
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
        assert_eq!(exit_for(&Reply::new(250, "ok")), SysExit::Protocol);
    }
}
