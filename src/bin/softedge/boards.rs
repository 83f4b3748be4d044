//! Common boards: does a model fit?

/// A board or chip.
pub struct Board {
    /// Name of the chip and of a board that has it.
    pub name: &'static str,
    /// Its core and clock.
    pub core: &'static str,
    /// Flash that a program can be read from in place, KiB.
    pub flash_kib: usize,
    /// Largest contiguous RAM, KiB: an arena is one piece.
    pub ram_kib: usize,
}

/// Flash for code beside the model: the engine of a SOFT model took 40 to 55 KiB, by core.
pub const CODE_BYTES: usize = 56 << 10;
/// RAM for the stack and a small application beside the arena: an inference took 1 KiB of stack.
pub const STACK_BYTES: usize = 4 << 10;

impl Board {
    /// Whether a model with a file of `flash` bytes and an arena of `ram` bytes fits, with room for the
    /// code and the stack.
    pub fn fits(&self, flash: usize, ram: usize) -> bool {
        flash + CODE_BYTES <= self.flash_kib << 10 && ram + STACK_BYTES <= self.ram_kib << 10
    }
}

const fn board(name: &'static str, core: &'static str, flash_kib: usize, ram_kib: usize) -> Board {
    Board { name, core, flash_kib, ram_kib }
}

/// From small to large. External flash is that of the usual board; RAM is from the data sheets.
pub const BOARDS: [Board; 15] = [
    board("nRF51822 (micro:bit v1)", "Cortex-M0, 16 MHz", 256, 16),
    board("STM32F103C8 (Blue Pill)", "Cortex-M3, 72 MHz", 64, 20),
    board("GD32VF103CB (Longan Nano)", "RV32IMAC, 108 MHz", 128, 32),
    board("STM32L476RG (Nucleo)", "Cortex-M4F, 80 MHz", 1024, 96),
    board("STM32F411RE (Nucleo)", "Cortex-M4F, 100 MHz", 512, 128),
    board("nRF52833 (micro:bit v2)", "Cortex-M4F, 64 MHz", 512, 128),
    board("STM32F407VG (Discovery)", "Cortex-M4F, 168 MHz", 1024, 128),
    board("nRF52840 (Nano 33 BLE)", "Cortex-M4F, 64 MHz", 1024, 256),
    board("RP2040 (Pico)", "Cortex-M0+, 133 MHz", 2048, 264),
    board("STM32F746NG (Discovery)", "Cortex-M7, 216 MHz", 1024, 320),
    board("ESP32-C3", "RV32IMC, 160 MHz", 4096, 384),
    board("nRF5340", "Cortex-M33, 128 MHz", 1024, 512),
    board("STM32H743ZI (Nucleo)", "Cortex-M7, 480 MHz", 2048, 512),
    board("RP2350 (Pico 2)", "Cortex-M33, 150 MHz", 4096, 520),
    board("STM32U585AI (Discovery)", "Cortex-M33, 160 MHz", 2048, 768),
];
