//! Scalar functions behind one name each, and fixed point.
//!
//! [`float`] picks `std`, libm or micromath; [`fixed`] holds the integer side: rounding,
//! requantisation, exponential, reciprocal and root.

pub mod fixed;
pub mod float;
pub mod random;
