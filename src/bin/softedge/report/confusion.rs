//! The confusion matrix of a classifier, with counts.

use super::svg::{Anchor, INK, MUTED, Svg, heading_width, shortened, text_width};
use crate::terminal::percent;
use softedge::train::Evaluation;

/// More classes than this are drawn without counts.
const COUNTED: usize = 40;
/// Most room for the name of a class: 30 letters as a rule.
const NAME: f64 = 240.0;

/// The picture: a row for each true class, a column for each predicted one. Shades are parts of the
/// row.
pub fn draw(title: &str, evaluation: &Evaluation, classes: &[String]) -> String {
    let n = evaluation.classes();
    let cell = if n <= 12 { 46.0 } else { (560.0 / n as f64).max(2.0) };
    let (size, named) = (cell * n as f64, cell >= 9.0);
    let font = (0.26 * cell).clamp(7.0, 12.0);
    let name_font = font.max(9.0);
    let names: Vec<String> = classes.iter().map(|c| shortened(c, NAME, |text| text_width(text, name_font))).collect();
    let widest = names.iter().map(|name| text_width(name, name_font)).fold(40.0, f64::max);
    let (left, top) = (widest + 52.0, widest + 84.0);
    let recall = 64.0;
    let subtitle = format!(
        "{} of {} correct: {}. Rows are the true classes, columns what was predicted.",
        evaluation.correct(),
        evaluation.samples(),
        percent(evaluation.accuracy())
    );
    let width = (left + size + recall).max(24.0 + text_width(&subtitle, 12.0)) + 24.0;
    let mut svg = Svg::new(width, top + size + 28.0);
    svg.heading(24.0, 32.0, 17.0, &shortened(title, width - 48.0, |text| heading_width(text, 17.0)));
    svg.text(24.0, 52.0, Anchor::Start, 12.0, MUTED, &subtitle);
    let name = |i: usize| classes.get(i).map_or("", String::as_str);
    for label in 0..n {
        let row = evaluation.confusion(label);
        let all = row.iter().sum::<u64>().max(1) as f64;
        let y = top + cell * label as f64;
        for (predicted, &count) in row.iter().enumerate() {
            let x = left + cell * predicted as f64;
            let part = count as f64 / all;
            let hover = format!("{} taken for {}: {count} ({})", name(label), name(predicted), percent(part));
            let fill = shade(part, label == predicted);
            // A border would hide what is small.
            svg.rect([x, y, cell, cell], &fill, if named { "#ffffff" } else { &fill }, &hover);
            if count > 0 && n <= COUNTED {
                let ink = if part > 0.3 { "#ffffff" } else { INK };
                svg.text(x + cell / 2.0, y + cell / 2.0 + 0.36 * font, Anchor::Middle, font, ink, &count.to_string());
            }
        }
        if named {
            let middle = y + cell / 2.0 + 0.36 * font;
            let shown = names.get(label).map_or("", String::as_str);
            svg.text(left - 8.0, middle, Anchor::End, name_font, INK, shown);
            let x = left + cell * (label as f64 + 0.5) + 0.36 * font;
            svg.upward_text(x, top - 8.0, Anchor::Start, name_font, INK, shown);
            if let Some(recall) = evaluation.recall(label) {
                svg.text(left + size + 10.0, middle, Anchor::Start, name_font, MUTED, &percent(recall));
            }
        }
    }
    if named {
        svg.text(left + size + 10.0, top - 8.0, Anchor::Start, name_font, MUTED, "recall");
    }
    svg.finish()
}

/// White to blue on the diagonal, white to red beside it.
fn shade(part: f64, right: bool) -> String {
    let full = if right { [29.0, 91.0, 158.0] } else { [190.0, 58.0, 32.0] };
    // Rare confusions must be seen: the root lifts small parts.
    let strength = part.clamp(0.0, 1.0).sqrt();
    let mix = full.map(|c| (246.0 + (c - 246.0) * strength).round() as u8);
    format!("#{:02x}{:02x}{:02x}", mix[0], mix[1], mix[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_fit_beside_few_classes_and_cells_show_among_many() {
        let picture = draw("a model with a name", &Evaluation::new(2), &["a".into(), "b".into()]);
        let width = picture.split_once("width=\"").unwrap().1.split_once('"').unwrap().0;
        let words = picture.lines().find(|line| line.contains("Rows are")).unwrap();
        let words = words.split_once('>').unwrap().1.split_once('<').unwrap().0;
        assert!(width.parse::<f64>().unwrap() > 24.0 + text_width(words, 12.0), "{width}");
        let long = "W".repeat(60);
        let picture = draw(&long, &Evaluation::new(2), &[long.clone(), "b".into()]);
        let shown = |line: &&str| line.starts_with("<text") && line.contains('W');
        assert_eq!(picture.lines().filter(shown).count(), 3);
        assert!(!picture.lines().filter(shown).any(|line| line.contains(&long)) && picture.contains(&long));
        assert!(!draw("many", &Evaluation::new(300), &[]).contains("stroke=\"#ffffff\""));
    }
}
