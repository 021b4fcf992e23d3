//! What programs write behind `sendmail`: letters since the eighties, read as getopt(3) reads them.
//!
//! Letters may be joined (`-ti`), a value may be joined to its letter or follow it (`-fann@example.org`, `-f ann@...`),
//! and options end at the first recipient or at `--`, so that an address that begins with a hyphen and was given by a
//! stranger is no option. Options that other systems have for their own queues and headers are taken and mean nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::address::Mailbox;
use crate::envelope::{Notify, Ret};
use crate::smtp::xtext;

/// Letters that are followed by a value that means nothing here: -A submission or MTA, -B body type, -C configuration,
/// -D log, -L tag, -O option, -X traffic log, -e error mode, -h hops, -p protocol.
const IGNORED_WITH_VALUE: &str = "ABCDLOXehp";
/// Letters alone that mean nothing here: -G relayed, -I, -U initial submission, -c, -m me too, -n no aliases, -x.
const IGNORED: &str = "GIUcmnx";
/// RFC 3461 §4.4: an ENVID has at most 100 characters.
const ENVID_CHARS_MAX: usize = 100;
/// Letters with an optional value, always joined: -d debug, -q queue run.
const IGNORED_JOINED: &str = "dq";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Send the message on standard input.
    Send(Send),
    /// Speak SMTP on standard input and output (`-bs`).
    Speak,
    /// Build the alias database (`-bi`, `newaliases`): there is none.
    Nothing,
    /// Tell how this is used.
    Help,
}

/// How the message on standard input is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Send {
    /// `-f`, `-r`: whom reports go to; empty or `<>` for nobody.
    pub(super) sender: Option<String>,
    /// `-F`: the name in a From field that is added.
    pub(super) full_name: Option<String>,
    /// `-t`: the recipients stand in To, Cc and Bcc.
    pub(super) recipients_in_header: bool,
    /// `-i`, `-oi`: a line with a dot alone is text.
    pub(super) dots_are_text: bool,
    /// The arguments behind the options.
    pub(super) recipients: Vec<String>,
    /// `-N`, `-R`, `-V`.
    pub(super) reports: Reports,
    /// `-v`: say what the server said.
    pub(super) verbose: bool,
}

/// Which reports the sender wants (RFC 3461), in the letters of sendmail(1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reports {
    /// `-N never`, or `-N success,failure,delay`.
    pub(super) notify: Option<Notify>,
    /// `-R full`, `-R hdrs`.
    pub(super) ret: Option<Ret>,
    /// `-V`, decoded from xtext.
    pub(super) envid: Option<String>,
}

impl Send {
    /// The arguments that send the same message through the server of `file` to these alone.
    pub(super) fn again<'a>(
        &self,
        file: &Path,
        recipients: impl Iterator<Item = &'a Mailbox>,
    ) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--sendmail-config".into(), file.into()];
        let dots = self.dots_are_text.then(|| "-i".to_owned());
        let ret = |ret| if ret == Ret::Full { "full" } else { "hdrs" }.to_owned();
        let notify = |notify: Notify| {
            let all = [(notify.success, "success"), (notify.failure, "failure"), (notify.delay, "delay")];
            let wanted: Vec<_> = all.iter().filter(|(wanted, _)| *wanted).map(|(_, name)| *name).collect();
            if wanted.is_empty() { "never".to_owned() } else { wanted.join(",") }
        };
        let options = [
            ("-f", self.sender.clone()),
            ("-F", self.full_name.clone()),
            ("-N", self.reports.notify.map(notify)),
            ("-R", self.reports.ret.map(ret)),
            ("-V", self.reports.envid.as_deref().map(xtext::encode)),
        ];
        words.extend(dots.map(OsString::from));
        for (letter, value) in options {
            words.extend(value.into_iter().flat_map(|value| [letter.into(), value.into()]));
        }
        words.push("--".into());
        words.extend(recipients.map(|recipient| recipient.to_string().into()));
        words
    }
}

