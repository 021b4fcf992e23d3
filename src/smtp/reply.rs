//! SMTP replies, as a server writes them and as a client reads them.
//!
//! RFC 5321 §4.2 (replies), RFC 2034 and RFC 3463 (enhanced status codes).

use std::fmt;

use crate::outcome::EnhancedCode;

/// A reply: code, enhanced status code, one or more lines of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// Stands at the head of each line (RFC 2034 §4); `None` for 3xx, the greeting and EHLO.
    pub enhanced: Option<EnhancedCode>,
    /// Without code, separator, enhanced status code and line end; never empty.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply without an enhanced status code; the text's line breaks make it several lines.
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, enhanced: None, lines: text.split('\n').map(str::to_owned).collect() }
    }

    /// A reply with an enhanced status code.
    pub fn enhanced(code: u16, enhanced: EnhancedCode, text: impl Into<String>) -> Self {
        Self { enhanced: Some(enhanced), ..Self::new(code, text) }
    }

    /// 2xx.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 3xx.
    pub fn is_intermediate(&self) -> bool {
        (300..400).contains(&self.code)
    }

    /// 4xx.
    pub fn is_temporary(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// All lines, joined by `\n`.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// As on the wire, with CR LF at the end of each line.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.lines.iter().enumerate() {
            let separator = if number + 1 == self.lines.len() { ' ' } else { '-' };
            write!(f, "{}{separator}", self.code)?;
            if let Some(enhanced) = self.enhanced {
                write!(f, "{enhanced} ")?;
            }
            write!(f, "{line}\r\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_as_on_the_wire() {
        assert_eq!(Reply::new(354, "go ahead").to_string(), "354 go ahead\r\n");
        let two = Reply::enhanced(550, EnhancedCode::new(5, 1, 1), "no such user\nsorry");
        assert_eq!(two.to_string(), "550-5.1.1 no such user\r\n550 5.1.1 sorry\r\n");
    }
}
