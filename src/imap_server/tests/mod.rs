//! Dialogues: `tests/imap_dialogues/*.txt`, spoken over real sockets with a real store, each in a world of its own.
//!
//! Lines: `C: ` is sent (with CR LF), `S: ` is expected, `#` is a comment. A number after the letter is another
//! connection (`C2: `, `S2: `); one is opened when it is first named, and its greeting is read and checked where the
//! dialogue expects it. In what is sent, `\r`, `\n`, `\0`, `\xNN` and `\\` are escapes and a `\` at the end leaves CR LF
//! out. In what is expected, `...` is anything, `{name}` is anything that is the same wherever the name stands again.
//! In parentheses: `C: (starttls)` begins TLS, `C: (close)` closes, `S: (closed)` expects the end,
//! `M: NAME text` delivers a message with that subject into a mailbox of alice, `C: (bytes n x)` sends n times x.
//! A first line `@ name` chooses the listener: `plain` (passwords in clear text; the default), `strict`, `imaps`.

mod world;

use std::collections::BTreeMap;
use std::path::Path;

use world::{Client, World};

/// What is expected, with names and wildcards.
fn fits(expected: &str, line: &str, names: &mut BTreeMap<String, String>) -> bool {
    if let Some(rest) = expected.strip_prefix("...") {
        let ends = (0..=line.len()).filter(|at| line.is_char_boundary(*at));
        return ends.rev().any(|at| {
            let mut tried = names.clone();
            let found = fits(rest, &line[at..], &mut tried);
            if found {
                *names = tried;
            }
            found
        });
    }
    if let Some((name, rest)) = expected.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        && name.chars().all(char::is_alphabetic)
        && !name.is_empty()
    {
        if let Some(value) = names.get(name).cloned() {
            return line.strip_prefix(value.as_str()).is_some_and(|line| fits(rest, line, names));
        }
        let end = line.find(|c: char| !c.is_alphanumeric() && c != '-').unwrap_or(line.len());
        names.insert(name.to_owned(), line[..end].to_owned());
        return end > 0 && fits(rest, &line[end..], names);
    }
    let mut characters = expected.chars();
    match (characters.next(), line.chars().next()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => fits(characters.as_str(), &line[b.len_utf8()..], names),
        _ => false,
    }
}

/// What is sent, with names and escapes put in.
fn unescape(text: &str, names: &BTreeMap<String, String>) -> Vec<u8> {
    let mut text = text.to_owned();
    for (name, value) in names {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    let (mut bytes, mut characters) = (Vec::new(), text.chars());
    while let Some(character) = characters.next() {
        if character != '\\' {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match characters.next() {
            None => return bytes,
            Some('r') => bytes.push(b'\r'),
            Some('n') => bytes.push(b'\n'),
            Some('0') => bytes.push(0),
            Some('x') => {
                let hex: String = characters.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            Some(other) => bytes.extend_from_slice(&match other {
                '\\' => vec![b'\\'],
                other => format!("\\{other}").into_bytes(),
            }),
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

async fn speak(file: &Path) {
    let script = std::fs::read_to_string(file).unwrap();
    let listener = script.lines().next().and_then(|line| line.strip_prefix("@ ")).unwrap_or("plain");
    let world = World::new(listener).await;
    let mut clients: BTreeMap<String, Client> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (number, line) in (1..).zip(script.lines()) {
        let place = format!("{}:{number}", file.file_name().unwrap().to_string_lossy());
        let Some((who, text)) = line.split_once(": ").or_else(|| line.strip_suffix(':').map(|who| (who, "")))
        else {
            assert!(line.is_empty() || line.starts_with(['#', '@']), "{place}: what is this? {line}");
            continue;
        };
        if line.starts_with('#') {
            continue;
        }
        if who == "M" {
            let (mailbox, subject) = text.split_once(' ').unwrap();
            world.deliver(mailbox, subject).await;
            continue;
        }
        let (side, connection) = who.split_at(1);
        if !clients.contains_key(connection) {
            clients.insert(connection.to_owned(), world.connect().await);
        }
        let client = clients.get_mut(connection).unwrap();
        match (side, text) {
            ("C", "(starttls)") => world.start_tls(client).await,
            ("C", "(close)") => drop(clients.remove(connection)),
            ("C", text) if text.starts_with("(bytes ") => {
                let mut words = text.trim_matches(['(', ')']).split(' ').skip(1);
                let count = words.next().unwrap().parse().unwrap();
                client.send(words.next().unwrap().repeat(count).as_bytes()).await;
            }
            ("C", text) => client.send(&unescape(text, &names)).await,
            ("S", "(closed)") => {
                let line = client.line(&place).await;
                assert!(line.is_none(), "{place}: expected the end, got {line:?}");
            }
            ("S", text) => {
                let line =
                    client.line(&place).await.unwrap_or_else(|| panic!("{place}: closed, expected {text:?}"));
                let expected = text.trim_end_matches('\\');
                assert!(
                    fits(expected, &line, &mut names),
                    "{place}:\nexpected {text:?}\n     got {line:?}\n{names:?}"
                );
            }
            _ => panic!("{place}: what is this? {line}"),
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn dialogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/imap_dialogues");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let only = std::env::var("DIALOGUE").unwrap_or_default();
    let chosen: Vec<_> = files.iter().filter(|f| f.to_string_lossy().contains(&only)).collect();
    assert!(!chosen.is_empty());
    // Side by side: each waits most of its time for hashed passwords and the disk.
    let mut running = tokio::task::JoinSet::new();
    for file in chosen {
        let file = file.clone();
        running.spawn(async move { speak(&file).await });
    }
    let mut failures = Vec::new();
    while let Some(done) = running.join_next().await {
        if let Err(error) = done {
            let text = error.into_panic();
            let text = text.downcast_ref::<String>().cloned().unwrap_or_else(|| "panicked".into());
            failures.push(text);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn expectations_bind_names() {
    let mut names = BTreeMap::new();
    assert!(fits("* OK [UIDVALIDITY {v}] ...", "* OK [UIDVALIDITY 77] fine", &mut names));
    assert!(fits("{v} ... end", "77 a end end", &mut names));
    assert!(!fits("{v}", "78", &mut names));
    assert!(!fits("a", "ab", &mut names));
}

#[tokio::test]
async fn a_server_that_stops_says_so_to_everybody() {
    let world = World::new("plain").await;
    let (mut waiting, mut idling) = (world.connect().await, world.connect().await);
    for client in [&mut waiting, &mut idling] {
        assert!(client.line("greeting").await.unwrap().starts_with("* OK"));
    }
    idling.send(b"a LOGIN alice secret\r\nb IDLE\r\n").await;
    assert!(idling.line("login").await.unwrap().starts_with("a OK"));
    assert_eq!(idling.line("idle").await.as_deref(), Some("+ idling"));
    world.stop().await;
    for client in [&mut waiting, &mut idling] {
        assert_eq!(client.line("stop").await.as_deref(), Some("* BYE The server is shutting down"));
        assert_eq!(client.line("end").await, None);
    }
}
