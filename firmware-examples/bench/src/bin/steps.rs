//! Runs a model in steps on an emulated board: on standard input the bytes of its file, before them how many they are
//! and the rows of a step, each in a little-endian u32, and one raw input; on standard output the scores. Every step
//! is marked for the counting plugin.
#![no_std]
#![no_main]

use bench::{MODEL_MEMORY, count};
use semihosting::io::{self, Read, Write};
use softedge::engine::{Arena, Integers, Loaded};
use softedge::format::View;
use softedge::program::Space;

static ARENA: Arena<MODEL_MEMORY> = Arena::new();

bench::program!(serve);

fn serve() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin()?, io::stdout()?);
    let mut word = || -> io::Result<usize> {
        let mut bytes = [0; 4];
        input.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes) as usize)
    };
    let (len, rows) = (word()?, word()?);
    // The host made sure that everything fits, and is of these types.
    let (file, arena) = ARENA.take().unwrap().0.split_at_mut(len.next_multiple_of(16));
    let file = &mut file[..len];
    input.read_exact(file)?;
    let arena_bytes = View::new_checked_for::<Integers>(file).unwrap().size(Space::Arena);
    let mut model = Loaded::<Integers>::new(file, &mut arena[..arena_bytes]).unwrap();
    if let Ok(pixels) = model.input::<u8>() {
        input.read_exact(pixels)?;
    } else {
        for sample in model.input::<i16>().unwrap() {
            let mut bytes = [0; 2];
            input.read_exact(&mut bytes)?;
            *sample = i16::from_le_bytes(bytes);
        }
    }

    let mut steps = model.start::<i16>().unwrap();
    loop {
        count::count_start();
        let more = steps.step(rows);
        count::count_stop();
        if !more {
            break;
        }
    }
    for score in steps.finish().values() {
        output.write_all(&score.to_le_bytes())?;
    }
    Ok(())
}
