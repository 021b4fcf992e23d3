//! Tables for people: columns as wide as what is in them.

use std::io::Write;

/// Prints rows, each with the notes that belong to it below. The first row is the head.
pub(super) fn print<const N: usize>(
    rows: &[[String; N]],
    notes: &[Vec<String>],
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for (row, notes) in rows.iter().zip(notes) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
        for note in notes {
            writeln!(out, "{:indent$}{note}", "", indent = widths[0] + 2)?;
        }
    }
    Ok(())
}
