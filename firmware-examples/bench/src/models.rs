//! Whole models, op by op.

use crate::cores::{Core, Counts, Workshop};
use bench::{MODEL_MEMORY, data};
use serde_json::{Value, json};
use softedge::engine::{Buffer, Executor, Integers, Loaded, Memory};
use softedge::format::{OpRecord, View, write};
use softedge::model::{Mode, Raw, build, preset};
use softedge::ops::{DType, Tick, Width};
use softedge::program::{Kind, OpSet, Plan, Space, in_strips};
use softedge::quant::{Bounds, calibrate, freeze, quantise};
use softedge::train::{self, Trainer};
use std::fs;
use std::path::Path;

/// A model's file, one input, and what the host computes from it.
pub struct Model {
    pub name: String,
    pub ops: Vec<ModelOp>,
    file: Buffer,
    input: Vec<u8>,
    scores: Vec<u8>,
}

/// What the steps of a run took.
pub struct Steps {
    /// Rows of a step.
    pub rows: u32,
    pub n: usize,
    /// The index of the op that the longest belongs to.
    pub op: usize,
    /// Instructions of the longest.
    pub longest: u64,
    /// Instructions of all.
    pub instructions: u64,
}

impl Steps {
    /// For a program to read.
    fn json(&self, core: &Core, model: &Model) -> Value {
        let Self { rows, n, op, longest, instructions } = *self;
        let op = model.ops[op].kind.name();
        json!({ "core": core.name, "rows": rows, "steps": n, "op": op, "longest": longest, "instructions": instructions })
    }
}

/// An op of a model.
pub struct ModelOp {
    pub kind: Kind,
    pub macs: u64,
    /// Dimensions of its output.
    pub output: String,
}

impl ModelOp {
    fn new(view: View<'_>, op: OpRecord<'_>) -> Self {
        let output = op.operand(op.n_ins()).map_or(String::new(), |id| {
            let tensor = view.tensor(id);
            let dims: Vec<_> = tensor.shape().iter().map(ToString::to_string).collect();
            format!("{} {}", dims.join("x"), tensor.dtype.name())
        });
        Self { kind: op.kind, macs: op.decode().macs(), output }
    }
}

/// Says why the boards cannot run a Program.
fn runs_on_boards(view: View<'_>) -> Result<(), String> {
    if let Some(op) = view.ops().find(|op| !OpSet::INTEGERS.contains(op.kind)) {
        return Err(format!("has the op {}, which is none of integers: quantise the model", op.kind.name()));
    }
    let (inputs, outputs) = (view.n_inputs(), view.n_outputs());
    if (inputs, outputs) != (1, 1) {
        return Err(format!("has {inputs} inputs and {outputs} outputs where a model has one of each"));
    }
    let needed = view.bytes().len().next_multiple_of(16) + view.size(Space::Arena);
    if needed > MODEL_MEMORY {
        return Err(format!("file and arena take {needed} bytes, the emulated boards have {MODEL_MEMORY} for them"));
    }
    Ok(())
}

/// Names of the presets that fit microcontrollers.
pub fn presets() -> impl Iterator<Item = &'static str> {
    softedge::model::PRESETS.iter().copied().filter(|name| !name.starts_with("soft_"))
}

/// Raw input without meaning: pixels of all values, sensor samples from -1024 to 1023.
fn noise(seed: u32, dtype: DType) -> Box<dyn Iterator<Item = i16>> {
    match dtype {
        DType::U8 => Box::new(data::i8s(seed).map(|x| i16::from(x as u8))),
        _ => Box::new(data::i16s(seed).map(|x| x >> 5)),
    }
}

