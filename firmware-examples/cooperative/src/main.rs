//! A main loop without interrupts' help or an operating system: a sensor wants to be read every 20 ms, and a model
//! runs in steps in between. It says how many of the sensor's samples were lost, and how many are where the model
//! runs in one piece.
//!
//! `cargo run --release` runs it on an emulated Cortex-M4F at 25 MHz, whose time goes by the instructions it executes.
#![no_std]
#![no_main]

mod sensor;
#[path = "../../minimal/src/window.rs"]
mod window;

use cortex_m::Peripherals;
use cortex_m_rt::entry;
use semihosting::{println, process};
use sensor::Sensor;
use softedge::engine::{Arena, Engine, Scores};
use window::WINDOW;

/// Rows of a step. Of this model the longest step of so many rows takes a few milliseconds here, of one row less, and
/// all steps together more: `cargo run --release -- --model ../minimal/src/gesture.soft --core m4 --step 8` in
/// `../bench` says how long and how much.
const ROWS: usize = 8;

softedge::include_model!(static GESTURE = "../../minimal/src/gesture.soft");
static ARENA: Arena<{ GESTURE.arena_bytes() }> = Arena::new();

#[entry]
fn main() -> ! {
    // Nobody took them before.
    let mut sensor = Sensor::start(Peripherals::take().unwrap().SYST);
    let mut engine = Engine::new(&GESTURE, ARENA.take().unwrap());

    // 2.56 s of motion.
    let mut motion = [[0; 6]; WINDOW.len()];
    for sample in &mut motion {
        *sample = sensor.wait();
    }
    engine.input().copy_from_slice(motion.as_flattened());
    sensor.forget();
    let mut steps = engine.start();
    // What arrives meanwhile belongs to the next window.
    let mut next = motion.iter_mut();
    while steps.step(ROWS) {
        if let Some(sample) = sensor.read()
            && let Some(place) = next.next()
        {
            *place = sample;
        }
    }
    tell("in steps", &steps.finish(), &mut sensor);

    // The same motion once more.
    engine.input().copy_from_slice(WINDOW.as_flattened());
    sensor.forget();
    let scores = engine.run();
    sensor.read();
    tell("in one piece", &scores, &mut sensor);
    process::exit(0)
}

/// Says what the model recognised, and what became of the sensor's samples meanwhile.
fn tell(how: &str, scores: &Scores<'_, i16>, sensor: &mut Sensor) {
    let Sensor { taken, lost, longest_wait_us, .. } = *sensor;
    println!("{how}: {taken} samples taken, each within {longest_wait_us} us, {lost} lost");
    for (class, score) in scores.values().iter().enumerate() {
        println!("{} {score}", scores.label(class).unwrap_or("?"));
    }
}
