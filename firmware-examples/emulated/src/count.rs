//! Marks what the plugin in `tools/icount` counts: it knows [`count_start`] and [`count_stop`] by name. Both
//! are one instruction long, so the count is exact: the work and the call of the second mark.

/// Runs `work` between the two marks.
pub fn instructions_of<R>(work: impl FnOnce() -> R) -> R {
    count_start();
    let result = work();
    count_stop();
    result
}

/// What follows is counted.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub extern "C" fn count_start() {
    #[cfg(target_arch = "arm")]
    core::arch::naked_asm!("bx lr");
    #[cfg(target_arch = "riscv32")]
    core::arch::naked_asm!("ret");
}

/// What came before was counted.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub extern "C" fn count_stop() {
    #[cfg(target_arch = "arm")]
    core::arch::naked_asm!("bx lr");
    #[cfg(target_arch = "riscv32")]
    core::arch::naked_asm!("ret");
}
