//! Aligned columns of text: the first two to the left, the others, which are numbers, to the right.

/// Renders rows below a head; every row has as many cells as the head. No trailing spaces.
pub fn render(head: &[String], rows: &[Vec<String>]) -> String {
    let lines = || std::iter::once(head).chain(rows.iter().map(Vec::as_slice));
    let width = |column: usize| lines().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    lines().map(|cells| line(cells, &widths)).collect::<Vec<_>>().join("\n")
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        match column {
            0 => text += &format!("{cell:width$}"),
            1 => text += &format!("  {cell:width$}"),
            _ => text += &format!("  {cell:>width$}"),
        }
    }
    text.trim_end().to_owned()
}

/// Three digits that matter, and never an exponent.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [cells(&["a", "ms", "1.00", ""]), cells(&["a longer", "", "10.0", "2.0x"])];
        let table = render(&cells(&["WHAT", "", "P50", "AHEAD"]), &rows);
        assert_eq!(
            table,
            "WHAT           P50  AHEAD\n\
             a         ms  1.00\n\
             a longer      10.0   2.0x"
        );
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.123, 9.994, 9.996, 12.34, 99.96, 1234.5, -3.0].map(number);
        assert_eq!(shown, ["0.00", "0.12", "9.99", "10.0", "12.3", "100", "1234", "-3.00"]);
    }
}
