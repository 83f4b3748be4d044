//! From a trained f32 Program to an integer one.
//!
//! [`freeze`] bakes the parameters into an inference Program and folds what is linear (batch norm,
//! scales, resized position embeddings); [`calibrate`] watches it run on data; [`quantise`] rewrites
//! it op by op into integers; [`report`] compares the two, tensor by tensor.

mod calibrate;
mod freeze;
mod qat;
mod report;
mod rewrite;

pub use calibrate::{Bounds, Calibration, Observed, calibrate};
pub use freeze::freeze;
pub use qat::{fine_tune, with_weights};
pub use report::{InverseReport, Report, TensorReport, report};
pub use rewrite::quantise;
