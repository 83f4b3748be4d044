//! A motion sensor without a queue: a sample that was not read before the next one is there is lost. The timer
//! stands for it, and the motion is always the same.

use crate::window::WINDOW;
use core::sync::atomic::{AtomicU32, Ordering};
use cortex_m::asm;
use cortex_m::peripheral::{SYST, syst::SystClkSource};
use cortex_m_rt::exception;

/// The processor's clock.
const TICKS_PER_US: u32 = 25;
/// 50 samples a second.
const PERIOD_US: u32 = 20_000;

/// Samples that there were, of which the last is still there.
static SAMPLES: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    // Nobody else writes it.
    SAMPLES.store(SAMPLES.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

pub struct Sensor {
    /// The number of the sample that was read last.
    number: u32,
    /// Samples that were read.
    pub taken: u32,
    /// Samples that were there and are not any more.
    pub lost: u32,
    /// How long a sample that was read had been there, at most.
    pub longest_wait_us: u32,
}

impl Sensor {
    /// Its first sample is there after a period.
    pub fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(PERIOD_US * TICKS_PER_US - 1);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        Self { number: 0, taken: 0, lost: 0, longest_wait_us: 0 }
    }

    /// The sample that is there, if it was not read before.
    pub fn read(&mut self) -> Option<[i16; 6]> {
        let number = SAMPLES.load(Ordering::Relaxed);
        let new = number.wrapping_sub(self.number);
        if new == 0 {
            return None;
        }
        // The timer counts down.
        let waited = PERIOD_US - SYST::get_current() / TICKS_PER_US;
        self.longest_wait_us = self.longest_wait_us.max(waited);
        self.taken += 1;
        self.lost += new - 1;
        self.number = number;
        Some(WINDOW[(number as usize - 1) % WINDOW.len()])
    }

    /// Waits for the next sample.
    pub fn wait(&mut self) -> [i16; 6] {
        loop {
            if let Some(sample) = self.read() {
                return sample;
            }
            // Wakes for a tick that came just before, too.
            asm::wfe();
        }
    }

    /// Counts from here on.
    pub fn forget(&mut self) {
        (self.taken, self.lost, self.longest_wait_us) = (0, 0, 0);
    }
}
