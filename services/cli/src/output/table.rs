//! Aligned columns. Widths are counted in characters, which is right for names, numbers and sizes.

use std::io::{self, Write};

/// A column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    name: &'static str,
    right: bool,
    wide: bool,
}

impl Column {
    /// Words.
    pub(crate) fn left(name: &'static str) -> Self {
        Self { name, right: false, wide: false }
    }

    /// Numbers.
    pub(crate) fn right(name: &'static str) -> Self {
        Self { name, right: true, wide: false }
    }

    /// Shown only with `-o wide`.
    pub(crate) fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: one cell for each column, also for those shown only when wide.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub(super) fn write(&self, to: &mut dyn Write, wide: bool) -> io::Result<()> {
        let shown: Vec<(usize, &Column)> =
            self.columns.iter().enumerate().filter(|(_, column)| wide || !column.wide).collect();
        let cell = |row: &[String], i: usize| row.get(i).cloned().unwrap_or_default();
        let width = |i: usize, column: &Column| {
            let cells = self.rows.iter().map(|row| row.get(i).map_or(0, |cell| cell.chars().count()));
            cells.chain([column.name.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = shown.iter().map(|(i, column)| width(*i, column)).collect();
        let mut line = |cells: Vec<String>| {
            let mut text = String::new();
            for (((_, column), width), cell) in shown.iter().zip(&widths).zip(cells) {
                if !text.is_empty() {
                    text.push_str("  ");
                }
                let pad = " ".repeat(width - cell.chars().count());
                if column.right {
                    text.push_str(&pad);
                    text.push_str(&cell);
                } else {
                    text.push_str(&cell);
                    text.push_str(&pad);
                }
            }
            writeln!(to, "{}", text.trim_end())
        };
        line(shown.iter().map(|(_, column)| column.name.to_owned()).collect())?;
        self.rows.iter().try_for_each(|row| line(shown.iter().map(|(i, _)| cell(row, *i)).collect()))
    }
}
