//! Mail from programs of a machine without a server: `sendmail` with a `sendmail.toml`, to servers that others wrote and
//! to our own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::peers::{Running, SUBMISSIONS, dovecot_submission};
use crate::sendmail::{NOBODY, kept_file, path_with, said};
use crate::tools::{inbox, python};
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
    let dovecot = dovecot_submission(&machine.world, 40, machine.world.ip(30));
    let ca = dovecot.ca_file();
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
        (
            SUBMISSION,
            format!("{starttls}password = \"secret\"\ntls = \"none\"\nmechanisms = \"PLAIN\""),
            77,
            "no authentication mechanism",
        ),
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
        "\n.hidden",
        "\n.\nrest",
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

#[test]
fn php_and_mailx_and_mutt_send_through_it() {
    let machine = Machine::new();
    let sink =
        machine.with_smarthost("from = \"web@example.test\"\nlocal_users_to = \"admin@outside.test\"\n");
    let program = machine.sendmail.display();
    let with = |subject: &str| {
        let found =
            sink.messages().into_iter().find(|message| message.contains(&format!("Subject: {subject}")));
        found.unwrap_or_else(|| panic!("no {subject:?} in {:?}", sink.messages())).replace('\r', "")
    };
    let runs = |command: &mut Command, input: &str| {
        machine.at_home(command);
        let output = run(command, input);
        assert!(output.status.success() && output.stderr.is_empty(), "{command:?}: {output:?}");
    };

    // PHP's default command, and what many programs give as the fifth parameter.
    for (subject, parameters) in [("php plain", ""), ("php sender", ", '-fbounce@example.test'")] {
        let text = format!(
            "$headers = \"From: Shop <shop@example.test>\\r\\nBcc: hidden@outside.test\";\n\
             exit(mail('Ann <ann@outside.test>', '{subject}', \"eins\\n.\\nzwei\\n\", $headers{parameters}) ? 0 : 1);"
        );
        let path = format!("sendmail_path={program} -t -i");
        runs(Command::new("php").args(["-n", "-d", &path, "-r", &text]), "");
    }
    let plain = with("php plain");
    for line in [
        "X-Mail-Args: <web@example.test>",
        "<ann@outside.test>",
        "<hidden@outside.test>",
        "From: Shop <shop@example.test>\n",
        "\neins\n.\nzwei",
    ] {
        assert!(plain.contains(line), "no {line:?}: {plain}");
    }
    assert!(!plain.contains("Bcc"), "{plain}");
    assert!(with("php sender").contains("X-Mail-Args: <bounce@example.test>"));
    // A failure is PHP's failure.
    let path = format!("sendmail_path={program} -t -i");
    let mut php = Command::new("php");
    machine.at_home(php.args(["-n", "-d", &path, "-r", "exit(mail('a@b..c', 's', 't') ? 0 : 7);"]));
    assert_eq!(run(&mut php, "").status.code(), Some(7));

    // What logrotate and many scripts call.
    let mailrc = machine.world.dir.path().join("mailrc");
    fs::write(&mailrc, format!("set sendmail={program}\n")).unwrap();
    let mut mailx = Command::new("bsd-mailx");
    runs(mailx.env("MAILRC", &mailrc).args(["-s", "by mailx", "root"]), "/var/log/some.log\n");
    // It does not wait for what it calls.
    wait_for("mailx's mail", || sink.count("Subject: by mailx") == 1);
    assert!(with("by mailx").contains("X-Rcpt-Args: <admin@outside.test>"));

    // mutt asks for reports with -N and -R.
    let muttrc = machine.world.dir.path().join("muttrc");
    let settings = "set from=\"Ann <ann@example.test>\"\nset use_envelope_from=yes\nset copy=no\n\
                    set dsn_notify=\"failure,delay\"\nset dsn_return=hdrs\n";
    fs::write(&muttrc, format!("set sendmail=\"{program} -oem -oi\"\n{settings}")).unwrap();
    let mut mutt = Command::new("mutt");
    mutt.arg("-n").arg("-F").arg(&muttrc).args(["-s", "by mutt", "--", "bob@outside.test"]);
    runs(&mut mutt, "line\n.\nlast\n");
    let mail = with("by mutt");
    for line in ["<ann@example.test>", "RET=HDRS", "NOTIFY=FAILURE,DELAY", "\nline\n.\nlast"] {
        assert!(mail.contains(line), "no {line:?}: {mail}");
    }
}

