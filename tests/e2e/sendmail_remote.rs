//! Mail from programs of a machine without a server: `sendmail` with a `sendmail.toml`, to servers that others wrote and
//! to our own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::sendmail::{NOBODY, kept_file, path_with, said};
use crate::tools::{inbox, python};
use crate::transports::{Dovecot, SUBMISSIONS};
use crate::world::{SMTP, SUBMISSION, Sink, Waypost, World, run, wait_for};

/// A machine whose users send through a server elsewhere.
struct Machine {
    world: World,
    sendmail: PathBuf,
    config: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let world = World::new("outside.test MX 10 mx.outside.test\nmx.outside.test A {net}.30");
        fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (sendmail, config) = (world.dir.path().join("sendmail"), world.dir.path().join("sendmail.toml"));
        symlink(env!("CARGO_BIN_EXE_waypost"), &sendmail).unwrap();
        Self { world, sendmail, config }
    }

    /// Writes the `sendmail.toml`, for its owner alone to read; `{net}` as in [`World::waypost`].
    fn configure(&self, text: &str) {
        let net = self.world.ip(0).to_string();
        fs::write(&self.config, text.replace("{net}", net.trim_end_matches(".0"))).unwrap();
        fs::set_permissions(&self.config, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.sendmail);
        self.at_home(command.args(arguments));
        command
    }

    fn at_home(&self, command: &mut Command) {
        let home = self.world.dir.path();
        command.env("HOME", home).env("WAYPOST_SENDMAIL_CONFIG", &self.config);
        command.env("XDG_STATE_HOME", home.join("state")).env_remove("NAME").env_remove("WAYPOST_CONFIG");
    }

    fn send(&self, arguments: &[&str], input: &str) -> Output {
        run(&mut self.command(arguments), input)
    }

    fn sent(&self, arguments: &[&str], input: &str) {
        let output = self.send(arguments, input);
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }

    /// A LAN's smarthost, which takes all without TLS and without a login, and a `sendmail.toml` that names it.
    fn with_smarthost(&self, more: &str) -> Sink {
        let sink = self.world.smtp_sink(30, &[]);
        self.configure(&format!("kind = \"smtp\"\nhost = \"{{net}}.30\"\nport = {SMTP}\n{more}"));
        sink
    }

    /// A Waypost elsewhere where ann may submit, and the beginning of a `sendmail.toml` that does so.
    fn with_server(&self) -> (Waypost, String) {
        let tables = "[domains.\"a.test\"]\n[accounts.ann]\naddresses = [\"ann@a.test\", \"box@a.test\"]\n\
                      [accounts.bob]\naddresses = [\"bob@a.test\"]\n";
        let mut server = self.world.waypost("a", 10, tables);
        for account in ["ann", "bob"] {
            server.password(account, "secret");
        }
        server.start();
        let config = format!(
            "kind = \"submission\"\nhost = \"{{net}}.10\"\nport = {SUBMISSION}\nca_file = \"{}\"\n\
             username = \"ann\"\nfrom = \"ann@a.test\"\n",
            server.dir.join("cert.pem").display()
        );
        (server, config)
    }
}

