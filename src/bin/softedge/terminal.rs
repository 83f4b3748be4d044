//! What a person at a terminal sees: lines, aligned tables, progress.

use indicatif::{ProgressBar, ProgressStyle};
use std::fmt;
use std::io::{ErrorKind, IsTerminal, Write};

/// Prints a line to standard output. Where the reader has gone away (`| head`) the work goes on
/// quietly: what it writes is not lost.
macro_rules! say {
    ($($arg:tt)*) => { $crate::terminal::print(format_args!($($arg)*)) };
}
pub(crate) use say;

/// Says on standard error what does not end the work but is to be seen.
pub fn warning(text: &str) {
    eprintln!("warning: {text}");
}

/// See [`say!`].
pub fn print(line: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(e) = writeln!(out, "{line}").and_then(|()| out.flush())
        && e.kind() != ErrorKind::BrokenPipe
    {
        eprintln!("error: standard output: cannot be written: {e}");
        std::process::exit(1);
    }
}

/// Bytes in the unit that reads best.
pub fn bytes(n: usize) -> String {
    const KIB: f64 = 1024.0;
    match n as f64 {
        b if b < KIB => format!("{n} B"),
        b if b < KIB * KIB => format!("{:.1} KiB", b / KIB),
        b => format!("{:.2} MiB", b / KIB / KIB),
    }
}

/// A count with the prefix that reads best.
pub fn count(n: u64) -> String {
    match n as f64 {
        v if v < 1e4 => format!("{n}"),
        v if v < 1e6 => format!("{:.1} k", v / 1e3),
        v if v < 1e9 => format!("{:.2} M", v / 1e6),
        v => format!("{:.2} G", v / 1e9),
    }
}

/// A part of one in per cent.
pub fn percent(part: f64) -> String {
    if part.is_nan() { "-".into() } else { format!("{:.2} %", 100.0 * part) }
}

/// Minutes and seconds, or hours and minutes.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// Dimensions as `28x28x1`.
pub fn dims(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// A progress bar over `len` units of work, with its speed and the time left: nothing where standard
/// error is no terminal.
pub fn progress(what: &'static str, len: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{prefix} {wide_bar} {pos}/{len}  {msg}  {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_prefix(what).with_style(style.progress_chars("━╸─"))
}

/// Rows of text in aligned columns: the first row is the heading.
pub struct Table {
    /// For each column, whether its cells stand at the right.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings; one that starts with `>` sets its column to the right.
    pub fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|h| h.starts_with('>')).collect();
        let heading = headings.iter().map(|h| h.trim_start_matches('>').to_string()).collect();
        Self { right, rows: vec![heading] }
    }

    /// Appends a row, one cell for each column.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        for (i, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((cell, &width), &right) in row.iter().zip(&widths).zip(&self.right) {
                let cell = if right { format!("{cell:>width$}") } else { format!("{cell:width$}") };
                line += "  ";
                line += &cell;
            }
            let end = if i + 1 < self.rows.len() { "\n" } else { "" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([bytes(900), bytes(62_669), bytes(3 << 20)], ["900 B", "61.2 KiB", "3.00 MiB"]);
        assert_eq!([count(9_999), count(12_345), count(1_234_567)], ["9999", "12.3 k", "1.23 M"]);
        assert_eq!(
            [duration(0.25), duration(59.4), duration(61.0), duration(7322.0)],
            ["0.2 s", "59 s", "1 min 01 s", "2 h 02 min"]
        );
        assert_eq!([percent(0.87654), percent(f64::NAN)], ["87.65 %", "-"]);
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["op", ">bytes"]);
        table.row(["Linear".into(), "7".into()]);
        assert_eq!(table.to_string(), "  op      bytes\n  Linear      7");
    }
}