#[test]
fn a_dialogue_goes_through_to_the_server() {
    let machine = Machine::new();
    let (server, config) = machine.with_server();
    machine.configure(&format!("{config}password = \"secret\"\nlocal_users_to = \"bob@a.test\""));
    let dialogue = "EHLO localhost\nSTARTTLS\nMAIL FROM:<ann@a.test>\nRCPT TO:<ghost@a.test>\nRCPT TO:<root@localhost>\n\
                    DATA\nSubject: spoken;\n\n..dot\nEHLO x\n.\nRSET\nMAIL FROM:<eve@e.test>\nQUIT\n";
    let output = machine.send(&["-bs"], dialogue);
    let replies = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let codes: Vec<_> =
        replies.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| &line[..3]).collect();
    assert_eq!(
        codes,
        ["220", "250", "502", "250", "550", "250", "354", "250", "250", "553", "221"],
        "{replies}"
    );
    wait_for("the mail", || inbox(server.ip, "bob").contains("Subject: spoken;"));
    let mail = inbox(server.ip, "bob");
    for line in ["From: ann@a.test", "Message-Id: <", "\n.dot", "\nEHLO x"] {
        assert!(mail.contains(line), "no {line:?}: {mail}");
    }
    // Python speaks to a program as to a server; PIPELINING and DSN are the server's.
    let program = r#"
import os, smtplib, subprocess, sys
os.environ["WAYPOST_SENDMAIL_CONFIG"] = sys.argv[2]
child = subprocess.Popen([sys.argv[1], "-bs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
class Pipe:
    def sendall(self, data): child.stdin.write(data); child.stdin.flush()
    def makefile(self, *args): return child.stdout
    def close(self): child.stdin.close()
class Spoken(smtplib.SMTP):
    def _get_socket(self, *args): return Pipe()
with Spoken("sendmail", 25) as smtp:
    smtp.ehlo()
    assert smtp.has_extn("dsn") and not smtp.has_extn("auth"), smtp.esmtp_features
    refused = smtp.sendmail("ann@a.test", ["bob@a.test", "ghost@a.test"], "Subject: by smtplib;\n\n.x\n")
    assert list(refused) == ["ghost@a.test"] and refused["ghost@a.test"][0] == 550, refused
assert child.wait() == 0
"#;
    python(program, &[&machine.sendmail.to_string_lossy(), &machine.config.to_string_lossy()]);
    wait_for("smtplib's mail", || inbox(server.ip, "bob").contains("Subject: by smtplib;"));

    machine.configure(&format!("{config}password = \"guess\""));
    let output = machine.send(&["-bs"], "QUIT\n");
    let (code, words) = said(&output);
    assert_eq!(code, Some(77), "{words}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("421 "), "{output:?}");
}

/// What a namespace of its own needs: Debian's cron reads and writes these places, and calls this sendmail.
const CRON: &str = r#"set -e
mount --make-rprivate /
mkdir -p "$1/spool/crontabs" "$1/cron.d" "$1/run"
: > "$1/crontab"
printf '@reboot echo from a job; echo .; echo größer\n' > "$1/spool/crontabs/root"
chmod 600 "$1/spool/crontabs/root"
chown root:crontab "$1/spool/crontabs/root" "$1/spool/crontabs"
chmod 1730 "$1/spool/crontabs"
mount --bind "$1/spool" /var/spool/cron
mount --bind "$1/cron.d" /etc/cron.d
mount --bind "$1/crontab" /etc/crontab
mount --bind "$1/run" /run
mount --bind "$2" /usr/sbin/sendmail
exec /usr/sbin/cron -f
"#;

#[test]
fn a_real_cron_mails_what_a_job_printed() {
    let machine = Machine::new();
    let sink =
        machine.with_smarthost("from = \"web@example.test\"\nlocal_users_to = \"admin@outside.test\"\n");
    let dir = machine.world.dir.path().join("cron");
    let isolated = Command::new("unshare").args(["--mount", "mount", "--make-rprivate", "/"]).output();
    let mut command = if isolated.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", CRON, "cron"]);
        command.arg(&dir).arg(env!("CARGO_BIN_EXE_waypost"));
        command
    } else {
        eprintln!("this machine lets nobody have mounts of his own: cron's command alone is run");
        let letter = "From: root (Cron Daemon)\\nTo: root\\nSubject: Cron <root@web> echo from a job\\nMIME-Version: 1.0\\n\
                      Content-Type: text/plain; charset=UTF-8\\nContent-Transfer-Encoding: 8bit\\n\\n\
                      from a job\\n.\\ngrößer\\n";
        let text = format!(
            "printf '{letter}' | {} -FCronDaemon -i -B8BITMIME -oem root",
            machine.sendmail.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &text]);
        command
    };
    machine.at_home(&mut command);
    let _cron = Running::new(&mut command);
    wait_for("cron's mail", || sink.count("Subject: Cron <root@") == 1);
    let mail = sink.messages()[0].replace('\r', "");
    for line in [
        "X-Mail-Args: <web@example.test>",
        "X-Rcpt-Args: <admin@outside.test>",
        "From: Cron Daemon <web@example.test>\n",
        "Date: ",
        "Message-Id: <",
        "\nfrom a job\n.\ngrößer\n",
    ] {
        assert!(mail.contains(line), "no {line:?}: {mail}");
    }
}
