//! The difference between two texts, line by line: the longest common subsequence, for texts of test size.

/// More lines than this are not compared: the table would be large.
const LINES_MAX: usize = 400;

/// Lines with `-` for what was expected and `+` for what came; `None` where each is a single line.
pub(super) fn diff(expected: &str, got: &str) -> Option<String> {
    let (a, b): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), got.lines().collect());
    if (a.len() <= 1 && b.len() <= 1) || a.len() > LINES_MAX || b.len() > LINES_MAX {
        return None;
    }
    // common[i][j]: longest common subsequence of a[i..] and b[j..].
    let mut common = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] =
                if a[i] == b[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            lines.push(format!("  {}", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", a[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", b[j]));
            j += 1;
        }
    }
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::diff;

    #[test]
    fn lines_that_differ_are_marked() {
        for (expected, got, shown) in [
            ("a", "b", None),
            ("a\nb\nc", "a\nc", Some("  a\n- b\n  c")),
            ("a\nc", "a\nb\nc", Some("  a\n+ b\n  c")),
            ("a\nb", "a\nx", Some("  a\n- b\n+ x")),
            ("a", "b\nc", Some("- a\n+ b\n+ c")),
        ] {
            assert_eq!(diff(expected, got).as_deref(), shown, "{expected:?} {got:?}");
        }
    }
}
