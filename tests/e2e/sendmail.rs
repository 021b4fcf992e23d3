//! Mail from programs of this machine: what cron, PHP, git, mutt and Python do when they call `sendmail`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::tools::{inbox, python};
use crate::world::{Waypost, World, run, wait_for};

/// A user of this machine that is not root.
pub const NOBODY: u32 = 65534;

const ACCOUNTS: &str = r#"
postmaster = "ann"
[domains."a.test"]
[accounts.ann]
addresses = ["ann@a.test", "info@a.test"]
[accounts.site]
addresses = ["noreply@a.test"]
users = ["nobody"]
"#;

/// A server, and its binary under the name `sendmail`.
struct Machine {
    world: World,
    server: Waypost,
    sendmail: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let world = World::new("a.test MX 10 mx.a.test\nmx.a.test A {net}.10");
        let (top, tables) = ACCOUNTS.trim_start().split_once('\n').unwrap();
        let mut server = world.waypost("a", 10, tables);
        let file = server.dir.join("waypost.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{top}\n{text}")).unwrap();
        for account in ["ann", "site"] {
            server.password(account, "secret");
        }
        // Other users get through to the socket, but do not see into the directories.
        for dir in [world.dir.path(), &server.dir, &server.dir.join("data")] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
        }
        server.start();
        wait_for("the socket", || server.dir.join("data/submit.sock").exists());
        let sendmail = world.dir.path().join("sendmail");
        symlink(env!("CARGO_BIN_EXE_waypost"), &sendmail).unwrap();
        Self { world, server, sendmail }
    }

    /// A copy of the binary for users who do not get to where it was built.
    fn for_others(self) -> Self {
        fs::remove_file(&self.sendmail).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_waypost"), &self.sendmail).unwrap();
        self
    }

    /// `sendmail ARGUMENTS`, not yet run, with a home of its own.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.sendmail);
        command.args(arguments);
        self.at_home(&mut command);
        command
    }

    /// Where messages that cannot be sent go, and which server is meant.
    fn at_home(&self, command: &mut Command) {
        let config = self.server.dir.join("waypost.toml");
        command.env("WAYPOST_CONFIG", config).env("XDG_STATE_HOME", self.world.dir.path().join("state"));
        command.env_remove("NAME");
    }

    fn send(&self, arguments: &[&str], input: &str) -> Output {
        run(&mut self.command(arguments), input)
    }

    fn sent(&self, arguments: &[&str], input: &str) {
        let output = self.send(arguments, input);
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }

    /// The Inbox of an account once it holds a text.
    fn mail_with(&self, account: &str, text: &str) -> String {
        wait_for(text, || inbox(self.server.ip, account).contains(text));
        inbox(self.server.ip, account)
    }
}

/// What a failed call says, and its exit code.
pub fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn cron_mails_what_a_job_printed_to_root() {
    let machine = Machine::new();
    let letter = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@web> backup\n\
                  Content-Type: text/plain; charset=UTF-8\n\nfertig: größer\n.hidden\n.\nrest\n";
    machine.sent(&["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"], letter);
    let mail = machine.mail_with("ann", "Cron <root@web> backup");
    for line in [
        "Return-Path: <ann@a.test>",
        "(from user root)",
        "From: Cron Daemon <ann@a.test>",
        "Date: ",
        "Message-Id: <",
        "fertig: größer",
        "\n.hidden",
        "\n.\r\nrest",
    ] {
        assert!(mail.contains(line), "{line:?} in {mail:?}");
    }
}

