//! Exercises from a motion sensor on a NUCLEO-F446RE: an MPU-6050 at D15 (SCL) and D14 (SDA).
//! `cargo run --release` flashes it and shows its log.
#![no_std]
#![no_main]

use cortex_m::peripheral::DWT;
use defmt::{info, unwrap, warn};
use defmt_rtt as _;
use embassy_executor::Spawner;
use embassy_stm32::i2c::{self, I2c};
use embassy_stm32::rcc::{APBPrescaler, Pll, PllMul, PllPDiv, PllPreDiv, PllSource, Sysclk};
use embassy_stm32::time::Hertz;
use embassy_time::{Duration, Ticker, Timer};
use motion::{ARENA, EXERCISES, RATE_HZ, RECORDING, Sample, WINDOW, Watch};
use panic_probe as _;
use softedge::engine::Engine;

#[embassy_executor::main]
async fn main(_spawner: Spawner) {
    // 168 MHz from the internal oscillator.
    let mut config = embassy_stm32::Config::default();
    config.rcc.pll_src = PllSource::HSI;
    config.rcc.pll =
        Some(Pll { prediv: PllPreDiv::DIV8, mul: PllMul::MUL168, divp: Some(PllPDiv::DIV2), divq: None, divr: None });
    config.rcc.sys = Sysclk::PLL1_P;
    config.rcc.apb1_pre = APBPrescaler::DIV4;
    config.rcc.apb2_pre = APBPrescaler::DIV2;
    let board = embassy_stm32::init(config);
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

    let mut bus = i2c::Config::default();
    bus.frequency = Hertz(400_000);
    let mut watch = Watch::new(I2c::new_blocking(board.I2C1, board.PB8, board.PB9, bus));
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
