//! From a model's configuration to its Program.
//!
//! [`Config`] says what a model is; it comes from TOML or from a [`preset`]. [`build`] makes the
//! Program of its inference or of its training step: both have the same parameters in the same order,
//! so one [`ParamLayout`](crate::program::ParamLayout) fits both.
//!
//! Parameters have the names of the official SOFT code's `state_dict`, in all models.

mod build;
mod config;
mod layers;
mod presets;

pub use build::{Built, Mode, build};
pub use config::*;
pub use layers::Layers;
pub use presets::{PRESETS, preset};
