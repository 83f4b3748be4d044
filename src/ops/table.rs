//! Any function of one int8 value as a table of 256: the integer GELU, exact.

use super::{Signature, i8s};
use crate::arch;

shape! {
    /// `x i8[len], table i8[256] -> y i8[len]`, in place on `x`: `y = table[x + 128]`.
    pub struct TableI8 {
        /// Elements.
        pub len: usize,
    }
}

impl TableI8 {
    /// Inputs `x, table`; output `y`, in place on `x`.
    pub const fn signature(&self) -> Signature {
        Signature::new(&[i8s(&[self.len]), i8s(&[256])], &[i8s(&[self.len])]).in_place()
    }

    /// Multiply-accumulates: none.
    pub const fn macs(&self) -> u64 {
        0
    }
}

/// `y = table[x + 128]`.
pub fn forward_i8(_: &TableI8, table: &[i8], y: &mut [i8]) {
    // An array of 256 needs no bounds check for a byte.
    let Some(table) = table.first_chunk::<256>() else { return };
    arch::table(table, y);
}

/// The table of `f` between quantised values: entry `i` is
/// `clamp(floor(f(s_in (i - 128 - zero_in)) / s_out + 0.5) + zero_out, -128, 127)`.
///
/// `s_in` and `s_out` are the scales, `zero_in` and `zero_out` the zero points. Used by exporters,
/// never on a device.
pub fn table_i8(f: impl Fn(f64) -> f64, s_in: f64, zero_in: i32, s_out: f64, zero_out: i32) -> [i8; 256] {
    core::array::from_fn(|i| {
        let x = s_in * (i as i32 - 128 - zero_in) as f64;
        let q = libm::floor(f(x) / s_out + 0.5) + f64::from(zero_out);
        q.clamp(-128.0, 127.0) as i8
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::ints;

    #[test]
    fn looks_up_every_value() {
        let table = ints::<i8>("table", 256);
        let mut y: Vec<i8> = (-128..=127).collect();
        forward_i8(&TableI8 { len: 256 }, &table, &mut y);
        assert_eq!(y, table);
    }

    #[test]
    fn gelu_table_is_exact() {
        let gelu = |x: f64| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt()));
        let (s_in, zero_in, s_out, zero_out) = (0.05, -20, 0.03, -120);
        let table = table_i8(gelu, s_in, zero_in, s_out, zero_out);
        for x in -128..=127i32 {
            let real = gelu(s_in * f64::from(x - zero_in)) / s_out + f64::from(zero_out);
            let y = f64::from(table[(x + 128) as usize]);
            assert!((y - real.clamp(-128.0, 127.0)).abs() <= 0.5, "{x}");
        }
        // The identity, where every value is a tie of nothing.
        let same = table_i8(|x| x, 0.1, 3, 0.1, 3);
        assert_eq!(same.to_vec(), (-128..=127).collect::<Vec<i8>>());
    }
}
