//! The Program: a flat list of tensors and a flat list of ops over them.
//!
//! Inference in f32, inference in integers and a training step are all Programs. A Program says
//! which tensor lives in which [`Space`]; [`Plan`] gives every tensor its place there from its
//! lifetime; [`in_strips`] makes the arena smaller; [`differentiate`] appends each op's backward op; [`verify`]
//! checks a plan without knowing how it was made. Executors run the written form, `format::View`, and nothing else.

mod op;

#[cfg(feature = "alloc")]
mod build;
#[cfg(feature = "alloc")]
mod differentiate;
#[cfg(feature = "alloc")]
mod plan;
#[cfg(feature = "alloc")]
mod strips;
#[cfg(feature = "alloc")]
mod verify;

pub use op::{Accumulator, Every, Integers, Kind, Op, OpSet, Runs};

#[cfg(feature = "alloc")]
pub use build::{Init, Node, Program, Role, Tensor, TensorId};
#[cfg(feature = "alloc")]
pub use differentiate::{Differentiated, differentiate};
#[cfg(feature = "alloc")]
pub use plan::{ParamLayout, Plan};
#[cfg(feature = "alloc")]
pub use strips::in_strips;
#[cfg(feature = "alloc")]
pub use verify::{Fault, verify};

/// Every tensor starts at a multiple of this many bytes in its space.
pub const ALIGN: usize = 16;

/// The memory a tensor lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Space {
    /// Scratch of one run: activations, reused as lifetimes allow.
    Arena = 0,
    /// Constants stored in the file, read in place.
    Weights = 1,
    /// Parameters and running statistics of a model in training, kept between runs.
    Params = 2,
    /// Gradients and batch statistics of one shard.
    Grads = 3,
    /// Optimizer state: moments, averaged parameters, hyperparameters.
    State = 4,
}

impl Space {
    /// Number of spaces.
    pub const COUNT: usize = 5;

    /// All of them, in the order of their codes.
    pub const ALL: [Space; Space::COUNT] = [Space::Arena, Space::Weights, Space::Params, Space::Grads, Space::State];

    /// The space with this code, if there is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Space::Arena,
            1 => Space::Weights,
            2 => Space::Params,
            3 => Space::Grads,
            4 => Space::State,
            _ => return None,
        })
    }

    /// The name used in errors and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Space::Arena => "arena",
            Space::Weights => "weights",
            Space::Params => "parameters",
            Space::Grads => "gradients",
            Space::State => "optimizer state",
        }
    }
}