/// The whole command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) task: Task,
    /// `--config`: the server's configuration, which says where its socket is.
    pub(super) config: Option<PathBuf>,
    /// `--sendmail-config`: the file that names another server.
    pub(super) sendmail_config: Option<PathBuf>,
}

/// Whether a program name asks for sendmail.
pub(super) fn is_sendmail(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str());
    matches!(name, Some("sendmail" | "newaliases"))
}

/// Reads what stands behind the program's name `program`; an error says what is wrong.
pub(super) fn parse(program: &Path, arguments: Vec<OsString>) -> Result<Arguments, String> {
    let mut reader = Reader { rest: text(arguments)?.into_iter(), ..Reader::default() };
    while let Some(argument) = reader.rest.next() {
        match argument.as_str() {
            "--" => break,
            word if word.starts_with("--") => reader.long(&word[2..])?,
            letters if letters.starts_with('-') && letters.len() > 1 => reader.letters(&letters[1..])?,
            _ => {
                reader.send.recipients.push(argument);
                break;
            }
        }
    }
    let Reader { rest, mut send, mode, config, sendmail_config } = reader;
    send.recipients.extend(rest);
    let newaliases = program.file_name().is_some_and(|name| name == "newaliases");
    let task = match mode {
        _ if newaliases => Task::Nothing,
        Mode::Help => Task::Help,
        Mode::Speak => Task::Speak,
        Mode::Nothing => Task::Nothing,
        Mode::Send if send.recipients.is_empty() && !send.recipients_in_header => {
            return Err("no recipients: name them behind the options, or have them read with -t".to_owned());
        }
        Mode::Send => Task::Send(send),
    };
    Ok(Arguments { task, config, sendmail_config })
}

fn text(arguments: Vec<OsString>) -> Result<Vec<String>, String> {
    let text = |argument: OsString| {
        argument.into_string().map_err(|bad| format!("{} is not UTF-8", bad.to_string_lossy()))
    };
    arguments.into_iter().map(text).collect()
}

#[derive(Default, Clone, Copy)]
enum Mode {
    #[default]
    Send,
    Speak,
    Nothing,
    Help,
}

#[derive(Default)]
struct Reader {
    rest: std::vec::IntoIter<String>,
    send: Send,
    mode: Mode,
    config: Option<PathBuf>,
    sendmail_config: Option<PathBuf>,
}

impl Reader {
    fn letters(&mut self, letters: &str) -> Result<(), String> {
        for (at, letter) in letters.char_indices() {
            let joined = &letters[at + letter.len_utf8()..];
            match letter {
                't' => self.send.recipients_in_header = true,
                'i' => self.send.dots_are_text = true,
                'v' => self.send.verbose = true,
                _ if IGNORED.contains(letter) => {}
                _ if IGNORED_JOINED.contains(letter) => return Ok(()),
                _ => {
                    let value = if joined.is_empty() { self.rest.next() } else { Some(joined.to_owned()) };
                    let value = || value.ok_or_else(|| format!("-{letter} needs a value"));
                    return self.with_value(letter, value);
                }
            }
        }
        Ok(())
    }

    fn with_value(
        &mut self,
        letter: char,
        value: impl FnOnce() -> Result<String, String>,
    ) -> Result<(), String> {
        match letter {
            'f' | 'r' => self.send.sender = Some(value()?),
            'F' => self.send.full_name = Some(value()?),
            // `-oi`, `-oem`, `-odb`: one letter and perhaps its value; only `i` means something here.
            'o' => self.send.dots_are_text |= value()? == "i",
            'b' => self.mode = mode(&value()?)?,
            'N' => self.send.reports.notify = Some(notify(&value()?)?),
            'R' => self.send.reports.ret = Some(ret(&value()?)?),
            'V' => self.send.reports.envid = Some(envid(&value()?)?),
            _ if IGNORED_WITH_VALUE.contains(letter) => drop(value()?),
            _ => return Err(format!("there is no option -{letter}")),
        }
        Ok(())
    }

