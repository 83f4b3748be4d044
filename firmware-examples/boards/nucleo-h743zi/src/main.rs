//! Exercises from a motion sensor on a NUCLEO-H743ZI: an MPU-6050 at D15 (SCL) and D14 (SDA).
//! `cargo run --release` flashes it and shows its log.
#![no_std]
#![no_main]

use cortex_m::peripheral::DWT;
use defmt::{info, unwrap, warn};
use defmt_rtt as _;
use embassy_executor::Spawner;
use embassy_stm32::i2c::{self, I2c};
use embassy_stm32::rcc::{AHBPrescaler, APBPrescaler, Pll, PllDiv, PllMul, PllPreDiv, PllSource, Sysclk, VoltageScale};
use embassy_stm32::time::Hertz;
use embassy_time::{Duration, Ticker, Timer};
use motion::{ARENA, EXERCISES, RATE_HZ, RECORDING, Sample, WINDOW, Watch};
use panic_probe as _;
use softedge::engine::Engine;

#[embassy_executor::main]
async fn main(_spawner: Spawner) {
    // 400 MHz from the internal oscillator, 200 MHz for the buses.
    let mut config = embassy_stm32::Config::default();
    config.rcc.pll1 = Some(Pll {
        source: PllSource::HSI,
        prediv: PllPreDiv::DIV4,
        mul: PllMul::MUL50,
        fracn: None,
        divp: Some(PllDiv::DIV2),
        divq: None,
        divr: None,
    });
    config.rcc.sys = Sysclk::PLL1_P;
    config.rcc.ahb_pre = AHBPrescaler::DIV2;
    config.rcc.apb1_pre = APBPrescaler::DIV2;
    config.rcc.apb2_pre = APBPrescaler::DIV2;
    config.rcc.apb3_pre = APBPrescaler::DIV2;
    config.rcc.apb4_pre = APBPrescaler::DIV2;
    config.rcc.voltage_scale = VoltageScale::Scale1;
    let board = embassy_stm32::init(config);
    let mut core = unwrap!(cortex_m::Peripherals::take());
    core.SCB.enable_icache(); // flash is far slower than the core
    core.SCB.enable_dcache(&mut core.CPUID);
    core.DCB.enable_trace();
    DWT::unlock(); // which only a Cortex-M7 needs
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
