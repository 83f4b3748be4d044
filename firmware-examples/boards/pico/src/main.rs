//! Exercises from a motion sensor on a Raspberry Pi Pico (RP2040): an MPU-6050 at GP5 (SCL) and GP4 (SDA).
//! `cargo run --release` flashes it and shows its log.
#![no_std]
#![no_main]

use defmt::{info, unwrap, warn};
use defmt_rtt as _;
use embassy_executor::Spawner;
use embassy_rp::clocks::clk_sys_freq;
use embassy_rp::i2c::{self, I2c};
use embassy_time::{Duration, Instant, Ticker, Timer};
use motion::{ARENA, EXERCISES, RATE_HZ, RECORDING, Sample, WINDOW, Watch};
use panic_probe as _;
use softedge::engine::Engine;

#[embassy_executor::main]
async fn main(_spawner: Spawner) {
    let board = embassy_rp::init(Default::default()); // 125 MHz

    let mut engine = Engine::new(&EXERCISES, unwrap!(ARENA.take()));
    let mut recognise = |window: &[Sample; WINDOW]| {
        engine.input().copy_from_slice(window.as_flattened());
        let start = Instant::now(); // of a timer: a Cortex-M0+ does not count cycles
        let scores = engine.run();
        let cycles = start.elapsed().as_micros() * u64::from(clk_sys_freq() / 1_000_000);
        info!("{}, in {} cycles", scores.label(scores.argmax()), cycles);
    };
    recognise(&RECORDING); // what a board without a sensor can do

    let mut bus = i2c::Config::default();
    bus.frequency = 400_000;
    let mut watch = Watch::new(I2c::new_blocking(board.I2C0, board.PIN_5, board.PIN_4, bus));
    let mut ticker = Ticker::every(Duration::from_hz(RATE_HZ));
    loop {
        match watch.window() {
            Ok(Some(window)) => recognise(window),
            Ok(None) => ticker.next().await,
            Err(error) => {
                warn!("the sensor: {}", error);
                Timer::after_secs(1).await;
            }
        }
    }
}
