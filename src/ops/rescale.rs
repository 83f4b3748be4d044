//! rescale
