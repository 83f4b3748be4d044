//! depthwise
