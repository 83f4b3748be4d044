//! Exercises from a motion sensor on an ESP32-C3: an MPU-6050 at GPIO5 (SCL) and GPIO4 (SDA).
//! `cargo run --release` flashes it and shows its log.
#![no_std]
#![no_main]

use defmt::{info, unwrap, warn};
use defmt_rtt as _;
use esp_backtrace as _;
use esp_hal::clock::CpuClock;
use esp_hal::delay::Delay;
use esp_hal::i2c::master::{Config, I2c};
use esp_hal::time::{Instant, Rate};
use motion::{ARENA, EXERCISES, RATE_HZ, RECORDING, Sample, WINDOW, Watch};
use softedge::engine::Engine;

esp_bootloader_esp_idf::esp_app_desc!();
defmt::timestamp!("{=u64:us}", Instant::now().duration_since_epoch().as_micros());

#[esp_hal::main]
fn main() -> ! {
    let board = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::_160MHz));

    let mut engine = Engine::new(&EXERCISES, unwrap!(ARENA.take()));
    let mut recognise = |window: &[Sample; WINDOW]| {
        engine.input().copy_from_slice(window.as_flattened());
        let start = Instant::now();
        let scores = engine.run();
        let cycles = 160 * start.elapsed().as_micros();
        info!("{}, in {} cycles", scores.label(scores.argmax()), cycles);
    };
    recognise(&RECORDING); // what a board without a sensor can do

    let bus = unwrap!(I2c::new(board.I2C0, Config::default().with_frequency(Rate::from_khz(400))));
    let mut watch = Watch::new(bus.with_scl(board.GPIO5).with_sda(board.GPIO4));
    let delay = Delay::new();
    loop {
        match watch.window() {
            Ok(Some(window)) => recognise(window),
            Ok(None) => delay.delay_millis(1000 / RATE_HZ as u32),
            Err(error) => {
                warn!("the sensor: {}", error);
                delay.delay_millis(1000);
            }
        }
    }
}
