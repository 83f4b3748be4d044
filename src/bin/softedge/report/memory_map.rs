//! The arena of a model over time: one rectangle per tensor, or several where its bytes are needed for
//! different times; time across, bytes up.

use super::svg::{Anchor, GRID, INK, MUTED, RULE, Svg, heading_width, shortened, text_width, ticks};
use crate::model_file::{ArenaMap, Block};
use crate::terminal::{bytes, dims};
use softedge::format::View;
use softedge::program::Kind;

/// What a tensor is made by, with its colour.
const FAMILIES: [(&str, &str); 7] = [
    ("input", "#b9c2cb"),
    ("convolution", "#8fb8de"),
    ("linear", "#9ccfb4"),
    ("attention", "#f2b880"),
    ("norm", "#c7b5e0"),
    ("residual and element-wise", "#ecd98b"),
    ("pooling and tokens", "#e8a9a6"),
];

fn family(writer: Option<(usize, Kind)>) -> (&'static str, &'static str) {
    let Some((_, kind)) = writer else { return FAMILIES[0] };
    let name = kind.name();
    let starts = |parts: &[&str]| parts.iter().any(|part| name.starts_with(part));
    FAMILIES[match () {
        () if starts(&["Input"]) => 0,
        () if starts(&["Conv", "Depthwise"]) => 1,
        () if starts(&["Linear"]) => 2,
        () if starts(&["Gram", "Inverse", "Kernel", "Accumulate", "Apply", "Product", "Softmax", "SymNorm"]) => 3,
        () if starts(&["LayerNorm", "BatchNorm", "Normalise"]) => 4,
        () if starts(&["AvgPool", "MaxPool", "Prepend", "Take", "Resize"]) => 6,
        () => 5,
    }]
}

const LEFT: f64 = 76.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 96.0;
const HEIGHT: f64 = 420.0;
/// Narrower columns have no room for the name of their op.
const NAMED: f64 = 11.0;

/// The picture.
pub fn draw(name: &str, view: View<'_>, map: &ArenaMap) -> String {
    let moments = map.live.len();
    let column = (1400.0 / moments as f64).clamp(1.0, 20.0).max(640.0 / moments as f64);
    let plot = column * moments as f64;
    let (peak, bound) = (map.size, map.lower_bound());
    let top = 1.06 * peak.max(1) as f64;
    let x = |moment: usize| LEFT + column * moment as f64;
    let y = |byte: usize| TOP + HEIGHT * (1.0 - byte as f64 / top);
    let alive = match bytes(bound) {
        least if bound == peak => format!("The arena takes {least}, the least there can be: so much is alive at once."),
        least => {
            format!("The arena takes {}; {least} are alive at once, and no plan takes less than that.", bytes(peak))
        }
    };
    let subtitle = format!("{} ops over {} tensors. {alive}", view.n_ops(), map.tensors);
    let room = plot.max(text_width(&subtitle, 12.0));
    let names = view.ops().enumerate().map(|(i, op)| text_width(&moment_name(i, op.kind), 9.5));
    let foot = if column < NAMED { 56.0 } else { names.fold(0.0, f64::max) + 28.0 };
    let mut svg = Svg::new(LEFT + room + RIGHT, TOP + HEIGHT + foot);
    let what = ": memory of one inference";
    let name = shortened(name, room, |name| heading_width(&format!("{name}{what}"), 17.0));
    svg.heading(LEFT, 32.0, 17.0, &format!("{name}{what}"));
    svg.text(LEFT, 52.0, Anchor::Start, 12.0, MUTED, &subtitle);
    legend(&mut svg, map, LEFT + room);

    for kib in ticks(0.0, top / 1024.0, 6) {
        let at = y((kib * 1024.0) as usize);
        svg.line([LEFT, at, LEFT + plot, at], GRID, 1.0, "");
        svg.text(LEFT - 8.0, at + 4.0, Anchor::End, 11.0, MUTED, &format!("{} KiB", (1e6 * kib).round() / 1e6));
    }
    for block in &map.blocks {
        draw_block(&mut svg, block, [x(block.life.start), x(block.life.end), y(block.place.end), y(block.place.start)]);
    }
    svg.line([LEFT, y(0), LEFT + plot, y(0)], MUTED, 1.0, "");
    svg.line([LEFT, y(peak), LEFT + plot, y(peak)], INK, 1.2, "");
    let (peak_is, bound_is) = (format!("peak {}", bytes(peak)), format!("lower bound {}", bytes(bound)));
    // Where there is no room between the two lines, one label is for both.
    let apart = y(bound) - y(peak) > 16.0;
    let label = match bound == peak {
        true => format!("peak = {bound_is}"),
        false if apart => peak_is,
        false => format!("{peak_is}, {bound_is}"),
    };
    svg.text(LEFT + plot, y(peak) - 5.0, Anchor::End, 11.0, INK, &label);
    if bound < peak {
        svg.line([LEFT, y(bound), LEFT + plot, y(bound)], "#c2410c", 1.2, "5 4");
    }
    if apart {
        svg.text(LEFT + plot, y(bound) - 5.0, Anchor::End, 11.0, "#c2410c", &bound_is);
    }
    name_moments(&mut svg, view, column);
    svg.finish()
}

