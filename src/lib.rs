//! SOFT, the softmax-free transformer, from a workstation to a microcontroller.
//!
//! A model is a *program over one arena*: a flat list of tensors and a flat list of ops. Inference
//! in f32, inference in integers and a whole training step are three Programs made from the same
//! model description, and small executors run them. The modules are the floors of one house; each
//! uses only those named before it:
//!
//! | module | what lives there |
//! |---|---|
//! | [`error`] | one error type: what was needed and what was there |
//! | [`math`] | scalar functions and fixed point |
//! | `arch` | inner loops that know the CPU |
//! | [`ops`] | one file per op: shape, forward, backward, integer forward |
//! | [`program`] | Program, differentiation, the arena plan and its verifier |
//! | [`format`] | the `.soft` file: const-checked view and writer |
//! | [`engine`] | executors over a checked Program |
//!
//! The host adds [`model`] (configuration to Program), [`quant`], [`train`] and [`data`]; firmware in C
//! goes through `capi`.
//!
//! `unsafe` is allowed in three places, where every block says why it is sound: `arch`, the memory of the
//! engine (`engine/arena.rs`) and `capi`.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
#![warn(missing_docs)]
// A kernel takes every operand of its op.
#![allow(clippy::too_many_arguments)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(target_endian = "big")]
compile_error!("models are little-endian and read in place: a big-endian CPU cannot run them");

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[forbid(unsafe_code)]
pub mod error;
#[forbid(unsafe_code)]
pub mod math;

mod arch;

#[forbid(unsafe_code)]
pub mod ops;

#[forbid(unsafe_code)]
pub mod program;

#[forbid(unsafe_code)]
pub mod format;

pub mod engine;

#[cfg(feature = "capi")]
pub mod capi;

#[cfg(feature = "alloc")]
#[forbid(unsafe_code)]
pub mod model;

#[cfg(feature = "quant")]
#[forbid(unsafe_code)]
pub mod quant;

#[cfg(feature = "train")]
#[forbid(unsafe_code)]
pub mod train;

#[cfg(feature = "data")]
#[forbid(unsafe_code)]
pub mod data;

pub use error::Error;

/// The README, so that its code compiles.
#[cfg(all(doctest, feature = "alloc"))]
#[doc = include_str!("../README.md")]
struct Readme;
