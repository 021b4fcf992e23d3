//! SMTP commands, as a client writes them and as a server reads them.
//!
//! [`Command::parse`] takes a line without its CR LF and gives a command in which every address, domain and
//! parameter is checked, or a [`CommandError`] that knows the reply it deserves. What a command means at that point
//! of a session is not decided here. Where people's programs are sloppy without harm (white space after the colon
//! or at the end of a line) the line is taken; where meaning would have to be guessed it is refused.
//!
//! RFC 5321 §4.1, RFC 1870 (SIZE), RFC 6152 (BODY), RFC 6531 (SMTPUTF8), RFC 3030 (BDAT), RFC 3461 (DSN),
//! RFC 4954 (AUTH), RFC 3207 (STARTTLS), RFC 8689 (REQUIRETLS).

mod error;
mod parameters;
mod path;
#[cfg(test)]
mod tests;

use std::fmt;

pub use error::CommandError;
pub use path::{ForwardPath, HelloName};

use crate::envelope::{BodyType, Notify, Ret, ReversePath};
use crate::sasl;
use crate::smtp::xtext;
use parameters::Parameters;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// EHLO.
    Ehlo(HelloName),
    /// HELO.
    Helo(HelloName),
    /// MAIL FROM.
    Mail(Mail),
    /// RCPT TO.
    Rcpt(Rcpt),
    /// DATA.
    Data,
    /// BDAT.
    Bdat(Bdat),
    /// RSET.
    Rset,
    /// NOOP, with or without an argument.
    Noop,
    /// VRFY; what was asked does not matter to us.
    Vrfy,
    /// EXPN; what was asked does not matter to us.
    Expn,
    /// HELP, with or without an argument.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth(Auth),
}

/// MAIL FROM with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The reverse-path.
    pub sender: ReversePath,
    /// Whether the path holds UTF-8, which needs SMTPUTF8 even where its mailbox does not.
    pub path_is_utf8: bool,
    /// SIZE=, bytes.
    pub size: Option<u64>,
    /// BODY=.
    pub body: Option<BodyType>,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// RET=.
    pub ret: Option<Ret>,
    /// ENVID=, decoded.
    pub envid: Option<String>,
    /// AUTH=, decoded: who is said to have sent it first (RFC 4954 §5).
    pub auth: Option<String>,
}

impl Mail {
    /// MAIL FROM without parameters.
    pub fn new(sender: ReversePath) -> Self {
        let path_is_utf8 = sender.mailbox().is_some_and(crate::address::Mailbox::needs_smtputf8);
        Self {
            sender,
            path_is_utf8,
            size: None,
            body: None,
            smtputf8: false,
            require_tls: false,
            ret: None,
            envid: None,
            auth: None,
        }
    }
}

/// RCPT TO with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rcpt {
    /// The forward-path.
    pub recipient: ForwardPath,
    /// Whether the path holds UTF-8, which needs SMTPUTF8 even where its mailbox does not.
    pub path_is_utf8: bool,
    /// NOTIFY=.
    pub notify: Option<Notify>,
    /// ORCPT=, decoded, with its type.
    pub orcpt: Option<String>,
}

impl Rcpt {
    /// RCPT TO without parameters.
    pub fn new(recipient: ForwardPath) -> Self {
        let path_is_utf8 = recipient.mailbox().is_some_and(crate::address::Mailbox::needs_smtputf8);
        Self { recipient, path_is_utf8, notify: None, orcpt: None }
    }
}

/// BDAT (RFC 3030 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bdat {
    /// Octets that follow the command's line.
    pub size: u64,
    /// Whether this is the end of the message.
    pub last: bool,
}

/// AUTH (RFC 4954 §4).
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// The mechanism's name, in upper case; perhaps none of ours.
    pub mechanism: String,
    /// The initial response, decoded.
    pub initial: Option<Vec<u8>>,
}

/// Without the initial response: it holds passwords.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

