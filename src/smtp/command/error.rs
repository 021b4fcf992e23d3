//! What is wrong with a command line, and the reply it gets.

use crate::address::AddressError;
use crate::outcome::EnhancedCode;
use crate::smtp::Reply;

/// Why a line is no command; always the client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The first word is no command that we know.
    #[error("I do not know this command")]
    Unknown,
    /// Control characters, or bytes that are no UTF-8.
    #[error("A command is a line of text, without control characters")]
    NotText,
    /// EHLO or HELO (named) without a usable name.
    #[error("Syntax: {0} your.host.name")]
    Hello(&'static str),
    /// The command as it should have been.
    #[error("Syntax: {0}")]
    Syntax(&'static str),
    /// The reverse-path is no address.
    #[error("Bad sender: {0}")]
    Sender(AddressError),
    /// The forward-path is no address.
    #[error("Bad recipient: {0}")]
    Recipient(AddressError),
    /// What follows the path is no list of parameters.
    #[error("After the address come parameters, each as KEYWORD or KEYWORD=value")]
    Parameters,
    /// A parameter stands there twice.
    #[error("{0} is given twice")]
    ParameterTwice(String),
    /// A parameter has no value, or a wrong one.
    #[error("The value of {0} is not valid")]
    ParameterValue(String),
    /// A parameter of an extension that is not offered.
    #[error("{0} is a parameter that is not offered here")]
    UnknownParameter(String),
    /// The initial response of AUTH is no base64.
    #[error("The response is not valid base64")]
    Base64,
}

impl CommandError {
    /// The reply that says so.
    pub fn reply(&self) -> Reply {
        let (code, subject, detail) = match self {
            Self::Unknown => (500, 5, 1),
            Self::NotText => (500, 5, 2),
            Self::Hello(_) | Self::Syntax(_) | Self::Parameters => (501, 5, 4),
            // RFC 3463 §3.2: X.1.7 bad sender's mailbox address syntax, X.1.3 that of a recipient.
            Self::Sender(_) => (501, 1, 7),
            Self::Recipient(_) => (501, 1, 3),
            Self::ParameterTwice(_) | Self::ParameterValue(_) => (501, 5, 4),
            // RFC 5321 §4.1.1.11.
            Self::UnknownParameter(_) => (555, 5, 4),
            // RFC 4954 §6: 5.5.2 for invalid base64.
            Self::Base64 => (501, 5, 2),
        };
        Reply::enhanced(code, EnhancedCode::new(5, subject, detail), self.to_string())
    }
}
