//! Two models on one arena, with the arena and the weights where the linker script wants them:
//! what is in a picture, and which exercise is in 2.56 seconds of motion.
//!
//! `cargo run --release` runs it on an emulated Cortex-M4F.
#![no_std]
#![no_main]

#[path = "../../minimal/src/window.rs"]
mod window;

use cortex_m_rt::entry;
use semihosting::{println, process};
use softedge::engine::{Arena, Engine};
use window::WINDOW;

softedge::include_model!(
    #[unsafe(link_section = ".weights")]
    static FASHION = "fashion.soft"
);
softedge::include_model!(
    #[unsafe(link_section = ".weights")]
    static GESTURE = "../../minimal/src/gesture.soft"
);

static PICTURE: &[u8] = include_bytes!("picture.u8");

/// As large as the larger model needs.
const ARENA_BYTES: usize = {
    let (a, b) = (FASHION.arena_bytes(), GESTURE.arena_bytes());
    if a > b { a } else { b }
};

#[unsafe(link_section = ".arena")]
static ARENA: Arena<ARENA_BYTES> = Arena::new();

unsafe extern "C" {
    static mut __sarena: u32;
    static mut __earena: u32;
}

/// Zeroes the arena's section: the start-up code knows the standard ones only.
fn clear_arena() {
    let (start, end) = (&raw mut __sarena, &raw mut __earena);
    // SAFETY: the linker script puts nothing but the arena between the two, and nobody has it yet.
    unsafe { start.write_bytes(0, (end as usize - start as usize) / 4) }
}

#[entry]
fn main() -> ! {
    clear_arena();
    let arena = ARENA.take().unwrap();

    let mut engine = Engine::new(&FASHION, arena);
    engine.input().copy_from_slice(PICTURE);
    let scores = engine.run();
    println!("{}", scores.label(scores.argmax()).unwrap_or("?"));

    let mut engine = Engine::new(&GESTURE, arena);
    engine.input().copy_from_slice(WINDOW.as_flattened());
    let scores = engine.run();
    println!("{}", scores.label(scores.argmax()).unwrap_or("?"));

    process::exit(0)
}
