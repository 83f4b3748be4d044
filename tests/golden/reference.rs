//! What the library leaves out on purpose, in naive f64: the inverse of the official SOFT-Norm code.
//! Its start is a maximum over all images and heads, halved while the result looks divergent, and its
//! gradient goes through every iteration.

use softedge::engine::{Executor, elements, elements_mut};
use softedge::format::OpRecord;
use softedge::program::Op;
use std::collections::BTreeMap;

/// `count` square matrices of width `m`, row-major.
pub struct Batch {
    pub m: usize,
    pub values: Vec<f64>,
}

fn product(m: usize, a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut c = vec![0.0; m * m];
    for i in 0..m {
        for k in 0..m {
            for j in 0..m {
                c[i * m + j] += a[i * m + k] * b[k * m + j];
            }
        }
    }
    c
}

fn transposed(m: usize, a: &[f64]) -> Vec<f64> {
    (0..m * m).map(|i| a[i % m * m + i / m]).collect()
}

impl Batch {
    pub fn new(m: usize, values: &[f32]) -> Self {
        Self { m, values: values.iter().map(|&v| f64::from(v)).collect() }
    }

    fn each(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.m * self.m)
    }

    /// The start `alpha P`, and where the largest row sum is.
    fn alpha(&self) -> (f64, usize) {
        let m = self.m;
        let sums: Vec<f64> = self.values.chunks_exact(m).map(|row| row.iter().sum()).collect();
        let row = (0..sums.len()).fold(0, |best, i| if sums[i] > sums[best] { i } else { best });
        let mut alpha = 2.0 / (sums[row] * sums[row]);
        let diverges = |alpha: f64| {
            let norm = self.each().flat_map(|p| {
                let square = product(m, p, p);
                (0..m)
                    .map(move |j| (0..m).map(|i| (f64::from(u8::from(i == j)) - alpha * square[i * m + j]).abs()).sum())
            });
            norm.fold(0.0, f64::max) > 1.01
        };
        for _ in 0..10 {
            if !diverges(alpha) {
                break;
            }
            alpha *= 0.5;
        }
        (alpha, row)
    }

    /// The iterates `V_0 ..= V_steps` of every matrix.
    pub fn iterates(&self, steps: usize) -> Vec<Vec<Vec<f64>>> {
        let (alpha, _) = self.alpha();
        let iterate = |p: &[f64]| {
            let mut all = vec![p.iter().map(|v| alpha * v).collect::<Vec<f64>>()];
            for k in 0..steps {
                let v = &all[k];
                let vpv = product(self.m, &product(self.m, v, p), v);
                all.push(v.iter().zip(&vpv).map(|(v, vpv)| 2.0 * v - vpv).collect());
            }
            all
        };
        self.each().map(iterate).collect()
    }

    /// The gradient with respect to these matrices, for the gradient `g` of the last iterates.
    pub fn gradient(&self, steps: usize, g: &[f64]) -> Vec<f64> {
        let m = self.m;
        let (alpha, row) = self.alpha();
        let mut dp = vec![0.0; self.values.len()];
        let mut dalpha = 0.0;
        let iterates = self.iterates(steps);
        let matrices = self.each().zip(&iterates).zip(g.chunks_exact(m * m).zip(dp.chunks_exact_mut(m * m)));
        for ((p, iterates), (g, dp)) in matrices {
            let mut g = g.to_vec();
            for v in iterates[..steps].iter().rev() {
                let vt = transposed(m, v);
                let part = product(m, &product(m, &vt, &g), &vt);
                dp.iter_mut().zip(&part).for_each(|(dp, part)| *dp -= part);
                let right = product(m, &g, &transposed(m, &product(m, p, v)));
                let left = product(m, &transposed(m, &product(m, v, p)), &g);
                g = (0..m * m).map(|i| 2.0 * g[i] - right[i] - left[i]).collect();
            }
            for ((dp, g), p) in dp.iter_mut().zip(&g).zip(p) {
                *dp += alpha * g;
                dalpha += g * p;
            }
        }
        // alpha is a constant over the square of the largest row sum.
        let sum: f64 = self.values[row * m..][..m].iter().sum();
        dp[row * m..][..m].iter_mut().for_each(|dp| *dp -= 2.0 * alpha / sum * dalpha);
        dp
    }

    /// `(P + ridge I)^-1` by Gauss and Jordan, and the condition number in the largest row sum.
    pub fn exact_inverse(&self, ridge: f64) -> (Vec<f64>, f64) {
        let m = self.m;
        let norm = |a: &[f64]| a.chunks_exact(m).map(|r| r.iter().map(|v| v.abs()).sum()).fold(0.0, f64::max);
        let mut condition = 0.0f64;
        let inverse = self
            .each()
            .flat_map(|p| {
                let mut a = p.to_vec();
                (0..m).for_each(|i| a[i * (m + 1)] += ridge);
                let whole = norm(&a);
                let mut v: Vec<f64> = (0..m * m).map(|i| f64::from(u8::from(i % (m + 1) == 0))).collect();
                for k in 0..m {
                    let pivot = a[k * m + k];
                    for j in 0..m {
                        a[k * m + j] /= pivot;
                        v[k * m + j] /= pivot;
                    }
                    for i in (0..m).filter(|&i| i != k) {
                        let factor = a[i * m + k];
                        for j in 0..m {
                            a[i * m + j] -= factor * a[k * m + j];
                            v[i * m + j] -= factor * v[k * m + j];
                        }
                    }
                }
                condition = condition.max(whole * norm(&v));
                v
            })
            .collect();
        (inverse, condition)
    }
}

