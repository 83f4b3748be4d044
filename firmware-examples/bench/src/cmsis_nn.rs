//! What CMSIS-NN costs on the same workloads.
//!
//! CMSIS-NN as of late 2025, built with gcc 12.2 and with clang and several sets of flags, of which each
//! figure is the best; counted in QEMU 7.2 between marks around one call, outputs checked. Attention is the
//! scores, the softmax and the product with the values of one head of 196 tokens and width 32. Helium on the
//! M55, none elsewhere.

use bench::{Op, Workload};

/// Millions of instructions of A, B, one head of attention, D and E.
const INSTRUCTIONS: &[(&str, [f64; 5])] = &[
    ("m0", [6.00, 24.0, 81.9, 33.7, 2.53]),
    ("m3", [2.41, 9.6, 23.6, 12.6, 1.01]),
    ("m4", [1.61, 6.4, 20.8, 9.86, 0.87]),
    ("m7", [1.59, 6.4, 25.1, 9.86, 0.84]),
    ("m33", [1.60, 6.4, 20.8, 9.85, 0.87]),
    ("m55", [0.296, 1.2, 3.84, 1.47, 0.25]),
];

/// Millions of cycles of a Cortex-M4, estimated as ours are.
const M4_CYCLES: [f64; 5] = [1.89, 7.56, 21.2, 11.7, 1.01];

/// What the same work costs with CMSIS-NN.
pub struct Cost {
    pub instructions: f64,
    /// Only of the M4.
    pub cycles: Option<f64>,
    /// Bytes for the scores of all pairs of tokens; only of attention.
    pub scratch: Option<u64>,
}

/// The cost on a core; attention grows with the square of the tokens, and SOFT is held against what it takes the
/// place of.
pub fn cost(core: &str, workload: &Workload) -> Option<Cost> {
    const HEAD: usize = 2;
    const TOKENS: usize = 196;
    let (column, tokens) = match (&workload.op, workload.name) {
        (_, "A") => (0, TOKENS),
        (_, "B") => (1, TOKENS),
        (Op::Softmax(s), _) => (HEAD, s.n),
        (Op::Soft(s), _) => (HEAD, s.side * s.side),
        (_, "D") => (3, TOKENS),
        (_, "E") => (4, TOKENS),
        _ => return None,
    };
    let factor = 1e6 * (tokens as f64 / TOKENS as f64).powi(2);
    let (_, instructions) = INSTRUCTIONS.iter().find(|(name, _)| *name == core)?;
    let cycles = (core == "m4").then(|| M4_CYCLES[column] * factor);
    let scratch = (column == HEAD).then(|| (tokens * tokens) as u64);
    Some(Cost { instructions: instructions[column] * factor, cycles, scratch })
}
