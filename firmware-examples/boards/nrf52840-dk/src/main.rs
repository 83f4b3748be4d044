//! Exercises from a motion sensor on an nRF52840-DK: an MPU-6050 at P0.27 (SCL) and P0.26 (SDA).
//! `cargo run --release` flashes it and shows its log.
#![no_std]
#![no_main]

use cortex_m::peripheral::DWT;
use defmt::{info, unwrap, warn};
use defmt_rtt as _;
use embassy_executor::Spawner;
use embassy_nrf::twim::{self, Frequency, Twim};
use embassy_nrf::{bind_interrupts, peripherals::TWISPI0};
use embassy_time::{Duration, Ticker, Timer};
use motion::{ARENA, EXERCISES, RATE_HZ, RECORDING, Sample, WINDOW, Watch};
use panic_probe as _;
use softedge::engine::Engine;

bind_interrupts!(struct Interrupts {
    TWISPI0 => twim::InterruptHandler<TWISPI0>;
});

#[embassy_executor::main]
async fn main(_spawner: Spawner) {
    let board = embassy_nrf::init(Default::default()); // 64 MHz
    let mut core = unwrap!(cortex_m::Peripherals::take());
    core.DCB.enable_trace();
    core.DWT.enable_cycle_counter();

    let mut engine = Engine::new(&EXERCISES, unwrap!(ARENA.take()));
    let mut recognise = |window: &[Sample; WINDOW]| {
        engine.input().copy_from_slice(window.as_flattened());
        let start = DWT::cycle_count();
        let scores = engine.run();
        let cycles = DWT::cycle_count().wrapping_sub(start);
        info!("{}, in {} cycles", scores.label(scores.argmax()), cycles);
    };
    recognise(&RECORDING); // what a board without a sensor can do

    let mut bus = twim::Config::default();
    bus.frequency = Frequency::K400;
    let mut buffer = [0; 2]; // DMA sends from RAM: a register and its value
    let twim = Twim::new(board.TWISPI0, Interrupts, board.P0_26, board.P0_27, bus, &mut buffer);
    let mut watch = Watch::new(twim);
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
