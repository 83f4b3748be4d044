//! Loss and accuracy over the epochs of a run.

use super::svg::{Anchor, GRID, INK, MUTED, Svg, heading_width, shortened, ticks};
use crate::terminal::percent;
use softedge::train::History;

const TRAINING: &str = "#9aa5b1";
const VALIDATION: &str = "#2563a8";

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 92.0;
const GAP: f64 = 92.0;

/// The picture: two panels, training and validation in each.
pub fn draw(name: &str, history: &History) -> String {
    let mut svg = Svg::new(LEFT + 2.0 * WIDTH + GAP + 32.0, TOP + HEIGHT + 56.0);
    svg.heading(LEFT, 32.0, 17.0, &shortened(name, 2.0 * WIDTH + GAP, |text| heading_width(text, 17.0)));
    let best = history.epochs.iter().filter_map(|e| Some((e.validation_accuracy?, e.epoch)));
    let best =
        best.fold(None, |best: Option<(f64, usize)>, e| if best.is_none_or(|b| e.0 > b.0) { Some(e) } else { best });
    let subtitle = match best {
        Some((accuracy, epoch)) => {
            format!("{} epochs. Best validation accuracy {} in epoch {epoch}.", history.epochs.len(), percent(accuracy))
        }
        None => format!("{} epochs, none evaluated.", history.epochs.len()),
    };
    let subtitle = subtitle + " Training is measured as it learns, with augmentation and label smoothing.";
    svg.text(LEFT, 52.0, Anchor::Start, 12.0, MUTED, &subtitle);
    let points = |value: &dyn Fn(&softedge::train::Epoch) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = history.epochs.iter().filter_map(|e| Some((e.epoch as f64, value(e)?)));
        points.filter(|p| p.1.is_finite()).collect()
    };
    let last = history.epochs.last().map_or(1, |e| e.epoch).max(2) as f64;
    let loss = [points(&|e| Some(e.loss)), points(&|e| e.validation_loss)];
    panel(&mut svg, LEFT, "loss", last, &loss, "");
    let accuracy = [points(&|e| Some(100.0 * e.accuracy)), points(&|e| e.validation_accuracy.map(|a| 100.0 * a))];
    panel(&mut svg, LEFT + WIDTH + GAP, "accuracy", last, &accuracy, " %");
    svg.finish()
}

/// A panel with one line for training and one for validation.
fn panel(svg: &mut Svg, left: f64, title: &str, last: f64, lines: &[Vec<(f64, f64)>; 2], unit: &str) {
    let values = || lines.iter().flatten().map(|p| p.1);
    let (lo, hi) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let (lo, hi) = if lo <= hi { (lo, hi) } else { (0.0, 1.0) };
    let room = 0.06 * (hi - lo).max(1e-3 * hi.abs()).max(1e-9);
    let (lo, hi) = (lo - room, hi + room);
    let x = |epoch: f64| left + WIDTH * (epoch - 1.0) / (last - 1.0);
    let y = |value: f64| TOP + HEIGHT * (hi - value) / (hi - lo);
    svg.text(left, TOP - 12.0, Anchor::Start, 13.0, INK, title);
    let values = ticks(lo, hi, 5);
    let step = values.windows(2).map(|w| w[1] - w[0]).next().unwrap_or(1.0);
    let whole = |v: f64| (v - v.round()).abs() < 1e-6;
    let decimals = (0..6).find(|&d| whole(step * 10f64.powi(d))).unwrap_or(6) as usize;
    for value in values {
        svg.line([left, y(value), left + WIDTH, y(value)], GRID, 1.0, "");
        svg.text(left - 8.0, y(value) + 4.0, Anchor::End, 11.0, MUTED, &format!("{value:.decimals$}{unit}"));
    }
    svg.line([left, TOP + HEIGHT, left + WIDTH, TOP + HEIGHT], MUTED, 1.0, "");
    for epoch in ticks(1.0, last, 6).into_iter().filter(|e| e.fract() == 0.0 && *e >= 1.0) {
        svg.text(x(epoch), TOP + HEIGHT + 18.0, Anchor::Middle, 11.0, MUTED, &format!("{epoch}"));
    }
    svg.text(left + WIDTH / 2.0, TOP + HEIGHT + 38.0, Anchor::Middle, 11.5, MUTED, "epoch");
    let mut key = left + WIDTH;
    for (points, (name, colour)) in lines
        .iter()
        .zip([("training", TRAINING), ("validation", VALIDATION)])
        .rev()
        .filter(|(points, _)| !points.is_empty())
    {
        let path: Vec<(f64, f64)> = points.iter().map(|&(epoch, value)| (x(epoch), y(value))).collect();
        svg.path(&path, colour);
        for (&(epoch, value), &(px, py)) in points.iter().zip(&path) {
            svg.dot(px, py, 2.6, colour, &format!("{name}, epoch {epoch}: {value:.3}{unit}"));
        }
        svg.text(key, TOP - 12.0, Anchor::End, 11.5, colour, name);
        key -= 74.0;
    }
}
