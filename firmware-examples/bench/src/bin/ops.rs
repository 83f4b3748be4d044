//! Runs workloads on an emulated board, as a filter: their numbers in bytes on standard input, and for
//! each the checksum of its output in a little-endian u32 on standard output. Their measured parts are
//! marked for the counting plugin.
#![no_std]
#![no_main]

use bench::{MEMORY, Meter, WORKLOADS, count, data};
use semihosting::io::{self, Read, Write};
use softedge::engine::Arena;

static ARENA: Arena<MEMORY> = Arena::new();

bench::program!(serve);

fn serve() -> io::Result<()> {
    let (mut requests, mut answers) = (io::stdin()?, io::stdout()?);
    let memory = ARENA.take().unwrap();
    let mut number = [0];
    while requests.read_exact(&mut number).is_ok() {
        let output = WORKLOADS[usize::from(number[0])].run(memory, &mut Plugin);
        answers.write_all(&data::checksum(output).to_le_bytes())?;
    }
    Ok(())
}

/// The counting plugin of the emulator, which only needs marks.
struct Plugin;

impl Meter for Plugin {
    fn measure(&mut self, _: &'static str, work: impl FnOnce()) {
        count::instructions_of(work);
    }
}
