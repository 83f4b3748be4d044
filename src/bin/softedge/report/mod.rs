//! Drawings: SVG that a browser and a printer show alike.

pub mod confusion;
pub mod curves;
pub mod memory_map;
mod svg;