impl Model {
    /// The model in a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let place = path.display().to_string();
        let bytes = fs::read(path).map_err(|e| format!("{place}: {e}"))?;
        Self::new(place.clone(), &bytes).map_err(|e| format!("{place}: {e}"))
    }

    /// The model of a preset, with the weights that its training starts from: what they are changes no count
    /// by much.
    pub fn of_preset(name: &str) -> Result<Self, String> {
        let bytes = quantised(name).map_err(|e| format!("{name}: {e}"))?;
        Self::new(name.into(), &bytes).map_err(|e| format!("{name}: {e}"))
    }

    fn new(name: String, bytes: &[u8]) -> Result<Self, String> {
        let file = Buffer::copy_of(bytes);
        let view = View::new_checked(file.bytes()).map_err(|e| e.to_string())?;
        runs_on_boards(view)?;
        let mut arena = Buffer::zeroed(view.size(Space::Arena));
        let memory = Memory::new(arena.bytes_mut());
        let mut executor: Executor<'_, Integers> = Executor::new(view, memory).map_err(|e| e.to_string())?;
        let raw = view.input(0);
        let bytes_of = |x: i16| x.to_le_bytes().into_iter().take(raw.dtype.size());
        let input: Vec<u8> = noise(1, raw.dtype).take(raw.len()).flat_map(bytes_of).collect();
        executor.tensor_mut(view.input_id(0)).ok_or("its input is a constant")?.copy_from_slice(&input);
        executor.run(&Tick::default());
        let scores = executor.tensor(view.output_id(0)).to_vec();
        let ops = view.ops().map(|op| ModelOp::new(view, op)).collect();
        Ok(Self { name, ops, file, input, scores })
    }

    /// Counts of every op on a core, whose firmware is `image`; an error if the scores are not the host's.
    pub fn measure(&self, workshop: &Workshop, core: &Core, image: &Path) -> Result<Vec<Counts>, String> {
        let file = self.file.bytes();
        let input = [&(file.len() as u32).to_le_bytes(), file, &self.input].concat();
        let mut run = workshop.run(core, image, &self.stem(), &input)?;
        if run.output != self.scores {
            return Err(format!("{}: the scores of {} are not the host's", core.title, self.name));
        }
        // The last region is the end of the loop over the ops.
        let n_regions = run.regions.len();
        if n_regions != self.ops.len() + 1 {
            return Err(format!("{}: {n_regions} counts of {} ops", core.title, self.ops.len()));
        }
        run.regions.pop();
        Ok(run.regions)
    }

    /// What steps of `rows` rows take on a core, whose firmware is `image`; an error if the scores are not the
    /// host's.
    pub fn measure_steps(&self, workshop: &Workshop, core: &Core, image: &Path, rows: u32) -> Result<Steps, String> {
        let failed = |e: softedge::Error| format!("{}: {e}", self.name);
        let mut arena = Buffer::zeroed(View::new_checked(self.file.bytes()).map_err(failed)?.size(Space::Arena));
        let mut model = Loaded::<Integers>::new(self.file.bytes(), arena.bytes_mut()).map_err(failed)?;
        // Which op a step belongs to does not depend on the input.
        let mut steps = model.start::<i16>().map_err(failed)?;
        let mut ops = Vec::new();
        while steps.ops_left() > 0 {
            ops.push(self.ops.len() - steps.ops_left());
            steps.step(rows as usize);
        }
        let file = self.file.bytes();
        let input = [&(file.len() as u32).to_le_bytes(), &rows.to_le_bytes()[..], file, &self.input].concat();
        let run = workshop.run(core, image, &format!("{}-steps", self.stem()), &input)?;
        if run.output != self.scores {
            return Err(format!("{}: the scores of {} in steps are not the host's", core.title, self.name));
        }
        if run.regions.len() != ops.len() {
            return Err(format!("{}: {} counts of {} steps", core.title, run.regions.len(), ops.len()));
        }
        let counts = || run.regions.iter().map(|region| region.instructions);
        let (op, longest) = ops.iter().copied().zip(counts()).rev().max_by_key(|step| step.1).unwrap_or_default();
        Ok(Steps { rows, n: ops.len(), op, longest, instructions: counts().sum() })
    }

    /// Its name in the name of a file.
    fn stem(&self) -> String {
        Path::new(&self.name).file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// For a program to read.
    pub fn json(&self, cores: &[&Core], counts: &[Vec<Counts>], steps: &[Vec<Steps>]) -> Value {
        let op = |(i, op): (usize, &ModelOp)| {
            let counts: serde_json::Map<_, _> =
                cores.iter().zip(counts).map(|(core, counts)| (core.name.into(), json!(counts[i]))).collect();
            json!({ "kind": op.kind.name(), "output": op.output, "macs": op.macs, "counts": counts })
        };
        let ops: Vec<_> = self.ops.iter().enumerate().map(op).collect();
        let steps = cores.iter().zip(steps).flat_map(|(core, steps)| steps.iter().map(|steps| steps.json(core, self)));
        let steps: Vec<_> = steps.collect();
        json!({ "model": self.name, "ops": ops, "steps": steps })
    }
}

/// The file of a preset's integer model.
fn quantised(name: &str) -> Result<Vec<u8>, softedge::error::HostError> {
    let config = preset(name).expect("clap knows the presets");
    let raw = if config.input.raw == Raw::U8 { DType::U8 } else { DType::I16 };
    let checkpoint = Trainer::new(&config, train::Config::default())?.checkpoint();
    let program = build(&config, Mode::Infer { batch: 1 })?.program;
    let frozen = freeze(&program, |name| checkpoint.weights(name).map(|w| &w.values[..]))?;
    let fill = |i: usize, x: &mut [f32]| {
        x.iter_mut().zip(noise(i as u32 + 1, raw)).for_each(|(x, raw)| *x = f32::from(raw));
    };
    let calibration = calibrate(&frozen, 8, fill, Bounds::MinMax)?;
    let integer = in_strips(&quantise(&frozen, &calibration, raw, Width::Int8)?);
    write(&integer, &Plan::new(&integer))
}
