//! What quantisation did: per tensor its range, scale and signal-to-noise ratio against f32, and for
//! each inverse its residual.

use super::calibrate::{Calibration, watch};
use crate::engine::{Buffer, Executor, Memory, elements, elements_mut};
use crate::error::HostError;
use crate::format::{self, View};
use crate::ops::{DType, Tick};
use crate::program::{Kind, Op, Plan, Program, Space, TensorId};
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// One activation, f32 beside integer.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Its integer type.
    pub dtype: DType,
    /// Smallest and largest f32 value seen in calibration.
    pub range: (f32, f32),
    /// Real value of one quantum.
    pub scale: f32,
    /// Integer that stands for zero.
    pub zero: i32,
    /// Signal-to-noise ratio against f32 in dB: the power of the f32 values over that of the
    /// difference.
    pub snr_db: f64,
}

/// One inverse of landmark kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct InverseReport {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Largest `|(A + ridge I) V - I|` (Frobenius, over sqrt(m)) of the f32 inverse. Newton's
    /// iteration has not converged where this is not small: it then regularises.
    pub residual_f32: f64,
    /// The same of the integer inverse, or where it is applied by its factors, of the inverse of these.
    pub residual_integer: f64,
}

/// The report of a quantised model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Activations, in the order of execution.
    pub tensors: Vec<TensorReport>,
    /// Inverses, in the order of execution.
    pub inverses: Vec<InverseReport>,
}

fn failed(e: crate::Error) -> HostError {
    HostError::new("quantised model", e.to_string(), "")
}

/// Runs `frozen` and `integer` side by side on `samples` raw inputs: `fill` writes one as f32, and
/// its integers are the same numbers in the integer model's raw type.
///
/// # Errors
/// If one of the two is not a Program that can run.
pub fn report(
    frozen: &Program,
    calibration: &Calibration,
    integer: &Program,
    samples: usize,
    mut fill: impl FnMut(usize, &mut [f32]),
) -> Result<Report, HostError> {
    let file = Buffer::copy_of(&format::write(integer, &Plan::new(integer))?);
    let view = View::new_checked(file.bytes()).map_err(failed)?;
    let mut arena = Buffer::zeroed(view.size(Space::Arena));
    let mut executor: Executor<'_> = Executor::new(view, Memory::new(arena.bytes_mut())).map_err(failed)?;

    let reference = Buffer::copy_of(&format::write(frozen, &Plan::new(frozen))?);

    let mut power = vec![(0.0f64, 0.0f64); integer.tensors.len()];
    let mut report = Report::default();
    let mut inverses: Vec<InverseReport> = Vec::new();
    let twins: Vec<Option<TensorId>> = integer.tensors.iter().map(|t| frozen.find(&t.name)).collect();
    for sample in 0..samples {
        let mut truth: Vec<Vec<f32>> = vec![Vec::new(); frozen.tensors.len()];
        watch(&reference, 1, &mut |_, raw: &mut [f32]| fill(sample, raw), |_, id, values| {
            truth[id] = values.to_vec();
            Ok(())
        })?;
        let raw = &truth[frozen.inputs[0].index()];
        write_raw(view.input(0).dtype, raw, executor.tensor_mut(view.input_id(0)).unwrap_or_default());

        let (mut which, mut kernel) = (0, Vec::new());
        executor.run_watched(0..view.n_ops(), &Tick::default(), |_, record, executor| {
            let Some(id) = record.operand(record.n_ins()) else { return true };
            let t = view.tensor(id);
            let got = dequantised(t.dtype, executor.tensor(id), f64::from(t.scale), t.zero);
            let (got, factors) = match record.decode() {
                Op::GramTriangleI8(s) => (symmetric(s.m, &got), None),
                Op::FactorQ26(s) => (Vec::new(), Some((s.m, got))),
                _ => (got, None),
            };
            // A product has an exponent per column: its integers alone do not give its values.
            let alone = record.kind != Kind::ProductQ22;
            if let Some(twin) = twins[id].filter(|twin| alone && truth[twin.index()].len() == got.len()) {
                for (g, w) in got.iter().zip(&truth[twin.index()]) {
                    power[id].0 += f64::from(*w).powi(2);
                    power[id].1 += (g - f64::from(*w)).powi(2);
                }
            }
            let inverts = factors.is_some() || record.kind.name().starts_with("Inverse");
            if let (true, Some(a), Some(twin)) = (inverts, record.operand(0), twins[id]) {
                let node = frozen.nodes.iter().find(|n| n.outs[0] == Some(twin)).expect("an op writes it");
                let a_f32 = &truth[node.ins[0].expect("a").index()];
                let ridge = match node.op {
                    Op::InverseNewton(s) => s.ridge,
                    Op::InverseLdlt(s) => s.ridge,
                    _ => 0.0,
                };
                let m = *frozen.tensor(twin).shape.last().expect("a matrix");
                let a_record = view.tensor(a);
                let (a_int, got) = match &factors {
                    // In place: the kernel is the one that was written before.
                    Some((m, factors)) => (core::mem::take(&mut kernel), inverse_of(*m, factors)),
                    None => {
                        (dequantised(a_record.dtype, executor.tensor(a), f64::from(a_record.scale), 0), got.clone())
                    }
                };
                let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
                let f32_residual = residual(&wide(a_f32), &wide(&truth[twin.index()]), m, f64::from(ridge));
                let integer_residual = residual(&a_int, &got, m, f64::from(ridge));
                if inverses.len() == which {
                    let name = integer.tensors[id].name.clone();
                    inverses.push(InverseReport { name, kind: record.kind, residual_f32: 0.0, residual_integer: 0.0 });
                }
                let worst = &mut inverses[which];
                worst.residual_f32 = worst.residual_f32.max(f32_residual);
                worst.residual_integer = worst.residual_integer.max(integer_residual);
                which += 1;
            }
            if record.kind == Kind::GramTriangleI8 {
                kernel = got;
            }
            true
        });
    }
    for (i, t) in integer.tensors.iter().enumerate() {
        let (signal, noise) = power[i];
        if signal > 0.0
            && let Some(seen) = twins[i].and_then(|twin| calibration.of(twin))
        {
            report.tensors.push(TensorReport {
                name: t.name.clone(),
                dtype: t.dtype,
                range: (seen.min, seen.max),
                scale: t.scale,
                zero: t.zero,
                snr_db: 10.0 * (signal / noise.max(1e-30)).log10(),
            });
        }
    }
    report.inverses = inverses;
    Ok(report)
}

