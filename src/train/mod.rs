//! Training on the CPU.
//!
//! A training step is a Program like any other ([`Step`]): forward, loss and backward once per shard
//! of a batch, then the optimizer once. [`Trainer`] runs it: shards on all threads, gradients
//! averaged in a fixed order, so that the result is the same for any number of threads, bit for bit.
//! A [`Checkpoint`] holds all that a run is; a resumed run ends with the same weights as one that
//! was never interrupted. [`Evaluator`] runs the inference Program over the same parameters.
//!
//! Nothing here prints: an [`Observer`] is told, and errors say what was found and what to do.

pub mod augment;
mod checkpoint;
mod config;
mod diagnose;
mod evaluate;
mod history;
mod profile;
mod samples;
pub mod schedule;
mod step;
mod trainer;
mod workers;

pub use checkpoint::{Checkpoint, Values};
pub use config::Config;
pub use evaluate::{Evaluation, Evaluator, Judged};
pub use history::{Epoch, EpochEnd, History, Observer, Progress};
pub use profile::{OpTime, Profile};
pub use samples::Samples;
pub use step::{Compiled, Moments, Step};
pub use trainer::{Outcome, Trainer};
pub use workers::Workers;
