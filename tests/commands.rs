//! The command line as people and programs use it: the real binary, its output, its exit codes, what its help and its
//! first page promise.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

#[path = "commands/route_test.rs"]
mod route_test;

const PATIENCE: Duration = Duration::from_mins(1);

fn waypost(dir: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    command.current_dir(dir).env_remove("WAYPOST_CONFIG").env_remove("WAYPOST_LOG").args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that wants no input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A folder with a good configuration, and `text` behind it.
fn folder(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "hostname = \"mail.example.org\"\ndata_dir = \"data\"\n[domains.\"example.org\"]\n[accounts.ann]\n\
         addresses = [\"ann@example.org\"]\n{text}"
    );
    fs::write(dir.path().join("waypost.toml"), config).unwrap();
    dir
}

#[test]
fn every_command_teaches_by_example() {
    let dir = tempfile::tempdir().unwrap();
    for command in [
        vec![],
        vec!["serve"],
        vec!["localserve"],
        vec!["check"],
        vec!["account", "add"],
        vec!["account", "list"],
        vec!["account", "password"],
        vec!["queue", "list"],
        vec!["queue", "show"],
        vec!["queue", "kick"],
        vec!["queue", "hold"],
        vec!["queue", "unhold"],
        vec!["queue", "transport"],
        vec!["queue", "schedule"],
        vec!["queue", "fail"],
        vec!["queue", "drop"],
        vec!["queue", "dump"],
        vec!["route", "explain"],
        vec!["route", "simulate"],
        vec!["route", "replay"],
        vec!["route", "stats"],
        vec!["route", "shadow"],
        vec!["route", "promote"],
        vec!["status"],
        vec!["metrics"],
        vec!["route", "new"],
        vec!["route", "test"],
        vec!["route", "lint"],
        vec!["route", "status"],
        vec!["route", "doc"],
        vec!["route", "definitions"],
    ] {
        let help = waypost(dir.path(), &[command.as_slice(), &["--help"]].concat(), "");
        assert_eq!(help.status.code(), Some(0));
        assert!(
            said(&help).contains("Examples:\n  waypost ") || said(&help).contains("waypost account"),
            "{command:?}"
        );
    }
}

