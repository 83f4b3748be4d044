//! What the packages in `../boards` have in common: a motion sensor, the window of its latest samples, and
//! the model of `../minimal` with its arena. Nothing here knows a board: the sensor is on any I2C bus of
//! `embedded-hal`, and `cargo test` runs on a host.
#![no_std]

mod mpu6050;
#[path = "../../minimal/src/window.rs"]
mod recording;
mod watch;

pub use mpu6050::{Error, Mpu6050};
/// An upright row, as the sensor would have measured it: a board without a sensor has this to recognise.
pub use recording::WINDOW as RECORDING;
use softedge::engine::Arena;
pub use watch::Watch;

/// Acceleration x, y, z in units of 2 mg, then angular rate x, y, z in units of half a degree per second.
pub type Sample = [i16; 6];

/// Samples that the model looks at: 2.56 s.
pub const WINDOW: usize = 128;

/// Samples from one look to the next: 0.64 s.
pub const HOP: usize = 32;

/// Samples per second.
pub const RATE_HZ: u64 = 50;

softedge::include_model!(pub static EXERCISES = "../../minimal/src/gesture.soft");

/// Its memory.
pub static ARENA: Arena<{ EXERCISES.arena_bytes() }> = Arena::new();
