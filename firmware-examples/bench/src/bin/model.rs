//! Runs a model on an emulated board: on standard input the bytes of its file, how many they are in a
//! little-endian u32 before them, and one raw input; on standard output the scores. Every op is marked for
//! the counting plugin, and a last region that is the end of the loop over them.
#![no_std]
#![no_main]

use bench::{MODEL_MEMORY, count};
use semihosting::io::{self, Read, Write};
use softedge::engine::{Arena, Executor, Integers, Memory};
use softedge::format::View;
use softedge::ops::Tick;
use softedge::program::Space;

static ARENA: Arena<MODEL_MEMORY> = Arena::new();

bench::program!(serve);

fn serve() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin()?, io::stdout()?);
    let mut len = [0; 4];
    input.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len) as usize;
    // The host made sure that everything fits.
    let (file, arena) = ARENA.take().unwrap().0.split_at_mut(len.next_multiple_of(16));
    let file = &mut file[..len];
    input.read_exact(file)?;
    let view = View::new_checked_for::<Integers>(file).unwrap();
    let memory = Memory::new(&mut arena[..view.size(Space::Arena)]);
    let mut executor: Executor<'_, Integers> = Executor::new(view, memory).unwrap();
    input.read_exact(executor.tensor_mut(view.input_id(0)).unwrap())?;

    count::count_start();
    executor.run_watched(0..usize::MAX, &Tick::default(), |_, _, _| {
        count::count_stop();
        count::count_start();
        true
    });
    count::count_stop();
    output.write_all(executor.tensor(view.output_id(0)))
}