#[test]
fn exit_codes_are_as_documented() {
    let (good, bad) = (folder(""), folder("[limits]\nrecipients = 5\n"));
    let empty = tempfile::tempdir().unwrap();
    for (dir, arguments, code, words) in [
        (&good, vec!["check"], 0, "is good"),
        (&bad, vec!["check"], 1, "did you mean `recipients_max`?"),
        (&empty, vec!["check"], 1, "waypost localserve"),
        (&good, vec!["check", "--what"], 2, "--what"),
        (&good, vec!["queue", "show", "not an id"], 2, "queue id"),
        (&good, vec!["queue", "kick"], 2, "--all"),
        (&good, vec!["queue", "drop"], 2, "--all"),
        (&good, vec!["queue", "transport"], 2, "--clear"),
        (&good, vec!["queue", "schedule", "soon", "00002a"], 2, "2h"),
        (&good, vec!["queue", "list"], 3, "no server is running"),
        (&good, vec!["account", "password", "nobody"], 1, "no account nobody"),
        (
            &good,
            vec!["route", "explain", "--from", "ann@example.org", "--to", "bob@example.net"],
            0,
            "=> direct",
        ),
        (&good, vec!["route", "explain", "--from", "", "--to", "ann@example.org"], 0, "ours"),
        (&good, vec!["route", "lint"], 0, "nothing wrong"),
        (&good, vec!["route", "lint", "nowhere"], 1, "cannot be read"),
        (&good, vec!["route", "status"], 3, "no server is running"),
        (&good, vec!["route", "doc", "atempt"], 1, "did you mean attempt?"),
        (&good, vec!["route", "doc", "delivery.attempt"], 0, "example: delivery.attempt >= 4"),
        (&good, vec!["route", "doc"], 0, "in_domain(domain, pattern) -> true or false"),
        (&good, vec!["serve", "--log", "waypost=loud"], 2, "loud"),
    ] {
        let output = waypost(dir.path(), &arguments, "");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn check_tells_all_problems_of_configuration_and_scripts_at_once() {
    let dir = folder("[limits]\nrecipients = 5\n[queue]\nretry_first = 5\n");
    fs::create_dir(dir.path().join("scripts")).unwrap();
    fs::write(dir.path().join("scripts/global.rhai"), "fn route(delivery) { return \"x\" ").unwrap();
    let text = said(&waypost(dir.path(), &["check"], ""));
    for words in ["waypost.toml:7:1", "waypost.toml:9:15", "2 problems", "global.rhai:1:"] {
        assert!(text.contains(words), "{words} in\n{text}");
    }
    let json = waypost(dir.path(), &["check", "--json"], "");
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (report["config"][1]["line"].as_u64(), report["scripts"][0]["line"].as_u64()),
        (Some(9), Some(1))
    );
}

#[test]
fn accounts_without_a_server() {
    let dir = folder("# behind\n");
    let added = waypost(dir.path(), &["account", "add", "bob", "bob@example.org"], "secret\n");
    assert_eq!(added.status.code(), Some(0), "{}", said(&added));
    let config = fs::read_to_string(dir.path().join("waypost.toml")).unwrap();
    assert!(config.contains("[accounts.bob]") && config.contains("# behind") && !config.contains("secret"));
    let again = waypost(dir.path(), &["account", "add", "bob", "b@example.org"], "secret\n");
    assert_eq!(again.status.code(), Some(1));
    let foreign = waypost(dir.path(), &["account", "add", "eve", "eve@exampel.org"], "secret\n");
    assert!(
        foreign.status.code() == Some(1) && said(&foreign).contains("eve@example.org?"),
        "{}",
        said(&foreign)
    );
    let list = waypost(dir.path(), &["account", "list", "--json"], "");
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let seen: Vec<_> = list.as_array().unwrap().iter().map(|a| (&a["name"], &a["has_password"])).collect();
    assert_eq!(format!("{seen:?}"), "[(String(\"ann\"), Bool(false)), (String(\"bob\"), Bool(true))]");
}

/// The commands of an example's README that need no server, each as it stands there, and words of each answer.
fn example_does_what_its_readme_says(name: &str, wanted: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    copy(&source, dir.path());
    let certificate = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()]).unwrap();
    fs::create_dir(dir.path().join("tls")).unwrap();
    fs::write(dir.path().join("tls/cert.pem"), certificate.cert.pem()).unwrap();
    fs::write(dir.path().join("tls/key.pem"), certificate.signing_key.serialize_pem()).unwrap();
    // The files that its operator puts the passwords into.
    let config = fs::read_to_string(dir.path().join("waypost.toml")).unwrap();
    fs::create_dir_all(dir.path().join("secrets")).unwrap();
    for line in config.lines().filter(|line| line.starts_with("password_file")) {
        fs::write(dir.path().join(line.split('"').nth(1).unwrap()), "secret\n").unwrap();
    }
    let readme = fs::read_to_string(dir.path().join("README.md")).unwrap().replace("\\\n", " ");
    let commands = readme.lines().filter_map(|line| line.strip_prefix("    waypost "));
    let offline = |line: &&str| line.starts_with("check") || line.starts_with("route");
    let tried: Vec<_> = commands.filter(offline).collect();
    assert_eq!(tried.len(), wanted.len());
    for (command, wanted) in tried.iter().zip(wanted) {
        let output = waypost(dir.path(), &words(command), "");
        assert!(output.status.success() && said(&output).contains(wanted), "{command}: {}", said(&output));
    }
}

/// As a shell takes a line apart.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(
            |(number, part)| if number % 2 == 1 { vec![part] } else { part.split_whitespace().collect() },
        )
        .collect()
}

#[test]
fn each_example_does_what_its_readme_says() {
    example_does_what_its_readme_says(
        "smarthost-of-last-resort",
        &[
            "is good",
            "passed",
            "=> direct",
            "global.rhai:5: returned \"sending-service\"",
            "domain/example.org.rhai:4:",
        ],
    );
    example_does_what_its_readme_says(
        "two-sending-services",
        &["is good", "passed", "=> first-service", "=> second-service"],
    );
    example_does_what_its_readme_says(
        "several-customers",
        &["is good", "passed", "=> alpha-relay (domain level)", "=> beta-newsletters (account level)"],
    );
    example_does_what_its_readme_says("warming-up-a-new-address", &["is good", "passed", "=> "]);
}

