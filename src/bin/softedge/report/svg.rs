//! A picture made of rectangles, lines and text.

use std::fmt::Write;

/// Ink, from strong to faint.
pub const INK: &str = "#1f2933";
pub const MUTED: &str = "#6b7680";
pub const RULE: &str = "#d5dade";
pub const GRID: &str = "#eceff1";

/// Where a text is anchored.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture while it is drawn; lengths are in pixels, y downwards.
pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    /// An empty picture.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// A rectangle, with a text that shows on hover unless that is empty.
    pub fn rect(&mut self, [x, y, w, h]: [f64; 4], fill: &str, stroke: &str, hover: &str) {
        let _ = write!(
            self.body,
            r#"<rect x="{x:.2}" y="{y:.2}" width="{w:.2}" height="{h:.2}" fill="{fill}" stroke="{stroke}""#
        );
        self.close("rect", hover);
    }

    /// A straight line; `dash` is empty for a solid one.
    pub fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], stroke: &str, width: f64, dash: &str) {
        let _ = write!(
            self.body,
            r#"<line x1="{x1:.2}" y1="{y1:.2}" x2="{x2:.2}" y2="{y2:.2}" stroke="{stroke}" stroke-width="{width}""#
        );
        if !dash.is_empty() {
            let _ = write!(self.body, r#" stroke-dasharray="{dash}""#);
        }
        self.body += "/>\n";
    }

    /// A line through all points.
    pub fn path(&mut self, points: &[(f64, f64)], stroke: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.2},{y:.2}")).collect();
        let _ = writeln!(
            self.body,
            r#"<polyline points="{}" fill="none" stroke="{stroke}" stroke-width="2" stroke-linejoin="round" stroke-linecap="round"/>"#,
            points.join(" ")
        );
    }

    /// A dot, with a text that shows on hover.
    pub fn dot(&mut self, x: f64, y: f64, radius: f64, fill: &str, hover: &str) {
        let _ = write!(self.body, r#"<circle cx="{x:.2}" cy="{y:.2}" r="{radius}" fill="{fill}""#);
        self.close("circle", hover);
    }

    /// A text whose baseline is at `y`.
    pub fn text(&mut self, x: f64, y: f64, anchor: Anchor, size: f64, fill: &str, text: &str) {
        self.placed_text(&format!(r#"x="{x:.2}" y="{y:.2}""#), anchor, size, fill, text);
    }

    /// A text in bold.
    pub fn heading(&mut self, x: f64, y: f64, size: f64, text: &str) {
        let place = format!(r#"x="{x:.2}" y="{y:.2}" font-weight="600""#);
        self.placed_text(&place, Anchor::Start, size, INK, text);
    }

    /// A text that runs upwards from `(x, y)`.
    pub fn upward_text(&mut self, x: f64, y: f64, anchor: Anchor, size: f64, fill: &str, text: &str) {
        self.placed_text(&format!(r#"transform="translate({x:.2} {y:.2}) rotate(-90)""#), anchor, size, fill, text);
    }

    fn placed_text(&mut self, place: &str, anchor: Anchor, size: f64, fill: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        let _ = writeln!(
            self.body,
            r#"<text {place} text-anchor="{anchor}" font-size="{size}" fill="{fill}">{text}</text>"#
        );
    }

    fn close(&mut self, tag: &str, hover: &str) {
        let _ = if hover.is_empty() {
            writeln!(self.body, "/>")
        } else {
            writeln!(self.body, "><title>{}</title></{tag}>", escape(hover))
        };
    }

    /// The file.
    pub fn finish(self) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" \
             font-family=\"Inter, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

/// How wide a text is at most, in the widest of the fonts.
pub fn text_width(text: &str, size: f64) -> f64 {
    size * text.chars().map(advance).sum::<f64>()
}

/// How wide a heading is at most: it is bold.
pub fn heading_width(text: &str, size: f64) -> f64 {
    1.15 * text_width(text, size)
}

/// Width of a character in DejaVu Sans, in parts of the size, rounded up to a few groups.
fn advance(c: char) -> f64 {
    match c {
        'f' | 'i' | 'j' | 'l' | 'r' | 't' | 'I' | 'J' | ' ' | '!' | '\'' | '(' | ')' | ',' | '-' | '.' | '/' | ':'
        | ';' | '|' => 0.42,
        'm' | 'W' | '@' | '%' => 1.0,
        'w' | 'M' | 'A'..='Z' | '#' | '&' | '+' | '<' | '=' | '>' | '^' | '~' => 0.87,
        ' '..='~' => 0.64,
        '\u{a0}'..='\u{24f}' => 0.87,
        _ => 1.0,
    }
}

/// `text`, with its middle left out where `width` says that it takes more than `room`.
pub fn shortened(text: &str, room: f64, width: impl Fn(&str) -> f64) -> String {
    let mut short = text.to_string();
    let n = text.chars().count();
    for kept in (0..n).rev() {
        if width(&short) <= room {
            break;
        }
        let (start, end) = (kept.div_ceil(2), kept / 2);
        short = text.chars().take(start).chain(['…']).chain(text.chars().skip(n - end)).collect();
    }
    short
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// About `n` round numbers from 0 or `lo` to `hi`.
pub fn ticks(lo: f64, hi: f64, n: usize) -> Vec<f64> {
    let raw = (hi - lo).max(f64::MIN_POSITIVE) / n.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|s| s * power).find(|s| *s >= raw * 0.999).unwrap_or(raw);
    let first = (lo / step - 1e-9).ceil() as i64;
    let last = (hi / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let fine: Vec<String> = ticks(0.31, 0.9, 3).iter().map(|t| format!("{t:.6}")).collect();
        assert_eq!(fine, ["0.400000", "0.600000", "0.800000"]);
        assert!(ticks(1.0, 1.0, 4).len() <= 2);
    }

    #[test]
    fn what_is_too_long_loses_its_middle() {
        let width = |text: &str| text_width(text, 10.0);
        assert_eq!(shortened("short", 100.0, width), "short");
        // 0.64 of 10 for each letter, 10 for what is left out.
        assert_eq!(shortened("abcdeabcdeabcde", 42.0, width), "abc…de");
        assert_eq!(shortened("abcdeabcdeabcde", 0.0, width), "…");
    }

    #[test]
    fn text_cannot_break_the_picture() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text(0.0, 0.0, Anchor::Start, 9.0, INK, "a<b & c>d");
        svg.rect([0.0; 4], INK, INK, "<script>");
        let file = svg.finish();
        assert!(file.contains("a&lt;b &amp; c&gt;d") && file.contains("<title>&lt;script&gt;"));
    }
}
