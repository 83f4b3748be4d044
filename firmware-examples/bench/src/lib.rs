//! What is measured: one op, or one head of attention, on fixed data.
//!
//! The same functions run in the firmware of every core and on the host, which knows the right answers.
//! Shapes pass through [`black_box`] and every measured call is a function of its own, so that the
//! compiler can neither specialise an op to its benchmark nor move parts of it out of the measured region.
#![no_std]
#![deny(unsafe_code)]

#[cfg(target_os = "none")]
#[allow(unsafe_code)]
#[path = "../../emulated/src/count.rs"]
pub mod count;
pub mod data;
mod memory;
mod op;
mod soft;
mod workloads;

pub use op::Op;
pub use soft::Soft;
pub use workloads::{MEMORY, WORKLOADS, Workload};

use core::hint::black_box;
use memory::Memory;
use softedge::engine::Aligned;

/// Bytes of memory for a model's file and its arena: what is left of half a megabyte beside a stack.
pub const MODEL_MEMORY: usize = 480 << 10;

/// Makes a program of `serve`, which reads standard input and writes standard output.
#[cfg(target_os = "none")]
#[macro_export]
macro_rules! program {
    ($serve:ident) => {
        #[cfg(target_arch = "arm")]
        use cortex_m_rt::entry;
        #[cfg(target_arch = "riscv32")]
        use riscv_rt::entry;

        #[entry]
        fn main() -> ! {
            semihosting::process::exit(i32::from($serve().is_err()))
        }
    };
}

/// Runs the measured parts of a workload.
pub trait Meter {
    /// Runs `work`; a workload of one part calls it "".
    fn measure(&mut self, part: &'static str, work: impl FnOnce());
}

impl Workload {
    /// Generates the inputs in `memory`, of [`MEMORY`] bytes, runs the op and returns the bytes of its output.
    pub fn run<'m>(&self, memory: &'m mut Aligned<[u8]>, meter: &mut impl Meter) -> &'m [u8] {
        self.op.run(Memory::new(black_box(&mut *memory)), meter);
        &memory.0[..memory::bytes(self.op.signature().output(0))]
    }
}

/// Measures `work` as a function of its own.
fn measure(meter: &mut impl Meter, part: &'static str, work: impl FnOnce()) {
    #[inline(never)]
    fn apart(work: impl FnOnce()) {
        work();
    }
    meter.measure(part, || apart(work));
}