/// `-V^T G V^T` of every matrix.
pub fn exact_gradient(m: usize, v: &[f64], g: &[f64]) -> Vec<f64> {
    let matrices = v.chunks_exact(m * m).zip(g.chunks_exact(m * m));
    matrices
        .flat_map(|(v, g)| {
            let vt = transposed(m, v);
            product(m, &product(m, &vt, g), &vt).into_iter().map(|v| -v)
        })
        .collect()
}

/// `|A V A - A| / |A|` of every matrix, in Frobenius norms, for `A = P + ridge I`.
pub fn residuals(p: &Batch, ridge: f64, v: &[f64]) -> Vec<f64> {
    let m = p.m;
    let norm = |a: &mut dyn Iterator<Item = f64>| a.map(|v| v * v).sum::<f64>().sqrt();
    p.each()
        .zip(v.chunks_exact(m * m))
        .map(|(p, v)| {
            let mut a = p.to_vec();
            (0..m).for_each(|i| a[i * (m + 1)] += ridge);
            let ava = product(m, &product(m, &a, v), &a);
            norm(&mut ava.iter().zip(&a).map(|(x, a)| x - a)) / norm(&mut a.iter().copied())
        })
        .collect()
}

/// Puts the official SOFT-Norm inverse in the place of the library's while a Program runs.
#[derive(Default)]
pub struct BatchWide {
    /// The Gram matrices by the tensor of their inverse, and the number of steps.
    grams: BTreeMap<usize, (Vec<f32>, usize)>,
}

impl BatchWide {
    /// To be called after every op.
    pub fn watch(&mut self, record: &OpRecord<'_>, executor: &mut Executor<'_>) {
        let operand = |i: usize| record.operand(i).unwrap();
        let result = match record.decode() {
            Op::InverseNewton(s) => {
                let gram = elements::<f32>(executor.tensor(operand(0))).to_vec();
                let iterates = Batch::new(s.m, &gram).iterates(s.iterations);
                self.grams.insert(operand(1), (gram, s.iterations));
                iterates.iter().flat_map(|all| all[s.iterations].clone()).collect::<Vec<f64>>()
            }
            Op::InverseGrad(s) => {
                let (gram, steps) = &self.grams[&operand(0)];
                let g: Vec<f64> = elements::<f32>(executor.tensor(operand(1))).iter().map(|&v| f64::from(v)).collect();
                Batch::new(s.m, gram).gradient(*steps, &g)
            }
            _ => return,
        };
        let out = executor.tensor_mut(operand(record.n_ins())).unwrap();
        elements_mut::<f32>(out).iter_mut().zip(result).for_each(|(out, v)| *out = v as f32);
    }
}
