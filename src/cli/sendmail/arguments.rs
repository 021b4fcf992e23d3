//! What programs write behind `sendmail`: letters since the eighties, read as getopt(3) reads them.
//!
//! Letters may be joined (`-ti`), a value may be joined to its letter or follow it (`-fann@example.org`, `-f ann@...`),
//! and options end at the first recipient or at `--`, so that an address that begins with a hyphen and was given by a
//! stranger is no option. Options that other systems have for their own queues and headers are taken and mean nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Letters that are followed by a value that means nothing here: -A submission or MTA, -B body type, -C configuration,
/// -D log, -L tag, -N, -R and -V for reports, -O option, -X traffic log, -e error mode, -h hops, -p protocol.
const IGNORED_WITH_VALUE: &str = "ABCDLNORVXehp";
/// Letters alone that mean nothing here: -G relayed, -I, -U initial submission, -c, -m me too, -n no aliases, -v words,
/// -x.
const IGNORED: &str = "GIUcmnvx";
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
}

/// The whole command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) task: Task,
    /// `--config`: the server's configuration, which says where its socket is.
    pub(super) config: Option<PathBuf>,
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
    let Reader { rest, mut send, mode, config } = reader;
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
    Ok(Arguments { task, config })
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
}

impl Reader {
    fn letters(&mut self, letters: &str) -> Result<(), String> {
        for (at, letter) in letters.char_indices() {
            let joined = &letters[at + letter.len_utf8()..];
            match letter {
                't' => self.send.recipients_in_header = true,
                'i' => self.send.dots_are_text = true,
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
            _ if IGNORED_WITH_VALUE.contains(letter) => drop(value()?),
            _ => return Err(format!("there is no option -{letter}")),
        }
        Ok(())
    }

    fn long(&mut self, word: &str) -> Result<(), String> {
        let (name, joined) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        match name {
            "help" => self.mode = Mode::Help,
            "config" => {
                let value = joined.map(str::to_owned).or_else(|| self.rest.next());
                self.config = Some(value.ok_or("--config needs a file")?.into());
            }
            _ => return Err(format!("there is no option --{name}")),
        }
        Ok(())
    }
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
            ("-v -n -m -U -N never -R hdrs -V id -X log -d9.1 -q1h -bm x@y", send("", "", "", &["x@y"])),
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
            ("--config", "needs a file"),
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
