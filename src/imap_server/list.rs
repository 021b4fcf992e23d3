//! LIST and LSUB: which mailboxes a pattern means, and with which attributes they are shown.
//!
//! RFC 9051 §6.3.9 (patterns, `%` shows missing levels), RFC 3501 §6.3.9 (LSUB), RFC 3348 (\HasChildren), RFC 6154
//! (special use). Pure.

use std::collections::{BTreeMap, HashSet};

use crate::store::MailboxInfo;

/// What separates levels, on the wire as in the store.
pub const SEPARATOR: char = '/';

/// A line of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// UTF-8.
    pub name: String,
    /// With their backslashes.
    pub attributes: Vec<&'static str>,
}

/// Whether a name fits a pattern: `*` is anything, `%` anything without a separator. INBOX is in any case.
pub fn matches(pattern: &str, name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let inbox_len = inbox_len(&name);
    // Places in the name that can be reached by the pattern so far: linear in both, whatever the pattern.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for wanted in pattern.chars() {
        let mut next = vec![false; name.len() + 1];
        match wanted {
            '*' | '%' => {
                let mut open = false;
                for at in 0..=name.len() {
                    open |= reached[at];
                    next[at] = open;
                    if wanted == '%' && name.get(at) == Some(&SEPARATOR) {
                        open = false;
                    }
                }
            }
            _ => {
                for (at, &found) in name.iter().enumerate() {
                    let same = found == wanted || (at < inbox_len && found.eq_ignore_ascii_case(&wanted));
                    next[at + 1] = reached[at] && same;
                }
            }
        }
        reached = next;
    }
    reached[name.len()]
}

/// How much of a name is the word INBOX as its first level.
fn inbox_len(name: &[char]) -> usize {
    let is_inbox = name.len() >= 5 && name[..5].iter().collect::<String>().eq_ignore_ascii_case("INBOX");
    if is_inbox && name.get(5).is_none_or(|next| *next == SEPARATOR) { 5 } else { 0 }
}

/// The answer to LIST.
pub fn list(pattern: &str, mailboxes: &[MailboxInfo]) -> Vec<Listed> {
    let names: HashSet<&str> = mailboxes.iter().map(|mailbox| mailbox.name.as_str()).collect();
    let mut listed = BTreeMap::new();
    for mailbox in mailboxes {
        if matches(pattern, &mailbox.name) {
            let mut attributes = vec![if mailbox.has_children { "\\HasChildren" } else { "\\HasNoChildren" }];
            attributes.extend(mailbox.special_use.map(crate::store::SpecialUse::as_str));
            listed.insert(mailbox.name.clone(), attributes);
        }
        for parent in parents(&mailbox.name) {
            // A missing level above a mailbox is shown, or nobody who goes down level by level would find it.
            if !names.contains(parent) && matches(pattern, parent) {
                listed.entry(parent.to_owned()).or_insert_with(|| vec!["\\Noselect", "\\HasChildren"]);
            }
        }
    }
    listed.into_iter().map(|(name, attributes)| Listed { name, attributes }).collect()
}

/// The answer to LSUB: names subscribed, and with `%` the levels above names that are subscribed but do not fit.
pub fn lsub(pattern: &str, subscriptions: &[String]) -> Vec<Listed> {
    let names: HashSet<&str> = subscriptions.iter().map(String::as_str).collect();
    let mut listed = BTreeMap::new();
    for name in subscriptions {
        if matches(pattern, name) {
            listed.insert(name.clone(), vec![]);
        } else {
            for parent in parents(name).filter(|parent| pattern.contains('%') && matches(pattern, parent)) {
                // RFC 3501 §6.3.9: foo is returned with \Noselect when foo/bar is subscribed and foo is not.
                if !names.contains(parent) {
                    listed.insert(parent.to_owned(), vec!["\\Noselect"]);
                }
            }
        }
    }
    listed.into_iter().map(|(name, attributes)| Listed { name, attributes }).collect()
}

fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(SEPARATOR).map(move |(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "a/b", true),
            ("%", "a", true),
            ("%", "a/b", false),
            ("a/%", "a/b", true),
            ("a/%", "a/b/c", false),
            ("a/*", "a/b/c", true),
            ("%/%", "a/b", true),
            ("*b", "a/b", true),
            ("%b", "a/b", false),
            ("a%c", "abc", true),
            ("a*b*c", "a/xbx/c", true),
            ("inbox", "INBOX", true),
            ("InB%", "INBOX", true),
            ("inbox/x", "INBOX/x", true),
            ("inbox/x", "INBOX/X", false),
            ("sent", "Sent", false),
            ("inboxes", "INBOXES", false),
            ("", "", true),
            ("", "a", false),
            ("ä%", "äö", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        let hard = "*a".repeat(200);
        assert!(!matches(&hard, &"a".repeat(199)) && matches(&hard, &"a".repeat(250)));
    }

    #[test]
    fn levels_above_what_is_subscribed() {
        let names = ["a/b".to_owned(), "c".to_owned(), "d".to_owned(), "d/e".to_owned()];
        let shown = |pattern| {
            let show = |l: Listed| format!("{}{}", l.attributes.concat(), l.name);
            lsub(pattern, &names).into_iter().map(show).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown("%"), "\\Noselecta c d");
        assert_eq!(shown("*"), "a/b c d d/e");
        assert_eq!(shown("a/%"), "a/b");
        assert_eq!(shown("*b"), "a/b");
    }

    proptest::proptest! {
        #[test]
        fn a_name_fits_itself(name in "[a-z/]{0,12}") {
            proptest::prop_assert!(matches(&name, &name) && matches("*", &name));
            proptest::prop_assert_eq!(matches("%", &name), !name.contains('/'));
        }
    }
}
