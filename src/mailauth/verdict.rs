//! The words for what came of a check: RFC 8601 §2.7, the same for DKIM, DMARC, ARC and iprev.

use std::fmt;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// There is nothing to check.
    None,
    /// It is proved.
    Pass,
    /// It is disproved.
    Fail,
    /// It would be proved, but not in a way that we accept.
    Policy,
    /// It cannot be read, or proves nothing.
    Neutral,
    /// DNS did not answer; another try can help.
    TempError,
    /// Something is missing or wrong that another try cannot mend.
    PermError,
}

impl Verdict {
    /// The word of RFC 8601.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Policy => "policy",
            Self::Neutral => "neutral",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