    fn long(&mut self, word: &str) -> Result<(), String> {
        let (name, joined) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let place = match name {
            "help" => {
                self.mode = Mode::Help;
                return Ok(());
            }
            "config" => &mut self.config,
            "sendmail-config" => &mut self.sendmail_config,
            _ => return Err(format!("there is no option --{name}")),
        };
        let value = joined.map(str::to_owned).or_else(|| self.rest.next());
        *place = Some(value.ok_or_else(|| format!("--{name} needs a file"))?.into());
        Ok(())
    }
}

/// RFC 3461 §4.1.
fn notify(value: &str) -> Result<Notify, String> {
    let mut notify = Notify { success: false, failure: false, delay: false };
    if value.eq_ignore_ascii_case("never") {
        return Ok(notify);
    }
    for word in value.split(',') {
        match word.trim().to_ascii_lowercase().as_str() {
            "success" => notify.success = true,
            "failure" => notify.failure = true,
            "delay" => notify.delay = true,
            _ => return Err(format!("-N {value}: expected never, or some of success,failure,delay")),
        }
    }
    Ok(notify)
}

/// RFC 3461 §4.3.
fn ret(value: &str) -> Result<Ret, String> {
    match value.to_ascii_lowercase().as_str() {
        "full" => Ok(Ret::Full),
        "hdrs" => Ok(Ret::Headers),
        _ => Err(format!("-R {value}: expected full or hdrs")),
    }
}

/// RFC 3461 §4.4.
fn envid(value: &str) -> Result<String, String> {
    let decoded = xtext::decode(value).filter(|text| !text.is_empty() && value.len() <= ENVID_CHARS_MAX);
    decoded.ok_or_else(|| {
        format!("-V {value}: expected up to {ENVID_CHARS_MAX} characters without spaces; `+` is written +2B, `=` +3D")
    })
}

