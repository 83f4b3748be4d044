//! softmax_attention
