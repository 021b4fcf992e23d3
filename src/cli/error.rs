//! How a command fails: in words for the operator, with an exit code for scripts, and with what to do.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::config::ConfigProblems;
use crate::control::{ClientError, Fault, FaultKind};
use crate::route::ScriptProblem;
use crate::server::StartError;
use crate::store::StoreError;

/// The exit codes; documented in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// What was asked about is bad, or is not there.
    Bad = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No server is running.
    NotRunning = 3,
    /// It could not be done.
    Failed = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failed command.
#[derive(Debug)]
pub struct CommandError {
    exit: Exit,
    message: Message,
    hint: Option<String>,
}

#[derive(Debug)]
enum Message {
    Text(String),
    /// Shown as they are, each with its place.
    Problems(Box<ConfigProblems>),
    /// Everything has been said already, or there is nobody to say it to.
    Silent,
}

impl CommandError {
    /// A failure in one sentence.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: Message::Text(message.to_string()), hint: None }
    }

    /// A failure whose output already said what is wrong.
    pub fn silent(exit: Exit) -> Self {
        Self { exit, message: Message::Silent, hint: None }
    }

    /// Adds what to do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What is printed to standard error.
    pub fn render(&self, colours: bool) -> String {
        let message = match &self.message {
            Message::Text(text) if colours => format!("\x1b[31merror:\x1b[0m {text}\n"),
            Message::Text(text) => format!("error: {text}\n"),
            Message::Problems(problems) => problems.render(colours),
            Message::Silent => String::new(),
        };
        let hint = self.hint.as_ref().map_or_else(String::new, |hint| format!("hint: {hint}\n"));
        [message, hint].concat()
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        // `waypost queue list | head` is no failure.
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(Exit::Ok)
        } else {
            Self::new(Exit::Failed, error)
        }
    }
}

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl From<ConfigProblems> for CommandError {
    fn from(problems: ConfigProblems) -> Self {
        Self { exit: Exit::Bad, message: Message::Problems(Box::new(problems)), hint: None }
    }
}

impl From<Vec<ScriptProblem>> for CommandError {
    fn from(problems: Vec<ScriptProblem>) -> Self {
        let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        Self::new(Exit::Bad, format!("the routing scripts have problems:{}", lines.concat()))
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotRunning { .. } => {
                Self::new(Exit::NotRunning, error).hint("start it with `waypost serve`")
            }
            ClientError::Fault(fault) => fault.into(),
            ClientError::Unreachable { .. } => {
                Self::new(Exit::Failed, error).hint("only the server's own user, and root, may speak to it")
            }
            error => Self::new(Exit::Failed, error),
        }
    }
}

impl From<Fault> for CommandError {
    fn from(fault: Fault) -> Self {
        let exit = match fault.kind {
            FaultKind::BadRequest => Exit::Usage,
            FaultKind::NotFound | FaultKind::Refused => Exit::Bad,
            FaultKind::Failed => Exit::Failed,
        };
        Self::new(exit, fault.message)
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::Failed, error)
    }
}

impl From<StartError> for CommandError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Scripts(problems) => problems.into(),
            error => Self::new(Exit::Failed, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_exit_code_and_its_words() {
        let not_running = CommandError::from(ClientError::NotRunning { data_dir: "/var/lib/waypost".into() });
        assert_eq!(not_running.exit(), Exit::NotRunning);
        let words = "error: no server is running for /var/lib/waypost\nhint: start it with `waypost serve`\n";
        assert_eq!(not_running.render(false), words);
        for (kind, exit) in [
            (FaultKind::BadRequest, Exit::Usage),
            (FaultKind::NotFound, Exit::Bad),
            (FaultKind::Refused, Exit::Bad),
            (FaultKind::Failed, Exit::Failed),
        ] {
            assert_eq!(CommandError::from(Fault::new(kind, "x")).exit(), exit);
        }
        let pipe = CommandError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((pipe.exit(), pipe.render(false)), (Exit::Ok, String::new()));
    }
}