#[test]
fn php_sends_as_the_sites_account_and_as_no_other() {
    let machine = Machine::new().for_others();
    let as_nobody = |arguments: &[&str], input: &str| {
        let mut command = machine.command(arguments);
        // The state directory belongs to root: a message of this user is kept in /var/tmp.
        run(command.uid(NOBODY).gid(NOBODY), input)
    };
    // mail($to, "Bestellung", $text, $headers): CR LF in the header, LF in the text.
    let letter = "To: Ann <ann@a.test>\r\nSubject: Bestellung\r\nBcc: info@a.test\r\n\r\nzwei\n.\ndrei\n";
    let output = as_nobody(&["-t", "-i"], letter);
    assert!(output.status.success(), "{output:?}");
    wait_for("both mails", || inbox(machine.server.ip, "ann").matches("Subject: Bestellung").count() == 2);
    let mail = inbox(machine.server.ip, "ann");
    assert!(mail.contains("<noreply@a.test>\r\n") && mail.contains("zwei\r\n.\r\ndrei"), "{mail:?}");
    assert!(!mail.to_lowercase().contains("bcc"), "{mail:?}");
    assert!(mail.contains("(from user nobody)"), "{mail:?}");

    // The author may be anybody, the sender not (RFC 6409 §6.1 speaks of the envelope).
    let output = as_nobody(&["-i", "-f", "ann@a.test", "ann@a.test"], "Subject: as ann\n\nx\n");
    let (code, words) = said(&output);
    assert_eq!(code, Some(77), "EX_NOPERM: {words}");
    assert!(words.contains("sender ann@a.test: 553 5.7.1"), "{words}");
    let kept = kept_file(&words);
    assert_eq!(fs::read_to_string(&kept).unwrap(), "Subject: as ann\n\nx\n");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(kept).unwrap();
}

#[test]
fn a_user_whom_no_account_lists_is_told_what_to_do() {
    let machine = Machine::new().for_others();
    let mut command = machine.command(&["-i", "ann@a.test"]);
    let (code, words) = said(&run(command.uid(12345).gid(12345), "Subject: x\n\nx\n"));
    assert_eq!(code, Some(77), "{words}");
    assert!(words.contains("system user 12345") && words.contains("`users` of [accounts.NAME]"), "{words}");
    fs::remove_file(kept_file(&words)).unwrap();
    // And sees nothing of what is stored.
    for dir in ["queue", "store"] {
        let mode = fs::metadata(machine.server.dir.join("data").join(dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{dir}");
    }
}

/// The file that standard error names.
pub fn kept_file(words: &str) -> PathBuf {
    let line =
        words.lines().find_map(|line| line.split_once("it is kept in ")).unwrap_or_else(|| panic!("{words}"));
    PathBuf::from(line.1)
}

#[test]
fn exit_codes_are_those_of_sysexits() {
    let mut machine = Machine::new();
    for (arguments, input, code, words) in [
        (&["-t"][..], "Subject: nobody\n\n", 65, "no recipient"),
        (&["-t"], "To: a@b..c\n\n", 65, "a@b..c"),
        (&["-i"], "", 64, "no recipients"),
        (&["-Z"], "", 64, "no option -Z"),
        (&["-bp"], "", 64, "waypost queue list"),
        (&["-i", "nobody@a.test", "ann@a.test", "ghost"], "\n", 67, "nobody@a.test: 550 5.1.1"),
        (&["-f", "ann@elsewhere.test", "ann@a.test"], "\n", 77, "553 5.7.1"),
        (&["--config", "/nonexistent.toml", "ann@a.test"], "\n", 78, "/nonexistent.toml"),
        (&["-bi"], "", 0, ""),
    ] {
        let (found, said) = said(&machine.send(arguments, input));
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    // One recipient who does not exist: nobody gets the message.
    assert!(!inbox(machine.server.ip, "ann").contains("Received"), "nothing was sent");

    machine.server.stop();
    let (code, words) = said(&machine.send(&["-i", "it's@a.test", "ann@a.test"], "Subject: later\n\nx\n"));
    assert_eq!(code, Some(75), "EX_TEMPFAIL: {words}");
    assert!(words.contains("no Waypost server is running"), "{words}");
    let kept = kept_file(&words);
    assert!(kept.starts_with(machine.world.dir.path().join("state/waypost")), "{words}");
    // The line that it prints sends the message when the server is back.
    machine.server.start();
    wait_for("the socket", || machine.server.dir.join("data/submit.sock").exists());
    let again = words.lines().find_map(|line| line.split_once("to send it again: ")).unwrap().1;
    let again = again.replace("'it'\\''s@a.test'", "info@a.test");
    let mut shell = Command::new("sh");
    machine.at_home(shell.args(["-c", &again]).env("PATH", path_with(machine.world.dir.path())));
    let output = run(&mut shell, "");
    assert!(output.status.success(), "{again}: {output:?}");
    machine.mail_with("ann", "Subject: later");
}

/// A search path that finds our sendmail first.
pub fn path_with(dir: &Path) -> String {
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap())
}

#[test]
fn python_hands_over_a_message() {
    let machine = Machine::new();
    let program = r#"
import os, subprocess, sys
from email.message import EmailMessage
m = EmailMessage()
m["From"], m["To"], m["Cc"], m["Subject"] = "info@a.test", "ann@a.test", "ann@a.test", "by Python"
m.set_content("Grüße\n")
os.environ["WAYPOST_CONFIG"] = sys.argv[2]
subprocess.run([sys.argv[1], "-t", "-oi"], input=m.as_bytes(), check=True)
"#;
    let config = machine.server.dir.join("waypost.toml");
    python(program, &[&machine.sendmail.to_string_lossy(), &config.to_string_lossy()]);
    let mail = machine.mail_with("ann", "Subject: by Python");
    assert_eq!(mail.matches("Subject: by Python").count(), 1, "named twice, sent once");
    assert!(
        mail.contains("Return-Path: <info@a.test>"),
        "the author is the sender where that is allowed: {mail}"
    );
}

#[test]
fn git_sends_patches() {
    let machine = Machine::new();
    let repository = machine.world.dir.path().join("repository");
    fs::create_dir(&repository).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(&repository).args(arguments).env("HOME", machine.world.dir.path());
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Ann").env(format!("GIT_{who}_EMAIL"), "ann@a.test");
        }
        machine.at_home(&mut command);
        let output = run(&mut command, "");
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
    };
    git(&["init", "-q"]);
    fs::write(repository.join("file"), "one\n.\ntwo\n").unwrap();
    git(&["add", "file"]);
    git(&["commit", "-q", "-m", "Add a file with a dot"]);
    let program = format!("--sendmail-cmd={}", machine.sendmail.display());
    let send =
        ["send-email", "-1", "--confirm=never", "--from=Ann <info@a.test>", "--to=ann@a.test", &program];
    git(&send);
    git(&[&send[..], &["--envelope-sender=auto", "--subject-prefix=PATCH v2"]].concat());
    let mail = machine.mail_with("ann", "Subject: [PATCH v2] Add a file with a dot");
    assert_eq!(mail.matches("+two").count(), 2, "{mail}");
}

