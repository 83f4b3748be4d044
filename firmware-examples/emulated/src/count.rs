//! Marks what the plugin in `tools/icount` counts: it knows these two functions by name. Both are
//! one instruction long, so the count is exact: the work and the call of the second mark.

/// Runs `work` between the two marks.
pub fn instructions_of<R>(work: impl FnOnce() -> R) -> R {
    count_start();
    let result = work();
    count_stop();
    result
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn count_start() {
    #[cfg(target_arch = "arm")]
    core::arch::naked_asm!("bx lr");
    #[cfg(target_arch = "riscv32")]
    core::arch::naked_asm!("ret");
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn count_stop() {
    #[cfg(target_arch = "arm")]
    core::arch::naked_asm!("bx lr");
    #[cfg(target_arch = "riscv32")]
    core::arch::naked_asm!("ret");
}