impl Command {
    /// Reads a line without its CR LF.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let text = std::str::from_utf8(line).map_err(|_| CommandError::NotText)?;
        if text.chars().any(char::is_control) {
            return Err(CommandError::NotText);
        }
        // RFC 5321 §4.1.1: white space before the end of the line is tolerated.
        let text = text.trim_end_matches(' ');
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim_start_matches(' ');
        match Verb::find(verb).ok_or(CommandError::Unknown)? {
            Verb::Ehlo => HelloName::parse(rest).map(Self::Ehlo).ok_or(CommandError::Hello("EHLO")),
            Verb::Helo => HelloName::parse(rest).map(Self::Helo).ok_or(CommandError::Hello("HELO")),
            Verb::Mail => parse_mail(rest).map(Self::Mail),
            Verb::Rcpt => parse_rcpt(rest).map(Self::Rcpt),
            Verb::Data => alone(rest, Self::Data, "DATA"),
            Verb::Bdat => parse_bdat(rest).map(Self::Bdat),
            Verb::Rset => alone(rest, Self::Rset, "RSET"),
            Verb::Noop => Ok(Self::Noop),
            Verb::Vrfy if rest.is_empty() => Err(CommandError::Syntax("VRFY address")),
            Verb::Vrfy => Ok(Self::Vrfy),
            Verb::Expn if rest.is_empty() => Err(CommandError::Syntax("EXPN list")),
            Verb::Expn => Ok(Self::Expn),
            Verb::Help => Ok(Self::Help),
            Verb::Quit => alone(rest, Self::Quit, "QUIT"),
            // RFC 3207 §4: 501 when there is a parameter.
            Verb::StartTls => alone(rest, Self::StartTls, "STARTTLS"),
            Verb::Auth => parse_auth(rest).map(Self::Auth),
        }
    }
}

/// The first word of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// BDAT.
    Bdat,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY.
    Vrfy,
    /// EXPN.
    Expn,
    /// HELP.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
}

impl Verb {
    /// All, those of every message first.
    pub const ALL: [Self; 14] = [
        Self::Ehlo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Quit,
        Self::Bdat,
        Self::Rset,
        Self::StartTls,
        Self::Auth,
        Self::Helo,
        Self::Noop,
        Self::Vrfy,
        Self::Expn,
        Self::Help,
    ];

    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ehlo => "EHLO",
            Self::Helo => "HELO",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Bdat => "BDAT",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Vrfy => "VRFY",
            Self::Expn => "EXPN",
            Self::Help => "HELP",
            Self::Quit => "QUIT",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
        }
    }

    /// The verb with which a line begins, be the rest of it right or wrong.
    pub fn of_line(line: &[u8]) -> Option<Self> {
        let word = line.split(|b| *b == b' ').next()?;
        Self::find(std::str::from_utf8(word).ok()?)
    }

    fn find(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str().eq_ignore_ascii_case(word))
    }
}

/// A command that takes no argument.
fn alone(rest: &str, command: Command, usage: &'static str) -> Result<Command, CommandError> {
    if rest.is_empty() { Ok(command) } else { Err(CommandError::Syntax(usage)) }
}

/// What follows `FROM:` or `TO:`; white space after the colon is against RFC 5321 §3.3, and frequent.
fn after_keyword<'a>(rest: &'a str, keyword: &str, usage: &'static str) -> Result<&'a str, CommandError> {
    let syntax = CommandError::Syntax(usage);
    match rest.get(..keyword.len()) {
        Some(found) if found.eq_ignore_ascii_case(keyword) => {
            Ok(rest[keyword.len()..].trim_start_matches(' '))
        }
        _ => Err(syntax),
    }
}

fn parse_mail(rest: &str) -> Result<Mail, CommandError> {
    let usage = "MAIL FROM:<sender@domain>";
    let (path, rest) = path::split(after_keyword(rest, "FROM:", usage)?, usage)?;
    let sender = match path {
        "" => ReversePath::Null,
        path => ReversePath::Mailbox(path::mailbox(path).map_err(CommandError::Sender)?),
    };
    let mut mail = Mail { path_is_utf8: !path.is_ascii(), ..Mail::new(sender) };
    let mut seen = Parameters::new(rest);
    while let Some((keyword, value)) = seen.next_parameter()? {
        match (keyword.as_str(), value) {
            ("SIZE", Some(digits)) => mail.size = Some(parameters::number(digits, "SIZE")?),
            ("BODY", Some(body)) => mail.body = Some(parameters::body(body)?),
            ("SMTPUTF8", None) => mail.smtputf8 = true,
            ("REQUIRETLS", None) => mail.require_tls = true,
            ("RET", Some(ret)) => mail.ret = Some(parameters::ret(ret)?),
            ("ENVID", Some(id)) => mail.envid = Some(parameters::envid(id)?),
            ("AUTH", Some(who)) => mail.auth = Some(parameters::auth(who)?),
            ("SIZE" | "BODY" | "SMTPUTF8" | "REQUIRETLS" | "RET" | "ENVID" | "AUTH", _) => {
                return Err(CommandError::ParameterValue(keyword));
            }
            _ => return Err(CommandError::UnknownParameter(keyword)),
        }
    }
    Ok(mail)
}

