//! Owns how rows become aligned columns. It must never let what a server sent steer the terminal.

use super::terminal::{self, Style};

const GAP: &str = "  ";
/// A longer cell is cut: the rest is to be had as JSON.
const CELL_CHARS_MAX: usize = 60;

/// Rows under a head.
pub(super) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row<C: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(|cell| cut(cell.as_ref())).collect());
    }

    /// For standard output; empty without rows, since a head over nothing says nothing.
    pub(super) fn drawn(&self) -> String {
        self.lines(Style::of_stdout()).join("\n")
    }

    fn lines(&self, style: Style) -> Vec<String> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let head: Vec<String> = self.head.iter().map(|name| (*name).to_owned()).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&head]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
        };
        let rows = self.rows.iter().map(&line);
        [style.bold(&line(&head))].into_iter().chain(rows).collect()
    }
}

/// A cell: one line, of bounded length, that cannot steer the terminal.
fn cut(text: &str) -> String {
    let plain = terminal::plain(text);
    if plain.chars().count() <= CELL_CHARS_MAX {
        return plain;
    }
    plain.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
}

/// Lines of `name  value`, aligned.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines = pairs.iter().map(|(name, value)| format!("{name:<width$}{GAP}{}", terminal::plain(value)));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(["op_1", "ä"]);
        table.row(["x", "long"]);
        assert_eq!(table.lines(Style::PLAIN), ["ID    NAME", "op_1  ä", "x     long"]);
        assert!(Table::new(&["ID"]).lines(Style::PLAIN).is_empty());
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal_or_fill_it() {
        assert_eq!(cut("a\u{1b}[2Jb\nc"), "a [2Jb c");
        assert_eq!(cut(&"x".repeat(99)).chars().count(), CELL_CHARS_MAX);
        assert_eq!(pairs(&[("a", "1".into()), ("long", "\r2".into())]), "a     1\nlong   2");
    }
}