#[test]
fn mutt_sends_through_it() {
    let machine = Machine::new();
    let settings = machine.world.dir.path().join("muttrc");
    let text = format!(
        "set sendmail=\"{} -oem -oi\"\nset from=\"Ann <ann@a.test>\"\nset use_envelope_from=yes\nset copy=no\n",
        machine.sendmail.display()
    );
    fs::write(&settings, text).unwrap();
    let mut mutt = Command::new("mutt");
    mutt.arg("-n").arg("-F").arg(&settings).args(["-s", "by mutt", "-b", "info@a.test", "--", "ann@a.test"]);
    machine.at_home(mutt.env("HOME", machine.world.dir.path()));
    let output = run(&mut mutt, "line\n.\nlast\n");
    assert!(output.status.success(), "{output:?}");
    wait_for("both mails", || inbox(machine.server.ip, "ann").matches("Subject: by mutt").count() == 2);
    let mail = inbox(machine.server.ip, "ann");
    assert!(mail.contains("line\r\n.\r\nlast") && !mail.contains("Bcc"), "{mail:?}");
}

#[test]
fn a_dot_alone_ends_the_message_unless_told_otherwise() {
    let machine = Machine::new();
    machine.sent(&["ann@a.test"], "Subject: with dots\n\nbefore\n.\nafter\n");
    let mail = machine.mail_with("ann", "Subject: with dots");
    assert!(mail.contains("before") && !mail.contains("after"), "{mail}");
    machine.sent(&["-oi", "ann@a.test"], "just text\n");
    let mail = machine.mail_with("ann", "\r\n\r\njust text");
    assert!(mail.contains("Message-Id"), "{mail}");
}

#[test]
fn a_dialogue_on_standard_input() {
    let machine = Machine::new();
    let dialogue = "EHLO localhost\nMAIL FROM:<info@a.test>\nRCPT TO:<ghost@a.test>\nRCPT TO:<root@localhost>\n\
                    DATA\nSubject: spoken\n\n..dot\n.\nQUIT\n";
    let output = machine.send(&["-bs"], dialogue);
    let replies = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let codes: Vec<_> =
        replies.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| &line[..3]).collect();
    assert_eq!(codes, ["220", "250", "250", "550", "250", "354", "250", "221"], "{replies}");
    let mail = machine.mail_with("ann", "Subject: spoken");
    assert!(mail.contains("\n.dot") && mail.contains("for <ann@a.test>"), "{mail}");
}