fn parse_rcpt(rest: &str) -> Result<Rcpt, CommandError> {
    let usage = "RCPT TO:<recipient@domain>";
    let (path, rest) = path::split(after_keyword(rest, "TO:", usage)?, usage)?;
    let recipient = ForwardPath::parse(path).map_err(CommandError::Recipient)?;
    let mut rcpt = Rcpt { path_is_utf8: !path.is_ascii(), ..Rcpt::new(recipient) };
    let mut seen = Parameters::new(rest);
    while let Some((keyword, value)) = seen.next_parameter()? {
        match (keyword.as_str(), value) {
            ("NOTIFY", Some(when)) => rcpt.notify = Some(parameters::notify(when)?),
            ("ORCPT", Some(address)) => rcpt.orcpt = Some(parameters::orcpt(address)?),
            ("NOTIFY" | "ORCPT", None) => return Err(CommandError::ParameterValue(keyword)),
            _ => return Err(CommandError::UnknownParameter(keyword)),
        }
    }
    Ok(rcpt)
}

fn parse_bdat(rest: &str) -> Result<Bdat, CommandError> {
    let syntax = CommandError::Syntax("BDAT size [LAST]");
    let (digits, last) =
        rest.split_once(' ').map_or((rest, ""), |(digits, last)| (digits, last.trim_start()));
    if !(last.is_empty() || last.eq_ignore_ascii_case("LAST")) {
        return Err(syntax);
    }
    let size = parameters::number(digits, "BDAT").map_err(|_| syntax)?;
    Ok(Bdat { size, last: !last.is_empty() })
}

fn parse_auth(rest: &str) -> Result<Auth, CommandError> {
    let (mechanism, initial) = rest.split_once(' ').map_or((rest, None), |(name, text)| (name, Some(text)));
    // RFC 4422 §3.1: 1 to 20 upper-case letters, digits, hyphens, underscores.
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if mechanism.is_empty() || mechanism.len() > 20 || !mechanism.bytes().all(good) {
        return Err(CommandError::Syntax("AUTH mechanism [initial-response]"));
    }
    let initial =
        initial.map(|text| sasl::decode_initial(text.trim_start_matches(' ').as_bytes())).transpose();
    Ok(Auth {
        mechanism: mechanism.to_ascii_uppercase(),
        initial: initial.map_err(|_| CommandError::Base64)?,
    })
}

/// As on the wire, without CR LF.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ehlo(name) => write!(f, "EHLO {name}"),
            Self::Helo(name) => write!(f, "HELO {name}"),
            Self::Mail(mail) => mail.fmt(f),
            Self::Rcpt(rcpt) => rcpt.fmt(f),
            Self::Data => f.write_str("DATA"),
            Self::Bdat(Bdat { size, last }) => write!(f, "BDAT {size}{}", if *last { " LAST" } else { "" }),
            Self::Rset => f.write_str("RSET"),
            Self::Noop => f.write_str("NOOP"),
            Self::Vrfy => f.write_str("VRFY postmaster"),
            Self::Expn => f.write_str("EXPN postmaster"),
            Self::Help => f.write_str("HELP"),
            Self::Quit => f.write_str("QUIT"),
            Self::StartTls => f.write_str("STARTTLS"),
            Self::Auth(auth) => match &auth.initial {
                None => write!(f, "AUTH {}", auth.mechanism),
                Some(empty) if empty.is_empty() => write!(f, "AUTH {} =", auth.mechanism),
                Some(message) => write!(f, "AUTH {} {}", auth.mechanism, sasl::encode(message)),
            },
        }
    }
}

impl fmt::Display for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MAIL FROM:<{}>", self.sender)?;
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        match self.body {
            None => {}
            Some(BodyType::SevenBit) => f.write_str(" BODY=7BIT")?,
            Some(BodyType::EightBitMime) => f.write_str(" BODY=8BITMIME")?,
            Some(BodyType::BinaryMime) => f.write_str(" BODY=BINARYMIME")?,
        }
        if self.smtputf8 {
            f.write_str(" SMTPUTF8")?;
        }
        if self.require_tls {
            f.write_str(" REQUIRETLS")?;
        }
        match self.ret {
            None => {}
            Some(Ret::Full) => f.write_str(" RET=FULL")?,
            Some(Ret::Headers) => f.write_str(" RET=HDRS")?,
        }
        if let Some(id) = &self.envid {
            write!(f, " ENVID={}", xtext::encode(id))?;
        }
        if let Some(who) = &self.auth {
            write!(f, " AUTH={}", xtext::encode(who))?;
        }
        Ok(())
    }
}

impl fmt::Display for Rcpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RCPT TO:<{}>", self.recipient)?;
        if let Some(Notify { success, failure, delay }) = self.notify {
            let wanted = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
            let mut separator = " NOTIFY=";
            for (_, name) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
            if separator != "," {
                f.write_str(" NOTIFY=NEVER")?;
            }
        }
        if let Some((kind, address)) = self.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';')) {
            write!(f, " ORCPT={kind};{}", xtext::encode(address))?;
        }
        Ok(())
    }
}