#[test]
fn dovecot_takes_it_by_each_mechanism_and_by_either_tls() {
    let machine = Machine::new();
    let sink = machine.world.smtp_sink(30, &[]);
    let dovecot = Dovecot::start(&machine.world, 40, machine.world.ip(30));
    let ca = dovecot.dir.join("cert.pem");
    let config = |port: u16, more: &str| {
        machine.configure(&format!(
            "host = \"{{net}}.40\"\nport = {port}\nusername = \"ann\"\nfrom = \"ann@a.test\"\nca_file = \"{}\"\n{more}",
            ca.display()
        ));
    };
    let (at_once, starttls) = ("kind = \"submissions\"\n", "kind = \"submission\"\n");
    let secret = machine.world.dir.path().join("secret");
    fs::write(&secret, "secret\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    for (number, (port, more, mechanism)) in [
        (SUBMISSIONS, format!("{at_once}password_file = \"secret\""), "SCRAM-SHA-256"),
        (SUBMISSION, format!("{starttls}password_env = \"SECRET\""), "SCRAM-SHA-256"),
        (SUBMISSION, format!("{starttls}password = \"secret\"\nmechanisms = \"SCRAM-SHA-1\""), "SCRAM-SHA-1"),
        (SUBMISSION, format!("{starttls}password = \"secret\"\nmechanisms = \"CRAM-MD5\""), "CRAM-MD5"),
        (SUBMISSIONS, format!("{at_once}password = \"secret\"\nmechanisms = \"PLAIN\""), "PLAIN"),
        (SUBMISSIONS, format!("{at_once}password = \"secret\"\nmechanisms = \"LOGIN\""), "LOGIN"),
    ]
    .into_iter()
    .enumerate()
    {
        config(port, &more);
        let before = dovecot.log().matches(&format!("method={mechanism},")).count();
        let input = format!("Subject: number {number};\n\nx\n");
        let output = run(machine.command(&["-i", "bob@b.test"]).env("SECRET", "secret"), &input);
        assert!(output.status.success() && output.stderr.is_empty(), "{more}: {output:?}");
        // The exit code says that the server has it: nothing is to be waited for.
        assert_eq!(sink.count(&format!("Subject: number {number};")), 1, "{more}");
        let log = || dovecot.log().matches(&format!("method={mechanism},")).count();
        wait_for(&format!("Dovecot to log {mechanism}"), || log() > before);
    }
    for (port, more, code, words) in [
        (SUBMISSIONS, format!("{at_once}password = \"guess\""), 77, "535"),
        (SUBMISSIONS, format!("{at_once}password = \"guess\""), 77, "see "),
        (SUBMISSION, format!("{starttls}password = \"secret\"\ntls = \"none\""), 77, "authentication"),
        (SUBMISSIONS, format!("{starttls}password = \"secret\""), 75, "greeting"),
    ] {
        config(port, &(more + "\ngreeting_timeout = \"1s\"\n"));
        let (found, words_found) = said(&machine.send(&["-i", "bob@b.test"], "Subject: never;\n\nx\n"));
        assert_eq!(found, Some(code), "{words_found}");
        assert!(words_found.contains(words), "no {words:?}: {words_found}");
        assert_eq!(fs::read_to_string(kept_file(&words_found)).unwrap(), "Subject: never;\n\nx\n");
    }
    assert_eq!(sink.count("Subject: never;"), 0);
}

#[test]
fn a_smarthost_in_the_lan_takes_what_cron_says_to_root() {
    let machine = Machine::new();
    let sink = machine.with_smarthost(
        "from = \"web1@example.test\"\nlocal_users_to = \"admin@outside.test\"\n[aliases]\nbackup = [\"eve@outside.test\", \"ann@a.test\"]",
    );
    let letter = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@web> backup\n\
                  Content-Type: text/plain; charset=UTF-8\n\nfertig: größer\n.hidden\n.\nrest\n";
    machine.sent(&["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"], letter);
    let messages = sink.messages();
    for line in [
        "X-Mail-Args: <web1@example.test>",
        "X-Rcpt-Args: <admin@outside.test>",
        "From: Cron Daemon <web1@example.test>",
        "Date: ",
        "Message-Id: <",
        "fertig: größer",
        "\n..hidden",
        "\n..\nrest",
    ] {
        let found = messages[0].replace('\r', "");
        assert!(found.contains(line), "{line:?} in {found:?}");
    }
    machine.sent(&["-i", "backup"], "Date: now\nMessage-ID: <own@id>\nSubject: to two;\n\nx\n");
    let messages = sink.messages();
    let second = messages.iter().find(|message| message.contains("to two;")).unwrap();
    assert!(second.contains("<eve@outside.test>") && second.contains("<ann@a.test>"), "{second}");
    assert_eq!(second.to_lowercase().matches("message-id").count(), 1, "{second}");
    machine.with_smarthost_gone();
}

impl Machine {
    /// Nobody to ask, and nobody for root.
    fn with_smarthost_gone(&self) {
        self.configure(&format!(
            "kind = \"smtp\"\nhost = \"{{net}}.31\"\nport = {SMTP}\nfrom = \"a@b.test\"\n"
        ));
        for (to, code, words) in [("x@b.test", 75, "refused"), ("root", 67, "`local_users_to` in")] {
            let (found, words_found) = said(&self.send(&["-i", to], "Subject: x\n\nx\n"));
            assert_eq!(found, Some(code), "{words_found}");
            assert!(words_found.contains(words), "no {words:?}: {words_found}");
        }
    }
}

