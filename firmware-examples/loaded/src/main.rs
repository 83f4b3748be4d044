//! A model that arrives while the device runs: received over a wire, checked, and run from a heap.
//!
//! `cargo run --release < ../minimal/src/gesture.soft` sends the model of the smallest program to an
//! emulated Cortex-M4F, which says what it makes of the same motion. A file that is damaged, cut
//! short or too large is refused with the reason, and the device goes on.
#![no_std]
#![no_main]

extern crate alloc;

#[path = "../../minimal/src/window.rs"]
mod window;

use core::fmt;
// Its critical sections, which the heap needs.
use cortex_m as _;
use cortex_m_rt::entry;
use embedded_alloc::LlffHeap;
use semihosting::{
    io::{self, Read},
    println, process,
};
use softedge::engine::{Buffer, Integers, Loaded};
use softedge::format::{HEADER_BYTES, View, file_bytes};
use softedge::program::Space;
use window::WINDOW;

/// For the file and the arena, each rounded up to the allocator's unit.
const HEAP_BYTES: usize = 96 * 1024;

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

#[entry]
fn main() -> ! {
    // SAFETY: called once, before anything is allocated.
    unsafe {
        embedded_alloc::init!(HEAP, HEAP_BYTES);
    }
    let code = match receive().and_then(|file| recognise(&file)) {
        Ok(()) => 0,
        Err(refusal) => {
            println!("refused: {refusal}");
            1
        }
    };
    process::exit(code)
}

/// A file from standard input, which stands for a UART or a radio: the header says how long it is.
fn receive() -> Result<Buffer, Refusal> {
    let mut wire = io::stdin().map_err(Refusal::Wire)?;
    let mut header = [0; HEADER_BYTES];
    wire.read_exact(&mut header).map_err(Refusal::Wire)?;
    let mut file = room("model", file_bytes(&header)?)?;
    let (start, rest) = file.bytes_mut().split_at_mut(HEADER_BYTES);
    start.copy_from_slice(&header);
    wire.read_exact(rest).map_err(Refusal::Wire)?;
    Ok(file)
}

/// Runs the model in `file` on the motion that is there.
fn recognise(file: &Buffer) -> Result<(), Refusal> {
    let view = View::new_checked_for::<Integers>(file.bytes())?;
    let mut arena = room("arena", view.size(Space::Arena))?;
    let mut model = Loaded::<Integers>::new(file.bytes(), arena.bytes_mut())?;
    let input = model.input::<i16>()?;
    let motion = WINDOW.as_flattened();
    if input.len() != motion.len() {
        return Err(Refusal::Input { takes: input.len(), there: motion.len() });
    }
    input.copy_from_slice(motion);
    let scores = model.run::<i16>()?;
    for (class, score) in scores.top::<3>() {
        println!("{:<16} {score}", scores.label(class).unwrap_or("?"));
    }
    Ok(())
}

/// Zeroed memory from the heap, if it has so much left.
fn room(what: &'static str, needed: usize) -> Result<Buffer, Refusal> {
    // A block more than its bytes: the allocator's own, and the alignment to 16.
    if HEAP.free() < needed + 64 {
        return Err(softedge::Error::TooSmall { what, needed, found: HEAP.free() }.into());
    }
    Ok(Buffer::zeroed(needed))
}

/// Why a model is not run.
enum Refusal {
    Wire(io::Error),
    Model(softedge::Error),
    Input { takes: usize, there: usize },
}

impl From<softedge::Error> for Refusal {
    fn from(error: softedge::Error) -> Self {
        Self::Model(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => write!(f, "the wire broke off: {error:?}"),
            Self::Model(error) => write!(f, "{error}"),
            Self::Input { takes, there } => write!(f, "the model takes {takes} samples and {there} are there"),
        }
    }
}
