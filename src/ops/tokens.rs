//! The class token: put before the tokens, and one token taken out.

use super::{Part, Signature, f32s, i8s, i16s};

shape! {
    /// `x[batch, n, c], token[c] -> y[batch, n + 1, c]`: the token comes first.
    pub struct Prepend {
        /// Images.
        pub batch: usize,
        /// Tokens of the input.
        pub n: usize,
        /// Channels.
        pub c: usize,
    }
}

impl Prepend {
    /// Inputs `x, token`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { batch, n, c } = *self;
        Signature::new(&[f32s(&[batch, n, c]), f32s(&[c])], &[f32s(&[batch, n.saturating_add(1), c])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Copies `token`, then the tokens of the image, for each image.
pub fn prepend(s: &Prepend, x: &[f32], token: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(s.n * s.c).zip(y.chunks_exact_mut((s.n + 1) * s.c)) {
        prepend_to(x, token, y);
    }
}

shape! {
    /// Backward of [`Prepend`]: `dy[batch, n + 1, c] -> dx[batch, n, c], dtoken[c]`.
    pub struct PrependGrad {
        /// Images.
        pub batch: usize,
        /// Tokens of the forward's input.
        pub n: usize,
        /// Channels.
        pub c: usize,
    }
}

impl PrependGrad {
    /// Input `dy`; outputs `dx, dtoken`.
    pub const fn signature(&self) -> Signature {
        let Self { batch, n, c } = *self;
        Signature::new(&[f32s(&[batch, n.saturating_add(1), c])], &[f32s(&[batch, n, c]), f32s(&[c])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `dx` = the gradients of the tokens, `dtoken` = the sum over the batch; overwrites both.
pub fn prepend_grad(s: &PrependGrad, dy: &[f32], dx: &mut [f32], dtoken: &mut [f32]) {
    dtoken.fill(0.0);
    for (dy, dx) in dy.chunks_exact((s.n + 1) * s.c).zip(dx.chunks_exact_mut(s.n * s.c)) {
        let (first, rest) = dy.split_at(s.c);
        for (sum, g) in dtoken.iter_mut().zip(first) {
            *sum += g;
        }
        dx.copy_from_slice(rest);
    }
}

shape! {
    /// `x[batch, n, c] -> y[batch, c]`: token `index` of each image.
    pub struct Take {
        /// Images.
        pub batch: usize,
        /// Tokens.
        pub n: usize,
        /// Channels.
        pub c: usize,
        /// Which token, from 0.
        pub index: usize,
    }
}

const NO_SUCH_TOKEN: &str = "the index of the token to take is not below the number of tokens";

impl Take {
    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { batch, n, c, index } = *self;
        if index >= n {
            return Signature::invalid(NO_SUCH_TOKEN);
        }
        Signature::new(&[f32s(&[batch, n, c])], &[f32s(&[batch, c])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Copies token `index` of each image.
pub fn take(s: &Take, x: &[f32], y: &mut [f32]) {
    take_each(s.n, s.c, s.index, x, y);
}

shape! {
    /// Backward of [`Take`]: `dy[batch, c] -> dx[batch, n, c]`.
    pub struct TakeGrad {
        /// Images.
        pub batch: usize,
        /// Tokens.
        pub n: usize,
        /// Channels.
        pub c: usize,
        /// Which token was taken, from 0.
        pub index: usize,
    }
}

impl TakeGrad {
    /// Input `dy`; output `dx`.
    pub const fn signature(&self) -> Signature {
        let Self { batch, n, c, index } = *self;
        if index >= n {
            return Signature::invalid(NO_SUCH_TOKEN);
        }
        Signature::new(&[f32s(&[batch, c])], &[f32s(&[batch, n, c])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `dx` = `dy` at token `index`, 0 at the others.
pub fn take_grad(s: &TakeGrad, dy: &[f32], dx: &mut [f32]) {
    dx.fill(0.0);
    for (dy, dx) in dy.chunks_exact(s.c).zip(dx.chunks_exact_mut(s.n * s.c)) {
        for (dx, &dy) in dx.iter_mut().skip(s.index * s.c).zip(dy) {
            *dx = dy;
        }
    }
}

shape! {
    /// Integer [`Prepend`] of one image: `x i16[n, c], token i16[c] -> y i16[n + 1, c]`, one scale for all.
    pub struct PrependI16 {
        /// Tokens of the input.
        pub n: usize,
        /// Channels.
        pub c: usize,
    }
}

impl PrependI16 {
    /// Inputs `x, token`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { n, c } = *self;
        Signature::new(&[i16s(&[n, c]), i16s(&[c])], &[i16s(&[n.saturating_add(1), c])])
    }

    /// Rows that can be computed by themselves: the tokens of the output.
    pub const fn rows(&self) -> usize {
        self.n.saturating_add(1)
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Copies `token`, then the tokens of `x`, as far as they are among the rows.
pub fn prepend_i16(s: &PrependI16, part: &impl Part, x: &[i16], token: &[i16], y: &mut [i16]) {
    let token = if part.start() == 0 { token } else { &[] };
    let x = x.get(part.start().saturating_sub(1) * s.c..).unwrap_or_default();
    prepend_to(x, token, part.cut_mut(y, s.c));
}

shape! {
    /// Integer [`Take`] of one image: `x i16[n, c] -> y i16[c]`.
    pub struct TakeI16 {
        /// Tokens.
        pub n: usize,
        /// Channels.
        pub c: usize,
        /// Which token, from 0.
        pub index: usize,
    }
}

impl TakeI16 {
    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { n, c, index } = *self;
        if index >= n {
            return Signature::invalid(NO_SUCH_TOKEN);
        }
        Signature::new(&[i16s(&[n, c])], &[i16s(&[c])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Copies token `index`.
pub fn take_i16(s: &TakeI16, x: &[i16], y: &mut [i16]) {
    take_each(s.n, s.c, s.index, x, y);
}

shape! {
    /// Integer [`Take`] of one image: `x i8[n, c] -> y i8[c]`.
    pub struct TakeI8 {
        /// Tokens.
        pub n: usize,
        /// Channels.
        pub c: usize,
        /// Which token, from 0.
        pub index: usize,
    }
}

impl TakeI8 {
    /// Input `x`; output `y`.
    pub const fn signature(&self) -> Signature {
        let Self { n, c, index } = *self;
        if index >= n {
            return Signature::invalid(NO_SUCH_TOKEN);
        }
        Signature::new(&[i8s(&[n, c])], &[i8s(&[c])])
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// Copies token `index`.
pub fn take_i8(s: &TakeI8, x: &[i8], y: &mut [i8]) {
    take_each(s.n, s.c, s.index, x, y);
}

/// Fills `y` with `token` and then with as much of `x` as there is room for.
fn prepend_to<T: Copy>(x: &[T], token: &[T], y: &mut [T]) {
    let (first, rest) = y.split_at_mut(token.len().min(y.len()));
    first.copy_from_slice(&token[..first.len()]);
    rest.copy_from_slice(&x[..rest.len()]);
}

fn take_each<T: Copy>(n: usize, c: usize, index: usize, x: &[T], y: &mut [T]) {
    for (x, y) in x.chunks_exact(n * c).zip(y.chunks_exact_mut(c)) {
        for (y, &x) in y.iter_mut().zip(x.iter().skip(index * c)) {
            *y = x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Whole;
    use crate::ops::testing::{check_gradients, ints, reals};

    fn prepend_reference<T: Copy + Default>(batch: usize, n: usize, c: usize, x: &[T], token: &[T]) -> Vec<T> {
        let mut y = vec![T::default(); batch * (n + 1) * c];
        for b in 0..batch {
            for t in 0..=n {
                for i in 0..c {
                    y[(b * (n + 1) + t) * c + i] = if t == 0 { token[i] } else { x[(b * n + t - 1) * c + i] };
                }
            }
        }
        y
    }

    fn take_reference<T: Copy>(s: &Take, x: &[T]) -> Vec<T> {
        let at = |b: usize, i: usize| x[(b * s.n + s.index) * s.c + i];
        (0..s.batch * s.c).map(|i| at(i / s.c, i % s.c)).collect()
    }

    #[test]
    fn prepend_and_backward_match_the_reference() {
        for (batch, n, c) in [(1, 1, 1), (3, 5, 7), (2, 49, 8)] {
            let inputs = [reals("x", batch * n * c), reals("token", c)];
            let [x, token] = inputs.each_ref().map(|v| v.f32());
            let mut y = vec![9.0; batch * (n + 1) * c];
            prepend(&Prepend { batch, n, c }, &x, &token, &mut y);
            assert_eq!(y, prepend_reference(batch, n, c, &x, &token));
            check_gradients(
                &inputs,
                y.len(),
                |t| prepend_reference(batch, n, c, &t[0], &t[1]),
                |dy| {
                    let (mut dx, mut dtoken) = (vec![9.0; x.len()], vec![9.0; c]);
                    prepend_grad(&PrependGrad { batch, n, c }, dy, &mut dx, &mut dtoken);
                    vec![dx, dtoken]
                },
            );
        }
    }

    #[test]
    fn take_and_backward_match_the_reference() {
        for (batch, n, c, index) in [(1, 1, 1, 0), (3, 5, 7, 4), (2, 50, 8, 0)] {
            let s = Take { batch, n, c, index };
            let x = reals("x", batch * n * c);
            let mut y = vec![9.0; batch * c];
            take(&s, &x.f32(), &mut y);
            assert_eq!(y, take_reference(&s, &x.f32()));
            check_gradients(
                &[x],
                batch * c,
                |t| take_reference(&s, &t[0]),
                |dy| {
                    let mut dx = vec![9.0; batch * n * c];
                    take_grad(&TakeGrad { batch, n, c, index }, dy, &mut dx);
                    vec![dx]
                },
            );
        }
    }

    #[test]
    fn integers_are_copied() {
        let (n, c, index) = (5, 3, 2);
        let (x, token) = (ints::<i16>("x", n * c), ints::<i16>("token", c));
        let (mut y, mut one) = (vec![0; (n + 1) * c], vec![0; c]);
        prepend_i16(&PrependI16 { n, c }, &Whole, &x, &token, &mut y);
        assert_eq!(y, prepend_reference(1, n, c, &x, &token));
        take_i16(&TakeI16 { n, c, index }, &x, &mut one);
        assert_eq!(one, x[index * c..][..c]);
        let (x, mut one) = (ints::<i8>("x", n * c), vec![0; c]);
        take_i8(&TakeI8 { n, c, index }, &x, &mut one);
        assert_eq!(one, x[index * c..][..c]);
    }

    #[test]
    fn an_index_outside_is_refused() {
        assert_eq!(Take { batch: 1, n: 3, c: 2, index: 3 }.signature().reason(), Some(NO_SUCH_TOKEN));
        assert_eq!(TakeI8 { n: 3, c: 2, index: usize::MAX }.signature().reason(), Some(NO_SUCH_TOKEN));
        assert_eq!(TakeI16 { n: 3, c: 2, index: 2 }.signature().reason(), None);
    }
}