#[test]
fn who_is_refused_gets_it_by_the_line_that_is_printed() {
    let machine = Machine::new();
    let (server, config) = machine.with_server();
    machine.configure(&format!("{config}password = \"secret\""));
    let letter = "To: bob@a.test\nCc: ghost@a.test, it's@a.test\nSubject: to some;\n\n.x\n";
    let (code, words) = said(&machine.send(&["-t", "-i", "-F", "Ann B", "-N", "never"], letter));
    assert_eq!(code, Some(67), "EX_NOUSER: {words}");
    for line in
        ["ghost@a.test: ", "it's@a.test: ", "550 5.1.1", "the others have it (1)", "not sent to these"]
    {
        assert!(words.contains(line), "no {line:?}: {words}");
    }
    assert_eq!(fs::read_to_string(kept_file(&words)).unwrap(), letter);
    let got = |account: &str| inbox(server.ip, account).matches("Subject: to some;").count();
    wait_for("bob's mail", || got("bob") == 1);
    let again = words.lines().find_map(|line| line.split_once("to send it again: ")).unwrap().1;
    let again = again.replace("ghost@a.test", "ann@a.test").replace("'it'\\''s@a.test'", "box@a.test");
    let mut shell = Command::new("sh");
    machine.at_home(shell.args(["-c", &again]).env("PATH", path_with(machine.world.dir.path())));
    let output = run(&mut shell, "");
    assert!(output.status.success(), "{again}: {output:?}");
    wait_for("ann's mails", || got("ann") == 2);
    assert_eq!(got("bob"), 1, "who has it gets it once");
    assert!(
        inbox(server.ip, "ann").contains("From: \"Ann B\"")
            || inbox(server.ip, "ann").contains("From: Ann B <ann@a.test>")
    );
}

#[test]
fn failures_have_their_codes_and_mistakes_their_place() {
    let machine = Machine::new();
    let (_server, config) = machine.with_server();
    let good = format!("{config}password = \"secret\"\n");
    let named = |text: &str| text.replace("host = \"{net}.10\"", "host = \"smtp.a.test\"") + "[dns.fixed]\n";
    for (text, arguments, code, words) in [
        (good.clone(), &["-f", "eve@e.test", "bob@a.test"][..], 77, "553 5.7.1"),
        (good.clone(), &["ghost@a.test"], 67, "550 5.1.1"),
        (good.clone(), &["-N", "often", "bob@a.test"], 64, "expected never"),
        (good.clone(), &["--config", "/nonexistent.toml", "bob@a.test"], 78, "cannot read /nonexistent.toml"),
        (good.clone(), &["--sendmail-config", "/nonexistent.toml", "bob@a.test"], 78, "docs/sendmail.md"),
        (good.replace("ca_file", "#"), &["bob@a.test"], 69, "`ca_file` names an authority"),
        (named(&good), &["bob@a.test"], 68, "see "),
        (
            good.replace("username", "usrname"),
            &["bob@a.test"],
            78,
            ":5:1: the configuration has no key `usrname`",
        ),
        (
            good.replace("\"ann@a.test\"", "\"ann@a..test\""),
            &["bob@a.test"],
            78,
            "sendmail.toml:6:8: `from`: ",
        ),
        (good.replace("password = \"secret\"", "password_file = \"none\""), &["bob@a.test"], 78, ":7:17: "),
        (good.replace("port", "port ="), &["bob@a.test"], 78, ":3:"),
        (good.replace("from = \"ann@a.test\"\n", ""), &["bob@a.test"], 78, "nobody is named as the sender"),
    ] {
        machine.configure(&text);
        let (found, words_found) = said(&machine.send(arguments, "Subject: x\n\nx\n"));
        assert_eq!(found, Some(code), "{arguments:?}: {words_found}\n{text}");
        assert!(words_found.contains(words), "no {words:?}: {words_found}\n{text}");
    }
    // A server that is there, and speaks something else.
    machine.configure(&format!(
        "kind = \"smtp\"\nhost = \"{{net}}.10\"\nport = {}\nfrom = \"a@b.test\"",
        crate::world::IMAP
    ));
    let (code, words) = said(&machine.send(&["bob@a.test"], "x\n"));
    assert_eq!(code, Some(76), "EX_PROTOCOL: {words}");
}

