//! A `.soft` file on disk, and what can be read off it.

use softedge::engine::Buffer;
use softedge::error::HostError;
use softedge::format::View;
use softedge::ops::DType;
use softedge::program::{Kind, Space};
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

/// A tensor's stay in the arena.
pub struct Block {
    /// The op that writes it; `None` for the input.
    pub writer: Option<(usize, Kind)>,
    /// Moments it is alive: 0 is before the first op, op `i` is moment `i + 1`.
    pub life: Range<usize>,
    /// Bytes of the arena it takes.
    pub place: Range<usize>,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
}

/// Who lives where in the arena, when.
pub struct ArenaMap {
    /// All tensors in the arena.
    pub blocks: Vec<Block>,
    /// Bytes alive at each moment.
    pub live: Vec<usize>,
    /// Bytes of the arena.
    pub size: usize,
}

impl ArenaMap {
    /// Recovers the lifetimes from the ops. A tensor that an op overwrites in place ends where the op's
    /// output begins.
    pub fn new(view: View<'_>) -> Self {
        let mut lives: Vec<Option<Range<usize>>> = vec![None; view.n_tensors()];
        let mut writers: Vec<Option<(usize, Kind)>> = vec![None; view.n_tensors()];
        let mut touch = |id: usize, moment: usize| {
            if view.tensor(id).space == Space::Arena {
                let life = lives[id].get_or_insert(moment..moment + 1);
                life.end = life.end.max(moment + 1);
            }
        };
        (0..view.n_inputs()).for_each(|i| touch(view.input_id(i), 0));
        for (i, op) in view.ops().enumerate() {
            for operand in 0..op.n_ins() + op.n_outs() {
                if let Some(id) = op.operand(operand) {
                    touch(id, i + 1);
                    if operand >= op.n_ins() && writers[id].is_none() {
                        writers[id] = Some((i, op.kind));
                    }
                }
            }
        }
        (0..view.n_outputs()).for_each(|i| touch(view.output_id(i), view.n_ops() + 1));
        for (i, op) in view.ops().enumerate() {
            let (Some(input), Some(output)) = (op.operand(0), op.operand(op.n_ins())) else { continue };
            let same_place = view.tensor(input).offset == view.tensor(output).offset;
            if let Some(life) = &mut lives[input]
                && op.decode().signature().is_in_place()
                && same_place
                && view.tensor(output).space == Space::Arena
                && life.end == i + 2
            {
                life.end = i + 1;
            }
        }
        let mut live = vec![0; view.n_ops() + 2];
        let mut blocks = Vec::new();
        for (id, life) in lives.into_iter().enumerate() {
            let Some(life) = life else { continue };
            let t = view.tensor(id);
            live[life.clone()].iter_mut().for_each(|bytes| *bytes += t.bytes());
            let place = t.offset..t.offset + t.bytes();
            blocks.push(Block { writer: writers[id], life, place, dtype: t.dtype, shape: t.shape().into() });
        }
        Self { blocks, live, size: view.size(Space::Arena) }
    }

    /// The largest sum of tensors alive together: no plan can need less.
    pub fn lower_bound(&self) -> usize {
        self.live.iter().copied().max().unwrap_or(0)
    }
}
