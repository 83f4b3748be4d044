//! Programs run as everywhere: planned, verified, written, checked, executed.

use crate::vectors;
use softedge::engine::{Buffer, Every, Executor, Memory, elements, elements_mut};
use softedge::format::{OpRecord, View, safetensors, write};
use softedge::ops::{DType, Tick, linear::Linear};
use softedge::program::{ParamLayout, Plan, Program, Role, Space, TensorId, differentiate, verify};
use std::collections::BTreeMap;

/// A written Program and its memory.
pub struct Session {
    pub program: Program,
    file: Buffer,
    layout: ParamLayout,
    banks: BTreeMap<Space, Buffer>,
}

const BANKS: [Space; 4] = [Space::Arena, Space::Params, Space::Grads, Space::State];

impl Session {
    pub fn new(program: Program) -> Self {
        let plan = Plan::new(&program);
        verify(&program, &plan).unwrap();
        let file = Buffer::copy_of(&write(&program, &plan).unwrap());
        let view = View::new_checked(file.bytes()).unwrap();
        // Gradients have the places of the parameters, those that nothing writes too.
        let size = |space| view.size(if space == Space::Grads { Space::Params } else { space });
        let banks = BANKS.map(|space| (space, Buffer::zeroed(size(space)))).into();
        Self { layout: ParamLayout::new(&program), program, file, banks }
    }

    fn bank(&self, id: TensorId) -> (&Buffer, usize) {
        let t = self.program.tensor(id);
        let space = match t.role {
            Role::GradOf(_) => Space::Grads,
            _ => Space::Params,
        };
        let of = if let Role::GradOf(of) = t.role { of } else { id };
        (&self.banks[&space], self.layout.offset(of) / 4)
    }

    /// A parameter or statistic, or the gradient of one.
    pub fn get(&self, id: TensorId) -> &[f32] {
        let (bank, at) = self.bank(id);
        &bank.elements()[at..][..self.program.tensor(id).len()]
    }

    pub fn set(&mut self, id: TensorId, values: &[f32]) {
        let at = self.layout.offset(id) / 4;
        let params = self.banks.get_mut(&Space::Params).unwrap();
        params.elements_mut()[at..][..values.len()].copy_from_slice(values);
    }

    fn variables(&self) -> Vec<TensorId> {
        let kept = |id: &TensorId| matches!(self.program.tensor(*id).role, Role::Param { .. } | Role::Statistic);
        (0..self.program.tensors.len()).map(|i| TensorId(i as u16)).filter(kept).collect()
    }

    /// A checkpoint of the parameters and statistics, or of what lies at their places in `space`, as
    /// PyTorch would have it: shapes and values by name.
    pub fn checkpoint(&self, space: Space) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let values: BTreeMap<&str, &[f32]> = self
            .variables()
            .into_iter()
            .map(|id| {
                let (t, at) = (self.program.tensor(id), self.layout.offset(id) / 4);
                (t.name.as_str(), &self.banks[&space].elements()[at..][..t.len()])
            })
            .collect();
        let bytes = safetensors::write(&self.program, |name| values.get(name).copied()).unwrap();
        let file = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        file.iter()
            .map(|(name, view)| {
                let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                (name.to_owned(), (view.shape().to_owned(), values))
            })
            .collect()
    }

    /// Sets parameters and statistics by the formula, `prefix` before their names, through a
    /// checkpoint in PyTorch's layout.
    pub fn initialise(&mut self, prefix: &str) {
        let mut checkpoint = BTreeMap::new();
        for (name, (shape, _)) in self.checkpoint(Space::Params) {
            let bytes: Vec<u8> =
                vectors::parameter(&format!("{prefix}{name}"), &shape).into_iter().flat_map(f32::to_le_bytes).collect();
            checkpoint.insert(name, (shape, bytes));
        }
        let views = checkpoint.iter().map(|(name, (shape, bytes))| {
            (
                name.as_str(),
                ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        });
        let file = ::safetensors::serialize(views, None).unwrap();
        for (name, values) in safetensors::read(&self.program, &file).unwrap() {
            self.set(self.program.find(&name).unwrap(), &values);
        }
    }

    /// Runs everything on `inputs` and gives the tensors to `keep`; `watch` sees every op after it ran.
    pub fn run(
        &mut self,
        inputs: &[(TensorId, &[f32])],
        keep: &[TensorId],
        mut watch: impl FnMut(&OpRecord<'_>, &mut Executor<'_>),
    ) -> BTreeMap<TensorId, Vec<f32>> {
        let view = View::new_checked(self.file.bytes()).unwrap();
        let mut banks: Vec<(Space, &mut [u8])> = self.banks.iter_mut().map(|(s, b)| (*s, b.bytes_mut())).collect();
        let arena = banks.remove(0).1;
        let memory = banks.into_iter().fold(Memory::new(arena), |memory, (space, bytes)| memory.with(space, bytes));
        let mut executor = Executor::<Every>::new(view, memory).unwrap();
        for (id, values) in inputs {
            elements_mut(executor.tensor_mut(id.index()).unwrap()).copy_from_slice(values);
        }
        let mut kept = BTreeMap::new();
        executor.run_watched(0..view.n_ops(), &Tick::default(), |_, record, executor| {
            watch(record, executor);
            for out in (0..record.n_outs()).filter_map(|i| record.operand(record.n_ins() + i)) {
                let id = TensorId(out as u16);
                if keep.contains(&id) {
                    kept.insert(id, elements::<f32>(executor.tensor(out)).to_vec());
                }
            }
            true
        });
        kept
    }
}

/// Appends `sum(out * R)`, where `R` is the Program's input, and its gradient; gives `R` and the
/// gradients by parameter.
pub fn append_gradient(program: &mut Program, out: TensorId) -> (TensorId, BTreeMap<TensorId, TensorId>) {
    let k = program.tensor(out).len();
    let r = program.add("R", DType::F32, &[k], Role::Activation);
    let loss = program.apply("loss", Linear { rows: 1, k, n: 1 }, &[Some(out), Some(r), None], &[1]);
    program.inputs = vec![r];
    program.outputs = vec![loss];
    (r, differentiate(program, loss).gradients.into_iter().collect())
}

/// `values` of the dimensions `dims`, with the axes in another order.
pub fn permuted<const N: usize>(values: &[f32], dims: [usize; N], order: [usize; N]) -> Vec<f32> {
    let strides: Vec<usize> = (0..N).map(|axis| dims[axis + 1..].iter().product()).collect();
    (0..values.len())
        .map(|mut flat| {
            let mut at = 0;
            for &axis in order.iter().rev() {
                at += flat % dims[axis] * strides[axis];
                flat /= dims[axis];
            }
            values[at]
        })
        .collect()
}
