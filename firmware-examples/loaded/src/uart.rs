//! The first UART of the emulated board (an APB UART of Arm's CMSDK), and how long its line is silent by the
//! core's own timer. Their interrupts have no handlers: they stay disabled, and wake the core when it sleeps.

use core::fmt;
use core::ptr::{read_volatile, write_volatile};
use cortex_m::asm::wfi;
use cortex_m::interrupt::{self, InterruptNumber};
use cortex_m::peripheral::{NVIC, SCB, SYST, syst::SystClkSource};

const DATA: *mut u32 = 0x4000_4000 as _;
const STATE: *mut u32 = 0x4000_4004 as _;
const CONTROL: *mut u32 = 0x4000_4008 as _;
const INTERRUPTS: *mut u32 = 0x4000_400c as _;
const BAUD_DIVIDER: *mut u32 = 0x4000_4010 as _;

/// Bits of `STATE`: a byte waits to be sent, one was received.
const SENDING: u32 = 1 << 0;
const RECEIVED: u32 = 1 << 1;

const CLOCK_HZ: u32 = 25_000_000;
const BAUD: u32 = 115_200;

/// Half seconds without a byte that end a transfer.
const SILENCE: u32 = 4;

/// The interrupt of a received byte.
#[derive(Clone, Copy)]
struct Received;

// SAFETY: the board's number.
unsafe impl InterruptNumber for Received {
    fn number(self) -> u16 {
        0
    }
}

/// The line.
pub struct Uart {
    timer: SYST,
}

/// The line was silent for two seconds.
pub struct Silence;

impl Uart {
    /// The UART, with the timer that times its silences.
    pub fn new(mut timer: SYST) -> Self {
        interrupt::disable();
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(CLOCK_HZ / 2 - 1);
        timer.enable_interrupt();
        timer.enable_counter();
        // SAFETY: registers of the UART, which nobody else has.
        unsafe {
            write_volatile(BAUD_DIVIDER, CLOCK_HZ / BAUD);
            write_volatile(CONTROL, 0b1011); // both directions, an interrupt for what is received
            NVIC::unmask(Received);
        }
        Self { timer }
    }

    /// The next byte.
    pub fn read(&mut self) -> Result<u8, Silence> {
        self.timer.clear_current();
        let mut silence = 0;
        while silence < SILENCE {
            // SAFETY: registers of the UART, which nobody else has.
            unsafe {
                write_volatile(INTERRUPTS, RECEIVED);
                NVIC::unpend(Received);
                if read_volatile(STATE) & RECEIVED != 0 {
                    return Ok(read_volatile(DATA) as u8);
                }
            }
            SCB::clear_pendst();
            wfi();
            silence += u32::from(self.timer.has_wrapped());
        }
        Err(Silence)
    }

    /// Bytes until `into` is full.
    pub fn read_exact(&mut self, into: &mut [u8]) -> Result<(), Silence> {
        for byte in into {
            *byte = self.read()?;
        }
        Ok(())
    }

    fn write(&mut self, byte: u8) {
        // SAFETY: registers of the UART, which nobody else has.
        unsafe {
            while read_volatile(STATE) & SENDING != 0 {}
            write_volatile(DATA, u32::from(byte));
        }
    }
}

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.write(byte));
        Ok(())
    }
}
