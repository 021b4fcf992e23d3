//! Mail from one Waypost to another, as people send and read it.

use std::fs;
use std::process::Command;

use crate::tools::{inbox, python, submit, swaks};
use crate::world::{Conversation, IMAP, SUBMISSION, Waypost, World, run, wait_for};

/// Two servers, each with a domain and an account, that find each other by MX.
fn two_servers() -> (World, Waypost, Waypost) {
    let world = World::new(
        "a.test MX 10 mx.a.test
         mx.a.test A {net}.10
         b.test MX 10 mx.b.test
         mx.b.test A {net}.20",
    );
    let mut a = world.waypost("a", 10, &account("ann", "a.test"));
    let mut b = world.waypost("b", 20, &account("bob", "b.test"));
    a.password("ann", "secret");
    b.password("bob", "secret");
    a.start();
    b.start();
    (world, a, b)
}

pub fn account(name: &str, domain: &str) -> String {
    format!(
        "[domains.\"{domain}\"]\nseparator = \"+\"\n[accounts.{name}]\naddresses = [\"{name}@{domain}\"]\n"
    )
}

#[test]
fn mail_goes_from_one_server_to_the_other_by_mx_and_back() {
    let (_world, a, b) = two_servers();
    submit(&a, "ann", "ann@a.test", &["bob@b.test"], "to b by swaks");
    wait_for("the mail at b", || inbox(b.ip, "bob").contains("Subject: to b by swaks"));

    python(
        r#"
import smtplib, ssl, sys
from email.message import EmailMessage
m = EmailMessage()
m["From"], m["To"], m["Subject"] = "bob@b.test", "ann@a.test, ann+tag@a.test", "back by smtplib"
m.set_content("Grüße\n.\n..dots\n")
s = smtplib.SMTP(sys.argv[1], int(sys.argv[2]))
s.starttls(context=ssl._create_unverified_context())
s.login("bob", "secret")
s.send_message(m)
s.quit()
"#,
        &[&b.ip.to_string(), &SUBMISSION.to_string()],
    );
    wait_for("the mail at a", || inbox(a.ip, "ann").matches("Subject: back by smtplib").count() == 2);
    let text = inbox(a.ip, "ann");
    assert!(text.contains("Return-Path: <bob@b.test>"), "{text}");
    assert!(
        text.contains("by mx.a.test") && text.contains("by mx.b.test"),
        "a Received of each server: {text}"
    );
    assert!(a.queue()["messages"].as_array().unwrap().is_empty(), "nothing is left in the queue");
}

#[test]
fn mbsync_fetches_what_arrived_and_takes_flags_back() {
    let (world, a, b) = two_servers();
    for number in 1..=3 {
        submit(&a, "ann", "ann@a.test", &["bob@b.test"], &format!("number {number}"));
    }
    wait_for("three mails at b", || inbox(b.ip, "bob").matches("Subject: number").count() == 3);

    let maildir = world.dir.path().join("maildir");
    fs::create_dir_all(&maildir).unwrap();
    let settings = world.dir.path().join("mbsyncrc");
    let text = format!(
        "IMAPStore remote\nHost {}\nPort {IMAP}\nUser bob\nPass secret\nSSLType None\nAuthMechs LOGIN\n\n\
         MaildirStore local\nPath {dir}/\nInbox {dir}/INBOX\nSubFolders Verbatim\n\n\
         Channel all\nFar :remote:\nNear :local:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\n",
        b.ip,
        dir = maildir.display(),
    );
    fs::write(&settings, text).unwrap();
    let sync = || {
        let output = run(Command::new("mbsync").arg("-c").arg(&settings).arg("all"), "");
        assert!(output.status.success(), "{output:?}");
    };
    sync();
    let new = maildir.join("INBOX/new");
    let files: Vec<_> = fs::read_dir(&new).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3);

    // One is read, one is deleted: mbsync takes both back to the server.
    let seen = maildir.join("INBOX/cur").join(format!("{}S", name_with_info(&files[0])));
    fs::rename(&files[0], seen).unwrap();
    fs::remove_file(&files[1]).unwrap();
    sync();
    let flags = python(
        r#"
import imaplib, sys
c = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]))
c.login("bob", "secret")
print(c.select("INBOX")[1][0].decode(), len(c.search(None, "SEEN")[1][0].split()))
"#,
        &[&b.ip.to_string(), &IMAP.to_string()],
    );
    assert_eq!(flags.trim(), "2 1");
}

/// A Maildir file's name with the `:2,` that flags follow.
fn name_with_info(path: &std::path::Path) -> String {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    if name.contains(":2,") { name } else { format!("{name}:2,") }
}

#[test]
fn an_idle_session_is_woken_by_new_mail() {
    let (_world, a, b) = two_servers();
    let mut imap = Conversation::with((b.ip, IMAP));
    imap.line();
    imap.send("1 LOGIN bob secret\r\n2 SELECT INBOX\r\n");
    while !imap.line().starts_with("2 OK") {}
    imap.send("3 IDLE\r\n");
    assert!(imap.line().starts_with('+'));
    submit(&a, "ann", "ann@a.test", &["bob@b.test"], "wake up");
    while imap.line() != "* 1 EXISTS" {}
    imap.send("DONE\r\n");
    while !imap.line().starts_with("3 OK") {}
}

#[test]
fn nobody_relays_through_us_and_nobody_sends_as_another() {
    let (_world, a, _b) = two_servers();
    let mut smtp = Conversation::with(a.smtp());
    assert!(smtp.reply().starts_with("220 mx.a.test "));
    smtp.ask("EHLO client.test");
    smtp.ask("MAIL FROM:<x@elsewhere.test>");
    assert!(smtp.ask("RCPT TO:<bob@b.test>").starts_with("550 5.7.1 "), "no open relay");
    assert!(smtp.ask("RCPT TO:<nobody@a.test>").starts_with("550 5.1.1 "));
    assert!(smtp.ask("RCPT TO:<ann@a.test>").starts_with("250 "));

    let foreign = swaks(&a, "ann", "bob@b.test", &["bob@b.test"], "not mine");
    assert!(!foreign.status.success());
    assert!(String::from_utf8_lossy(&foreign.stdout).contains("553 5.7.1"), "{foreign:?}");
}

#[test]
fn what_fails_for_good_comes_back_as_a_report() {
    let (_world, a, _b) = two_servers();
    submit(&a, "ann", "ann@a.test", &["nobody@b.test"], "to nobody");
    wait_for("the report", || inbox(a.ip, "ann").contains("report-type=delivery-status"));
    let report = inbox(a.ip, "ann");
    for text in
        ["Return-Path: <>", "Final-Recipient: rfc822; nobody@b.test", "Status: 5.1.1", "Subject: to nobody"]
    {
        assert!(report.contains(text), "{text} in {report}");
    }
}

#[test]
fn a_second_server_in_the_same_folder_says_why_it_does_not_start() {
    let (_world, a, _b) = two_servers();
    let second = a.command_with(&["serve"], "");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another") && said.contains("data"), "{said}");
}