#[test]
fn a_password_that_everybody_reads_is_told_of() {
    let machine = Machine::new();
    let (server, config) = machine.with_server();
    let secret = machine.world.dir.path().join("secret");
    fs::write(&secret, "secret\n").unwrap();
    for (keys, open) in [("password = \"secret\"", &machine.config), ("password_file = \"secret\"", &secret)]
    {
        machine.configure(&format!("{config}{keys}"));
        for (mode, warned) in [(0o644, true), (0o640, false)] {
            fs::set_permissions(open, fs::Permissions::from_mode(mode)).unwrap();
            let output = machine.send(&["-v", "-i", "bob@a.test"], "Subject: x\n\nx\n");
            let (code, words) = said(&output);
            assert_eq!(code, Some(0), "{words}");
            let line = format!("warning: everybody can read the password in {}", open.display());
            assert_eq!(words.contains(&line), warned, "{words}");
            // -v tells what the server said.
            assert!(words.contains(&format!("bob@a.test: {}:{SUBMISSION}: 250", server.ip)), "{words}");
        }
    }
    // A user who may not read the file is told which.
    let copy = machine.world.dir.path().join("copy");
    fs::copy(env!("CARGO_BIN_EXE_waypost"), &copy).unwrap();
    let mut command = Command::new(&copy);
    machine.at_home(command.args(["sendmail", "bob@a.test"]));
    let (code, words) = said(&run(command.uid(NOBODY).gid(NOBODY), "x\n"));
    assert_eq!(code, Some(78), "{words}");
    assert!(words.contains(&format!("cannot read {}", machine.config.display())), "{words}");
    fs::remove_file(kept_file(&words)).unwrap();
}

#[test]
fn python_and_git_send_through_it() {
    let machine = Machine::new();
    let (server, config) = machine.with_server();
    machine.configure(&format!("{config}password = \"secret\""));
    let program = r#"
import os, subprocess, sys
from email.message import EmailMessage
m = EmailMessage()
m["From"], m["To"], m["Bcc"], m["Subject"] = "box@a.test", "bob@a.test", "ann@a.test", "by Python"
m.set_content("Grüße\n")
os.environ["WAYPOST_SENDMAIL_CONFIG"] = sys.argv[2]
subprocess.run([sys.argv[1], "-t", "-oi"], input=m.as_bytes(), check=True)
"#;
    python(program, &[&machine.sendmail.to_string_lossy(), &machine.config.to_string_lossy()]);
    for account in ["ann", "bob"] {
        wait_for("Python's mail", || inbox(server.ip, account).contains("Subject: by Python"));
        assert!(!inbox(server.ip, account).contains("Bcc"), "{account}");
    }
    let repository = machine.world.dir.path().join("repository");
    fs::create_dir(&repository).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        machine.at_home(command.current_dir(&repository).args(arguments));
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Ann").env(format!("GIT_{who}_EMAIL"), "ann@a.test");
        }
        let output = run(&mut command, "");
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
    };
    git(&["init", "-q"]);
    fs::write(repository.join("file"), "one\n.\ntwo\n").unwrap();
    git(&["add", "file"]);
    git(&["commit", "-q", "-m", "Add a file with a dot"]);
    let program = format!("--sendmail-cmd={}", machine.sendmail.display());
    git(&[
        "send-email",
        "-1",
        "--confirm=never",
        "--from=Ann <ann@a.test>",
        "--to=bob@a.test",
        "--envelope-sender=auto",
        &program,
    ]);
    wait_for("git's mail", || inbox(server.ip, "bob").contains("Subject: [PATCH] Add a file with a dot"));
    assert!(inbox(server.ip, "bob").contains("+.\r\n") || inbox(server.ip, "bob").contains("+.\n"));
}
