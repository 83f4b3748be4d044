//! A `.soft` file on disk, and what can be read off it.

use softedge::engine::Buffer;
use softedge::error::HostError;
use softedge::format::View;
use softedge::ops::DType;
use softedge::program::{ALIGN, Kind, Space};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A checked `.soft` file of a model: no training step, one input, one output.
pub struct ModelFile {
    pub path: PathBuf,
    bytes: Buffer,
}

impl ModelFile {
    /// Reads and checks a file.
    pub fn open(path: &Path) -> Result<Self, HostError> {
        let fail = |problem: String, remedy: &str| HostError::new(path.display(), problem, remedy);
        if path.is_dir() {
            return Err(fail("is a folder where a .soft file is needed".into(), "name the file in it"));
        }
        let bytes = std::fs::read(path).map_err(|e| fail(format!("cannot be read: {e}"), "check the path"))?;
        Self::new(path, &bytes)
    }

    /// Checks the bytes of a file.
    pub fn new(path: &Path, bytes: &[u8]) -> Result<Self, HostError> {
        let fail = |problem: String, remedy: &str| HostError::new(path.display(), problem, remedy);
        let model = Self { path: path.into(), bytes: Buffer::copy_of(bytes) };
        let view = View::new_checked(model.bytes.bytes()).map_err(|e| fail(e.to_string(), ""))?;
        let training = [Space::Params, Space::Grads, Space::State].iter().any(|&space| view.size(space) > 0);
        if training || (view.n_inputs(), view.n_outputs()) != (1, 1) {
            return Err(fail(
                format!("a Program of {} inputs and {} outputs that is no model", view.n_inputs(), view.n_outputs()),
                "export a model with `softedge export`",
            ));
        }
        Ok(model)
    }

    /// The checked file.
    pub fn view(&self) -> View<'_> {
        View::new_checked(self.bytes.bytes()).expect("checked when it was opened")
    }

    /// Whether it computes in integers.
    pub fn is_integer(&self) -> bool {
        self.view().output(0).dtype != DType::F32
    }

    /// The name of a class: its label, or its number.
    pub fn class(&self, class: usize) -> String {
        self.view().label(class).map_or_else(|| class.to_string(), Into::into)
    }

    /// Height, width and channels of the input.
    pub fn input_shape(&self) -> Result<[usize; 3], HostError> {
        let input = self.view().input(0);
        match *input.shape() {
            [1, h, w, c] => Ok([h, w, c]),
            ref shape => Err(HostError::new(
                self.path.display(),
                format!("takes an input of {shape:?} where [1, height, width, channels] is needed"),
                "export it with `softedge export`",
            )),
        }
    }
}

/// A stay in the arena: of a tensor, or of the bytes of it that are needed for the same time.
pub struct Block {
    /// The op that writes it; `None` for the input.
    pub writer: Option<(usize, Kind)>,
    /// Moments it is alive: 0 is before the first op, op `i` is moment `i + 1`.
    pub life: Range<usize>,
    /// Bytes of the arena it takes.
    pub place: Range<usize>,
    /// Element type.
    pub dtype: DType,
    /// Dimensions of the tensor.
    pub shape: Vec<usize>,
}

/// Who lives where in the arena, when.
pub struct ArenaMap {
    /// All stays.
    pub blocks: Vec<Block>,
    /// Tensors that are written there.
    pub tensors: usize,
    /// Bytes alive at each moment.
    pub live: Vec<usize>,
    /// Bytes of the arena.
    pub size: usize,
}

/// Bytes at multiples of [`ALIGN`] that one tensor was written to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    tensor: usize,
    /// The moments of its write and of its last read.
    written: usize,
    read: usize,
}

/// The cells of an arena, and what was in them before: stretches of equal ones.
struct Cells {
    now: Vec<Option<Cell>>,
    past: Vec<(Cell, Range<usize>)>,
}

impl Cells {
    fn of(view: View<'_>, id: usize) -> Range<usize> {
        let t = view.tensor(id);
        let bytes = if t.space == Space::Arena { t.offset..t.offset + t.bytes() } else { 0..0 };
        bytes.start / ALIGN..bytes.end.div_ceil(ALIGN)
    }

    fn read(&mut self, cells: Range<usize>, moment: usize) {
        self.now[cells].iter_mut().flatten().for_each(|cell| cell.read = moment);
    }

