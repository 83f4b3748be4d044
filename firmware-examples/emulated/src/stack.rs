//! The high-water mark of the stack, found by painting it.

use core::{arch::asm, ptr};

const PAINT: u32 = 0xC5C5_C5C5;
/// Bytes below the stack pointer that are left alone, and the smallest figure there is.
const MARGIN: usize = 32;

unsafe extern "C" {
    /// End of the statics: the lowest word that the stack may reach, in both runtimes' linker scripts.
    static mut __sheap: u32;
}

/// What `work` gives and the bytes of stack it used, counted from its caller.
#[inline(never)]
pub fn used_by<R>(work: impl FnOnce() -> R) -> (R, u32) {
    let bottom = &raw mut __sheap;
    let top = stack_pointer();
    let painted = (top - bottom as usize - MARGIN) / 4;
    for i in 0..painted {
        // SAFETY: the words between the end of the statics and the stack pointer belong to nobody.
        unsafe { ptr::write_volatile(bottom.add(i), PAINT) };
    }
    let result = call(work);
    // SAFETY: as above; the words are initialised, by the paint or by `work`.
    let untouched = (0..painted).take_while(|&i| unsafe { ptr::read_volatile(bottom.add(i)) } == PAINT).count();
    (result, (top - bottom as usize - 4 * untouched) as u32)
}

/// Gives `work` a frame of its own: inlined into [`used_by`], it would keep values above `top`.
#[inline(never)]
fn call<R>(work: impl FnOnce() -> R) -> R {
    work()
}

fn stack_pointer() -> usize {
    let sp;
    // SAFETY: copies one register.
    #[cfg(target_arch = "arm")]
    unsafe {
        asm!("mov {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "riscv32")]
    unsafe {
        asm!("mv {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags));
    }
    sp
}