fn mode(letter: &str) -> Result<Mode, String> {
    match letter {
        "m" => Ok(Mode::Send),
        "s" => Ok(Mode::Speak),
        "i" => Ok(Mode::Nothing),
        "p" => Err("-bp is not known here: `waypost queue list` shows the queue".to_owned()),
        "d" | "D" => Err("-bd is not known here: `waypost serve` runs the server".to_owned()),
        other => Err(format!("-b{other} is not known here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        let words = line.split_whitespace().map(|word| OsString::from(word.replace('_', " "))).collect();
        parse(Path::new("/usr/sbin/sendmail"), words).map(|arguments| arguments.task)
    }

    /// `t`: recipients in header, `i`: dots are text.
    fn send(flags: &str, sender: &str, name: &str, recipients: &[&str]) -> Task {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Task::Send(Send {
            sender: some(sender),
            full_name: some(name),
            recipients_in_header: flags.contains('t'),
            dots_are_text: flags.contains('i'),
            recipients: recipients.iter().map(|&recipient| recipient.to_owned()).collect(),
            verbose: flags.contains('v'),
            ..Send::default()
        })
    }

    #[test]
    fn as_programs_call_it() {
        for (line, task) in [
            // PHP's default, and with its fifth parameter.
            ("-t -i", send("ti", "", "", &[])),
            ("-t -i -fnoreply@example.org", send("ti", "noreply@example.org", "", &[])),
            // Debian's cron.
            ("-FCronDaemon -i -B8BITMIME -oem root", send("i", "", "CronDaemon", &["root"])),
            // Vixie's.
            ("-FCronDaemon -odi -oem -oi -t", send("ti", "", "CronDaemon", &[])),
            // mutt, and git send-email with --envelope-sender.
            (
                "-oem -oi -f ann@a.test -- bob@b.test c@c.test",
                send("i", "ann@a.test", "", &["bob@b.test", "c@c.test"]),
            ),
            ("-i bob@b.test", send("i", "", "", &["bob@b.test"])),
            ("-ti", send("ti", "", "", &[])),
            ("-tif ann@a.test", send("ti", "ann@a.test", "", &[])),
            ("-r ann@a.test -F Ann_B x@y", send("", "ann@a.test", "Ann B", &["x@y"])),
            ("-f <> -t", send("t", "<>", "", &[])),
            ("-v -n -m -U -X log -d9.1 -q1h -bm x@y", send("v", "", "", &["x@y"])),
            ("-O DeliveryMode=b -oQ/var/spool -o i x@y", send("i", "", "", &["x@y"])),
            ("-L sm-msp -Am -p SMTP -h 3 -B 7BIT x@y", send("", "", "", &["x@y"])),
            ("-i -- -f@y", send("i", "", "", &["-f@y"])),
            ("x@y -t", send("", "", "", &["x@y", "-t"])),
            ("-bs", Task::Speak),
            ("-oi -b s", Task::Speak),
            ("-bi", Task::Nothing),
            ("--help", Task::Help),
        ] {
            assert_eq!(parsed(line), Ok(task), "{line}");
        }
    }

    #[test]
    fn reports_are_asked_for() {
        let reports = |line: &str| match parsed(line) {
            Ok(Task::Send(send)) => send.reports,
            other => panic!("{line}: {other:?}"),
        };
        let notify = |success, failure, delay| Some(Notify { success, failure, delay });
        for (line, expected) in [
            ("x@y", Reports::default()),
            ("-N never x@y", Reports { notify: notify(false, false, false), ..Reports::default() }),
            ("-Nsuccess,DELAY x@y", Reports { notify: notify(true, false, true), ..Reports::default() }),
            ("-R HDRS x@y", Reports { ret: Some(Ret::Headers), ..Reports::default() }),
            (
                "-V a+2Bb -R full x@y",
                Reports { ret: Some(Ret::Full), envid: Some("a+b".into()), notify: None },
            ),
        ] {
            assert_eq!(reports(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_left_is_sent_with_the_same_options() {
        let line = "-t -i -f ann@a.test -F Ann -N success,delay -R hdrs -V a+2Bb bob@b.test";
        let Ok(Task::Send(send)) = parsed(line) else { panic!("{line}") };
        let left = Mailbox::parse("c@d.test").unwrap();
        let words: Vec<_> = send.again(Path::new("/s.toml"), std::iter::once(&left));
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(
            words.join(" "),
            "--sendmail-config /s.toml -i -f ann@a.test -F Ann -N success,delay -R hdrs -V a+2Bb -- c@d.test"
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, words) in [
            ("", "no recipients"),
            ("-i", "no recipients"),
            ("-f", "-f needs a value"),
            ("-t -F", "-F needs a value"),
            ("-bp", "waypost queue list"),
            ("-bd", "waypost serve"),
            ("-bz", "-bz"),
            ("-Z x@y", "no option -Z"),
            ("-ü x@y", "no option -ü"),
            ("--turbo", "no option --turbo"),
            ("--config", "--config needs a file"),
            ("--sendmail-config", "--sendmail-config needs a file"),
            ("-N sometimes x@y", "-N sometimes: expected never"),
            ("-N never,delay x@y", "expected never, or"),
            ("-R some x@y", "expected full or hdrs"),
            ("-V a_b x@y", "without spaces"),
            ("-V a=b x@y", "`=` +3D"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn the_name_decides_too() {
        for (program, sendmail) in [
            ("sendmail", true),
            ("/usr/lib/sendmail", true),
            ("/usr/bin/newaliases", true),
            ("waypost", false),
            ("/sendmail/waypost", false),
        ] {
            assert_eq!(is_sendmail(Path::new(program)), sendmail, "{program}");
        }
        let task = parse(Path::new("newaliases"), vec![]).unwrap().task;
        assert_eq!(task, Task::Nothing);
        let words = ["--config=a.toml", "-t"].map(OsString::from).to_vec();
        assert_eq!(parse(Path::new("sendmail"), words).unwrap().config, Some("a.toml".into()));
    }

    proptest::proptest! {
        #[test]
        fn any_words_are_read_or_refused(words: Vec<String>) {
            let words = words.into_iter().map(OsString::from).collect();
            if let Err(error) = parse(Path::new("sendmail"), words) {
                proptest::prop_assert!(!error.is_empty());
            }
        }
    }
}
