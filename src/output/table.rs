//! Tables without lines: columns two blanks apart, and labelled lines.

use anstyle::Style;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use memctl::cgroup::Name;

use super::format::{called, escaped, shortened};

pub const DIM: Style = Style::new().dimmed();

/// Formats labelled lines, wrapped to `width` columns.
pub fn labelled(lines: &[(String, String)], width: u16) -> String {
    let mut table = plain_table();
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.add_rows(lines.iter().map(|(label, text)| [label, text]));
    let dimmed = |line: String| match line.find("  ").filter(|&end| end > 0) {
        Some(end) => format!("{DIM}{}{DIM:#}{}\n", &line[..end], &line[end..]),
        None => format!("{line}\n"),
    };
    lines_of(&mut table).map(dimmed).collect()
}

pub fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Returns the lines of a table, with two blanks between columns and none before the first. Call
/// this with all rows added: they define the table's columns.
pub fn lines_of(table: &mut Table) -> impl Iterator<Item = String> {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().into_iter()
}

/// Returns the header and the lines of a table of figures. All columns are right-aligned, except
/// the first with the names.
pub fn figures(table: &mut Table) -> (String, impl Iterator<Item = String>) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = lines_of(table);
    (lines.next().unwrap_or_default(), lines)
}

/// Wraps a text after a head of `columns` columns to `width`, indented below the head.
pub fn wrapped(head: &str, columns: usize, text: &str, width: usize) -> String {
    let room = width.saturating_sub(columns).max(20);
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(last) if line == 0 || line + 1 + word.chars().count() <= room => {
                if line > 0 {
                    last.push(' ');
                }
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    format!("{head}{}\n", lines.join(&format!("\n{}", " ".repeat(columns))))
}

/// Returns a name, shortened to the room that the `others` leave; in a pipe, unshortened.
pub fn named(name: &str, width: Option<u16>, others: usize) -> String {
    fitting(escaped(name), width, others)
}

/// Returns what a cgroup is called, shortened as by [`named`].
pub fn cgroup(name: &Name, width: Option<u16>, others: usize) -> String {
    fitting(called(name), width, others)
}

fn fitting(name: String, width: Option<u16>, others: usize) -> String {
    match width {
        Some(width) => shortened(&name, usize::from(width).saturating_sub(others).max(16)),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_wrapped_below_themselves() {
        assert_eq!(
            wrapped("a   ", 4, "one two three four five six", 26),
            "a   one two three four\n    five six\n"
        );
        assert_eq!(wrapped("", 0, "short", usize::MAX), "short\n");
    }
}
