//! Colour and columns of what people read.

use std::io::IsTerminal as _;

/// A few colours with a meaning; the word beside them says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Good,
    Warning,
    Bad,
}

/// Whether to colour what goes somewhere: never when piped, never with NO_COLOR or a dumb terminal.
pub(crate) fn wants_colour(is_terminal: bool) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_terminal && !unwanted && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

/// Colours `text` if stdout is a terminal that wants it.
pub(crate) fn coloured(text: &str, colour: Colour) -> String {
    if !wants_colour(std::io::stdout().is_terminal()) {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Good => 32,
        Colour::Warning => 33,
        Colour::Bad => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Columns as wide as their widest cell; a header that ends with `>` names a column of numbers, set to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let names: Vec<(&str, bool)> = header
        .iter()
        .map(|name| name.strip_suffix('>').map_or((*name, false), |name| (name, true)))
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([names[column].0.len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let mut text = String::new();
    let header: Vec<String> = names.iter().map(|(name, _)| (*name).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            if names[column].1 { format!("{padding}{cell}") } else { format!("{cell}{padding}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["n1".to_owned(), "7".to_owned(), "up".to_owned()],
            vec!["node-2".to_owned(), "64".to_owned(), "-".to_owned()],
        ];
        assert_eq!(
            table(&["NAME", "LEADS>", "STATE"], &rows),
            "NAME    LEADS  STATE\nn1          7  up\nnode-2     64  -\n"
        );
    }
}
