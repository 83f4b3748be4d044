//! train

pub mod augment;
