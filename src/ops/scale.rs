//! `y = factor x`: the scale of the queries, and of gradients.

use super::{Signature, f32s};

shape! {
    /// `x[len] -> y[len]`, in place. Its backward is the same op on `dy`.
    pub struct Scale {
        /// Elements.
        pub len: usize,
        /// The factor.
        pub factor: f32,
    }
}

impl Scale {
    /// Input `x`; output `y`, in place.
    pub const fn signature(&self) -> Signature {
        Signature::new(&[f32s(&[self.len])], &[f32s(&[self.len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `y = factor x`; applied to `dy` it gives `dx`.
pub fn forward(s: &Scale, y: &mut [f32]) {
    for y in y {
        *y *= s.factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, reals};

    #[test]
    fn is_its_own_backward() {
        let s = Scale { len: 9, factor: -0.37 };
        let x = reals("x", 9);
        let mut y = x.f32();
        forward(&s, &mut y);
        assert_eq!(y, x.f32().iter().map(|x| x * -0.37).collect::<Vec<_>>());
        check_gradients(
            &[x],
            9,
            |t| t[0].iter().map(|x| x * f64::from(s.factor)).collect(),
            |dy| {
                let mut dx = dy.to_vec();
                forward(&s, &mut dx);
                vec![dx]
            },
        );
    }
}
