//! Runs the dialogues of `tests/smtp_dialogues/`, one a file, each against a server of its own.
//!
//! A file begins with `#` lines that say what it shows, and `@ key: value` lines that set the server up: `listener`
//! (smtp, submission, submissions), `relay_from`, `plaintext_auth: yes`, `tls: no`, `limits` (a line of `[limits]`).
//! Then come, a line each:
//!
//! - `C: text` what the client sends, CR LF added; `C> text` the same without. `\r`, `\n`, `\0`, `\\` and `\xff` are
//!   bytes, `{text*100}` is text a hundred times.
//! - `S: pattern` the server's next line; `*` stands for any text. `S* 250` a whole reply with this code.
//! - `TLS` begins TLS. `AUTH user password` sends AUTH PLAIN.
//! - `EOF` the server closes the connection.
//! - `MAIL account` waits for the next message in that account's INBOX; its lines follow, as `| pattern`, all of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::world::{Client, Setup, World};
use crate::config::ListenerKind;
use crate::sasl;

/// Every dialogue, several at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smtp_dialogues");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 20, "the dialogues were not found");
    let mut waiting = files.into_iter();
    let mut running = tokio::task::JoinSet::new();
    let mut wrong = Vec::new();
    loop {
        while running.len() < 4
            && let Some(file) = waiting.next()
        {
            running.spawn(run(file));
        }
        match running.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(what))) => wrong.push(what),
            Some(Err(panicked)) => wrong.push(panicked.to_string()),
            None => break,
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

async fn run(file: PathBuf) -> Result<(), String> {
    let text = std::fs::read_to_string(&file).unwrap();
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    if !text.starts_with("# ") {
        return Err(format!("{name}: does not say what it shows"));
    }
    let world = World::new(setup(&text)).await;
    let mut client = Some(world.connect().await);
    let mut read_mails = HashMap::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let mut speaker = client.take().expect("there is a client between lines");
        let result = match line.split_once(' ').unwrap_or((line, "")) {
            ("#" | "@" | "", _) => Ok(()),
            ("C:", text) => say(&mut speaker, &format!("{text}\\r\\n")).await,
            ("C>", text) => say(&mut speaker, text).await,
            ("S:", pattern) => {
                expect(pattern, speaker.line().await.as_deref().unwrap_or("(the connection is closed)"))
            }
            ("S*", code) => expect(&format!("{code}*"), &speaker.reply().await),
            ("EOF", _) => expect(
                "(the connection is closed)",
                speaker.line().await.as_deref().unwrap_or("(the connection is closed)"),
            ),
            ("TLS", _) => {
                speaker = speaker.start_tls().await;
                Ok(())
            }
            ("AUTH", who) => {
                let message = sasl::encode(format!("\0{}", who.replace(' ', "\0")).as_bytes());
                say(&mut speaker, &format!("AUTH PLAIN {message}\\r\\n")).await
            }
            ("MAIL", account) => {
                let uid = read_mails.entry(account.to_owned()).and_modify(|uid| *uid += 1).or_insert(1);
                let mail = world.mail(account, *uid).await;
                let mut patterns = Vec::new();
                while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with('|')) {
                    patterns.push(line.strip_prefix("| ").unwrap_or(""));
                }
                expect_mail(&patterns, &mail)
            }
            _ => Err("this line is not understood".to_owned()),
        };
        client = Some(speaker);
        result.map_err(|what| format!("{name}:{}: {line}\n    {what}", number + 1))?;
    }
    Ok(())
}

fn setup(text: &str) -> Setup {
    let mut setup = Setup::of(ListenerKind::Smtp);
    let keys = text.lines().filter_map(|line| line.strip_prefix("@ ")?.split_once(": "));
    for (key, value) in keys {
        match (key, value) {
            ("listener", "smtp") => setup.kind = ListenerKind::Smtp,
            ("listener", "submission") => setup.kind = ListenerKind::Submission,
            ("listener", "submissions") => setup.kind = ListenerKind::Submissions,
            ("relay_from", network) => setup.relay_from.push(network.parse().unwrap()),
            ("plaintext_auth", "yes") => setup.allow_plaintext_auth = true,
            ("tls", "no") => setup.tls = false,
            ("limits", line) => setup.limits += &(line.to_owned() + "\n"),
            _ => panic!("@ {key}: {value} is not understood"),
        }
    }
    setup
}

async fn say(client: &mut Client, text: &str) -> Result<(), String> {
    client.send(&bytes(text)).await.map_err(|error| format!("cannot send: {error}"))
}

/// What a line of a dialogue stands for.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((part, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}'))
            && let Some((part, times)) = part.rsplit_once('*')
            && let Ok(times) = times.parse()
        {
            out.extend(bytes(part).repeat(times));
            rest = after;
            continue;
        }
        let escapes = [("\\r", b'\r'), ("\\n", b'\n'), ("\\0", 0), ("\\\\", b'\\')];
        if let Some((escape, byte)) = escapes.into_iter().find(|(escape, _)| rest.starts_with(escape)) {
            out.push(byte);
            rest = &rest[escape.len()..];
        } else if let Some(byte) =
            rest.strip_prefix("\\x").and_then(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok())
        {
            out.push(byte);
            rest = &rest[4..];
        } else {
            out.extend(c.to_string().as_bytes());
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

fn expect(pattern: &str, seen: &str) -> Result<(), String> {
    if matches(pattern, seen) { Ok(()) } else { Err(format!("but seen: {seen}")) }
}

fn expect_mail(patterns: &[&str], mail: &str) -> Result<(), String> {
    let lines: Vec<&str> = mail.split_inclusive("\r\n").collect();
    let same = lines.len() == patterns.len()
        && lines.iter().zip(patterns).all(|(line, pattern)| {
            line.strip_suffix("\r\n").is_some_and(|line| matches(&pattern.replace("\\t", "\t"), line))
        });
    if same { Ok(()) } else { Err(format!("but the mail is:\n{mail}")) }
}

/// `*` in a pattern stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[test]
fn the_runner_sees_what_is_wrong() {
    for (pattern, text, same) in [
        ("250 ok", "250 ok", true),
        ("250 ok", "250 okay", false),
        ("250 *", "250 ok", true),
        ("250 *k", "250 ok", true),
        ("250 *a*", "250 ok", false),
        ("*b*b", "ab", false),
        ("", "x", false),
    ] {
        assert_eq!(matches(pattern, text), same, "{pattern:?} {text:?}");
    }
    assert_eq!(bytes("{ab*2}\\r\\n\\x00\\\\{x}"), b"abab\r\n\0\\{x}");
}
