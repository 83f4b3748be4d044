//! relu
