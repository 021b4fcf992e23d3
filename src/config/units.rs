//! Durations and sizes as operators write them: `7m30s`, `4d`, `20ms`; `50 MiB`, `100 kB`.

use std::time::Duration;

/// What "off" means for a duration that the rest of the server wants as a number: ten years.
pub(super) const NEVER: Duration = Duration::from_hours(10 * 366 * 24);

const DURATION_UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// What a duration looks like, for messages.
pub(crate) const DURATION_FORM: &str = "a duration such as \"20ms\", \"30s\", \"7m30s\", \"8h\" or \"4d\"";
/// What a size looks like, for messages.
pub(crate) const SIZE_FORM: &str = "a size such as \"64 KiB\", \"50 MiB\", \"100 MB\" or a number of bytes";

/// Reads `7m30s`: one or more numbers, each with a unit, spaces between them allowed; at most ten years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut millis = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, scale) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.checked_mul(*scale)?)?;
        rest = after.trim_start();
    }
    Some(Duration::from_millis(millis)).filter(|duration| *duration <= NEVER)
}

/// Reads `50 MiB`: a number, a space or none, a unit or none (bytes).
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    let scale = if unit.is_empty() { 1 } else { SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1 };
    number.checked_mul(scale)
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("20ms", 20),
            ("30s", 30_000),
            ("7m30s", 450_000),
            ("7m 30s", 450_000),
            ("1h30m", 5_400_000),
            ("4d", 345_600_000),
            ("1w", 604_800_000),
            ("0s", 0),
            (" 5 s ", 5_000),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            " ",
            "5",
            "s",
            "5x",
            "-5s",
            "1.5h",
            "5s,",
            "5 minutes",
            "99999999999d",
            "11000d",
            "5s5",
            "ｓ",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("50 MiB", 50 << 20),
            ("50MiB", 50 << 20),
            ("1 kB", 1000),
            ("2 GB", 2_000_000_000),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "MiB", "50M", "50 mib", "-1", "1.5 GiB", "99999999999999999999", "99999999999 TiB"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }
}