/// Writes raw values, which are whole numbers, in the raw type of a model.
pub(super) fn write_raw(dtype: DType, raw: &[f32], bytes: &mut [u8]) {
    match dtype {
        DType::U8 => bytes.iter_mut().zip(raw).for_each(|(b, v)| *b = *v as u8),
        DType::I16 => elements_mut::<i16>(bytes).iter_mut().zip(raw).for_each(|(b, v)| *b = *v as i16),
        _ => elements_mut::<f32>(bytes).copy_from_slice(raw),
    }
}

fn dequantised(dtype: DType, bytes: &[u8], scale: f64, zero: i32) -> Vec<f64> {
    let real = |q: f64| (q - f64::from(zero)) * scale;
    match dtype {
        DType::I8 => elements::<i8>(bytes).iter().map(|q| real(f64::from(*q))).collect(),
        DType::I16 => elements::<i16>(bytes).iter().map(|q| real(f64::from(*q))).collect(),
        DType::I32 => elements::<i32>(bytes).iter().map(|q| real(f64::from(*q))).collect(),
        DType::U8 => bytes.iter().map(|q| real(f64::from(*q))).collect(),
        DType::F32 => elements::<f32>(bytes).iter().map(|q| f64::from(*q)).collect(),
    }
}

/// The matrices whose lower triangles these are.
fn symmetric(m: usize, triangles: &[f64]) -> Vec<f64> {
    let at = |i: usize, j: usize| i.max(j) * (i.max(j) + 1) / 2 + i.min(j);
    let matrix = |lower: &[f64]| (0..m * m).map(|k| lower[at(k / m, k % m)]).collect::<Vec<f64>>();
    triangles.chunks_exact(m * (m + 1) / 2).flat_map(matrix).collect()
}

/// The inverses of the matrices with these factors, which [`FactorQ26`](crate::ops::solve::FactorQ26) made: they
/// were scaled as `L` is, in Q26, and the reciprocals of `D` are in Q22.
fn inverse_of(m: usize, factors: &[f64]) -> Vec<f64> {
    let mut inverses = Vec::new();
    for f in factors.chunks_exact(m * (m + 1) / 2) {
        let row = |i: usize| &f[i * (i + 1) / 2..][..=i];
        let mut inverse = vec![0.0; m * m];
        for (column, x) in inverse.chunks_exact_mut(m).enumerate() {
            x[column] = 1.0;
            for i in 0..m {
                let sum: f64 = row(i)[..i].iter().zip(&*x).map(|(l, y)| l * y).sum();
                x[i] -= sum;
            }
            for i in (0..m).rev() {
                let sum: f64 = (i + 1..m).map(|k| row(k)[i] * x[k]).sum();
                x[i] = x[i] * row(i)[i] * 16.0 - sum;
            }
        }
        inverses.extend(inverse);
    }
    inverses
}

/// Largest `|(A + ridge I) V - I|_F / sqrt(m)` over the matrices of `a` and `v`.
fn residual(a: &[f64], v: &[f64], m: usize, ridge: f64) -> f64 {
    let mut worst = 0.0f64;
    for (a, v) in a.chunks_exact(m * m).zip(v.chunks_exact(m * m)) {
        let mut square = 0.0;
        for i in 0..m {
            for j in 0..m {
                let product: f64 = (0..m).map(|k| a[i * m + k] * v[k * m + j]).sum::<f64>() + ridge * v[i * m + j];
                square += (product - f64::from(u8::from(i == j))).powi(2);
            }
        }
        worst = worst.max((square / m as f64).sqrt());
    }
    worst
}
