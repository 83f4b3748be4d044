//! A model that arrives while the device runs: received over a UART, checked, and run from a heap.
//!
//! Whoever has a model sends one byte, waits for `ready` and sends the file. The old model goes on unless the new
//! one is whole, fits and has recognised something: a file that is damaged, cut short, too large or of another
//! kind is refused with the reason, and nothing is lost. An emulated Cortex-M4F, its UART on standard input and
//! output, takes the model of the smallest program and says every two seconds what it makes of the same motion:
//!
//! ```sh
//! (echo; sleep 1; cat ../minimal/src/gesture.soft) | cargo run --release
//! ```
#![no_std]
#![no_main]

extern crate alloc;

mod uart;
#[path = "../../minimal/src/window.rs"]
mod window;

use core::fmt::{self, Write};
use cortex_m::Peripherals;
use cortex_m_rt::entry;
use embedded_alloc::LlffHeap;
use semihosting as _; // its panic handler
use softedge::engine::{Buffer, Integers, Loaded, Scores};
use softedge::format::{HEADER_BYTES, View, file_bytes};
use softedge::program::Space;
use uart::{Silence, Uart};
use window::WINDOW;

/// For the files and arenas of two models: the old one goes on until the new one has run.
const HEAP_BYTES: usize = 200 * 1024;

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

#[entry]
fn main() -> ! {
    // SAFETY: called once, before anything is allocated.
    unsafe {
        embedded_alloc::init!(HEAP, HEAP_BYTES);
    }
    // Nobody took them before.
    let core = Peripherals::take().unwrap();
    let mut uart = Uart::new(core.SYST);
    let mut model: Option<Model> = None;
    loop {
        // It started before, when it came.
        let mut running = model.as_mut().and_then(|m| m.start().ok());
        let next = next_model(&mut uart, running.as_mut());
        model = Some(next);
    }
}

/// The next model that is any good. Until it is there, `running` goes on, which answers when nobody sends.
fn next_model(uart: &mut Uart, mut running: Option<&mut Loaded<'_, Integers>>) -> Model {
    loop {
        // A line to nobody: if it cannot be written, there is nowhere to say so.
        let _ = match running.as_deref_mut().map(recognise) {
            None => writeln!(uart, "no model yet"),
            Some(Err(refusal)) => writeln!(uart, "{refusal}"),
            Some(Ok(scores)) => {
                let best = scores.argmax();
                writeln!(uart, "{} {}", scores.label(best).unwrap_or("?"), scores.values()[best])
            }
        };
        if uart.read().is_err() {
            continue;
        }
        let _ = writeln!(uart, "ready");
        match receive(uart).and_then(Model::new) {
            Ok(model) => return model,
            Err(refusal) => {
                while uart.read().is_ok() {} // what else the sender sends
                let _ = writeln!(uart, "refused: {refusal}");
            }
        }
    }
}

/// A file from the line: its header says how long it is.
fn receive(uart: &mut Uart) -> Result<Buffer, Refusal> {
    let mut header = [0; HEADER_BYTES];
    uart.read_exact(&mut header)?;
    let mut file = room("file", file_bytes(&header)?)?;
    let (start, rest) = file.bytes_mut().split_at_mut(HEADER_BYTES);
    start.copy_from_slice(&header);
    uart.read_exact(rest)?;
    Ok(file)
}

/// A model's file and its arena.
struct Model {
    file: Buffer,
    arena: Buffer,
}

impl Model {
    /// The model in `file`, checked to its last byte and tried.
    fn new(file: Buffer) -> Result<Self, Refusal> {
        let arena = room("arena", View::new_checked_for::<Integers>(file.bytes())?.size(Space::Arena))?;
        let mut model = Self { file, arena };
        recognise(&mut model.start()?)?;
        Ok(model)
    }

    fn start(&mut self) -> Result<Loaded<'_, Integers>, Refusal> {
        Ok(Loaded::new(self.file.bytes(), self.arena.bytes_mut())?)
    }
}

/// What the model makes of the motion that is there.
fn recognise<'m>(model: &'m mut Loaded<'_, Integers>) -> Result<Scores<'m, i16>, Refusal> {
    let input = model.input::<i16>()?;
    let motion = WINDOW.as_flattened();
    if input.len() != motion.len() {
        return Err(Refusal::Input { takes: input.len(), there: motion.len() });
    }
    input.copy_from_slice(motion);
    Ok(model.run::<i16>()?)
}

/// Zeroed memory from the heap, if it has so much left.
fn room(what: &'static str, needed: usize) -> Result<Buffer, Refusal> {
    Buffer::try_zeroed(needed).map_err(|_| softedge::Error::TooSmall { what, needed, found: HEAP.free() }.into())
}

/// Why a model is not taken.
enum Refusal {
    Silence,
    Model(softedge::Error),
    Input { takes: usize, there: usize },
}

impl From<softedge::Error> for Refusal {
    fn from(error: softedge::Error) -> Self {
        Self::Model(error)
    }
}

impl From<Silence> for Refusal {
    fn from(_: Silence) -> Self {
        Self::Silence
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => write!(f, "the line went silent before the end of the file"),
            Self::Model(error) => write!(f, "{error}"),
            Self::Input { takes, there } => write!(f, "the model takes {takes} samples and {there} are there"),
        }
    }
}