/// What the colours mean, in lines that end before `right`.
fn legend(svg: &mut Svg, map: &ArenaMap, right: f64) {
    let (mut x, mut y) = (LEFT, 66.0);
    for (what, colour) in FAMILIES {
        if map.blocks.iter().any(|b| family(b.writer).0 == what) {
            let width = 17.0 + text_width(what, 11.5);
            if x + width > right {
                (x, y) = (LEFT, y + 17.0);
            }
            svg.rect([x, y, 11.0, 11.0], colour, RULE, "");
            svg.text(x + 17.0, y + 10.0, Anchor::Start, 11.5, INK, what);
            x += width + 18.0;
        }
    }
}

fn draw_block(svg: &mut Svg, block: &Block, [left, right, top, bottom]: [f64; 4]) {
    let maker = block.writer.map_or("input".into(), |(i, kind)| format!("op {i} {}", kind.name()));
    let what = format!("{} {}", dims(&block.shape), block.dtype.name());
    let size = bytes(block.place.len());
    let hover = format!(
        "{maker}\n{what}, {size}\nbytes {} to {}\nalive from moment {} to {}",
        block.place.start,
        block.place.end,
        block.life.start,
        block.life.end - 1
    );
    let (width, height) = (right - left, bottom - top);
    let fill = family(block.writer).1;
    // A border would hide what is narrow.
    svg.rect([left, top, width, height], fill, if width < 5.0 { fill } else { "#ffffff" }, &hover);
    let (middle, center) = ((left + right) / 2.0, (top + bottom) / 2.0);
    let short = block.writer.map_or("input", |(_, kind)| kind.name());
    let fits = |text: &str, room: f64, across: f64| text_width(text, 9.5) + 6.0 < room && across > 12.0;
    if fits(&what, width, height / 2.0) && fits(short, width, height / 2.0) {
        svg.text(middle, center - 2.0, Anchor::Middle, 9.5, INK, short);
        svg.text(middle, center + 9.5, Anchor::Middle, 9.5, INK, &what);
    } else if fits(short, width, height) {
        svg.text(middle, center + 3.5, Anchor::Middle, 9.5, INK, short);
    } else if fits(short, height, width) {
        svg.upward_text(middle + 3.5, center, Anchor::Middle, 9.5, INK, short);
    }
}

/// An op as it is named under its moment.
fn moment_name(i: usize, kind: Kind) -> String {
    format!("{} {i}", kind.name())
}

/// The ops under their moments: by name where there is room, else some numbers.
fn name_moments(svg: &mut Svg, view: View<'_>, column: f64) {
    let at = TOP + HEIGHT;
    let x = |moment: usize| LEFT + column * (moment as f64 + 0.5);
    if column >= NAMED {
        for (i, op) in view.ops().enumerate() {
            svg.upward_text(x(i + 1) + 3.5, at + 8.0, Anchor::End, 9.5, MUTED, &moment_name(i, op.kind));
        }
    } else {
        for op in ticks(0.0, view.n_ops() as f64, 12) {
            svg.line([x(op as usize + 1), at, x(op as usize + 1), at + 4.0], MUTED, 1.0, "");
            svg.text(x(op as usize + 1), at + 18.0, Anchor::Middle, 11.0, MUTED, &format!("{op}"));
        }
        svg.text(LEFT, at + 38.0, Anchor::Start, 11.5, MUTED, "op, in the order of execution");
    }
}