/// What stands between a line that opens a block of this kind and the line that ends it.
fn block<'a>(text: &'a str, kind: &str) -> &'a str {
    let opening = format!("```{kind}\n");
    let start = text.find(&opening).unwrap() + opening.len();
    &text[start..start + text[start..].find("```").unwrap()]
}

#[test]
fn the_first_script_of_the_readme_works_as_it_stands_there() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("scripts")).unwrap();
    fs::write(dir.path().join("scripts/global.rhai"), block(&readme, "rhai")).unwrap();
    fs::write(dir.path().join("waypost.toml"), block(&readme, "toml")).unwrap();
    let commands = readme.lines().filter_map(|line| line.strip_prefix("    waypost "));
    let tried: Vec<_> =
        commands.filter(|line| line.starts_with("check") || line.starts_with("route")).collect();
    let wanted = ["is good", "=> sending-service"];
    assert_eq!(tried.len(), wanted.len());
    for (command, wanted) in tried.iter().zip(wanted) {
        let output = waypost(dir.path(), &command.split(' ').collect::<Vec<_>>(), "");
        assert!(output.status.success() && said(&output).contains(wanted), "{command}: {}", said(&output));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// `waypost localserve` in a process of its own, and the page that it printed.
struct Localserve {
    process: Child,
    page: String,
    _dir: tempfile::TempDir,
}

impl Localserve {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
        let log = fs::File::create(dir.path().join("log")).unwrap();
        command.args(["localserve", "--free-ports", "--dir"]).arg(dir.path().join("playground"));
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let mut page = String::new();
        while !page.contains("a broken one never replaces") {
            let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            assert!(out.read_line(&mut page).unwrap() > 0, "it ended: {}", log());
        }
        Self { process, page, _dir: dir }
    }

    /// The command lines under a heading such as `1.`, each whole.
    fn commands(&self, heading: &str) -> Vec<String> {
        let lines = self.page.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
        let part: Vec<&str> = lines.take_while(|line| line.is_empty() || line.starts_with(' ')).collect();
        let joined = part.join("\n").replace("\\\n", " ");
        let known = ["swaks", "curl", "sed", "waypost"];
        let lines = joined.lines().map(|line| line.trim().to_owned());
        lines.filter(|line| known.iter().any(|word| line.starts_with(&format!("{word} ")))).collect()
    }

    /// Types a line into a shell that was prepared as the page says.
    fn types(&self, line: &str) -> String {
        let prepared: Vec<&str> = self
            .page
            .lines()
            .map(str::trim)
            .filter(|l| l.starts_with("export ") || l.starts_with("alias "))
            .collect();
        assert_eq!(prepared.len(), 2);
        let script = format!("shopt -s expand_aliases\n{}\n{line}\n", prepared.join("\n"));
        let output = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", said(&output));
        said(&output)
    }

    /// Types a line until it shows something.
    fn types_until(&self, line: &str, shown: &str) {
        let start = Instant::now();
        loop {
            let text = self.types(&format!("{line} || true"));
            if text.contains(shown) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{line} never showed {shown:?}: {text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Localserve {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn localserve_keeps_what_its_first_page_promises() {
    let mut server = Localserve::start();
    let [send, read] = &server.commands("1.")[..] else { panic!("{}", server.page) };
    server.types(send);
    server.types_until(read, "by mx.outside.test");

    let explained: Vec<String> = server.commands("2.").iter().map(|line| server.types(line)).collect();
    for (text, shown) in explained.iter().zip(["=> direct", "domain/home.test.rhai:4", "global.rhai:4"]) {
        assert!(text.contains(shown), "{shown} in {text}");
    }

    let [edit, send, read] = &server.commands("3.")[..] else { panic!("{}", server.page) };
    server.types(edit);
    server.types_until("waypost route explain --from ann@home.test --to carol@outside.test", "=> smarthost");
    server.types(send);
    server.types_until(read, "by smarthost.outside.test");

    let [edit, send, list, kick] = &server.commands("4.")[..] else { panic!("{}", server.page) };
    server.types(edit);
    server.types(send);
    server.types_until(list, "451 4.3.0 not now");
    assert!(server.types(kick).contains("will be tried now"));

    let [send, read, ..] = &server.commands("5.")[..] else { panic!("{}", server.page) };
    server.types(send);
    server.types_until(read, "From: carol@outside.test");

    // An account is added to the running server, and Ctrl-C stops it in peace.
    server.types("echo secret | waypost account add dora dora@home.test");
    assert!(server.types("waypost account list").contains("dora@home.test"));
    let pid = server.process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(server.process.wait().unwrap().success());
}

#[test]
fn localserve_names_the_port_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let playground: PathBuf = dir.path().join("playground");
    // The first start makes the files; then the smtp port is moved to the taken one.
    let mut first = Command::new(env!("CARGO_BIN_EXE_waypost"));
    first
        .args(["localserve", "--free-ports", "--dir"])
        .arg(&playground)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = first.spawn().unwrap();
    let mut byte = [0];
    process.stdout.take().unwrap().read_exact(&mut byte).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    let file = playground.join("waypost.toml");
    let text = fs::read_to_string(&file).unwrap();
    let at = text
        .find("kind = \"smtp\"")
        .and_then(|at| text[at..].find("127.0.0.1:").map(|more| at + more))
        .unwrap();
    let end = at + text[at..].find('"').unwrap();
    fs::write(&file, format!("{}127.0.0.1:{port}{}", &text[..at], &text[end..])).unwrap();
    let output = waypost(dir.path(), &["localserve", "--dir", playground.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(
        said(&output).contains(&port.to_string()) && said(&output).contains("--port-offset"),
        "{}",
        said(&output)
    );
}

#[test]
fn dkim_keys_are_made_and_sign() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, word) in [("--rsa", "k=rsa"), ("--ed25519", "k=ed25519")] {
        let file = format!("s2026{}.pem", &kind[2..]);
        let made = waypost(dir.path(), &["dkim", "genkey", kind, "--domain", "example.org", &file], "");
        let line = String::from_utf8(made.stdout).unwrap();
        let owner = format!("s2026{}._domainkey.example.org. IN TXT ( \"v=DKIM1; {word}; p=", &kind[2..]);
        assert!(line.starts_with(&owner) && line.ends_with("\" )\n"), "{line}");
        assert_eq!(fs::metadata(dir.path().join(&file)).unwrap().permissions().mode() & 0o777, 0o600);
        let again = waypost(dir.path(), &["dkim", "genkey", &file], "");
        assert!(again.status.code() == Some(4) && said(&again).contains("exists"), "{}", said(&again));
    }
    // Line ends as files have them.
    let message = "From: ann@example.org\nSubject: x\n\nhello\n";
    let two =
        ["--selector", "s2026rsa", "--key", "s2026rsa.pem", "--selector", "e", "--key", "s2026ed25519.pem"];
    let signed =
        waypost(dir.path(), &[&["dkim", "sign", "--domain", "example.org"][..], &two].concat(), message);
    let signed = String::from_utf8(signed.stdout).unwrap();
    assert!(signed.ends_with(&message.replace('\n', "\r\n")), "{signed}");
    assert_eq!(signed.matches("DKIM-Signature: v=1; ").count(), 2);

    // Nobody answers there: what cannot be looked up is a temporary error, and a result like any other.
    let nobody = ["--resolver", "127.0.0.1:9"];
    let checked = waypost(dir.path(), &[&["dkim", "verify"][..], &nobody].concat(), &signed);
    let lines = said(&checked);
    assert!(
        checked.status.success() && lines.starts_with("temperror\ntemperror d=example.org s=s2026rsa "),
        "{lines}"
    );
    let json = waypost(dir.path(), &[&["dkim", "verify", "--json"][..], &nobody].concat(), message);
    assert!(said(&json).contains("\"result\": \"none\""), "{}", said(&json));

    let uneven =
        waypost(dir.path(), &[&["dkim", "sign", "--domain", "example.org"][..], &two[..6]].concat(), message);
    assert_eq!(uneven.status.code(), Some(2), "{}", said(&uneven));
    let no_key = ["dkim", "sign", "--domain", "example.org", "--selector", "s", "--key", "nothing.pem"];
    let no_key = waypost(dir.path(), &no_key, message);
    assert!(no_key.status.code() == Some(4) && said(&no_key).contains("nothing.pem"), "{}", said(&no_key));
}
