//! sym_norm
