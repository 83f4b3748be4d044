//! Executors over a checked Program.
//!
//! An executor is one loop over the ops of a [`View`](crate::format::View) that calls a plain
//! function per op. It never plans, allocates or infers shapes, and on checked bytes it cannot fail.
//!
//! - [`Engine`] is the firmware's: one model, one arena, input in, scores out.
//! - [`Executor`] is the general one underneath: any Program, all memory banks, ranges of ops.
//!
//! Which kinds of ops are compiled in is a constant ([`Runs::OPS`]), so that a firmware carries only
//! the code of the ops its models use.

mod arena;
mod cpu;
mod device;
mod executor;
mod integer;

#[cfg(feature = "alloc")]
pub use arena::Buffer;
pub use arena::{Aligned, Arena, ArenaBytes, Memory, elements, elements_mut};
#[doc(hidden)]
pub use device::Checked;
pub use device::{Element, ElementOf, Engine, File, Loaded, Model, Raw, Scores};
pub use executor::{Every, Executor, Runs};
