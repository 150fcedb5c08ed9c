//! Tables as kubectl prints them: columns to the left, three spaces between them, no lines.

/// Renders rows below a head, and nothing below no rows. Rows have as many cells as the head.
pub fn render<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let head = head.map(str::to_owned);
    let lines = || std::iter::once(&head).chain(rows);
    let width = |column: usize| lines().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    lines().map(|cells| line(cells, &widths) + "\n").collect()
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    padded.join("   ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_script() {
        let rows = [["ä".to_owned(), "x".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(render(["A", "B"], &rows), "A      B\nä      x\nlong\n");
    }

    #[test]
    fn no_rows_still_have_a_head() {
        assert_eq!(render(["A", "B"], &[]), "A   B\n");
    }
}
