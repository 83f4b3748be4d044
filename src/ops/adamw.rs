//! The optimizer: gradient clipping, AdamW (Loshchilov and Hutter 2019, as torch computes it) and
//! the moving average of the parameters.
//!
//! What changes from step to step comes as the operand `hyper[4]`, by [`AdamW::hyper`]: learning rate,
//! `1 - beta1^t`, `1 - beta2^t`, decay of the moving average.

use super::{Signature, f32s};
use crate::arch::vectorised;
use crate::math::float::sqrt;

shape! {
    /// `grads[len] -> scale[1], norm[1]`: what clips the gradients to a global L2 norm, and that norm.
    pub struct ClipScale {
        /// Elements of all gradients.
        pub len: usize,
        /// Largest norm; 0 or less for no clipping.
        pub max_norm: f32,
    }
}

impl ClipScale {
    /// Input `grads`; outputs `scale, norm`.
    pub const fn signature(&self) -> Signature {
        Signature::new(&[f32s(&[self.len])], &[f32s(&[1]), f32s(&[1])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `norm = |grads|` summed in f64, `scale = min(1, max_norm / (norm + 1e-6))`, or 1 without clipping.
///
/// A norm that is not finite says that the step is lost: check it.
pub fn clip_scale(s: &ClipScale, grads: &[f32], scale: &mut [f32], norm: &mut [f32]) {
    let squares = vectorised(
        #[inline(always)]
        move || {
            // Eight lanes: a fixed order that vectorises.
            let (blocks, rest) = grads.as_chunks::<8>();
            let mut lanes = [0.0f64; 8];
            for block in blocks.iter().map(|block| block.as_slice()).chain([rest]) {
                for (lane, &g) in lanes.iter_mut().zip(block) {
                    *lane += f64::from(g) * f64::from(g);
                }
            }
            lanes.iter().sum::<f64>()
        },
    );
    let length = libm::sqrt(squares) as f32;
    let factor = s.max_norm / (length + 1e-6);
    norm.fill(length);
    scale.fill(if s.max_norm <= 0.0 || factor > 1.0 { 1.0 } else { factor });
}

shape! {
    /// One step: `g[len], hyper[4], scale[1] -> p[len], m[len], v[len]`. The outputs, parameters and
    /// first and second moments, are read and written; both moments start as 0.
    pub struct AdamW {
        /// Elements.
        pub len: usize,
        /// Decay of the first moment.
        pub beta1: f32,
        /// Decay of the second moment.
        pub beta2: f32,
        /// Added to the root of the second moment.
        pub eps: f32,
        /// Weight decay, decoupled: parameters shrink by `lr * decay`.
        pub decay: f32,
    }
}

impl AdamW {
    /// Inputs `g, hyper, scale`; outputs `p, m, v`, read and written.
    pub const fn signature(&self) -> Signature {
        let one = f32s(&[self.len]);
        Signature::new(&[one, f32s(&[4]), f32s(&[1])], &[one, one, one])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }

    /// The operand `hyper` of this op and of [`Ema`] at optimizer step `step`, from 0.
    pub fn hyper(&self, lr: f32, step: u64, ema_decay: f32) -> [f32; 4] {
        let correction = |beta: f32| (1.0 - libm::pow(f64::from(beta), step as f64 + 1.0)) as f32;
        [lr, correction(self.beta1), correction(self.beta2), ema_decay]
    }
}

/// With `g' = scale g`: `p -= lr decay p`, `m = beta1 m + (1 - beta1) g'`,
/// `v = beta2 v + (1 - beta2) g'^2`, `p -= lr / hyper[1] * m / (sqrt(v) / sqrt(hyper[2]) + eps)`.
pub fn step(s: &AdamW, g: &[f32], hyper: &[f32], scale: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let (&[lr, correction1, correction2, _], &[scale]) = (hyper, scale) else { return };
    let AdamW { beta1, beta2, eps, .. } = *s;
    let (shrink, rate) = (1.0 - lr * s.decay, lr / correction1);
    let root = sqrt(correction2);
    vectorised(
        #[inline(always)]
        move || {
            for ((p, &g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
                let g = scale * g;
                *m += (1.0 - beta1) * (g - *m);
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                *p = *p * shrink - rate * *m / (sqrt(*v) / root + eps);
            }
        },
    );
}

shape! {
    /// Moving average of the parameters: `p[len], hyper[4] -> e[len]`, read and written.
    pub struct Ema {
        /// Elements.
        pub len: usize,
    }
}

impl Ema {
    /// Inputs `p, hyper`; output `e`, read and written.
    pub const fn signature(&self) -> Signature {
        let one = f32s(&[self.len]);
        Signature::new(&[one, f32s(&[4])], &[one])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `e = d e + (1 - d) p` with `d = hyper[3]`.
pub fn ema(_: &Ema, p: &[f32], hyper: &[f32], e: &mut [f32]) {
    let &[.., d] = hyper else { return };
    for (e, p) in e.iter_mut().zip(p) {
        *e = d * *e + (1.0 - d) * p;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, reals};

    #[test]
    fn clips_as_torch_does() {
        for len in [1, 7, 8, 1001] {
            let g = reals("g", len);
            let want = g.f64().iter().map(|g| g * g).sum::<f64>().sqrt();
            for max_norm in [0.0, -1.0, 0.3, 1e9] {
                let (mut scale, mut norm) = ([9.0], [9.0]);
                clip_scale(&ClipScale { len, max_norm }, &g.f32(), &mut scale, &mut norm);
                assert_close("norm", &norm, &[want], 1e-7);
                let factor = f64::from(max_norm) / (want + 1e-6);
                assert_close("scale", &scale, &[if max_norm <= 0.0 { 1.0 } else { factor.min(1.0) }], 1e-6);
            }
        }
        // The squares leave f32, their sum does not leave f64.
        let (mut scale, mut norm) = ([9.0], [9.0]);
        clip_scale(&ClipScale { len: 2, max_norm: 1.0 }, &[3e30, 4e30], &mut scale, &mut norm);
        assert_close("norm", &norm, &[5e30], 1e-6);
        clip_scale(&ClipScale { len: 1, max_norm: 1.0 }, &[f32::NAN], &mut scale, &mut norm);
        assert!(norm[0].is_nan() && scale[0].is_nan());
    }

    #[test]
    fn five_steps_match_the_reference() {
        let (len, lr, clip) = (37, 1e-3, 0.7);
        for decay in [0.0, 0.05] {
            let s = AdamW { len, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay };
            let (b1, b2) = (f64::from(s.beta1), f64::from(s.beta2));
            let start = reals("p", len);
            let (mut p, mut m, mut v, mut e) = (start.f32(), vec![0.0; len], vec![0.0; len], start.f32());
            let (mut p64, mut m64, mut v64, mut e64) = (start.f64(), vec![0.0; len], vec![0.0; len], start.f64());
            for t in 0..5 {
                let g = reals(&format!("g{t}"), len);
                let hyper = s.hyper(lr, t, 0.99);
                step(&s, &g.f32(), &hyper, &[clip], &mut p, &mut m, &mut v);
                ema(&Ema { len }, &p, &hyper, &mut e);
                let (lr, clip) = (f64::from(lr), f64::from(clip));
                for (i, g) in g.f64().iter().enumerate() {
                    p64[i] *= 1.0 - lr * f64::from(decay);
                    m64[i] = b1 * m64[i] + (1.0 - b1) * clip * g;
                    v64[i] = b2 * v64[i] + (1.0 - b2) * (clip * g).powi(2);
                    let m_hat = m64[i] / (1.0 - b1.powi(t as i32 + 1));
                    let v_hat = v64[i] / (1.0 - b2.powi(t as i32 + 1));
                    p64[i] -= lr * m_hat / (v_hat.sqrt() + 1e-8);
                    e64[i] = 0.99 * e64[i] + 0.01 * p64[i];
                }
                assert_close("p", &p, &p64, 1e-6);
                assert_close("m", &m, &m64, 1e-5);
                assert_close("v", &v, &v64, 1e-5);
                assert_close("e", &e, &e64, 1e-6);
            }
        }
    }
}
