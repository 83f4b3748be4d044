//! The runner that every op's tests use: deterministic data, comparison with a naive f64 reference,
//! gradients against central differences of that reference.

use crate::math::random::Stream;
use std::format;
use std::vec::Vec;

/// A test tensor, kept in f64 with values that f32 holds exactly.
#[derive(Clone)]
pub(crate) struct Reals(Vec<f64>);

impl From<Vec<f64>> for Reals {
    fn from(v: Vec<f64>) -> Self {
        Self(v).map(|v| v)
    }
}

impl Reals {
    pub(crate) fn f32(&self) -> Vec<f32> {
        self.0.iter().map(|&v| v as f32).collect()
    }

    pub(crate) fn f64(&self) -> Vec<f64> {
        self.0.clone()
    }

    /// The same values mapped, rounded to f32.
    pub(crate) fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self(self.0.into_iter().map(|v| f64::from(f(v) as f32)).collect())
    }
}

fn stream(name: &str, len: usize) -> Stream {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    Stream::new(hash).fork(len as u64)
}

/// `len` numbers in `[-1, 1)`, a function of `name` and `len`.
pub(crate) fn reals(name: &str, len: usize) -> Reals {
    let s = stream(name, len);
    Reals((0..len).map(|i| f64::from(s.uniform(i as u64)) * 2.0 - 1.0).collect())
}

/// `len` integers over the whole range of `T`, a function of `name` and `len`.
pub(crate) fn ints<T: TryFrom<i64>>(name: &str, len: usize) -> Vec<T> {
    let s = stream(name, len);
    let bits = 8 * size_of::<T>() as u32;
    (0..len)
        .map(|i| {
            let v = (s.bits(i as u64) >> (64 - bits)) as i64 - (1i64 << (bits - 1));
            T::try_from(v).ok().expect("in range")
        })
        .collect()
}

fn largest(v: impl Iterator<Item = f64>) -> f64 {
    v.fold(0.0, |a, b| a.max(b.abs()))
}

/// Asserts that `got` is within `tolerance` times the largest magnitude of `want`.
pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let scale = largest(want.iter().copied()).max(1e-30);
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - w).abs() / scale;
        assert!(error <= tolerance, "{what}[{i}]: {g} where {w} is right, off by {error:.2e} of {scale:.2e}");
    }
}

/// Checks hand-written gradients against central differences of `reference` in f64.
///
/// `analytic` gets a cotangent `dy` of `outputs` elements and returns the gradient of `sum(dy * y)`
/// for each input; an empty one is not compared (integer-like or constant inputs).
pub(crate) fn check_gradients<const N: usize>(
    inputs: &[Reals; N],
    outputs: usize,
    reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
    analytic: impl Fn(&[f32]) -> Vec<Vec<f32>>,
) {
    const STEP: f64 = 1e-5;
    let cotangent = reals("cotangent", outputs);
    let dy = cotangent.f64();
    let gradients = analytic(&cotangent.f32());
    assert_eq!(gradients.len(), N);
    let mut at: Vec<Vec<f64>> = inputs.iter().map(Reals::f64).collect();
    let loss = |at: &[Vec<f64>]| reference(at).iter().zip(&dy).map(|(y, d)| y * d).sum::<f64>();
    for (which, gradient) in gradients.iter().enumerate() {
        if gradient.is_empty() {
            continue;
        }
        let want: Vec<f64> = (0..at[which].len())
            .map(|i| {
                let x = at[which][i];
                at[which][i] = x + STEP;
                let up = loss(&at);
                at[which][i] = x - STEP;
                let down = loss(&at);
                at[which][i] = x;
                (up - down) / (2.0 * STEP)
            })
            .collect();
        assert_close(&format!("gradient of input {which}"), gradient, &want, 1e-4);
    }
}