    fn write(&mut self, cells: Range<usize>, new: Option<Cell>) {
        for i in cells {
            let Some(old) = std::mem::replace(&mut self.now[i], new) else { continue };
            match self.past.last_mut() {
                Some((cell, stretch)) if *cell == old && stretch.end == i => stretch.end += 1,
                _ => self.past.push((old, i..i + 1)),
            }
        }
    }
}

impl ArenaMap {
    /// Recovers from the ops which bytes are needed when. What an op overwrites in place ends where the op's
    /// output begins.
    pub fn new(view: View<'_>) -> Self {
        let size = view.size(Space::Arena);
        let mut cells = Cells { now: vec![None; size.div_ceil(ALIGN)], past: Vec::new() };
        let mut writers: Vec<Option<Option<(usize, Kind)>>> = vec![None; view.n_tensors()];
        let at = |tensor: usize, moment: usize| Some(Cell { tensor, written: moment, read: moment });
        for id in (0..view.n_inputs()).map(|i| view.input_id(i)) {
            cells.write(Cells::of(view, id), at(id, 0));
            writers[id] = Some(None);
        }
        for (i, op) in view.ops().enumerate() {
            let moment = i + 1;
            let output = op.operand(op.n_ins());
            for (operand, id) in (0..op.n_ins()).filter_map(|o| Some((o, op.operand(o)?))) {
                let place = Cells::of(view, id);
                let taken_over = operand == 0
                    && op.decode().signature().is_in_place()
                    && output.is_some_and(|output| Cells::of(view, output) == place);
                // What is taken over lives until the op, and in its output from then on.
                cells.read(place, moment - usize::from(taken_over));
            }
            for id in (op.n_ins()..op.n_ins() + op.n_outs()).filter_map(|o| op.operand(o)) {
                cells.write(Cells::of(view, id), at(id, moment));
                writers[id] = Some(Some((i, op.kind)));
            }
        }
        for id in (0..view.n_outputs()).map(|i| view.output_id(i)) {
            cells.read(Cells::of(view, id), view.n_ops() + 1);
        }
        cells.write(0..size.div_ceil(ALIGN), None);

        let mut stays = cells.past;
        stays.sort_unstable_by_key(|(cell, stretch)| (*cell, stretch.start));
        stays.dedup_by(|(cell, stretch), (before, whole)| {
            let joined = cell == before && stretch.start == whole.end;
            if joined {
                whole.end = stretch.end;
            }
            joined
        });
        let mut live = vec![0; view.n_ops() + 2];
        let mut blocks = Vec::new();
        for (Cell { tensor, written, read }, stretch) in stays {
            let (t, start) = (view.tensor(tensor), stretch.start * ALIGN);
            let place = start..(stretch.end * ALIGN).min(t.offset + t.bytes());
            live[written..=read].iter_mut().for_each(|bytes| *bytes += stretch.len() * ALIGN);
            let writer = writers[tensor].flatten();
            blocks.push(Block { writer, life: written..read + 1, place, dtype: t.dtype, shape: t.shape().into() });
        }
        let tensors = writers.iter().enumerate().filter(|(id, w)| w.is_some() && !Cells::of(view, *id).is_empty());
        Self { blocks, tensors: tensors.count(), live, size }
    }

    /// The largest sum of bytes alive together: no plan can need less.
    pub fn lower_bound(&self) -> usize {
        self.live.iter().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::list_presets::untrained;
    use softedge::format::write;
    use softedge::model::preset;
    use softedge::program::{Plan, in_strips};

    /// The planner knows the Program, the map only its file.
    #[test]
    fn a_map_finds_what_the_planner_knows_to_be_alive() {
        for name in ["fashion-nano", "fashion-micro-softmax", "watch-nano-depthwise", "camera-96", "camera-224"] {
            let program = in_strips(&untrained(&preset(name).unwrap()).unwrap());
            let plan = Plan::new(&program);
            let model = ModelFile::new(Path::new(name), &write(&program, &plan).unwrap()).unwrap();
            let map = ArenaMap::new(model.view());
            assert_eq!(map.lower_bound(), plan.lower_bound(), "{name}");
            let mut live = vec![0; map.live.len()];
            for block in &map.blocks {
                assert!(block.place.end <= map.size, "{name}");
                live[block.life.clone()].iter_mut().for_each(|l| *l += block.place.len().next_multiple_of(ALIGN));
            }
            assert_eq!(live, map.live, "{name}");
        }
    }
}
