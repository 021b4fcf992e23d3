//! Lists of tags such as `v=1; a=rsa-sha256; d=example.org`: signatures, keys, policies (RFC 6376 §3.2).

use std::borrow::Cow;

/// A list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Tags<'a> {
    /// Reads a list; white space around names and values is taken away, line ends count as white space.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let mut tags: Vec<(&str, &str)> = Vec::new();
        let text = text.trim_ascii();
        let text = text.strip_suffix(';').unwrap_or(text);
        for spec in text.split(';') {
            let Some((name, value)) = spec.split_once('=') else {
                return Err(format!("{:?} is no tag: it has no \"=\"", shortened(spec.trim_ascii())));
            };
            let name = name.trim_ascii();
            let name_is_good = name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !name_is_good {
                return Err(format!("{:?} is no name of a tag", shortened(name)));
            }
            // §3.2: a list that names a tag twice is invalid as a whole.
            if tags.iter().any(|(other, _)| *other == name) {
                return Err(format!("the tag {name}= stands there twice"));
            }
            if tags.len() >= TAGS_MAX {
                return Err(format!("it has more than {TAGS_MAX} tags"));
            }
            tags.push((name, value.trim_ascii()));
        }
        Ok(Self(tags))
    }

    /// The value of a tag.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    /// The value of a tag without any white space.
    pub fn compact(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).map(without_space)
    }

    /// The name of the first tag.
    pub fn first(&self) -> Option<&'a str> {
        self.0.first().map(|(name, _)| *name)
    }
}

/// No standard defines half as many; a longer list is somebody's attempt to make us work.
const TAGS_MAX: usize = 64;

/// Text without white space.
pub fn without_space(text: &str) -> Cow<'_, str> {
    if text.contains(|c: char| c.is_ascii_whitespace()) {
        Cow::Owned(text.chars().filter(|c| !c.is_ascii_whitespace()).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Strangers' text within our sentences stays short.
pub fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let tags = Tags::parse(" v = 1;\r\n\tb=ab\r\n cd ; n=a=b;x=; ").unwrap();
        assert_eq!(
            (tags.get("v"), tags.get("n"), tags.get("x"), tags.get("V")),
            (Some("1"), Some("a=b"), Some(""), None)
        );
        assert_eq!((tags.compact("b").as_deref(), tags.first()), (Some("abcd"), Some("v")));
    }

    #[test]
    fn lists_that_are_none() {
        for (text, why) in [
            ("", "no \"=\""),
            ("v=1; x", "\"x\" is no tag"),
            ("v=1;; b=2", "no \"=\""),
            ("1v=1", "no name"),
            ("v-1=1", "no name"),
            ("v=1; d=a; v=1", "v= stands there twice"),
        ] {
            let problem = Tags::parse(text).unwrap_err();
            assert!(problem.contains(why), "{text}: {problem}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_read(text in ".{0,200}") {
            let _ = Tags::parse(&text);
        }
    }
}
